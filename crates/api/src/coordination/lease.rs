//! `coordination.k8s.io/v1` Lease: who holds something, and since when.
//!
//! Upstream: `pkg/apis/coordination/validation/validation.go`.

use crate::{
    field::Errors,
    k8s::api::coordination::v1::Lease,
    kind::{Column, Kind, Names, Scope, Subresource},
    meta::columns::{age, name, text},
};

impl Kind for Lease {
    const NAMES: Names = Names { plural: "leases", singular: "lease", short: &[], categories: &[] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/leases";
    const SUBRESOURCES: &'static [Subresource] = &[];
    const GENERATION: bool = false;
    const COLUMNS: &'static [Column<Lease>] = &[
        name(),
        text("Holder", "Who holds it.", |lease, _| {
            let holder = || lease.spec.as_ref()?.holder_identity.as_deref();
            holder().unwrap_or_default().into()
        }),
        age(),
    ];

    /// Fields for elections that servers coordinate, which are off upstream unless asked for.
    fn prepare_create(&mut self) {
        if let Some(spec) = &mut self.spec {
            (spec.strategy, spec.preferred_holder) = (None, None);
        }
    }

    fn prepare_update(&mut self, _old: &Lease) {
        self.prepare_create();
    }

    fn validate(&self, errors: &mut Errors) {
        let Some(spec) = &self.spec else { return };
        if let Some(seconds) = spec.lease_duration_seconds.filter(|it| *it <= 0) {
            errors.invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0");
        }
        if let Some(count) = spec.lease_transitions.filter(|it| *it < 0) {
            errors.invalid("spec.leaseTransitions", count, "must be greater than or equal to 0");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::from_value, meta::columns::tests::row};
    use serde_json::json;

    #[test]
    fn lasts_some_time() {
        let spec = json!({"holderIdentity": "n1", "leaseDurationSeconds": 0});
        let lease: Lease = from_value(&json!({"metadata": {"name": "l"}, "spec": spec})).unwrap();
        assert_eq!(row(&lease), "l | n1 | <unknown>");
        let mut errors = Errors::default();
        lease.validate(&mut errors);
        assert_eq!(
            errors.message(),
            "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"
        );
    }
}
