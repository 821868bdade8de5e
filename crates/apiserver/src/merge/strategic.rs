//! Strategic merge patches: merge patches that know which lists are lists of named things.
//!
//! Directives: `$patch: delete|replace|merge`, `$retainKeys`, `$setElementOrder/<list>`,
//! `$deleteFromPrimitiveList/<list>`.
//! Upstream: `apimachinery/pkg/util/strategicpatch/patch.go`, StrategicMergePatch.

use api::schema::{Shapes, facts::Treatment, shape::Place};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MergeError {
    #[error("map: {map} does not contain declared merge key: {key}")]
    NoMergeKey { map: String, key: &'static str },
    #[error("unknown patch type: {directive} in map: {map}")]
    UnknownDirective { directive: String, map: String },
    #[error("merging lists cannot yet be specified in the patch")]
    MergeInList,
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    #[error("invalid patch format of setElementOrder list")]
    ElementOrder,
    #[error("invalid patch format of primitive list")]
    PrimitiveList,
    #[error("lists of lists are not supported")]
    ListOfLists,
}

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";

/// Where in an object a value lies; without a place, lists are replaced and objects merged.
#[derive(Clone, Copy)]
struct At<'s> {
    shapes: &'s Shapes,
    place: Option<&'s Place>,
}

/// How a list or an object is patched.
#[derive(Clone, Copy)]
enum How {
    /// Objects are merged, lists replaced.
    Plain,
    /// Items are merged by the value of this field of theirs.
    ByKey(&'static str),
    /// What is new is added.
    Set,
    /// Replaced whole, also if it is an object.
    Replaced,
}

impl<'s> At<'s> {
    /// How a field is patched, and where the content of its items or fields lies.
    fn field(self, name: &str) -> (How, At<'s>) {
        let inside = |place: Option<&'s Place>| At { shapes: self.shapes, place };
        let Some(Place::Object { of, .. }) = self.place else { return (How::Plain, inside(None)) };
        let Some(field) = self.shapes.type_of(*of).field(name) else {
            return (How::Plain, inside(None));
        };
        let how = match field.treatment {
            Some(Treatment::SetMerged) => How::Set,
            Some(Treatment::Replaced) => How::Replaced,
            other => other.and_then(Treatment::merge_key).map_or(How::Plain, How::ByKey),
        };
        match &field.place {
            Place::List { items, .. } => (how, inside(Some(items))),
            place => (how, inside(Some(place))),
        }
    }
}

/// Merges `patch` into `document`, an object of the kind with these shapes.
pub(super) fn merge(
    document: &mut Value,
    patch: &Value,
    shapes: &Shapes,
) -> Result<(), MergeError> {
    let Value::Object(patch) = patch else { return Ok(()) };
    if !document.is_object() {
        *document = Value::Object(Map::new());
    }
    let Value::Object(fields) = document else { return Ok(()) };
    let root = shapes.root();
    merge_map(fields, patch, At { shapes, place: Some(&root) })
}

fn merge_map(
    fields: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    of: At<'_>,
) -> Result<(), MergeError> {
    match patch.get(PATCH).map(|it| it.as_str().unwrap_or_default()) {
        None => {}
        Some("replace") => {
            *fields = patch.clone();
            fields.remove(PATCH);
            return Ok(());
        }
        Some("delete") => {
            fields.clear();
            return Ok(());
        }
        Some("merge") => {}
        Some(other) => {
            let (directive, map) = (other.to_owned(), Value::Object(patch.clone()).to_string());
            return Err(MergeError::UnknownDirective { directive, map });
        }
    }
    retain(fields, patch)?;
    for (name, value) in patch {
        if name == PATCH || name == RETAIN_KEYS || name.starts_with(ELEMENT_ORDER) {
            continue;
        }
        if let Some(list) = name.strip_prefix(DELETE_FROM_LIST) {
            let gone = value.as_array().ok_or(MergeError::PrimitiveList)?;
            let gone: HashSet<&Value> = gone.iter().collect();
            if let Some(Value::Array(items)) = fields.get_mut(list) {
                items.retain(|it| !gone.contains(it));
            }
            continue;
        }
        merge_field(fields, name, value, of)?;
    }
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix(ELEMENT_ORDER) {
            let order = value.as_array().ok_or(MergeError::ElementOrder)?;
            reorder(fields, patch, list, order, of)?;
        }
    }
    Ok(())
}

fn merge_field(
    fields: &mut Map<String, Value>,
    name: &str,
    value: &Value,
    of: At<'_>,
) -> Result<(), MergeError> {
    let (how, inside) = of.field(name);
    match (fields.get_mut(name), value) {
        (_, Value::Null) => drop(fields.remove(name)),
        (Some(Value::Object(old)), Value::Object(new)) => match how {
            How::Replaced => *old = new.clone(),
            How::Plain | How::ByKey(_) | How::Set => merge_map(old, new, inside)?,
        },
        (Some(Value::Array(old)), Value::Array(new)) => match how {
            How::ByKey(key) => merge_list(old, new, key, inside)?,
            How::Set => merge_set(old, new)?,
            How::Plain | How::Replaced => *old = new.clone(),
        },
        // There is nothing to merge with.
        (_, value) => match plain(value) {
            Some(value) => drop(fields.insert(name.to_owned(), value)),
            None => drop(fields.remove(name)),
        },
    }
    Ok(())
}

/// Clears what the writer does not name, so that one of several choices can take another's place.
fn retain(fields: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), MergeError> {
    let Some(keys) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let keys = keys.as_array().ok_or(MergeError::RetainKeys)?;
    let kept = |name: &str| keys.iter().any(|it| it == name);
    let named = |(name, value): (&String, &Value)| {
        value.is_null()
            || name == RETAIN_KEYS
            || name.starts_with(ELEMENT_ORDER)
            || name.starts_with(DELETE_FROM_LIST)
            || kept(name)
    };
    if !patch.iter().all(named) {
        return Err(MergeError::RetainKeys);
    }
    fields.retain(|name, _| kept(name));
    Ok(())
}

/// Items with the same key are one item.
fn merge_list(
    old: &mut Vec<Value>,
    patch: &[Value],
    key: &'static str,
    inside: At<'_>,
) -> Result<(), MergeError> {
    let order = old.clone();
    let mut new: Vec<&Map<String, Value>> = Vec::with_capacity(patch.len());
    let mut gone: HashSet<&Value> = HashSet::new();
    let mut replace = false;
    for item in patch {
        let Value::Object(item) = item else { return Err(MergeError::ListOfLists) };
        match item.get(PATCH).map(|it| it.as_str().unwrap_or_default()) {
            None => new.push(item),
            Some("delete") => drop(gone.insert(key_of(item, key)?)),
            Some("replace") => replace = true,
            Some("merge") => return Err(MergeError::MergeInList),
            Some(other) => {
                let (directive, map) = (other.to_owned(), Value::Object(item.clone()).to_string());
                return Err(MergeError::UnknownDirective { directive, map });
            }
        }
    }
    old.retain(|it| it.get(key).is_none_or(|it| !gone.contains(it)));
    if replace {
        *old = new.into_iter().filter_map(|it| plain(&Value::Object(it.clone()))).collect();
        return Ok(());
    }
    let mut at = HashMap::new();
    for (n, item) in old.iter().enumerate() {
        if let Some(value) = item.get(key) {
            at.entry(value.clone()).or_insert(n);
        }
    }
    for item in &new {
        let value = key_of(item, key)?;
        let same = at.get(value).and_then(|n| old.get_mut(*n)).and_then(Value::as_object_mut);
        if let Some(same) = same {
            merge_map(same, item, inside)?;
        } else if let Some(item) = plain(&Value::Object((*item).clone())) {
            at.entry(value.clone()).or_insert(old.len());
            old.push(item);
        }
    }
    let named: Vec<Value> = new.iter().filter_map(|it| it.get(key)).cloned().collect();
    sort(old, &named, &order, |it| it.get(key));
    Ok(())
}

fn merge_set(old: &mut Vec<Value>, patch: &[Value]) -> Result<(), MergeError> {
    if patch.iter().any(|it| it.is_object() || it.is_array()) {
        return Err(MergeError::ListOfLists);
    }
    let order = old.clone();
    let mut known: HashSet<&Value> = order.iter().collect();
    old.extend(patch.iter().filter(|it| known.insert(it)).cloned());
    sort(old, patch, &order, |it| Some(it));
    Ok(())
}

/// `$setElementOrder`: what the writer names comes in the writer's order.
fn reorder(
    fields: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    list: &str,
    order: &[Value],
    of: At<'_>,
) -> Result<(), MergeError> {
    let key = match of.field(list).0 {
        How::ByKey(key) => Some(key),
        How::Set | How::Plain | How::Replaced => None,
    };
    let by = |it: &Value| match key {
        Some(key) => it.get(key).cloned(),
        None => Some(it.clone()),
    };
    let named: Vec<Value> = order.iter().filter_map(by).collect();
    if named.len() != order.len() {
        return Err(MergeError::ElementOrder);
    }
    // Every item of the patch has its place, in the same order.
    let own = patch.get(list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let own = own.iter().filter(|it| it.get(PATCH).is_none()).filter_map(by);
    let mut places = named.iter();
    for item in own {
        if !places.any(|it| *it == item) {
            return Err(MergeError::ElementOrder);
        }
    }
    if let Some(Value::Array(items)) = fields.get_mut(list) {
        let live = items.clone();
        match key {
            Some(key) => sort(items, &named, &live, |it| it.get(key)),
            None => sort(items, &named, &live, |it| Some(it)),
        }
    }
    Ok(())
}

/// Where each key stands first: lists of a request may be long, and are not searched item by item.
fn firsts<'v>(keys: impl Iterator<Item = Option<&'v Value>>) -> HashMap<&'v Value, usize> {
    let mut firsts = HashMap::new();
    for (at, key) in keys.enumerate() {
        if let Some(key) = key {
            firsts.entry(key).or_insert(at);
        }
    }
    firsts
}

/// Named items in the order of their names; the others keep their places between them as far as
/// `live` has both.
fn sort(
    items: &mut Vec<Value>,
    named: &[Value],
    live: &[Value],
    by: impl Fn(&Value) -> Option<&Value>,
) {
    let (named, live) = (firsts(named.iter().map(Some)), firsts(live.iter().map(&by)));
    let place = |it: &Value| named.get(by(it)?).copied();
    let at = |it: &Value| live.get(by(it)?).copied();
    let (mut first, others): (Vec<Value>, Vec<Value>) =
        std::mem::take(items).into_iter().partition(|it| place(it).is_some());
    first.sort_by_key(|it| place(it));
    let mut others = others.into_iter().peekable();
    for item in first {
        while let (Some(other), Some(here)) = (others.peek(), at(&item))
            && at(other).is_some_and(|it| it < here)
        {
            items.extend(others.next());
        }
        items.push(item);
    }
    items.extend(others);
}

fn key_of<'a>(item: &'a Map<String, Value>, key: &'static str) -> Result<&'a Value, MergeError> {
    item.get(key).ok_or_else(|| {
        let map = Value::Object(item.clone()).to_string();
        MergeError::NoMergeKey { map, key }
    })
}

/// A value of the patch as it is taken over: without directives and without nulls. `None` for one
/// that only says to delete.
fn plain(value: &Value) -> Option<Value> {
    match value {
        Value::Object(fields) => {
            if fields.get(PATCH).is_some_and(|it| it != "replace" && it != "merge") {
                return None;
            }
            let own = fields.iter().filter(|(name, value)| {
                !value.is_null()
                    && *name != PATCH
                    && *name != RETAIN_KEYS
                    && !name.starts_with(ELEMENT_ORDER)
                    && !name.starts_with(DELETE_FROM_LIST)
            });
            let own = own.filter_map(|(name, it)| Some((name.clone(), plain(it)?)));
            Some(Value::Object(own.collect()))
        }
        Value::Array(items) => Some(Value::Array(items.iter().filter_map(plain).collect())),
        value => Some(value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn shapes(kind: &str) -> Shapes {
        Shapes::of(api::kinds().iter().find(|it| it.kind == kind).unwrap())
    }

    fn check(kind: &str, mut document: Value, patch: Value, expected: Value) {
        let shapes = shapes(kind);
        merge(&mut document, &patch, &shapes).unwrap();
        assert_eq!(document, expected);
        merge(&mut document, &patch, &shapes).unwrap();
        assert_eq!(document, expected, "again");
    }

    fn pod(spec: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": spec})
    }

    #[test]
    fn named_things_are_merged_by_name_and_new_ones_come_first() {
        check(
            "Pod",
            pod(json!({"containers": [
                {"name": "a", "image": "1", "ports": [{"containerPort": 80}]},
                {"name": "b", "image": "1"}]})),
            json!({"spec": {"containers": [
                {"name": "b", "image": "2"},
                {"name": "a", "ports": [{"containerPort": 81}]}]}}),
            pod(json!({"containers": [
                {"name": "b", "image": "2"},
                {"name": "a", "image": "1", "ports": [{"containerPort": 81}, {"containerPort": 80}]}]})),
        );
    }

    #[test]
    fn one_item_goes_and_the_others_stay() {
        check(
            "Service",
            json!({"spec": {"ports": [{"port": 1}, {"port": 2}]}}),
            json!({"spec": {"ports": [{"$patch": "delete", "port": 1}]}}),
            json!({"spec": {"ports": [{"port": 2}]}}),
        );
        check(
            "Service",
            json!({"spec": {"ports": [{"port": 1}, {"port": 2}]}}),
            json!({"spec": {"ports": [{"$patch": "replace"}, {"port": 3}]}}),
            json!({"spec": {"ports": [{"port": 3}]}}),
        );
    }

    #[test]
    fn an_object_can_be_replaced_or_emptied() {
        check(
            "Pod",
            pod(json!({"nodeSelector": {"a": "1"}})),
            json!({"spec": {"nodeSelector": {"$patch": "replace", "b": "2"}}}),
            pod(json!({"nodeSelector": {"b": "2"}})),
        );
        check(
            "Pod",
            pod(json!({"nodeSelector": {"a": "1"}})),
            json!({"spec": {"nodeSelector": {"a": null, "c": null}}}),
            pod(json!({"nodeSelector": {}})),
        );
    }

    #[test]
    fn a_volume_changes_its_source() {
        check(
            "StatefulSet",
            json!({"spec": {"template": {"spec": {"volumes": [
                {"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}]}}}}),
            json!({"spec": {"template": {"spec": {
                "$setElementOrder/volumes": [{"name": "v"}, {"name": "w"}],
                "volumes": [{"$retainKeys": ["name", "hostPath"], "name": "v", "hostPath": {"path": "/"}}]}}}}),
            json!({"spec": {"template": {"spec": {"volumes": [
                {"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "emptyDir": {}}]}}}}),
        );
    }

    #[test]
    fn sets_grow_and_shrink() {
        check(
            "Pod",
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            json!({"metadata": {
                "$deleteFromPrimitiveList/finalizers": ["a"],
                "$setElementOrder/finalizers": ["c", "b"],
                "finalizers": ["c"]}}),
            json!({"metadata": {"finalizers": ["c", "b"]}}),
        );
    }

    #[test]
    fn what_others_added_stays_where_it_was() {
        check(
            "Pod",
            pod(
                json!({"containers": [{"name": "x"}, {"name": "a"}, {"name": "y"}, {"name": "b"}]}),
            ),
            json!({"spec": {
                "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
                "containers": [{"name": "a", "image": "1"}]}}),
            pod(json!({"containers": [
                {"name": "x"}, {"name": "y"}, {"name": "b"}, {"name": "a", "image": "1"}]})),
        );
    }

    #[test]
    fn lists_without_names_are_replaced() {
        check(
            "Pod",
            pod(
                json!({"tolerations": [{"key": "a"}], "containers": [{"name": "a", "args": ["1"]}]}),
            ),
            json!({"spec": {"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["2"]}]}}),
            pod(
                json!({"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["2"]}]}),
            ),
        );
    }

    #[test]
    fn says_what_is_wrong_with_a_patch() {
        for (patch, error) in [
            (
                json!({"spec": {"containers": [{"image": "x"}]}}),
                "map: {\"image\":\"x\"} does not contain declared merge key: name",
            ),
            (
                json!({"spec": {"containers": [{"$patch": "mix", "name": "a"}]}}),
                "unknown patch type: mix in map: {\"$patch\":\"mix\",\"name\":\"a\"}",
            ),
            (
                json!({"spec": {"$setElementOrder/containers": [], "containers": [{"name": "a"}]}}),
                "invalid patch format of setElementOrder list",
            ),
            (
                json!({"spec": {"volumes": [{"$retainKeys": ["name"], "name": "v", "nfs": {}}]}}),
                "invalid patch format of retainKeys",
            ),
        ] {
            let mut document =
                pod(json!({"containers": [{"name": "a"}], "volumes": [{"name": "v"}]}));
            let found = merge(&mut document, &patch, &shapes("Pod")).unwrap_err().to_string();
            assert_eq!(found, error);
        }
    }

    fn names() -> impl Strategy<Value = Vec<String>> {
        proptest::collection::btree_set("[a-e]", 0..5).prop_map(|it| it.into_iter().collect())
    }

    proptest! {
        #[test]
        fn a_patch_applied_twice_is_a_patch_applied_once(
            old in names().prop_shuffle(),
            new in names().prop_shuffle(),
            gone in names(),
            labels in proptest::collection::btree_map("[a-c]", proptest::option::of("[x-z]"), 0..3),
            ordered: bool,
        ) {
            let item = |name: &String, image: &str| json!({"name": name, "image": image});
            let items: Vec<Value> = old.iter().map(|it| item(it, "1")).collect();
            let mut document = json!({
                "metadata": {"labels": {"a": "x"}, "finalizers": old}, "spec": {"containers": items},
            });
            let gone: Vec<&String> = gone.iter().filter(|it| !new.contains(it)).collect();
            let mut containers: Vec<Value> = new.iter().map(|it| item(it, "2")).collect();
            containers.extend(gone.iter().map(|it| json!({"$patch": "delete", "name": it})));
            let mut patch = json!({
                "metadata": {"labels": labels, "finalizers": new,
                    "$deleteFromPrimitiveList/finalizers": gone},
                "spec": {"containers": containers},
            });
            if ordered {
                let order: Vec<Value> = new.iter().map(|it| json!({"name": it})).collect();
                patch["spec"]["$setElementOrder/containers"] = order.into();
            }
            merge(&mut document, &patch, &shapes("Pod")).unwrap();
            let once = document.clone();
            merge(&mut document, &patch, &shapes("Pod")).unwrap();
            prop_assert_eq!(document, once);
        }
    }
}
