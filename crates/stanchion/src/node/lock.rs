//! One process for the node of a data dir: a second one fails at once and says who holds it.

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    path::Path,
};

const FILE: &str = "node.lock";

/// Held until it is dropped, or the process ends.
pub(crate) struct Lock {
    _file: File,
}

pub(crate) fn take(data_dir: &Path) -> Result<Lock> {
    let path = data_dir.join(FILE);
    let attempt = || format!("lock {}", path.display());
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = file.with_context(attempt)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).with_context(attempt)?;
            bail!("{} is in use by process {}", path.display(), pid.trim());
        }
        Err(error) => return Err(error).with_context(attempt),
    }
    file.set_len(0).with_context(attempt)?;
    file.rewind().with_context(attempt)?;
    writeln!(file, "{}", std::process::id()).with_context(attempt)?;
    Ok(Lock { _file: file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let first = take(directory.path()).unwrap();
        let error = take(directory.path()).err().unwrap().to_string();
        let why = format!("is in use by process {}", std::process::id());
        assert!(error.ends_with(&why), "{error}");
        drop(first);
        take(directory.path()).unwrap();
    }
}
