//! What only the outside can do to a volume: asked for as data, answered as data.

use crate::ObjectKey;
use std::collections::BTreeMap;

/// Where a call is carried out. No answer is Pending, never done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Any server that knows the plugin.
    Anywhere,
    /// The node of this name.
    Node(String),
}

/// A call to a volume plugin. Idempotent by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeCall {
    Create {
        plugin: String,
        claim: ObjectKey,
        /// `pvc-<uid of the claim>`: the handle follows from it.
        name: String,
        bytes: u64,
        access_modes: Vec<String>,
        block: bool,
        parameters: BTreeMap<String, String>,
        topology: BTreeMap<String, String>,
    },
    Delete {
        plugin: String,
        volume: ObjectKey,
        handle: String,
    },
    Expand {
        plugin: String,
        volume: ObjectKey,
        handle: String,
        bytes: u64,
    },
    /// `rm -rf` of the contents of a directory on a node, and only of the contents.
    Scrub {
        volume: ObjectKey,
        path: String,
    },
}

/// What a call that succeeded says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub handle: String,
    /// What exists: a capacity is never a wish.
    pub bytes: u64,
    pub context: BTreeMap<String, String>,
    pub topology: BTreeMap<String, String>,
}

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallFailure {
    /// False: asking again cannot help until someone changes the request.
    pub retry: bool,
    /// True: there was no answer, and the call may have been carried out, or be on its way still.
    pub unknown: bool,
    pub message: String,
}
