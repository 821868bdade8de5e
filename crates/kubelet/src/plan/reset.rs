//! All containers of a pod begin again, in the sandbox that they have, because one of them ended as a rule says.
//!
//! The pod's condition says so before anything is taken away, and that it is over before anything is started: whenever
//! this node's server dies, the next one knows where it was. Upstream: `kuberuntime_manager.go` (getContainersToReset),
//! `container/helpers.go` (ShouldAllContainersRestart), 1.36.

use super::{Action, Why, pod::Plan};
use crate::runtime::{Container as Seen, Observed, State};
use api::core::{
    pod::{condition, restarts_all},
    v1::{Container, Pod, PodSpec},
};
use std::collections::BTreeSet;

pub const CONDITION: &str = "AllContainersRestarting";
/// What the pod's status says of a container that was removed for it.
pub const REASON: &str = "RestartingAllContainers";

/// Whether all containers are to begin again, or are on their way to.
pub fn is_wanted(pod: &Pod, observed: &Observed) -> bool {
    is_told(pod) || containers(pod.spec.as_ref()).any(|it| is_cause(it, observed.latest(&it.name)))
}

/// Whether nothing is left of the containers, and nothing of them is on its way.
pub fn is_cleared(pod: &Pod, observed: &Observed, starting: &BTreeSet<String>) -> bool {
    let mut all = containers(pod.spec.as_ref());
    all.all(|it| observed.latest(&it.name).is_none()) && !is_starting(pod, starting)
}

fn is_starting(pod: &Pod, starting: &BTreeSet<String>) -> bool {
    containers(pod.spec.as_ref()).any(|it| starting.contains(&it.name))
}

/// The API knows.
fn is_told(pod: &Pod) -> bool {
    condition(pod, CONDITION).is_some_and(|it| it.status == "True")
}

fn containers(spec: Option<&PodSpec>) -> impl Iterator<Item = &Container> {
    spec.into_iter().flat_map(|it| it.init_containers.iter().flatten().chain(&it.containers))
}

fn is_cause(container: &Container, seen: Option<&Seen>) -> bool {
    seen.is_some_and(|it| it.state == State::Exited && restarts_all(container, it.exit_code))
}

impl Plan<'_, '_> {
    /// Takes every container away: first those that have to go along, then those that began it. One that is being
    /// started is waited for.
    pub(super) fn reset(&mut self, pod: &Pod) {
        if !is_told(pod) {
            return;
        }
        let named = |seen: &Seen| containers(pod.spec.as_ref()).find(|it| it.name == seen.name);
        let all = self.look.observed.containers.iter().filter(|it| named(it).is_some());
        let is_cause = |seen: &&Seen| named(seen).is_some_and(|it| is_cause(it, Some(seen)));
        let (causes, others): (Vec<&Seen>, Vec<&Seen>) = all.partition(is_cause);
        let mut names = BTreeSet::new();
        let turn = match others.is_empty() {
            true if is_starting(pod, &self.next.starting) => return,
            true => causes,
            false => others,
        };
        for seen in turn {
            // One run of each at a time.
            if !names.insert(&seen.name) || self.next.starting.contains(&seen.name) {
                continue;
            }
            match seen.state {
                State::Running | State::Unknown => self.stop(seen, self.look.now, Why::RestartAll),
                State::Created | State::Exited => {
                    let (container, id) = (seen.name.clone(), seen.id.clone());
                    self.act(Action::RemoveContainer { container, id });
                }
            }
        }
    }
}
