//! The Node object, its lease, and the CSI drivers of this node.
//!
//! Upstream: `pkg/kubelet/kubelet_node_status.go`, `nodestatus/setters.go`, `component-helpers/apimachinery/lease` (1.36).

mod machine;
mod status;

pub(crate) use machine::machine;

use crate::{Config, kubelet::Shared};
use api::{
    Failure, Kind,
    coordination::v1::{Lease, LeaseSpec},
    core::v1::{Node, NodeSpec},
    meta::{self, ObjectMeta, OwnerReference},
    storage::v1::{CSINode, CSINodeDriver, CSINodeSpec},
};
use std::{collections::BTreeMap, time::Duration};
use stdx::Backoff;
use world::{Change, ObjectKey};

/// Upstream: leases of 40 s are renewed after a quarter of it.
const LEASE_SECONDS: i32 = 40;
const RENEW: Duration = Duration::from_secs(10);
/// How often the conditions are looked at; they are written when they change, and as a heartbeat.
const LOOK: Duration = Duration::from_secs(10);
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// A write that loses against another one is tried again this often.
const ATTEMPTS: u32 = 8;

/// Creates the node's objects, or brings them up to date.
pub(crate) async fn register(config: &Config, shared: &Shared, port: u16) -> Result<(), Failure> {
    write(shared, || node(config, shared)).await?;
    let condition = shared.runtime.condition().await;
    let images = shared.runtime.images().await.unwrap_or_default();
    write(shared, || {
        let name = &config.node_name;
        let node = shared.client.world().cluster::<Node>(name);
        let mut node =
            node.ok_or_else(|| Failure::not_found(api::kind_of::<Node>(), name))?.to_owned();
        let status = status::of(config, shared, &node, port, &condition, images.clone());
        if node.status.as_ref() == Some(&status) {
            return Ok(None);
        }
        node.status = Some(status);
        Ok(Some(Change::status(node)))
    })
    .await?;
    write(shared, || csi_node(config, shared)).await
}

/// Renews the lease and keeps the conditions true, for ever.
pub(crate) async fn keep(config: &Config, shared: &Shared) {
    let lease = async {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(7));
        loop {
            match write(shared, || lease(config, shared)).await {
                Ok(()) => {
                    backoff.succeeded();
                    stdx::sleep(RENEW).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "renew the lease of the node");
                    stdx::sleep(backoff.failed()).await;
                }
            }
        }
    };
    let status = async {
        loop {
            stdx::sleep(LOOK).await;
            // Somebody deleted the node: as upstream, it comes back when the node's server starts again.
            if shared.client.world().cluster::<Node>(&config.node_name).is_none() {
                tracing::debug!("there is no Node object any more");
                continue;
            }
            let port = port_of(config, shared);
            if let Err(error) = register(config, shared, port).await {
                tracing::warn!(%error, "write the status of the node");
            }
        }
    };
    tokio::join!(lease, status);
}

/// As the node itself has published it.
fn port_of(config: &Config, shared: &Shared) -> u16 {
    let node = shared.client.world().cluster::<Node>(&config.node_name);
    let endpoints = node.and_then(|it| it.status.as_ref()?.daemon_endpoints.clone());
    let port = endpoints.and_then(|it| it.kubelet_endpoint).map(|it| it.port);
    port.and_then(|it| u16::try_from(it).ok()).unwrap_or(config.port)
}

/// Writes what `decide` says of the latest world; a conflict decides again.
async fn write(
    shared: &Shared,
    decide: impl Fn() -> Result<Option<Change>, Failure>,
) -> Result<(), Failure> {
    let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(200));
    loop {
        let Some(change) = decide()? else { return Ok(()) };
        match shared.client.write(vec![change]).await {
            Ok(_) => return Ok(()),
            Err(error) if error.code == 409 && backoff.failures() < ATTEMPTS => {
                stdx::sleep(backoff.failed()).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn node(config: &Config, shared: &Shared) -> Result<Option<Change>, Failure> {
    let name = &config.node_name;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let labels = [
        ("beta.kubernetes.io/arch", architecture),
        ("beta.kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture),
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
    ];
    let labels: BTreeMap<String, String> =
        labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let Some(known) = shared.client.world().cluster::<Node>(name) else {
        let metadata =
            ObjectMeta { name: Some(name.clone()), labels: Some(labels), ..ObjectMeta::default() };
        let cidr = Some(config.pod_cidr.clone()).filter(|it| !it.is_empty());
        let spec = NodeSpec {
            pod_cidrs: cidr.clone().map(|it| vec![it]),
            pod_cidr: cidr,
            ..NodeSpec::default()
        };
        return Ok(Some(Change::create(Node { metadata, spec: Some(spec), status: None })));
    };
    let mut node = known.to_owned();
    node.metadata.labels.get_or_insert_default().extend(labels);
    let spec = node.spec.get_or_insert_default();
    if spec.pod_cidr.is_none() && !config.pod_cidr.is_empty() {
        spec.pod_cidr = Some(config.pod_cidr.clone());
        spec.pod_cidrs = Some(vec![config.pod_cidr.clone()]);
    }
    Ok((node != *known).then(|| Change::update(node)))
}

fn lease(config: &Config, shared: &Shared) -> Result<Option<Change>, Failure> {
    let world = shared.client.world();
    let name = &config.node_name;
    let now = meta::micro_time(shared.clock.now());
    let key = ObjectKey::new(LEASE_NAMESPACE, name);
    if let Some(known) = world.get::<Lease>(&key) {
        let mut lease = known.to_owned();
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(name.clone());
        spec.lease_duration_seconds = Some(LEASE_SECONDS);
        spec.renew_time = Some(now);
        return Ok(Some(Change::update(lease)));
    }
    // A lease that nobody owned would stay for ever.
    let Some(node) = world.cluster::<Node>(name) else { return Ok(None) };
    let metadata = ObjectMeta {
        name: Some(name.clone()),
        namespace: Some(LEASE_NAMESPACE.to_owned()),
        owner_references: Some(vec![owner(&*node, false)]),
        ..ObjectMeta::default()
    };
    let spec = LeaseSpec {
        holder_identity: Some(name.clone()),
        lease_duration_seconds: Some(LEASE_SECONDS),
        renew_time: Some(now),
        ..LeaseSpec::default()
    };
    Ok(Some(Change::create(Lease { metadata, spec: Some(spec) })))
}

/// The drivers that answer on this node.
fn csi_node(config: &Config, shared: &Shared) -> Result<Option<Change>, Failure> {
    let world = shared.client.world();
    let name = &config.node_name;
    let driver = ::volumes::LOCAL_DRIVER;
    let wanted = CSINodeDriver {
        name: driver.to_owned(),
        node_id: name.clone(),
        topology_keys: Some(vec![::volumes::LOCAL_TOPOLOGY_KEY.to_owned()]),
        ..CSINodeDriver::default()
    };
    let served = shared.volumes.plugin(driver).is_some();
    let Some(known) = world.cluster::<CSINode>(name) else {
        let metadata = ObjectMeta {
            name: Some(name.clone()),
            owner_references: world.cluster::<Node>(name).map(|it| vec![owner(&*it, false)]),
            ..ObjectMeta::default()
        };
        let spec = CSINodeSpec { drivers: served.then_some(wanted).into_iter().collect() };
        return Ok(Some(Change::create(CSINode { metadata, spec })));
    };
    let mut csi_node = known.to_owned();
    let drivers = &mut csi_node.spec.drivers;
    let before = drivers.iter().position(|it| it.name == driver);
    match (before, served) {
        (Some(at), true) if drivers[at].topology_keys != wanted.topology_keys => {
            drivers[at] = wanted
        }
        (Some(_), true) | (None, false) => return Ok(None),
        (None, true) => drivers.push(wanted),
        (Some(at), false) => drop(drivers.remove(at)),
    }
    Ok(Some(Change::update(csi_node)))
}

fn owner<T: Kind>(of: &T, controller: bool) -> OwnerReference {
    OwnerReference {
        api_version: T::API_VERSION.to_owned(),
        kind: T::KIND.to_owned(),
        name: of.name().to_owned(),
        uid: of.uid().to_owned(),
        controller: controller.then_some(true),
        block_owner_deletion: None,
    }
}
