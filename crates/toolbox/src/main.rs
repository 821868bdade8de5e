//! The program of the example image: a few tools in one static file, no shell.
//!
//! The first argument, or the name it is called by, chooses the tool. A static program must not ask
//! libc for names (it would load libraries of the image): users, hosts and DNS are read by ourselves.

mod df;
mod dns;
mod files;
mod get;
mod id;
mod lookup;
mod process;
mod serve;

use std::{ffi::OsString, io::Write, os::unix::ffi::OsStrExt, path::Path};

/// What a tool returns: nothing, or why it failed.
type Outcome = Result<(), Failure>;

struct Tool {
    name: &'static str,
    usage: &'static str,
    run: fn(&[String]) -> Outcome,
}

const TOOLS: &[Tool] = &[
    Tool { name: "cat", usage: "[FILE...]", run: files::cat },
    Tool { name: "df", usage: "[-h] [PATH...]", run: df::df },
    Tool { name: "echo", usage: "[-n] [WORD...]", run: process::echo },
    Tool { name: "false", usage: "", run: |_| Err(Failure::Silent(1)) },
    Tool { name: "fill", usage: "FILE BYTES[K|M|G]", run: files::fill },
    Tool { name: "get", usage: "[--timeout SECONDS] URL", run: get::get },
    Tool { name: "hostname", usage: "", run: process::hostname },
    Tool { name: "id", usage: "", run: id::id },
    Tool { name: "lookup", usage: "NAME [TYPE] [@SERVER[:PORT]]", run: lookup::lookup },
    Tool { name: "ls", usage: "[-l] [-a] [PATH...]", run: files::ls },
    Tool { name: "rm", usage: "[-r] [-f] PATH...", run: files::rm },
    Tool { name: "serve", usage: "DIR [--port 8080]", run: serve::serve },
    Tool { name: "sleep", usage: "SECONDS|infinity", run: process::sleep },
    Tool { name: "tee", usage: "[-a] [FILE...]", run: files::tee },
    Tool { name: "touch", usage: "FILE...", run: files::touch },
    Tool { name: "true", usage: "", run: |_| Ok(()) },
];

/// Why a tool ends with another exit code than 0.
#[derive(Debug)]
enum Failure {
    /// The arguments make no sense: exit code 2.
    Usage,
    /// What was attempted and why it failed, on one line: exit code 1.
    Because(String),
    Silent(i32),
}

/// Says what was attempted when it fails.
trait Attempt<T> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: std::fmt::Display> Attempt<T> for Result<T, E> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::Because(format!("{}: {error}", what())))
    }
}

fn main() {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    let called = words.first().cloned().unwrap_or_default();
    let called = Path::new(&called).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let tool = match find(&called) {
        Some(tool) => tool,
        None => {
            if words.len() > 1 {
                words.remove(0);
            }
            let named = words.first().map(|word| word.to_string_lossy().into_owned());
            named.as_deref().and_then(find).unwrap_or_else(|| help())
        }
    };
    process::set_up_signals(tool.name == "serve");
    let mut arguments = Vec::new();
    for word in words.iter().skip(1) {
        match std::str::from_utf8(word.as_bytes()) {
            Ok(word) => arguments.push(word.to_owned()),
            Err(_) => end(tool, Failure::Because("an argument is not UTF-8".to_owned())),
        }
    }
    let outcome = (tool.run)(&arguments);
    let flushed = std::io::stdout().flush();
    match outcome.and(flushed.attempt(|| "write to standard output".to_owned())) {
        Ok(()) => std::process::exit(0),
        Err(failure) => end(tool, failure),
    }
}

fn end(tool: &Tool, failure: Failure) -> ! {
    let code = match failure {
        Failure::Usage => {
            eprintln!("usage: {} {}", tool.name, tool.usage);
            2
        }
        Failure::Because(why) => {
            eprintln!("error: {}: {why}", tool.name);
            1
        }
        Failure::Silent(code) => code,
    };
    std::process::exit(code)
}

fn find(name: &str) -> Option<&'static Tool> {
    TOOLS.iter().find(|tool| tool.name == name)
}

fn help() -> ! {
    eprintln!("usage: toolbox TOOL [ARGUMENT...], one of:");
    for tool in TOOLS {
        eprintln!("  {} {}", tool.name, tool.usage);
    }
    std::process::exit(2)
}

/// Takes flags off the front of the arguments; `allowed` are single letters, such as `rf`.
fn flags<'a>(arguments: &'a [String], allowed: &str) -> Result<(String, &'a [String]), Failure> {
    let mut found = String::new();
    let mut rest = arguments;
    while let [first, others @ ..] = rest {
        let Some(letters) = first.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            break;
        };
        rest = others;
        if letters == "-" {
            break;
        }
        if !letters.chars().all(|letter| allowed.contains(letter)) {
            return Err(Failure::Usage);
        }
        found.push_str(letters);
    }
    Ok((found, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_has_each_tool_once() {
        assert!(TOOLS.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn flags_end_at_the_first_other_word() {
        let words = ["-r", "-f", "x", "-y"].map(str::to_owned);
        let (found, rest) = flags(&words, "rf").unwrap();
        assert_eq!((found.as_str(), rest), ("rf", &words[2..]));
        let dashes = ["--", "-y"].map(str::to_owned);
        assert_eq!(flags(&dashes, "").unwrap().1, &dashes[1..]);
        assert!(flags(&words[3..], "rf").is_err());
    }
}
