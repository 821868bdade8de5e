//! A length of time as Go writes it: `1h30m`, `90s`, `1.5h`.
//!
//! Upstream: Go's `time.ParseDuration`.

use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeriodError {
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    #[error("time: missing unit in duration {0:?}")]
    NoUnit(String),
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    Unit { unit: String, text: String },
}

/// Longer ones would not fit into 64 bits of nanoseconds.
const SECONDS_MOST: f64 = 9_223_372_036.0;

/// A negative length is none at all.
pub(super) fn parse(text: &str) -> Result<Duration, PeriodError> {
    let invalid = || PeriodError::Invalid(text.to_owned());
    let (is_negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let is_number = |it: char| it.is_ascii_digit() || it == '.';
        let end = rest.find(|it| !is_number(it)).unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let end = after.find(is_number).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit_seconds = match unit {
            "" => return Err(PeriodError::NoUnit(text.to_owned())),
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            unit => {
                return Err(PeriodError::Unit { unit: unit.to_owned(), text: text.to_owned() });
            }
        };
        seconds += number * unit_seconds;
        rest = after;
    }
    if seconds > SECONDS_MOST {
        return Err(invalid());
    }
    Ok(if is_negative { Duration::ZERO } else { Duration::from_secs_f64(seconds) })
}
