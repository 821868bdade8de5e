//! What every cluster has: its namespaces and the Service by which pods find the door.
//!
//! Upstream: `pkg/controlplane/controller/{systemnamespaces,kubernetesservice}`.

use crate::{error::Error, server::Server};
use api::{
    Kind, KindRef,
    core::v1::{
        EndpointAddress, EndpointPort as CoreEndpointPort, EndpointSubset, Endpoints, Namespace,
        Service, ServicePort, ServiceSpec,
    },
    discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    k8s::apimachinery::pkg::util::intstr::IntOrString,
    meta::ObjectMeta,
    scheduling::priority_class,
};
use client::Client;
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};
use world::{Change, Expected, ObjectKey};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

impl Server {
    /// Says where pods reach this door: the endpoints of `default/kubernetes`.
    ///
    /// Upstream: `pkg/controlplane/reconcilers/instancecount.go`.
    pub async fn advertise(self: &Arc<Self>, address: IpAddr, port: u16) -> Result<(), Error> {
        let client = self.client("system:apiserver");
        let (port, ready) = (i32::from(port), Some(true));
        let named = |labels: &[(&str, &str)]| ObjectMeta {
            name: Some("kubernetes".to_owned()),
            namespace: Some("default".to_owned()),
            labels: Some(labels.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()),
            ..Default::default()
        };
        let (https, tcp) = (Some("https".to_owned()), Some("TCP".to_owned()));
        let endpoints = Endpoints {
            metadata: named(&[("endpointslice.kubernetes.io/skip-mirror", "true")]),
            subsets: Some(vec![EndpointSubset {
                addresses: Some(vec![EndpointAddress {
                    ip: address.to_string(),
                    ..Default::default()
                }]),
                ports: Some(vec![CoreEndpointPort {
                    name: https.clone(),
                    port,
                    protocol: tcp.clone(),
                    ..Default::default()
                }]),
                ..Default::default()
            }]),
        };
        let slice = EndpointSlice {
            metadata: named(&[("kubernetes.io/service-name", "kubernetes")]),
            address_type: if address.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned(),
            endpoints: Some(vec![Endpoint {
                addresses: vec![address.to_string()],
                conditions: Some(EndpointConditions { ready, ..Default::default() }),
                ..Default::default()
            }]),
            ports: Some(vec![EndpointPort {
                name: https,
                port: Some(port),
                protocol: tcp,
                ..Default::default()
            }]),
        };
        put(self, &*client, endpoints).await?;
        put(self, &*client, slice).await
    }
}

/// Creates an object or writes it over the one that is there.
async fn put<T: Kind>(server: &Server, client: &dyn Client, object: T) -> Result<(), Error> {
    let key = ObjectKey::of(&object);
    let change = match server.ledger.view().world.row_of::<T>(&key) {
        None => Change::create(object),
        Some(_) => Change { expected: Expected::Anything, ..Change::update(object) },
    };
    let written = client.write(vec![change]).await;
    let what = format!("{} {key}", T::KIND);
    written.map(drop).map_err(|source| Error::Startup { what, source })
}

/// Writes what is missing.
pub(crate) async fn fill(server: &Arc<Server>) -> Result<(), Error> {
    let client = server.client("system:apiserver");
    for name in NAMESPACES {
        let labels = BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), name.to_owned())]);
        let metadata =
            ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..Default::default() };
        let namespace = Namespace { metadata, ..Default::default() };
        create(server, &*client, Change::create(namespace)).await?;
    }
    for class in priority_class::of_system() {
        create(server, &*client, Change::create(class)).await?;
    }
    create(server, &*client, Change::create(kubernetes(server))).await
}

/// `default/kubernetes`. Its endpoints are written by whoever knows where the door listens.
fn kubernetes(server: &Server) -> Service {
    let labels = [("component", "apiserver"), ("provider", "kubernetes")];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Service {
        metadata: ObjectMeta {
            name: Some("kubernetes".to_owned()),
            namespace: Some("default".to_owned()),
            labels: Some(BTreeMap::from(labels)),
            ..Default::default()
        },
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            cluster_ip: Some(server.service_range.first().to_string()),
            session_affinity: Some("None".to_owned()),
            ports: Some(vec![ServicePort {
                name: Some("https".to_owned()),
                port: 443,
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::Int(6443)),
                ..Default::default()
            }]),
            ..Default::default()
        }),
        ..Default::default()
    }
}

async fn create(server: &Server, client: &dyn Client, change: Change) -> Result<(), Error> {
    let (kind, key): (KindRef, ObjectKey) = (change.kind.clone(), change.key.clone());
    if server.ledger.view().row(&kind, &key).is_some() {
        return Ok(());
    }
    match client.write(vec![change]).await {
        Ok(_) => Ok(()),
        Err(failure) if failure.is_already_exists() => Ok(()),
        Err(source) => Err(Error::Startup { what: format!("{} {key}", kind.kind), source }),
    }
}
