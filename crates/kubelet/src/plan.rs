//! What this node does next, decided from values alone.
//!
//! **Invariant:** nothing below does IO, awaits, reads a clock or draws a random number. The same look gives the same plan.

pub mod memory;
pub mod pod;
pub mod volumes;

pub use memory::{Failure, Memory, Probed, Restart};
pub use pod::{Action, Course, Look, Next, Slot, VolumeState, Waiting, Why, next};
