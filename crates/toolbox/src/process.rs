//! Signals, and the tools that are only about words and waiting.

use crate::{Attempt, Failure, Outcome};
use std::{
    io::Write,
    time::{Duration, Instant},
};

/// The first process of a pid namespace ignores signals it has no handler for: without one, stopping
/// a container would always take its whole grace period. The server ends with 0, as it was told to;
/// others with 128 + the signal, as if they had been killed.
pub(crate) fn set_up_signals(is_server: bool) {
    let handler = if is_server { end_well } else { end_as_killed } as extern "C" fn(libc::c_int);
    // SAFETY: getpid cannot fail. The handlers only call _exit, which is async-signal-safe, and
    // signal() is called before any thread exists.
    unsafe {
        if is_server || libc::getpid() == 1 {
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
                libc::signal(signal, handler as *const () as libc::sighandler_t);
            }
        }
        // Rust ignores SIGPIPE; a tool whose reader is gone should end, as everywhere.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

extern "C" fn end_well(_signal: libc::c_int) {
    // SAFETY: async-signal-safe.
    unsafe { libc::_exit(0) }
}

extern "C" fn end_as_killed(signal: libc::c_int) {
    // SAFETY: async-signal-safe.
    unsafe { libc::_exit(128 + signal) }
}

pub(crate) fn echo(words: &[String]) -> Outcome {
    let (words, end) = match words {
        [first, rest @ ..] if first == "-n" => (rest, ""),
        words => (words, "\n"),
    };
    std::io::stdout()
        .write_all(format!("{}{end}", words.join(" ")).as_bytes())
        .attempt(|| "write to standard output".to_owned())
}

pub(crate) fn hostname(_words: &[String]) -> Outcome {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .attempt(|| "read /proc/sys/kernel/hostname".to_owned())?;
    println!("{}", name.trim_end());
    Ok(())
}

pub(crate) fn sleep(words: &[String]) -> Outcome {
    let [duration] = words else { return Err(Failure::Usage) };
    let until = match duration.as_str() {
        "infinity" => None,
        text => {
            let seconds: f64 = text.parse().map_err(|_| Failure::Usage)?;
            let duration = Duration::try_from_secs_f64(seconds).map_err(|_| Failure::Usage)?;
            Instant::now().checked_add(duration)
        }
    };
    loop {
        match until {
            None => std::thread::park(),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(());
                }
                std::thread::park_timeout(left);
            }
        }
    }
}
