//! What a pod asks for, beside what a node has left: the value that filters and scores judge.

use crate::{
    filter::{Neighbours, Spread},
    held, nomination, priority,
    score::{Leanings, Soft},
};
use api::{
    Object,
    core::{
        node::allocatable,
        pod::{Amounts, is_scheduled, is_terminal, requests},
        v1::{Node, Pod, PodSpec},
    },
    meta::Exact,
};
use world::{Typed, World};

/// A pod that looks for a node.
pub(crate) struct Request<'a> {
    pub(crate) world: &'a World,
    pub(crate) namespace: String,
    pub(crate) spec: PodSpec,
    pub(crate) wants: Amounts,
    pub(crate) neighbours: Neighbours,
    pub(crate) spreads: Vec<Spread>,
    pub(crate) soft_spreads: Vec<Soft>,
    pub(crate) leanings: Leanings,
    nominated: Vec<Typed<Pod>>,
}

/// The pod at one node.
pub(crate) struct Place<'a> {
    pub(crate) request: &'a Request<'a>,
    pub(crate) node: &'a Node,
    pub(crate) has: Amounts,
    pub(crate) used: Amounts,
    /// The pods that are on the node or have it kept for them.
    pub(crate) pods: Vec<Typed<Pod>>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(world: &'a World, pod: &Pod) -> Request<'a> {
        let spec = pod.spec.clone().unwrap_or_default();
        // What is kept for pods that matter less is there to be taken.
        let kept = |it: &Typed<Pod>| {
            held(it).is_some() && it.uid() != pod.uid() && priority(it) >= priority(pod)
        };
        let nominated = world.indexed::<Pod>("node", "").filter(kept).collect();
        let (neighbours, spreads) = (Neighbours::of(world, pod), Spread::of(world, pod));
        Request {
            world,
            namespace: pod.namespace().to_owned(),
            wants: requests(&spec),
            spec,
            neighbours,
            spreads,
            soft_spreads: Soft::of(world, pod),
            leanings: Leanings::of(world, pod),
            nominated,
        }
    }

    pub(crate) fn at(&'a self, node: &'a Node) -> Place<'a> {
        let here = self.world.indexed::<Pod>("node", node.name()).filter(|it| !is_terminal(it));
        let keeps = |it: &&Typed<Pod>| nomination(it) == Some(node.name()) && !is_scheduled(it);
        let pods: Vec<_> = here.chain(self.nominated.iter().filter(keeps).cloned()).collect();
        let mut used = Amounts::new();
        for pod in &pods {
            for (name, amount) in pod.spec.as_ref().map(requests).unwrap_or_default() {
                let sum = used.entry(name).or_default();
                *sum = *sum + amount;
            }
        }
        Place { request: self, node, has: allocatable(node), used, pods }
    }
}

impl Place<'_> {
    /// What is left of a resource before this pod comes.
    pub(crate) fn free(&self, resource: &str) -> Exact {
        let of = |amounts: &Amounts| amounts.get(resource).copied().unwrap_or_default();
        of(&self.has) - of(&self.used)
    }
}
