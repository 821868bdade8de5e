//! A kind without its type, for code that treats all kinds alike: the door, the world, the collector.
//!
//! It owns its strings and boxes its functions, so that a custom kind can become one at run time.

use crate::{
    codec::{self, DecodeError},
    field::Errors,
    kind::{Cell, Format, Kind, Names, Object, Printing, Scope, Subresource},
    meta::ObjectMeta,
    schema::Definitions,
};
use std::{
    any::{Any, TypeId},
    fmt::Debug,
    marker::PhantomData,
    sync::Arc,
};

/// A kind, shared. Cheap to clone; compared by group and plural.
pub type KindRef = Arc<AnyKind>;

/// An object without its type. Downcast with `as_any`.
pub trait Erased: Any + Debug + Send + Sync {
    fn metadata(&self) -> &ObjectMeta;
    fn metadata_mut(&mut self) -> &mut ObjectMeta;
    fn clone_box(&self) -> AnyObject;
    fn equals(&self, other: &dyn Erased) -> bool;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    fn into_any_arc(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
    /// JSON as it is stored: with apiVersion and kind, without resourceVersion.
    fn encode(&self) -> Vec<u8>;
    /// The type's identity; a custom kind's objects share one.
    fn type_of(&self) -> TypeId;
}

pub type AnyObject = Box<dyn Erased>;

impl Clone for AnyObject {
    fn clone(&self) -> AnyObject {
        (**self).clone_box()
    }
}

impl<T: Object> Erased for T {
    fn metadata(&self) -> &ObjectMeta {
        crate::k8s::Metadata::metadata(self)
    }
    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        crate::k8s::Metadata::metadata_mut(self)
    }
    fn clone_box(&self) -> AnyObject {
        Box::new(self.clone())
    }
    fn equals(&self, other: &dyn Erased) -> bool {
        other.as_any().downcast_ref::<T>() == Some(self)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
    fn into_any_arc(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
    fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }
    fn type_of(&self) -> TypeId {
        TypeId::of::<T>()
    }
}

/// One kind: names as data, rules behind [`Rules`].
pub struct AnyKind {
    /// Empty for the core group.
    pub group: String,
    /// The stored version, which is also the preferred one.
    pub version: String,
    /// Every version served, the preferred first. The others differ in nothing but the name.
    pub served: Vec<String>,
    pub kind: String,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub scope: Scope,
    /// `/registry/pods`: keys are `<storage>/<namespace>/<name>` or `<storage>/<name>`.
    pub storage: String,
    pub subresources: Vec<Subresource>,
    /// Whether dependents stay when nobody says what is to become of them.
    pub orphans: bool,
    /// Why no object of the kind can be made here.
    pub refused: Option<String>,
    pub rules: Box<dyn Rules>,
}

/// Names a table: `("apps", "statefulsets")`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupResource {
    pub group: Arc<str>,
    pub resource: Arc<str>,
}

/// The rules of a kind without its type. Callers pass objects of the kind itself: anything else is a
/// bug and panics.
pub trait Rules: Send + Sync {
    /// `None` for custom kinds.
    fn type_id(&self) -> Option<TypeId>;
    /// Decodes and names the fields that the kind does not have (`spec.volumes[0].host-path`).
    fn decode(&self, json: &[u8]) -> Result<(AnyObject, Vec<String>), DecodeError>;
    fn default(&self, object: &mut AnyObject);
    fn prepare_create(&self, object: &mut AnyObject);
    fn prepare_update(&self, object: &mut AnyObject, old: &dyn Erased);
    fn prepare_status(&self, object: &mut AnyObject, old: &dyn Erased);
    fn prepare_part(&self, part: Subresource, object: &mut AnyObject, old: &dyn Erased);
    fn validate_create(&self, object: &dyn Erased, errors: &mut Errors);
    fn validate_part(
        &self,
        part: Subresource,
        object: &dyn Erased,
        old: &dyn Erased,
        errors: &mut Errors,
    );
    fn validate(&self, object: &dyn Erased, errors: &mut Errors);
    fn validate_update(&self, object: &dyn Erased, old: &dyn Erased, errors: &mut Errors);
    fn validate_both(&self, object: &dyn Erased, old: &dyn Erased, errors: &mut Errors);
    fn validate_status(&self, object: &dyn Erased, old: &dyn Erased, errors: &mut Errors);
    fn validate_name(&self, name: &str, errors: &mut Errors);
    fn warnings(&self, object: &dyn Erased, old: Option<&dyn Erased>) -> Vec<String>;
    fn fields(&self, object: &dyn Erased) -> Vec<(&'static str, String)>;
    fn index_keys(&self, object: &dyn Erased) -> Vec<(&'static str, String)>;
    fn deletion_grace(&self, object: &dyn Erased, asked: Option<i64>) -> Option<i64>;
    fn is_held(&self, object: &dyn Erased) -> bool;
    fn begin_deletion(&self, object: &mut AnyObject);
    fn generation(&self) -> bool;
    fn columns(&self) -> Vec<ColumnHead>;
    fn cells(&self, object: &dyn Erased, printing: &Printing) -> Vec<Cell>;
    fn scale(&self, object: &dyn Erased) -> Option<Scaling>;
    fn set_replicas(&self, object: &mut AnyObject, replicas: i32);
    /// Adds the definition of its objects, and names it.
    fn schema(&self, definitions: &mut Definitions) -> String;
}

/// What the scale subresource shows of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaling {
    pub replicas: i32,
    pub status_replicas: i32,
    pub selector: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnHead {
    pub title: String,
    pub format: Format,
    pub wide: bool,
    pub description: String,
}

impl AnyKind {
    pub fn of<T: Kind>() -> AnyKind {
        let Names { plural, singular, short, categories } = T::NAMES;
        let owned = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect();
        AnyKind {
            group: T::GROUP.to_owned(),
            version: T::VERSION.to_owned(),
            served: vec![T::VERSION.to_owned()],
            kind: T::KIND.to_owned(),
            plural: plural.to_owned(),
            singular: singular.to_owned(),
            short_names: owned(short),
            categories: owned(categories),
            scope: T::SCOPE,
            storage: T::STORAGE.to_owned(),
            subresources: T::SUBRESOURCES.to_vec(),
            orphans: T::ORPHANS,
            refused: T::REFUSED.map(str::to_owned),
            rules: Box::new(Typed::<T>(PhantomData)),
        }
    }

    /// Serves the same objects under one more version.
    pub fn also(mut self, version: &str) -> AnyKind {
        self.served.push(version.to_owned());
        self
    }

    /// `apps/v1`, or `v1` in the core group.
    pub fn api_version(&self) -> String {
        self.api_version_as(&self.version)
    }

    /// A version with a group in it is that of another face of the same objects.
    pub fn api_version_as(&self, version: &str) -> String {
        match self.group.as_str() {
            _ if version.contains('/') => version.to_owned(),
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        }
    }

    /// `statefulsets.apps`, or `pods` in the core group.
    pub fn qualified(&self) -> String {
        match self.group.as_str() {
            "" => self.plural.clone(),
            group => format!("{}.{group}", self.plural),
        }
    }

    pub fn resource(&self) -> GroupResource {
        GroupResource { group: self.group.as_str().into(), resource: self.plural.as_str().into() }
    }

    /// Whether its objects are another kind's, under other names.
    pub fn is_face(&self) -> bool {
        self.group == "events.k8s.io"
    }

    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }

    /// Where one object lies in the store. `namespace` is empty for objects of the cluster.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        match namespace {
            "" => format!("{}/{name}", self.storage),
            namespace => format!("{}/{namespace}/{name}", self.storage),
        }
    }
}

impl Debug for AnyKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.qualified())
    }
}

impl PartialEq for AnyKind {
    fn eq(&self, other: &AnyKind) -> bool {
        self.plural == other.plural && self.group == other.group
    }
}

impl Eq for AnyKind {}

struct Typed<T>(PhantomData<fn() -> T>);

fn typed<T: Kind>(object: &dyn Erased) -> &T {
    object.as_any().downcast_ref().expect("an object of this kind")
}

fn typed_mut<T: Kind>(object: &mut AnyObject) -> &mut T {
    (**object).as_any_mut().downcast_mut().expect("an object of this kind")
}

impl<T: Kind> Rules for Typed<T> {
    fn type_id(&self) -> Option<TypeId> {
        Some(TypeId::of::<T>())
    }
    fn decode(&self, json: &[u8]) -> Result<(AnyObject, Vec<String>), DecodeError> {
        let (object, unknown) = codec::decode::<T>(json)?;
        Ok((Box::new(object), unknown))
    }
    fn default(&self, object: &mut AnyObject) {
        typed_mut::<T>(object).default();
    }
    fn prepare_create(&self, object: &mut AnyObject) {
        typed_mut::<T>(object).prepare_create();
    }
    fn prepare_update(&self, object: &mut AnyObject, old: &dyn Erased) {
        typed_mut::<T>(object).prepare_update(typed(old));
    }
    fn prepare_status(&self, object: &mut AnyObject, old: &dyn Erased) {
        typed_mut::<T>(object).prepare_status(typed(old));
    }
    fn prepare_part(&self, part: Subresource, object: &mut AnyObject, old: &dyn Erased) {
        typed_mut::<T>(object).prepare_part(part, typed(old));
    }
    fn validate_create(&self, object: &dyn Erased, errors: &mut Errors) {
        typed::<T>(object).validate_create(errors);
    }
    fn validate_part(
        &self,
        part: Subresource,
        object: &dyn Erased,
        old: &dyn Erased,
        errors: &mut Errors,
    ) {
        typed::<T>(object).validate_part(part, typed(old), errors);
    }
    fn validate(&self, object: &dyn Erased, errors: &mut Errors) {
        typed::<T>(object).validate(errors);
    }
    fn validate_update(&self, object: &dyn Erased, old: &dyn Erased, errors: &mut Errors) {
        typed::<T>(object).validate_update(typed(old), errors);
    }
    fn validate_both(&self, object: &dyn Erased, old: &dyn Erased, errors: &mut Errors) {
        typed::<T>(object).validate_both(typed(old), errors);
    }
    fn validate_status(&self, object: &dyn Erased, old: &dyn Erased, errors: &mut Errors) {
        typed::<T>(object).validate_status(typed(old), errors);
    }
    fn validate_name(&self, name: &str, errors: &mut Errors) {
        T::validate_name(name, errors);
    }
    fn warnings(&self, object: &dyn Erased, old: Option<&dyn Erased>) -> Vec<String> {
        typed::<T>(object).warnings(old.map(typed))
    }
    fn fields(&self, object: &dyn Erased) -> Vec<(&'static str, String)> {
        typed::<T>(object).fields()
    }
    fn index_keys(&self, object: &dyn Erased) -> Vec<(&'static str, String)> {
        typed::<T>(object).index_keys()
    }
    fn deletion_grace(&self, object: &dyn Erased, asked: Option<i64>) -> Option<i64> {
        typed::<T>(object).deletion_grace(asked)
    }
    fn is_held(&self, object: &dyn Erased) -> bool {
        typed::<T>(object).is_held()
    }
    fn begin_deletion(&self, object: &mut AnyObject) {
        typed_mut::<T>(object).begin_deletion();
    }
    fn generation(&self) -> bool {
        T::GENERATION
    }
    fn columns(&self) -> Vec<ColumnHead> {
        let head = |it: &crate::kind::Column<T>| ColumnHead {
            title: it.title.to_owned(),
            format: it.format,
            wide: it.wide,
            description: it.description.to_owned(),
        };
        T::COLUMNS.iter().map(head).collect()
    }
    fn cells(&self, object: &dyn Erased, printing: &Printing) -> Vec<Cell> {
        T::COLUMNS.iter().map(|it| (it.cell)(typed(object), printing)).collect()
    }
    fn scale(&self, object: &dyn Erased) -> Option<Scaling> {
        let (scale, object) = (T::SCALE.as_ref()?, typed::<T>(object));
        Some(Scaling {
            replicas: (scale.replicas)(object),
            status_replicas: (scale.status_replicas)(object),
            selector: (scale.selector)(object),
        })
    }
    fn set_replicas(&self, object: &mut AnyObject, replicas: i32) {
        if let Some(scale) = T::SCALE {
            (scale.set_replicas)(typed_mut(object), replicas);
        }
    }
    fn schema(&self, definitions: &mut Definitions) -> String {
        definitions.add::<T>()
    }
}
