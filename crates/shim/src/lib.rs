//! What the runtime and its shim programs speak: the messages, their bytes, and descriptors beside them.
//!
//! A shim outlives the server that started it, so a newer server must understand an older shim and the other way
//! round: fields and messages are only ever appended (see `wire`).

pub mod frame;
pub mod protocol;
pub mod wire;
