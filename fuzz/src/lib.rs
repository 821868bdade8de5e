//! Everything that strangers may send us, as functions of bytes that must always come back.
//!
//! `cargo xtask fuzz TARGET --seconds N` looks for bytes that break one; `cargo test -p fuzz` runs what is in the corpus.
#![forbid(unsafe_code)]

mod image_name;

pub type Target = fn(&[u8]);

/// Every target, by name, with a folder of that name in `corpus/`.
pub const TARGETS: [(&str, Target); 12] = [
    ("apply", apiserver::fuzzing::apply),
    ("image_name", image_name::image_name),
    ("objects", apiserver::fuzzing::objects),
    ("openapi", apiserver::fuzzing::openapi),
    ("patches", apiserver::fuzzing::patches),
    ("path", apiserver::fuzzing::path),
    ("pods", apiserver::fuzzing::pods),
    ("protobuf", apiserver::fuzzing::protobuf),
    ("quantities", apiserver::fuzzing::quantities),
    ("selectors", apiserver::fuzzing::selectors),
    ("spdy", apiserver::fuzzing::spdy),
    ("tables", apiserver::fuzzing::tables),
];

pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|it| it.0 == name).map(|it| it.1)
}
