//! A whole control plane in one process, over a store in memory, with hands that only pretend.
//!
//! The door, the loops and the scheduler are the real ones. [`Cluster::node`] plays a node: it lets
//! pods become ready and lets go of those that are deleted. [`Pool`] plays a volume plugin.
#![forbid(unsafe_code)]

mod node;
mod pool;

pub use pool::Pool;

use api::{AnyObject, Failure};
use client::Client;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use stdx::{Shutdown, SystemClock, SystemEntropy};
use tokio::task::JoinHandle;
use world::{Change, Expected, ObjectKey, Verb, World};

/// Long enough for the slowest machine; whoever waits longer waits forever.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Cluster {
    pub client: Arc<dyn Client>,
    pub pool: Arc<Pool>,
    shutdown: Shutdown,
    tasks: Vec<JoinHandle<()>>,
    nodes: Vec<JoinHandle<()>>,
}

impl Cluster {
    /// Starts one with the class `local` and no node.
    pub async fn start() -> Cluster {
        let clock = Arc::new(SystemClock);
        let store = Arc::new(store::backend::Memory::new(clock.clone()));
        let config = apiserver::Config {
            service_cidr: "10.96.0.0/12".to_owned(),
            admission_enabled: BTreeSet::new(),
            admission_disabled: BTreeSet::new(),
            clock: clock.clone(),
            entropy: Arc::new(SystemEntropy::default()),
            version: "v1.36.0".to_owned(),
            node_proxy: None,
            access: Default::default(),
            patience: Default::default(),
        };
        let server = apiserver::open(store, config).await.expect("an empty store opens");
        let client = server.client("system:simulator");
        let pool = Arc::new(Pool::default());
        let (shutdown, signal) = Shutdown::new();
        let mut loops = controllers::controllers("no certificate: nobody connects", None, 0);
        loops.push(Arc::new(scheduler::Scheduler));
        let connect = |name: &str| server.client(name);
        let tasks = manager::start(loops, connect, pool.clone(), clock, signal);
        Cluster { client, pool, shutdown, tasks, nodes: Vec::new() }
    }

    /// Adds a node that is ready and plays its part for the pods bound to it.
    pub async fn node(&mut self, name: &str) {
        self.nodes.push(node::start(self.client.clone(), name).await);
    }

    /// Creates objects from JSON documents, as a user would.
    pub async fn create(&self, document: &serde_json::Value) -> Result<(), Failure> {
        let (kind, object) = parse(document);
        let key = ObjectKey::of_any(&*object);
        let object = Some(Arc::new(object));
        let change = Change { verb: Verb::Create, kind, key, expected: Expected::Absent, object };
        self.client.write(vec![change]).await.map(drop)
    }

    /// The first world from now on in which `found` finds something.
    ///
    /// # Panics
    /// After a minute, with everything that there is.
    pub async fn until<T>(&self, found: impl FnMut(&World) -> Option<T>) -> T {
        let mut follower = self.client.follow();
        match stdx::timeout(PATIENCE, follower.until(found)).await {
            Some(found) => found.expect("the cluster runs"),
            None => panic!("what was waited for did not come; there is:\n{}", self.describe()),
        }
    }

    /// Every object as it is stored.
    pub fn describe(&self) -> String {
        let world = self.client.world();
        let rows = world.tables().flat_map(|table| table.rows(None));
        rows.map(|row| format!("{row:?} {}\n", String::from_utf8_lossy(&row.bytes))).collect()
    }

    pub async fn stop(self) {
        self.shutdown.begin();
        self.nodes.iter().for_each(JoinHandle::abort);
        for task in self.tasks {
            task.await.expect("a loop ends without a panic");
        }
    }
}

fn parse(document: &serde_json::Value) -> (api::KindRef, AnyObject) {
    let kind = api::kinds().iter().find(|it| document["kind"] == it.kind.as_str());
    let kind = kind.expect("a kind that we know").clone();
    let json = serde_json::to_vec(document).expect("plain data");
    let (object, unknown) = kind.rules.decode(&json).expect("an object of its kind");
    assert!(unknown.is_empty(), "unknown fields: {unknown:?}");
    (kind, object)
}
