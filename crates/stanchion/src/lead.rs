//! Several servers share one etcd, and one of them turns the loops: the holder of the Lease `kube-system/stanchion`.

use crate::config::Cidr;
use anyhow::{Context, Result};
use apiserver::Server;
use client::Client;
use controllers::node_ipam;
use manager::{Candidate, Volumes};
use std::{sync::Arc, time::Duration};
use stdx::{Backoff, Entropy, Shutdown, ShutdownSignal, SystemClock, SystemEntropy};
use tokio::task::JoinSet;
use world::ObjectKey;

const NAMESPACE: &str = "kube-system";
const LEASE: &str = "stanchion";

/// Everything that decides, and what it does its work with.
pub(crate) struct Loops {
    pub(crate) server: Arc<Server>,
    pub(crate) volumes: Arc<dyn Volumes>,
    /// The authority's certificate, which is published to every namespace.
    pub(crate) authority: String,
    /// Where nodes get their shares of addresses.
    pub(crate) pods: Cidr,
    /// How many pods that have ended are kept; zero: all.
    pub(crate) ended_most: usize,
}

impl Loops {
    fn start(
        &self,
        connect: impl Fn(&str) -> Arc<dyn Client>,
        signal: ShutdownSignal,
    ) -> JoinSet<Result<()>> {
        let (base, bits) = (self.pods.base, self.pods.bits);
        let pods = node_ipam::Range { base, bits };
        let mut loops = controllers::controllers(&self.authority, Some(pods), self.ended_most);
        loops.push(Arc::new(scheduler::Scheduler));
        let connect = |name: &str| connect(&user_of(name));
        let clock = Arc::new(SystemClock);
        let turning = manager::start(loops, connect, self.volumes.clone(), clock, signal.clone());
        let wait = |task: tokio::task::JoinHandle<()>| async { task.await.context("turn a loop") };
        let mut all: JoinSet<Result<()>> = turning.into_iter().map(wait).collect();
        let server = self.server.clone();
        all.spawn(async move {
            server.answer_certificate_requests(signal).await;
            Ok(())
        });
        all
    }

    /// Turns them until shutdown: nobody else may.
    pub(crate) async fn alone(self, signal: ShutdownSignal) -> Result<()> {
        until_ended(self.start(|user| self.server.client(user), signal)).await
    }

    /// Turns them whenever this server leads, until shutdown.
    pub(crate) async fn by_turns(self, host: &str, mut signal: ShutdownSignal) -> Result<()> {
        let lease = ObjectKey::new(NAMESPACE, LEASE);
        let mut id = [0; 8];
        SystemEntropy::default().fill(&mut id);
        let identity = format!("{host}_{:016x}", u64::from_le_bytes(id));
        let client = self.server.client("system:stanchion");
        let clock = Arc::new(SystemClock);
        let mut candidate = Candidate::new(client, clock, lease.clone(), identity.clone());
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        loop {
            let won = tokio::select! {
                () = signal.wait() => return Ok(()),
                won = candidate.win() => won,
            };
            let epoch = match self.server.begin_epoch(&lease, won, &identity).await {
                Ok(epoch) => epoch,
                Err(failure) => {
                    tracing::warn!("beginning to lead: {failure}");
                    stdx::sleep(backoff.failed()).await;
                    continue;
                }
            };
            backoff.succeeded();
            tracing::info!("{identity} leads: its loops turn");
            let (end, ended) = Shutdown::new();
            let mut turning = self.start(|user| self.server.client_in(epoch, user), ended);
            tokio::select! {
                () = signal.wait() => {}
                () = candidate.hold() => {}
                Some(early) = turning.join_next() => early.context("turn a loop")??,
            }
            end.begin();
            until_ended(turning).await?;
            if signal.begun() {
                candidate.resign().await;
                return Ok(());
            }
            tracing::warn!("{identity} does not lead any more: its loops stand");
        }
    }
}

async fn until_ended(mut turning: JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = turning.join_next().await {
        ended.context("turn a loop")??;
    }
    Ok(())
}

/// Who a loop is to the door. Upstream: each controller has a service account of its name.
fn user_of(controller: &str) -> String {
    match controller {
        scheduler::NAME => "system:kube-scheduler".to_owned(),
        name => format!("system:serviceaccount:kube-system:{name}"),
    }
}
