//! What a kind is: its names, and the rules that its objects keep.
//!
//! A kind is its k8s-openapi type with this trait on it. Every rule has a default that does nothing,
//! so a file in `core/`, `apps/`, `storage/` … holds what is special about its kind and no more.

use crate::{
    field::Errors,
    k8s::{Metadata, Resource},
    meta::ObjectMeta,
};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// A typed API object.
pub trait Object:
    Resource
    + Metadata<Ty = ObjectMeta>
    + Serialize
    + DeserializeOwned
    + Clone
    + Debug
    + PartialEq
    + Send
    + Sync
    + 'static
{
    fn name(&self) -> &str {
        self.metadata().name.as_deref().unwrap_or_default()
    }
    /// Empty for objects of the cluster.
    fn namespace(&self) -> &str {
        self.metadata().namespace.as_deref().unwrap_or_default()
    }
    fn uid(&self) -> &str {
        self.metadata().uid.as_deref().unwrap_or_default()
    }
    /// Zero for an object that was never stored.
    fn revision(&self) -> u64 {
        self.metadata().resource_version.as_deref().and_then(|it| it.parse().ok()).unwrap_or(0)
    }
    fn is_deleting(&self) -> bool {
        self.metadata().deletion_timestamp.is_some()
    }
    fn label(&self, key: &str) -> Option<&str> {
        self.metadata().labels.as_ref()?.get(key).map(String::as_str)
    }
    fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata().annotations.as_ref()?.get(key).map(String::as_str)
    }
    fn has_finalizer(&self, finalizer: &str) -> bool {
        self.metadata().finalizers.iter().flatten().any(|it| it == finalizer)
    }
}

impl<T> Object for T where
    T: Resource
        + Metadata<Ty = ObjectMeta>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug
        + PartialEq
        + Send
        + Sync
        + 'static
{
}

/// One API kind: its names and its rules.
///
/// The door calls them in this order. Create: `default`, (admission), `default`, `prepare_create`,
/// `validate`. Update: `default`, `prepare_update` or `prepare_status`, `validate` or `validate_status`.
pub trait Kind: Object + schemars::JsonSchema {
    const NAMES: Names;
    const SCOPE: Scope;
    /// Where objects lie in the store, as upstream lays them out: `/registry/pods`.
    const STORAGE: &'static str;
    const SUBRESOURCES: &'static [Subresource] = &[];
    /// Whether `metadata.generation` counts changes of the spec.
    const GENERATION: bool = false;
    /// What `kubectl get` prints, NAME and AGE included. Empty: just those two.
    const COLUMNS: &'static [Column<Self>] = &[];

    /// Fills in what the author left out.
    fn default(&mut self) {}

    /// A new object: takes back what no author may write (status), sets what the server sets.
    fn prepare_create(&mut self) {}

    /// A write through the object's own path: keeps `old`'s status, bumps the generation when the
    /// spec changed.
    fn prepare_update(&mut self, _old: &Self) {}

    /// A write through `/status`: keeps everything of `old` but the status (metadata that upstream
    /// lets through stays as written).
    fn prepare_status(&mut self, _old: &Self) {}

    /// A write through a subresource that holds a part of the spec: keeps everything of `old` else.
    fn prepare_part(&mut self, _part: Subresource, _old: &Self) {}

    /// Says what is wrong with a new object and would not be with an old one. Called besides `validate`.
    fn validate_create(&self, _errors: &mut Errors) {}

    /// Says which changes from `old` are not allowed through a subresource that holds a part of the spec. Called
    /// besides `validate`.
    fn validate_part(&self, _part: Subresource, _old: &Self, _errors: &mut Errors) {}

    /// Says what is wrong with an object in itself, all of it, by field.
    fn validate(&self, _errors: &mut Errors) {}

    /// Says which changes from `old` are not allowed. Called besides `validate`.
    fn validate_update(&self, _old: &Self, _errors: &mut Errors) {}

    /// Says which changes from `old` a loop may not make when it writes spec and status at once. What
    /// only a subresource may change (the node of a pod) is a loop's to change.
    fn validate_both(&self, old: &Self, errors: &mut Errors) {
        self.validate_update(old, errors);
    }

    /// Says what is wrong with a status.
    fn validate_status(&self, _old: &Self, _errors: &mut Errors) {}

    /// Sentences for the `Warning` header.
    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        Vec::new()
    }

    /// What a field selector can ask for besides `metadata.name` and `metadata.namespace`.
    fn fields(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Keys by which the world finds this object again: (index, value).
    fn index_keys(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// How long a deletion may take: `None` for kinds that go at once. Pods: what was asked for, or
    /// the spec's; zero means at once.
    fn deletion_grace(&self, _asked: Option<i64>) -> Option<i64> {
        None
    }

    /// Whether something besides grace and `metadata.finalizers` keeps a deleted object: the spec's
    /// finalizers of a namespace.
    fn is_held(&self) -> bool {
        false
    }

    /// What a deletion that has to wait changes besides the metadata.
    fn begin_deletion(&mut self) {}

    /// Whether `metadata.generateName`/`name` is a fit name for this kind; adds what is wrong.
    fn validate_name(name: &str, errors: &mut Errors) {
        crate::meta::names::dns_subdomain("metadata.name", name, errors);
    }

    /// Whether dependents stay when nobody says what is to become of them.
    const ORPHANS: bool = false;

    /// Why no object of the kind can be made here, for kinds that are only listed.
    const REFUSED: Option<&'static str> = None;

    /// What the scale subresource reads and writes.
    const SCALE: Option<ScaleOf<Self>> = None;
}

/// How a kind shows itself as a `Scale`.
pub struct ScaleOf<T: 'static> {
    pub replicas: fn(&T) -> i32,
    pub set_replicas: fn(&mut T, i32),
    pub status_replicas: fn(&T) -> i32,
    /// The label selector as text.
    pub selector: fn(&T) -> String,
}

#[derive(Clone, Copy, Debug)]
pub struct Names {
    pub plural: &'static str,
    pub singular: &'static str,
    pub short: &'static [&'static str],
    pub categories: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Cluster,
    Namespaced,
}

/// A path below an object's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    Status,
    Scale,
    Binding,
    Eviction,
    Log,
    Exec,
    Attach,
    PortForward,
    Proxy,
    Token,
    Approval,
    EphemeralContainers,
    Resize,
    Finalize,
}

impl Subresource {
    pub fn name(self) -> &'static str {
        match self {
            Subresource::Status => "status",
            Subresource::Scale => "scale",
            Subresource::Binding => "binding",
            Subresource::Eviction => "eviction",
            Subresource::Log => "log",
            Subresource::Exec => "exec",
            Subresource::Attach => "attach",
            Subresource::PortForward => "portforward",
            Subresource::Proxy => "proxy",
            Subresource::Token => "token",
            Subresource::Approval => "approval",
            Subresource::EphemeralContainers => "ephemeralcontainers",
            Subresource::Resize => "resize",
            Subresource::Finalize => "finalize",
        }
    }
}

/// One column of `kubectl get`.
pub struct Column<T: 'static> {
    pub title: &'static str,
    pub format: Format,
    /// Shown with `-o wide` only.
    pub wide: bool,
    pub description: &'static str,
    pub cell: fn(&T, &Printing) -> Cell,
}

/// OpenAPI's word for what a cell holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    String,
    Integer,
    Boolean,
    /// A moment, as RFC 3339 writes it.
    Date,
    /// The cell is the object's name; kubectl leaves the column out with `--no-headers -o name`.
    Name,
}

/// What a cell may need besides its object.
#[derive(Clone, Copy, Debug)]
pub struct Printing {
    pub now: stdx::Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    Text(String),
    Number(i64),
    Truth(bool),
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell::Text(text.into())
    }
}
