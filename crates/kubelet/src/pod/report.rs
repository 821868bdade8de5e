//! When a pod's status is written, and what its ended containers had to say.

use crate::{
    kubelet::Shared,
    plan::{Memory, Next},
    runtime::{Container as Seen, Observed, State},
    server::log,
    status::{self, Inputs},
};
use api::core::v1::{Pod, PodStatus};
use std::{
    collections::BTreeMap,
    io::{Read, Seek, SeekFrom},
    path::Path,
    time::Duration,
};
use stdx::{Backoff, Timestamp};
use world::{Change, Typed};

/// Upstream: `MaxContainerTerminationMessageLength`, `MaxContainerTerminationMessageLogLength`, `…LogLines`.
const WORD_BYTES_MAX: u64 = 4096;
const LOG_BYTES_MAX: usize = 2048;
const LOG_LINES_MAX: usize = 80;

/// A write that failed is repeated after 20 ms, 40 ms … 5 s: it lost against another one, or the door is closed.
const WRITE_FIRST: Duration = Duration::from_millis(20);
const WRITE_MOST: Duration = Duration::from_secs(5);

pub(super) struct Reporter {
    /// Container id → its last word, read once.
    last_words: BTreeMap<String, String>,
    /// The status that was written last, and how the door stored it.
    told: Option<(PodStatus, PodStatus)>,
    /// Computed last, and on its way.
    draft: Option<PodStatus>,
    telling: Option<PodStatus>,
    /// Computed, and not yet what the API says.
    behind: bool,
    not_before: Timestamp,
    backoff: Backoff,
}

impl Default for Reporter {
    fn default() -> Reporter {
        Reporter {
            last_words: BTreeMap::new(),
            told: None,
            draft: None,
            telling: None,
            behind: false,
            not_before: Timestamp::default(),
            backoff: Backoff::new(WRITE_FIRST, WRITE_MOST),
        }
    }
}

impl Reporter {
    /// Reads the last words of containers that have ended since.
    pub(super) async fn listen(
        &mut self,
        shared: &Shared,
        pod: Option<&Pod>,
        uid: &str,
        observed: &Observed,
    ) {
        let Some(pod) = pod else { return };
        for seen in observed.containers.iter().filter(|it| it.state == State::Exited) {
            if self.last_words.contains_key(&seen.id) {
                continue;
            }
            let Some(container) = crate::plan::containers::named(pod, &seen.name) else { continue };
            let path = shared.facts.termination_log(uid, &seen.name, seen.attempt);
            let to_logs = container.termination_message_policy.as_deref()
                == Some("FallbackToLogsOnError")
                && seen.exit_code != 0;
            let words = words(path, to_logs.then(|| seen.clone())).await;
            self.last_words.insert(seen.id.clone(), words);
        }
        self.last_words.retain(|id, _| observed.containers.iter().any(|it| it.id == *id));
    }

    /// The write that is due, if one is.
    pub(super) fn change(
        &mut self,
        shared: &Shared,
        pod: &Typed<Pod>,
        observed: &Observed,
        memory: &Memory,
        next: &Next,
    ) -> Option<Change> {
        let status = status::compute(&Inputs {
            pod,
            observed,
            memory,
            waiting: &next.waiting,
            last_words: &self.last_words,
            node_address: &shared.facts.node_address,
            verdict: next.verdict.as_ref(),
            resizing: next.resizing,
            starting: &next.starting,
            ended: next.ended,
            now: shared.clock.now(),
        });
        let stored = pod.status.clone().unwrap_or_default();
        if let Some(telling) = self.telling.take() {
            self.told = Some((telling, stored.clone()));
        }
        // The door may store a status in other words than ours: that is no news.
        let told =
            self.told.as_ref().is_some_and(|(ours, theirs)| *ours == status && *theirs == stored);
        self.behind = status != stored && !told;
        if !self.behind {
            return None;
        }
        self.draft = Some(status.clone());
        let mut pod = pod.to_owned();
        pod.status = Some(status);
        Some(Change::status(pod))
    }

    /// The change is written now.
    pub(super) fn begin(&mut self) {
        self.telling = self.draft.take();
    }

    pub(super) fn written(&mut self) {
        self.behind = false;
        self.backoff.succeeded();
    }

    pub(super) fn refused(&mut self, now: Timestamp) {
        self.telling = None;
        self.behind = true;
        self.not_before = now.plus(self.backoff.failed());
    }

    /// The API does not have the latest status yet.
    pub(super) fn is_behind(&self) -> bool {
        self.behind
    }

    pub(super) fn not_before(&self) -> Timestamp {
        self.not_before
    }
}

async fn words(path: std::path::PathBuf, fallback: Option<Seen>) -> String {
    let read = move || {
        let word = tail(&path, WORD_BYTES_MAX).unwrap_or_default();
        match fallback {
            Some(seen) if word.is_empty() => {
                log::tail_text(Path::new(&seen.log_path), LOG_LINES_MAX, LOG_BYTES_MAX)
            }
            Some(_) | None => word,
        }
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

fn tail(path: &Path, bytes: u64) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut text = Vec::new();
    file.take(bytes).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
