//! What to do next about one object.

use crate::{Change, ObjectKey, Place, VolumeCall};
use api::{Kind, KindRef};
use std::{fmt, time::Duration};

#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Carried out in order; the first failure ends the plan, and the key comes back with back-off.
    pub steps: Vec<Step>,
    /// Written last, on the version that the steps left.
    pub status: Option<Change>,
    /// Come back at the latest after this long.
    pub requeue: Option<Duration>,
    pub events: Vec<Event>,
}

#[derive(Clone, Debug)]
pub enum Step {
    /// Written together, in one commit, or not at all: at most one object of each kind.
    Write(Vec<Change>),
    /// Its answer goes to `Controller::returned`.
    Call(Place, VolumeCall),
}

/// Something worth telling a user, about one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub about: ObjectRef,
    pub note: Note,
    pub reason: &'static str,
    pub message: String,
    /// The controller that tells it; empty: whoever writes it.
    pub reporter: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRef {
    pub kind: KindRef,
    pub key: ObjectKey,
    pub uid: String,
    pub revision: u64,
    /// `spec.containers{nginx}`, or empty.
    pub field_path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Note {
    Normal,
    Warning,
}

impl ObjectRef {
    pub fn of<T: Kind>(object: &T) -> ObjectRef {
        ObjectRef {
            kind: api::kind_of::<T>().clone(),
            key: ObjectKey::of(object),
            uid: object.uid().to_owned(),
            revision: object.revision(),
            field_path: String::new(),
        }
    }
}

impl Event {
    pub fn normal<T: Kind>(about: &T, reason: &'static str, message: impl Into<String>) -> Event {
        Event {
            about: ObjectRef::of(about),
            note: Note::Normal,
            reason,
            message: message.into(),
            reporter: "",
        }
    }

    pub fn warning<T: Kind>(about: &T, reason: &'static str, message: impl Into<String>) -> Event {
        Event { note: Note::Warning, ..Event::normal(about, reason, message) }
    }
}

impl Plan {
    /// One more commit.
    pub fn write(&mut self, changes: impl IntoIterator<Item = Change>) -> &mut Plan {
        self.steps.push(Step::Write(changes.into_iter().collect()));
        self
    }

    pub fn call(&mut self, place: Place, call: VolumeCall) -> &mut Plan {
        self.steps.push(Step::Call(place, call));
        self
    }

    pub fn event(&mut self, event: Event) -> &mut Plan {
        self.events.push(event);
        self
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
            && self.status.is_none()
            && self.requeue.is_none()
            && self.events.is_empty()
    }

    /// Every object that the plan writes or checks.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        let steps = self.steps.iter().flat_map(|it| match it {
            Step::Write(changes) => changes.as_slice(),
            Step::Call(..) => &[],
        });
        steps.chain(&self.status)
    }
}

/// One line per write, for golden tests and for people.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            match step {
                Step::Write(changes) => {
                    writeln!(f, "write")?;
                    for it in changes {
                        writeln!(f, "  {it}")?;
                    }
                }
                Step::Call(place, call) => writeln!(f, "call at {place:?}: {call:?}")?,
            }
        }
        if let Some(status) = &self.status {
            writeln!(f, "{status}")?;
        }
        for it in &self.events {
            writeln!(f, "event {:?} {} {}", it.note, it.reason, it.message)?;
        }
        if let Some(after) = self.requeue {
            writeln!(f, "requeue {after:?}")?;
        }
        if self.is_empty() {
            writeln!(f, "nothing to do")?;
        }
        Ok(())
    }
}
