//! Objects that a new cluster comes with, made once: what a user edits or deletes stays so.

use anyhow::{Context, Result};
use api::{
    codec::from_value,
    core::v1::ConfigMap,
    storage::v1::{CSIDriver, StorageClass},
};
use client::Client;
use serde_json::json;
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
