//! `apps/v1` StatefulSet: pods with a number, a name and claims of their own.
//!
//! Upstream: `pkg/controller/statefulset/stateful_set_utils.go`, `pkg/apis/apps/validation`.

mod validate;

use super::templated::{self, Replicated, Templated};
use crate::{
    core::{persistent_volume_claim::spec_warnings as claim_warnings, pod},
    field::Errors,
    k8s::api::{
        apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus},
        core::v1::PodTemplateSpec,
    },
    kind::{Column, Kind, Names, Object, ScaleOf, Scope, Subresource},
    meta::{
        Selector,
        absent::{fill, list, omit_zero, same, text},
        columns::{self, age, name},
        int_or_percent::{self, Round},
        names, next_generation,
    },
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
    const COLUMNS: &'static [Column<StatefulSet>] = &[
        name(),
        columns::text("Ready", "Pods that are ready, of those wanted.", |set, _| {
            let ready = set.status.as_ref().and_then(|it| it.ready_replicas).unwrap_or(0);
            format!("{ready}/{}", replicas(set)).into()
        }),
        age(),
        templated::containers(),
        templated::images(),
    ];
    const SCALE: Option<ScaleOf<StatefulSet>> = Some(templated::scale());

    fn default(&mut self) {
        default_spec(self.spec.get_or_insert_default());
        let status = self.status.get_or_insert_default();
        status.available_replicas.get_or_insert(0);
        omit_zero(&mut status.observed_generation);
        for count in
            [&mut status.ready_replicas, &mut status.current_replicas, &mut status.updated_replicas]
        {
            omit_zero(count);
        }
    }

    fn prepare_create(&mut self) {
        self.status = Some(StatefulSetStatus { available_replicas: Some(0), ..Default::default() });
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &StatefulSet) {
        self.status.clone_from(&old.status);
        let changed = !same(&self.spec, &old.spec);
        next_generation(&mut self.metadata, &old.metadata, changed);
    }

    fn prepare_status(&mut self, old: &StatefulSet) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self, errors: &mut Errors) {
        validate::validate(self, errors);
    }

    fn validate_update(&self, old: &StatefulSet, errors: &mut Errors) {
        validate::validate_update(self, old, errors);
    }

    fn validate_status(&self, old: &StatefulSet, errors: &mut Errors) {
        validate::validate_status(self, old, errors);
    }

    fn warnings(&self, old: Option<&StatefulSet>) -> Vec<String> {
        let mut warnings = templated::warnings(self, old);
        let Some(spec) = &self.spec else { return warnings };
        for (n, claim) in list(&spec.volume_claim_templates).iter().enumerate() {
            // Upstream's paths: they are not those of the field.
            let part = if old.is_some() { ".Spec" } else { "" };
            let path = format!("spec.volumeClaimTemplates[{n}]{part}");
            warnings.extend(claim_warnings(&path, claim.spec.as_ref()));
        }
        let text = "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended";
        warnings.extend(spec.revision_history_limit.filter(|it| *it < 0).map(|_| text.to_owned()));
        warnings
    }

    /// Its pods' names begin with it, and are host names.
    fn validate_name(name: &str, errors: &mut Errors) {
        names::dns_label("metadata.name", name, errors);
    }
}

fn default_spec(spec: &mut StatefulSetSpec) {
    fill(&mut spec.pod_management_policy, "OrderedReady");
    let strategy = spec.update_strategy.get_or_insert_default();
    if text(&strategy.type_).is_empty() {
        strategy.type_ = Some("RollingUpdate".to_owned());
        strategy.rolling_update.get_or_insert_default();
    }
    if text(&strategy.type_) == "RollingUpdate"
        && let Some(rolling) = &mut strategy.rolling_update
    {
        rolling.partition.get_or_insert(0);
    }
    let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
    fill(&mut retention.when_deleted, "Retain");
    fill(&mut retention.when_scaled, "Retain");
    spec.replicas.get_or_insert(1);
    spec.revision_history_limit.get_or_insert(10);
    omit_zero(&mut spec.min_ready_seconds);
    pod::default_spec(spec.template.spec.get_or_insert_default());
    for claim in spec.volume_claim_templates.iter_mut().flatten() {
        Kind::default(claim);
    }
}

impl Templated for StatefulSet {
    fn template(&self) -> Option<&PodTemplateSpec> {
        Some(&self.spec.as_ref()?.template)
    }

    fn own_pods(&self) -> Selector {
        Selector::of(self.spec.as_ref().map(|it| &it.selector))
    }
}

impl Replicated for StatefulSet {
    fn wanted(&self) -> i32 {
        replicas(self)
    }

    fn want(&mut self, replicas: i32) {
        self.spec.get_or_insert_default().replicas = Some(replicas);
    }

    fn current(&self) -> i32 {
        self.status.as_ref().map_or(0, |it| it.replicas)
    }
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

/// How many pods of a rolling update may be unavailable at a time: at least one. `None`: the set does not
/// say, and its pods go strictly one after the other.
pub fn max_unavailable(set: &StatefulSet) -> Option<i32> {
    let rolling = set.spec.as_ref()?.update_strategy.as_ref()?.rolling_update.as_ref()?;
    let most = rolling.max_unavailable.as_ref()?;
    Some(int_or_percent::scaled(Some(most), replicas(set), Round::Down).max(1))
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
