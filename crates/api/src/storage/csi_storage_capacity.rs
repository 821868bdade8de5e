//! `storage.k8s.io/v1` CSIStorageCapacity: how much a driver can still make for a class in a place.
//!
//! Upstream: `pkg/apis/storage/validation/validation.go`, ValidateCSIStorageCapacity and Update.

use crate::{
    apps::template::immutable,
    core::node::deprecated_label,
    field::{Errors, quoted},
    k8s::api::storage::v1::CSIStorageCapacity,
    kind::{Column, Kind, Names, Scope},
    meta::{
        absent::list,
        columns::{UNSET, name, text},
        names,
        quantity::{Exact, canonicalize_one, read},
        validate::label_selector,
    },
};

impl Kind for CSIStorageCapacity {
    const NAMES: Names = Names {
        plural: "csistoragecapacities",
        singular: "csistoragecapacity",
        short: &[],
        categories: &[],
    };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/csistoragecapacities";
    const COLUMNS: &'static [Column<CSIStorageCapacity>] = &[
        name(),
        text("StorageClassName", "The class that it is about.", |it, _| {
            it.storage_class_name.as_str().into()
        }),
        text("Capacity", "How much there is.", |it, _| {
            it.capacity.as_ref().map_or(UNSET, |it| it.0.as_str()).into()
        }),
    ];

    fn default(&mut self) {
        for amount in [&mut self.capacity, &mut self.maximum_volume_size].into_iter().flatten() {
            canonicalize_one(amount);
        }
    }

    fn validate(&self, errors: &mut Errors) {
        if let Some(selector) = &self.node_topology {
            label_selector("nodeTopology", selector, errors);
        }
        names::dns_subdomain("storageClassName", &self.storage_class_name, errors);
        if let Some(amount) = &self.capacity
            && let Some(exact) = read("capacity", amount, errors)
            && exact < Exact::ZERO
        {
            let detail = "must be greater than or equal to 0";
            errors.invalid("capacity", quoted(&amount.0), detail);
        }
    }

    fn warnings(&self, _old: Option<&CSIStorageCapacity>) -> Vec<String> {
        let Some(selector) = &self.node_topology else { return Vec::new() };
        let mut warnings = Vec::new();
        for (n, it) in list(&selector.match_expressions).iter().enumerate() {
            if let Some(what) = deprecated_label(&it.key) {
                let path = format!("nodeTopology.matchExpressions[{n}].key");
                warnings.push(format!("{path}: {} is {what}", it.key));
            }
        }
        for key in selector.match_labels.iter().flat_map(|it| it.keys()) {
            let what = deprecated_label(key);
            warnings.extend(what.map(|it| format!("nodeTopology.matchLabels.{key}: {it}")));
        }
        warnings
    }

    fn validate_update(&self, old: &CSIStorageCapacity, errors: &mut Errors) {
        immutable("nodeTopology", &self.node_topology, &old.node_topology, errors);
        immutable("storageClassName", &self.storage_class_name, &old.storage_class_name, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::from_value, meta::columns::tests::row};
    use serde_json::json;

    fn room(class: &str, capacity: &str) -> CSIStorageCapacity {
        from_value(&json!({"metadata": {"name": "a", "namespace": "ns"}, "storageClassName": class, "capacity": capacity}))
            .unwrap()
    }

    #[test]
    fn says_how_much_and_keeps_to_its_class() {
        let old = room("fast", "1Gi");
        let mut errors = Errors::default();
        old.validate(&mut errors);
        assert_eq!(errors.message(), "");
        assert_eq!(row(&old), "a | fast | 1Gi");
        room("fast", "-1").validate(&mut errors);
        room("slow", "1Gi").validate_update(&old, &mut errors);
        assert_eq!(
            errors.message(),
            "[capacity: Invalid value: \"-1\": must be greater than or equal to 0, \
             storageClassName: Invalid value: \"slow\": field is immutable]"
        );
    }
}
