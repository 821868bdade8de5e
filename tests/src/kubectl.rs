//! kubectl as people call it: a program with words, and what it says.

use crate::until;
use serde_json::Value;
use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

/// kubectl with a home and a kubeconfig of its own, on this machine or in one of its hosts.
#[derive(Clone, Debug)]
pub struct Kubectl {
    /// The words that lead there: none on this machine.
    pub(crate) enter: Vec<String>,
    pub(crate) home: PathBuf,
    pub(crate) kubeconfig: PathBuf,
}

/// What a program said.
#[derive(Clone, Debug)]
pub struct Said {
    pub ok: bool,
    pub out: String,
    pub errors: String,
}

impl Said {
    /// Runs a program to its end, with `input` on its standard input.
    pub(crate) fn of(command: &mut Command, input: &str) -> Said {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
        let mut pipe = child.stdin.take().expect("a pipe");
        // A program that does not read to the end of its input has said why.
        let _unread = pipe.write_all(input.as_bytes());
        drop(pipe);
        let output = child.wait_with_output().expect("the program ends");
        Said {
            ok: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Kubectl {
    /// `kubectl`, not run yet.
    pub fn kubectl_command(&self, words: &[&str]) -> Command {
        let mut all = self.enter.iter().map(String::as_str).chain(["kubectl"]);
        let mut command = Command::new(all.next().expect("a program"));
        command.args(all).args(words);
        command.env("HOME", &self.home).env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// Runs kubectl, whatever comes of it.
    pub fn try_kubectl(&self, words: &[&str]) -> Said {
        Said::of(&mut self.kubectl_command(words), "")
    }

    /// What kubectl prints.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn kubectl(&self, words: &[&str]) -> String {
        let said = self.try_kubectl(words);
        assert!(said.ok, "kubectl {}: {}{}", words.join(" "), said.out, said.errors);
        said.out
    }

    /// One object or a list.
    ///
    /// # Panics
    /// When kubectl fails.
    #[track_caller]
    pub fn json(&self, words: &[&str]) -> Value {
        let out = self.kubectl(&[words, &["-o", "json"]].concat());
        serde_json::from_str(&out).expect("kubectl prints JSON")
    }

    /// One object, or null when there is none, or when nobody answers just now.
    pub fn look(&self, words: &[&str]) -> Value {
        let said = self.try_kubectl(&[words, &["-o", "json", "--ignore-not-found"]].concat());
        serde_json::from_str(&said.out).unwrap_or_default()
    }

    /// `kubectl apply` of these documents.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn apply(&self, manifest: &str) -> String {
        let said = self.try_apply(manifest);
        assert!(said.ok, "kubectl apply: {}{}\n{manifest}", said.out, said.errors);
        said.out
    }

    pub fn try_apply(&self, manifest: &str) -> Said {
        Said::of(&mut self.kubectl_command(&["apply", "-f", "-"]), manifest)
    }

    /// Runs a program in a pod with `input`, and says what it printed.
    pub fn try_exec(&self, pod: &str, words: &[&str], input: &str) -> Said {
        let mut all = vec!["exec", "-i", pod, "--"];
        all.extend(words);
        Said::of(&mut self.kubectl_command(&all), input)
    }

    /// # Panics
    /// When the program fails.
    #[track_caller]
    pub fn exec(&self, pod: &str, words: &[&str], input: &str) -> String {
        let said = self.try_exec(pod, words, input);
        assert!(said.ok, "exec in {pod}: {}: {}{}", words.join(" "), said.out, said.errors);
        said.out
    }

    /// Waits until a JSON value, read with `kubectl get WORDS`, is as it should be.
    #[track_caller]
    pub fn wait_for<T>(
        &self,
        what: &str,
        words: &[&str],
        mut seen: impl FnMut(&Value) -> Option<T>,
    ) -> T {
        let words = [&["get"], words].concat();
        until(what, || {
            let value = self.look(&words);
            seen(&value).ok_or_else(|| format!("{value:#}"))
        })
    }

    /// Waits until a pod is Ready; gives the pod.
    #[track_caller]
    pub fn wait_ready(&self, pod: &str) -> Value {
        self.wait_for(&format!("pod {pod} is Ready"), &["pod", pod], |value| {
            is_ready(value).then(|| value.clone())
        })
    }

    /// Waits until there is no such object.
    #[track_caller]
    pub fn wait_gone(&self, words: &[&str]) {
        let all = [&["get"], words].concat();
        until(&format!("{} is gone", words.join("/")), || {
            let said =
                self.try_kubectl(&[&all[..], &["--ignore-not-found", "-o", "name"]].concat());
            if said.ok && said.out.is_empty() { Ok(()) } else { Err(said.out + &said.errors) }
        });
    }
}

/// Whether a pod's JSON says Ready, and is not about to go.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions.iter().any(|it| it["type"] == "Ready" && it["status"] == "True")
}
