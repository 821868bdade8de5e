//! How long to wait before the next try: doubling between two bounds.

use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    pub const fn new(first: Duration, most: Duration) -> Backoff {
        Backoff { first, most, failures: 0 }
    }

    /// Counts one more failure and says how long to wait after it.
    pub fn failed(&mut self) -> Duration {
        let factor = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        self.first.saturating_mul(factor).min(self.most)
    }

    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_most_and_starts_over() {
        let mut backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(18));
        let waits: Vec<u64> = (0..4).map(|_| backoff.failed().as_secs()).collect();
        assert_eq!(waits, [5, 10, 18, 18]);
        backoff.succeeded();
        assert_eq!(backoff.failed().as_secs(), 5);
        for _ in 0..100 {
            backoff.failed();
        }
        assert_eq!(backoff.failed().as_secs(), 18, "no overflow");
    }
}
