//! `stanchion store copy`: the ledger of a stopped data dir moves onto an etcd, with its revisions.

use crate::config::{DataDir, EtcdFlags};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use std::sync::Arc;
use stdx::SystemClock;
use store::{
    Revision, Store,
    backend::{Etcd, Hold},
};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Copy the ledger of a stopped data dir onto an empty etcd: every object keeps its resourceVersion
    Copy(Flags),
}

#[derive(Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    data: DataDir,
    /// An etcd that was never written to: etcd://HOST:PORT[,HOST:PORT...] or etcds://...
    #[arg(long, value_name = "URL")]
    to: String,
    #[command(flatten)]
    tls: EtcdFlags,
}

/// Progress is told so often.
const STEPS: u64 = 10;

pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Copy(flags) => copy(flags),
    }
}

fn copy(flags: &Flags) -> Result<()> {
    let data_dir = flags.data.existing()?;
    let state = data_dir.join("state");
    if !flags.to.starts_with("etcd://") && !flags.to.starts_with("etcds://") {
        bail!(
            "copy to {:?}: expected etcd://HOST:PORT or etcds://HOST:PORT; from an etcd into a data dir, `stanchion \
             backup` and `restore` do it",
            flags.to
        );
    }
    if !state.join("ledger").exists() {
        bail!("copy the ledger of {}: it holds none", data_dir.display());
    }
    let hold = Hold::take(&state).with_context(|| format!("open {}", state.display()))?;
    let store = hold.open(Arc::new(SystemClock));
    let store = store.with_context(|| format!("open the ledger of {}", data_dir.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build().context("start")?;
    let read = async { anyhow::Ok((store.snapshot().await?, store.leases().await?)) };
    let (snapshot, leases) = runtime.block_on(read).context("read the ledger")?;
    let mut next = 1;
    let mut tell = |at: Revision, of: Revision| {
        while next <= STEPS && at.0 >= of.0 * next / STEPS {
            eprintln!("revision {at} of {of}");
            next += 1;
        }
    };
    let copied = Etcd::receive(&flags.to, &flags.tls.files(), &*snapshot, &leases, &mut tell);
    let copied = copied
        .with_context(|| format!("copy the ledger of {} to {}", data_dir.display(), flags.to))?;
    println!(
        "copied {} objects, each at its revision, to {} (revision {})",
        copied.entries, flags.to, copied.revision
    );
    if copied.moved > 0 {
        println!("{} of revision 1 are at 2: etcd begins with 1", copied.moved);
    }
    println!(
        "the ledger in {} is as it was; from now on start with --store {}",
        data_dir.display(),
        flags.to
    );
    Ok(())
}
