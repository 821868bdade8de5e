//! Logs of containers are cut before they fill the disk: the running one is put aside and begun anew, those put
//! aside are compressed, and the oldest go.
//!
//! Upstream: `pkg/kubelet/logs/container_log_manager.go` (1.36).

use crate::{kubelet::Shared, runtime::State};
use rustix::fs::{CWD, RenameFlags};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};
use stdx::Timestamp;

/// How much of a container's log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// A larger log is rotated.
    pub bytes_max: u64,
    /// The current one counts.
    pub files_max: usize,
}

impl Default for LogLimits {
    /// Upstream: `containerLogMaxSize` 10Mi, `containerLogMaxFiles` 5.
    fn default() -> LogLimits {
        LogLimits { bytes_max: 10 << 20, files_max: 5 }
    }
}

/// Rotates every log that has grown too large.
pub(super) async fn rotate(shared: &Shared, limits: LogLimits) {
    let directory = shared.facts.log_dir.clone();
    let found = tokio::task::spawn_blocking(move || too_large(&directory, limits.bytes_max)).await;
    for (uid, log) in found.unwrap_or_default() {
        if let Err(error) = rotate_one(shared, limits, &uid, &log).await {
            tracing::warn!(log = %log.display(), %error, "rotate a container's log");
        }
    }
}

/// Pod uid and log, from `<namespace>_<name>_<uid>/<container>/<n>.log`.
fn too_large(directory: &Path, bytes_max: u64) -> Vec<(String, PathBuf)> {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    let mut found = Vec::new();
    for pod in entries(directory) {
        let name = pod.file_name().to_string_lossy().into_owned();
        let Some((_, uid)) = name.rsplit_once('_') else { continue };
        for container in entries(&pod.path()) {
            for log in entries(&container.path()) {
                let is_log = log.path().extension().is_some_and(|it| it == "log");
                if is_log && log.metadata().is_ok_and(|it| it.len() > bytes_max) {
                    found.push((uid.to_owned(), log.path()));
                }
            }
        }
    }
    found
}

async fn rotate_one(
    shared: &Shared,
    limits: LogLimits,
    uid: &str,
    log: &Path,
) -> Result<(), String> {
    let observed = shared.runtime.observe(uid).await.map_err(|error| error.to_string())?;
    let writes = |it: &&crate::runtime::Container| {
        it.state == State::Running && Path::new(&it.log_path) == log
    };
    // What nobody writes to any more grows no further.
    let Some(container) = observed.containers.iter().find(writes) else { return Ok(()) };
    let (path, now) = (log.to_owned(), shared.clock.now());
    let aside = tokio::task::spawn_blocking(move || put_aside(&path, limits.files_max, now)).await;
    let aside = aside.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    if let Err(error) = shared.runtime.reopen_log(&container.id).await {
        // The container goes on with the file that it has: it keeps its name.
        let back = put_back(&aside, log);
        return Err(format!(
            "{error}{}",
            back.err().map_or_else(String::new, |it| format!("; {it}"))
        ));
    }
    Ok(())
}

/// Gives a log its name again, unless a new one has it: then the runtime answered after it had opened that.
fn put_back(aside: &Path, log: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, aside, CWD, log, RenameFlags::NOREPLACE) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes room among the old logs and gives the current one a name among them.
fn put_aside(log: &Path, files_max: usize, now: Timestamp) -> io::Result<PathBuf> {
    let mut old = rotated(log)?;
    // The current one will be one of them, and a new one is begun.
    let kept = files_max.saturating_sub(2);
    let surplus = old.len().saturating_sub(kept);
    for gone in old.drain(..surplus) {
        fs::remove_file(gone)?;
    }
    for plain in old.iter().filter(|it| it.extension().is_none_or(|it| it != "gz")) {
        compress(plain)?;
    }
    // `2026-11-21T10:12:50.123456Z` as `20261121-101250`
    let digits: String = now.rfc3339().chars().filter(char::is_ascii_digit).take(14).collect();
    let (day, time) = digits.split_at(digits.len().min(8));
    let aside = PathBuf::from(format!("{}.{day}-{time}", log.display()));
    fs::rename(log, &aside)?;
    Ok(aside)
}

/// The old ones of a log, the oldest first; what a crash left half-compressed is removed.
fn rotated(log: &Path) -> io::Result<Vec<PathBuf>> {
    let prefix = format!("{}.", log.file_name().unwrap_or_default().to_string_lossy());
    let mut found = Vec::new();
    for entry in fs::read_dir(log.parent().unwrap_or(Path::new("/")))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match name.strip_prefix(&prefix) {
            Some(rest) if rest.ends_with(".tmp") => fs::remove_file(&path)?,
            Some(_) => found.push(path),
            None => {}
        }
    }
    found.sort();
    Ok(found)
}

fn compress(log: &Path) -> io::Result<()> {
    let partial = PathBuf::from(format!("{}.tmp", log.display()));
    let mut encoder =
        flate2::write::GzEncoder::new(File::create(&partial)?, flate2::Compression::default());
    io::copy(&mut File::open(log)?, &mut encoder)?;
    encoder.finish()?.set_permissions(fs::metadata(log)?.permissions())?;
    fs::rename(&partial, format!("{}.gz", log.display()))?;
    fs::remove_file(log)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_newest_old_log_stays_plain_and_the_oldest_go() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("0.log");
        let at = Timestamp::parse("2026-11-21T10:12:50Z").unwrap();
        fs::write(directory.path().join("0.log.20261121-000000.tmp"), "half").unwrap();
        for n in 0..6u64 {
            fs::write(&log, format!("{n}")).unwrap();
            put_aside(&log, 4, at.plus(std::time::Duration::from_secs(n))).unwrap();
        }
        let names = rotated(&log).unwrap();
        let names: Vec<String> =
            names.iter().map(|it| it.file_name().unwrap().to_string_lossy().into_owned()).collect();
        assert_eq!(
            names,
            ["0.log.20261121-101253.gz", "0.log.20261121-101254.gz", "0.log.20261121-101255"]
        );
        let mut text = String::new();
        let packed = File::open(directory.path().join(&names[1])).unwrap();
        flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
        assert_eq!(text, "4");
    }

    /// A runtime that opened the new log and then failed to say so lost what was in it.
    #[test]
    fn a_log_that_is_put_back_replaces_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (log, aside) = (directory.path().join("0.log"), directory.path().join("0.log.1"));
        fs::write(&aside, "old").unwrap();
        put_back(&aside, &log).unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "old");
        fs::write(&aside, "older").unwrap();
        put_back(&aside, &log).unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "old");
        assert!(aside.exists());
    }

    #[test]
    fn only_logs_that_are_too_large_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let container = directory.path().join("default_web-0_uid-1").join("main");
        fs::create_dir_all(&container).unwrap();
        fs::write(container.join("0.log"), "12345").unwrap();
        fs::write(container.join("1.log"), "123").unwrap();
        fs::write(container.join("0.log.20261121-101253"), "1234567").unwrap();
        let found = too_large(directory.path(), 4);
        assert_eq!(found, [("uid-1".to_owned(), container.join("0.log"))]);
    }
}
