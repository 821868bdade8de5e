//! Builds the static programs that travel inside the binary.

#[path = "build/static_program.rs"]
mod static_program;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    static_program::build("shim");
    static_program::build("toolbox");
}
