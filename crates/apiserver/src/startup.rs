//! What every cluster has: its namespaces and the Service by which pods find the door.
//!
//! Upstream: `pkg/controlplane/controller/{systemnamespaces,kubernetesservice,defaultservicecidr}`.

use crate::{error::Error, server::Server};
use api::{
    KindRef,
    core::v1::{Namespace, Service, ServicePort, ServiceSpec},
    k8s::apimachinery::pkg::util::intstr::IntOrString,
    meta::ObjectMeta,
    networking::{
        service_cidr,
        v1::{ServiceCIDR, ServiceCIDRSpec},
    },
    scheduling::priority_class,
};
use client::Client;
use std::{collections::BTreeMap, sync::Arc};
use world::{Change, ObjectKey};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

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
    // Before the first Service: its address is of this range.
    create(server, &*client, Change::create(range(server))).await?;
    create(server, &*client, Change::create(kubernetes(server))).await
}

/// Where Services get their addresses from, unless somebody adds more. An older one that says otherwise stays.
fn range(server: &Server) -> ServiceCIDR {
    ServiceCIDR {
        metadata: ObjectMeta {
            name: Some(service_cidr::DEFAULT.to_owned()),
            finalizers: Some(vec![service_cidr::FINALIZER.to_owned()]),
            ..Default::default()
        },
        spec: Some(ServiceCIDRSpec { cidrs: Some(vec![server.service_range.to_string()]) }),
        ..Default::default()
    }
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
