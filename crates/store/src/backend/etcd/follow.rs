//! The one watch over all keys: it goes on where it was after a broken connection, and where etcd has forgotten
//! what came in between, everyone who follows is told to look again.

use super::{
    Shared,
    connection::{ANSWER, Connection},
    convert,
    failed::Failed,
};
use crate::{Record, Revision, watch::CATCH_UP_RECORDS};
use ::etcd::{WatchCreateRequest, WatchRequest, WatchResponse, watch_request::RequestUnion};
use std::{sync::Weak, time::Duration};
use stdx::Backoff;
use tokio_stream::StreamExt;
use tonic::Streaming;

/// A watch and the open end of its requests, without which etcd would end it.
struct Watching {
    answers: Streaming<WatchResponse>,
    _requests: tokio::sync::mpsc::Sender<WatchRequest>,
}

async fn start(connection: &Connection, after: Revision) -> Result<Watching, Failed> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let create = WatchCreateRequest {
        key: vec![0],
        range_end: vec![0],
        start_revision: convert::number(after.next().0),
        ..Default::default()
    };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let sent = sender.send(request).await;
    sent.map_err(|_closed| Failed::Strange("the watch ended before it began".to_owned()))?;
    let requests = futures_of(receiver);
    Ok(Watching { answers: connection.watch(requests).await?, _requests: sender })
}

fn futures_of(
    receiver: tokio::sync::mpsc::Receiver<WatchRequest>,
) -> impl tokio_stream::Stream<Item = WatchRequest> + Send + 'static {
    struct Requests(tokio::sync::mpsc::Receiver<WatchRequest>);
    impl tokio_stream::Stream for Requests {
        type Item = WatchRequest;
        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            context: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<WatchRequest>> {
            self.0.poll_recv(context)
        }
    }
    Requests(receiver)
}

impl Watching {
    /// The next records: whole revisions, since etcd is not asked to cut them.
    async fn next(&mut self) -> Result<Vec<Record>, Failed> {
        loop {
            let answer = self.answers.next().await;
            let ended = || Failed::Strange("the watch has ended".to_owned());
            let answer = answer.ok_or_else(ended)?.map_err(Failed::from)?;
            if answer.compact_revision != 0 {
                return Err(Failed::Compacted);
            }
            if answer.canceled {
                return Err(Failed::Strange(format!("watch canceled: {}", answer.cancel_reason)));
            }
            if !answer.events.is_empty() {
                return answer.events.into_iter().map(convert::record).collect();
            }
        }
    }
}

/// Feeds the hub for as long as there is somebody to feed.
pub(super) async fn follow(
    shared: Weak<Shared>,
    connection: Connection,
    cluster: u64,
    mut after: Revision,
) {
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));
    let mut was_away = false;
    loop {
        let begun = match was_away {
            false => start(&connection, after).await,
            true => match connection.position().await {
                Ok((there, latest)) if there != cluster || latest < after => {
                    let Some(shared) = shared.upgrade() else { return };
                    // What was seen is not there any more: going on would tell lies about it.
                    tracing::error!(
                        "{} is another one than before, or an older one: it is at revision {latest} of cluster \
                         {there:x}, and {after} of {cluster:x} was seen; start all servers again",
                        connection.url()
                    );
                    shared.hub.close();
                    return;
                }
                Ok(_) => start(&connection, after).await,
                Err(failed) => Err(failed),
            },
        };
        let failed = match begun {
            Err(failed) => failed,
            Ok(mut watching) => loop {
                match watching.next().await {
                    Ok(records) => {
                        let Some(shared) = shared.upgrade() else { return };
                        if backoff.failures() > 0 {
                            tracing::info!("following {} again", connection.url());
                        }
                        backoff.succeeded();
                        let new: Vec<Record> =
                            records.into_iter().filter(|it| it.revision > after).collect();
                        after = new.last().map_or(after, |it| it.revision);
                        shared.hub.publish(new);
                    }
                    Err(failed) => break failed,
                }
            },
        };
        was_away = true;
        connection.broke(&failed);
        let Some(shared) = shared.upgrade() else { return };
        if shared.hub.closed() {
            return;
        }
        if matches!(failed, Failed::Compacted) {
            // What lies between is lost for everyone who follows.
            if let Ok(latest) = connection.revision().await {
                tracing::warn!(from = %after, to = %latest, "etcd has compacted what was not yet seen");
                shared.compacted(latest);
                shared.hub.skip(latest);
                after = latest;
                continue;
            }
        } else {
            let error = stdx::one_line(&failed.of(connection.url()));
            match backoff.failures() {
                0 => tracing::warn!("following the ledger, which is tried again: {error}"),
                _ => tracing::debug!("following the ledger: {error}"),
            }
        }
        drop(shared);
        stdx::sleep(backoff.failed()).await;
    }
}

/// Records after a revision that the ring has forgotten: some of them, whole revisions.
pub(super) async fn catch_up(
    connection: &Connection,
    after: Revision,
    upto: Revision,
) -> Result<Vec<Record>, Failed> {
    let mut watching = start(connection, after).await?;
    let mut records: Vec<Record> = Vec::new();
    while records.len() < CATCH_UP_RECORDS && records.last().is_none_or(|last| last.revision < upto)
    {
        let next = stdx::timeout(ANSWER, watching.next()).await;
        let next = next.unwrap_or(Err(Failed::Silent))?;
        records.extend(next.into_iter().filter(|it| it.revision > after));
    }
    Ok(records)
}
