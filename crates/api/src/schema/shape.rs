//! What lies where in an object, as a small graph: for code that walks documents without their types
//! and has to know which lists are sets, which maps have one owner, and what a key defaults to.
//!
//! Made from the definitions of a kind and the facts beside them, when asked for: nothing here remembers.

use super::{Definitions, INT_OR_STRING, QUANTITY, REFERENCE, facts};
use crate::AnyKind;
use facts::Treatment;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The types of one kind's objects.
#[derive(Debug)]
pub struct Shapes {
    types: Vec<Type>,
    root: TypeId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TypeId(u32);

/// An object whose fields are known.
#[derive(Debug, Default)]
pub struct Type {
    /// Its definition: `io.k8s.api.core.v1.PodSpec`.
    pub name: String,
    /// Sorted by name.
    fields: Vec<Field>,
}

#[derive(Debug)]
pub struct Field {
    pub name: String,
    pub place: Place,
    /// What the facts say of it, for patches.
    pub treatment: Option<Treatment>,
}

/// What may be at a place of a document.
#[derive(Clone, Debug)]
pub enum Place {
    Scalar(Scalar),
    /// Fields that are known; `atomic`: all of them have one owner.
    Object {
        of: TypeId,
        atomic: bool,
    },
    /// Any fields, each with a value of one kind.
    Map {
        atomic: bool,
        values: Box<Place>,
    },
    List {
        relation: Relation,
        items: Box<Place>,
    },
    /// Anything: objects are owned field by field, lists whole.
    Anything,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    Text,
    Number,
    Truth,
    /// A text or a number: quantities, ports.
    Either,
}

/// How the items of a list are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Not at all: the list has one owner.
    Atomic,
    /// By their values.
    Set,
    /// By the values of these fields, which may have defaults (JSON). Sorted by name.
    Keyed(Vec<(&'static str, Option<&'static str>)>),
}

impl Shapes {
    pub fn of(kind: &AnyKind) -> Shapes {
        let mut definitions = Definitions::default();
        let root = definitions.kind(kind, &kind.version);
        let definitions = definitions.finish();
        let mut making =
            Making { definitions: &definitions, known: BTreeMap::new(), types: Vec::new() };
        let root = making.named(&root);
        Shapes { types: making.types, root }
    }

    pub fn root(&self) -> Place {
        Place::Object { of: self.root, atomic: false }
    }

    pub fn type_of(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    /// What lies in a field of an object at a place; `None` when it has no such field.
    pub fn inside<'a>(&'a self, place: &'a Place, field: &str) -> Option<&'a Place> {
        match place {
            Place::Object { of, .. } => self.type_of(*of).field(field).map(|it| &it.place),
            Place::Map { values, .. } => Some(values),
            Place::Anything => Some(&Place::Anything),
            Place::Scalar(_) | Place::List { .. } => None,
        }
    }
}

impl Place {
    /// Whether all of it has one owner.
    pub fn is_atomic(&self) -> bool {
        match self {
            Place::Object { atomic, .. } | Place::Map { atomic, .. } => *atomic,
            Place::List { relation, .. } => *relation == Relation::Atomic,
            Place::Scalar(_) | Place::Anything => false,
        }
    }
}

impl Type {
    /// Sorted by name.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    pub fn field(&self, name: &str) -> Option<&Field> {
        let at = self.fields.binary_search_by(|it| it.name.as_str().cmp(name)).ok()?;
        Some(&self.fields[at])
    }
}

struct Making<'a> {
    definitions: &'a Map<String, Value>,
    known: BTreeMap<String, TypeId>,
    types: Vec<Type>,
}

impl Making<'_> {
    /// Types may contain themselves: an id is given before the fields are looked at.
    fn named(&mut self, name: &str) -> TypeId {
        if let Some(known) = self.known.get(name) {
            return *known;
        }
        let id = TypeId(self.types.len() as u32);
        self.known.insert(name.to_owned(), id);
        self.types.push(Type::default());
        let definitions = self.definitions;
        let properties = definitions.get(name).and_then(|it| it["properties"].as_object());
        let mut fields: Vec<Field> = properties
            .into_iter()
            .flatten()
            .map(|(field, schema)| {
                let treatment = facts::of(name, field);
                let place = self.place(schema, treatment);
                Field { name: field.clone(), place, treatment }
            })
            .collect();
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        self.types[id.0 as usize] = Type { name: name.to_owned(), fields };
        id
    }

    fn place(&mut self, schema: &Value, treatment: Option<Treatment>) -> Place {
        let reference = schema.get("$ref").or_else(|| schema["allOf"].get(0)?.get("$ref"));
        if let Some(name) = reference.and_then(Value::as_str) {
            return self.referred(name.strip_prefix(REFERENCE).unwrap_or(name), treatment);
        }
        match schema["type"].as_str() {
            Some("array") => {
                let items = self.place(&schema["items"], None);
                let relation = relation(treatment, &items, self);
                Place::List { relation, items: Box::new(items) }
            }
            Some("object") => match schema.get("additionalProperties") {
                Some(values) if values.is_object() => {
                    let values = Box::new(self.place(values, None));
                    Place::Map { atomic: treatment == Some(Treatment::AtomicMap), values }
                }
                _ => Place::Anything,
            },
            Some("string") => Place::Scalar(Scalar::Text),
            Some("integer" | "number") => Place::Scalar(Scalar::Number),
            Some("boolean") => Place::Scalar(Scalar::Truth),
            _ => Place::Anything,
        }
    }

    fn referred(&mut self, name: &str, treatment: Option<Treatment>) -> Place {
        if name == QUANTITY || name == INT_OR_STRING {
            return Place::Scalar(Scalar::Either);
        }
        let definition = &self.definitions[name];
        match (definition.get("properties"), definition["type"].as_str()) {
            (Some(_), _) => {
                let atomic = match treatment {
                    Some(Treatment::AtomicMap) => true,
                    Some(Treatment::GranularMap) => false,
                    _ => facts::is_atomic(name),
                };
                Place::Object { of: self.named(name), atomic }
            }
            (None, Some("string")) => Place::Scalar(Scalar::Text),
            (None, Some("integer" | "number")) => Place::Scalar(Scalar::Number),
            (None, Some("boolean")) => Place::Scalar(Scalar::Truth),
            (None, _) => Place::Anything,
        }
    }
}

fn relation(treatment: Option<Treatment>, items: &Place, making: &Making<'_>) -> Relation {
    let item = match items {
        Place::Object { of, .. } => making.types[of.0 as usize].name.as_str(),
        _ => "",
    };
    match treatment {
        Some(Treatment::Set | Treatment::SetMerged) => Relation::Set,
        Some(Treatment::Keyed(keys) | Treatment::Merged(keys) | Treatment::Retained(keys)) => {
            let mut keys: Vec<_> =
                keys.iter().map(|it| (*it, facts::default_of_key(item, it))).collect();
            keys.sort_unstable();
            Relation::Keyed(keys)
        }
        Some(
            Treatment::Atomic
            | Treatment::AtomicMerged(_)
            | Treatment::AtomicMap
            | Treatment::GranularMap
            | Treatment::Replaced
            | Treatment::RetainedMap,
        )
        | None => Relation::Atomic,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(kind: &str, path: &str) -> String {
        let kind = crate::kinds().iter().find(|it| it.kind == kind).unwrap();
        let shapes = Shapes::of(kind);
        let mut place = shapes.root();
        for step in path.split('.') {
            place = match (&place, step) {
                (Place::List { items, .. }, "[]") => (**items).clone(),
                (place, step) => shapes.inside(place, step).expect(step).clone(),
            };
        }
        match place {
            Place::Object { of, atomic } => format!("{} {atomic}", shapes.type_of(of).name),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn knows_how_things_are_told_apart() {
        for (kind, path, expected) in [
            (
                "Pod",
                "spec.containers.[].ports",
                "Keyed([(\"containerPort\", None), (\"protocol\", Some(\"\\\"TCP\\\"\"))])",
            ),
            ("Pod", "spec.nodeSelector", "Map { atomic: true"),
            ("Pod", "metadata.labels", "Map { atomic: false"),
            ("Pod", "metadata.finalizers", "relation: Set"),
            ("Pod", "spec.tolerations", "relation: Atomic"),
            ("Pod", "spec.containers.[].resources.limits", "Scalar(Either)"),
            ("StatefulSet", "spec.selector", "meta.v1.LabelSelector true"),
            ("PersistentVolume", "spec.claimRef", "core.v1.ObjectReference false"),
            ("Service", "spec.ports.[].targetPort", "Scalar(Either)"),
            ("ControllerRevision", "data", "Anything"),
        ] {
            let found = at(kind, path);
            assert!(found.contains(expected), "{kind} {path}: {found}");
        }
    }
}
