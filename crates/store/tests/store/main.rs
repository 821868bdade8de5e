//! The promises, on every backend.

mod memory;
