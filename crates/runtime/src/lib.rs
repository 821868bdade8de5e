//! See ARCHITECTURE.md.

pub mod image;
pub mod streaming;
