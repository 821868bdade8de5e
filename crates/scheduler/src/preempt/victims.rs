//! Who has to leave a node so that a pod fits there: as few as possible, and those that matter least.
//!
//! Upstream: `plugins/defaultpreemption`, SelectVictimsOnNode, filterPodsWithPDBViolation.

use crate::{choose::judge, filter::Refused, pod::Request, priority, volumes};
use api::{
    Object,
    core::{
        pod::is_terminal,
        v1::{Node, Pod},
    },
    meta::{Selector, timestamp_of},
    policy::v1::PodDisruptionBudget,
};
use std::{cmp::Reverse, sync::Arc};
use stdx::Timestamp;
use world::{ObjectKey, Row, Typed, World};

/// Who has to go, what matters most first.
pub(super) struct Victims {
    pub(super) pods: Vec<Typed<Pod>>,
    /// How many of them a budget would keep.
    pub(super) violations: usize,
}

/// The victims at one node; else why the pod would not fit even without all that may go.
pub(super) fn at(
    world: &World,
    pod: &Pod,
    node: &Node,
    budgets: &[Typed<PodDisruptionBudget>],
    now: Timestamp,
) -> Result<Victims, Refused> {
    let here = world.indexed::<Pod>("node", node.name());
    let may_go = |it: &Typed<Pod>| !is_terminal(it) && priority(it) < priority(pod);
    let mut candidates: Vec<Typed<Pod>> = here.filter(may_go).collect();
    if candidates.is_empty() {
        return Err(Refused::for_good("No preemption victims found for incoming pod"));
    }
    candidates.sort_by_key(|it| importance(it, now));
    let mut without = Without { world: world.clone() };
    let mut rows: Vec<Arc<Row>> = candidates.iter().map(|it| without.remove(it)).collect();
    without.fits(pod, node)?;

    let is_kept = violates(&candidates, budgets);
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    // Those that a budget would keep are let back first.
    order.sort_by_key(|it| !is_kept[*it]);
    let (mut gone, mut violations) = (Vec::new(), 0);
    for index in order {
        without.world.put_row(rows[index].clone());
        if without.fits(pod, node).is_err() {
            rows[index] = without.remove(&candidates[index]);
            gone.push(index);
            violations += usize::from(is_kept[index]);
        }
    }
    gone.sort_unstable();
    Ok(Victims { pods: gone.into_iter().map(|it| candidates[it].clone()).collect(), violations })
}

/// The world without some of its pods.
struct Without {
    world: World,
}

impl Without {
    fn remove(&mut self, pod: &Typed<Pod>) -> Arc<Row> {
        let (kind, revision) = (api::kind_of::<Pod>(), self.world.revision);
        self.world.remove(kind, &ObjectKey::of(&**pod), revision).old.expect("the world listed it")
    }

    fn fits(&self, pod: &Pod, node: &Node) -> Result<(), Refused> {
        let claims = volumes::look(&self.world, pod).map_err(Refused::for_good)?;
        judge(&Request::new(&self.world, pod), &claims, node).map(|_| ())
    }
}

/// Sorts what matters most first: by priority, then who has been at work longest.
fn importance(pod: &Pod, now: Timestamp) -> (Reverse<i32>, Timestamp) {
    (Reverse(priority(pod)), started(pod, now))
}

/// When the pod began; one that has not, now.
pub(super) fn started(pod: &Pod, now: Timestamp) -> Timestamp {
    let time = pod.status.as_ref().and_then(|it| it.start_time.as_ref());
    time.map_or(now, timestamp_of)
}

/// Which of the pods, asked to go in this order, a budget would keep.
fn violates(pods: &[Typed<Pod>], budgets: &[Typed<PodDisruptionBudget>]) -> Vec<bool> {
    let status = |it: &PodDisruptionBudget| it.status.clone().unwrap_or_default();
    let mut left: Vec<i32> =
        budgets.iter().map(|it| status(it).disruptions_allowed.unwrap_or(0)).collect();
    let mut judged = Vec::with_capacity(pods.len());
    for pod in pods {
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let mut kept = false;
        for (budget, left) in budgets.iter().zip(&mut left) {
            let selector = budget.spec.as_ref().and_then(|it| it.selector.as_ref());
            let selector = Selector::of(selector);
            let covers = budget.namespace() == pod.namespace()
                && !labels.is_empty()
                && !selector.is_everything()
                && selector.matches(&labels);
            // Its leaving was charged already.
            let charged = status(budget).disrupted_pods.unwrap_or_default();
            if covers && !charged.contains_key(pod.name()) {
                *left -= 1;
                kept |= *left < 0;
            }
        }
        judged.push(kept);
    }
    judged
}
