//! `v1` ConfigMap: texts and bytes by key.
//!
//! Upstream: `pkg/apis/core/validation/validation.go`, ValidateConfigMap and Update.

use crate::{
    field::{Errors, quoted},
    k8s::api::core::v1::ConfigMap,
    kind::{Cell, Column, Kind, Names, Scope, Subresource},
    meta::{
        columns::{age, name, text},
        names,
    },
};

/// All values of a ConfigMap or Secret together, in bytes.
pub(crate) const DATA_MOST: usize = 1024 * 1024;

pub(crate) const IMMUTABLE: &str = "field is immutable when `immutable` is set";

impl Kind for ConfigMap {
    const NAMES: Names =
        Names { plural: "configmaps", singular: "configmap", short: &["cm"], categories: &[] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/configmaps";
    const SUBRESOURCES: &'static [Subresource] = &[];
    const GENERATION: bool = false;
    const COLUMNS: &'static [Column<ConfigMap>] = &[
        name(),
        text("Data", "How many keys it has.", |map, _| {
            let texts = map.data.as_ref().map_or(0, |it| it.len());
            let bytes = map.binary_data.as_ref().map_or(0, |it| it.len());
            Cell::Number(i64::try_from(texts + bytes).unwrap_or(i64::MAX))
        }),
        age(),
    ];

    fn validate(&self, errors: &mut Errors) {
        let mut bytes = 0;
        for (key, value) in self.data.iter().flatten() {
            let path = format!("data[{key}]");
            names::config_key(&path, key, errors);
            if self.binary_data.as_ref().is_some_and(|it| it.contains_key(key)) {
                errors.invalid(path, quoted(key), "duplicate of key present in binaryData");
            }
            bytes += value.len();
        }
        for (key, value) in self.binary_data.iter().flatten() {
            names::config_key(format!("binaryData[{key}]"), key, errors);
            bytes += value.0.len();
        }
        if bytes > DATA_MOST {
            errors.too_long("[]", DATA_MOST);
        }
    }

    fn validate_update(&self, old: &ConfigMap, errors: &mut Errors) {
        if old.immutable != Some(true) {
            return;
        }
        let texts = |it: &ConfigMap| it.data.clone().unwrap_or_default();
        let bytes = |it: &ConfigMap| it.binary_data.clone().unwrap_or_default();
        let changes = [
            ("immutable", self.immutable != Some(true)),
            ("data", texts(self) != texts(old)),
            ("binaryData", bytes(self) != bytes(old)),
        ];
        for (field, _) in changes.into_iter().filter(|it| it.1) {
            errors.forbidden(field, IMMUTABLE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::from_value, meta::columns::tests::row};
    use serde_json::{Value, json};

    fn map(mut value: Value) -> ConfigMap {
        value["metadata"] = json!({"name": "m"});
        from_value(&value).unwrap()
    }

    #[test]
    fn keys_are_file_names_and_data_has_a_limit() {
        let wrong = |value: Value| {
            let mut errors = Errors::default();
            map(value).validate(&mut errors);
            errors.message()
        };
        assert_eq!(wrong(json!({"data": {"a.conf": "x"}, "binaryData": {"b": "AAAA"}})), "");
        assert_eq!(
            wrong(json!({"data": {"..": "x"}})),
            "data[..]: Invalid value: \"..\": must not be '..'"
        );
        assert!(
            wrong(json!({"data": {"a/b": "x"}})).contains("a valid config key must consist of")
        );
        assert_eq!(
            wrong(json!({"data": {"a": "x".repeat(DATA_MOST + 1)}})),
            "[]: Too long: may not be more than 1048576 bytes"
        );
    }

    #[test]
    fn an_immutable_map_keeps_its_data() {
        let old = map(json!({"data": {"a": "1"}, "immutable": true}));
        let mut errors = Errors::default();
        map(json!({"data": {"a": "2"}})).validate_update(&old, &mut errors);
        assert_eq!(
            errors.message(),
            format!("[immutable: Forbidden: {IMMUTABLE}, data: Forbidden: {IMMUTABLE}]")
        );
        assert_eq!(row(&old), "m | 1 | <unknown>");
    }
}
