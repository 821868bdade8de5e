//! One container as the shim remembers it: its output, who is attached to it, and how it ended.

use crate::{
    log::{Lines, Log},
    pod::Caller,
    sys,
};
use shim::{
    protocol::{Cgroup, Exit, Started},
    wire::Wire,
};
use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

pub(crate) struct Container {
    pub(crate) directory: PathBuf,
    pub(crate) cgroup: Cgroup,
    pub(crate) oom_score_adjust: i32,
    /// Its first process ends all others when it ends.
    pub(crate) own_pid_namespace: bool,
    pub(crate) started: Started,
    pub(crate) exit: Option<Exit>,
    pub(crate) log: Log,
    pub(crate) outputs: Vec<Output>,
    /// The way to its stdin, or its terminal.
    pub(crate) input: Option<OwnedFd>,
    pub(crate) input_once: bool,
    pub(crate) terminal: bool,
    pub(crate) attached: Vec<Attached>,
    /// Those whose copy has ended before the output, by caller and number.
    pub(crate) cut: Vec<(Caller, u64)>,
}

/// One stream of output.
pub(crate) struct Output {
    pub(crate) source: OwnedFd,
    is_stderr: bool,
    lines: Lines,
}

/// A client that wants a copy of the output.
pub(crate) struct Attached {
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    pub(crate) caller: Caller,
    /// What the server calls it.
    pub(crate) number: u64,
}

impl Output {
    pub(crate) fn new(source: OwnedFd, is_stderr: bool) -> crate::Result<Output> {
        sys::set_nonblocking(&source)?;
        Ok(Output {
            source,
            is_stderr,
            lines: Lines::of(if is_stderr { "stderr" } else { "stdout" }),
        })
    }
}

/// What a pipe holds at most (1 MiB, unless raised by an administrator), in reads: more is not left behind by a
/// process that has ended.
const READS_AT_EXIT_MAX: usize = 64;

impl Container {
    /// Copies what is there. `false` when the stream has ended.
    pub(crate) fn pump(&mut self, index: usize) -> bool {
        let output = &mut self.outputs[index];
        let mut buffer = [0u8; 32 << 10];
        let now = sys::now();
        match sys::read(output.source.as_fd(), &mut buffer) {
            Ok(count @ 1..) => {
                output.lines.write(&buffer[..count], &mut self.log, now);
                let is_stderr = output.is_stderr;
                let cut = &mut self.cut;
                self.attached.retain_mut(|client| {
                    let keeps_up = client.copy(is_stderr, &buffer[..count]);
                    if !keeps_up {
                        cut.push((client.caller, client.number));
                    }
                    keeps_up && client.is_there()
                });
                true
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                true
            }
            // A terminal says EIO when its last user has gone.
            Ok(0) | Err(_) => {
                output.lines.finish(&mut self.log, now);
                false
            }
        }
    }

    /// Everything that the ended process has written is in the log before its exit is told.
    fn drain(&mut self) {
        for index in 0..self.outputs.len() {
            for _ in 0..READS_AT_EXIT_MAX {
                if !readable(self.outputs[index].source.as_fd()) || !self.pump(index) {
                    break;
                }
            }
        }
    }

    /// Its first process has ended with this status of wait(2).
    pub(crate) fn ended(&mut self, status: libc::c_int) {
        if !self.own_pid_namespace {
            self.kill_all();
        }
        self.drain();
        let signal = if libc::WIFSIGNALED(status) { libc::WTERMSIG(status) } else { 0 };
        let code = if signal == 0 { libc::WEXITSTATUS(status) } else { 128 + signal };
        self.record(Exit {
            code,
            signal,
            oom_killed: oom_kills(&self.cgroup.oom) > 0,
            started_at: self.started.started_at,
            finished_at: sys::now(),
            start_error: String::new(),
        });
    }

    /// It could not become its program.
    pub(crate) fn failed_to_start(&mut self, why: &str) {
        // What containerd and its users know as StartError.
        const START_ERROR: i32 = 128;
        let start_error = why.to_owned();
        self.record(Exit {
            code: START_ERROR,
            finished_at: sys::now(),
            start_error,
            ..Exit::default()
        });
    }

    /// Keeps the exit in a file, so that it is known even if nobody is there to be told and this process dies.
    fn record(&mut self, exit: Exit) {
        let _server_asks_us_then = replace_file(&self.directory, "exit", &exit.to_bytes());
        self.exit = Some(exit);
        self.input = None;
        self.attached.clear();
    }

    pub(crate) fn kill_all(&self) {
        // Each pass can miss what was forked meanwhile; a killed process forks no more.
        const PASSES_MAX: usize = 100;
        if !self.cgroup.kill.is_empty() && fs::write(&self.cgroup.kill, "1").is_ok() {
            return;
        }
        let Some(procs) = self.cgroup.procs.first() else { return };
        for _ in 0..PASSES_MAX {
            let living = fs::read_to_string(procs).unwrap_or_default();
            let mut found = false;
            for pid in living.lines().filter_map(|line| line.parse().ok()) {
                found |= sys::kill(pid, libc::SIGKILL).is_ok();
            }
            if !found {
                return;
            }
        }
    }

    pub(crate) fn signal_all(&self, signal: libc::c_int) {
        if signal == libc::SIGKILL {
            return self.kill_all();
        }
        let Some(procs) = self.cgroup.procs.first() else { return };
        for pid in fs::read_to_string(procs)
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.parse().ok())
        {
            let _gone_already = sys::kill(pid, signal);
        }
    }
}

impl Attached {
    /// `false` when the client is too slow: it must not hold up the container.
    fn copy(&mut self, is_stderr: bool, output: &[u8]) -> bool {
        let end = if is_stderr { &mut self.stderr } else { &mut self.stdout };
        let Some(to) = end else { return true };
        match sys::write(to.as_fd(), output) {
            Ok(written) => written == output.len(),
            // Nobody reads this one, or not any more.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                *end = None;
                true
            }
            Err(_) => false,
        }
    }

    fn is_there(&self) -> bool {
        self.stdout.is_some() || self.stderr.is_some()
    }
}

fn readable(descriptor: BorrowedFd<'_>) -> bool {
    use std::os::fd::AsRawFd;
    let mut wanted = libc::pollfd { fd: descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one initialised pollfd.
    unsafe { libc::poll(&raw mut wanted, 1, 0) > 0 }
}

/// The number behind `oom_kill` in memory.oom_control (v1) or memory.events (v2).
fn oom_kills(path: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

pub(crate) fn replace_file(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = directory.join(format!(".{name}"));
    fs::write(&unfinished, bytes)?;
    fs::rename(&unfinished, directory.join(name))
}
