//! Pods that are to be spread where that is possible: by their own soft constraints, or, where they have none at all, by
//! upstream's own for pods of one Service or controller. Upstream: `plugins/podtopologyspread/scoring.go`, `plugin.go`
//! (systemDefaultConstraints), `plugins/helper/spread.go` (DefaultSelector).

use crate::pod::Place;
use api::{
    Object,
    apps::v1::{ReplicaSet, StatefulSet},
    core::{
        node::is_chosen_by,
        v1::{Node, Pod, ReplicationController, Service},
    },
    meta::Selector,
};
use std::collections::BTreeMap;
use world::{ObjectKey, Typed, World};

const HOSTNAME: &str = "kubernetes.io/hostname";
/// Upstream's own constraints: keys, and how much more pods one value may have than another without much harm.
const DEFAULTS: [(&str, i32); 2] = [(HOSTNAME, 3), ("topology.kubernetes.io/zone", 5)];

/// One soft constraint.
pub(crate) struct Soft {
    key: String,
    skew_max: i32,
    /// The pods that it counts: all of these choose them.
    selectors: Vec<Selector>,
}

impl Soft {
    pub(crate) fn of(world: &World, pod: &Pod) -> Vec<Soft> {
        let own = pod.spec.as_ref().and_then(|it| it.topology_spread_constraints.as_deref());
        let own = own.unwrap_or_default();
        if !own.is_empty() {
            let soft = own.iter().filter(|it| it.when_unsatisfiable == "ScheduleAnyway");
            let soft = soft.map(|it| Soft {
                key: it.topology_key.clone(),
                skew_max: it.max_skew,
                selectors: vec![Selector::of(it.label_selector.as_ref())],
            });
            return soft.collect();
        }
        let peers = peers(world, pod);
        let soft = |(key, skew_max): (&str, i32)| Soft {
            key: key.to_owned(),
            skew_max,
            selectors: peers.clone(),
        };
        if peers.is_empty() { Vec::new() } else { DEFAULTS.map(soft).into() }
    }

    fn count(&self, pods: &[Typed<Pod>], namespace: &str) -> u32 {
        let none = BTreeMap::new();
        let counted = pods.iter().filter(|it| {
            let labels = it.metadata.labels.as_ref().unwrap_or(&none);
            it.namespace() == namespace
                && !it.is_deleting()
                && self.selectors.iter().all(|it| it.matches(labels))
        });
        counted.count() as u32
    }
}

/// What chooses the pod and others like it: the Services that lead to it, and its controller.
fn peers(world: &World, pod: &Pod) -> Vec<Selector> {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let services = world.list::<Service>(pod.namespace());
    let mut peers: Vec<Selector> = services
        .filter_map(|it| it.spec.as_ref()?.selector.clone().filter(|it| !it.is_empty()))
        .map(|it| Selector::of_map(&it))
        .filter(|it| it.matches(&labels))
        .collect();
    let owners = pod.metadata.owner_references.iter().flatten();
    if let Some(owner) = owners.into_iter().find(|it| it.controller == Some(true)) {
        let key = ObjectKey::new(pod.namespace(), &owner.name);
        let chooses = match owner.kind.as_str() {
            "ReplicaSet" => world
                .get::<ReplicaSet>(&key)
                .and_then(|it| Some(Selector::of(Some(&it.spec.as_ref()?.selector)))),
            "StatefulSet" => world
                .get::<StatefulSet>(&key)
                .and_then(|it| Some(Selector::of(Some(&it.spec.as_ref()?.selector)))),
            "ReplicationController" => world
                .get::<ReplicationController>(&key)
                .and_then(|it| Some(Selector::of_map(it.spec.as_ref()?.selector.as_ref()?))),
            _ => None,
        };
        peers.extend(chooses.filter(|it| !it.is_everything()));
    }
    peers
}

/// For each place, from 0 to 100: the fewer such pods there are, the better.
pub(super) fn score(places: &[Place<'_>]) -> Vec<i64> {
    let Some(request) = places.first().map(|it| it.request) else { return Vec::new() };
    let (world, spec, namespace) = (request.world, &request.spec, request.namespace.as_str());
    if request.soft_spreads.is_empty() {
        return vec![0; places.len()];
    }
    let has_own = spec.topology_spread_constraints.as_ref().is_some_and(|it| !it.is_empty());
    // A pod's own constraints are about nodes that have all of the labels; upstream's are not.
    let is_ignored = |node: &Node| {
        has_own && request.soft_spreads.iter().any(|it| node.label(&it.key).is_none())
    };
    let counted: Vec<&Place<'_>> = places.iter().filter(|it| !is_ignored(it.node)).collect();
    let mut sums = vec![0.0; counted.len()];
    for soft in &request.soft_spreads {
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        let values = counted.iter().filter_map(|it| it.node.label(&soft.key));
        counts.extend(values.map(|it| (it, 0)));
        let domains = if soft.key == HOSTNAME { counted.len() } else { counts.len() };
        if soft.key != HOSTNAME && !counts.is_empty() {
            for node in world.all::<Node>() {
                let value = node.label(&soft.key).filter(|_| is_chosen_by(&node, spec));
                if let Some(count) = value.and_then(|it| counts.get_mut(it)) {
                    *count += soft.count(&request.at(&node).pods, namespace);
                }
            }
        }
        let weight = (domains as f64 + 2.0).ln();
        for (place, sum) in counted.iter().zip(&mut sums) {
            let Some(value) = place.node.label(&soft.key) else { continue };
            let count = match soft.key == HOSTNAME {
                true => soft.count(&place.pods, namespace),
                false => counts.get(value).copied().unwrap_or(0),
            };
            *sum += f64::from(count) * weight + f64::from(soft.skew_max - 1);
        }
    }
    let sums: Vec<i64> = sums.into_iter().map(|it| it.round() as i64).collect();
    let (fewest, most) = (sums.iter().min().copied(), sums.iter().max().copied());
    let (fewest, most) = (fewest.unwrap_or(0), most.unwrap_or(0));
    let mut sums = sums.into_iter();
    let at = |place: &Place<'_>| match is_ignored(place.node) {
        true => 0,
        false if most == 0 => 100,
        false => 100 * (most + fewest - sums.next().unwrap_or(most)) / most,
    };
    places.iter().map(at).collect()
}
