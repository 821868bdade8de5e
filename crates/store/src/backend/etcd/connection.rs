//! The requests themselves, each with a deadline, and etcd's complaints in our words.

use super::convert;
use crate::{Revision, StoreError};
use ::etcd::{
    CompactionRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse, WatchRequest,
    WatchResponse, kv_client::KvClient, lease_client::LeaseClient, watch_client::WatchClient,
};
use std::{future::Future, time::Duration};
use tokio_stream::Stream;
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};

/// A member that does not answer within this time is as good as gone: the next one is asked.
const CONNECT: Duration = Duration::from_secs(3);

/// Longer than an election takes.
const ANSWER: Duration = Duration::from_secs(10);

/// Notices a connection that is dead without saying so.
const ALIVE: Duration = Duration::from_secs(5);

/// A page of large objects; watches tell whole revisions.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// What etcd said instead of doing it.
#[derive(Debug)]
pub(super) enum Failed {
    Compacted,
    Future,
    NoLease,
    TooLarge,
    NoSpace,
    Other(Status),
    Silent,
    Strange(String),
}

impl From<Status> for Failed {
    fn from(status: Status) -> Failed {
        let says = |part: &str| status.message().contains(part);
        match status.code() {
            Code::OutOfRange if says("has been compacted") => Failed::Compacted,
            Code::OutOfRange if says("future revision") => Failed::Future,
            Code::NotFound if says("lease not found") => Failed::NoLease,
            Code::InvalidArgument if says("request is too large") => Failed::TooLarge,
            Code::ResourceExhausted if says("database space exceeded") => Failed::NoSpace,
            Code::ResourceExhausted if says("larger than max") => Failed::TooLarge,
            _ => Failed::Other(status),
        }
    }
}

impl Failed {
    pub(super) fn of(self, url: &str) -> StoreError {
        let said = match self {
            Failed::NoSpace => {
                let attempted = "commit: etcd's quota is used up (etcdctl alarm list, defrag)";
                return StoreError::Full { attempted: attempted.into(), path: url.into() };
            }
            Failed::Silent => format!("no answer in {} s", ANSWER.as_secs()),
            Failed::Other(status) => match std::error::Error::source(&status) {
                Some(cause) => format!("{}: {}", status.message(), stdx::one_line(cause)),
                None => format!("{}: {}", status.code(), status.message()),
            },
            Failed::Strange(what) => what,
            Failed::Compacted => "the revision is compacted".to_owned(),
            Failed::Future => "the revision is in the future".to_owned(),
            Failed::NoLease => "the lease does not exist".to_owned(),
            Failed::TooLarge => "the request is larger than --max-request-bytes".to_owned(),
        };
        StoreError::io(format!("ask {url}"), std::io::Error::other(said))
    }
}

#[derive(Clone)]
pub(super) struct Connection {
    pub(super) url: String,
    kv: KvClient<Channel>,
    watch: WatchClient<Channel>,
    lease: LeaseClient<Channel>,
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
    pub(super) fn open(url: &str) -> Result<Connection, StoreError> {
        let wrong = || StoreError::NotSupported { url: url.to_owned() };
        let members = url.strip_prefix("etcd://").ok_or_else(wrong)?;
        let endpoint = |member: &str| {
            let endpoint = Endpoint::from_shared(format!("http://{}", member.trim()));
            let endpoint = endpoint.map_err(|_| wrong())?;
            let endpoint = endpoint.connect_timeout(CONNECT).http2_keep_alive_interval(ALIVE);
            Ok(endpoint.keep_alive_timeout(ALIVE).keep_alive_while_idle(true))
        };
        let endpoints: Vec<Endpoint> =
            members.split(',').map(endpoint).collect::<Result<_, StoreError>>()?;
        let channel = match &endpoints[..] {
            [only] => only.connect_lazy(),
            _ => Channel::balance_list(endpoints.into_iter()),
        };
        Ok(Connection {
            url: url.to_owned(),
            kv: KvClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
            watch: WatchClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
            lease: LeaseClient::new(channel),
        })
    }

    /// The newest revision that a majority has: a read that goes through the leader.
    pub(super) async fn revision(&self) -> Result<Revision, Failed> {
        let request = RangeRequest { key: b"/".to_vec(), count_only: true, ..Default::default() };
        Ok(convert::revision(self.range(request).await?.header.as_ref()))
    }

    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Failed> {
        answer(self.kv.clone().range(request)).await
    }

    pub(super) async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Failed> {
        answer(self.kv.clone().txn(request)).await
    }

    pub(super) async fn compact(&self, request: CompactionRequest) -> Result<(), Failed> {
        answer(self.kv.clone().compact(request)).await.map(drop)
    }

    pub(super) async fn watch(
        &self,
        requests: impl Stream<Item = WatchRequest> + Send + 'static,
    ) -> Result<Streaming<WatchResponse>, Failed> {
        answer(self.watch.clone().watch(requests)).await
    }

    pub(super) async fn grant(
        &self,
        request: LeaseGrantRequest,
    ) -> Result<LeaseGrantResponse, Failed> {
        answer(self.lease.clone().lease_grant(request)).await
    }

    pub(super) async fn revoke(&self, request: LeaseRevokeRequest) -> Result<(), Failed> {
        answer(self.lease.clone().lease_revoke(request)).await.map(drop)
    }

    /// Seconds that the lease has now; none if it is gone.
    pub(super) async fn keep_alive(&self, request: LeaseKeepAliveRequest) -> Result<i64, Failed> {
        let once = tokio_stream::once(request);
        let mut answers = answer(self.lease.clone().lease_keep_alive(once)).await?;
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
        answer(self.lease.clone().lease_time_to_live(request)).await
    }

    pub(super) async fn leases(
        &self,
        request: LeaseLeasesRequest,
    ) -> Result<LeaseLeasesResponse, Failed> {
        answer(self.lease.clone().lease_leases(request)).await
    }
}
