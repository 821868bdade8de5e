//! `v1` Secret: bytes by key, of a type that says which keys.
//!
//! Upstream: `pkg/apis/core/validation/validation.go`, ValidateSecret and Update.

use super::config_map::{DATA_MOST, IMMUTABLE};
use crate::{
    Object,
    field::{Errors, quoted},
    k8s::{ByteString, api::core::v1::Secret},
    kind::{Cell, Column, Kind, Names, Scope, Subresource},
    meta::{
        absent::{fill, text},
        columns::{self, age, name},
        names,
    },
};
use std::collections::BTreeMap;

impl Kind for Secret {
    const NAMES: Names =
        Names { plural: "secrets", singular: "secret", short: &[], categories: &[] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/secrets";
    const SUBRESOURCES: &'static [Subresource] = &[];
    const GENERATION: bool = false;
    const COLUMNS: &'static [Column<Secret>] = &[
        name(),
        columns::text("Type", "What it is for.", |secret, _| text(&secret.type_).into()),
        columns::text("Data", "How many keys it has.", |secret, _| {
            let keys = secret.data.as_ref().map_or(0, |it| it.len());
            Cell::Number(i64::try_from(keys).unwrap_or(i64::MAX))
        }),
        age(),
    ];

    fn default(&mut self) {
        fill(&mut self.type_, "Opaque");
        // Texts are another way to write data, and win over it.
        for (key, value) in self.string_data.take().into_iter().flatten() {
            let data = self.data.get_or_insert_default();
            data.insert(key, ByteString(value.into_bytes()));
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let empty = BTreeMap::new();
        let data = self.data.as_ref().unwrap_or(&empty);
        for key in data.keys() {
            names::config_key(format!("data[{key}]"), key, errors);
        }
        if data.values().map(|it| it.0.len()).sum::<usize>() > DATA_MOST {
            errors.too_long("data", DATA_MOST);
        }
        validate_type(self, data, errors);
    }

    fn validate_update(&self, old: &Secret, errors: &mut Errors) {
        if text(&self.type_) != text(&old.type_) {
            errors.invalid("type", quoted(text(&self.type_)), "field is immutable");
        }
        if old.immutable != Some(true) {
            return;
        }
        let data = |it: &Secret| it.data.clone().unwrap_or_default();
        let changes =
            [("immutable", self.immutable != Some(true)), ("data", data(self) != data(old))];
        for (field, _) in changes.into_iter().filter(|it| it.1) {
            errors.forbidden(field, IMMUTABLE);
        }
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![("type", text(&self.type_).to_owned())]
    }
}

fn validate_type(secret: &Secret, data: &BTreeMap<String, ByteString>, errors: &mut Errors) {
    let mut need = |keys: &[&str]| {
        for key in keys.iter().filter(|it| !data.contains_key(**it)) {
            errors.required(format!("data[{key}]"), "");
        }
    };
    match text(&secret.type_) {
        "kubernetes.io/service-account-token" => {
            let key = "kubernetes.io/service-account.name";
            if secret.annotation(key).unwrap_or_default().is_empty() {
                errors.required(format!("metadata.annotations[{key}]"), "");
            }
        }
        "kubernetes.io/basic-auth" => {
            let (user, password) = ("username", "password");
            if !data.contains_key(user) && !data.contains_key(password) {
                need(&[user, password]);
            }
        }
        "kubernetes.io/ssh-auth" if data.get("ssh-privatekey").is_none_or(|it| it.0.is_empty()) => {
            errors.required("data[ssh-privatekey]", "");
        }
        "kubernetes.io/tls" => need(&["tls.crt", "tls.key"]),
        kind @ ("kubernetes.io/dockercfg" | "kubernetes.io/dockerconfigjson") => {
            let json = kind.ends_with("json");
            let key = if json { ".dockerconfigjson" } else { ".dockercfg" };
            need(&[key]);
            let is_object = |it: &ByteString| {
                serde_json::from_slice::<serde_json::Map<_, _>>(&it.0).map(|_| ())
            };
            if let Some(Err(error)) = data.get(key).map(is_object) {
                let shown = quoted("<secret contents redacted>");
                errors.invalid(format!("data[{key}]"), shown, error);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::from_value, meta::columns::tests::row};
    use serde_json::{Value, json};

    fn secret(mut value: Value) -> Secret {
        value["metadata"] = json!({"name": "s"});
        let mut secret = from_value(&value).unwrap();
        <Secret as Kind>::default(&mut secret);
        secret
    }

    #[test]
    fn texts_become_data() {
        let secret = secret(json!({"data": {"a": "MQ==", "b": "Mg=="}, "stringData": {"a": "9"}}));
        assert_eq!(secret.string_data, None);
        assert_eq!(secret.data.as_ref().unwrap()["a"].0, b"9");
        assert_eq!(row(&secret), "s | Opaque | 2 | <unknown>");
    }

    #[test]
    fn types_need_their_keys() {
        let wrong = |value: Value| {
            let mut errors = Errors::default();
            secret(value).validate(&mut errors);
            errors.message()
        };
        assert_eq!(wrong(json!({"type": "anything"})), "");
        assert_eq!(
            wrong(json!({"type": "kubernetes.io/tls", "stringData": {"tls.crt": "x"}})),
            "data[tls.key]: Required value"
        );
        assert_eq!(
            wrong(json!({"type": "kubernetes.io/basic-auth"})),
            "[data[username]: Required value, data[password]: Required value]"
        );
    }
}
