//! What a pod's volume means: claims and volumes that name each other, files that exist.

use crate::fakes::{FakeClient, Node, with_volumes, yaml};
use api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod};
use client::Client as _;
use kubelet::{
    plan::volumes::{Mountable, resolve},
    spec::Facts,
};
use std::sync::Arc;
use world::{Change, ObjectKey, VolumeCall};

fn first(client: &FakeClient, pod: &Pod) -> Result<Mountable, String> {
    let facts = Facts { node_name: "n1".to_owned(), kubelet_dir: "/k".into(), ..Facts::default() };
    let volume = &pod.spec.as_ref().unwrap().volumes.as_ref().unwrap()[0];
    resolve(&client.world(), pod, volume, &facts, "")
}

fn change(
    client: &Arc<FakeClient>,
    change: impl FnOnce(&mut PersistentVolume, &mut PersistentVolumeClaim),
) {
    let world = client.world();
    let key = ObjectKey::new("default", "data");
    let mut volume = world.cluster::<PersistentVolume>("pv-1").unwrap().to_owned();
    let mut claim = world.get::<PersistentVolumeClaim>(&key).unwrap().to_owned();
    change(&mut volume, &mut claim);
    client.apply(&Change::both(volume)).unwrap();
    client.apply(&Change::both(claim)).unwrap();
}

#[test]
fn a_bound_claim_is_its_drivers_volume() {
    let client = FakeClient::new();
    let pod = with_volumes(&client);
    let found = first(&client, &pod).unwrap();
    assert_eq!((found.plugin.as_str(), found.title.as_str()), ("local.csi.stanchion.dev", "pv-1"));
    assert_eq!(found.stage.volume.handle, "h-1");
    assert_eq!(found.stage.fs_type.as_deref(), Some("ext4"));
    let staging = found.stage.staging.to_str().unwrap();
    assert!(staging.starts_with("/k/plugins/kubernetes.io/csi/local.csi.stanchion.dev/"));
    assert!(staging.ends_with("/globalmount"));
    let target = "/k/pods/uid-of-web-0/volumes/kubernetes.io~csi/pv-1/mount";
    assert_eq!(found.publish.target.to_str(), Some(target));
    assert!(!found.publish.read_only && !found.one_pod);
}

#[test]
fn a_claim_is_trusted_only_when_both_sides_name_each_other() {
    let broken = |breaks: fn(&mut PersistentVolume, &mut PersistentVolumeClaim)| {
        let client = FakeClient::new();
        let pod = with_volumes(&client);
        change(&client, breaks);
        first(&client, &pod).unwrap_err()
    };
    let error = "error processing PVC default/data: ";
    assert_eq!(
        broken(|_, claim| claim.status.as_mut().unwrap().phase = Some("Pending".to_owned())),
        format!("{error}PVC is not bound")
    );
    assert_eq!(
        broken(|volume, _| {
            let holder = volume.spec.as_mut().unwrap().claim_ref.as_mut().unwrap();
            holder.uid = Some("other".to_owned());
        }),
        format!(
            "{error}found PV object pv-1 but its pv.Spec.ClaimRef.UID other does not point to claim.UID claim-1"
        )
    );
    assert_eq!(
        broken(|volume, _| volume.spec.as_mut().unwrap().volume_mode = Some("Block".to_owned())),
        "volume data has volumeMode Block, but is specified in volumeMounts"
    );
}

#[test]
fn a_claim_that_is_not_there_is_waited_for() {
    let client = FakeClient::new();
    let pod: Pod = yaml(
        "{metadata: {name: p, namespace: default, uid: u}, spec: {containers: [{name: c}],
          volumes: [{name: v, persistentVolumeClaim: {claimName: none}}]}}",
    );
    assert_eq!(
        first(&client, &pod).unwrap_err(),
        "error processing PVC default/none: failed to fetch PVC from API server: persistentvolumeclaims \"none\" not found"
    );
}

#[test]
fn files_are_keys_under_the_paths_they_are_given() {
    let client = FakeClient::new();
    client.put::<ConfigMap>(yaml(
        "{metadata: {name: m, namespace: default}, data: {a: '1', b: '2'}}",
    ));
    let of = |source: &str| {
        let pod: Pod = yaml(&format!(
            "{{metadata: {{name: p, namespace: default, uid: u, labels: {{x: one}}}}, spec: {{containers: [{{name: c}}], volumes: [{{name: v, {source}}}]}}}}"
        ));
        first(&client, &pod).map(|it| {
            let files = it.publish.files.unwrap().into_iter();
            let line = |(path, file): (String, volumes::ProjectedFile)| {
                format!("{path} {:o} {}", file.mode, String::from_utf8_lossy(&file.data))
            };
            files.map(line).collect::<Vec<_>>()
        })
    };
    assert_eq!(of("configMap: {name: m, defaultMode: 256}").unwrap(), ["a 400 1", "b 400 2"]);
    let items = "items: [{key: b, path: d/e, mode: 511}]";
    assert_eq!(of(&format!("configMap: {{name: m, {items}}}")).unwrap(), ["d/e 777 2"]);
    assert_eq!(
        of("configMap: {name: m, items: [{key: z, path: z}]}").unwrap_err(),
        "configmap references non-existent config key: z"
    );
    let optional =
        "configMap: {name: m, optional: true, items: [{key: z, path: z}, {key: a, path: a}]}";
    assert_eq!(of(optional).unwrap(), ["a 644 1"]);
    assert_eq!(of("secret: {secretName: s}").unwrap_err(), "secret \"s\" not found");
    assert_eq!(of("secret: {secretName: s, optional: true}").unwrap(), Vec::<String>::new());
    let projected = "projected: {sources: [{configMap: {name: m}}, {downwardAPI: {items: [{path: l, fieldRef: {fieldPath: metadata.labels}}]}}]}";
    assert_eq!(of(projected).unwrap(), ["a 644 1", "b 644 2", "l 644 x=\"one\""]);
    for (source, plugin) in [
        ("awsElasticBlockStore: {volumeID: v}", "kubernetes.io/aws-ebs"),
        ("azureDisk: {diskName: d, diskURI: u}", "kubernetes.io/azure-disk"),
        ("gcePersistentDisk: {pdName: p}", "kubernetes.io/gce-pd"),
    ] {
        let expected =
            format!("no volume plugin matched name: {plugin}: this node cannot mount such volumes");
        assert_eq!(of(source).unwrap_err(), expected);
    }
}

#[tokio::test]
async fn recycles_what_nobody_uses_and_the_node_does_not_live_from() {
    let node = Node::new();
    with_volumes(&node.client);
    let running = node.start().await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), "x").unwrap();
    let scrub = async |volume: &str, path: &std::path::Path| {
        let (volume, path) = (ObjectKey::cluster(volume), path.to_str().unwrap().to_owned());
        running.kubelet.call(&VolumeCall::Scrub { volume, path }).await
    };
    let used = scrub("pv-1", directory.path()).await.unwrap_err();
    assert!(
        used.retry && used.message.ends_with("claim default/data is bound to pv-1"),
        "{used:?}"
    );
    assert!(directory.path().join("file").exists());
    scrub("pv-2", directory.path()).await.unwrap();
    assert!(!directory.path().join("file").exists());
    for path in [node.directory.path(), std::path::Path::new("/var")] {
        let refused = scrub("pv-2", path).await.unwrap_err();
        assert!(!refused.retry && refused.message.contains("belongs to the node"), "{refused:?}");
    }
    assert!(node.directory.path().join("node").exists());
}
