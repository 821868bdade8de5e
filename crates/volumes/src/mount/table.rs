//! What is mounted where: /proc/self/mountinfo, parsed. See proc_pid_mountinfo(5).

use std::{
    ffi::OsString,
    io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// One line of mountinfo, in this process's mount namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// Major and minor number of the filesystem.
    pub device: (u32, u32),
    /// The directory of the filesystem that is visible here; not `/` for a bind of a part of it.
    pub root: PathBuf,
    pub point: PathBuf,
    /// Of the mount: `rw,relatime`.
    pub options: String,
    pub fs_type: String,
    pub source: PathBuf,
}

impl MountEntry {
    pub fn read_only(&self) -> bool {
        self.options.split(',').any(|option| option == "ro")
    }
}

/// Every mount, lower before upper where several lie on one another.
pub fn mounts() -> io::Result<Vec<MountEntry>> {
    // Of this thread: a thread of its own namespace must see its own table.
    let table = std::fs::read("/proc/thread-self/mountinfo")?;
    Ok(parse(&table))
}

/// The topmost mount at exactly `path`. Symlinks in its parents are followed, in its last part not.
pub fn mounted_at(path: &Path) -> io::Result<Option<MountEntry>> {
    let Some(path) = canonical(path)? else { return Ok(None) };
    Ok(mounts()?.into_iter().rev().find(|entry| entry.point == path))
}

/// The mounts at `path` and below it, lower before upper.
pub fn mounts_below(path: &Path) -> io::Result<Vec<MountEntry>> {
    let Some(path) = canonical(path)? else { return Ok(Vec::new()) };
    Ok(mounts()?.into_iter().filter(|entry| entry.point.starts_with(&path)).collect())
}

/// None if a parent does not exist: nothing can be mounted there.
fn canonical(path: &Path) -> io::Result<Option<PathBuf>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(Some(path.to_path_buf()));
    };
    match parent.canonicalize() {
        Ok(parent) => Ok(Some(parent.join(name))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn parse(table: &[u8]) -> Vec<MountEntry> {
    table.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut words = line.split(|byte| *byte == b' ');
    let device = text(words.nth(2)?);
    let (major, minor) = device.split_once(':')?;
    let root = path(words.next()?);
    let point = path(words.next()?);
    let options = text(words.next()?);
    let mut words = words.skip_while(|word| *word != b"-").skip(1);
    Some(MountEntry {
        device: (major.parse().ok()?, minor.parse().ok()?),
        root,
        point,
        options,
        fs_type: text(words.next()?),
        source: path(words.next()?),
    })
}

fn text(word: &[u8]) -> String {
    String::from_utf8_lossy(word).into_owned()
}

/// Blanks, tabs, newlines and backslashes are written as `\` and three octal digits.
fn path(word: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, tail)) = rest.split_first() {
        let digits =
            tail.get(..3).filter(|digits| digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match (first, digits) {
            (b'\\', Some(digits)) => {
                bytes.push(digits.iter().fold(0u8, |value, d| value.wrapping_mul(8) + (d - b'0')));
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_binds_and_escaped_blanks() {
        let table = br"24 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
91 24 7:3 /sub\040dir /a\134b\011c ro,nosuid - ext4 /dev/loop3 rw
";
        let entries = parse(table);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[1].device, (7, 3));
        assert_eq!(entries[1].root, Path::new("/sub dir"));
        assert_eq!(entries[1].point, Path::new("/a\\b\tc"));
        assert_eq!(entries[1].source, Path::new("/dev/loop3"));
        assert!(entries[1].read_only() && !entries[0].read_only());
    }

    #[test]
    fn nothing_is_mounted_where_nothing_is() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(mounted_at(directory.path()).unwrap(), None);
        assert_eq!(mounted_at(&directory.path().join("no/such/place")).unwrap(), None);
    }
}
