//! A container's log in the form that the Container Runtime Interface prescribes, one line per line of output:
//! `2026-11-21T10:12:50.123456789Z stdout F text`. A line longer than the limit is cut into parts tagged P;
//! so is tagged what a stream ends with if that is no line.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
};

/// Readers of these logs expect parts of this size.
const PART_MAX: usize = 16 << 10;

pub(crate) struct Log {
    path: String,
    file: Option<File>,
}

impl Log {
    /// An empty path gives a log that forgets.
    pub(crate) fn open(path: &str) -> io::Result<Log> {
        let mut log = Log { path: path.to_owned(), file: None };
        log.reopen()?;
        Ok(log)
    }

    /// Follows a rotation: the old file was renamed.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        if !self.path.is_empty() {
            self.file =
                Some(OpenOptions::new().create(true).append(true).mode(0o640).open(&self.path)?);
        }
        Ok(())
    }

    fn append(&mut self, lines: &[u8]) {
        if let Some(file) = &mut self.file {
            // A full disk loses lines; stopping to read would stop the container instead.
            let _lost = file.write_all(lines);
        }
    }
}

/// The unfinished line of one stream.
pub(crate) struct Lines {
    stream: &'static str,
    unfinished: Vec<u8>,
}

impl Lines {
    pub(crate) fn of(stream: &'static str) -> Lines {
        Lines { stream, unfinished: Vec::new() }
    }

    pub(crate) fn write(&mut self, output: &[u8], log: &mut Log, now: i64) {
        self.unfinished.extend_from_slice(output);
        let mut out = Vec::with_capacity(output.len() + 64);
        let mut start = 0;
        loop {
            let rest = &self.unfinished[start..];
            let within = &rest[..rest.len().min(PART_MAX)];
            let (end, tag, skip) = match within.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end, 'F', 1),
                None if rest.len() >= PART_MAX => (PART_MAX, 'P', 0),
                None => break,
            };
            entry(&mut out, now, self.stream, tag, &rest[..end]);
            start += end + skip;
        }
        self.unfinished.drain(..start);
        if !out.is_empty() {
            log.append(&out);
        }
    }

    /// The stream has ended: what has no line end is a part, and reads as it was written.
    pub(crate) fn finish(&mut self, log: &mut Log, now: i64) {
        if !self.unfinished.is_empty() {
            let mut out = Vec::new();
            entry(&mut out, now, self.stream, 'P', &self.unfinished);
            self.unfinished.clear();
            log.append(&out);
        }
    }
}

fn entry(out: &mut Vec<u8>, now: i64, stream: &str, tag: char, text: &[u8]) {
    out.extend_from_slice(format!("{} {stream} {tag} ", rfc3339(now)).as_bytes());
    out.extend_from_slice(text);
    out.push(b'\n');
}

/// Nanoseconds since the epoch as text. The calendar arithmetic counts days from 1 March of year 0, so that the leap
/// day is the last of its year.
fn rfc3339(now: i64) -> String {
    let (seconds, nanoseconds) = (now.div_euclid(1_000_000_000), now.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400) + 719_468, seconds.rem_euclid(86_400));
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanoseconds:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_calendar_times() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(1_795_255_970_123_456_789), "2026-11-21T10:12:50.123456789Z");
        assert_eq!(rfc3339(1_709_210_096_000_000_001), "2024-02-29T12:34:56.000000001Z");
    }

    fn written(chunks: &[&[u8]]) -> Vec<(char, usize)> {
        let path =
            std::env::temp_dir().join(format!("shim-log-{}-{}", std::process::id(), chunks.len()));
        let mut log = Log::open(path.to_str().unwrap()).unwrap();
        let mut lines = Lines::of("stdout");
        for chunk in chunks {
            lines.write(chunk, &mut log, 0);
        }
        lines.finish(&mut log, 0);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let parse = |line: &str| {
            let rest = line.strip_prefix("1970-01-01T00:00:00.000000000Z stdout ").unwrap();
            (rest.chars().next().unwrap(), rest.len() - 2)
        };
        text.lines().map(parse).collect()
    }

    #[test]
    fn long_lines_are_cut_and_what_has_no_end_gets_none() {
        let long = vec![b'x'; 40_000];
        assert_eq!(written(&[b"one\ntw", b"o\n\nlast"]), [('F', 3), ('F', 3), ('F', 0), ('P', 4)]);
        assert_eq!(
            written(&[&long, b"\n", b"b\n"]),
            [('P', 16_384), ('P', 16_384), ('F', 7_232), ('F', 1)]
        );
    }
}
