//! Stories of authors who apply and update, each told as upstream's merge tests tell theirs.
//!
//! Upstream: `structured-merge-diff/v6/merge/*_test.go`.

use super::{
    Document,
    apply::{Applied, apply},
    entries,
    reset::Filter,
    update::{Author, Given, Stored, updated},
};
use api::{
    AnyKind,
    core::v1::{ConfigMap, Pod},
    kind_of,
    schema::Shapes,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One object and what has happened to it.
struct Story {
    kind: &'static AnyKind,
    shapes: Shapes,
    live: Option<(String, Option<String>)>,
}

impl Story {
    fn of<T: api::Kind>() -> Story {
        let kind = kind_of::<T>();
        Story { kind, shapes: Shapes::of(kind), live: None }
    }

    fn author(&self, manager: &str) -> Author {
        Author {
            manager: manager.to_owned(),
            api_version: self.kind.api_version(),
            subresource: String::new(),
            filter: Filter::of(self.kind, ""),
            now: "2026-01-01T00:00:00Z".to_owned(),
        }
    }

    fn stored(&self) -> Option<Stored<'_>> {
        self.live.as_ref().map(|(json, managed)| Stored { json, managed: managed.as_deref() })
    }

    fn document(&self, mut own: Value) -> String {
        own["apiVersion"] = self.kind.api_version().into();
        own["kind"] = self.kind.kind.clone().into();
        own["metadata"]["name"] = "x".into();
        own.to_string()
    }

    fn try_apply(&mut self, manager: &str, config: Value, force: bool) -> Result<(), String> {
        let (config, author) = (self.document(config), self.author(manager));
        let applied = apply(self.kind, &self.shapes, self.stored(), &config, &author, force);
        let Applied { json, managed } = applied.map_err(|it| it.message)?;
        self.live = Some((json, managed));
        Ok(())
    }

    #[track_caller]
    fn apply(&mut self, manager: &str, config: Value) -> &mut Story {
        self.try_apply(manager, config, false).unwrap();
        self
    }

    #[track_caller]
    fn force(&mut self, manager: &str, config: Value) -> &mut Story {
        self.try_apply(manager, config, true).unwrap();
        self
    }

    #[track_caller]
    fn refused(&mut self, manager: &str, config: Value, why: &str) -> &mut Story {
        let error = self.try_apply(manager, config, false).unwrap_err();
        assert!(error.ends_with(why), "{error}");
        self
    }

    fn update(&mut self, manager: &str, object: Value) -> &mut Story {
        let (new, author) = (self.document(object), self.author(manager));
        let managed =
            updated(self.kind, &self.shapes, self.stored(), &new, &Given::Nothing, &[author]);
        self.live = Some((new, managed));
        self
    }

    /// What is there, without its name.
    fn object(&self) -> Value {
        let mut object: Value = serde_json::from_str(&self.live.as_ref().unwrap().0).unwrap();
        let fields = object.as_object_mut().unwrap();
        fields.remove("apiVersion");
        fields.remove("kind");
        object["metadata"].as_object_mut().unwrap().remove("name");
        if object["metadata"] == json!({}) {
            object.as_object_mut().unwrap().remove("metadata");
        }
        object
    }

    #[track_caller]
    fn is(&mut self, object: Value) -> &mut Story {
        assert_eq!(self.object(), object);
        self
    }

    fn owned(&self) -> BTreeMap<String, Vec<String>> {
        let Some(list) = self.live.as_ref().and_then(|it| it.1.as_ref()) else {
            return BTreeMap::new();
        };
        let list = Document::parse(list).unwrap();
        let managers = entries::read(&list).unwrap();
        managers.iter().map(|(who, it)| (who.manager.clone(), it.set.paths())).collect()
    }

    #[track_caller]
    fn owner(&mut self, manager: &str, paths: &[&str]) -> &mut Story {
        let owned = self.owned();
        assert_eq!(owned.get(manager).map_or(&[][..], |it| it), paths, "{owned:?}");
        self
    }
}

fn data(data: Value) -> Value {
    json!({"data": data})
}

fn spec(spec: Value) -> Value {
    json!({"spec": spec})
}

#[test]
fn leaves_are_owned_given_up_and_taken() {
    Story::of::<ConfigMap>()
        .apply("one", data(json!({"a": "1", "b": "1"})))
        .apply("one", data(json!({"a": "2"})))
        .is(data(json!({"a": "2"})))
        .owner("one", &[".data.a"])
        .refused("two", data(json!({"a": "3"})), "conflict with \"one\": .data.a")
        .force("two", data(json!({"a": "3"})))
        .owner("one", &[])
        .owner("two", &[".data.a"])
        .apply("one", data(json!({"b": "1"})))
        .is(data(json!({"a": "3", "b": "1"})));
}

#[test]
fn what_an_updater_added_stays_when_an_applier_leaves_it_out() {
    Story::of::<ConfigMap>()
        .apply("one", data(json!({"a": "1"})))
        .update("two", data(json!({"a": "1", "b": "2"})))
        .owner("two", &[".data.b"])
        .apply("one", data(json!({"a": "1", "b": "2"})))
        .apply("one", data(json!({"a": "1"})))
        .is(data(json!({"a": "1", "b": "2"})))
        .update("two", data(json!({"b": "2"})))
        .owner("one", &[])
        .owner("two", &[".data.b"]);
}

#[test]
fn an_update_takes_what_it_changes_and_what_it_removes_is_nobodys() {
    Story::of::<ConfigMap>()
        .apply("one", data(json!({"a": "1", "b": "1"})))
        .update("two", data(json!({"a": "2"})))
        .owner("one", &[])
        .owner("two", &[".data.a"])
        .apply("one", data(json!({"b": "1"})))
        .is(data(json!({"a": "2", "b": "1"})));
}

#[test]
fn sets_are_shared_by_their_values() {
    let finalizers = |list: &[&str]| json!({"metadata": {"finalizers": list}});
    Story::of::<ConfigMap>()
        .apply("one", finalizers(&["a/1", "a/2", "a/3"]))
        .apply("two", finalizers(&["a/2", "a/4"]))
        .is(finalizers(&["a/1", "a/2", "a/3", "a/4"]))
        .apply("one", finalizers(&["a/3", "a/1"]))
        .is(finalizers(&["a/2", "a/3", "a/4", "a/1"]))
        .owner("one", &[".metadata.finalizers[=\"a/1\"]", ".metadata.finalizers[=\"a/3\"]"])
        .apply("two", json!({}))
        .is(finalizers(&["a/3", "a/1"]))
        .refused(
            "one",
            finalizers(&["a/1", "a/1"]),
            ".metadata.finalizers: duplicate entries for key [=\"a/1\"]",
        );
}

fn container(name: &str, image: &str) -> Value {
    json!({"name": name, "image": image})
}

fn containers(list: &[Value]) -> Value {
    spec(json!({"containers": list}))
}

#[test]
fn items_are_owned_by_their_keys_and_keep_an_order() {
    Story::of::<Pod>()
        .apply("one", containers(&[container("a", "1"), container("b", "1")]))
        .apply("two", containers(&[container("c", "1"), container("b", "1")]))
        .is(containers(&[container("a", "1"), container("c", "1"), container("b", "1")]))
        .refused(
            "two",
            containers(&[container("a", "2")]),
            "conflict with \"one\": .spec.containers[name=\"a\"].image",
        )
        .apply("one", containers(&[container("a", "1")]))
        .is(containers(&[container("a", "1"), container("c", "1"), container("b", "1")]))
        .apply("two", containers(&[container("c", "1")]))
        .is(containers(&[container("a", "1"), container("c", "1")]));
}

#[test]
fn a_key_that_is_left_out_has_its_default() {
    let port = |port: Value| containers(&[json!({"name": "c", "ports": [port]})]);
    Story::of::<Pod>()
        .apply("one", port(json!({"containerPort": 80})))
        .apply("two", port(json!({"containerPort": 80, "protocol": "TCP", "name": "http"})))
        .is(port(json!({"containerPort": 80, "protocol": "TCP", "name": "http"})))
        .apply("two", containers(&[json!({"name": "c"})]))
        .is(port(json!({"containerPort": 80})));
    let faults = port(json!({"name": "http"}));
    let mut story = Story::of::<Pod>();
    // The protocol has a default, so this port is told apart by it.
    story.apply("one", faults);
    let owned = story.owned();
    assert!(
        owned["one"].iter().any(|it| it.ends_with(".ports[protocol=\"TCP\"].name")),
        "{owned:?}"
    );
}

#[test]
fn what_is_atomic_is_owned_whole() {
    let tolerations = |keys: &[&str]| {
        let list: Vec<Value> = keys.iter().map(|it| json!({"key": it})).collect();
        spec(json!({"tolerations": list}))
    };
    Story::of::<Pod>()
        .apply("one", tolerations(&["a", "b"]))
        .owner("one", &[".spec.tolerations"])
        .refused("two", tolerations(&["a"]), "conflict with \"one\": .spec.tolerations")
        .force("two", tolerations(&["a"]))
        .is(tolerations(&["a"]))
        .owner("one", &[]);
    let selector = |map: Value| spec(json!({"nodeSelector": map}));
    Story::of::<Pod>()
        .apply("one", selector(json!({"a": "1"})))
        .owner("one", &[".spec.nodeSelector"])
        .refused("two", selector(json!({"b": "1"})), "conflict with \"one\": .spec.nodeSelector");
}

#[test]
fn empty_objects_are_owned_and_empty_lists_are_not() {
    let volume = |source: Value| spec(json!({"volumes": [{"name": "v", "emptyDir": source}]}));
    Story::of::<Pod>()
        .apply("one", volume(json!({})))
        .owner(
            "one",
            &[
                ".spec.volumes[name=\"v\"]",
                ".spec.volumes[name=\"v\"].emptyDir",
                ".spec.volumes[name=\"v\"].name",
            ],
        )
        .apply("two", volume(json!({"medium": "Memory"})))
        .is(volume(json!({"medium": "Memory"})))
        .apply("one", spec(json!({"volumes": []})))
        .is(volume(json!({"medium": "Memory"})))
        .apply("two", spec(json!({})))
        .is(spec(json!({})));
}

#[test]
fn what_loses_its_last_field_stays_where_somebody_else_owns_that_it_is_there() {
    let volume = |source: Value| spec(json!({"volumes": [{"name": "v", "emptyDir": source}]}));
    Story::of::<Pod>()
        .apply("one", volume(json!({})))
        .apply("two", volume(json!({"medium": "Memory"})))
        .apply("two", spec(json!({"volumes": [{"name": "v"}]})))
        .is(volume(json!({})))
        .owner(
            "one",
            &[
                ".spec.volumes[name=\"v\"]",
                ".spec.volumes[name=\"v\"].emptyDir",
                ".spec.volumes[name=\"v\"].name",
            ],
        );
}

#[test]
fn large_numbers_that_differ_are_two() {
    let seconds = |it: i64| spec(json!({"activeDeadlineSeconds": it}));
    Story::of::<Pod>().apply("one", seconds(9_007_199_254_740_992)).refused(
        "two",
        seconds(9_007_199_254_740_993),
        "conflict with \"one\": .spec.activeDeadlineSeconds",
    );
}

#[test]
fn nested_fields_go_with_their_last_owner() {
    let probe =
        |path: Value| containers(&[json!({"name": "c", "livenessProbe": {"httpGet": path}})]);
    Story::of::<Pod>()
        .apply("one", probe(json!({"path": "/", "port": 80})))
        .apply("two", probe(json!({"port": 80, "scheme": "HTTP"})))
        .apply("one", containers(&[json!({"name": "c"})]))
        .is(probe(json!({"port": 80, "scheme": "HTTP"})))
        .apply("two", containers(&[json!({"name": "c"})]))
        .is(containers(&[json!({"name": "c"})]));
}

#[test]
fn items_that_cannot_be_told_apart_are_kept_as_they_are() {
    let env = |list: Value| containers(&[json!({"name": "c", "env": list})]);
    let twice = json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]);
    let mut story = Story::of::<Pod>();
    story.update("one", env(twice.clone()));
    let owned = story.owned();
    let path = ".spec.containers[name=\"c\"].env[name=\"A\"]".to_owned();
    assert!(owned["one"].contains(&path), "{owned:?}");
    assert!(!owned["one"].contains(&format!("{path}.value")), "{owned:?}");
    story
        .apply("two", env(json!([{"name": "B", "value": "1"}])))
        .is(env(json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}, {"name": "B", "value": "1"}])));
    let refused = "duplicate entries for key [name=\"A\"]";
    story.refused("two", env(twice), refused);
}

#[test]
fn nulls_are_owned_and_leave_nothing_behind() {
    Story::of::<Pod>()
        .apply("one", spec(json!({"hostname": null, "subdomain": "s"})))
        .owner("one", &[".spec.hostname", ".spec.subdomain"])
        .is(spec(json!({"subdomain": "s"})));
}

#[test]
fn faults_are_told_with_their_paths() {
    let mut story = Story::of::<Pod>();
    for (config, why) in [
        (spec(json!({"hostnames": "x"})), ".spec.hostnames: field not declared in schema"),
        (
            spec(json!({"priority": "x"})),
            ".spec.priority: expected numeric (int or float), got string",
        ),
        (
            spec(json!({"hostname": 1})),
            ".spec.hostname: expected string, got &value.valueUnstructured{Value:1}",
        ),
        (
            containers(&[json!({"image": "x"})]),
            ".spec.containers: element 0: associative list with keys has an element that omits all key fields [\"name\"] (and doesn't have default values for any key fields)",
        ),
        (spec(json!({"containers": {}})), ".spec.containers: expected list, got {}"),
    ] {
        story.refused(
            "one",
            config,
            &format!("failed to create typed patch object (/x; /v1, Kind=Pod): {why}"),
        );
    }
}

#[test]
fn owners_of_parts_of_what_is_whole_now_own_it_whole() {
    let mut story = Story::of::<Pod>();
    story.apply("one", spec(json!({"tolerations": [{"key": "a"}]})));
    let list = story.live.as_ref().unwrap().1.clone().unwrap();
    let parts = list.replace(
        r#""f:tolerations":{}"#,
        r#""f:tolerations":{"k:{\"key\":\"a\"}":{".":{},"f:key":{}}}"#,
    );
    assert_ne!(list, parts);
    story.live.as_mut().unwrap().1 = Some(parts);
    story.apply("two", spec(json!({"hostname": "h"}))).owner("one", &[".spec.tolerations"]);
}

/// A configuration of few fields of every sort, so that authors meet.
fn configs() -> impl Strategy<Value = Value> {
    let labels = proptest::collection::btree_map("[a-c]", "[x-z]", 0..3);
    let finalizers = proptest::collection::btree_set("[a-d]", 0..3).prop_shuffle_vec();
    let container =
        (proptest::option::of("[x-z]"), proptest::collection::btree_map("[A-C]", "[x-z]", 0..3));
    let containers = proptest::collection::btree_map("[a-c]", container, 0..3);
    let tolerations = proptest::option::of(proptest::collection::vec("[a-b]", 0..2));
    (labels, finalizers, containers, tolerations, proptest::option::of("[x-z]")).prop_map(
        |(labels, finalizers, containers, tolerations, hostname)| {
            let containers: Vec<Value> = containers
                .into_iter()
                .map(|(name, (image, env))| {
                    let env: Vec<Value> =
                        env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
                    json!({"name": name, "image": image, "env": env})
                })
                .collect();
            let tolerations = tolerations
                .map(|it| it.into_iter().map(|key| json!({"key": key})).collect::<Vec<_>>());
            tidy(json!({
                "metadata": {"labels": labels, "finalizers": finalizers},
                "spec": {"containers": containers, "tolerations": tolerations, "hostname": hostname},
            }))
        },
    )
}

/// Without nulls and without what is empty: that goes when its last neighbour goes, as upstream's
/// does, which makes statements about it long.
fn tidy(value: Value) -> Value {
    let is_empty =
        |it: &Value| it.is_null() || it.as_array().is_some_and(Vec::is_empty) || *it == json!({});
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, it)| (name, tidy(it)));
            let fields = fields.filter(|it| !is_empty(&it.1));
            fields.collect::<serde_json::Map<_, _>>().into()
        }
        Value::Array(items) => items.into_iter().map(tidy).collect(),
        other => other,
    }
}

trait ShuffleVec {
    fn prop_shuffle_vec(self) -> BoxedStrategy<Vec<String>>;
}

impl<S: Strategy<Value = std::collections::BTreeSet<String>> + 'static> ShuffleVec for S {
    fn prop_shuffle_vec(self) -> BoxedStrategy<Vec<String>> {
        self.prop_map(|it| it.into_iter().collect::<Vec<_>>()).prop_shuffle().boxed()
    }
}

/// Whether everything that `config` says is so.
fn says(object: &Value, config: &Value) -> bool {
    match (object, config) {
        (Value::Object(object), Value::Object(config)) => config.iter().all(|(name, it)| {
            object.get(name).map_or(it.is_array() || it.is_object(), |own| says(own, it))
        }),
        (Value::Array(object), Value::Array(config)) => {
            config.iter().all(|it| object.iter().any(|own| says(own, it)))
        }
        (object, config) => object == config,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn stories_of_many_authors_end_well(
        steps in proptest::collection::vec((0..3usize, any::<bool>(), configs()), 1..7),
    ) {
        let names = ["one", "two", "three"];
        let mut story = Story::of::<Pod>();
        for (author, force, config) in steps {
            let name = names[author];
            if story.try_apply(name, config.clone(), force).is_err() {
                prop_assert!(!force, "force leaves no conflict");
                // A refusal changes nothing, and force is the way past it.
                story.force(name, config.clone());
            }
            prop_assert!(says(&story.object(), &config), "{} {config}", story.object());
            let once = story.live.clone();
            story.apply(name, config);
            prop_assert_eq!(&story.live, &once, "again is no change");
            // What is owned is there, and what is there was applied, so somebody owns it.
            let owned: std::collections::BTreeSet<String> =
                story.owned().into_values().flatten().collect();
            let json = story.live.as_ref().unwrap().0.clone();
            let document = Document::parse(&json).unwrap();
            let all = super::compare::fields_of(&story.shapes, &story.shapes.root(), &document);
            let mut there: std::collections::BTreeSet<String> = all.paths().into_iter().collect();
            for it in [".apiVersion", ".kind", ".metadata.name"] {
                there.remove(it);
            }
            let blank = [".metadata", ".metadata.labels", ".metadata.finalizers", ".spec", ".spec.containers"];
            let blank = |it: &&String| blank.contains(&it.as_str()) || it.ends_with(".env");
            let lost: Vec<_> = owned.difference(&there).filter(|it| !blank(it)).collect();
            prop_assert!(lost.is_empty(), "owned and gone: {lost:?}");
            let orphans: Vec<_> = there.difference(&owned).filter(|it| !blank(it)).collect();
            prop_assert!(orphans.is_empty(), "there and nobody's: {orphans:?}");
        }
    }

    #[test]
    fn an_update_leaves_every_field_with_one_owner_of_it(
        first in configs(), second in configs(), third in configs(),
    ) {
        let mut story = Story::of::<Pod>();
        story.update("one", first).update("two", second).update("three", third.clone());
        story.update("three", third.clone());
        // Nothing is in two sets: who changed it last has it.
        let mut seen = BTreeMap::new();
        for (who, paths) in story.owned() {
            for path in paths {
                prop_assert_eq!(seen.insert(path.clone(), who.clone()), None, "{}", path);
            }
        }
        // Whoever applies what is there already is in nobody's way.
        story.apply("four", third);
    }

    #[test]
    fn any_list_of_entries_is_read_or_refused(text in "\\PC{0,60}", key in "[fkvi]:\\PC{0,8}") {
        let entry = json!([{
            "manager": text, "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": {key: {text: {}}},
        }]);
        let entry = entry.to_string();
        let document = Document::parse(&entry).unwrap();
        if let Ok(managers) = entries::read(&document) {
            let written = entries::write(&managers).unwrap();
            let again = Document::parse(&written).unwrap();
            prop_assert_eq!(entries::read(&again).unwrap(), managers);
        }
    }
}
