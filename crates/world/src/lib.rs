//! The contract between deciding and doing.
//!
//! A [`Controller`] looks at the [`World`] and returns a [`Plan`]; the manager carries the plan out.
//!
//! **Invariant:** nothing here, and no controller, does IO, awaits, reads a clock or draws a random
//! number. The same world, key and time give the same plan.
#![forbid(unsafe_code)]

mod call;
mod change;
mod controller;
mod plan;
pub mod quota;
mod row;
mod snapshot;
mod table;
mod volumes;

pub use call::{CallFailure, Outcome, Place, VolumeCall};
pub use change::{Change, Expected, Verb};
pub use controller::{Controller, Watch};
pub use plan::{Event, Note, ObjectRef, Plan, Step};
pub use row::{Row, Typed};
pub use snapshot::{Touched, World};
pub use table::Table;

use std::{fmt, sync::Arc};

/// Names an object within its kind: `default/web-0`; objects of the cluster have no namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectKey {
    pub fn new(namespace: &str, name: &str) -> ObjectKey {
        ObjectKey { namespace: namespace.into(), name: name.into() }
    }

    pub fn cluster(name: &str) -> ObjectKey {
        ObjectKey::new("", name)
    }

    pub fn of<T: api::Object>(object: &T) -> ObjectKey {
        ObjectKey::new(object.namespace(), object.name())
    }

    pub fn of_any(object: &dyn api::Erased) -> ObjectKey {
        let meta = object.metadata();
        ObjectKey::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }

    /// Reads `namespace/name` or `name`.
    pub fn parse(text: &str) -> ObjectKey {
        let (namespace, name) = text.split_once('/').unwrap_or(("", text));
        ObjectKey::new(namespace, name)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.namespace {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}
