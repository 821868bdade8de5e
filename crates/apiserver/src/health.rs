//! Is it alive, is it ready, and what is it not ready for: `/livez`, `/readyz`, `/healthz`.
//!
//! Upstream: `apiserver/pkg/server/healthz/healthz.go`.

use crate::{
    answer::{self, Answer},
    server::Server,
    target::Query,
};
use http::StatusCode;
use std::{fmt::Write, sync::RwLock};

type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Checks by name, in the order in which they were added.
#[derive(Default)]
pub(crate) struct Health {
    ready: RwLock<Vec<(String, Check)>>,
}

impl Server {
    /// `/readyz` fails, by this name, for as long as `check` does.
    pub fn ready_check(
        &self,
        name: &str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        let mut ready = self.health.ready.write().expect("no panic while held");
        ready.push((name.to_owned(), Box::new(check)));
    }

    /// Whether every check holds; the name of the first that does not.
    pub fn is_ready(&self) -> Result<(), String> {
        let ready = self.health.ready.read().expect("no panic while held");
        ready.iter().try_for_each(|(name, check)| check().map_err(|why| format!("{name}: {why}")))
    }

    fn followed(&self) -> Result<(), String> {
        match self.ledger.has_ended() {
            true => Err("the ledger is not followed any more".to_owned()),
            false => Ok(()),
        }
    }

    /// Answers `/readyz`, `/readyz/<check>` and so on; `None` for any other path.
    pub(crate) fn health(&self, path: &str, query: &Query) -> Option<Answer> {
        let (root, only) = match path.trim_matches('/').split_once('/') {
            Some((root, check)) => (root, Some(check)),
            None => (path.trim_matches('/'), None),
        };
        let ready = match root {
            "livez" => false,
            "readyz" | "healthz" => true,
            _ => return None,
        };
        let guard = self.health.ready.read().expect("no panic while held");
        let mut checks: Vec<(&str, Result<(), String>)> =
            vec![("ping", Ok(())), ("ledger", self.followed())];
        if ready {
            checks.extend(guard.iter().map(|(name, check)| (name.as_str(), check())));
        }
        match only {
            None => Some(all(root, &checks, query)),
            Some(only) => {
                let (_, result) = checks.into_iter().find(|(name, _)| *name == only)?;
                Some(match result {
                    Ok(()) => answer::text(StatusCode::OK, "ok"),
                    Err(why) => {
                        let why = format!("internal server error: {why}\n");
                        answer::text(StatusCode::INTERNAL_SERVER_ERROR, why)
                    }
                })
            }
        }
    }
}

fn all(root: &str, checks: &[(&str, Result<(), String>)], query: &Query) -> Answer {
    let excluded: Vec<&str> = query.all("exclude").flat_map(|it| it.split(',')).collect();
    let mut lines = String::new();
    let mut failed = false;
    for (name, result) in checks {
        // Reasons are for the log: this page is open to everyone.
        let _written = match result {
            _ if excluded.contains(name) => writeln!(lines, "[+]{name} excluded: ok"),
            Ok(()) => writeln!(lines, "[+]{name} ok"),
            Err(why) => {
                tracing::debug!("{root} check {name} failed: {why}");
                failed = true;
                writeln!(lines, "[-]{name} failed: reason withheld")
            }
        };
    }
    if failed {
        let text = format!("{lines}{root} check failed\n");
        return answer::text(StatusCode::INTERNAL_SERVER_ERROR, text);
    }
    match query.has("verbose") {
        true => answer::text(StatusCode::OK, format!("{lines}{root} check passed\n")),
        false => answer::text(StatusCode::OK, "ok"),
    }
}
