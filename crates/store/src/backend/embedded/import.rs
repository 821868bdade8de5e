//! A ledger made of another one's entries, in one transaction: it is complete, or it is not used.

use super::{
    Embedded, database, directory, medium::Medium, pages::Pages, store_error, tables::Tables,
};
use crate::{Entry, LeaseId, StoreError};
use std::{path::Path, sync::Arc, time::Duration};
use stdx::Timestamp;

impl Embedded {
    /// Makes a ledger in the directory `at`, which is not there yet. `entries` hands each entry to
    /// its argument; `last` comes behind all of them: the latest revision, and where history begins.
    pub fn import<E: From<StoreError>>(
        at: &Path,
        leases: &[(LeaseId, Duration)],
        entries: impl FnOnce(&mut dyn FnMut(&Entry) -> Result<(), StoreError>) -> Result<(), E>,
        last: &Entry,
        now: Timestamp,
    ) -> Result<(), E> {
        directory::import(at, leases, entries, last, now)
    }
}

pub(super) fn fill<E: From<StoreError>>(
    pages: Arc<dyn Medium>,
    leases: &[(LeaseId, Duration)],
    entries: impl FnOnce(&mut dyn FnMut(&Entry) -> Result<(), StoreError>) -> Result<(), E>,
    last: &Entry,
    now: Timestamp,
) -> Result<(), E> {
    let (pages, _id) = Pages::open(pages)?;
    let path = pages.medium().path().to_owned();
    let error = |error: redb::Error| store_error("fill", &path, pages.damage(), error);
    let (database, _walked) = database(&pages)?;
    let mut transaction = database.begin_write().map_err(|e| error(e.into()))?;
    let mut tables = Tables::open(&transaction).map_err(|e| error(e.into()))?;
    for (lease, ttl) in leases {
        tables.import_lease(*lease, *ttl).map_err(|e| error(e.into()))?;
    }
    entries(&mut |entry| {
        assert!(entry.modified < last.modified, "the last entry comes behind all others");
        tables.import(entry).map_err(|e| error(e.into()))
    })?;
    tables.begin_history(last, now).map_err(|e| error(e.into()))?;
    tables.save().map_err(|e| error(e.into()))?;
    transaction.set_quick_repair(true);
    transaction.commit().map_err(|e| error(e.into()))?;
    Ok(())
}
