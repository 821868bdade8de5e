//! Who keeps a mount busy: processes with a file, a working directory or a root below it, for an error that helps.

use super::table::{self, MountEntry};
use std::{
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// An error message of more names helps nobody.
const HOLDERS_MAX: usize = 16;
/// More processes than a node should run; the search is for an error message and must end.
const PROCESSES_MAX: usize = 32 * 1024;
/// The usual limit of open files; a process with more is named by its first ones or not at all.
const FILES_MAX: usize = 1024;

/// Mount points below `point`, and processes that use it (`pid 12 (nginx)`), as far as they can be seen.
pub(super) fn of(point: &Path) -> Vec<String> {
    let below = table::mounts_below(point).unwrap_or_default();
    let mut holders: Vec<String> = below
        .iter()
        .filter(|entry| entry.point != point)
        .map(|entry| format!("mount {}", entry.point.display()))
        .collect();
    holders.extend(processes().filter(|process| uses(process, point)).map(|p| describe(&p)));
    holders.truncate(HOLDERS_MAX);
    holders
}

/// Processes, of any mount namespace, that have a mount which `is` the one in question.
pub(crate) fn mounting(is: impl Fn(&MountEntry) -> bool) -> Vec<String> {
    let mut holders = Vec::new();
    for process in processes() {
        let table = fs::read(process.join("mountinfo")).unwrap_or_default();
        if let Some(entry) = table::parse(&table).into_iter().find(&is) {
            holders.push(format!("{} at {}", describe(&process), entry.point.display()));
            if holders.len() == HOLDERS_MAX {
                break;
            }
        }
    }
    holders
}

fn processes() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().as_bytes().iter().all(u8::is_ascii_digit))
        .map(|entry| entry.path())
        .take(PROCESSES_MAX)
}

fn uses(process: &Path, point: &Path) -> bool {
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten().take(FILES_MAX);
    let links = [process.join("cwd"), process.join("root")];
    links.into_iter().chain(files.map(|file| file.path())).any(|link| {
        // Only the text of the link is read: following it could block on a dead server.
        fs::read_link(link).is_ok_and(|target| target.starts_with(point))
    })
}

fn describe(process: &Path) -> String {
    let pid = process.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = fs::read(process.join("comm")).unwrap_or_default();
    format!("pid {} ({})", pid.unwrap_or_default(), String::from_utf8_lossy(&name).trim())
}
