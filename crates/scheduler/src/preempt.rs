//! Pods that matter less make room for one that fits nowhere.
//!
//! Upstream: `framework/preemption/preemption.go`, `plugins/defaultpreemption`. Nodes are tried in order of
//! name, not from a random one: the same world gives the same plan.

mod victims;

use crate::{NAME, choose::Misfit, filter::Refused, nomination, priority};
use api::{
    Object,
    core::{
        pod::{condition, is_terminal, set_condition},
        v1::{Node, Pod},
    },
    policy::v1::PodDisruptionBudget,
};
use std::cmp::Reverse;
use stdx::Timestamp;
use victims::Victims;
use world::{Change, Event, Typed, World};

/// At least so many nodes are compared, if so many could help, and a tenth of them. Upstream:
/// `minCandidateNodesAbsolute`, `minCandidateNodesPercentage`.
const CANDIDATES_MIN: usize = 100;
const CANDIDATES_SHARE: usize = 10;

const CONDITION: &str = "DisruptionTarget";
const REASON: &str = "PreemptionByScheduler";

/// A node, and who has to go there.
pub(crate) struct Sacrifice {
    pub(crate) node: Typed<Node>,
    victims: Victims,
}

/// Why nobody has to go.
pub(crate) enum Unhelpful {
    /// The pod may not ask for it, or not again: what is kept for it stays.
    NotNow(&'static str),
    /// It would not help at any node.
    Nowhere(String),
}

/// Finds the node where making room costs least.
pub(crate) fn preempt(
    world: &World,
    pod: &Pod,
    misfit: &Misfit,
    now: Timestamp,
) -> Result<Sacrifice, Unhelpful> {
    may_preempt(world, pod, misfit)?;
    let budgets: Vec<_> = world.all::<PodDisruptionBudget>().collect();
    let hopeful = misfit.nodes.iter().filter(|(_, refused)| !refused.for_good).count();
    let enough = (hopeful / CANDIDATES_SHARE).max(CANDIDATES_MIN);
    let mut unhelpful = Misfit::new(Vec::new());
    let mut found: Vec<Sacrifice> = Vec::new();
    for (node, refused) in &misfit.nodes {
        let victims = match refused.for_good {
            true => Err(Refused::for_good("Preemption is not helpful for scheduling")),
            false => victims::at(world, pod, node, &budgets, now),
        };
        match victims {
            Err(refused) => unhelpful.nodes.push((node.clone(), refused)),
            Ok(victims) => found.push(Sacrifice { node: node.clone(), victims }),
        }
        if found.len() >= enough && found.iter().any(|it| it.victims.violations == 0) {
            break;
        }
    }
    let least = found.into_iter().min_by_key(|it| cost(&it.victims, now));
    least.ok_or_else(|| Unhelpful::Nowhere(unhelpful.to_string()))
}

/// Whether the pod may ask others to go: its policy allows it, and nobody is going already for its sake.
fn may_preempt(world: &World, pod: &Pod, misfit: &Misfit) -> Result<(), Unhelpful> {
    let policy = pod.spec.as_ref().and_then(|it| it.preemption_policy.as_deref());
    if policy == Some("Never") {
        return Err(Unhelpful::NotNow("not eligible due to preemptionPolicy=Never."));
    }
    let Some(kept) = nomination(pod) else { return Ok(()) };
    let is_lost =
        |(node, refused): &(Typed<Node>, Refused)| node.name() == kept && refused.for_good;
    if misfit.nodes.iter().any(is_lost) {
        return Ok(());
    }
    let makes_room = |it: &Typed<Pod>| {
        let target = condition(it, CONDITION);
        priority(it) < priority(pod)
            && it.is_deleting()
            && target.is_some_and(|it| it.status == "True" && it.reason.as_deref() == Some(REASON))
    };
    match world.indexed::<Pod>("node", kept).any(|it| makes_room(&it)) {
        true => {
            Err(Unhelpful::NotNow("not eligible due to a terminating pod on the nominated node."))
        }
        false => Ok(()),
    }
}

/// What making room costs, in upstream's order: budgets broken, the highest priority, the sum of
/// priorities, the number of pods, and how long the highest have been at work.
fn cost(victims: &Victims, now: Timestamp) -> (usize, i32, i64, usize, Reverse<Timestamp>) {
    // Each pod costs something, also one of negative priority.
    let price = |it: &Typed<Pod>| i64::from(priority(it)) + i64::from(i32::MAX) + 1;
    let pods = &victims.pods;
    let highest = pods.iter().map(|it| priority(it)).max().unwrap_or(i32::MIN);
    let most = pods.iter().filter(|it| priority(it) == highest);
    let earliest = most.map(|it| victims::started(it, now)).min().unwrap_or(now);
    (victims.violations, highest, pods.iter().map(price).sum(), pods.len(), Reverse(earliest))
}

impl Sacrifice {
    /// Ends the victims, and what is kept on the node for others that matter less than `pod`.
    pub(crate) fn carry_out(
        self,
        world: &World,
        pod: &Pod,
        now: Timestamp,
        plan: &mut world::Plan,
    ) {
        let node = self.node.name();
        for it in world.indexed::<Pod>("node", "") {
            if nomination(&it) == Some(node) && priority(&it) < priority(pod) && !is_terminal(&it) {
                let mut other = (*it).clone();
                other.status.get_or_insert_default().nominated_node_name = None;
                plan.write([Change::status(other)]);
            }
        }
        for victim in self.victims.pods.iter().filter(|it| !it.is_deleting()) {
            let mut told = (**victim).clone();
            let message = format!("{NAME}: preempting to accommodate a higher priority pod");
            if set_condition(&mut told, CONDITION, "True", REASON, &message, now) {
                plan.write([Change::status(told)]);
            }
            plan.write([Change::delete(&**victim)]);
            let message = format!("Preempted by pod {} on node {node}", pod.uid());
            plan.event(Event::normal(&**victim, "Preempted", message));
        }
    }
}
