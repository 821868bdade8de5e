//! See ARCHITECTURE.md.

pub mod image;
