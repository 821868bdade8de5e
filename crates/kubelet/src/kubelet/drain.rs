//! `stanchion down`: every process ends, everything is unmounted, and what belongs to users stays.

use super::Kubelet;
use crate::{
    ledger::Record,
    lifecycle::{self, Stop},
    plan::{self, volumes::EMPTY_DIR},
    runtime::{Container, Observed, RuntimeError, State},
    static_pods::runtime_uid,
};
use ::volumes::mount;
use api::{Object, core::v1::Pod};
use futures_util::future::join_all;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use world::Typed;

/// Without a word from the pod, as upstream.
const GRACE_SECONDS: i64 = 30;

/// A pod that was taken down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drained {
    /// `namespace/name`, or its uid where nothing else is known.
    pub pod: String,
    /// Whether what it wants for its end was known: its hooks, and which containers are sidecars.
    pub is_known: bool,
    /// Nothing of it ran any more; it only had volumes.
    pub had_ended: bool,
}

impl Kubelet {
    /// Ends every pod on this machine and unmounts its volumes; what could not be done is said, a sentence each.
    ///
    /// For a node whose `run` is not turning. Objects are not touched: the next start brings the pods back.
    pub async fn drain_all(&self) -> Result<Vec<Drained>, Vec<String>> {
        self.end_workers();
        let mut failures = Vec::new();
        let mut running = BTreeMap::new();
        match self.shared.runtime.pods().await {
            Ok(pods) => {
                running.extend(pods.into_iter().map(|it| (it.uid, join(&it.namespace, &it.name))));
            }
            Err(error) => failures.push(format!("list running pods: {error}")),
        }
        let mut uids: BTreeSet<String> = running.keys().cloned().collect();
        uids.extend(self.shared.volumes.ledger().all().into_iter().map(|it| it.uid));
        let world = self.shared.client.world();
        // What matters less goes first, and is gone before the next: others may need what matters more to end well.
        type Leaving<'a> = (&'a String, Option<Typed<Pod>>);
        let mut steps: BTreeMap<i32, Vec<Leaving<'_>>> = BTreeMap::new();
        for uid in &uids {
            let all = world.indexed::<Pod>("node", &self.config.node_name);
            let pod = all.into_iter().find(|it| runtime_uid(it) == uid);
            let priority = pod.as_ref().and_then(|it| it.spec.as_ref()?.priority).unwrap_or(0);
            steps.entry(priority).or_default().push((uid, pod));
        }
        let mut all = Vec::new();
        for pods in steps.values() {
            let drained = pods.iter().map(|(uid, pod)| self.drain(uid, pod.as_deref()));
            failures.extend(join_all(drained).await.into_iter().flatten());
            all.extend(pods.iter().map(|(uid, pod)| {
                let key = pod.as_ref().map(|it| join(it.namespace(), it.name()));
                Drained {
                    pod: key.or_else(|| running.get(*uid).cloned()).unwrap_or((*uid).clone()),
                    is_known: pod.is_some(),
                    had_ended: !running.contains_key(*uid),
                }
            }));
        }
        if failures.is_empty() { Ok(all) } else { Err(failures) }
    }

    async fn drain(&self, uid: &str, pod: Option<&Pod>) -> Vec<String> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            vec![format!("{what} of pod {uid}: {error}")]
        };
        let runtime = &self.shared.runtime;
        let observed = match runtime.observe(uid).await {
            Ok(observed) => observed,
            Err(error) => return failed("look at the containers", &error),
        };
        if let Err(error) = self.end(&observed, pod).await {
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

impl Kubelet {
    /// Ends what runs of one pod as a deletion would: hooks first, then sidecars after what they served.
    async fn end(&self, observed: &Observed, pod: Option<&Pod>) -> Result<(), RuntimeError> {
        let shared = &self.shared;
        let told = observed.sandboxes.iter().find_map(|it| it.grace_seconds);
        let grace = Duration::from_secs(told.unwrap_or(GRACE_SECONDS).max(0).unsigned_abs());
        let by = shared.clock.now().plus(grace);
        let address = match observed.sandbox() {
            Some(it) if !it.host_network => it.ip.clone(),
            Some(_) | None => shared.facts.node_address.clone(),
        };
        let init = pod.and_then(|it| it.spec.as_ref()?.init_containers.as_deref());
        // The last sidecar ends first; what is none ends before all of them.
        let turn = |seen: &Container| {
            let sidecars = init.unwrap_or_default().iter().rev().filter(|it| plan::is_sidecar(it));
            sidecars.into_iter().position(|it| it.name == seen.name).map_or(0, |it| it + 1)
        };
        let living = observed
            .containers
            .iter()
            .filter(|it| matches!(it.state, State::Running | State::Unknown));
        let mut turns: BTreeMap<usize, Vec<&Container>> = BTreeMap::new();
        for seen in living {
            turns.entry(turn(seen)).or_default().push(seen);
        }
        for containers in turns.values() {
            let stops: Vec<Stop<'_>> = containers
                .iter()
                .map(|it| Stop {
                    pod: pod.map(Object::uid).unwrap_or_default(),
                    container: &it.name,
                    id: &it.id,
                    by,
                    why: plan::Why::Ending,
                    first: true,
                })
                .collect();
            let stopped = stops.iter().map(|it| lifecycle::stop(shared, pod, it, &address));
            join_all(stopped).await.into_iter().collect::<Result<(), RuntimeError>>()?;
        }
        Ok(())
    }
}

fn join(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// An emptyDir on the disk is nothing but files: they are there when the pod comes back.
fn is_plain_directory(record: &Record) -> bool {
    record.plugin == EMPTY_DIR
        && matches!(mount::mounts_below(&record.target), Ok(mounts) if mounts.is_empty())
}
