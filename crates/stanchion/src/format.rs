//! Which version of its layout a data dir has: a program that would misread it says so and touches nothing.

use crate::pki::write_private;
use anyhow::{Context, Result, bail};
use std::{fs, io, path::Path};

const FILE: &str = "format";

/// Raised with every change of the layout that an older program would misread, with a step in [`migrate`].
const VERSION: u32 = 1;

/// Fails where a newer program was at work.
pub(crate) fn check(data_dir: &Path) -> Result<()> {
    found(data_dir).map(drop)
}

/// Brings an older data dir to this version, and marks a new one.
pub(crate) fn migrate(data_dir: &Path) -> Result<()> {
    match found(data_dir)? {
        VERSION => Ok(()),
        // Version 1 brought this file, and nothing else.
        _ => write_private(&data_dir.join(FILE), &format!("{VERSION}\n")),
    }
}

/// Zero: none was written, because the data dir is new or older than this file.
fn found(data_dir: &Path) -> Result<u32> {
    let path = data_dir.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let version: u32 = text.trim().parse().with_context(|| format!("read {}", path.display()))?;
    if version > VERSION {
        bail!(
            "open data dir {}: a newer program made it (format {version}, this one knows up to {VERSION}): use that one",
            data_dir.display()
        );
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_data_dir_is_taken_over_and_a_newer_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let said = |version: &str| {
            fs::write(dir.path().join(FILE), version).unwrap();
            migrate(dir.path()).map_err(|error| stdx::one_line(error.as_ref()))
        };
        migrate(dir.path()).unwrap();
        assert_eq!(found(dir.path()).unwrap(), VERSION, "a data dir without the file");
        assert_eq!(said("1\n"), Ok(()));
        let refused = said("2\n").unwrap_err();
        let end = "a newer program made it (format 2, this one knows up to 1): use that one";
        assert!(refused.ends_with(end), "{refused}");
        assert_eq!(fs::read_to_string(dir.path().join(FILE)).unwrap(), "2\n", "and left as it is");
        assert!(said("two").unwrap_err().starts_with("read "));
    }

    /// Images were imported by several programs at once into a data dir that had never been used: one took another's
    /// unfinished file, and the other found none to finish.
    #[test]
    fn many_may_begin_with_a_new_data_dir_at_once() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..16).map(|_| scope.spawn(|| migrate(dir.path()))).collect();
            for one in all {
                one.join().unwrap().unwrap();
            }
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left over");
    }
}
