//! Every object that the cluster knows, at one revision. Cheap to clone; never changes.
//!
//! There is one per process. API reads, controllers, the scheduler, DNS and service routing all look
//! at it; none keeps a copy.

use crate::{Change, ObjectKey, Plan, Row, Step, Table, Typed};
use api::{GroupResource, Kind, KindRef, codec::DecodeError};
use bytes::Bytes;
use imbl::OrdMap;
use std::sync::Arc;
use stdx::Timestamp;

#[derive(Clone, Default)]
pub struct World {
    pub revision: u64,
    tables: OrdMap<GroupResource, Arc<Table>>,
}

/// One object that a commit touched.
#[derive(Clone, Debug)]
pub struct Touched {
    pub kind: KindRef,
    pub key: ObjectKey,
    pub old: Option<Arc<Row>>,
    pub new: Option<Arc<Row>>,
}

impl World {
    pub fn get<T: Kind>(&self, key: &ObjectKey) -> Option<Typed<T>> {
        self.table::<T>()?.get(key)?.typed()
    }

    /// An object of the cluster, by name.
    pub fn cluster<T: Kind>(&self, name: &str) -> Option<Typed<T>> {
        self.get(&ObjectKey::cluster(name))
    }

    /// All objects of a kind in one namespace, in order of name.
    pub fn list<T: Kind>(&self, namespace: &str) -> impl Iterator<Item = Typed<T>> {
        let rows = self.table::<T>().map(|it| it.rows(Some(namespace)));
        rows.into_iter().flatten().filter_map(|it| it.typed())
    }

    /// All objects of a kind in all namespaces, in order of namespace and name.
    pub fn all<T: Kind>(&self) -> impl Iterator<Item = Typed<T>> {
        let rows = self.table::<T>().map(|it| it.rows(None));
        rows.into_iter().flatten().filter_map(|it| it.typed())
    }

    /// Objects that a kind's `index_keys` filed under this value.
    pub fn indexed<T: Kind>(
        &self,
        index: &'static str,
        value: &str,
    ) -> impl Iterator<Item = Typed<T>> {
        let rows = self.table::<T>().map(|it| it.indexed(index, value));
        rows.into_iter().flatten().filter_map(|it| it.typed())
    }

    /// Objects whose controller is `uid`.
    pub fn owned<T: Kind>(&self, uid: &str) -> impl Iterator<Item = Typed<T>> {
        let rows = self.table::<T>().map(|it| it.owned(uid));
        let controlled =
            move |row: &&Arc<Row>| row.meta.controller().is_some_and(|it| it.uid == uid);
        rows.into_iter().flatten().filter(controlled).filter_map(|it| it.typed())
    }

    pub fn row(&self, resource: &GroupResource, key: &ObjectKey) -> Option<&Arc<Row>> {
        self.tables.get(resource)?.get(key)
    }

    pub fn row_of<T: Kind>(&self, key: &ObjectKey) -> Option<&Arc<Row>> {
        self.table::<T>()?.get(key)
    }

    /// Every table that ever held an object, custom kinds included.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.values()
    }

    pub fn table_of(&self, resource: &GroupResource) -> Option<&Arc<Table>> {
        self.tables.get(resource)
    }

    pub fn table<T: Kind>(&self) -> Option<&Table> {
        self.tables.get(&api::kind_of::<T>().resource()).map(|it| &**it)
    }

    /// Takes stored bytes in at a revision.
    pub fn put(
        &mut self,
        kind: &KindRef,
        bytes: Bytes,
        revision: u64,
    ) -> Result<Touched, DecodeError> {
        let row = Arc::new(Row::new(kind, bytes, revision)?);
        Ok(self.put_row(row))
    }

    pub fn put_row(&mut self, row: Arc<Row>) -> Touched {
        self.revision = self.revision.max(row.revision);
        let (kind, key) = (row.kind.clone(), row.key());
        let old = self.table_mut(&kind).insert(row.clone());
        Touched { kind, key, old, new: Some(row) }
    }

    /// Takes a removal in at a revision.
    pub fn remove(&mut self, kind: &KindRef, key: &ObjectKey, revision: u64) -> Touched {
        self.revision = self.revision.max(revision);
        let old = self.table_mut(kind).remove(key, revision);
        Touched { kind: kind.clone(), key: key.clone(), old, new: None }
    }

    /// The world as it will be once `plan` is written. Deciders look at this instead of keeping a
    /// cache of what they assume; the simulator turns it into the next world.
    pub fn after(&self, plan: &Plan, now: Timestamp) -> World {
        let writes = plan.steps.iter().filter_map(|it| match it {
            Step::Write(changes) => Some(changes),
            Step::Call(..) => None,
        });
        let mut world = self.clone();
        for change in writes.flatten().chain(&plan.status) {
            world.apply(change, now);
        }
        world
    }

    /// One change, by the rules that the door applies; what it did, if anything.
    pub fn apply(&mut self, change: &Change, now: Timestamp) -> Option<Touched> {
        let kind = change.kind.clone();
        match change.decide(self, now) {
            crate::change::Decided::Put(object) => {
                let (revision, bytes) = (self.revision + 1, Bytes::from(object.encode()));
                let row = Row::with_object(&kind, bytes, revision, object);
                Some(self.put_row(Arc::new(row.expect("an encoded object decodes"))))
            }
            crate::change::Decided::Remove => {
                Some(self.remove(&kind, &change.key, self.revision + 1))
            }
            crate::change::Decided::Nothing => None,
        }
    }

    /// Does again what `apply` did to another world, if this one still holds what it was done to.
    pub fn reapply(&mut self, touched: &Touched) -> bool {
        let row = self.row(&touched.kind.resource(), &touched.key);
        let same = match (row, &touched.old) {
            (Some(row), Some(old)) => Arc::ptr_eq(row, old),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        match &touched.new {
            _ if !same => {}
            Some(row) => drop(self.put_row(row.clone())),
            None => drop(self.remove(&touched.kind, &touched.key, self.revision + 1)),
        }
        same
    }

    fn table_mut(&mut self, kind: &KindRef) -> &mut Table {
        let table = self.tables.entry(kind.resource());
        Arc::make_mut(table.or_insert_with(|| Arc::new(Table::new(kind.clone()))))
    }
}
