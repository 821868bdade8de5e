//! `v1` Pod: containers that share a node, an address and volumes.
//!
//! Upstream: `pkg/registry/core/pod/strategy.go`.

mod condition;
mod resources;

pub use condition::{
    condition, is_available, is_ready, is_scheduled, is_terminal, node_name, phase, set_condition,
};
pub use resources::{Amounts, limits, qos_class, requests};

use crate::{
    k8s::api::core::v1::Pod,
    kind::{Kind, Names, Object, Scope, Subresource},
};

impl Kind for Pod {
    const NAMES: Names =
        Names { plural: "pods", singular: "pod", short: &["po"], categories: &["all"] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/pods";
    const SUBRESOURCES: &'static [Subresource] = &[
        Subresource::Status,
        Subresource::Binding,
        Subresource::Eviction,
        Subresource::Log,
        Subresource::Exec,
        Subresource::Attach,
    ];
    const GENERATION: bool = true;

    fn index_keys(&self) -> Vec<(&'static str, String)> {
        let namespace = self.namespace();
        let claims = claims(self).into_iter();
        let mut keys: Vec<_> =
            claims.map(|(_, claim)| ("claim", format!("{namespace}/{claim}"))).collect();
        keys.push(("node", node_name(self).to_owned()));
        keys
    }

    fn deletion_grace(&self, asked: Option<i64>) -> Option<i64> {
        let of_spec = || self.spec.as_ref()?.termination_grace_period_seconds;
        if !is_scheduled(self) || is_terminal(self) {
            return Some(0);
        }
        // A negative period means the shortest one.
        match asked.or_else(of_spec).unwrap_or(30) {
            negative if negative < 0 => Some(1),
            seconds => Some(seconds),
        }
    }
}

/// The claims that the pod uses, by the name of its volume: (volume, claim). A generic ephemeral
/// volume `data` of the pod `p` has the claim `p-data`.
pub fn claims(pod: &Pod) -> Vec<(&str, String)> {
    let volumes = pod.spec.iter().filter_map(|it| it.volumes.as_ref()).flatten();
    let named = volumes.filter_map(|volume| {
        let claim = match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(source), _) => source.claim_name.clone(),
            (None, Some(_)) => format!("{}-{}", pod.name(), volume.name),
            (None, None) => return None,
        };
        Some((volume.name.as_str(), claim))
    });
    named.collect()
}
