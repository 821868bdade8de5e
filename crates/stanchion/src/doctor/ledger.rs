//! The ledger: every page, every row, history and figures. Where a server holds it, what a backup of it reads.

use super::Finding;
use crate::{backup, config::Settings};
use anyhow::{Context, Result};
use std::{os::unix::fs::MetadataExt, sync::Arc, time::Duration};
use stdx::{Clock, SystemClock, Timestamp};
use store::{StoreError, backend::Hold};

/// Files' times are of the second, and clocks are corrected a little all the time.
const AHEAD: Duration = Duration::from_secs(60);

pub(super) fn check(settings: &Settings) -> Result<Vec<Finding>> {
    let state = settings.data_dir.join("state");
    if !state.join("ledger").exists() {
        return Ok(vec![Finding::Note("there is none yet".to_owned())]);
    }
    let mut findings = vec![match Hold::take(&state) {
        Ok(hold) => closed(hold, settings),
        Err(StoreError::InUse { pid, .. }) => held(pid, settings),
        Err(error) => return Err(error).context("open it"),
    }];
    let written = std::fs::metadata(state.join("ledger/log")).context("look at the log")?.mtime();
    let ahead = Timestamp::from_seconds(written).since(SystemClock.now());
    if ahead > AHEAD {
        findings.push(Finding::wrong(
            format!("it was written {} s from now: the clock was set back", ahead.as_secs()),
            "set the clock; until it has caught up, events and tokens last longer",
        ));
    }
    Ok(findings)
}

fn closed(hold: Hold, settings: &Settings) -> Finding {
    let ledger = hold.ledger();
    let examined = hold.open(Arc::new(SystemClock)).and_then(|store| store.examine());
    match examined {
        Ok(examined) => Finding::Fine(format!(
            "{} objects and {} revisions of history up to {}, all of them read",
            examined.keys, examined.revisions, examined.latest
        )),
        Err(error @ StoreError::NewerVersion { .. }) => {
            Finding::wrong(stdx::one_line(&error), "use the program that wrote it, or a newer one")
        }
        Err(error) => Finding::wrong(
            format!("{}: {}", ledger.display(), stdx::one_line(&error)),
            format!(
                "stanchion restore FILE --data-dir {}: the ledger that is there is kept beside it",
                settings.data_dir.display()
            ),
        ),
    }
}

fn held(pid: Option<u32>, settings: &Settings) -> Finding {
    let holder = pid.map_or_else(|| "a server".to_owned(), |pid| format!("process {pid}"));
    match backup::rehearse(&settings.data_dir) {
        Ok(counts) => Finding::Fine(format!(
            "{} objects, all of them read by {holder}; history is looked at while no server runs",
            counts.entries
        )),
        Err(error) => Finding::wrong(
            format!("{holder} cannot read it: {}", stdx::one_line(error.as_ref())),
            "look at the server's log; stop it and look again",
        ),
    }
}
