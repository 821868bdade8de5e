//! `storage.k8s.io/v1` CSIDriver: what a volume driver can do and wants to know.
//!
//! Upstream: `pkg/apis/storage/validation/validation.go`, ValidateCSIDriver and Update.

use crate::{
    field::{Errors, quoted},
    k8s::api::storage::v1::CSIDriver,
    kind::{Column, Kind, Names, Scope, Subresource},
    meta::{
        absent::{list, same},
        columns::{NONE, UNSET, age, name, or, text, truth, truths},
    },
};

impl Kind for CSIDriver {
    const NAMES: Names =
        Names { plural: "csidrivers", singular: "csidriver", short: &[], categories: &[] };
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: &'static str = "/registry/csidrivers";
    const SUBRESOURCES: &'static [Subresource] = &[];
    /// Upstream begins to count with the first change: `prepare_update`.
    const GENERATION: bool = false;
    const COLUMNS: &'static [Column<CSIDriver>] = &[
        name(),
        truths("AttachRequired", "Whether volumes are attached before use.", |driver, _| {
            truth(Some(driver.spec.attach_required.unwrap_or(true)))
        }),
        truths("PodInfoOnMount", "Whether it is told about the pod.", |driver, _| {
            truth(driver.spec.pod_info_on_mount)
        }),
        truths("StorageCapacity", "Whether it says how much room it has.", |driver, _| {
            truth(driver.spec.storage_capacity)
        }),
        text("TokenRequests", "Audiences of the tokens that it gets.", |driver, _| {
            let Some(requests) = &driver.spec.token_requests else { return UNSET.into() };
            let audiences: Vec<&str> = requests.iter().map(|it| it.audience.as_str()).collect();
            audiences.join(",").into()
        }),
        truths(
            "RequiresRepublish",
            "Whether volumes are published again and again.",
            |driver, _| truth(driver.spec.requires_republish),
        ),
        text("Modes", "Persistent, Ephemeral.", |driver, _| {
            or(&list(&driver.spec.volume_lifecycle_modes).join(","), NONE).into()
        }),
        age(),
    ];

    fn default(&mut self) {
        let spec = &mut self.spec;
        spec.attach_required.get_or_insert(true);
        spec.pod_info_on_mount.get_or_insert(false);
        spec.storage_capacity.get_or_insert(false);
        spec.fs_group_policy.get_or_insert_with(|| "ReadWriteOnceWithFSType".to_owned());
        if list(&spec.volume_lifecycle_modes).is_empty() {
            spec.volume_lifecycle_modes = Some(vec!["Persistent".to_owned()]);
        }
        spec.requires_republish.get_or_insert(false);
        spec.se_linux_mount.get_or_insert(false);
    }

    fn prepare_update(&mut self, old: &CSIDriver) {
        let grown = i64::from(!same(&self.spec, &old.spec));
        let generation = old.metadata.generation.unwrap_or(0) + grown;
        self.metadata.generation = (generation > 0).then_some(generation);
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = &self.spec;
        let policies = ["File", "None", "ReadWriteOnceWithFSType"];
        if let Some(policy) = spec.fs_group_policy.as_deref().filter(|it| !policies.contains(it)) {
            errors.not_supported("spec.fsGroupPolicy", policy, &policies);
        }
        let mut seen = Vec::new();
        for (n, request) in list(&spec.token_requests).iter().enumerate() {
            let path = format!("spec.tokenRequests[{n}]");
            if seen.contains(&&request.audience) {
                errors.duplicate(format!("{path}.audience"), quoted(&request.audience));
                continue;
            }
            seen.push(&request.audience);
            let at = format!("{path}.expirationSeconds");
            match request.expiration_seconds {
                Some(it) if it < 600 => {
                    errors.invalid(at, it, "may not specify a duration less than 10 minutes");
                }
                Some(it) if it > 1 << 32 => {
                    errors.invalid(at, it, "may not specify a duration larger than 2^32 seconds");
                }
                Some(_) | None => {}
            }
        }
        let modes = ["Persistent", "Ephemeral"];
        for mode in list(&spec.volume_lifecycle_modes) {
            if !modes.contains(&mode.as_str()) {
                errors.not_supported("spec.volumeLifecycleModes", mode, &modes);
            }
        }
        let period = spec.node_allocatable_update_period_seconds;
        if let Some(seconds) = period.filter(|it| *it < 10) {
            let path = "spec.nodeAllocatableUpdatePeriodSeconds";
            errors.invalid(path, seconds, "must be greater than or equal to 10 seconds");
        }
        let in_secrets = spec.service_account_token_in_secrets;
        if let Some(value) = in_secrets.filter(|_| list(&spec.token_requests).is_empty()) {
            let detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
            errors.invalid("spec.serviceAccountTokenInSecrets", value, detail);
        }
    }

    fn warnings(&self, old: Option<&CSIDriver>) -> Vec<String> {
        let requests = list(&self.spec.token_requests);
        let are_new = old.is_none_or(|it| list(&it.spec.token_requests) != requests);
        let told =
            are_new && !requests.is_empty() && self.spec.service_account_token_in_secrets.is_none();
        let what = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes";
        told.then(|| what.to_owned()).into_iter().collect()
    }

    fn validate_update(&self, old: &CSIDriver, errors: &mut Errors) {
        if self.spec.attach_required != old.spec.attach_required {
            let value = self.spec.attach_required.unwrap_or(true);
            errors.invalid("spec.attachedRequired", value, "field is immutable");
        }
        if self.spec.volume_lifecycle_modes != old.spec.volume_lifecycle_modes {
            let shown = serde_json::to_string(&self.spec.volume_lifecycle_modes)
                .expect("API objects are plain data");
            errors.invalid("spec.volumeLifecycleModes", shown, "field is immutable");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::from_value;
    use crate::meta::columns::tests::row;
    use serde_json::{Value, json};

    fn driver(spec: Value) -> CSIDriver {
        let mut driver =
            from_value(&json!({"metadata": {"name": "d.example.com"}, "spec": spec})).unwrap();
        <CSIDriver as Kind>::default(&mut driver);
        driver
    }

    #[test]
    fn says_what_it_can_do_and_keeps_to_it() {
        let old = driver(json!({}));
        assert_eq!(
            row(&old),
            "d.example.com | true | false | false | <unset> | false | Persistent | <unknown>"
        );
        assert!(old.warnings(None).is_empty());
        let tokens = driver(json!({"tokenRequests": [{"audience": "a"}]}));
        assert_eq!(
            (tokens.warnings(Some(&old)).len(), tokens.warnings(Some(&tokens)).len()),
            (1, 0)
        );
        let mut errors = Errors::default();
        driver(json!({"serviceAccountTokenInSecrets": true})).validate(&mut errors);
        assert_eq!(
            errors.message(),
            "spec.serviceAccountTokenInSecrets: Invalid value: true: serviceAccountTokenInSecrets is set but no tokenRequests are specified"
        );
        let mut errors = Errors::default();
        driver(json!({"attachRequired": false})).validate_update(&old, &mut errors);
        assert_eq!(
            errors.message(),
            "spec.attachedRequired: Invalid value: false: field is immutable"
        );
    }
}
