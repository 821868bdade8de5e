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

/// Own deletions that are remembered until their watch tells of them.
const GONE_MAX: usize = 1024;

pub(super) struct Partial {
    state: Mutex<State>,
    feed: Feed,
}

#[derive(Default)]
struct State {
    world: World,
    /// What this process has removed, by uid: a watch may not have come that far.
    gone: BTreeMap<(GroupResource, ObjectKey), String>,
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
        self.change(|state| state.remove(kind, key, revision).into_iter().collect());
    }

    /// A read says that there is no such object.
    pub(super) fn absent(&self, kind: &KindRef, key: &ObjectKey) {
        self.change(|state| state.remove(kind, key, u64::MAX).into_iter().collect());
    }

    /// This process has deleted the object itself.
    pub(super) fn gone(&self, kind: &KindRef, key: &ObjectKey) {
        self.change(|state| {
            if let Some(row) = state.world.row(&kind.resource(), key) {
                if state.gone.len() >= GONE_MAX {
                    state.gone.clear();
                }
                state.gone.insert((kind.resource(), key.clone()), row.meta.uid.clone());
            }
            state.remove(kind, key, u64::MAX).into_iter().collect()
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
            touched.extend(lost.iter().filter_map(|it| state.remove(kind, it, revision)));
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
        if self.gone.get(&(resource, key)).is_some_and(|it| *it == row.meta.uid) {
            return None;
        }
        Some(self.world.put_row(row))
    }

    fn remove(&mut self, kind: &KindRef, key: &ObjectKey, revision: u64) -> Option<Touched> {
        let row = self.world.row(&kind.resource(), key)?;
        let at = self.world.revision;
        (row.revision <= revision).then(|| self.world.remove(kind, key, at))
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
        partial.gone(kind, &key);
        partial.put(row("p", "1", 7));
        assert!(names(&partial).is_empty(), "a late watch brings back what was deleted here");
        partial.put(row("p", "2", 9));
        assert_eq!(names(&partial), ["p@9"], "its successor is another one");
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
