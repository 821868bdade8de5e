//! What the API's objects look like, as OpenAPI definitions: shapes and descriptions come with the
//! types, list types, merge keys and group-version-kinds are added here.
//!
//! This is the only place where schemas are made from types. They are made when asked for and kept by
//! whoever asked: nothing here remembers.
//!
//! Upstream: `apiserver/pkg/endpoints/openapi`, `api/openapi-spec/v3`.

pub mod facts;
pub mod shape;

pub use shape::Shapes;

use crate::{AnyKind, k8s};
use k8s::api::{
    authentication::v1::{SelfSubjectReview, TokenRequest, TokenReview},
    authorization::v1::{
        LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview,
        SubjectAccessReview,
    },
    autoscaling::v1::Scale,
    core::v1::Binding,
    policy::v1::Eviction,
};
use k8s::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, Status};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What a reference to a definition begins with.
pub const REFERENCE: &str = "#/components/schemas/";

pub const GROUP_VERSION_KIND: &str = "x-kubernetes-group-version-kind";

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";

/// Objects that are no kind of a list: sent to or answered by paths of kinds, or only ever created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Companion {
    Binding,
    DeleteOptions,
    Eviction,
    LocalSubjectAccessReview,
    Scale,
    SelfSubjectAccessReview,
    SelfSubjectReview,
    SelfSubjectRulesReview,
    Status,
    SubjectAccessReview,
    TokenRequest,
    TokenReview,
}

/// Collects definitions, each with all that it refers to.
#[derive(Default)]
pub struct Definitions {
    generator: Option<SchemaGenerator>,
    kinds: BTreeMap<String, Vec<Value>>,
    lists: Vec<(String, String)>,
    /// Definitions under a second name, for versions that differ in nothing else.
    copies: Vec<(String, String)>,
    asked: BTreeSet<String>,
}

impl Definitions {
    /// Adds the definition of a type and names it.
    pub fn add<T: JsonSchema>(&mut self) -> String {
        self.generator
            .get_or_insert_with(|| {
                SchemaSettings::default()
                    .with(|it| {
                        it.definitions_path = "/components/schemas".into();
                        it.meta_schema = None;
                    })
                    .into_generator()
            })
            .subschema_for::<T>();
        T::schema_name().into_owned()
    }

    /// Adds a kind as `version` shows it, and names its definition.
    pub fn kind(&mut self, kind: &AnyKind, version: &str) -> String {
        let own = kind.rules.schema(self);
        let name = if version == kind.version {
            self.asked.insert(own.clone());
            own
        } else {
            let other = own.replace(&format!(".{}.", kind.version), &format!(".{version}."));
            self.copies.push((own, other.clone()));
            other
        };
        self.kinds.insert(name.clone(), vec![tag(&kind.group, version, &kind.kind)]);
        name
    }

    /// Adds the list of a kind, and names its definition.
    pub fn list(&mut self, kind: &AnyKind, version: &str) -> String {
        let item = self.kind(kind, version);
        self.add::<ListMeta>();
        let name = format!("{item}List");
        let tag = tag(&kind.group, version, &format!("{}List", kind.kind));
        self.kinds.insert(name.clone(), vec![tag]);
        self.lists.push((name.clone(), item));
        name
    }

    /// Adds a companion. `group_versions`: all that are served; options of a request can be written in
    /// any of them.
    pub fn companion(&mut self, which: Companion, group_versions: &[(String, String)]) -> String {
        let (name, tags) = match which {
            Companion::Binding => (self.add::<Binding>(), vec![tag("", "v1", "Binding")]),
            Companion::DeleteOptions => {
                let tags = group_versions.iter().map(|(g, v)| tag(g, v, "DeleteOptions"));
                (self.add::<DeleteOptions>(), tags.collect())
            }
            Companion::Eviction => (self.add::<Eviction>(), vec![tag("policy", "v1", "Eviction")]),
            Companion::Scale => (self.add::<Scale>(), vec![tag("autoscaling", "v1", "Scale")]),
            Companion::Status => (self.add::<Status>(), vec![tag("", "v1", "Status")]),
            Companion::TokenRequest => known::<TokenRequest>(self),
            Companion::TokenReview => known::<TokenReview>(self),
            Companion::SelfSubjectReview => known::<SelfSubjectReview>(self),
            Companion::LocalSubjectAccessReview => known::<LocalSubjectAccessReview>(self),
            Companion::SelfSubjectAccessReview => known::<SelfSubjectAccessReview>(self),
            Companion::SelfSubjectRulesReview => known::<SelfSubjectRulesReview>(self),
            Companion::SubjectAccessReview => known::<SubjectAccessReview>(self),
        };
        self.kinds.insert(name.clone(), tags);
        name
    }

    /// The definitions by name, as OpenAPI 3.0 writes them.
    pub fn finish(mut self) -> Map<String, Value> {
        let mut definitions = match self.generator.take() {
            Some(mut generator) => generator.take_definitions(false),
            None => Map::new(),
        };
        for (name, definition) in &mut definitions {
            shape(name, definition);
        }
        for (from, to) in &self.copies {
            if let Some(definition) = definitions.get(from).cloned() {
                definitions.insert(to.clone(), definition);
            }
        }
        for (from, _) in &self.copies {
            if !self.asked.contains(from) {
                definitions.remove(from);
            }
        }
        for (name, item) in &self.lists {
            let list = list_of(item, definitions.get(item));
            definitions.insert(name.clone(), list);
        }
        // Kinds within kinds say which they are, too: claims in a StatefulSet.
        for kind in crate::kinds() {
            let group = kind.group.split('.').next().filter(|it| !it.is_empty()).unwrap_or("core");
            let name = format!("io.k8s.api.{group}.{}.{}", kind.version, kind.kind);
            if definitions.contains_key(&name) {
                let tag = || vec![tag(&kind.group, &kind.version, &kind.kind)];
                self.kinds.entry(name).or_insert_with(tag);
            }
        }
        for (name, tags) in self.kinds {
            if let Some(definition) = definitions.get_mut(&name) {
                definition[GROUP_VERSION_KIND] = tags.into();
            }
        }
        definitions
    }
}

/// A type that says itself which kind it is.
fn known<T: JsonSchema + k8s::Resource>(definitions: &mut Definitions) -> (String, Vec<Value>) {
    (definitions.add::<T>(), vec![tag(T::GROUP, T::VERSION, T::KIND)])
}

/// A group, version and kind as OpenAPI extensions carry them.
pub fn tag(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

/// A reference to a definition.
pub fn reference(name: &str) -> Value {
    json!({"$ref": format!("{REFERENCE}{name}")})
}

fn list_of(item: &str, definition: Option<&Value>) -> Value {
    let described = |field: &str| {
        let text = definition.map(|it| &it["properties"][field]["description"]);
        json!({"type": "string", "description": text})
    };
    let metadata = ListMeta::schema_name();
    let kind = item.rsplit('.').next().unwrap_or(item);
    json!({
        "type": "object",
        "description": format!("{kind}List is a list of objects of kind {kind}."),
        "required": ["items"],
        "properties": {
            "apiVersion": described("apiVersion"),
            "items": {
                "type": "array", "description": format!("The objects of kind {kind}."),
                "items": reference(item),
            },
            "kind": described("kind"),
            "metadata": {
                "allOf": [reference(&metadata)],
                "description": "What holds for the list as a whole: its version, and where it goes on.",
            },
        },
    })
}

/// Brings one definition from the form of its type to that of the API.
fn shape(name: &str, definition: &mut Value) {
    let Some(object) = definition.as_object_mut() else { return };
    match name {
        QUANTITY => {
            object.remove("x-kubernetes-int-or-string");
            object.insert("oneOf".into(), json!([{"type": "string"}, {"type": "number"}]));
        }
        INT_OR_STRING => {
            object.remove("x-kubernetes-int-or-string");
            object.insert("format".into(), "int-or-string".into());
            object.insert("oneOf".into(), json!([{"type": "integer"}, {"type": "string"}]));
        }
        _ => {}
    }
    if facts::is_atomic(name) {
        object.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    // Types hold these fields always; writers need not send them.
    let is_kind = |it: &Value| it.get("kind").is_some() && it.get("apiVersion").is_some();
    let optional = match object.get("properties").is_some_and(is_kind) {
        true => Some("metadata"),
        false => facts::has_optional_name(name).then_some("name"),
    };
    let required = object.get_mut("required").and_then(Value::as_array_mut);
    let is_empty = required.is_some_and(|it| {
        it.retain(|it| it.as_str() != optional);
        it.is_empty()
    });
    if is_empty {
        object.remove("required");
    }
    let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    for (field, property) in properties {
        let Some(property) = property.as_object_mut() else { continue };
        // Nothing may stand beside a reference.
        if property.len() > 1
            && let Some(reference) = property.remove("$ref")
        {
            property.insert("allOf".into(), json!([{"$ref": reference}]));
        }
        if let Some(treatment) = facts::of(name, field) {
            annotate(property, treatment);
        }
    }
}

fn annotate(property: &mut Map<String, Value>, treatment: facts::Treatment) {
    use facts::Treatment;
    let mut set = |key: &str, value: Value| {
        property.insert(format!("x-kubernetes-{key}"), value);
    };
    match treatment {
        Treatment::Atomic | Treatment::AtomicMerged(_) => set("list-type", "atomic".into()),
        Treatment::Set | Treatment::SetMerged => set("list-type", "set".into()),
        Treatment::Keyed(keys) | Treatment::Merged(keys) | Treatment::Retained(keys) => {
            set("list-type", "map".into());
            set("list-map-keys", json!(keys));
        }
        Treatment::AtomicMap => set("map-type", "atomic".into()),
        Treatment::GranularMap => set("map-type", "granular".into()),
        Treatment::RetainedMap => {}
        Treatment::Replaced => {}
    }
    if let Some(strategy) = treatment.patch_strategy() {
        set("patch-strategy", strategy.into());
    }
    if let Some(key) = treatment.merge_key() {
        set("patch-merge-key", key.into());
    }
}

#[cfg(test)]
mod tests;
