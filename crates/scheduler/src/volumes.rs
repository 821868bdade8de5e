//! The claims of a pod: whether they are ready, where their volumes can be reached, and what is to be
//! done for those that wait for a node.
//!
//! Upstream: `plugins/volumebinding`, `plugins/volumerestrictions`.

use crate::filter::Refused;
use api::{
    Object,
    core::{
        binding::{BIND_COMPLETED, SELECTED_NODE},
        node::matches_selector_terms,
        persistent_volume as volumes, persistent_volume_claim as claims,
        pod::{self, is_scheduled, is_terminal},
        v1::{
            Node, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume,
            PersistentVolumeClaim, Pod,
        },
    },
    storage::{storage_class as classes, v1::StorageClass},
};
use std::collections::BTreeSet;
use world::{Change, ObjectKey, Typed, World};

const NO_VOLUMES: &str = "node(s) didn't find available persistent volumes to bind";

/// The claims of one pod.
pub(crate) struct Claims {
    /// With the volume that each is bound to.
    bound: Vec<(Typed<PersistentVolumeClaim>, Typed<PersistentVolume>)>,
    /// Those that wait for a node, with their class.
    waiting: Vec<(Typed<PersistentVolumeClaim>, Typed<StorageClass>)>,
    /// Another pod has one that only one pod may have.
    is_taken: bool,
}

/// One thing to be done for a claim once the node is chosen.
pub(crate) enum Move {
    /// This volume is there and can be reached: bind both sides.
    Bind(Typed<PersistentVolume>, Typed<PersistentVolumeClaim>),
    /// Tell the provisioner where.
    Select(Typed<PersistentVolumeClaim>),
}

/// Finds the pod's claims; else what stands in the way, whatever the node.
pub(crate) fn look(world: &World, pod: &Pod) -> Result<Claims, String> {
    let mut found = Claims { bound: Vec::new(), waiting: Vec::new(), is_taken: false };
    let mut immediate = false;
    let names: BTreeSet<String> = pod::claims(pod).into_iter().map(|(_, claim)| claim).collect();
    for name in names {
        let key = ObjectKey::new(pod.namespace(), &name);
        let Some(claim) = world.get::<PersistentVolumeClaim>(&key) else {
            return Err(format!("persistentvolumeclaim {name:?} not found"));
        };
        if claims::phase(&claim) == "Lost" {
            let volume = claims::volume_name(&claim);
            return Err(format!(
                "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
            ));
        }
        if claim.is_deleting() {
            return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
        }
        if claims::access_modes(&claim).iter().any(|it| it == "ReadWriteOncePod")
            && is_used_by_another(world, &key, pod)
        {
            found.is_taken = true;
        }
        let is_bound = claim.annotation(BIND_COMPLETED).is_some();
        let volume = world.cluster::<PersistentVolume>(claims::volume_name(&claim));
        let class = claims::class(&claim).and_then(|it| world.cluster::<StorageClass>(it));
        let class = class.filter(|it| classes::waits_for_consumer(it));
        match (volume, class) {
            (Some(volume), _) if is_bound && volumes::is_bound_to(&volume, &claim) => {
                found.bound.push((claim, volume));
            }
            (_, Some(class)) if claims::volume_name(&claim).is_empty() => {
                found.waiting.push((claim, class));
            }
            _ => immediate = true,
        }
    }
    match immediate {
        true => Err("pod has unbound immediate PersistentVolumeClaims".to_owned()),
        false => Ok(found),
    }
}

/// Whether another live pod has a node and uses the claim.
fn is_used_by_another(world: &World, claim: &ObjectKey, pod: &Pod) -> bool {
    let name = claim.to_string();
    let uses = |it: &Typed<Pod>| it.uid() != pod.uid() && is_scheduled(it) && !is_terminal(it);
    world.indexed::<Pod>("claim", &name).any(|it| uses(&it))
}

impl Claims {
    /// Whether the pod can start on a node that reaches the volumes.
    pub(crate) fn are_ready(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Typed<PersistentVolumeClaim>> {
        self.bound.iter().map(|(claim, _)| claim)
    }

    /// What has to be done for the claims that wait, if the pod goes to this node.
    pub(crate) fn moves_at(&self, world: &World, node: &Node) -> Result<Vec<Move>, Refused> {
        if self.is_taken {
            return Err(Refused::for_now(
                "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod",
            ));
        }
        if !self.bound.iter().all(|(_, volume)| volumes::is_reachable_from(volume, node)) {
            return Err(Refused::for_good("node(s) didn't match PersistentVolume's node affinity"));
        }
        let mut taken: BTreeSet<String> = BTreeSet::new();
        let mut moves = Vec::new();
        for (claim, class) in &self.waiting {
            // A provisioner is at work for a node that was selected before: it keeps its word.
            if let Some(selected) = claim.annotation(SELECTED_NODE) {
                match selected == node.name() {
                    true => continue,
                    false => return Err(Refused::for_good(NO_VOLUMES)),
                }
            }
            let free = world
                .free_volumes(claim)
                .find(|it| volumes::is_reachable_from(it, node) && !taken.contains(it.name()));
            if let Some(volume) = free {
                taken.insert(volume.name().to_owned());
                moves.push(Move::Bind(volume, claim.clone()));
            } else if class.provisioner == "kubernetes.io/no-provisioner" || !allows(class, node) {
                return Err(Refused::for_good(NO_VOLUMES));
            } else {
                moves.push(Move::Select(claim.clone()));
            }
        }
        Ok(moves)
    }
}

/// Whether the class may make volumes for this node.
fn allows(class: &StorageClass, node: &Node) -> bool {
    let Some(topologies) = class.allowed_topologies.as_ref().filter(|it| !it.is_empty()) else {
        return true;
    };
    let terms = topologies.iter().map(|topology| {
        let labels = topology.match_label_expressions.iter().flatten();
        let requirement =
            |it: &api::core::v1::TopologySelectorLabelRequirement| NodeSelectorRequirement {
                key: it.key.clone(),
                operator: "In".to_owned(),
                values: Some(it.values.clone()),
            };
        NodeSelectorTerm {
            match_expressions: Some(labels.map(requirement).collect()),
            match_fields: None,
        }
    });
    matches_selector_terms(node, &terms.collect::<Vec<_>>())
}

impl Move {
    /// The commit that does it.
    pub(crate) fn changes(self, node: &Node) -> Vec<Change> {
        match self {
            Move::Bind(volume, claim) => Change::bind(&volume, &claim),
            Move::Select(claim) => {
                let mut claim = claim.to_owned();
                let annotations = claim.metadata.annotations.get_or_insert_default();
                annotations.insert(SELECTED_NODE.to_owned(), node.name().to_owned());
                vec![Change::update(claim)]
            }
        }
    }
}
