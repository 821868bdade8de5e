//! What can be decided about a pod: a closed list, and how it reads.

use super::Verdict;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};
use stdx::Timestamp;

/// Only one action at a time on each of these.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    Sandbox,
    Container(String),
    Stop(String),
    Hook(String),
    Resize,
    Volume(String),
    Image(String),
    Object,
}

impl Slot {
    /// The container that is being started.
    pub(super) fn container(&self) -> Option<&str> {
        match self {
            Slot::Container(name) => Some(name),
            Slot::Sandbox
            | Slot::Stop(_)
            | Slot::Hook(_)
            | Slot::Resize
            | Slot::Volume(_)
            | Slot::Image(_)
            | Slot::Object => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Publish {
        volume: String,
    },
    Unpublish {
        volume: String,
    },
    RunSandbox {
        attempt: u32,
    },
    StopSandbox {
        id: String,
    },
    RemoveSandbox {
        id: String,
    },
    EnsureImage {
        container: String,
    },
    /// Create and start. `after`: the end of the run before, if it is a restart.
    Start {
        container: String,
        attempt: u32,
        sandbox: String,
        after: Option<Timestamp>,
    },
    Stop {
        container: String,
        id: String,
        by: Timestamp,
        why: Why,
    },
    /// Tells a container that its end is near, and runs its hook; others must end before it.
    Hook {
        container: String,
        id: String,
        by: Timestamp,
    },
    /// Gives running containers, and the pod as a whole, what the spec asks for now.
    Resize {
        sandbox: String,
    },
    RemoveContainer {
        container: String,
        id: String,
    },
    /// Takes the object away: nothing is left of it here.
    Delete,
    /// Nothing is left to do, ever: the worker ends.
    Forget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Ending,
    Liveness,
    Startup,
    Unknown,
    /// Its image is another one now.
    Changed,
    /// Another one ended in a way that begins all of them again.
    RestartAll,
    /// It gets other resources, and wants to begin anew with them.
    Resize,
}

/// Where the pod is heading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    Up,
    /// Every container is over and stays over; the object stays.
    Finished,
    /// The object is being deleted.
    Terminating,
    Gone,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    pub course: Course,
    /// No process is left and none will come.
    pub ended: bool,
    /// Why this node ends the pod, if it is this node that does.
    pub verdict: Option<Verdict>,
    /// Containers run with other limits than the spec asks for.
    pub resizing: bool,
    /// Containers that are being started, until their postStart hooks are over.
    pub starting: BTreeSet<String>,
    pub actions: Vec<Action>,
    /// Why containers wait, where there is more to say than that they are being created.
    pub waiting: BTreeMap<String, Waiting>,
    /// Look again then at the latest.
    pub wake_at: Option<Timestamp>,
}

/// One line per decision, for golden tests and for people.
impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}{}", self.course, if self.ended { ", ended" } else { "" })?;
        if let Some(verdict) = &self.verdict {
            writeln!(f, "  because of {}: {}", verdict.reason, verdict.message)?;
        }
        for action in &self.actions {
            writeln!(f, "  {action}")?;
        }
        for (container, waiting) in &self.waiting {
            writeln!(f, "  {container} waits: {}: {}", waiting.reason, waiting.message)?;
        }
        if let Some(at) = self.wake_at {
            writeln!(f, "  look again at {}", at.seconds())?;
        }
        Ok(())
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Publish { volume } => write!(f, "publish {volume}"),
            Action::Unpublish { volume } => write!(f, "unpublish {volume}"),
            Action::RunSandbox { attempt } => write!(f, "run sandbox #{attempt}"),
            Action::StopSandbox { id } => write!(f, "stop sandbox {id}"),
            Action::RemoveSandbox { id } => write!(f, "remove sandbox {id}"),
            Action::EnsureImage { container } => write!(f, "ensure image of {container}"),
            Action::Start { container, attempt, sandbox, .. } => {
                write!(f, "start {container} #{attempt} in {sandbox}")
            }
            Action::Stop { container, id, by, why } => {
                write!(f, "stop {container} {id} by {} ({why:?})", by.seconds())
            }
            Action::Hook { container, id, by } => {
                write!(f, "tell {container} {id} of its end by {}", by.seconds())
            }
            Action::Resize { sandbox } => write!(f, "resize what runs in {sandbox}"),
            Action::RemoveContainer { container, id } => write!(f, "remove {container} {id}"),
            Action::Delete => write!(f, "delete the object"),
            Action::Forget => write!(f, "forget"),
        }
    }
}

impl Action {
    /// What it keeps busy.
    pub fn slot(&self) -> Slot {
        match self {
            Action::Publish { volume } | Action::Unpublish { volume } => {
                Slot::Volume(volume.clone())
            }
            Action::RunSandbox { .. } | Action::StopSandbox { .. } => Slot::Sandbox,
            Action::RemoveSandbox { id } => Slot::Stop(id.clone()),
            Action::EnsureImage { container } => Slot::Image(container.clone()),
            Action::Start { container, .. } => Slot::Container(container.clone()),
            Action::Stop { id, .. } => Slot::Stop(id.clone()),
            Action::Hook { id, .. } => Slot::Hook(id.clone()),
            Action::Resize { .. } => Slot::Resize,
            Action::RemoveContainer { id, .. } => Slot::Stop(id.clone()),
            Action::Delete | Action::Forget => Slot::Object,
        }
    }
}
