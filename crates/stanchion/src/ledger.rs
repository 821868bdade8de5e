//! The ledger that the flags name. One on etcd may serve several servers of one cluster, and of that one only: they have
//! the same authority and the same key of tokens, and say so in the ledger.

use crate::{config::StoreFlags, pki::Authority};
use anyhow::{Context, Result, bail};
use std::{path::Path, sync::Arc};
use stdx::SystemClock;
use store::{
    Batch, CommitError, Expect, Key, Store,
    backend::{self, Hold},
};

/// Whose cluster this is: the authority's certificate and the public key of tokens.
const AUTHORITY: &str = "/registry/stanchion/authority";

/// Below the data dir of a server, wherever its objects are.
pub(crate) const DIRECTORY: &str = "state";

/// A ledger, and the data dir held for this process: an embedded one holds its own.
pub(crate) struct Ledger {
    pub(crate) store: Arc<dyn Store>,
    _hold: Option<Hold>,
}

pub(crate) fn open(flags: &StoreFlags, data_dir: &Path) -> Result<Ledger> {
    let state = data_dir.join(DIRECTORY);
    let attempt = || match flags.is_shared() {
        true => "open the ledger".to_owned(),
        false => format!("open the ledger of {}", data_dir.display()),
    };
    let hold = match flags.is_shared() {
        true => Some(Hold::take(&state).with_context(attempt)?),
        false => None,
    };
    if let Some(unused) = hold.as_ref().map(Hold::ledger).filter(|it| it.exists()) {
        tracing::warn!(
            "the ledger in {} is not used: objects are in {} (`stanchion store copy` copies them)",
            unused.display(),
            flags.store
        );
    }
    let store = backend::open(&flags.store, &flags.tls.files(), &state, Arc::new(SystemClock));
    Ok(Ledger { store: store.with_context(attempt)?, _hold: hold })
}

/// Fails where another cluster keeps its objects.
pub(crate) async fn check_cluster(
    store: &dyn Store,
    flags: &StoreFlags,
    authority: &Authority,
    data_dir: &Path,
) -> Result<()> {
    let (key, own) = (Key::from(AUTHORITY), authority.public()?);
    let attempt = || format!("look whose cluster is in {}", flags.store);
    match store.commit(Batch::new().put(key.clone(), Expect::Absent, own.clone())).await {
        Ok(_) => return Ok(()),
        Err(CommitError::Conflict { .. }) => {}
        Err(error) => return Err(error).with_context(attempt),
    }
    let there = store.snapshot().await.with_context(attempt)?.get(&key).with_context(attempt)?;
    if there.is_some_and(|it| it.value == own.as_bytes()) {
        return Ok(());
    }
    bail!(
        "use {}: its cluster has another authority, or another key of tokens, than {}: copy all of the directory pki \
         from the data dir of one of its servers",
        flags.store,
        data_dir.join("pki").display()
    )
}
