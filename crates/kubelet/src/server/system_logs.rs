//! What the machine's own programs write to `/var/log`: files as they are, directories as lists of links.
//!
//! Upstream: `pkg/kubelet/server/server.go`, logsPath, which is Go's file server. Deviation: a symbolic link is followed
//! only to what lies in that directory too, and nothing but files and directories is opened.

use super::answer::{Answer, stream, text, whole};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Component, Path, PathBuf},
};
use tokio::sync::mpsc;

const DIRECTORY: &str = "/var/log";
/// Read and sent at a time.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces on their way to a slow reader.
const PIECES: usize = 4;
/// Names of one list.
const NAMES_MAX: usize = 10_000;
/// Linux: a pipe that somebody puts there meanwhile holds nobody up.
const NON_BLOCK: i32 = 0o4000;

enum Found {
    /// Names, those of directories with a slash behind them.
    Directory(Vec<String>),
    File(File),
    Nothing,
}

/// `path`: what follows `/logs/`, decoded.
pub(super) async fn answer(path: &str) -> Answer {
    let (asked, is_list) = (path.to_owned(), path.is_empty() || path.ends_with('/'));
    let looked = move || find(Path::new(DIRECTORY), &asked);
    match tokio::task::spawn_blocking(looked).await {
        Ok(Ok(Found::Directory(names))) if is_list => list(&names),
        Ok(Ok(Found::Directory(_))) => {
            // Links of a list are taken from where its name ends.
            let mut moved = text(StatusCode::MOVED_PERMANENTLY, "");
            let name = path.rsplit('/').next().unwrap_or_default();
            if let Ok(to) = HeaderValue::try_from(format!("{}/", encoded(name))) {
                moved.headers_mut().insert(header::LOCATION, to);
            }
            moved
        }
        Ok(Ok(Found::File(file))) => send(file),
        Ok(Ok(Found::Nothing)) => text(StatusCode::NOT_FOUND, "404 page not found"),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            text(StatusCode::NOT_FOUND, "404 page not found")
        }
        Ok(Err(error)) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("read {path}: {error}")),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn find(root: &Path, path: &str) -> io::Result<Found> {
    let relative = PathBuf::from(path);
    let is_plain = |it: Component<'_>| matches!(it, Component::Normal(_) | Component::CurDir);
    if !relative.components().all(is_plain) {
        return Ok(Found::Nothing);
    }
    let root = root.canonicalize()?;
    let real = root.join(relative).canonicalize()?;
    if !real.starts_with(&root) {
        return Ok(Found::Nothing);
    }
    let file = fs::OpenOptions::new().read(true).custom_flags(NON_BLOCK).open(&real)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(Found::File(file));
    }
    if !kind.is_dir() {
        return Ok(Found::Nothing);
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&real)?.take(NAMES_MAX) {
        let entry = entry?;
        let mut name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            name.push('/');
        }
        names.push(name);
    }
    names.sort();
    Ok(Found::Directory(names))
}

fn list(names: &[String]) -> Answer {
    let plain = |it: &str| it.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let line = |it: &String| format!("<a href=\"{}\">{}</a>\n", encoded(it), plain(it));
    let lines: String = names.iter().map(line).collect();
    whole(StatusCode::OK, "text/html; charset=utf-8", format!("<pre>\n{lines}</pre>\n"))
}

/// As part of a link.
fn encoded(name: &str) -> String {
    let fits = |it: u8| it.is_ascii_alphanumeric() || b"-_.~/".contains(&it);
    let one = |it: u8| if fits(it) { char::from(it).to_string() } else { format!("%{it:02X}") };
    // A colon in the first part would name a scheme.
    name.bytes().map(one).collect()
}

fn send(mut file: File) -> Answer {
    let (pieces, read) = mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let length = match file.read(&mut piece) {
                Ok(0) => return,
                Ok(length) => length,
                Err(error) => return tracing::warn!(%error, "read a file of {DIRECTORY}"),
            };
            piece.truncate(length);
            if pieces.blocking_send(Bytes::from(piece)).is_err() {
                return;
            }
        }
    });
    stream(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_lies_there_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let (root, outside) = (directory.path().join("log"), directory.path().join("secret"));
        fs::create_dir_all(root.join("pods")).unwrap();
        fs::write(&outside, "no").unwrap();
        fs::write(root.join("a log"), "yes").unwrap();
        std::os::unix::fs::symlink(&outside, root.join("out")).unwrap();
        std::os::unix::fs::symlink("a log", root.join("in")).unwrap();
        let read = |path: &str| match find(&root, path) {
            Ok(Found::File(mut file)) => {
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                text
            }
            Ok(Found::Directory(names)) => names.join(" "),
            Ok(Found::Nothing) | Err(_) => "nothing".to_owned(),
        };
        assert_eq!(read(""), "a log in out pods/");
        assert_eq!((read("a log"), read("in")), ("yes".to_owned(), "yes".to_owned()));
        for path in ["out", "../secret", "pods/../../secret", "/etc/passwd", "none"] {
            assert_eq!(read(path), "nothing", "{path}");
        }
        assert_eq!(encoded("a b:c/"), "a%20b%3Ac/");
    }
}
