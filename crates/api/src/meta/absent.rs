//! Absent, empty and the same: the API writes "nothing" in several ways.
//!
//! Upstream keeps plain strings, lists and maps, for which absent and empty are one; our types keep
//! them apart. Upstream: `apimachinery/pkg/api/equality` (Semantic.DeepEqual).

use serde::Serialize;
use serde_json::Value;

/// Writes a text where there is none, or an empty one.
pub(crate) fn fill(field: &mut Option<String>, text: &str) {
    if field.as_deref().unwrap_or_default().is_empty() {
        *field = Some(text.to_owned());
    }
}

/// Leaves out a zero or a `false` that means the same as nothing: fields that upstream keeps as plain
/// numbers and truth values with `omitempty`.
pub(crate) fn omit_zero<T: Default + PartialEq>(field: &mut Option<T>) {
    if field.as_ref().is_some_and(|it| *it == T::default()) {
        *field = None;
    }
}

/// The text, or the empty one.
pub(crate) fn text(field: &Option<String>) -> &str {
    field.as_deref().unwrap_or_default()
}

/// The list, or the empty one.
pub(crate) fn list<T>(field: &Option<Vec<T>>) -> &[T] {
    field.as_deref().unwrap_or_default()
}

/// Whether two values mean the same: absent, null and empty are one.
pub(crate) fn same<T: Serialize + PartialEq>(one: &T, other: &T) -> bool {
    one == other || pruned(one) == pruned(other)
}

fn pruned<T: Serialize>(value: &T) -> Value {
    let json = serde_json::to_vec(value).expect("API objects are plain data");
    let mut value = serde_json::from_slice(&json).expect("what was just written can be read");
    prune(&mut value);
    value
}

fn prune(value: &mut Value) {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    };
    match value {
        Value::Array(items) => items.iter_mut().for_each(prune),
        Value::Object(fields) => {
            fields.values_mut().for_each(prune);
            fields.retain(|_, it| !is_empty(it));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn absent_and_empty_are_the_same_and_zero_is_not() {
        assert!(same(&json!({"a": [], "b": {"c": ""}}), &json!({})));
        assert!(!same(&json!({"a": 0}), &json!({})));
        assert!(!same(&json!({"a": [{}, 1]}), &json!({"a": [1]})));
    }
}
