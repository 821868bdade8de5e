//! `storage.k8s.io/v1` StorageClass: how volumes are made when a claim asks for one.
//!
//! Upstream: `pkg/apis/storage/validation/validation.go`, `pkg/volume/util/storageclass.go`.

use crate::{
    core::node::deprecated_label,
    field::{Errors, quoted},
    k8s::api::storage::v1::StorageClass,
    kind::{Column, Kind, Names, Object, Printing, Scope, Subresource},
    meta::{
        absent::{fill, list},
        columns::{age, named, text, truth},
        names,
    },
};
use std::collections::BTreeMap;

/// The annotations that make a class the default, the current one first.
pub const DEFAULT_ANNOTATIONS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

/// The provisioner of classes whose volumes are made by hand.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

impl Kind for StorageClass {
    const NAMES: Names = Names {
        plural: "storageclasses",
        singular: "storageclass",
        short: &["sc"],
        categories: &[],
    };
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: &'static str = "/registry/storageclasses";
    const SUBRESOURCES: &'static [Subresource] = &[];
    const GENERATION: bool = false;
    const COLUMNS: &'static [Column<StorageClass>] = &[
        named(|class: &StorageClass, _: &Printing| {
            let mark = if is_default(class) { " (default)" } else { "" };
            format!("{}{mark}", class.name()).into()
        }),
        text("Provisioner", "Who makes the volumes.", |class, _| class.provisioner.as_str().into()),
        text("ReclaimPolicy", "What becomes of volumes without their claim.", |class, _| {
            reclaim_policy(class).into()
        }),
        text("VolumeBindingMode", "When claims get their volumes.", |class, _| {
            class.volume_binding_mode.as_deref().unwrap_or("Immediate").into()
        }),
        text("AllowVolumeExpansion", "Whether claims may grow.", |class, _| {
            truth(class.allow_volume_expansion)
        }),
        age(),
    ];

    fn default(&mut self) {
        fill(&mut self.reclaim_policy, "Delete");
        fill(&mut self.volume_binding_mode, "Immediate");
    }

    fn validate(&self, errors: &mut Errors) {
        validate_provisioner("provisioner", &self.provisioner, errors);
        validate_parameters(self.parameters.as_ref(), true, errors);
        let policies = ["Delete", "Retain"];
        if let Some(it) = self.reclaim_policy.as_deref().filter(|it| !policies.contains(it)) {
            errors.not_supported("reclaimPolicy", it, &policies);
        }
        let modes = ["Immediate", "WaitForFirstConsumer"];
        match self.volume_binding_mode.as_deref() {
            None => errors.required("volumeBindingMode", ""),
            Some(mode) if modes.contains(&mode) => {}
            Some(mode) => errors.not_supported("volumeBindingMode", mode, &modes),
        }
        validate_topologies(self, errors);
    }

    fn warnings(&self, _old: Option<&StorageClass>) -> Vec<String> {
        let terms = list(&self.allowed_topologies).iter().enumerate();
        let expressions = terms.flat_map(|(n, term)| {
            let all = list(&term.match_label_expressions).iter().enumerate();
            all.map(move |(m, it)| {
                (format!("allowedTopologies[{n}].matchLabelExpressions[{m}]"), it)
            })
        });
        let old = expressions.filter_map(|(path, it)| {
            deprecated_label(&it.key).map(|what| format!("{path}.key: {what}"))
        });
        old.collect()
    }

    fn validate_update(&self, old: &StorageClass, errors: &mut Errors) {
        let detail = "field is immutable";
        let parameters = |it: &StorageClass| it.parameters.clone().unwrap_or_default();
        if parameters(self) != parameters(old) {
            let shown = serde_json::to_string(&self.parameters).expect("texts are plain data");
            errors.invalid("parameters", shown, detail);
        }
        let texts = [
            ("provisioner", self.provisioner.as_str(), old.provisioner.as_str()),
            ("reclaimPolicy", reclaim_policy(self), reclaim_policy(old)),
            ("volumeBindingMode", binding_mode(self), binding_mode(old)),
        ];
        for (field, value, before) in texts {
            if value != before {
                errors.invalid(field, quoted(value), detail);
            }
        }
    }
}

/// Most parameters, and their bytes together.
const PARAMETERS_MOST: usize = 512;
const PARAMETER_BYTES_MOST: usize = 256 * 1024;

pub(super) fn validate_provisioner(path: &str, name: &str, errors: &mut Errors) {
    match name {
        "" => errors.required(path, ""),
        name => names::qualified_name(path, &name.to_lowercase(), errors),
    }
}

pub(super) fn validate_parameters(
    parameters: Option<&BTreeMap<String, String>>,
    may_be_empty: bool,
    errors: &mut Errors,
) {
    let Some(parameters) = parameters.filter(|it| !it.is_empty()) else {
        if !may_be_empty {
            errors.required("parameters", "must contain at least one key/value pair");
        }
        return;
    };
    if parameters.len() > PARAMETERS_MOST {
        errors.too_long("parameters", PARAMETERS_MOST);
        return;
    }
    if parameters.contains_key("") {
        errors.invalid("parameters", "\"\"", "field can not be empty.");
    }
    let bytes = parameters.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
    if bytes > PARAMETER_BYTES_MOST {
        errors.too_long("parameters", PARAMETER_BYTES_MOST);
    }
}

fn validate_topologies(class: &StorageClass, errors: &mut Errors) {
    let terms = list(&class.allowed_topologies);
    for (n, term) in terms.iter().enumerate() {
        let path = format!("allowedTopologies[{n}].matchLabelExpressions");
        let expressions = list(&term.match_label_expressions);
        for (m, it) in expressions.iter().enumerate() {
            let path = format!("{path}[{m}]");
            if it.values.is_empty() {
                errors.required(format!("{path}.values"), "");
            }
            for (n, value) in it.values.iter().enumerate() {
                if it.values[..n].contains(value) {
                    errors.duplicate(format!("{path}.values[{n}]"), quoted(value));
                }
            }
            names::qualified_name(format!("{path}.key"), &it.key, errors);
            if expressions[..m].iter().any(|other| other.key == it.key) {
                errors.duplicate(format!("{path}.key"), quoted(&it.key));
            }
        }
        if terms[..n].contains(term) {
            errors.duplicate(path, "\"\"");
        }
    }
}

/// `Immediate` unless the class says otherwise.
pub fn binding_mode(class: &StorageClass) -> &str {
    class.volume_binding_mode.as_deref().unwrap_or("Immediate")
}

/// Whether claims without a class get this one.
pub fn is_default(class: &StorageClass) -> bool {
    DEFAULT_ANNOTATIONS.iter().any(|it| class.annotation(it) == Some("true"))
}

/// Whether volumes are chosen or made only once a pod that uses the claim has a node.
pub fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// Whether claims of this class may grow.
pub fn is_expandable(class: &StorageClass) -> bool {
    class.allow_volume_expansion == Some(true)
}

/// `Delete` unless the class says otherwise.
pub fn reclaim_policy(class: &StorageClass) -> &str {
    class.reclaim_policy.as_deref().unwrap_or("Delete")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::from_value, meta::columns::tests::row};
    use serde_json::{Value, json};

    fn class(mut value: Value) -> StorageClass {
        let annotations = json!({"storageclass.kubernetes.io/is-default-class": "true"});
        value["metadata"] = json!({"name": "local", "annotations": annotations});
        let mut class = from_value(&value).unwrap();
        <StorageClass as Kind>::default(&mut class);
        class
    }

    fn changed(value: Value) -> String {
        let mut errors = Errors::default();
        let old = class(json!({"provisioner": "example.com/p", "parameters": {"a": "1"}}));
        class(value).validate_update(&old, &mut errors);
        errors.message()
    }

    #[test]
    fn shows_which_class_is_the_default() {
        let class = class(json!({"provisioner": "example.com/p", "allowVolumeExpansion": true}));
        assert_eq!(
            row(&class),
            "local (default) | example.com/p | Delete | Immediate | true | <unknown>"
        );
    }

    #[test]
    fn names_what_is_wrong() {
        let wrong = |value: Value| {
            let mut errors = Errors::default();
            class(value).validate(&mut errors);
            errors.message()
        };
        assert_eq!(wrong(json!({"provisioner": "example.com/P"})), "");
        assert_eq!(wrong(json!({})), "provisioner: Required value");
        assert_eq!(
            wrong(json!({"provisioner": "p", "reclaimPolicy": "Recycle"})),
            "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\""
        );
    }

    #[test]
    fn how_volumes_are_made_does_not_change() {
        assert_eq!(
            changed(json!({"provisioner": "example.com/p", "parameters": {"a": "1"},
                "allowVolumeExpansion": true, "mountOptions": ["ro"]})),
            ""
        );
        assert_eq!(
            changed(
                json!({"provisioner": "q", "parameters": {"a": "2"}, "reclaimPolicy": "Retain"})
            ),
            "[parameters: Invalid value: {\"a\":\"2\"}: field is immutable, \
             provisioner: Invalid value: \"q\": field is immutable, \
             reclaimPolicy: Invalid value: \"Retain\": field is immutable]"
        );
    }
}
