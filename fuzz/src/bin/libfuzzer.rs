//! libFuzzer around the target that `STANCHION_FUZZ` names.
#![no_main]

use std::sync::OnceLock;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static TARGET: OnceLock<fuzz::Target> = OnceLock::new();
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("STANCHION_FUZZ").unwrap_or_default();
        fuzz::target(&name).unwrap_or_else(|| panic!("STANCHION_FUZZ={name:?} names no target"))
    });
    target(bytes);
});
