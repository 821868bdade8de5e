//! Which servers share the ledger: each says under a lease where pods reach it, and whoever sees that change writes the
//! endpoints of `default/kubernetes` anew, so that they name all servers that live and no other.
//!
//! Upstream: `pkg/controlplane/reconcilers/lease.go`, with its keys and its time to live. Unlike there, the lease is kept
//! alive instead of being written anew, a change is told by a watch instead of being looked for every 10 s, and
//! servers may have ports of their own.

use crate::{commit::store_failure, server::Server};
use api::{
    Failure, Kind, Object,
    core::v1::{EndpointAddress, EndpointPort as CoreEndpointPort, EndpointSubset, Endpoints},
    discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    meta::ObjectMeta,
};
use client::Client;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use stdx::{Backoff, ShutdownSignal};
use store::{Batch, Change as StoreChange, Expect, KeyRange, LeaseError, LeaseId, Watch, Write};
use world::{Change, ObjectKey, World};

/// Upstream's keys: an address each, with an Endpoints object that holds it.
const PLACES: &str = "/registry/masterleases/";

/// Upstream's `DefaultEndpointReconcilerTTL`.
const TTL: Duration = Duration::from_secs(15);

/// Two signs of life may be lost.
const RENEWED: Duration = Duration::from_secs(5);

/// An etcd that does not answer does not hold up a server's end: what is left goes with its lease.
const FAREWELL: Duration = Duration::from_secs(3);

/// Somebody else has written the same objects: so often, then with the next turn.
const ATTEMPTS: usize = 5;

const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";

/// One of several servers, as the others know it.
pub struct Presence {
    server: Arc<Server>,
    own: SocketAddr,
    lease: Option<LeaseId>,
    watch: Option<Box<dyn Watch>>,
}

impl Server {
    /// Says where pods reach this door, the only one: the endpoints of `default/kubernetes` are this address.
    pub async fn advertise(self: &Arc<Self>, address: IpAddr, port: u16) -> Result<(), Failure> {
        publish(self, &BTreeSet::from([SocketAddr::new(address, port)])).await
    }

    /// Says where pods reach this door, one of several. Holds for as long as [`Presence::keep`] runs, and up to 15 s
    /// longer if it does not end in order.
    pub async fn appear(self: &Arc<Self>, address: IpAddr, port: u16) -> Result<Presence, Failure> {
        let own = SocketAddr::new(address, port);
        let mut presence = Presence { server: self.clone(), own, lease: None, watch: None };
        presence.turn().await?;
        Ok(presence)
    }
}

impl Presence {
    /// Stays known and keeps the endpoints true until shutdown, then takes this server out of them at once.
    pub async fn keep(mut self, mut signal: ShutdownSignal) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        loop {
            let turned = tokio::select! {
                () = signal.wait() => break,
                turned = self.next() => turned,
            };
            match turned {
                Ok(()) => backoff.succeeded(),
                Err(failure) => {
                    tracing::warn!("keeping the endpoints of {NAMESPACE}/{NAME}: {failure}");
                    tokio::select! {
                        () = signal.wait() => break,
                        () = stdx::sleep(backoff.failed()) => {}
                    }
                }
            }
        }
        match stdx::timeout(FAREWELL, self.leave()).await {
            Some(Ok(())) => {}
            Some(Err(failure)) => tracing::warn!("leaving {NAMESPACE}/{NAME}: {failure}"),
            None => tracing::warn!("leaving {NAMESPACE}/{NAME}: the ledger does not answer"),
        }
    }

    /// One turn, once a server comes or goes, or a sign of life is due.
    async fn next(&mut self) -> Result<(), Failure> {
        if let Some(watch) = self.watch.as_mut() {
            match stdx::timeout(RENEWED, watch.next()).await {
                None | Some(Ok(_)) => {}
                // It is begun anew.
                Some(Err(_ended)) => self.watch = None,
            }
        }
        self.turn().await
    }

    async fn turn(&mut self) -> Result<(), Failure> {
        self.live().await?;
        if self.watch.is_none() {
            let latest = self.server.store.latest().await.map_err(store_failure)?;
            let watch = self.server.store.watch(KeyRange::prefix(PLACES), latest);
            self.watch = Some(watch.map_err(|error| Failure::internal(stdx::one_line(&error)))?);
        }
        for _ in 0..ATTEMPTS {
            // Before the others are listed, so that a list of before is refused.
            let before = self.server.fresh(None).await?;
            let places = places(&self.server, self.own.port()).await?;
            if !places.contains(&self.own) {
                // Its lease has ended, or another server of the same address has left.
                self.lease = None;
                self.live().await?;
                continue;
            }
            match write(&self.server, &before.world, &places).await {
                Err(failure) if failure.is_conflict() || failure.is_already_exists() => {}
                written => return written,
            }
        }
        Err(Failure::unavailable("another server writes them"))
    }

    /// A sign of life; the key is written if it is not there any more.
    async fn live(&mut self) -> Result<(), Failure> {
        let store = &self.server.store;
        if let Some(lease) = self.lease {
            match store.keep_alive(lease).await {
                Ok(()) => return Ok(()),
                Err(LeaseError::Gone { .. }) => self.lease = None,
                Err(LeaseError::Store(error)) => return Err(store_failure(error)),
            }
        }
        let lease = store.grant(TTL).await.map_err(store_failure)?;
        let value = api::codec::encode(&endpoints(&BTreeSet::from([self.own]), None)).into();
        let change = StoreChange::Put { value, lease: Some(lease) };
        let key = format!("{PLACES}{}", self.own).into();
        let mut batch = Batch::new();
        batch.writes.push(Write { key, expect: Expect::Whatever, change });
        // Written or not: its end is the lease's.
        self.lease = Some(lease);
        if let Err(error) = store.commit(batch).await {
            self.lease = None;
            return Err(crate::commit::commit_failure(error));
        }
        Ok(())
    }

    async fn leave(&mut self) -> Result<(), Failure> {
        let Some(lease) = self.lease.take() else { return Ok(()) };
        match self.server.store.revoke(lease).await {
            Ok(()) | Err(LeaseError::Gone { .. }) => {}
            Err(LeaseError::Store(error)) => return Err(store_failure(error)),
        }
        for _ in 0..ATTEMPTS {
            let before = self.server.fresh(None).await?;
            let places = places(&self.server, self.own.port()).await?;
            match write(&self.server, &before.world, &places).await {
                // One of the others has seen it.
                Err(failure) if failure.is_conflict() || failure.is_already_exists() => {}
                written => return written,
            }
        }
        Ok(())
    }
}

/// Where all servers are. Upstream's have one port, and it is ours.
async fn places(server: &Server, port: u16) -> Result<BTreeSet<SocketAddr>, Failure> {
    let snapshot = server.store.snapshot().await.map_err(store_failure)?;
    let page = snapshot.range(&KeyRange::prefix(PLACES), usize::MAX, None);
    let page = page.map_err(|error| Failure::internal(stdx::one_line(&error)))?;
    let keys = page.entries.iter().filter_map(|it| it.key.as_str().strip_prefix(PLACES));
    Ok(keys.filter_map(|it| place(it, port)).collect())
}

/// Upstream's keys are addresses, and all of its servers have one port.
fn place(key: &str, port: u16) -> Option<SocketAddr> {
    key.parse().ok().or_else(|| Some(SocketAddr::new(key.parse::<IpAddr>().ok()?, port)))
}

/// Whoever writes meanwhile does it for the same reason.
async fn publish(server: &Arc<Server>, places: &BTreeSet<SocketAddr>) -> Result<(), Failure> {
    for _ in 0..ATTEMPTS {
        let before = server.fresh(None).await?;
        match write(server, &before.world, places).await {
            Err(failure) if failure.is_conflict() || failure.is_already_exists() => {}
            written => return written,
        }
    }
    Err(Failure::unavailable("somebody else writes them"))
}

/// Writes what is not so in `before`, and fails where it is not as it was there any more.
async fn write(
    server: &Arc<Server>,
    before: &World,
    places: &BTreeSet<SocketAddr>,
) -> Result<(), Failure> {
    let client = server.client("system:apiserver");
    let old = before.get::<Endpoints>(&ObjectKey::new(NAMESPACE, NAME)).map(|it| it.to_owned());
    let new = endpoints(places, old.as_ref());
    put(&*client, old, new).await?;
    let slices = slices(places);
    for (name, new) in &slices {
        let key = ObjectKey::new(NAMESPACE, name);
        let old = before.get::<EndpointSlice>(&key).map(|it| it.to_owned());
        match old {
            // The type of addresses cannot be changed.
            Some(old) if old.address_type != new.address_type => {
                client.write(vec![Change::delete(&old)]).await?;
                put(&*client, None, new.clone()).await?;
            }
            Some(old) => {
                let mut new = EndpointSlice { metadata: old.metadata.clone(), ..new.clone() };
                new.metadata.labels.get_or_insert_default().extend(labels(SERVICE));
                put(&*client, Some(old), new).await?;
            }
            None => put(&*client, None, new.clone()).await?,
        }
    }
    let is_ours = |it: &EndpointSlice| {
        it.metadata.namespace.as_deref() == Some(NAMESPACE)
            && it.name().strip_prefix(NAME).is_some_and(|it| it.starts_with('-'))
            && it
                .metadata
                .labels
                .as_ref()
                .is_some_and(|it| it.get(SERVICE[0].0).is_some_and(|it| it == NAME))
    };
    for old in before.all::<EndpointSlice>().filter(|it| is_ours(it)) {
        if !slices.contains_key(old.name()) {
            match client.write(vec![Change::delete(&*old)]).await {
                Err(failure) if !failure.is_not_found() => return Err(failure),
                _ => {}
            }
        }
    }
    Ok(())
}

async fn put<T: Kind + PartialEq>(
    client: &dyn Client,
    old: Option<T>,
    new: T,
) -> Result<(), Failure> {
    let change = match old {
        Some(old) if old == new => return Ok(()),
        Some(_) => Change::update(new),
        None => Change::create(new),
    };
    client.write(vec![change]).await.map(drop)
}

const SERVICE: [(&str, &str); 1] = [("kubernetes.io/service-name", NAME)];
const UNMIRRORED: [(&str, &str); 1] = [("endpointslice.kubernetes.io/skip-mirror", "true")];

fn labels<const N: usize>(labels: [(&str, &str); N]) -> BTreeMap<String, String> {
    labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn named(name: &str, labels: BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(NAMESPACE.to_owned()),
        labels: Some(labels),
        ..Default::default()
    }
}

/// A part for every port.
fn endpoints(places: &BTreeSet<SocketAddr>, old: Option<&Endpoints>) -> Endpoints {
    let mut by_port: BTreeMap<u16, Vec<EndpointAddress>> = BTreeMap::new();
    for it in places {
        let address = EndpointAddress { ip: it.ip().to_string(), ..Default::default() };
        by_port.entry(it.port()).or_default().push(address);
    }
    let subsets = by_port.into_iter().map(|(port, addresses)| EndpointSubset {
        addresses: Some(addresses),
        ports: Some(vec![CoreEndpointPort {
            name: Some("https".to_owned()),
            port: i32::from(port),
            protocol: Some("TCP".to_owned()),
            ..Default::default()
        }]),
        ..Default::default()
    });
    let subsets: Vec<EndpointSubset> = subsets.collect();
    let mut metadata = match old {
        Some(old) => old.metadata.clone(),
        None => named(NAME, BTreeMap::new()),
    };
    metadata.labels.get_or_insert_default().extend(labels(UNMIRRORED));
    Endpoints { metadata, subsets: (!subsets.is_empty()).then_some(subsets) }
}

/// By name: one for every port and kind of address, the first of which has the name that upstream's has.
fn slices(places: &BTreeSet<SocketAddr>) -> BTreeMap<String, EndpointSlice> {
    let mut groups: BTreeMap<(bool, u16), Vec<Endpoint>> = BTreeMap::new();
    for it in places {
        let endpoint = Endpoint {
            addresses: vec![it.ip().to_string()],
            conditions: Some(EndpointConditions { ready: Some(true), ..Default::default() }),
            ..Default::default()
        };
        groups.entry((it.is_ipv6(), it.port())).or_default().push(endpoint);
    }
    if groups.is_empty() {
        groups.insert((false, 0), Vec::new());
    }
    let slices = groups.into_iter().enumerate().map(|(n, ((is_ipv6, port), endpoints))| {
        let name = match (n, is_ipv6) {
            (0, _) => NAME.to_owned(),
            (_, false) => format!("{NAME}-{port}"),
            (_, true) => format!("{NAME}-ipv6-{port}"),
        };
        let port = EndpointPort {
            name: Some("https".to_owned()),
            port: Some(i32::from(port)),
            protocol: Some("TCP".to_owned()),
            ..Default::default()
        };
        let slice = EndpointSlice {
            metadata: named(&name, labels(SERVICE)),
            address_type: if is_ipv6 { "IPv6" } else { "IPv4" }.to_owned(),
            ports: (!endpoints.is_empty()).then(|| vec![port]),
            endpoints: (!endpoints.is_empty()).then_some(endpoints),
        };
        (name, slice)
    });
    slices.collect()
}
