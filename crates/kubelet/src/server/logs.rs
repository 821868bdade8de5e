//! What a container printed: the past, and the present while it runs.
//!
//! Upstream: `kubelet_pods.go` (validateContainerLogStatus), `cri-client/pkg/logs/logs.go`.

use super::{
    Context, Query,
    answer::{self, Answer, text},
    log,
    watch::Watch,
};
use crate::runtime::State;
use api::{
    Object,
    core::v1::{ContainerStatus, Pod},
};
use bytes::Bytes;
use futures_util::StreamExt;
use http::StatusCode;
use std::{
    io::{self, SeekFrom},
    ops::ControlFlow,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};
use stdx::Timestamp;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
    sync::mpsc,
};

/// Pieces that wait for a slow client; the file waits meanwhile.
const PIECES: usize = 4;
const PIECE_BYTES: usize = 64 * 1024;

/// What is wanted of a log.
#[derive(Clone, Debug, Default, PartialEq)]
struct Wanted {
    follow: bool,
    timestamps: bool,
    since: Option<Timestamp>,
    tail_lines: Option<u64>,
    limit_bytes: Option<u64>,
    /// `stdout` or `stderr`; none for both.
    stream: Option<&'static str>,
}

impl Wanted {
    fn of(query: &Query, now: Timestamp) -> Result<Wanted, String> {
        let number = |key: &str| match query.one(key).map(str::parse::<u64>) {
            None => Ok(None),
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(_)) => Err(format!("invalid value of {key}")),
        };
        let seconds = number("sinceSeconds")?;
        let since = match (seconds, query.one("sinceTime")) {
            (Some(seconds), _) => {
                Some(Timestamp(now.0 - Duration::from_secs(seconds).as_micros() as i64))
            }
            (None, Some(time)) => Some(
                Timestamp::parse(time).ok_or_else(|| "invalid value of sinceTime".to_owned())?,
            ),
            (None, None) => None,
        };
        let stream = match query.one("stream") {
            None | Some("All") => None,
            Some("Stdout") => Some("stdout"),
            Some("Stderr") => Some("stderr"),
            Some(_) => return Err("invalid value of stream".to_owned()),
        };
        Ok(Wanted {
            follow: query.flag("follow"),
            timestamps: query.flag("timestamps"),
            since,
            tail_lines: number("tailLines")?,
            limit_bytes: number("limitBytes")?,
            stream,
        })
    }
}

pub(super) async fn answer(
    context: &Context,
    namespace: &str,
    name: &str,
    container: &str,
    query: &Query,
) -> Answer {
    let wanted = match Wanted::of(query, context.shared.clock.now()) {
        Ok(wanted) => wanted,
        Err(why) => return text(StatusCode::UNPROCESSABLE_ENTITY, why),
    };
    let Some(pod) = context.pod(namespace, name) else {
        return text(StatusCode::NOT_FOUND, format!("pod {name:?} does not exist"));
    };
    let id = match container_id(&pod, container, query.flag("previous")) {
        Ok(id) => id,
        Err(why) => return text(StatusCode::BAD_REQUEST, why),
    };
    let observed = match context.shared.runtime.observe(pod.uid()).await {
        Ok(observed) => observed,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let Some(seen) = observed.containers.into_iter().find(|it| it.id == id) else {
        let why = format!("unable to retrieve container logs for stanchion://{id}");
        return text(StatusCode::INTERNAL_SERVER_ERROR, why);
    };
    let log = Log {
        context: context.clone(),
        uid: pod.uid().to_owned(),
        container_id: id,
        path: PathBuf::from(seen.log_path),
        wanted,
    };
    let (sender, receiver) = mpsc::channel(PIECES);
    tokio::spawn(async move {
        if let Err(error) = log.send(&sender).await {
            let text = format!("failed to read the log {}: {error}\n", log.path.display());
            let _client_gone = sender.send(Bytes::from(text)).await;
        }
    });
    answer::stream(receiver)
}

/// Which run is meant, or why there is none.
fn container_id(pod: &Pod, container: &str, previous: bool) -> Result<String, String> {
    let name = pod.name();
    let status = pod.status.as_ref();
    let lists = status.map(|it| {
        [&it.container_statuses, &it.init_container_statuses, &it.ephemeral_container_statuses]
    });
    let all = lists.into_iter().flatten().flatten().flatten();
    let found: Option<&ContainerStatus> = all.into_iter().find(|it| it.name == container);
    let status =
        found.ok_or_else(|| format!("container {container:?} in pod {name:?} is not available"))?;
    let state = status.state.clone().unwrap_or_default();
    let last = status.last_state.as_ref().and_then(|it| it.terminated.as_ref());
    let last = last.map(|it| it.container_id.clone().unwrap_or_default());
    let ended = || format!("container {container:?} in pod {name:?} is terminated");
    let id = match (previous, state.running, state.terminated, state.waiting) {
        (true, ..) => last.filter(|it| !it.is_empty()).ok_or_else(|| {
            format!("previous terminated container {container:?} in pod {name:?} not found")
        })?,
        (false, Some(_), ..) => status.container_id.clone().unwrap_or_default(),
        (false, None, Some(terminated), _) => match terminated.container_id {
            Some(id) if !id.is_empty() => id,
            Some(_) | None => last.filter(|it| !it.is_empty()).ok_or_else(ended)?,
        },
        (false, None, None, waiting) => match (last, waiting.and_then(|it| it.reason)) {
            (Some(id), _) if id.is_empty() => return Err(ended()),
            (Some(id), _) => id,
            (None, reason) => {
                let reason = match reason.as_deref() {
                    Some("ErrImagePull") => "image can't be pulled",
                    Some("ImagePullBackOff") => "trying and failing to pull image",
                    Some(reason) => reason,
                    None => "",
                };
                return Err(format!(
                    "container {container:?} in pod {name:?} is waiting to start: {reason}"
                ));
            }
        },
    };
    Ok(id.split_once("://").map_or(id.clone(), |(_, id)| id.to_owned()))
}

struct Log {
    context: Context,
    uid: String,
    container_id: String,
    path: PathBuf,
    wanted: Wanted,
}

impl Log {
    async fn send(&self, pieces: &mpsc::Sender<Bytes>) -> io::Result<()> {
        // Before the first look, so that nothing falls between.
        let mut watch = match self.wanted.follow {
            true => Some(Watch::new(&self.path)?),
            false => None,
        };
        let changes = match self.wanted.follow {
            true => self.context.shared.runtime.changes().await.ok(),
            false => None,
        };
        let mut changes = changes.unwrap_or_else(|| Box::pin(futures_util::stream::pending()));
        let mut file = File::open(&self.path).await?;
        if let Some(lines) = self.wanted.tail_lines {
            let from = tail_offset(&self.path, lines).await?;
            file.seek(SeekFrom::Start(from)).await?;
        }
        let mut reader = Reader { wanted: &self.wanted, rest: Vec::new(), sent: 0, midline: false };
        loop {
            // Asked before the file is read to its end: what was printed until now is then complete.
            let over = !self.wanted.follow || self.has_ended().await;
            if self.rest(&mut file, &mut reader, pieces).await?.is_break() {
                return Ok(());
            }
            // The file was put aside and a new one begun: nothing is written to the old one any more.
            if let Some(watch) = &mut watch
                && let Some(newer) = begun_anew(&file, &self.path).await?
            {
                *watch = Watch::new(&self.path)?;
                if self.rest(&mut file, &mut reader, pieces).await?.is_break() {
                    return Ok(());
                }
                file = newer;
                continue;
            }
            let Some(watch) = watch.as_mut().filter(|_| !over) else { return Ok(()) };
            loop {
                tokio::select! {
                    changed = watch.changed() => {
                        changed?;
                        break;
                    }
                    uid = changes.next() => if uid.is_none_or(|it| *it == *self.uid) {
                        break;
                    },
                    () = pieces.closed() => return Ok(()),
                }
            }
        }
    }

    /// Sends what is left of a file. Break: nobody listens, or it is as much as was asked for.
    async fn rest(
        &self,
        file: &mut File,
        reader: &mut Reader<'_>,
        pieces: &mpsc::Sender<Bytes>,
    ) -> io::Result<ControlFlow<()>> {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let read = file.read(&mut piece).await?;
            if read == 0 {
                return Ok(ControlFlow::Continue(()));
            }
            piece.truncate(read);
            let text = reader.take(&piece);
            if !text.is_empty() && pieces.send(Bytes::from(text)).await.is_err() {
                return Ok(ControlFlow::Break(()));
            }
            if reader.is_full() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }

    async fn has_ended(&self) -> bool {
        let observed = self.context.shared.runtime.observe(&self.uid).await.unwrap_or_default();
        let running = |it: &crate::runtime::Container| {
            it.id == self.container_id && matches!(it.state, State::Running | State::Created)
        };
        !observed.containers.iter().any(running)
    }
}

/// From the runtime's lines to what the container printed.
struct Reader<'a> {
    wanted: &'a Wanted,
    /// The beginning of a line whose end is not there yet.
    rest: Vec<u8>,
    sent: u64,
    /// The line before was not the end of one.
    midline: bool,
}

impl Reader<'_> {
    fn take(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut text = Vec::with_capacity(piece.len());
        self.rest.extend_from_slice(piece);
        let complete = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let rest = self.rest.split_off(complete);
        let lines = std::mem::replace(&mut self.rest, rest);
        for line in lines.split(|byte| *byte == b'\n').filter_map(log::parse) {
            self.line(&line, &mut text);
        }
        if let Some(limit) = self.wanted.limit_bytes {
            let left = limit.saturating_sub(self.sent);
            text.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        }
        self.sent += text.len() as u64;
        text
    }

    fn line(&mut self, line: &log::Line<'_>, text: &mut Vec<u8>) {
        if self.wanted.stream.is_some_and(|it| it.as_bytes() != line.stream) {
            return;
        }
        if let Some(since) = self.wanted.since {
            let time = std::str::from_utf8(line.time).ok().and_then(Timestamp::parse);
            if time.is_some_and(|it| it < since) {
                return;
            }
        }
        if self.wanted.timestamps && !self.midline {
            text.extend_from_slice(line.time);
            text.push(b' ');
        }
        text.extend_from_slice(line.text);
        if !line.partial {
            text.push(b'\n');
        }
        self.midline = line.partial;
    }

    fn is_full(&self) -> bool {
        self.wanted.limit_bytes.is_some_and(|it| self.sent >= it)
    }
}

/// The file that has the name now, if it is another one than the one being read.
async fn begun_anew(file: &File, path: &Path) -> io::Result<Option<File>> {
    let newer = match File::open(path).await {
        // Between the renaming and the new beginning; or the pod is gone with its logs.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        newer => newer?,
    };
    let (old, new) = (file.metadata().await?, newer.metadata().await?);
    Ok(((old.dev(), old.ino()) != (new.dev(), new.ino())).then_some(newer))
}

/// Where the last lines begin.
async fn tail_offset(path: &Path, lines: u64) -> io::Result<u64> {
    let mut file = File::open(path).await?;
    let mut end = file.metadata().await?.len();
    let length = end;
    let mut seen = 0;
    while end > 0 {
        let begin = end.saturating_sub(PIECE_BYTES as u64);
        let mut piece = vec![0; usize::try_from(end - begin).unwrap_or(PIECE_BYTES)];
        file.seek(SeekFrom::Start(begin)).await?;
        file.read_exact(&mut piece).await?;
        for (at, _) in piece.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = begin + at as u64 + 1;
            // The end of the last line begins none.
            if after == length {
                continue;
            }
            seen += 1;
            if seen == lines {
                return Ok(after);
            }
        }
        end = begin;
    }
    Ok(if lines == 0 { length } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-11-21T10:00:00.000000001Z stdout F one\n\
        2026-11-21T10:00:01.000000000Z stderr P tw\n\
        2026-11-21T10:00:02.000000000Z stderr F o\n\
        2026-11-21T10:00:03.000000000Z stdout F three\n";

    fn read(query: &str, pieces: usize) -> String {
        let now = Timestamp::parse("2026-11-21T10:00:04Z").unwrap();
        let wanted = Wanted::of(&Query::parse(query), now).unwrap();
        let mut reader = Reader { wanted: &wanted, rest: Vec::new(), sent: 0, midline: false };
        let text: Vec<u8> = LOG.as_bytes().chunks(pieces).flat_map(|it| reader.take(it)).collect();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn shows_what_was_printed_whatever_the_pieces() {
        for pieces in [1, 7, 4096] {
            assert_eq!(read("", pieces), "one\ntwo\nthree\n");
            assert_eq!(read("sinceSeconds=1", pieces), "three\n");
            assert_eq!(read("sinceTime=2026-11-21T10:00:03Z", pieces), "three\n");
            assert_eq!(read("limitBytes=5", pieces), "one\nt");
            assert_eq!(read("stream=Stdout", pieces), "one\nthree\n");
        }
        let stamped = read("timestamps=true", 4096);
        assert!(stamped.ends_with(
            "2026-11-21T10:00:01.000000000Z two\n2026-11-21T10:00:03.000000000Z three\n"
        ));
    }

    #[tokio::test]
    async fn finds_the_last_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let long = LOG.repeat(2000);
        std::fs::write(&path, &long).unwrap();
        for (lines, expected) in [(0, 0), (1, 1), (4, 4), (5, 5), (8000, 8000), (9000, 8000)] {
            let from = usize::try_from(tail_offset(&path, lines).await.unwrap()).unwrap();
            assert_eq!(long[from..].lines().count(), expected, "{lines}");
        }
    }

    #[test]
    fn says_why_there_is_no_log() {
        let pod = |state: serde_json::Value| -> Pod {
            api::codec::from_value(&serde_json::json!({
                "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]},
                "status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false,
                    "restartCount": 0, "state": state, "containerID": "stanchion://1"}]}
            }))
            .unwrap()
        };
        let waiting = pod(serde_json::json!({"waiting": {"reason": "ContainerCreating"}}));
        let running = pod(serde_json::json!({"running": {}}));
        assert_eq!(container_id(&running, "c", false).unwrap(), "1");
        assert_eq!(
            container_id(&waiting, "c", false).unwrap_err(),
            "container \"c\" in pod \"p\" is waiting to start: ContainerCreating"
        );
        assert_eq!(
            container_id(&running, "c", true).unwrap_err(),
            "previous terminated container \"c\" in pod \"p\" not found"
        );
    }
}
