//! Pods that want to be near others, or far from them. Upstream: `plugins/interpodaffinity`, Filter.
//!
//! A pod is near another when their nodes have the same value of the term's topology key.

use super::Refused;
use crate::pod::Place;
use api::{
    Object,
    core::{
        pod::is_scheduled,
        v1::{Namespace, Node, Pod, PodAffinityTerm},
    },
    meta::Selector,
};
use std::collections::BTreeSet;
use world::{Typed, World};

pub(super) fn filter(place: &Place<'_>) -> Result<(), Refused> {
    let neighbours = &place.request.neighbours;
    let in_one_of = |values: &Values, key: &str| {
        label(place.node, key).is_some_and(|value| values.contains(value))
    };
    let near = |it: &Term| in_one_of(&it.near, &it.key);
    if neighbours.repelled_by_others.iter().any(near) {
        return Err(Refused::for_now("node(s) didn't satisfy existing pods anti-affinity rules"));
    }
    if neighbours.repelled.iter().any(near) {
        return Err(Refused::for_now("node(s) didn't match pod anti-affinity rules"));
    }
    // The first of a group that wants to be together may go anywhere that has the key.
    let is_first = neighbours.attracted.iter().all(|it| it.near.is_empty() && it.selects_itself);
    let fits = |it: &Term| near(it) || is_first && label(place.node, &it.key).is_some();
    match neighbours.attracted.iter().all(fits) {
        true => Ok(()),
        false => Err(Refused::for_good("node(s) didn't match pod affinity rules")),
    }
}

type Values = BTreeSet<String>;

/// What a pod's own terms and those of others say about where it may be.
#[derive(Default)]
pub(crate) struct Neighbours {
    attracted: Vec<Term>,
    repelled: Vec<Term>,
    repelled_by_others: Vec<Term>,
}

/// One term, with the values of its topology key where pods are that it speaks of.
struct Term {
    key: String,
    near: Values,
    selects_itself: bool,
}

impl Neighbours {
    pub(crate) fn of(world: &World, pod: &Pod) -> Neighbours {
        let affinity = pod.spec.as_ref().and_then(|it| it.affinity.as_ref());
        let together = affinity.and_then(|it| it.pod_affinity.as_ref());
        let together =
            together.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
        let term = |term: &PodAffinityTerm| {
            let selects = Selects::new(term, pod);
            let others = world.all::<Pod>().filter(|it| is_there(it) && selects.pod(world, it));
            let near = others.filter_map(|it| value(world, &it, &term.topology_key)).collect();
            let selects_itself = selects.pod(world, pod);
            Term { key: term.topology_key.clone(), near, selects_itself }
        };
        let mut repelled_by_others = Vec::new();
        for other in world.indexed::<Pod>("anti-affinity", "required").filter(is_there) {
            for it in apart(&other).iter().filter(|it| Selects::new(it, &other).pod(world, pod)) {
                let near = value(world, &other, &it.topology_key).into_iter().collect();
                let key = it.topology_key.clone();
                repelled_by_others.push(Term { key, near, selects_itself: false });
            }
        }
        Neighbours {
            attracted: together.into_iter().flatten().map(term).collect(),
            repelled: apart(pod).iter().map(term).collect(),
            repelled_by_others,
        }
    }
}

/// The terms by which a pod wants to be far from others.
fn apart(pod: &Pod) -> &[PodAffinityTerm] {
    let affinity = pod.spec.as_ref().and_then(|it| it.affinity.as_ref());
    let apart = affinity.and_then(|it| it.pod_anti_affinity.as_ref());
    apart
        .and_then(|it| it.required_during_scheduling_ignored_during_execution.as_deref())
        .unwrap_or_default()
}

pub(crate) fn is_there(pod: &Typed<Pod>) -> bool {
    is_scheduled(pod) && !api::core::pod::is_terminal(pod)
}

pub(crate) fn value(world: &World, pod: &Pod, key: &str) -> Option<String> {
    let node = world.cluster::<Node>(api::core::pod::node_name(pod))?;
    label(&node, key).cloned()
}

pub(super) fn label<'a>(node: &'a Node, key: &str) -> Option<&'a String> {
    node.metadata.labels.as_ref()?.get(key)
}

/// Which pods a term speaks of.
pub(crate) struct Selects {
    labels: Selector,
    /// Named ones, or none: then the namespace of the term's own pod, if no selector says more.
    namespaces: Vec<String>,
    namespace_labels: Option<Selector>,
}

impl Selects {
    pub(crate) fn new(term: &PodAffinityTerm, owner: &Pod) -> Selects {
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(owner.namespace().to_owned());
        }
        Selects {
            labels: Selector::of(term.label_selector.as_ref()),
            namespaces,
            namespace_labels: term.namespace_selector.as_ref().map(|it| Selector::of(Some(it))),
        }
    }

    pub(crate) fn pod(&self, world: &World, pod: &Pod) -> bool {
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        self.labels.matches(&labels) && self.namespace(world, pod.namespace())
    }

    fn namespace(&self, world: &World, name: &str) -> bool {
        let by_labels = |selector: &Selector| {
            let namespace = world.cluster::<Namespace>(name);
            let labels = namespace.and_then(|it| it.metadata.labels.clone()).unwrap_or_default();
            selector.matches(&labels)
        };
        self.namespaces.iter().any(|it| it == name)
            || self.namespace_labels.as_ref().is_some_and(by_labels)
    }
}
