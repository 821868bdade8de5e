//! One object written, deleted, or only checked; and what that does to it.

use crate::{ObjectKey, World};
use api::{
    AnyObject, Kind, KindRef,
    deletion::{self, Deletion, Propagation},
    meta,
};
use std::{fmt, sync::Arc};
use stdx::Timestamp;

/// One object of a commit.
#[derive(Clone)]
pub struct Change {
    pub verb: Verb,
    pub kind: KindRef,
    pub key: ObjectKey,
    pub expected: Expected,
    /// The new object; none for `Delete` and `Check`.
    pub object: Option<Arc<AnyObject>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// A new object; its status is the kind's to set.
    Create,
    /// A new object with the status that it comes with: loops only.
    CreateWithStatus,
    /// Metadata and spec; the stored status stays.
    Update,
    /// The status; the stored spec stays.
    Status,
    /// Metadata, spec and status in one write: loops only.
    Both,
    Delete {
        grace_seconds: Option<i64>,
        propagation: Option<Propagation>,
    },
    /// Nothing is written: the commit holds only if the object is still as it was judged.
    Check,
}

/// What must still be true when the change is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    Absent,
    Revision(u64),
    Uid(String),
    Anything,
}

impl Change {
    pub fn create<T: Kind>(object: T) -> Change {
        Change::put(Verb::Create, Expected::Absent, object)
    }

    /// Creates an object that has its status from the start.
    pub fn create_with_status<T: Kind>(object: T) -> Change {
        Change::put(Verb::CreateWithStatus, Expected::Absent, object)
    }

    /// Writes metadata and spec over the version that was read.
    pub fn update<T: Kind>(object: T) -> Change {
        Change::put(Verb::Update, Expected::Revision(object.revision()), object)
    }

    /// Writes the status over the version that was read.
    pub fn status<T: Kind>(object: T) -> Change {
        Change::put(Verb::Status, Expected::Revision(object.revision()), object)
    }

    /// Writes metadata, spec and status at once.
    pub fn both<T: Kind>(object: T) -> Change {
        Change::put(Verb::Both, Expected::Revision(object.revision()), object)
    }

    pub fn delete<T: Kind>(object: &T) -> Change {
        let verb = Verb::Delete { grace_seconds: None, propagation: None };
        Change::bare(verb, api::kind_of::<T>(), ObjectKey::of(object), uid(object))
    }

    /// Removes at once what would otherwise wait for its grace (a pod whose processes are gone).
    pub fn delete_now<T: Kind>(object: &T) -> Change {
        let verb = Verb::Delete { grace_seconds: Some(0), propagation: None };
        Change::bare(verb, api::kind_of::<T>(), ObjectKey::of(object), uid(object))
    }

    /// Deletes an object of whatever kind.
    pub fn delete_row(row: &crate::Row, propagation: Option<Propagation>) -> Change {
        let verb = Verb::Delete { grace_seconds: None, propagation };
        Change::bare(verb, &row.kind, row.key(), Expected::Uid(row.meta.uid.clone()))
    }

    /// Writes an object of whatever kind over the version that was read.
    pub fn update_any(kind: &KindRef, object: AnyObject) -> Change {
        let revision = object.metadata().resource_version.as_deref();
        let expected = Expected::Revision(revision.and_then(|it| it.parse().ok()).unwrap_or(0));
        let key = ObjectKey::of_any(&*object);
        let object = Some(Arc::new(object));
        Change { verb: Verb::Update, kind: kind.clone(), key, expected, object }
    }

    /// The commit holds only if `object` is still at the version that was judged.
    pub fn check<T: Kind>(object: &T) -> Change {
        let expected = Expected::Revision(object.revision());
        Change::bare(Verb::Check, api::kind_of::<T>(), ObjectKey::of(object), expected)
    }

    /// The commit holds only if there is still no such object.
    pub fn check_absent<T: Kind>(key: ObjectKey) -> Change {
        Change::bare(Verb::Check, api::kind_of::<T>(), key, Expected::Absent)
    }

    /// The object to be written, if it is a `T`.
    pub fn object<T: Kind>(&self) -> Option<&T> {
        (***self.object.as_ref()?).as_any().downcast_ref()
    }

    pub fn is_write(&self) -> bool {
        self.verb != Verb::Check
    }

    fn put<T: Kind>(verb: Verb, expected: Expected, object: T) -> Change {
        let key = ObjectKey::of(&object);
        let object: AnyObject = Box::new(object);
        let kind = api::kind_of::<T>().clone();
        Change { verb, kind, key, expected, object: Some(Arc::new(object)) }
    }

    fn bare(verb: Verb, kind: &KindRef, key: ObjectKey, expected: Expected) -> Change {
        Change { verb, kind: kind.clone(), key, expected, object: None }
    }

    /// What the change does in a world where nothing stands against it.
    pub(crate) fn decide(&self, world: &World, now: Timestamp) -> Decided {
        let old = world.row(&self.kind.resource(), &self.key).and_then(|it| it.object().ok());
        let rules = &self.kind.rules;
        let new = || self.object.as_deref().expect("a write has an object").clone();
        match (self.verb, old) {
            (Verb::Check, _) | (Verb::Delete { .. }, None) => Decided::Nothing,
            (Verb::Delete { grace_seconds, propagation }, Some(old)) => {
                match deletion::delete(&self.kind, &*old, grace_seconds, propagation, now) {
                    Deletion::Gone => Decided::Remove,
                    Deletion::Marked(object) => Decided::Put(object),
                    Deletion::Unchanged => Decided::Nothing,
                }
            }
            // The commit went through already, and its own answer is on the way.
            (Verb::Create | Verb::CreateWithStatus, Some(_)) => Decided::Nothing,
            (Verb::Create | Verb::CreateWithStatus, None) => {
                let mut object = new();
                rules.default(&mut object);
                if self.verb == Verb::Create {
                    rules.prepare_create(&mut object);
                }
                let meta = object.metadata_mut();
                if meta.uid.is_none() {
                    // A uid that is as unique as the key within one world.
                    meta.uid =
                        Some(format!("{}:{}@{}", self.kind.plural, self.key, world.revision));
                }
                meta.creation_timestamp.get_or_insert_with(|| meta::time(now));
                Decided::Put(object)
            }
            (Verb::Update | Verb::Status | Verb::Both, None) => Decided::Nothing,
            (verb, Some(old)) => {
                let mut object = new();
                rules.default(&mut object);
                match verb {
                    Verb::Status => rules.prepare_status(&mut object, &*old),
                    Verb::Update => rules.prepare_update(&mut object, &*old),
                    _ => {}
                }
                keep_identity(&mut object, &*old);
                if deletion::is_over(&self.kind, &*object) {
                    Decided::Remove
                } else {
                    Decided::Put(object)
                }
            }
        }
    }
}

/// What no write may change.
fn keep_identity(object: &mut AnyObject, old: &dyn api::Erased) {
    let (meta, old) = (object.metadata_mut(), old.metadata());
    meta.uid.clone_from(&old.uid);
    meta.creation_timestamp.clone_from(&old.creation_timestamp);
    meta.deletion_timestamp.clone_from(&old.deletion_timestamp);
    meta.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
}

pub(crate) enum Decided {
    Put(AnyObject),
    Remove,
    Nothing,
}

fn uid<T: Kind>(object: &T) -> Expected {
    Expected::Uid(object.uid().to_owned())
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} if {:?}", self, self.expected)
    }
}

/// `create Pod default/web-0`
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.verb {
            Verb::Create | Verb::CreateWithStatus => "create",
            Verb::Update => "update",
            Verb::Status => "status",
            Verb::Both => "update",
            Verb::Delete { .. } => "delete",
            Verb::Check => "check",
        };
        write!(f, "{verb} {} {}", self.kind.kind, self.key)
    }
}
