//! A provisioner that is not ours: a program over kube-rs that makes a directory for each claim of its class, as
//! nfs-subdir-external-provisioner does, with its service account's rights and a lock on Endpoints.

use futures_util::{TryStreamExt, pin_mut};
use k8s_openapi::{
    api::{
        core::v1::{Endpoints, PersistentVolume, PersistentVolumeClaim},
        storage::v1::StorageClass,
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const ASKED: &str = "volume.kubernetes.io/storage-provisioner";
const MADE_BY: &str = "pv.kubernetes.io/provisioned-by";

/// A share that it has, and the name that classes call it by.
pub(crate) struct Share {
    pub(crate) name: String,
    pub(crate) server: String,
    pub(crate) path: PathBuf,
}

/// Serves on threads of the caller's network until dropped.
pub(crate) fn start(
    share: Share,
    url: &str,
    authority: &Path,
    token: &str,
) -> tokio::runtime::Runtime {
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": url, "certificate-authority": authority}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    let kubeconfig: Kubeconfig = serde_json::from_value(kubeconfig).expect("a kubeconfig");
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().expect("a runtime");
    runtime.spawn(async move {
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("a config");
        let client = Client::try_from(config).expect("a client");
        lead(&client, &share.name).await;
        let served = tokio::try_join!(claims(&client, &share), volumes(&client, &share));
        panic!("the provisioner ends: {served:?}");
    });
    runtime
}

/// Takes the lock, as client-go writes it on Endpoints.
async fn lead(client: &Client, name: &str) {
    let locks: Api<Endpoints> = Api::namespaced(client.clone(), "default");
    let lock = name.replace('/', "-");
    let now = json!(MicroTime(k8s_openapi::jiff::Timestamp::now()));
    let record = json!({
        "holderIdentity": "story", "leaseDurationSeconds": 15, "acquireTime": now,
        "renewTime": now, "leaderTransitions": 0,
    });
    let object = json!({"metadata": {"name": lock, "annotations": {LEADER: record.to_string()}}});
    let object: Endpoints = serde_json::from_value(object).expect("Endpoints");
    let made = locks.create(&PostParams::default(), &object).await.expect("the lock is made");
    let renewed = locks.replace(&lock, &PostParams::default(), &made).await;
    renewed.expect("the lock is renewed");
}

async fn claims(client: &Client, share: &Share) -> Result<(), watcher::Error> {
    let all: Api<PersistentVolumeClaim> = Api::all(client.clone());
    let events = watcher(all, watcher::Config::default()).default_backoff().applied_objects();
    pin_mut!(events);
    while let Some(claim) = events.try_next().await? {
        let annotations = claim.metadata.annotations.clone().unwrap_or_default();
        let spec = claim.spec.clone().unwrap_or_default();
        let asked = annotations.get(ASKED).map(String::as_str) == Some(&*share.name);
        if asked && spec.volume_name.is_none() {
            provision(client, share, &claim).await.expect("a volume for the claim");
        }
    }
    Ok(())
}

async fn provision(
    client: &Client,
    share: &Share,
    claim: &PersistentVolumeClaim,
) -> Result<(), kube::Error> {
    let about = &claim.metadata;
    let annotations = about.annotations.clone().unwrap_or_default();
    let spec = claim.spec.clone().unwrap_or_default();
    let class = annotations.get("volume.beta.kubernetes.io/storage-class").cloned();
    let class = class.or(spec.storage_class_name).unwrap_or_default();
    let classes: Api<StorageClass> = Api::all(client.clone());
    let found = classes.get(&class).await?;
    let (namespace, name) = (about.namespace.clone().unwrap(), about.name.clone().unwrap());
    let volume = format!("pvc-{}", about.uid.clone().unwrap());
    let path = share.path.join(format!("{namespace}-{name}-{volume}"));
    fs::create_dir_all(&path).expect("a directory");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("a directory of all");
    let object = json!({
        "metadata": {"name": volume, "annotations": {MADE_BY: share.name}},
        "spec": {
            "capacity": {"storage": spec.resources.unwrap().requests.unwrap()["storage"]},
            "accessModes": spec.access_modes,
            "persistentVolumeReclaimPolicy": found.reclaim_policy,
            "storageClassName": class,
            "mountOptions": found.mount_options,
            "claimRef": {
                "kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": namespace,
                "name": name, "uid": about.uid, "resourceVersion": about.resource_version,
            },
            "nfs": {"server": share.server, "path": path},
        },
    });
    let object: PersistentVolume = serde_json::from_value(object).expect("a volume");
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    match volumes.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}

/// Deletes what is released: the directory, then the object.
async fn volumes(client: &Client, share: &Share) -> Result<(), watcher::Error> {
    let all: Api<PersistentVolume> = Api::all(client.clone());
    let events = watcher(all.clone(), watcher::Config::default()).default_backoff();
    let events = events.applied_objects();
    pin_mut!(events);
    while let Some(volume) = events.try_next().await? {
        let annotations = volume.metadata.annotations.clone().unwrap_or_default();
        let phase = volume.status.as_ref().and_then(|it| it.phase.clone()).unwrap_or_default();
        let ours = annotations.get(MADE_BY).map(String::as_str) == Some(&*share.name);
        if !ours || phase != "Released" || volume.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let source = volume.spec.as_ref().and_then(|it| it.nfs.as_ref());
        fs::remove_dir_all(&source.expect("an NFS volume").path).expect("its directory goes");
        let name = volume.metadata.name.clone().unwrap_or_default();
        all.delete(&name, &DeleteParams::default()).await.expect("the volume goes");
    }
    Ok(())
}
