//! A provisioner that is not ours: a program over kube-rs that makes a directory for each claim of its class, as
//! nfs-subdir-external-provisioner does. It runs in a pod, and has what a pod is given: the API by its Service, a token
//! and a certificate, the share at `/persistentvolumes`, and its settings as variables.

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
    api::{DeleteParams, ListParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const ASKED: &str = "volume.kubernetes.io/storage-provisioner";
const MADE_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Where its pod has the share.
const MOUNT: &str = "/persistentvolumes";

/// A share that it has, and the name that classes call it by.
struct Share {
    name: String,
    server: String,
    path: String,
}

impl Share {
    fn of_environment() -> Share {
        let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is set"));
        let (name, server) = (variable("PROVISIONER_NAME"), variable("NFS_SERVER"));
        Share { name, server, path: variable("NFS_PATH") }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let share = Share::of_environment();
    // As client-go finds the API, by variables; and by its name, which is what the work goes through.
    let by_variables =
        client(Config::incluster_env().expect("variables, a token and a certificate"));
    let classes: Api<StorageClass> = Api::all(by_variables);
    classes.list(&ListParams::default()).await.expect("the API by variables");
    let client = client(Config::incluster_dns().expect("a token and a certificate"));
    lead(&client, &share.name).await;
    println!("{} leads", share.name);
    let served = tokio::try_join!(claims(&client, &share), volumes(&client, &share));
    panic!("the provisioner ends: {served:?}");
}

fn client(config: Config) -> Client {
    Client::try_from(config).expect("a client")
}

/// Takes the lock, as client-go writes it on Endpoints.
async fn lead(client: &Client, name: &str) {
    let locks: Api<Endpoints> = Api::default_namespaced(client.clone());
    let lock = name.replace('/', "-");
    let now = json!(MicroTime(k8s_openapi::jiff::Timestamp::now()));
    let record = json!({
        "holderIdentity": "story", "leaseDurationSeconds": 15, "acquireTime": now,
        "renewTime": now, "leaderTransitions": 0,
    });
    let object = json!({"metadata": {"name": lock, "annotations": {LEADER: record.to_string()}}});
    let object: Endpoints = serde_json::from_value(object).expect("Endpoints");
    let held = match locks.create(&PostParams::default(), &object).await {
        // One that ran here before has ended: there is one replica.
        Err(kube::Error::Api(status)) if status.code == 409 => locks.get(&lock).await,
        other => other,
    };
    let renewed =
        locks.replace(&lock, &PostParams::default(), &held.expect("the lock is made")).await;
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
    let directory = format!("{namespace}-{name}-{volume}");
    let place = Path::new(MOUNT).join(&directory);
    fs::create_dir_all(&place).expect("a directory");
    fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).expect("a directory of all");
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
            "nfs": {"server": share.server, "path": format!("{}/{directory}", share.path)},
        },
    });
    let object: PersistentVolume = serde_json::from_value(object).expect("a volume");
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    match volumes.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}

/// Deletes or archives what is released: the directory, then the object.
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
        let spec = volume.spec.clone().unwrap_or_default();
        let path = spec.nfs.expect("an NFS volume").path;
        let directory = path.rsplit('/').next().expect("a directory of the share");
        let place = Path::new(MOUNT).join(directory);
        let classes: Api<StorageClass> = Api::all(client.clone());
        let class = classes.get(&spec.storage_class_name.unwrap_or_default()).await;
        let parameters = class.expect("its class").parameters.unwrap_or_default();
        if parameters.get("archiveOnDelete").is_some_and(|it| it == "false") {
            fs::remove_dir_all(&place).expect("its directory goes");
        } else {
            let archived = Path::new(MOUNT).join(format!("archived-{directory}"));
            fs::rename(&place, archived).expect("its directory is archived");
        }
        let name = volume.metadata.name.clone().unwrap_or_default();
        all.delete(&name, &DeleteParams::default()).await.expect("the volume goes");
    }
    Ok(())
}
