//! The promises, on every backend, and what only the embedded one promises.

mod embedded;
mod memory;
