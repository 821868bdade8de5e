//! A world that is put together from many watches, each at its own revision, and from what was written meanwhile.
//!
//! **Invariant:** an object never goes back: of two versions the later stays, whichever way it came.

use crate::{Feed, feed};
use api::{GroupResource, KindRef};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};
use world::{ObjectKey, Row, Touched, World};

/// How many ticks a follower may lag before it has to look at everything again.
const BACKLOG: usize = 1024;

/// Deletions that are remembered, the latest of them: an answer that tells of a time before comes within the time that
/// a request may take.
const GONE_MAX: usize = 1024;

pub(super) struct Partial {
    state: Mutex<State>,
    feed: Feed,
}

#[derive(Default)]
struct State {
    world: World,
    /// What is no more: a watch or an answer that is on the way may tell of a time before.
    gone: BTreeMap<(GroupResource, ObjectKey), Gone>,
}

/// Versions of an object that do not come back.
struct Gone {
    /// Up to this one.
    revision: u64,
    /// And every one with this uid, until a watch says at which revision it ended: this process has deleted it.
    uid: Option<String>,
}

impl Partial {
    pub(super) fn new() -> Partial {
        Partial { state: Mutex::default(), feed: feed(BACKLOG, World::default()) }
    }

    pub(super) fn feed(&self) -> &Feed {
        &self.feed
    }

    pub(super) fn put(&self, row: Arc<Row>) {
        self.change(|state| state.put(row).into_iter().collect());
    }

    /// A watch says that an object was deleted at a revision.
    pub(super) fn removed(&self, kind: &KindRef, key: &ObjectKey, revision: u64) {
        self.change(|state| {
            state.bury(kind, key, Gone { revision, uid: None });
            state.remove(kind, key, revision).into_iter().collect()
        });
    }

    /// What is known under a key by now.
    pub(super) fn known(&self, kind: &KindRef, key: &ObjectKey) -> Option<Arc<Row>> {
        self.feed.latest().row(&kind.resource(), key).cloned()
    }

    /// There is no such object, or it is none of this node's any more.
    pub(super) fn absent(&self, kind: &KindRef, key: &ObjectKey) {
        self.change(|state| state.remove(kind, key, u64::MAX).into_iter().collect());
    }

    /// The object of which `before` is a version is there no more. What was made under its key while that was found out
    /// is another one, and stays: its watch has told of it, and will not tell again.
    pub(super) fn ended(&self, before: &Row) {
        self.change(|state| state.end(before).into_iter().collect());
    }

    /// This process has deleted the object of which `before` was the version that it knew.
    pub(super) fn gone(&self, before: &Row) {
        self.change(|state| {
            let gone = Gone { revision: before.revision, uid: Some(before.meta.uid.clone()) };
            state.bury(&before.kind, &before.key(), gone);
            state.end(before).into_iter().collect()
        });
    }

    /// Takes in everything that a scope held at a revision: what `covers` says is in it and was not told is gone.
    pub(super) fn replace(
        &self,
        kind: &KindRef,
        covers: impl Fn(&ObjectKey) -> bool,
        rows: Vec<Arc<Row>>,
        revision: u64,
    ) {
        self.change(|state| {
            let told: BTreeSet<ObjectKey> = rows.iter().map(|it| it.key()).collect();
            let known = state.world.table_of(&kind.resource()).cloned();
            let known = known.iter().flat_map(|it| it.rows(None)).map(|it| it.key());
            let lost: Vec<ObjectKey> =
                known.filter(|it| covers(it) && !told.contains(it)).collect();
            let mut touched: Vec<Touched> =
                rows.into_iter().filter_map(|it| state.put(it)).collect();
            for key in &lost {
                if let Some(removed) = state.remove(kind, key, revision) {
                    state.bury(kind, key, Gone { revision, uid: None });
                    touched.push(removed);
                }
            }
            touched
        });
    }

    /// Whoever follows sees the changes in the order in which they were made here.
    fn change(&self, change: impl FnOnce(&mut State) -> Vec<Touched>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let touched = change(&mut state);
        if !touched.is_empty() {
            self.feed.publish(state.world.clone(), touched.into());
        }
    }
}

impl State {
    fn put(&mut self, row: Arc<Row>) -> Option<Touched> {
        let (resource, key) = (row.kind.resource(), row.key());
        if self.world.row(&resource, &key).is_some_and(|it| it.revision >= row.revision) {
            return None;
        }
        if self.gone.get(&(resource, key)).is_some_and(|it| it.holds(&row)) {
            return None;
        }
        Some(self.world.put_row(row))
    }

    fn bury(&mut self, kind: &KindRef, key: &ObjectKey, gone: Gone) {
        let place = (kind.resource(), key.clone());
        if self.gone.get(&place).is_some_and(|it| it.revision >= gone.revision) {
            return;
        }
        self.gone.insert(place, gone);
        if self.gone.len() > GONE_MAX {
            let oldest = self.gone.iter().min_by_key(|(_, it)| it.revision);
            let oldest = oldest.map(|(place, _)| place.clone());
            oldest.and_then(|it| self.gone.remove(&it));
        }
    }

    fn end(&mut self, before: &Row) -> Option<Touched> {
        let (kind, key) = (&before.kind, before.key());
        let row = self.world.row(&kind.resource(), &key)?;
        let is_it = row.meta.uid == before.meta.uid;
        is_it.then(|| self.remove(kind, &key, u64::MAX)).flatten()
    }

    fn remove(&mut self, kind: &KindRef, key: &ObjectKey, revision: u64) -> Option<Touched> {
        let row = self.world.row(&kind.resource(), key)?;
        let at = self.world.revision;
        (row.revision <= revision).then(|| self.world.remove(kind, key, at))
    }
}

impl Gone {
    fn holds(&self, row: &Row) -> bool {
        row.revision <= self.revision || self.uid.as_deref() == Some(&*row.meta.uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{Object, core::v1::Pod};
    use bytes::Bytes;

    fn row(name: &str, uid: &str, revision: u64) -> Arc<Row> {
        let json = format!(r#"{{"metadata":{{"name":"{name}","namespace":"a","uid":"{uid}"}}}}"#);
        let kind = api::kind_of::<Pod>();
        Arc::new(Row::new(kind, Bytes::from(json), revision).unwrap())
    }

    fn names(partial: &Partial) -> Vec<String> {
        let world = partial.feed().latest();
        world.list::<Pod>("a").map(|it| format!("{}@{}", it.name(), it.revision())).collect()
    }

    #[test]
    fn an_object_never_goes_back() {
        let (partial, kind) = (Partial::new(), api::kind_of::<Pod>());
        let key = ObjectKey::new("a", "p");
        partial.put(row("p", "1", 7));
        partial.put(row("p", "1", 5));
        partial.removed(kind, &key, 6);
        assert_eq!(names(&partial), ["p@7"]);
        partial.gone(&row("p", "1", 7));
        partial.put(row("p", "1", 7));
        assert!(names(&partial).is_empty(), "a late watch brings back what was deleted here");
        partial.put(row("p", "2", 9));
        assert_eq!(names(&partial), ["p@9"], "its successor is another one");
    }

    /// A status is written at 7, the pod is deleted at 8, and the watch is faster than the answer to the write: nobody
    /// would ever have taken the pod out again, and its node would have run it on.
    #[test]
    fn an_answer_that_comes_late_does_not_bring_back_what_a_watch_removed() {
        let (partial, kind) = (Partial::new(), api::kind_of::<Pod>());
        let key = ObjectKey::new("a", "p");
        partial.put(row("p", "1", 7));
        partial.removed(kind, &key, 8);
        partial.put(row("p", "1", 7));
        assert!(names(&partial).is_empty(), "{:?}", names(&partial));
        partial.put(row("p", "2", 9));
        partial.replace(kind, |_| true, Vec::new(), 10);
        partial.put(row("p", "2", 9));
        assert!(names(&partial).is_empty(), "a list that lacks it tells as much");
        // A ledger that was restored has the same object again, at a later revision.
        partial.put(row("p", "2", 11));
        assert_eq!(names(&partial), ["p@11"]);
    }

    /// A node deletes its pod, and before it hears so the watch brings the successor of the same name: that one would
    /// have been taken out, and never been started.
    #[test]
    fn a_deletion_that_is_answered_late_leaves_the_successor_alone() {
        let partial = Partial::new();
        partial.put(row("p", "2", 9));
        partial.gone(&row("p", "1", 7));
        partial.ended(&row("p", "1", 7));
        assert_eq!(names(&partial), ["p@9"]);
        partial.put(row("p", "2", 10));
        partial.ended(&row("p", "2", 9));
        assert!(names(&partial).is_empty(), "{:?}", names(&partial));
    }

    #[test]
    fn only_the_latest_deletions_are_remembered() {
        let (partial, kind) = (Partial::new(), api::kind_of::<Pod>());
        let last = u64::try_from(GONE_MAX).unwrap() + 1;
        for n in 1..=last {
            partial.removed(kind, &ObjectKey::new("a", &format!("p{n}")), n);
        }
        assert_eq!(partial.state.lock().unwrap().gone.len(), GONE_MAX);
        partial.put(row("p2", "2", 2));
        partial.put(row(&format!("p{last}"), "last", last));
        assert!(names(&partial).is_empty(), "{:?}", names(&partial));
    }

    #[test]
    fn a_new_list_takes_out_what_it_lacks_and_keeps_what_is_newer() {
        let (partial, kind) = (Partial::new(), api::kind_of::<Pod>());
        for (name, revision) in [("old", 3), ("kept", 4), ("written", 9)] {
            partial.put(row(name, name, revision));
        }
        partial.replace(kind, |_| true, vec![row("kept", "kept", 4), row("new", "new", 5)], 6);
        assert_eq!(names(&partial), ["kept@4", "new@5", "written@9"]);
    }
}
