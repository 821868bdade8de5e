//! A point on the wall clock as a plain value, in the two texts that the API knows.

use std::{fmt, time::Duration};

/// Microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub const fn from_seconds(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// How long after `earlier`; zero if it is not after.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    pub fn plus(self, after: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::try_from(after.as_micros()).unwrap_or(i64::MAX)))
    }

    pub fn minus(self, before: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(i64::try_from(before.as_micros()).unwrap_or(i64::MAX)))
    }

    /// `2026-11-21T10:12:50Z`: the API's Time.
    pub fn rfc3339(self) -> String {
        self.civil().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// `2026-11-21T10:12:50.123456Z`: the API's MicroTime.
    pub fn rfc3339_micros(self) -> String {
        self.civil().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
    }

    /// Reads either text.
    pub fn parse(text: &str) -> Option<Timestamp> {
        Some(Timestamp(text.parse::<jiff::Timestamp>().ok()?.as_microsecond()))
    }

    fn civil(self) -> jiff::Timestamp {
        let range = jiff::Timestamp::MIN.as_microsecond()..=jiff::Timestamp::MAX.as_microsecond();
        let micros = self.0.clamp(*range.start(), *range.end());
        jiff::Timestamp::from_microsecond(micros).expect("clamped into range")
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_texts_come_back_as_the_same_time() {
        let time = Timestamp(1_795_255_970_123_456);
        assert_eq!(Timestamp::parse(&time.rfc3339_micros()), Some(time));
        assert_eq!(Timestamp::parse(&time.rfc3339()), Some(Timestamp(1_795_255_970_000_000)));
    }

    #[test]
    fn never_negative_time_between() {
        assert_eq!(Timestamp(1).since(Timestamp(5)), Duration::ZERO);
    }
}
