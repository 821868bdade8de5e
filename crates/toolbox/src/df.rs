//! df: how full the filesystems below some paths are, in bytes or for people.

use crate::{Attempt, Outcome, flags};
use std::{ffi::CString, fs, path::Path};

pub(crate) fn df(words: &[String]) -> Outcome {
    let (flags, paths) = flags(words, "h")?;
    let human = flags.contains('h');
    let root = ["/".to_owned()];
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let size_heading = if human { "Size" } else { "1B-blocks" };
    let mut rows = vec![
        ["Filesystem", size_heading, "Used", "Available", "Use%", "Mounted on"].map(str::to_owned),
    ];
    for path in if paths.is_empty() { &root } else { paths } {
        let space = Space::of(path)?;
        let whole = fs::canonicalize(path).attempt(|| format!("look at {path}"))?;
        let (source, place) = mount_of(&mounts, &whole);
        let number = |bytes: u64| if human { for_people(bytes) } else { bytes.to_string() };
        // As a user sees it: what is reserved for root counts as gone.
        let seen = space.used + space.available;
        let percent = (space.used * 100).div_ceil(seen.max(1));
        rows.push([
            source,
            number(space.size),
            number(space.used),
            number(space.available),
            format!("{percent}%"),
            place,
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3, 4].map(width);
    for [source, size, used, available, percent, place] in &rows {
        let [a, b, c, d, e] = widths;
        println!("{source:a$} {size:>b$} {used:>c$} {available:>d$} {percent:>e$} {place}");
    }
    Ok(())
}

/// Bytes.
struct Space {
    size: u64,
    used: u64,
    available: u64,
}

impl Space {
    fn of(path: &str) -> Result<Space, crate::Failure> {
        let name = CString::new(path).attempt(|| format!("look at {path:?}"))?;
        // SAFETY: all zeros is a valid statvfs, and the call fills it for a terminated name.
        let (answer, found) = unsafe {
            let mut found: libc::statvfs = std::mem::zeroed();
            (libc::statvfs(name.as_ptr(), &raw mut found), found)
        };
        if answer != 0 {
            return Err(std::io::Error::last_os_error()).attempt(|| format!("look at {path}"));
        }
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Space {
            size: bytes(found.f_blocks),
            used: bytes(found.f_blocks.saturating_sub(found.f_bfree)),
            available: bytes(found.f_bavail),
        })
    }
}

/// Source and mount point of the last mount over `path`.
fn mount_of(mounts: &str, path: &Path) -> (String, String) {
    let parsed = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (source, place) = (unescape(words.next()?), unescape(words.next()?));
        path.starts_with(&place).then_some((source, place))
    });
    parsed
        .max_by_key(|(_, place)| place.len())
        .unwrap_or_else(|| ("-".to_owned(), path.display().to_string()))
}

/// Spaces and such are octal in /proc/self/mounts.
fn unescape(text: &str) -> String {
    let codes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    codes.iter().fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

/// Rounded up, in powers of 1024, as df -h does.
fn for_people(bytes: u64) -> String {
    let units = ["", "K", "M", "G", "T", "P"];
    let mut unit = 0;
    let mut scale: u64 = 1;
    while unit + 1 < units.len() && bytes.div_ceil(scale) >= 1024 {
        scale *= 1024;
        unit += 1;
    }
    let tenths = (u128::from(bytes) * 10).div_ceil(u128::from(scale));
    match unit > 0 && tenths < 100 {
        true => format!("{}.{}{}", tenths / 10, tenths % 10, units[unit]),
        false => format!("{}{}", bytes.div_ceil(scale), units[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_short_numbers_that_are_never_too_small() {
        let read = [0, 1023, 1024, 1025, 10 << 20, (1 << 30) - 1, 1 << 30].map(for_people);
        assert_eq!(read, ["0", "1023", "1.0K", "1.1K", "10M", "1.0G", "1.0G"]);
    }

    #[test]
    fn the_deepest_mount_wins_and_the_last_of_equals() {
        let mounts =
            "/dev/a / ext4 rw 0 0\n/dev/b /data ext4 rw\n/dev/c /data xfs rw\nx /dat\\040a y";
        let found = |path: &str| mount_of(mounts, Path::new(path));
        assert_eq!(found("/data/x"), ("/dev/c".into(), "/data".into()));
        assert_eq!(found("/database"), ("/dev/a".into(), "/".into()));
        assert_eq!(found("/dat a").1, "/dat a");
    }
}
