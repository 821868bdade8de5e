//! What this node does next, decided from values alone.
//!
//! **Invariant:** nothing below does IO, awaits, reads a clock or draws a random number. The same look gives the same plan.

mod action;
pub mod admit;
pub mod containers;
mod down;
pub mod eviction;
mod fate;
pub mod memory;
pub mod pod;
pub mod reset;
pub mod resize;
mod verdict;
pub mod volumes;
mod words;

pub use action::{Action, Course, Next, Slot, Waiting, Why};
pub use fate::{has_started, is_sidecar, restarts};
pub use memory::{Ensured, Failure, Memory, Probed, Restart};
pub use pod::{Look, VolumeState, next};
pub use verdict::{Verdict, active_until};
pub use words::{describe, human};
