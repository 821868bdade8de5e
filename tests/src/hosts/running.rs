//! A program that runs on, and what it says.

use crate::{cluster::tail, until};
use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
};

/// Killed with the value.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
    log: PathBuf,
}

impl Running {
    /// Standard output is read line by line; standard error goes to the end of the log.
    pub(super) fn start(mut command: Command, log: &Path) -> Running {
        let file = File::options().create(true).append(true).open(log).expect("a log");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
        let output = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Running { child, lines, said: Vec::new(), log: log.to_owned() }
    }

    /// The first line on standard output that fits.
    ///
    /// # Panics
    /// When the program ends or nothing fits in [`crate::PATIENCE`].
    #[track_caller]
    pub fn line(&mut self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        loop {
            if let Some(line) = self.said.iter().find(|it| fits(it)) {
                return line.clone();
            }
            match self.lines.recv_timeout(until::PATIENCE) {
                Ok(line) => self.said.push(line),
                Err(error) => {
                    let tail = tail(&self.log, 30);
                    panic!("wait for {what}: {error}; said {:#?}; log:\n{tail}", self.said)
                }
            }
        }
    }

    /// The program's process: entering namespaces does not change it.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a program can be asked for")
    }

    /// SIGKILL: the program is gone before this returns.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        self.child.wait().expect("the program is gone");
    }

    /// SIGTERM: the program is gone before this returns.
    ///
    /// # Panics
    /// When it does not end well.
    #[track_caller]
    pub fn stop(&mut self) {
        let number = self.process().to_string();
        let killed = Command::new("kill").arg(&number).status().expect("kill");
        assert!(killed.success(), "SIGTERM to {number}");
        let code = self.child.wait().expect("the program ends");
        assert!(code.success(), "after SIGTERM: {code}\n{}", tail(&self.log, 30));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
