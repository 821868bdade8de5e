//! The requests themselves, each with a deadline. One member of etcd is asked; when it fails, the next.

use super::{convert, failed::Failed, tls::EtcdTls};
use crate::{Revision, StoreError};
use ::etcd::{
    CompactionRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse, RangeRequest, RangeResponse, StatusRequest, StatusResponse,
    TxnRequest, TxnResponse, WatchRequest, WatchResponse, kv_client::KvClient,
    lease_client::LeaseClient, maintenance_client::MaintenanceClient, watch_client::WatchClient,
};
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio_stream::Stream;
use tonic::{
    Request, Status, Streaming,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};

/// A member that cannot be connected to within this time is as good as gone: the next one is asked.
const CONNECT: Duration = Duration::from_secs(3);

/// Longer than an election takes, and than etcd's own patience (7 s).
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// Notices a connection that is dead without saying so.
const ALIVE: Duration = Duration::from_secs(5);

/// A page of large objects; watches tell whole revisions.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

#[derive(Clone)]
pub(super) struct Connection(Arc<Members>);

struct Members {
    url: String,
    all: Vec<Member>,
    /// The one that is asked.
    current: AtomicUsize,
}

struct Member {
    name: String,
    kv: KvClient<Channel>,
    watch: WatchClient<Channel>,
    lease: LeaseClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
}

/// What a member of etcd says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    pub version: String,
    /// Bytes of its database's file, and of those the ones in use.
    pub file_bytes: u64,
    pub used_bytes: u64,
    pub leads: bool,
    /// Alarms such as `NOSPACE`, in its own words.
    pub errors: Vec<String>,
}

async fn answer<T>(
    work: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Failed> {
    match stdx::timeout(ANSWER, work).await {
        Some(Ok(answer)) => Ok(answer.into_inner()),
        Some(Err(status)) => Err(status.into()),
        None => Err(Failed::Silent),
    }
}

impl Connection {
    pub(super) fn open(url: &str, tls: &EtcdTls) -> Result<Connection, StoreError> {
        let wrong = |why| StoreError::NotSupported { url: url.to_owned(), why };
        let (scheme, members) = match (url.strip_prefix("etcds://"), url.strip_prefix("etcd://")) {
            (Some(members), _) => ("https", members),
            (None, Some(members)) => ("http", members),
            (None, None) => return Err(wrong("embedded, etcd://HOST:PORT or etcds://HOST:PORT")),
        };
        let tls = match scheme {
            "https" => Some(tls.config()?),
            _ => None,
        };
        let member = |name: &str| {
            let name = name.trim();
            let endpoint = Endpoint::from_shared(format!("{scheme}://{name}"));
            let endpoint = endpoint.ok().filter(|it| it.uri().port().is_some());
            let endpoint = endpoint.ok_or_else(|| wrong("members are HOST:PORT"))?;
            let endpoint = endpoint.connect_timeout(CONNECT).http2_keep_alive_interval(ALIVE);
            let endpoint = endpoint.keep_alive_timeout(ALIVE).keep_alive_while_idle(true);
            let endpoint = match &tls {
                None => endpoint,
                Some(tls) => {
                    let read = endpoint.tls_config(tls.clone());
                    read.map_err(|error| {
                        let attempted = format!("read the certificates for {url}");
                        StoreError::io(attempted, std::io::Error::other(stdx::one_line(&error)))
                    })?
                }
            };
            let channel = endpoint.connect_lazy();
            Ok(Member {
                name: name.to_owned(),
                kv: KvClient::new(channel.clone())
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(MESSAGE_BYTES_MAX),
                watch: WatchClient::new(channel.clone())
                    .max_decoding_message_size(MESSAGE_BYTES_MAX),
                lease: LeaseClient::new(channel.clone()),
                maintenance: MaintenanceClient::new(channel),
            })
        };
        let all = members.split(',').map(member).collect::<Result<_, StoreError>>()?;
        let current = AtomicUsize::new(0);
        Ok(Connection(Arc::new(Members { url: url.to_owned(), all, current })))
    }

    pub(super) fn url(&self) -> &str {
        &self.0.url
    }

    fn current(&self) -> (usize, &Member) {
        let at = self.0.current.load(Ordering::Relaxed) % self.0.all.len();
        (at, &self.0.all[at])
    }

    /// From now on the next member is asked, unless somebody else has seen to that.
    fn leave(&self, at: usize) {
        let next = (at + 1) % self.0.all.len();
        let left = &self.0.current;
        let _others = left.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Asks once.
    async fn ask<'a, T, F>(&'a self, work: impl FnOnce(&'a Member) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let (at, member) = self.current();
        let answered = answer(work(member)).await;
        if answered.as_ref().is_err_and(Failed::is_of_member) {
            self.leave(at);
        }
        answered
    }

    /// Asks each member once, for what may be asked twice; the last one's failure counts.
    async fn ask_all<'a, T, F>(&'a self, work: impl Fn(&'a Member) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let mut answered = self.ask(&work).await;
        // A connection that broke between two requests is made anew: even one member is asked twice.
        for _ in 0..self.0.all.len() {
            match &answered {
                Err(failed) if failed.is_of_member() && !matches!(failed, Failed::Silent) => {
                    answered = self.ask(&work).await;
                }
                Ok(_) | Err(_) => break,
            }
        }
        answered
    }

    /// The newest revision that a majority has: a read that goes through the leader.
    pub(super) async fn revision(&self) -> Result<Revision, Failed> {
        Ok(self.position().await?.1)
    }

    /// The cluster's own number, which no other one has, and its newest revision.
    pub(super) async fn position(&self) -> Result<(u64, Revision), Failed> {
        let request = RangeRequest { key: b"/".to_vec(), count_only: true, ..Default::default() };
        let header = self.range(request).await?.header;
        Ok((header.as_ref().map_or(0, |it| it.cluster_id), convert::revision(header.as_ref())))
    }

    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Failed> {
        let work = |member: &Member| {
            let (mut kv, request) = (member.kv.clone(), request.clone());
            async move { kv.range(request).await }
        };
        self.ask_all(work).await
    }

    /// Asked of one member, once: [`Failed::may_be_done`] says whether the answer leaves that open.
    pub(super) async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Failed> {
        let asked = self.ask(|member| {
            let (mut kv, request) = (member.kv.clone(), request.clone());
            async move { kv.txn(request).await }
        });
        match asked.await {
            // Nothing was sent: the next member may have it.
            Err(Failed::Unreachable(_)) if self.0.all.len() > 1 => {
                let mut kv = self.current().1.kv.clone();
                self.ask(|_| async move { kv.txn(request).await }).await
            }
            answered => answered,
        }
    }

    pub(super) async fn compact(&self, request: CompactionRequest) -> Result<(), Failed> {
        self.ask(|member| {
            let mut kv = member.kv.clone();
            async move { kv.compact(request).await }
        })
        .await
        .map(drop)
    }

    pub(super) async fn watch(
        &self,
        requests: impl Stream<Item = WatchRequest> + Send + 'static,
    ) -> Result<Streaming<WatchResponse>, Failed> {
        let mut request = Request::new(requests);
        // A member that is cut off from the others ends the watch instead of telling nothing.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        self.ask(|member| {
            let mut watch = member.watch.clone();
            async move { watch.watch(request).await }
        })
        .await
    }

    /// For a stream that broke after it began.
    pub(super) fn broke(&self, failed: &Failed) {
        if failed.is_of_member() {
            self.leave(self.current().0);
        }
    }

    pub(super) async fn grant(
        &self,
        request: LeaseGrantRequest,
    ) -> Result<LeaseGrantResponse, Failed> {
        let work = |member: &Member| {
            let mut lease = member.lease.clone();
            async move { lease.lease_grant(request).await }
        };
        self.ask_all(work).await
    }

    pub(super) async fn revoke(&self, request: LeaseRevokeRequest) -> Result<(), Failed> {
        let work = |member: &Member| {
            let mut lease = member.lease.clone();
            async move { lease.lease_revoke(request).await }
        };
        self.ask_all(work).await.map(drop)
    }

    /// Seconds that the lease has now; none if it is gone.
    pub(super) async fn keep_alive(&self, request: LeaseKeepAliveRequest) -> Result<i64, Failed> {
        let work = |member: &Member| {
            let mut lease = member.lease.clone();
            async move { lease.lease_keep_alive(tokio_stream::once(request)).await }
        };
        let mut answers = self.ask_all(work).await?;
        match stdx::timeout(ANSWER, answers.message()).await {
            Some(Ok(Some(alive))) => Ok(alive.ttl),
            Some(Ok(None)) => Err(Failed::Strange("no answer to a sign of life".to_owned())),
            Some(Err(status)) => Err(status.into()),
            None => Err(Failed::Silent),
        }
    }

    pub(super) async fn time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, Failed> {
        let work = |member: &Member| {
            let mut lease = member.lease.clone();
            async move { lease.lease_time_to_live(request).await }
        };
        self.ask_all(work).await
    }

    pub(super) async fn leases(&self) -> Result<LeaseLeasesResponse, Failed> {
        let work = |member: &Member| {
            let mut lease = member.lease.clone();
            async move { lease.lease_leases(LeaseLeasesRequest {}).await }
        };
        self.ask_all(work).await
    }

    /// Every member by its name, and what it says or why it says nothing.
    pub(super) async fn members(&self) -> Vec<(String, Result<MemberStatus, StoreError>)> {
        let mut all = Vec::new();
        for member in &self.0.all {
            let mut maintenance = member.maintenance.clone();
            let said = answer(maintenance.status(StatusRequest {})).await;
            let said = said.map(status).map_err(|failed| failed.of(&member.name));
            all.push((member.name.clone(), said));
        }
        all
    }
}

fn status(said: StatusResponse) -> MemberStatus {
    let bytes = |it: i64| u64::try_from(it).unwrap_or_default();
    let id = said.header.as_ref().map(|it| it.member_id);
    MemberStatus {
        version: said.version,
        file_bytes: bytes(said.db_size),
        used_bytes: bytes(said.db_size_in_use),
        leads: id == Some(said.leader),
        errors: said.errors,
    }
}
