//! The door as a whole: what it is opened with, and what its parts share.

use crate::{
    access::Access,
    admission::{Chain, service_address::ServiceRange},
    authn::token::Tokens,
    authz::policy::Policy,
    commit::Turns,
    epoch::Epoch,
    error::Error,
    events::Recorder,
    fields::shapes::ShapesOfKinds,
    health::Health,
    ledger::Ledger,
    local::Local,
    metrics::Metrics,
    node::NodeProxy,
    openapi::OpenApi,
    patience::Patience,
    user::User,
};
use api::{Failure, KindRef};
use client::Client;
use std::{
    collections::BTreeSet,
    sync::{Arc, RwLock},
};
use stdx::{Clock, Entropy};
use store::Store;
use tokio::task::JoinHandle;

/// What the door is opened with.
#[derive(Clone)]
pub struct Config {
    /// Where Services get their addresses: `10.96.0.0/12`.
    pub service_cidr: String,
    /// Admission checks switched on and off by upstream's names, besides the default ones.
    pub admission_enabled: BTreeSet<String>,
    pub admission_disabled: BTreeSet<String>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    /// What `/version` says: `v1.36.0+stanchion`.
    pub version: String,
    /// The way to nodes' own servers; without one there are no logs and no streams.
    pub node_proxy: Option<Arc<dyn NodeProxy>>,
    /// How callers are known, what is told of them, and what is encrypted.
    pub access: Access,
    /// How much of one client it puts up with.
    pub patience: Patience,
}

/// The door. Cheap to share; everything behind it is.
pub struct Server {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) kinds: Vec<KindRef>,
    pub(crate) chain: Chain,
    pub(crate) recorder: Recorder,
    pub(crate) service_range: ServiceRange,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) turns: Turns,
    pub(crate) openapi: OpenApi,
    pub(crate) shapes: ShapesOfKinds,
    pub(crate) tokens: Tokens,
    /// What the roles of the latest view that somebody was judged by allow.
    pub(crate) policy: RwLock<Arc<Policy>>,
    follower: JoinHandle<()>,
}

/// Builds the world from the store and opens the door for loops of this process. Objects that every
/// cluster has are there when it returns. HTTPS begins with [`Server::serve`].
pub async fn open(store: Arc<dyn Store>, config: Config) -> Result<Arc<Server>, Error> {
    let kinds = api::kinds().to_vec();
    let chain = Chain::new(&config.admission_enabled, &config.admission_disabled)?;
    let service_range = ServiceRange::parse(&config.service_cidr)?;
    let tokens = Tokens::new(&config.access)?;
    let encryption = config.access.encryption.clone();
    let (ledger, watch) = Ledger::open(&*store, &kinds, config.clock.clone(), encryption).await?;
    let ledger = Arc::new(ledger);
    let follower = tokio::spawn({
        let (ledger, store) = (ledger.clone(), store.clone());
        async move { ledger.follow(&*store, watch).await }
    });
    let (recorder, backlog) = Recorder::new();
    let server = Arc::new(Server {
        config,
        store,
        ledger,
        kinds,
        chain,
        recorder,
        service_range,
        health: Health::default(),
        metrics: Metrics::default(),
        turns: Turns::default(),
        openapi: OpenApi::default(),
        shapes: ShapesOfKinds::default(),
        tokens,
        policy: RwLock::default(),
        follower,
    });
    backlog.start(&server);
    crate::admission::service_address::adopt(&server).await.map_err(Error::Adopting)?;
    crate::startup::fill(&server).await?;
    if server.config.access.default_roles {
        crate::authz::bootstrap::fill(&server).await?;
    }
    Ok(server)
}

impl Server {
    /// The way in for a loop of this process, which acts as `user`
    /// (`system:serviceaccount:kube-system:statefulset-controller`).
    pub fn client(self: &Arc<Self>, user: &str) -> Arc<dyn Client> {
        Arc::new(Local::new(self.clone(), User::inside(user), None))
    }

    /// The same for a loop that runs in one of several servers: what it writes is refused once another one leads.
    pub fn client_in(self: &Arc<Self>, epoch: Epoch, user: &str) -> Arc<dyn Client> {
        Arc::new(Local::new(self.clone(), User::inside(user), Some(epoch)))
    }

    pub(crate) fn node_proxy(&self) -> Result<&dyn NodeProxy, Failure> {
        let why = "this server does not know the way to its nodes";
        self.config.node_proxy.as_deref().ok_or_else(|| Failure::unavailable(why))
    }

    pub(crate) fn now(&self) -> stdx::Timestamp {
        self.config.clock.now()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.follower.abort();
    }
}
