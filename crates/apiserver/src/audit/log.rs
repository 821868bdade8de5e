//! The file of audit events: one JSON object a line, rotated when it is full.

use serde_json::Value;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

/// Upstream rotates when told so; a log that nobody watches must not fill a disk.
const BYTES_MAX: u64 = 100 * 1024 * 1024;
const KEPT: usize = 10;

#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
}

impl Log {
    pub(super) fn open(path: &Path) -> io::Result<Log> {
        Ok(Log { path: path.to_owned(), open: Mutex::new(open(path)?) })
    }

    /// Writes one event. A log that cannot be written is told in the server's own; requests go on.
    pub(super) fn append(&self, event: &Value) {
        let mut line = event.to_string();
        line.push('\n');
        let mut log = self.open.lock().expect("no panic while held");
        if let Err(error) = self.write(&mut log, line.as_bytes()) {
            tracing::error!("writing the audit log {}: {error}", self.path.display());
        }
    }

    fn write(&self, log: &mut Open, line: &[u8]) -> io::Result<()> {
        if log.bytes > 0 && log.bytes + line.len() as u64 > BYTES_MAX {
            for n in (1..KEPT).rev() {
                match fs::rename(self.older(n), self.older(n + 1)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
            fs::rename(&self.path, self.older(1))?;
            *log = open(&self.path)?;
        }
        log.file.write_all(line)?;
        log.bytes += line.len() as u64;
        Ok(())
    }

    fn older(&self, n: usize) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{n}"));
        name.into()
    }
}

fn open(path: &Path) -> io::Result<Open> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    Ok(Open { file, bytes })
}
