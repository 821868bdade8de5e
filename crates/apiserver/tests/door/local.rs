//! What a loop of this process is promised.

use crate::house::{object, open};
use api::{
    Object,
    coordination::v1::Lease,
    core::v1::{ConfigMap, Event, Namespace, PersistentVolume, PersistentVolumeClaim, Service},
};
use serde_json::json;
use world::{Change, Expected, ObjectKey};

fn map(name: &str) -> ConfigMap {
    object(json!({"metadata": {"name": name, "namespace": "default"}}))
}

fn claim() -> PersistentVolumeClaim {
    object(json!({
        "metadata": {"name": "c", "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }))
}

fn volume() -> PersistentVolume {
    object(json!({
        "metadata": {"name": "v"},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "hostPath": {"path": "/v"}, "persistentVolumeReclaimPolicy": "Retain"},
    }))
}

#[tokio::test]
async fn a_write_is_in_the_world_when_it_returns() {
    let client = open().await.client("tester");
    let written = client.write(vec![Change::create(map("m"))]).await.unwrap();
    let key = ObjectKey::new("default", "m");
    let seen = client.world().get::<ConfigMap>(&key).unwrap();
    assert_eq!(seen.revision(), written.revision);
    assert!(!seen.uid().is_empty() && seen.metadata.creation_timestamp.is_some());
    assert_eq!(written.rows[0].as_ref().unwrap().meta.uid, seen.uid());
}

#[tokio::test]
async fn a_pair_is_written_in_one_commit_or_not_at_all() {
    let client = open().await.client("tester");
    client.write(vec![Change::create(volume()), Change::create(claim())]).await.unwrap();
    let world = client.world();
    let mut volume = world.cluster::<PersistentVolume>("v").unwrap().to_owned();
    let mut claim =
        world.get::<PersistentVolumeClaim>(&ObjectKey::new("default", "c")).unwrap().to_owned();
    let stale = claim.clone();
    volume.spec.as_mut().unwrap().claim_ref = Some(api::core::v1::ObjectReference {
        name: Some("c".into()),
        namespace: Some("default".into()),
        uid: claim.metadata.uid.clone(),
        ..Default::default()
    });
    volume.status.get_or_insert_default().phase = Some("Bound".into());
    claim.spec.as_mut().unwrap().volume_name = Some("v".into());
    claim.status.get_or_insert_default().phase = Some("Bound".into());
    let written = client
        .write(vec![Change::both(volume.clone()), Change::both(claim)])
        .await
        .expect("the pair is bound");
    let rows: Vec<u64> = written.rows.iter().flatten().map(|it| it.revision).collect();
    assert_eq!(rows, [written.revision; 2]);
    let world = client.world();
    let bound = world.cluster::<PersistentVolume>("v").unwrap();
    assert_eq!(bound.status.as_ref().unwrap().phase.as_deref(), Some("Bound"));

    // One half is stale: neither is written.
    let mut again = bound.to_owned();
    again.metadata.labels = Some([("half".to_owned(), "yes".to_owned())].into());
    let failure = client.write(vec![Change::both(again), Change::both(stale)]).await.unwrap_err();
    assert!(failure.is_conflict(), "{failure}");
    assert!(client.world().cluster::<PersistentVolume>("v").unwrap().label("half").is_none());
}

#[tokio::test]
async fn a_check_holds_the_commit_to_what_was_judged() {
    let client = open().await.client("tester");
    client.write(vec![Change::create(map("judged"))]).await.unwrap();
    let key = ObjectKey::new("default", "judged");
    let judged = client.world().get::<ConfigMap>(&key).unwrap().to_owned();
    let check = Change::check(&judged);
    client.write(vec![check.clone(), Change::create(map("one"))]).await.unwrap();
    let mut changed = judged;
    changed.data = Some([("a".to_owned(), "b".to_owned())].into());
    client.write(vec![Change::update(changed)]).await.unwrap();
    let failure = client.write(vec![check, Change::create(map("two"))]).await.unwrap_err();
    assert!(failure.is_conflict(), "{failure}");
    assert!(client.world().get::<ConfigMap>(&ObjectKey::new("default", "two")).is_none());
}

#[tokio::test]
async fn a_claim_waits_for_its_finalizer() {
    let client = open().await.client("tester");
    client.write(vec![Change::create(claim())]).await.unwrap();
    let key = ObjectKey::new("default", "c");
    let claim = client.world().get::<PersistentVolumeClaim>(&key).unwrap().to_owned();
    assert!(claim.has_finalizer("kubernetes.io/pvc-protection"));
    let written = client.write(vec![Change::delete(&claim)]).await.unwrap();
    assert!(written.rows[0].is_some(), "it waits");
    let mut waiting = client.world().get::<PersistentVolumeClaim>(&key).unwrap().to_owned();
    assert!(waiting.is_deleting());
    waiting.metadata.finalizers = None;
    let written = client.write(vec![Change::update(waiting)]).await.unwrap();
    assert!(written.rows[0].is_none(), "it is gone");
    assert!(client.world().get::<PersistentVolumeClaim>(&key).is_none());
}

#[tokio::test]
async fn nothing_is_created_in_a_namespace_that_is_missing_or_going() {
    let client = open().await.client("tester");
    let nowhere = ConfigMap {
        metadata: api::meta::ObjectMeta {
            name: Some("m".into()),
            namespace: Some("nowhere".into()),
            ..Default::default()
        },
        ..Default::default()
    };
    let failure = client.write(vec![Change::create(nowhere)]).await.unwrap_err();
    assert_eq!(failure.to_string(), "namespaces \"nowhere\" not found");
    let namespace = client.world().cluster::<Namespace>("kube-system").unwrap();
    let failure = client.write(vec![Change::delete(&*namespace)]).await.unwrap_err();
    assert_eq!(
        failure.to_string(),
        "namespaces \"kube-system\" is forbidden: this namespace may not be deleted"
    );
}

fn service(name: &str, address: Option<&str>) -> Service {
    object(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": "ClusterIP", "clusterIP": address.unwrap_or_default(),
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]},
    }))
}

#[tokio::test]
async fn services_never_share_an_address() {
    let client = open().await.client("tester");
    let kubernetes = client.world().get::<Service>(&ObjectKey::new("default", "kubernetes"));
    let spec = kubernetes.unwrap().spec.clone().unwrap();
    assert_eq!(spec.cluster_ip.as_deref(), Some("10.96.0.1"));
    let failure = client.write(vec![Change::create(service("a", Some("10.96.0.1")))]).await;
    let text = failure.unwrap_err().to_string();
    assert!(text.contains("provided IP is already allocated"), "{text}");
    client.write(vec![Change::create(service("b", None))]).await.unwrap();
    let key = ObjectKey::new("default", "b");
    let b = client.world().get::<Service>(&key).unwrap();
    let address = b.spec.as_ref().unwrap().cluster_ip.clone().unwrap();
    // Freed with its owner, and free at once.
    client.write(vec![Change::delete(&*b)]).await.unwrap();
    client.write(vec![Change::create(service("c", Some(&address)))]).await.unwrap();
}

#[tokio::test]
async fn the_same_event_again_is_counted() {
    let server = crate::house::open().await;
    let client = server.client("system:serviceaccount:kube-system:tester");
    client.write(vec![Change::create(map("m"))]).await.unwrap();
    let about = client.world().get::<ConfigMap>(&ObjectKey::new("default", "m")).unwrap();
    for _ in 0..3 {
        client.record(world::Event::warning(&*about, "Odd", "looks odd"));
    }
    assert!(client.world().table::<Event>().is_none(), "events stay outside the world");
}

#[tokio::test]
async fn pods_find_the_door_by_its_service() {
    let server = open().await;
    for port in [6443, 6444] {
        server.advertise("10.244.0.1".parse().unwrap(), port).await.unwrap();
        let world = server.client("tester").world();
        let key = ObjectKey::new("default", "kubernetes");
        let slice = world.get::<api::discovery::v1::EndpointSlice>(&key).unwrap();
        assert_eq!(slice.endpoints.as_ref().unwrap()[0].addresses, ["10.244.0.1"]);
        let endpoints = world.get::<api::core::v1::Endpoints>(&key).unwrap();
        let subset = &endpoints.subsets.as_ref().unwrap()[0];
        assert_eq!(subset.ports.as_ref().unwrap()[0].port, i32::from(port));
    }
}

#[tokio::test]
async fn what_a_deposed_leader_writes_is_refused() {
    let server = open().await;
    let lease: Lease = object(json!({
        "metadata": {"name": "leader", "namespace": "kube-system"},
        "spec": {"holderIdentity": "one", "leaseDurationSeconds": 15},
    }));
    let key = ObjectKey::new("kube-system", "leader");
    let held = server.client("tester").write(vec![Change::create(lease.clone())]).await.unwrap();
    let epoch = server.begin_epoch(&key, held.revision, "one").await.unwrap();
    let one = server.client_in(epoch, "tester");
    one.write(vec![Change::create(map("a"))]).await.unwrap();

    // Another one takes the lease, and nothing is different before it begins to lead.
    let mut taken = lease;
    taken.spec.as_mut().unwrap().holder_identity = Some("two".to_owned());
    let taken = Change { expected: Expected::Anything, ..Change::update(taken) };
    let taken = server.client("tester").write(vec![taken]).await.unwrap();
    let late = server.begin_epoch(&key, held.revision, "one").await.unwrap_err();
    assert_eq!(late.code, 409, "the lease is not as it was: {late}");
    one.write(vec![Change::create(map("b"))]).await.unwrap();
    let epoch = server.begin_epoch(&key, taken.revision, "two").await.unwrap();
    let two = server.client_in(epoch, "tester");

    let refused = one.write(vec![Change::create(map("c"))]).await.unwrap_err();
    assert_eq!((refused.code, &*refused.message), (503, "another server leads now"));
    two.write(vec![Change::create(map("c"))]).await.unwrap();
    // Nodes and users write in any epoch.
    server.client("system:node:n1").write(vec![Change::create(map("d"))]).await.unwrap();
}
