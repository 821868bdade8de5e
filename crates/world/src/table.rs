//! All objects of one kind, in the order of their store keys, with the indexes that the brain asks.

use crate::{
    ObjectKey, Row,
    row::{IndexKey, OWNER},
};
use api::KindRef;
use imbl::{OrdMap, OrdSet};
use std::{ops::Bound, sync::Arc};

#[derive(Clone)]
pub struct Table {
    pub kind: KindRef,
    rows: OrdMap<ObjectKey, Arc<Row>>,
    /// (index, value) → the objects that carry it.
    index: OrdMap<IndexKey, OrdSet<ObjectKey>>,
    /// The commit that touched this table last.
    pub revision: u64,
}

impl Table {
    pub fn new(kind: KindRef) -> Table {
        Table { kind, rows: OrdMap::new(), index: OrdMap::new(), revision: 0 }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<Row>> {
        self.rows.get(key)
    }

    /// Rows in key order; those of one namespace, or of all.
    pub fn rows(&self, namespace: Option<&str>) -> impl Iterator<Item = &Arc<Row>> {
        let from = Bound::Included(ObjectKey::new(namespace.unwrap_or_default(), ""));
        let within = move |row: &&Arc<Row>| namespace.is_none_or(|it| row.meta.namespace == it);
        self.rows.range((from, Bound::Unbounded)).map(|(_, row)| row).take_while(within)
    }

    /// Rows in key order that come after `key`.
    pub fn rows_after(&self, key: &ObjectKey) -> impl Iterator<Item = &Arc<Row>> {
        self.rows.range((Bound::Excluded(key.clone()), Bound::Unbounded)).map(|(_, row)| row)
    }

    /// Rows that a kind's `index_keys` filed under this value.
    pub fn indexed(&self, index: &'static str, value: &str) -> impl Iterator<Item = &Arc<Row>> {
        let keys = self.index.get(&(index, Arc::from(value)));
        keys.into_iter().flatten().filter_map(|key| self.rows.get(key))
    }

    /// Rows of one index whose value is `from` or comes after it, in the order of values.
    pub fn indexed_from<'a>(
        &'a self,
        index: &'static str,
        from: &str,
    ) -> impl Iterator<Item = (&'a str, &'a Arc<Row>)> + use<'a> {
        let from = Bound::Included((index, Arc::from(from)));
        let values =
            self.index.range((from, Bound::Unbounded)).take_while(move |((it, _), _)| *it == index);
        values.flat_map(move |((_, value), keys)| {
            keys.iter().filter_map(move |key| Some((&**value, self.rows.get(key)?)))
        })
    }

    /// Rows that name this uid as an owner.
    pub fn owned(&self, uid: &str) -> impl Iterator<Item = &Arc<Row>> {
        self.indexed(OWNER, uid)
    }

    /// Puts a row in place of the one with its key and returns that.
    pub fn insert(&mut self, row: Arc<Row>) -> Option<Arc<Row>> {
        let key = row.key();
        self.revision = self.revision.max(row.revision);
        let old = self.rows.insert(key.clone(), row.clone());
        let keys = row.index_keys();
        let old_keys = old.as_deref().map(Row::index_keys).unwrap_or_default();
        for gone in old_keys.iter().filter(|it| !keys.contains(it)) {
            self.unfile(gone, &key);
        }
        for new in keys.iter().filter(|it| !old_keys.contains(it)) {
            self.index.entry(new.clone()).or_default().insert(key.clone());
        }
        old
    }

    pub fn remove(&mut self, key: &ObjectKey, revision: u64) -> Option<Arc<Row>> {
        self.revision = self.revision.max(revision);
        let old = self.rows.remove(key)?;
        for gone in old.index_keys() {
            self.unfile(gone, key);
        }
        Some(old)
    }

    fn unfile(&mut self, value: &IndexKey, key: &ObjectKey) {
        if let Some(keys) = self.index.get_mut(value) {
            keys.remove(key);
            if keys.is_empty() {
                self.index.remove(value);
            }
        }
    }
}
