//! The seam for time. Production reads the kernel; the simulator advances a clock by hand.

use crate::Timestamp;
use std::{
    future::Future,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The only source of wall-clock time.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
}

/// The kernel's clock, except that it never goes back while the process lives.
///
/// Where somebody sets the kernel's clock back, this one goes on at nine tenths of its speed until it is caught up with:
/// what was to happen in ten seconds happens in eleven, and not in an hour. A step forward is followed at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        static STEERED: Mutex<Option<Steered>> = Mutex::new(None);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        let mut steered = STEERED.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that no thread comes with a moment before another's.
        let moment = Instant::now();
        let next = Steered::next(*steered, wall, moment);
        *steered = Some(next);
        Timestamp(next.now)
    }
}

/// How far the kernel's clock may lie behind without being called set back: it is corrected a little all the time.
const SLIP_MICROS: i64 = 50_000;

#[derive(Clone, Copy, Debug)]
struct Steered {
    /// What was answered last, in microseconds since the epoch, and when that was.
    now: i64,
    moment: Instant,
}

impl Steered {
    fn next(last: Option<Steered>, wall: i64, moment: Instant) -> Steered {
        let Some(last) = last else { return Steered { now: wall, moment } };
        let passed = moment.saturating_duration_since(last.moment).as_micros();
        let passed = i64::try_from(passed).unwrap_or(i64::MAX);
        let ahead = last.now.saturating_add(passed).saturating_sub(wall);
        let now = if ahead <= SLIP_MICROS {
            wall.max(last.now)
        } else {
            last.now.saturating_add(passed / 10 * 9)
        };
        // Time too short to count adds up until it does not.
        if now == last.now && wall < now { last } else { Steered { now, moment } }
    }
}

/// Waits. For back-off, periods and deadlines only: never in place of a condition.
pub async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// `None` when `duration` passes first.
pub async fn timeout<T>(duration: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(duration, work).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wall clock and moments of a story, in seconds.
    struct Machine {
        steered: Option<Steered>,
        wall: i64,
        moment: Instant,
    }

    const SECOND: i64 = 1_000_000;

    impl Machine {
        fn new(wall_seconds: i64) -> Machine {
            Machine { steered: None, wall: wall_seconds * SECOND, moment: Instant::now() }
        }

        fn set(&mut self, by_seconds: i64) {
            self.wall += by_seconds * SECOND;
        }

        /// Looks at the clock ten times a second for so long; what it says then, in seconds.
        fn pass(&mut self, seconds: i64) -> f64 {
            for _ in 0..seconds * 10 {
                self.wall += SECOND / 10;
                self.moment += Duration::from_millis(100);
                let before = self.steered.map_or(0, |it| it.now);
                let next = Steered::next(self.steered, self.wall, self.moment);
                assert!(next.now >= before, "it went back");
                self.steered = Some(next);
            }
            self.steered.map_or(0.0, |it| it.now as f64 / SECOND as f64)
        }
    }

    #[test]
    fn a_clock_that_is_set_back_goes_on_and_is_caught_up_with() {
        let mut machine = Machine::new(10_000);
        let before = machine.pass(10);
        machine.set(-3600);
        let after = machine.pass(10);
        assert!((after - before - 9.0).abs() < 0.1, "ten seconds take nine: {before}, {after}");
        let caught_up = machine.pass(36_100);
        assert!((caught_up - machine.wall as f64 / 1e6).abs() < 0.1, "{caught_up}");
    }

    #[test]
    fn a_step_forward_is_followed_at_once_and_small_corrections_too() {
        let mut machine = Machine::new(10_000);
        machine.pass(1);
        machine.set(86_400);
        let after = machine.pass(1);
        assert!((after - 96_402.0).abs() < 0.1, "{after}");
        machine.wall -= 20_000;
        let after = machine.pass(1);
        assert!((after - machine.wall as f64 / 1e6).abs() < 0.01, "{after}");
    }

    #[test]
    fn the_kernels_clock_is_the_one_that_is_asked() {
        let seconds = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let (before, asked, after) = (seconds(), SystemClock.now().seconds(), seconds());
        assert!((before..=after).contains(&asked), "{before} {asked} {after}");
    }
}
