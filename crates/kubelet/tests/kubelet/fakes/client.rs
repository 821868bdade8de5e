//! A ledger in memory.

use super::PATIENCE;
use api::{Failure, Kind, core::v1::Pod};
use client::{Client, Feed, Follower, Written, feed};
use std::sync::{Arc, Mutex};
use stdx::{BoxFuture, Clock, SystemClock};
use world::{Change, Event, Expected, Touched, Verb, World};

pub(crate) struct FakeClient {
    world: Mutex<World>,
    feed: Feed,
    pub(crate) events: Mutex<Vec<Event>>,
}

impl FakeClient {
    pub(crate) fn new() -> Arc<FakeClient> {
        let world = World::default();
        let feed = feed(1024, world.clone());
        Arc::new(FakeClient { world: Mutex::new(world), feed, events: Mutex::default() })
    }

    pub(crate) fn apply(&self, change: &Change) -> std::result::Result<Written, Failure> {
        let mut world = self.world.lock().unwrap();
        let resource = change.kind.resource();
        let old = world.row(&resource, &change.key).cloned();
        let name = &*change.key.name;
        let fits = match &change.expected {
            Expected::Absent => old.is_none(),
            Expected::Revision(revision) => old.as_ref().is_some_and(|it| it.revision == *revision),
            Expected::Uid(uid) => old.as_ref().is_some_and(|it| it.meta.uid == *uid),
            Expected::Anything => true,
        };
        if !fits {
            return Err(match (&old, change.verb) {
                (Some(_), Verb::Create) => Failure::already_exists(&change.kind, name),
                (Some(_), _) => Failure::modified(&change.kind, name),
                (None, _) => Failure::not_found(&change.kind, name),
            });
        }
        world.apply(change, SystemClock.now());
        let new = world.row(&resource, &change.key).cloned();
        let touched =
            Touched { kind: change.kind.clone(), key: change.key.clone(), old, new: new.clone() };
        let revision = world.revision;
        self.feed.publish(world.clone(), Arc::from([touched]));
        Ok(Written { revision, rows: vec![new] })
    }

    pub(crate) fn put<T: Kind>(&self, object: T) {
        self.apply(&Change::create(object)).expect("a new object");
    }

    /// The first world in which `found` finds something.
    pub(crate) async fn until<T>(&self, what: &str, found: impl FnMut(&World) -> Option<T>) -> T {
        let mut follower = self.feed.follow();
        let found = stdx::timeout(PATIENCE, follower.until(found)).await;
        let pods: Vec<_> = self.world().all::<Pod>().map(|it| it.to_owned()).collect();
        found.flatten().unwrap_or_else(|| panic!("never: {what}\n{pods:#?}"))
    }

    pub(crate) fn said(&self) -> Vec<String> {
        let events = self.events.lock().unwrap();
        events.iter().map(|it| format!("{} {}", it.reason, it.message)).collect()
    }
}

impl Client for FakeClient {
    fn world(&self) -> World {
        self.world.lock().unwrap().clone()
    }

    fn follow(&self) -> Follower {
        self.feed.follow()
    }

    fn write(&self, changes: Vec<Change>) -> BoxFuture<'_, std::result::Result<Written, Failure>> {
        Box::pin(async move {
            let [change] = changes.as_slice() else { panic!("one change at a time") };
            self.apply(change)
        })
    }

    fn record(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }
}
