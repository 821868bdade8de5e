//! Variables from a file in a volume: `NAME='value'`, a line each; a value may go on over lines.
//!
//! The file may have been written by a container, so it is opened beneath the volume and nowhere else.
//! Upstream: `pkg/kubelet/util/env/env_util.go`, `kubelet_pods.go` (makeEnvironmentVariables), 1.36.

use api::core::v1::{Container, FileKeySelector};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use std::{collections::BTreeMap, io::Read, path::Path};
use volumes::Published;

/// Larger than any environment that the kernel takes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Name of a variable → what its file says; `None`: it is optional, and not there.
pub type Files = BTreeMap<String, Option<String>>;

/// Reads what the container's variables name. Blocks.
pub fn read(container: &Container, volumes: &BTreeMap<String, Published>) -> Result<Files, String> {
    let mut files = Files::new();
    for variable in container.env.iter().flatten() {
        let source = variable.value_from.as_ref().and_then(|it| it.file_key_ref.as_ref());
        if let Some(source) = source {
            files.insert(variable.name.clone(), value(source, volumes)?);
        }
    }
    Ok(files)
}

fn value(
    source: &FileKeySelector,
    volumes: &BTreeMap<String, Published>,
) -> Result<Option<String>, String> {
    let name = &source.volume_name;
    let published = volumes.get(name);
    let published = published
        .ok_or_else(|| format!("cannot find the volume {name:?} referenced by FileKeyRef"))?;
    let path = published.host_path.join(&source.path);
    let text = open(&published.host_path, &source.path).map_err(|error| {
        tracing::warn!(file = %path.display(), %error, "read variables");
        // Not the cause: it could tell about the host's files.
        "couldn't parse env file".to_owned()
    })?;
    let found = parse(&text, &source.key).map_err(|why| {
        tracing::warn!(file = %path.display(), why, "read variables");
        "couldn't parse env file".to_owned()
    })?;
    match found.filter(|it| !it.is_empty()) {
        Some(value) => Ok(Some(value)),
        None if source.optional == Some(true) => Ok(None),
        None => Err(format!(
            "environment variable key {:?} not found in file {:?}",
            source.key,
            path.display().to_string()
        )),
    }
}

fn open(volume: &Path, path: &str) -> std::io::Result<String> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let volume = rustix::fs::openat(CWD, volume, directory, Mode::empty())?;
    // A pipe in its place must not hold us up.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(&volume, path, flags, Mode::empty(), resolve)?;
    let file = std::fs::File::from(file);
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is no file"));
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// The value of `key`, if the text has one. Only what stands before it has to be well-formed.
fn parse(text: &str, key: &str) -> Result<Option<String>, String> {
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let wrong = |at: usize, what: &str| {
            Err(format!("invalid environment variable format at line {}: {what}", at + 1))
        };
        let line = line.trim_start_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, rest)) = line.split_once('=') else { return wrong(at, "missing '='") };
        let trimmed = name.trim_end_matches([' ', '\t']);
        if trimmed.is_empty() {
            return wrong(at, "empty variable name");
        }
        if trimmed != name {
            return wrong(at, "whitespace before '=' is not allowed");
        }
        if rest.starts_with([' ', '\t']) {
            // As a shell reads it: nothing.
            if name == key {
                return Ok(None);
            }
            continue;
        }
        let Some(rest) = rest.strip_prefix('\'') else {
            return wrong(at, "value must be enclosed in single quotes");
        };
        let (mut value, mut rest) = (String::new(), rest);
        loop {
            if let Some((last, after)) = rest.split_once('\'') {
                value.push_str(last);
                let after = after.trim_start_matches([' ', '\t']);
                if !after.is_empty() && !after.starts_with('#') {
                    return wrong(at, "unexpected content after closing quote");
                }
                break;
            }
            value.push_str(rest);
            value.push('\n');
            match lines.next() {
                Some((_, next)) => rest = next,
                None => return wrong(at, "unclosed single quote"),
            }
        }
        if name == key {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_value_as_it_is_quoted() {
        let text = "# all\n\n A='1' # one\nB='two\nlines'\nC= 'nothing'\nD='4'\nE\n";
        let of = |key| parse(text, key);
        assert_eq!(of("A"), Ok(Some("1".to_owned())));
        assert_eq!(of("B"), Ok(Some("two\nlines".to_owned())));
        assert_eq!(of("C"), Ok(None));
        assert_eq!(of("D"), Ok(Some("4".to_owned())));
        let missing = "invalid environment variable format at line 8: missing '='";
        assert_eq!(of("F"), Err(missing.to_owned()));
        assert!(parse("A=1", "A").unwrap_err().ends_with("must be enclosed in single quotes"));
        assert!(
            parse("A ='1'", "A").unwrap_err().ends_with("whitespace before '=' is not allowed")
        );
        assert!(parse("A='1' x", "A").unwrap_err().contains("unexpected content"));
    }

    #[test]
    fn looks_for_the_file_in_its_volume_and_nowhere_else() {
        let directory = tempfile::tempdir().unwrap();
        let volume = directory.path().join("volume");
        std::fs::create_dir(&volume).unwrap();
        std::fs::write(volume.join("env"), "A='1'").unwrap();
        std::fs::write(directory.path().join("secret"), "A='2'").unwrap();
        std::os::unix::fs::symlink("../secret", volume.join("link")).unwrap();
        assert_eq!(open(&volume, "env").unwrap(), "A='1'");
        assert!(open(&volume, "link").is_err() && open(&volume, "../secret").is_err());
        assert!(open(&volume, ".").is_err(), "a directory");
    }
}
