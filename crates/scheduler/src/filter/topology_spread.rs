//! Pods that are to be spread over the values of a label of nodes. Upstream: `plugins/podtopologyspread`,
//! Filter.

use super::Refused;
use super::pod_affinity::{is_there, label, value};
use crate::pod::Place;
use api::{
    Object,
    core::{
        node::is_chosen_by,
        v1::{Node, Pod},
    },
    meta::Selector,
};
use std::collections::BTreeMap;
use world::World;

pub(super) fn filter(place: &Place<'_>) -> Result<(), Refused> {
    for it in &place.request.spreads {
        let Some(value) = label(place.node, &it.key) else {
            return Err(Refused::for_good(
                "node(s) didn't match pod topology spread constraints (missing required label)",
            ));
        };
        let here = it.counts.get(value).copied().unwrap_or(0);
        let fewest = it.counts.values().min().copied().unwrap_or(0);
        let fewest = if it.counts.len() < it.domains_min { 0 } else { fewest };
        if here + it.selects_itself - fewest > it.skew_max {
            return Err(Refused::for_now("node(s) didn't match pod topology spread constraints"));
        }
    }
    Ok(())
}

/// One constraint, with the pods that it counts by value of its key.
pub(crate) struct Spread {
    key: String,
    skew_max: i32,
    domains_min: usize,
    selects_itself: i32,
    counts: BTreeMap<String, i32>,
}

impl Spread {
    pub(crate) fn of(world: &World, pod: &Pod) -> Vec<Spread> {
        let constraints = pod.spec.as_ref().and_then(|it| it.topology_spread_constraints.as_ref());
        let hard = constraints.into_iter().flatten();
        let hard = hard.filter(|it| it.when_unsatisfiable == "DoNotSchedule");
        let spread = |it: &api::core::v1::TopologySpreadConstraint| {
            let selector = Selector::of(it.label_selector.as_ref());
            let labels = |pod: &Pod| pod.metadata.labels.clone().unwrap_or_default();
            // Only nodes that the pod could go to by its own choice count as places.
            let spec = pod.spec.clone().unwrap_or_default();
            let nodes = world.all::<Node>().filter(|it| is_chosen_by(it, &spec));
            let mut counts: BTreeMap<String, i32> = nodes
                .filter_map(|node| Some((label(&node, &it.topology_key)?.clone(), 0)))
                .collect();
            for other in world.list::<Pod>(pod.namespace()) {
                let counted =
                    is_there(&other) && !other.is_deleting() && selector.matches(&labels(&other));
                let value = value(world, &other, &it.topology_key).filter(|_| counted);
                if let Some(count) = value.and_then(|it| counts.get_mut(&it)) {
                    *count += 1;
                }
            }
            Spread {
                key: it.topology_key.clone(),
                skew_max: it.max_skew,
                domains_min: usize::try_from(it.min_domains.unwrap_or(1)).unwrap_or(1),
                selects_itself: i32::from(selector.matches(&labels(pod))),
                counts,
            }
        };
        hard.map(spread).collect()
    }
}
