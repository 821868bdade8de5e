//! Near pods that a pod would like to be near, and far from those that it would not. Upstream:
//! `plugins/interpodaffinity/scoring.go`; what pods that are there already would like counts only where the one that comes
//! has such wishes itself, as with upstream's `ignorePreferredTermsOfExistingPods`.

use crate::{
    filter::{Selects, is_there, value},
    pod::Place,
};
use api::core::v1::{Pod, PodAffinityTerm, WeightedPodAffinityTerm};
use std::collections::BTreeMap;
use world::World;

/// Upstream's weight of a term that another pod requires: hardPodAffinityWeight.
const REQUIRED: i64 = 1;

/// By topology key and value, how much the pod would like to be there.
#[derive(Default)]
pub(crate) struct Leanings(BTreeMap<String, BTreeMap<String, i64>>);

impl Leanings {
    pub(crate) fn of(world: &World, pod: &Pod) -> Leanings {
        let mut leanings = Leanings::default();
        let own = wishes(pod);
        if own.is_empty() {
            return leanings;
        }
        let chosen = |(term, weight): &(PodAffinityTerm, i64)| {
            (Selects::new(term, pod), term.topology_key.clone(), *weight)
        };
        let own: Vec<_> = own.iter().map(chosen).collect();
        for other in world.all::<Pod>().filter(is_there) {
            for (selects, key, weight) in &own {
                if selects.pod(world, &other) {
                    leanings.add(world, &other, key, *weight);
                }
            }
            for (term, weight) in wishes(&other).iter().chain(&requirements(&other)) {
                if Selects::new(term, &other).pod(world, pod) {
                    leanings.add(world, &other, &term.topology_key, *weight);
                }
            }
        }
        leanings
    }

    fn add(&mut self, world: &World, other: &Pod, key: &str, weight: i64) {
        if let Some(value) = value(world, other, key) {
            *self.0.entry(key.to_owned()).or_default().entry(value).or_default() += weight;
        }
    }

    fn at(&self, place: &Place<'_>) -> i64 {
        let labels = place.node.metadata.labels.as_ref();
        let here = self.0.iter().filter_map(|(key, values)| values.get(labels?.get(key)?));
        here.sum()
    }
}

/// What a pod would like, with what it would not like below zero.
fn wishes(pod: &Pod) -> Vec<(PodAffinityTerm, i64)> {
    let affinity = pod.spec.as_ref().and_then(|it| it.affinity.as_ref());
    let near = affinity.and_then(|it| it.pod_affinity.as_ref());
    let near = near.and_then(|it| it.preferred_during_scheduling_ignored_during_execution.as_ref());
    let far = affinity.and_then(|it| it.pod_anti_affinity.as_ref());
    let far = far.and_then(|it| it.preferred_during_scheduling_ignored_during_execution.as_ref());
    let weighed = |sign: i64| {
        move |it: &WeightedPodAffinityTerm| {
            (it.pod_affinity_term.clone(), sign * i64::from(it.weight))
        }
    };
    let near = near.into_iter().flatten().map(weighed(1));
    near.chain(far.into_iter().flatten().map(weighed(-1))).collect()
}

/// Whom a pod has to be near to.
fn requirements(pod: &Pod) -> Vec<(PodAffinityTerm, i64)> {
    let affinity = pod.spec.as_ref().and_then(|it| it.affinity.as_ref());
    let near = affinity.and_then(|it| it.pod_affinity.as_ref());
    let terms = near.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
    terms.into_iter().flatten().map(|it| (it.clone(), REQUIRED)).collect()
}

pub(super) fn score(places: &[Place<'_>]) -> Vec<i64> {
    let sums: Vec<i64> = places.iter().map(|it| it.request.leanings.at(it)).collect();
    let least = sums.iter().min().copied().unwrap_or(0);
    let range = sums.iter().max().copied().unwrap_or(0) - least;
    let at = |sum: i64| if range == 0 { 0 } else { 100 * (sum - least) / range };
    sums.into_iter().map(at).collect()
}
