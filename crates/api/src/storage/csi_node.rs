//! `storage.k8s.io/v1` CSINode: the drivers that run on a node.
//!
//! Upstream: `pkg/apis/storage/validation/validation.go`, ValidateCSINode and Update.

use crate::{
    field::{Errors, quoted},
    k8s::api::storage::v1::{CSINode, CSINodeDriver},
    kind::{Cell, Column, Format, Kind, Names, Scope, Subresource},
    meta::{
        absent::{list, same},
        columns::{age, name},
        names,
    },
};

/// Longest name that a driver has for a node, in bytes.
const NODE_ID_MOST: usize = 256;

impl Kind for CSINode {
    const NAMES: Names =
        Names { plural: "csinodes", singular: "csinode", short: &[], categories: &[] };
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: &'static str = "/registry/csinodes";
    const SUBRESOURCES: &'static [Subresource] = &[];
    const GENERATION: bool = false;
    const COLUMNS: &'static [Column<CSINode>] = &[
        name(),
        Column {
            title: "Drivers",
            format: Format::Integer,
            wide: false,
            description: "How many drivers run there.",
            cell: |node: &CSINode, _| {
                Cell::Number(i64::try_from(node.spec.drivers.len()).unwrap_or(i64::MAX))
            },
        },
        age(),
    ];

    fn validate(&self, errors: &mut Errors) {
        let mut seen = Vec::new();
        for (n, driver) in self.spec.drivers.iter().enumerate() {
            let path = format!("spec.drivers[{n}]");
            validate_driver(&path, driver, errors);
            if seen.contains(&&driver.name) {
                errors.duplicate(format!("{path}.name"), quoted(&driver.name));
            }
            seen.push(&driver.name);
        }
    }

    /// Drivers come and go; what is known of one stays, but for how many volumes it takes.
    fn validate_update(&self, old: &CSINode, errors: &mut Errors) {
        let uncounted = |it: &CSINodeDriver| CSINodeDriver { allocatable: None, ..it.clone() };
        for before in &old.spec.drivers {
            for driver in self.spec.drivers.iter().filter(|it| it.name == before.name) {
                let driver = uncounted(driver);
                if !same(&driver, &uncounted(before)) {
                    let shown = serde_json::to_string(&driver).expect("API objects are plain data");
                    errors.invalid("spec.drivers", shown, "field is immutable");
                }
            }
        }
    }
}

fn validate_driver(path: &str, driver: &CSINodeDriver, errors: &mut Errors) {
    names::driver(format!("{path}.name"), &driver.name, errors);
    if driver.node_id.is_empty() {
        errors.required(format!("{path}.nodeID"), "");
    }
    if driver.node_id.len() > NODE_ID_MOST {
        let detail = format!("must be {NODE_ID_MOST} characters or less");
        errors.invalid(format!("{path}.nodeID"), quoted(&driver.node_id), detail);
    }
    let count = driver.allocatable.as_ref().and_then(|it| it.count).unwrap_or(0);
    names::not_negative(format!("{path}.allocatable.count"), i64::from(count), errors);
    let keys = list(&driver.topology_keys);
    for (n, key) in keys.iter().enumerate() {
        if key.is_empty() {
            errors.required(path, "");
        }
        if keys[..n].contains(key) {
            errors.duplicate(path, quoted(key));
        }
        names::qualified_name(path, key, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::from_value, meta::columns::tests::row};
    use serde_json::{Value, json};

    fn node(drivers: Value) -> CSINode {
        from_value(&json!({"metadata": {"name": "n1"}, "spec": {"drivers": drivers}})).unwrap()
    }

    #[test]
    fn a_driver_knows_the_node_by_one_name() {
        let old = node(json!([{"name": "d.example.com", "nodeID": "a"}]));
        assert_eq!(row(&old), "n1 | 1 | <unknown>");
        let changed = |drivers: Value| {
            let mut errors = Errors::default();
            node(drivers).validate_update(&old, &mut errors);
            errors.0.len()
        };
        assert_eq!(changed(json!([])), 0);
        let counted =
            json!([{"name": "d.example.com", "nodeID": "a", "allocatable": {"count": 3}}]);
        assert_eq!(changed(counted), 0);
        assert_eq!(changed(json!([{"name": "d.example.com", "nodeID": "b"}])), 1);
        let mut errors = Errors::default();
        node(json!([{"name": "d.example.com"}])).validate(&mut errors);
        assert_eq!(errors.message(), "spec.drivers[0].nodeID: Required value");
    }
}
