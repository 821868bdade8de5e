//! `apps/v1` StatefulSet: pods with a number, a name and claims of their own.
//!
//! Upstream: `pkg/controller/statefulset/stateful_set_utils.go`, `pkg/apis/apps/validation`.

use crate::{
    k8s::api::apps::v1::StatefulSet,
    kind::{Kind, Names, Object, Scope, Subresource},
};

/// On each pod: its revision of the template.
pub const REVISION_LABEL: &str = "controller-revision-hash";
/// On each pod: its own name.
pub const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
/// On each pod: its ordinal.
pub const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

impl Kind for StatefulSet {
    const NAMES: Names = Names {
        plural: "statefulsets",
        singular: "statefulset",
        short: &["sts"],
        categories: &["all"],
    };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/statefulsets";
    const SUBRESOURCES: &'static [Subresource] = &[Subresource::Status, Subresource::Scale];
    const GENERATION: bool = true;
}

/// How many pods are wanted.
pub fn replicas(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|it| it.replicas).unwrap_or(1)
}

/// The ordinal of the first pod.
pub fn first_ordinal(set: &StatefulSet) -> i32 {
    let start = || set.spec.as_ref()?.ordinals.as_ref()?.start;
    start().unwrap_or(0)
}

/// `web-0`
pub fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.name())
}

/// `www-web-0`: the claim that the template `www` makes for the pod with this ordinal.
pub fn claim_name(set: &StatefulSet, template: &str, ordinal: i32) -> String {
    format!("{template}-{}-{ordinal}", set.name())
}

/// `web-0` is pod 0 of the set `web`. `None` for names that no set gives.
pub fn set_and_ordinal(pod_name: &str) -> Option<(&str, i32)> {
    let (set, ordinal) = pod_name.rsplit_once('-')?;
    let digits = !ordinal.is_empty() && ordinal.bytes().all(|it| it.is_ascii_digit());
    Some((set, digits.then(|| ordinal.parse().ok())??))
}

/// The ordinal of a pod that bears a name of this set.
pub fn ordinal_of(set: &StatefulSet, pod_name: &str) -> Option<i32> {
    let (name, ordinal) = set_and_ordinal(pod_name)?;
    (name == set.name()).then_some(ordinal)
}

/// Whether pods start and stop all at once.
pub fn is_parallel(set: &StatefulSet) -> bool {
    set.spec.as_ref().and_then(|it| it.pod_management_policy.as_deref()) == Some("Parallel")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_set_and_the_ordinal_from_a_pods_name() {
        assert_eq!(set_and_ordinal("web-0"), Some(("web", 0)));
        assert_eq!(set_and_ordinal("a-b-12"), Some(("a-b", 12)));
        for name in ["web", "web-", "web-x", "web-+1", "web-99999999999"] {
            assert_eq!(set_and_ordinal(name), None, "{name}");
        }
    }
}
