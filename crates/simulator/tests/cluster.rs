//! The loops together, against the real door: what a user sees in the end.

use api::{
    Object,
    apps::v1::{ControllerRevision, StatefulSet},
    core::{
        persistent_volume as volumes, persistent_volume_claim as claims,
        pod::is_ready,
        v1::{Namespace, PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount},
    },
    storage::v1::StorageClass,
};
use serde_json::{Value, json};
use simulator::Cluster;
use std::sync::Arc;
use world::{Change, Expected, ObjectKey, World};

async fn start() -> Cluster {
    // What the loops say goes into the test's output; several tests start, one sets it up.
    let _first = tracing_subscriber::fmt().with_test_writer().try_init();
    Cluster::start().await
}

fn class() -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "local", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "local.csi.stanchion.dev", "volumeBindingMode": "WaitForFirstConsumer",
    })
}

fn web(replicas: i32, class: Option<&str>) -> Value {
    let mut claim =
        json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    if let Some(class) = class {
        claim["storageClassName"] = class.into();
    }
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas, "serviceName": "nginx", "selector": {"matchLabels": {"app": "nginx"}},
            "template": {
                "metadata": {"labels": {"app": "nginx"}},
                "spec": {"containers": [{"name": "nginx", "image": "nginx",
                    "volumeMounts": [{"name": "www", "mountPath": "/data"}]}]},
            },
            "volumeClaimTemplates": [{"metadata": {"name": "www"}, "spec": claim}],
        },
    })
}

fn volume(name: &str, size: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"storageClassName": "manual", "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"], "hostPath": {"path": format!("/{name}")}},
    })
}

fn ready(world: &World) -> Vec<String> {
    let pods = world.list::<Pod>("default").filter(|it| is_ready(it) && !it.is_deleting());
    pods.map(|it| it.name().to_owned()).collect()
}

fn claim(world: &World, name: &str) -> Option<world::Typed<PersistentVolumeClaim>> {
    world.get(&ObjectKey::new("default", name))
}

async fn scale(cluster: &Cluster, replicas: i32) {
    let key = ObjectKey::new("default", "web");
    loop {
        let mut set = cluster.client.world().get::<StatefulSet>(&key).unwrap().to_owned();
        set.spec.as_mut().unwrap().replicas = Some(replicas);
        match cluster.client.write(vec![Change::update(set)]).await {
            Ok(_) => return,
            Err(failure) => assert!(failure.is_conflict(), "{failure}"),
        }
    }
}

#[tokio::test]
async fn three_pods_get_three_volumes_of_the_default_class() {
    let mut cluster = start().await;
    cluster.node("n1").await;
    cluster.create(&class()).await.unwrap();
    cluster.create(&web(3, None)).await.unwrap();
    cluster.until(|world| (ready(world).len() == 3).then_some(())).await;
    let world = cluster.client.world();
    for n in 0..3 {
        let claim = claim(&world, &format!("www-web-{n}")).unwrap();
        assert_eq!(claims::phase(&claim), "Bound");
        let volume = world.cluster::<PersistentVolume>(claims::volume_name(&claim)).unwrap();
        assert!(volumes::is_bound_to(&volume, &claim));
    }
    assert_eq!(cluster.pool.volumes().len(), 3);

    // The claims stay when the pods go, and come back to the pods of their names.
    let before: Vec<String> = (0..3)
        .map(|n| claims::volume_name(&claim(&world, &format!("www-web-{n}")).unwrap()).to_owned())
        .collect();
    scale(&cluster, 1).await;
    cluster.until(|world| (world.list::<Pod>("default").count() == 1).then_some(())).await;
    assert_eq!(ready(&cluster.client.world()), ["web-0"]);
    scale(&cluster, 3).await;
    cluster.until(|world| (ready(world).len() == 3).then_some(())).await;
    let world = cluster.client.world();
    for (n, before) in before.iter().enumerate() {
        let claim = claim(&world, &format!("www-web-{n}")).unwrap();
        assert_eq!(claims::volume_name(&claim), before);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_claim_in_use_stays_and_its_volume_goes_after_it() {
    let mut cluster = start().await;
    cluster.node("n1").await;
    cluster.create(&class()).await.unwrap();
    cluster.create(&web(1, None)).await.unwrap();
    cluster.until(|world| (ready(world).len() == 1).then_some(())).await;
    let world = cluster.client.world();
    let used = claim(&world, "www-web-0").unwrap();
    cluster.client.write(vec![Change::delete(&*used)]).await.unwrap();
    cluster.until(|world| claim(world, "www-web-0")?.is_deleting().then_some(())).await;
    assert_eq!(cluster.pool.volumes().len(), 1, "in use");
    scale(&cluster, 0).await;
    cluster
        .until(|world| {
            let gone = claim(world, "www-web-0").is_none();
            (gone && world.all::<PersistentVolume>().count() == 0).then_some(())
        })
        .await;
    assert!(cluster.pool.volumes().is_empty(), "the pool has its space back");
    cluster.stop().await;
}

#[tokio::test]
async fn one_volume_is_given_once() {
    let mut cluster = start().await;
    cluster.node("n1").await;
    cluster.create(&volume("pv-test", "1Gi")).await.unwrap();
    cluster.create(&web(2, Some("manual"))).await.unwrap();
    cluster
        .until(|world| claim(world, "www-web-1").filter(|it| claims::phase(it) == "Pending"))
        .await;
    cluster.until(|world| (ready(world) == ["web-0"]).then_some(())).await;
    let world = cluster.client.world();
    let claim = claim(&world, "www-web-0").unwrap();
    assert_eq!((claims::phase(&claim), claims::volume_name(&claim)), ("Bound", "pv-test"));
    let volume = world.cluster::<PersistentVolume>("pv-test").unwrap();
    assert_eq!(volumes::phase(&volume), "Bound");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_equal_claims_get_a_hundred_different_volumes() {
    const COUNT: usize = 100;
    let cluster = start().await;
    for n in 0..COUNT {
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": format!("c{n}"), "namespace": "default"},
            "spec": {"storageClassName": "manual", "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}},
        });
        cluster.create(&volume(&format!("v{n}"), "1Gi")).await.unwrap();
        cluster.create(&claim).await.unwrap();
    }
    let bound = |world: &World| {
        let bound = world.all::<PersistentVolumeClaim>().filter(|it| claims::phase(it) == "Bound");
        let names: std::collections::BTreeSet<String> =
            bound.map(|it| claims::volume_name(&it).to_owned()).collect();
        (names.len() == COUNT).then_some(())
    };
    cluster.until(bound).await;
    assert_eq!(cluster.client.world().all::<StorageClass>().count(), 0);
    cluster.stop().await;
}

#[tokio::test]
async fn a_namespace_takes_along_all_that_is_in_it() {
    let mut cluster = start().await;
    cluster.node("n1").await;
    cluster.create(&class()).await.unwrap();
    let name = json!({"name": "a"});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": name});
    cluster.create(&namespace).await.unwrap();
    let account = |world: &World| world.list::<ServiceAccount>("a").next().map(drop);
    cluster.until(account).await;
    let mut set = web(2, None);
    set["metadata"]["namespace"] = "a".into();
    cluster.create(&set).await.unwrap();
    let ready = |world: &World| world.list::<Pod>("a").filter(|it| is_ready(it)).count();
    cluster.until(|world| (ready(world) == 2).then_some(())).await;

    let namespace = cluster.client.world().cluster::<Namespace>("a").unwrap();
    cluster.client.write(vec![Change::delete(&*namespace)]).await.unwrap();
    let gone = |world: &World| world.cluster::<Namespace>("a").is_none().then_some(());
    cluster.until(gone).await;
    let world = cluster.client.world();
    let left: Vec<_> = world.tables().flat_map(|it| it.rows(Some("a"))).collect();
    assert!(left.is_empty(), "{left:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn what_a_set_owned_goes_with_it_and_its_claims_stay() {
    let mut cluster = start().await;
    cluster.node("n1").await;
    cluster.create(&class()).await.unwrap();
    cluster.create(&web(2, None)).await.unwrap();
    cluster.until(|world| (ready(world).len() == 2).then_some(())).await;
    let key = ObjectKey::new("default", "web");
    let set = cluster.client.world().get::<StatefulSet>(&key).unwrap();
    cluster.client.write(vec![Change::delete(&*set)]).await.unwrap();
    let left = |world: &World| {
        world.list::<Pod>("default").count() + world.list::<ControllerRevision>("default").count()
    };
    cluster.until(|world| (left(world) == 0).then_some(())).await;
    assert_eq!(cluster.client.world().list::<PersistentVolumeClaim>("default").count(), 2);
    cluster.stop().await;
}

/// A door of its own on a ledger that others may have open, too.
async fn door(store: Arc<dyn store::Store>) -> Arc<apiserver::Server> {
    let config = apiserver::Config {
        service_cidr: "10.96.0.0/12".to_owned(),
        admission_enabled: Default::default(),
        admission_disabled: Default::default(),
        clock: Arc::new(stdx::SystemClock),
        entropy: Arc::new(stdx::SystemEntropy::default()),
        version: "v1.36.0".to_owned(),
        node_proxy: None,
        access: Default::default(),
        patience: Default::default(),
    };
    apiserver::open(store, config).await.expect("the ledger opens")
}

#[tokio::test]
async fn one_of_several_servers_leads_until_it_gives_way() {
    let clock = Arc::new(stdx::SystemClock);
    let store: Arc<dyn store::Store> = Arc::new(store::backend::Memory::new(clock.clone()));
    let (one, two) = (door(store.clone()).await, door(store.clone()).await);
    let lease = ObjectKey::new("kube-system", "stanchion");
    let candidate = |server: &Arc<apiserver::Server>, name: &str| {
        let client = server.client("system:stanchion");
        manager::Candidate::new(client, clock.clone(), lease.clone(), name.to_owned())
    };
    let (mut first, mut second) = (candidate(&one, "one"), candidate(&two, "two"));
    let won = first.win().await;
    let mut waiting = tokio::spawn(async move {
        let won = second.win().await;
        (second, won)
    });
    // As long as the first one writes it, the lease is not free.
    assert!(first.win().await > won, "who holds it renews it");
    assert!(!waiting.is_finished());
    first.resign().await;
    let (mut second, won) = (&mut waiting).await.unwrap();
    let held = two.client("tester").world().get::<api::coordination::v1::Lease>(&lease).unwrap();
    let spec = held.spec.as_ref().unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some("two"));
    assert_eq!(spec.lease_transitions, Some(1));
    two.begin_epoch(&lease, won, "two").await.unwrap();

    // A lease whose time is over is anyone's.
    let mut over = held.to_owned();
    over.spec.as_mut().unwrap().lease_duration_seconds = Some(1);
    over.metadata.resource_version = None;
    let over = Change { expected: Expected::Anything, ..Change::update(over) };
    let written = two.client("tester").write(vec![over]).await.unwrap();
    assert!(first.win().await > written.revision);
    // The second one finds out when it renews.
    second.hold().await;
}
