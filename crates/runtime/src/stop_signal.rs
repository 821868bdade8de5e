//! Signals by the names that images and the interface use.

use rpc::cri::Signal;

pub(crate) const DEFAULT: i32 = libc::SIGTERM;

const NAMES: [(&str, i32); 31] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// The first and last real-time signals that a program may use.
const REALTIME: (i32, i32) = (34, 64);

/// `SIGQUIT`, `QUIT`, `3`, `SIGRTMIN+3`, `RTMAX-1`.
pub(crate) fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=REALTIME.1).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let realtime = |from: i32, rest: &str| {
        let offset = if rest.is_empty() { 0 } else { rest.parse::<i32>().ok()? };
        Some(from + offset).filter(|number| (REALTIME.0..=REALTIME.1).contains(number))
    };
    match name {
        "CLD" => Some(libc::SIGCHLD),
        "IOT" => Some(libc::SIGABRT),
        "POLL" => Some(libc::SIGIO),
        _ => match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
            (Some(rest), _) => realtime(REALTIME.0, rest),
            (_, Some(rest)) => realtime(REALTIME.1, rest),
            (None, None) => {
                NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
            }
        },
    }
}

/// The interface's own numbering.
pub(crate) fn of_interface(signal: i32) -> Option<i32> {
    let name = Signal::try_from(signal).ok()?.as_str_name();
    parse(&name.replace("PLUS", "+").replace("MINUS", "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_gives_the_kernels_number() {
        for (text, number) in
            [("SIGQUIT", 3), ("quit", 3), ("3", 3), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("IOT", 6)]
        {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for text in ["", "SIGFLY", "0", "65", "RTMIN+99"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_interface_names_all_of_its_signals() {
        assert_eq!(of_interface(Signal::Sigquit as i32), Some(libc::SIGQUIT));
        assert_eq!(of_interface(Signal::Sigrtminplus3 as i32), Some(37));
        assert_eq!(of_interface(Signal::RuntimeDefault as i32), None);
        assert!((1..=Signal::Sigrtmax as i32).all(|signal| of_interface(signal).is_some()));
    }
}
