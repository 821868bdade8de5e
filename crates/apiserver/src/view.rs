//! What the door reads from: the world and, beside it, the events, both at one revision.
//!
//! Events stay outside the world: nobody decides by them, and they would outweigh everything else.

use api::{AnyKind, KindRef};
use imbl::{OrdMap, OrdSet};
use std::sync::Arc;
use store::Key;
use world::{ObjectKey, Row, Table, Touched, World};

#[derive(Clone)]
pub(crate) struct View {
    pub(crate) world: World,
    events: Arc<Table>,
    /// Keys that stand for node ports of Services.
    pub(crate) reserved: OrdSet<Key>,
    /// Keys that charges to the quotas of a namespace write in turn, and when they were written.
    pub(crate) epochs: OrdMap<Key, u64>,
    /// May be ahead of the world's own revision: not every commit touches the world.
    pub(crate) revision: u64,
}

/// Whether objects of this kind live beside the world.
pub(crate) fn is_event(kind: &AnyKind) -> bool {
    kind.plural == "events" && kind.group.is_empty()
}

impl View {
    pub(crate) fn new() -> View {
        let kind = api::kind_of::<api::core::v1::Event>();
        let events = Arc::new(Table::new(kind.clone()));
        View {
            world: World::default(),
            events,
            reserved: OrdSet::new(),
            epochs: OrdMap::new(),
            revision: 0,
        }
    }

    /// `None` when no object of the kind was ever stored.
    pub(crate) fn table(&self, kind: &AnyKind) -> Option<&Table> {
        if is_event(kind) {
            return Some(&self.events);
        }
        self.world.table_of(&kind.resource()).map(|it| &**it)
    }

    pub(crate) fn row(&self, kind: &AnyKind, key: &ObjectKey) -> Option<&Arc<Row>> {
        self.table(kind)?.get(key)
    }

    pub(crate) fn put(&mut self, row: Arc<Row>) -> Touched {
        self.revision = self.revision.max(row.revision);
        if !is_event(&row.kind) {
            return self.world.put_row(row);
        }
        let (kind, key) = (row.kind.clone(), row.key());
        let old = Arc::make_mut(&mut self.events).insert(row.clone());
        Touched { kind, key, old, new: Some(row) }
    }

    pub(crate) fn remove(&mut self, kind: &KindRef, key: &ObjectKey, revision: u64) -> Touched {
        self.revision = self.revision.max(revision);
        if !is_event(kind) {
            return self.world.remove(kind, key, revision);
        }
        let old = Arc::make_mut(&mut self.events).remove(key, revision);
        Touched { kind: kind.clone(), key: key.clone(), old, new: None }
    }
}
