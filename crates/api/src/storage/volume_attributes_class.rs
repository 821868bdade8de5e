//! `storage.k8s.io/v1` VolumeAttributesClass: what a driver may be asked to change about a volume.
//!
//! Upstream: `pkg/apis/storage/validation/validation.go`, ValidateVolumeAttributesClass and Update.

use super::storage_class::{validate_parameters, validate_provisioner};
use crate::{
    field::Errors,
    k8s::api::storage::v1::VolumeAttributesClass,
    kind::{Column, Kind, Names, Scope},
    meta::columns::{age, name, text},
};

impl Kind for VolumeAttributesClass {
    const NAMES: Names = Names {
        plural: "volumeattributesclasses",
        singular: "volumeattributesclass",
        short: &["vac"],
        categories: &[],
    };
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: &'static str = "/registry/volumeattributesclasses";
    const COLUMNS: &'static [Column<VolumeAttributesClass>] = &[
        name(),
        text("DriverName", "Whose volumes it is for.", |class, _| {
            class.driver_name.as_str().into()
        }),
        age(),
    ];

    fn validate(&self, errors: &mut Errors) {
        validate_provisioner("driverName", &self.driver_name, errors);
        validate_parameters(self.parameters.as_ref(), false, errors);
    }

    fn validate_update(&self, old: &VolumeAttributesClass, errors: &mut Errors) {
        if self.driver_name != old.driver_name {
            errors.forbidden("driverName", "updates to driverName are forbidden.");
        }
        if self.parameters != old.parameters {
            errors.forbidden("parameters", "updates to parameters are forbidden.");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::from_value, meta::columns::tests::row};
    use serde_json::{Value, json};

    fn class(parameters: Value) -> VolumeAttributesClass {
        from_value(&json!({"metadata": {"name": "gold"}, "driverName": "d.example.com", "parameters": parameters}))
            .unwrap()
    }

    #[test]
    fn names_a_driver_and_at_least_one_parameter_and_keeps_them() {
        let mut errors = Errors::default();
        class(json!({})).validate(&mut errors);
        assert_eq!(
            errors.message(),
            "parameters: Required value: must contain at least one key/value pair"
        );
        let old = class(json!({"iops": "1"}));
        let mut errors = Errors::default();
        old.validate(&mut errors);
        assert_eq!(errors.message(), "");
        class(json!({"iops": "2"})).validate_update(&old, &mut errors);
        assert_eq!(errors.message(), "parameters: Forbidden: updates to parameters are forbidden.");
        assert_eq!(row(&old), "gold | d.example.com | <unknown>");
    }
}
