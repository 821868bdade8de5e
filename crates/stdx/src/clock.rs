//! The seam for time. Production reads the kernel; the simulator advances a clock by hand.

use crate::Timestamp;
use std::{
    future::Future,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The only source of wall-clock time.
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
}

/// The kernel's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
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
