//! Container logs in CRI's format: `2026-11-21T10:12:50.123456789Z stdout F text`.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

/// One line as the runtime wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// RFC 3339, nanoseconds.
    pub(crate) time: &'a [u8],
    pub(crate) stream: &'a [u8],
    /// Not the end of what the container wrote as one line.
    pub(crate) partial: bool,
    pub(crate) text: &'a [u8],
}

/// Reads one line, without its line end.
pub(crate) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut words = line.splitn(4, |byte| *byte == b' ');
    let (time, stream, tags) = (words.next()?, words.next()?, words.next()?);
    let partial = tags.split(|byte| *byte == b':').next() == Some(b"P");
    Some(Line { time, stream, partial, text: words.next().unwrap_or_default() })
}

/// The last lines of a log as plain text: at most `lines`, and at most `bytes` of them.
pub(crate) fn tail_text(path: &Path, lines: usize, bytes: usize) -> String {
    /// Times and tags come on top of the text: a few times as much is read.
    const OVERHEAD: u64 = 16;
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes as u64 * OVERHEAD)))?;
        let mut all = Vec::new();
        file.read_to_end(&mut all)?;
        Ok(all)
    };
    let all = match read() {
        Ok(all) => all,
        Err(error) => return format!("Error on reading termination message from logs: {error}"),
    };
    let parsed: Vec<Line<'_>> = all.split(|byte| *byte == b'\n').filter_map(parse).collect();
    let from = parsed.len().saturating_sub(lines);
    let mut text = Vec::new();
    for line in &parsed[from..] {
        text.extend_from_slice(line.text);
        if !line.partial {
            text.push(b'\n');
        }
    }
    let from = text.len().saturating_sub(bytes);
    String::from_utf8_lossy(&text[from..]).into_owned()
}
