//! `stanchion down`: every process ends, everything is unmounted, and what belongs to users stays.

use super::Kubelet;
use crate::{ledger::Record, plan::volumes::EMPTY_DIR, runtime::State};
use ::volumes::mount;
use futures_util::future::join_all;
use std::collections::BTreeSet;

/// Without a word from the pod, as upstream.
const GRACE_SECONDS: i64 = 30;

impl Kubelet {
    /// Ends every pod on this machine and unmounts its volumes; what could not be done is said, a sentence each.
    ///
    /// For a node whose `run` is not turning. Objects are not touched: the next start brings the pods back.
    pub async fn drain_all(&self) -> Result<(), Vec<String>> {
        self.end_workers();
        let mut uids = BTreeSet::new();
        let mut failures = Vec::new();
        match self.shared.runtime.pods().await {
            Ok(pods) => uids.extend(pods.into_iter().map(|it| it.uid)),
            Err(error) => failures.push(format!("list running pods: {error}")),
        }
        uids.extend(self.shared.volumes.ledger().all().into_iter().map(|it| it.uid));
        let drained = join_all(uids.iter().map(|it| self.drain(it))).await;
        failures.extend(drained.into_iter().flatten());
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    async fn drain(&self, uid: &str) -> Vec<String> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            vec![format!("{what} of pod {uid}: {error}")]
        };
        let runtime = &self.shared.runtime;
        let observed = match runtime.observe(uid).await {
            Ok(observed) => observed,
            Err(error) => return failed("look at the containers", &error),
        };
        let told = observed.sandboxes.iter().find_map(|it| it.grace_seconds);
        let grace = told.unwrap_or(GRACE_SECONDS);
        let living = observed
            .containers
            .iter()
            .filter(|it| matches!(it.state, State::Running | State::Unknown));
        let stopped = join_all(living.map(|it| runtime.stop_container(&it.id, grace))).await;
        if let Some(error) = stopped.into_iter().find_map(Result::err) {
            return failed("stop a container", &error);
        }
        for sandbox in &observed.sandboxes {
            if let Err(error) = runtime.stop_sandbox(&sandbox.id).await {
                return failed("stop the sandbox", &error);
            }
            if let Err(error) = runtime.remove_sandbox(&sandbox.id).await {
                return failed("remove the sandbox", &error);
            }
        }
        let records = self.shared.volumes.ledger().of_pod(uid);
        let mut failures = Vec::new();
        for record in records.iter().filter(|it| !is_plain_directory(it)) {
            let volumes = &self.shared.volumes;
            let unpublished = volumes.unpublish(uid, &record.volume, &self.shared.facts).await;
            if let Err(error) = unpublished {
                failures.push(format!("pod {}: {}", record.pod, stdx::one_line(&error)));
            }
        }
        failures
    }
}

/// An emptyDir on the disk is nothing but files: they are there when the pod comes back.
fn is_plain_directory(record: &Record) -> bool {
    record.plugin == EMPTY_DIR
        && matches!(mount::mounts_below(&record.target), Ok(mounts) if mounts.is_empty())
}
