//! Objects that a new cluster comes with, made once: what a user edits or deletes stays so.

use anyhow::{Context, Result};
use api::{
    codec::from_value,
    core::v1::{ConfigMap, Endpoints},
    discovery::v1::EndpointSlice,
    storage::v1::{CSIDriver, StorageClass},
};
use client::Client;
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use world::{Change, ObjectKey};

/// Says which defaults were made before: it goes into the ledger in the same commit as the class.
const MARKER: &str = "stanchion-defaults";
const DRIVER: &str = "local.csi.stanchion.dev";

pub(crate) async fn create(client: &dyn Client) -> Result<()> {
    let world = client.world();
    if world.cluster::<CSIDriver>(DRIVER).is_none() {
        let driver: CSIDriver = from_value(&json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": DRIVER},
            "spec": {
                "attachRequired": false, "podInfoOnMount": true, "fsGroupPolicy": "File",
                "volumeLifecycleModes": ["Persistent"], "storageCapacity": false,
            },
        }))?;
        client.write(vec![Change::create(driver)]).await.context("create CSIDriver")?;
    }
    if world.get::<ConfigMap>(&ObjectKey::new("kube-system", MARKER)).is_some() {
        return Ok(());
    }
    let marker: ConfigMap = from_value(&json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": MARKER, "namespace": "kube-system"},
        "data": {"storage-class": "local"},
    }))?;
    let mut changes = vec![Change::create(marker)];
    if world.cluster::<StorageClass>("local").is_none() {
        let class: StorageClass = from_value(&json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {
                "name": "local",
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": DRIVER, "reclaimPolicy": "Delete", "allowVolumeExpansion": true,
            "volumeBindingMode": "WaitForFirstConsumer",
        }))?;
        changes.push(Change::create(class));
    }
    client.write(changes).await.context("create StorageClass local")?;
    Ok(())
}

/// Points the service `default/kubernetes` at this server.
pub(crate) async fn publish(client: &dyn Client, server: SocketAddr) -> Result<()> {
    let key = ObjectKey::new("default", "kubernetes");
    let (address, port) = (server.ip(), server.port());
    let meta = json!({
        "name": "kubernetes", "namespace": "default",
        "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
    });
    let endpoints: Endpoints = from_value(&json!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": meta,
        "subsets": [{
            "addresses": [{"ip": address}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }],
    }))?;
    let slice: EndpointSlice = from_value(&json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": if matches!(address, IpAddr::V4(_)) { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    }))?;
    let world = client.world();
    let mut changes = Vec::new();
    match world.get::<Endpoints>(&key) {
        None => changes.push(Change::create(endpoints)),
        Some(old) if old.subsets != endpoints.subsets => {
            changes
                .push(Change::update(Endpoints { subsets: endpoints.subsets, ..old.to_owned() }));
        }
        Some(_) => {}
    }
    match world.get::<EndpointSlice>(&key) {
        None => changes.push(Change::create(slice)),
        Some(old) if old.endpoints != slice.endpoints || old.ports != slice.ports => {
            let EndpointSlice { endpoints, ports, .. } = slice;
            changes.push(Change::update(EndpointSlice { endpoints, ports, ..old.to_owned() }));
        }
        Some(_) => {}
    }
    if !changes.is_empty() {
        client.write(changes).await.context("publish the address of the API")?;
    }
    Ok(())
}
