//! A watch as the API gives it: every event, in the order of revisions, none left out.

use crate::Kubectl;
use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::mpsc::{Receiver, channel},
};

/// Follows a path of the API until it is dropped.
pub struct Watch {
    child: Child,
    events: Receiver<Value>,
    seen: Vec<Value>,
}

impl Kubectl {
    /// Every change below `path` (`/api/v1/namespaces/default/pods`) from now on.
    pub fn watch(&self, path: &str) -> Watch {
        let list: Value =
            serde_json::from_str(&self.kubectl(&["get", "--raw", path])).expect("a list");
        let revision = list["metadata"]["resourceVersion"].as_str().expect("a list has a revision");
        let raw = format!("{path}?watch=1&resourceVersion={revision}");
        let mut command = self.kubectl_command(&["get", "--raw", &raw]);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("kubectl");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let (sender, events) = channel();
        std::thread::spawn(move || {
            let parsed = lines.map_while(Result::ok).map_while(|it| serde_json::from_str(&it).ok());
            for event in parsed {
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Watch { child, events, seen: Vec::new() }
    }
}

impl Watch {
    /// Reads on until an event that fits has been seen; gives all events from the first one.
    ///
    /// # Panics
    /// When the stream ends or nothing fits in [`crate::PATIENCE`].
    #[track_caller]
    pub fn until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> &[Value] {
        while !self.seen.iter().any(&fits) {
            match self.events.recv_timeout(crate::PATIENCE) {
                Ok(event) => self.seen.push(event),
                Err(error) => panic!("watch for {what}: {error}; seen {:#?}", self.seen),
            }
        }
        &self.seen
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // One that ended by itself cannot be killed.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
