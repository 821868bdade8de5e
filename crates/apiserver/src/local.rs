//! The verbs without HTTP, for loops in the same process: all changes of a step in one commit.

use crate::{
    admit::{Deleting, Part},
    commit::{Draft, Effect},
    epoch::Epoch,
    server::Server,
    user::User,
    view::View,
};
use api::Failure;
use client::{Client, Follower, Token, TokenWish, Written};
use std::sync::Arc;
use stdx::BoxFuture;
use world::{Change, Event, Expected, Row, Verb, World};

pub(crate) struct Local {
    server: Arc<Server>,
    user: User,
    /// Nothing is written once it is over.
    epoch: Option<Epoch>,
}

impl Local {
    pub(crate) fn new(server: Arc<Server>, user: User, epoch: Option<Epoch>) -> Local {
        Local { server, user, epoch }
    }

    fn draft(&self, view: &View, change: &Change) -> Result<Draft, Failure> {
        let (server, kind, user, key) = (&*self.server, &change.kind, &self.user, &change.key);
        let row = expect(view, change)?;
        let object = || change.object.as_deref().cloned().ok_or_else(|| nothing_to_write(change));
        let update = |part| {
            let mut object = object()?;
            // What was expected is judged above, by the change's own words.
            object.metadata_mut().resource_version = row.map(|it| it.revision.to_string());
            server.draft_update(view, kind, user, key, part, object)
        };
        match change.verb {
            Verb::Create => server.draft_create(view, kind, user, Part::Own, object()?),
            Verb::CreateWithStatus => server.draft_create(view, kind, user, Part::Both, object()?),
            Verb::Update => update(Part::Own),
            Verb::Status => update(Part::Status),
            Verb::Both => update(Part::Both),
            Verb::Delete { grace_seconds, propagation } => {
                let asked = Deleting { grace_seconds, propagation, ..Deleting::default() };
                server.draft_delete(view, kind, user, key, &asked)
            }
            Verb::Check => Ok(Draft::new(kind, key.clone(), row, Effect::Keep { checked: true })),
        }
    }
}

impl Client for Local {
    fn world(&self) -> World {
        self.server.ledger.feed.latest()
    }

    fn follow(&self) -> Follower {
        self.server.ledger.feed.follow()
    }

    fn write(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<Written, Failure>> {
        Box::pin(async move {
            assert_one_of_each_kind(&changes);
            let propose = |view: &View| {
                let drafts = changes.iter().map(|it| self.draft(view, it));
                let mut drafts = drafts.collect::<Result<Vec<_>, Failure>>()?;
                if let (Some(first), Some(epoch)) = (drafts.first_mut(), self.epoch) {
                    first.checks.push(epoch.check());
                }
                Ok(drafts)
            };
            let settled = self.server.write(false, propose).await?;
            let rows = settled.outcomes.into_iter();
            let rows = rows.map(|it| it.row.filter(|_| !it.removed)).collect();
            Ok(Written { revision: settled.revision, rows })
        })
    }

    fn token(&self, wish: TokenWish) -> BoxFuture<'_, Result<Token, Failure>> {
        Box::pin(async move {
            let view = self.server.fresh(None).await?;
            Ok(self.server.issue_token(&view, &self.user, &wish)?.token)
        })
    }

    fn record(&self, event: Event) {
        self.server.recorder.record(&self.user.name, event, self.server.now());
    }
}

/// What must be true of the object as the change was decided; its row, if it is there.
fn expect<'a>(view: &'a View, change: &Change) -> Result<Option<&'a Arc<Row>>, Failure> {
    let (kind, name) = (&change.kind, &*change.key.name);
    let row = view.row(kind, &change.key);
    match (&change.expected, row) {
        (Expected::Absent, Some(_)) if change.verb == Verb::Check => {
            Err(Failure::modified(kind, name))
        }
        (Expected::Absent, Some(_)) => Err(Failure::already_exists(kind, name)),
        (Expected::Absent | Expected::Anything, row) => Ok(row),
        (Expected::Revision(_) | Expected::Uid(_), None) => Err(Failure::not_found(kind, name)),
        (Expected::Revision(revision), Some(row)) if row.revision == *revision => Ok(Some(row)),
        (Expected::Uid(uid), Some(row)) if row.meta.uid == *uid => Ok(Some(row)),
        (Expected::Revision(_), Some(_)) => Err(Failure::modified(kind, name)),
        // The one that was meant is gone; this one only has its name.
        (Expected::Uid(_), Some(_)) => Err(Failure::not_found(kind, name)),
    }
}

/// Several objects of one kind at one revision would make a resumed watch lose events.
fn assert_one_of_each_kind(changes: &[Change]) {
    let written: Vec<_> = changes.iter().filter(|it| it.is_write()).map(|it| &it.kind).collect();
    for (n, kind) in written.iter().enumerate() {
        assert!(!written[..n].contains(kind), "a commit holds at most one object of each kind");
    }
}

fn nothing_to_write(change: &Change) -> Failure {
    Failure::internal(format!("{change} carries no object"))
}
