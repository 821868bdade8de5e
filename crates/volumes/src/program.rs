//! Programs of the node (mkfs, resize2fs …): run with a deadline, their last words in the error.

use crate::error::{Attempt, Attempted, Failure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::MemfdFlags,
    process::{Pid, PidfdFlags, Signal, pidfd_open},
};
use std::{
    fs::File,
    io::{ErrorKind, Read, Seek},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    sync::Once,
    time::{Duration, Instant},
};

/// What an error message quotes of a program's output.
const OUTPUT_BYTES_MAX: u64 = 2000;

/// A killed program is gone in a moment, unless the kernel holds it.
const KILLED_MAX: Duration = Duration::from_secs(2);

/// A program that ended, with the end code that only it can explain.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
}

/// Runs `name` from the PATH and waits for it, at most `deadline`; then it is killed. `package` is what to install if it
/// is missing. Blocks: only from threads that may.
pub(crate) fn run(
    name: &str,
    package: &str,
    arguments: &[&str],
    deadline: Duration,
) -> Attempt<Ended> {
    let line = || format!("{name} {}", arguments.join(" "));
    expect_children();
    // Output goes to memory, not to a pipe that could fill up and stop the program.
    let memory = rustix::fs::memfd_create("output", MemfdFlags::CLOEXEC).attempted(line)?;
    let mut output = File::from(memory);
    let mut command = Command::new(name);
    command
        .args(arguments)
        .stdin(Stdio::null())
        // Whatever it starts ends with it.
        .process_group(0)
        .stdout(output.try_clone().attempted(line)?)
        .stderr(output.try_clone().attempted(line)?)
        // Programs installed on a Debian that was logged into without sbin are found too.
        .env("PATH", search_path());
    let mut child = match command.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Failure::new(format!(
                "program {name} is not installed on this node: install the package {package}"
            )));
        }
        other => other.attempted(line)?,
    };
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let watch = pid
        .ok_or_else(|| Failure::new(line()))
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).attempted(line));
    let ended = match &watch {
        Ok(descriptor) => wait(descriptor, deadline).attempted(line),
        Err(_) => Ok(false),
    };
    if !matches!(ended, Ok(true)) {
        // Already gone is fine; anything else shows in the wait below.
        let _ = child.kill();
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
        let gone = watch.as_ref().is_ok_and(|it| matches!(wait(it, KILLED_MAX), Ok(true)));
        if !gone {
            // In the kernel, which waits for a server: whoever called does not.
            let waits = std::thread::Builder::new().name("stuck-program".to_owned());
            let _no_thread = waits.spawn(move || child.wait());
            return Err(Failure::new(format!(
                "{}: killed after {} s, and stuck in the kernel",
                line(),
                deadline.as_secs()
            )));
        }
    }
    let status = child.wait().attempted(line)?;
    watch?;
    if !ended? {
        return Err(Failure::new(format!("{}: killed after {} s", line(), deadline.as_secs())));
    }
    let mut text = Vec::new();
    output
        .rewind()
        .and_then(|()| output.take(OUTPUT_BYTES_MAX).read_to_end(&mut text))
        .attempted(line)?;
    let output = String::from_utf8_lossy(&text).trim().to_string();
    Ok(Ended { code: status.code(), output })
}

/// Who started this process may have had its children forgotten (SIGCHLD ignored, which is inherited): then nobody could
/// tell how a program ended, and what was mounted would be called a failure.
pub(crate) fn expect_children() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: an action of all zeroes is one with the default handler; both are valid for the calls, and a handler
        // that somebody installed stays.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(libc::SIGCHLD, std::ptr::null(), &raw mut action) == 0
                && action.sa_sigaction == libc::SIG_IGN
            {
                libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            }
        }
    });
}

/// As [`run`], for programs whose only good end is 0.
pub(crate) fn run_ok(
    name: &str,
    package: &str,
    arguments: &[&str],
    deadline: Duration,
) -> Attempt<()> {
    let ended = run(name, package, arguments, deadline)?;
    if ended.code == Some(0) { Ok(()) } else { Err(failed(name, arguments, &ended)) }
}

pub(crate) fn failed(name: &str, arguments: &[&str], ended: &Ended) -> Failure {
    let code = ended.code.map_or("killed".to_string(), |code| format!("exit code {code}"));
    let output = ended.output.replace('\n', " ");
    Failure::new(format!("{name} {}: {code}: {output}", arguments.join(" ")))
}

/// Whether a program of this name is installed.
pub(crate) fn exists(name: &str) -> bool {
    search_path().split(':').any(|it| std::path::Path::new(it).join(name).exists())
}

pub(crate) fn search_path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    format!("{own}:/usr/sbin:/sbin:/usr/bin:/bin")
}

/// False when the deadline passed first.
fn wait(process: &rustix::fd::OwnedFd, deadline: Duration) -> rustix::io::Result<bool> {
    let end = Instant::now() + deadline;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_failing_program_says_its_last_words() {
        let error = run_ok("sh", "dash", &["-c", "echo oops >&2; exit 3"], LONG).unwrap_err();
        assert_eq!(error.to_string(), "sh -c echo oops >&2; exit 3: exit code 3: oops");
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let error = run_ok("mkfs.no-such", "no-such-progs", &[], LONG).unwrap_err();
        assert!(error.to_string().contains("install the package no-such-progs"), "{error}");
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        let error = run_ok("sleep", "coreutils", &["1000"], Duration::from_millis(1)).unwrap_err();
        assert!(error.to_string().contains("killed after"), "{error}");
    }
}
