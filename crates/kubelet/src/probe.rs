//! Probes: what they ask is IO, what follows from the answers is a small state machine.
//!
//! Upstream: `pkg/kubelet/prober/worker.go`, `pkg/probe` (1.36). Deviation: the first check comes right after the start,
//! and while a first request is refused it is repeated with a short back-off until its period is over, then it counts as
//! one failure: a server that needs 20 ms to listen is ready after 20 ms, not after a period.

mod check;
mod check_grpc;
mod check_tls;
mod verdict;

use check::joined;
pub(crate) use check::{Check, NOT_TLS, Url, get};
pub(crate) use verdict::{Timing, Verdict};

use crate::runtime::Runtime;
use std::{sync::Arc, time::Duration};
use stdx::{Backoff, Clock, Timestamp};
use tokio::sync::mpsc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Startup,
    Readiness,
    Liveness,
}

impl Kind {
    /// As events begin: `Readiness probe failed: …`.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Readiness => "Readiness",
            Kind::Liveness => "Liveness",
        }
    }
}

/// What a probe tells its worker.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) container_id: String,
    pub(crate) container: String,
    pub(crate) kind: Kind,
    /// A threshold was reached.
    pub(crate) verdict: Option<bool>,
    /// One check failed, or said more than yes: worth an event.
    pub(crate) note: Option<Note>,
}

/// What is worth an event.
#[derive(Clone, Debug)]
pub(crate) enum Note {
    Failed(String),
    /// It could not be made.
    Errored(String),
    Warning(String),
}

/// A request that is refused is repeated after 10, 20, 40 … ms.
const AGAIN_FIRST: Duration = Duration::from_millis(10);
const AGAIN_MOST: Duration = Duration::from_millis(320);

pub(crate) struct Probe {
    pub(crate) container_id: String,
    pub(crate) container: String,
    pub(crate) kind: Kind,
    pub(crate) check: Check,
    pub(crate) timing: Timing,
    /// Of the container.
    pub(crate) started: Timestamp,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) reports: mpsc::Sender<Report>,
}

impl Probe {
    /// Asks until it is dropped, or until nothing more can follow.
    pub(crate) async fn run(self) {
        let wait = self.started.plus(self.timing.initial_delay).since(self.clock.now());
        if !wait.is_zero() {
            stdx::sleep(wait).await;
        }
        let mut verdict = Verdict::default();
        let mut first = true;
        loop {
            let begun = self.clock.now();
            let result = match first {
                true => self.first(begun).await,
                false => self.once().await,
            };
            first = false;
            let (reached, note) = match result {
                Ok(it) => (verdict.observe(true, &self.timing), it.warning.map(Note::Warning)),
                Err(it) if it.errored => (None, Some(Note::Errored(it.message))),
                Err(it) => (verdict.observe(false, &self.timing), Some(Note::Failed(it.message))),
            };
            let report = Report {
                container_id: self.container_id.clone(),
                container: self.container.clone(),
                kind: self.kind,
                verdict: reached,
                note,
            };
            let news = report.verdict.is_some() || report.note.is_some();
            if news && self.reports.send(report).await.is_err() {
                return;
            }
            let over = match self.kind {
                // Asked until it says either; then the container is started, or killed.
                Kind::Startup => reached.is_some(),
                Kind::Liveness => reached == Some(false),
                Kind::Readiness => false,
            };
            if over {
                return;
            }
            let spent = self.clock.now().since(begun);
            stdx::sleep(self.timing.period.saturating_sub(spent)).await;
        }
    }

    /// The first check: refused requests are repeated within its period.
    async fn first(&self, begun: Timestamp) -> Result<check::Healthy, check::Unhealthy> {
        let mut backoff = Backoff::new(AGAIN_FIRST, AGAIN_MOST);
        loop {
            let result = self.once().await;
            let again = matches!(&result, Err(it) if it.soon);
            let wait = backoff.failed();
            if !again || self.clock.now().since(begun) + wait >= self.timing.period {
                return result;
            }
            stdx::sleep(wait).await;
        }
    }

    async fn once(&self) -> Result<check::Healthy, check::Unhealthy> {
        self.check.run(&*self.runtime, &self.container_id, self.timing.timeout).await
    }
}
