//! Missing batteries: time as a value, seams for clock and chance, back-off, shutdown, disk usage.
//!
//! Knows none of our crates. The only place (with the simulator) that may sleep.
#![forbid(unsafe_code)]

mod backoff;
mod clock;
mod disk_usage;
mod entropy;
mod shutdown;
mod timestamp;

pub use backoff::Backoff;
pub use clock::{Clock, SystemClock, sleep, timeout};
pub use disk_usage::{DiskUsage, disk_usage};
pub use entropy::{Entropy, SystemEntropy};
pub use shutdown::{Shutdown, ShutdownSignal};
pub use timestamp::Timestamp;

use std::{future::Future, pin::Pin};

/// A boxed future. Trait objects at plug points return this; nothing else does.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An error and its causes on one line, each cause once: `attempted: why: why`.
pub fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line.replace('\n', " ")
}
