//! Waiting for what cannot wake us: the state of another program.

use std::time::{Duration, Instant};

/// Long enough for the slowest machine; whoever waits longer waits forever.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks: a tenth of what a person notices, and kubectl takes as long itself.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks until there is something to see.
///
/// # Panics
/// When [`PATIENCE`] is over, with `what` and what the last look said.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(seen) => return seen,
            Err(last) if begun.elapsed() > PATIENCE => {
                panic!("waited {} s for: {what}\nlast seen: {last}", PATIENCE.as_secs())
            }
            Err(_) => pause(PAUSE),
        }
    }
}

pub(crate) fn pause(time: Duration) {
    let clock = tokio::runtime::Builder::new_current_thread().enable_time().build();
    clock.expect("a clock").block_on(stdx::sleep(time));
}
