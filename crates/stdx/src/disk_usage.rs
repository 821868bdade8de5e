//! What a directory tree takes of its filesystem, as `du -x` counts it.

use std::{collections::BTreeSet, fs, io, os::unix::fs::MetadataExt, path::Path};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Blocks, not lengths: holes are nothing.
    pub bytes: u64,
    pub inodes: u64,
}

/// Walks a tree; other filesystems below it do not count, nor does what vanishes meanwhile.
pub fn disk_usage(path: &Path) -> io::Result<DiskUsage> {
    let top = fs::symlink_metadata(path)?;
    let mut usage = DiskUsage { bytes: top.blocks() * 512, inodes: 1 };
    let mut linked = BTreeSet::new();
    let mut left = vec![path.to_owned()];
    while let Some(directory) = left.pop() {
        let entries = match fs::read_dir(&directory) {
            Err(error) if directory == path => return Err(error),
            entries => entries.into_iter().flatten().flatten(),
        };
        for entry in entries {
            let Ok(found) = entry.metadata() else { continue };
            if found.dev() != top.dev() {
                continue;
            }
            // A file with several names takes its place once.
            if !found.is_dir() && found.nlink() > 1 && !linked.insert(found.ino()) {
                continue;
            }
            usage.bytes += found.blocks() * 512;
            usage.inodes += 1;
            if found.is_dir() {
                left.push(entry.path());
            }
        }
    }
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_blocks_and_a_file_of_two_names_once() {
        let path = std::env::temp_dir().join(format!("stdx-usage-{}", std::process::id()));
        fs::create_dir_all(path.join("a/b")).unwrap();
        let empty = disk_usage(&path).unwrap();
        assert_eq!(empty.inodes, 3);
        fs::write(path.join("a/b/file"), vec![1; 100_000]).unwrap();
        fs::hard_link(path.join("a/b/file"), path.join("again")).unwrap();
        fs::File::create(path.join("hole")).unwrap().set_len(1 << 30).unwrap();
        let full = disk_usage(&path).unwrap();
        fs::remove_dir_all(&path).unwrap();
        assert_eq!(full.inodes, 5);
        assert!((100_000..1 << 20).contains(&(full.bytes - empty.bytes)), "{full:?}");
        assert!(disk_usage(&path).is_err());
    }
}
