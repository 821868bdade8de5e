//! Several servers on one ledger: who of them lives is what `default/kubernetes` says.

use crate::house::{Door, memory, open_on};
use api::{core::v1::Endpoints, discovery::v1::EndpointSlice};
use apiserver::Server;
use serde_json::json;
use std::{sync::Arc, time::Duration};
use stdx::{BoxFuture, Shutdown};
use store::{
    Batch, CommitError, Expect, Figures, KeyRange, LeaseError, LeaseId, ReadError, Record,
    Recorded, Revision, Snapshot, Store, StoreError, Watch,
};
use tokio::sync::watch;
use world::{ObjectKey, World};

fn endpoints(world: &World) -> Vec<(String, i32)> {
    let found = world.get::<Endpoints>(&ObjectKey::new("default", "kubernetes"));
    let subsets = found.and_then(|it| it.subsets.clone()).unwrap_or_default().into_iter();
    let each = subsets.flat_map(|subset| {
        let port = subset.ports.unwrap_or_default()[0].port;
        let addresses = subset.addresses.unwrap_or_default().into_iter();
        addresses.map(move |it| (it.ip, port)).collect::<Vec<_>>()
    });
    each.collect()
}

fn slices(world: &World) -> Vec<(String, Vec<String>, i32)> {
    let mut all = Vec::new();
    for it in world.all::<EndpointSlice>() {
        let addresses = it.endpoints.iter().flatten().flat_map(|it| it.addresses.clone()).collect();
        let port = it.ports.iter().flatten().find_map(|it| it.port).unwrap_or_default();
        all.push((it.metadata.name.clone().unwrap(), addresses, port));
    }
    all.sort();
    all
}

async fn until(server: &Arc<Server>, wanted: &[(&str, i32)]) -> World {
    let wanted: Vec<(String, i32)> =
        wanted.iter().map(|(it, port)| ((*it).to_owned(), *port)).collect();
    let mut follower = server.client("tester").follow();
    let found = follower.until(|world| (endpoints(world) == wanted).then(|| world.clone()));
    found.await.expect("the server lives")
}

#[tokio::test]
async fn the_endpoints_name_all_servers_that_live_and_no_other() {
    let store = memory();
    let (one, two) = (open_on(store.clone()).await, open_on(store.clone()).await);
    let ends = [Shutdown::new(), Shutdown::new()];
    let first = one.appear("10.0.0.1".parse().unwrap(), 6443).await.unwrap();
    until(&two, &[("10.0.0.1", 6443)]).await;
    let first = tokio::spawn(first.keep(ends[0].1.clone()));
    let [lease] = store.leases().await.unwrap()[..] else { panic!("one server, one lease") };
    let second = two.appear("10.0.0.2".parse().unwrap(), 6443).await.unwrap();
    let second = tokio::spawn(second.keep(ends[1].1.clone()));
    let both = [("10.0.0.1", 6443), ("10.0.0.2", 6443)];
    let world = until(&one, &both).await;
    let slice = [("kubernetes".to_owned(), both.map(|it| it.0.to_owned()).to_vec(), 6443)];
    until(&two, &both).await;
    let mut follower = one.client("tester").follow();
    follower.until(|world| (slices(world) == slice).then_some(())).await.unwrap();
    let labels = world.get::<Endpoints>(&ObjectKey::new("default", "kubernetes")).unwrap();
    let labels = labels.metadata.labels.clone().unwrap();
    assert_eq!(labels["endpointslice.kubernetes.io/skip-mirror"], "true");

    // A server that was thought dead, and is not, comes back by itself.
    for lost in ["its lease", "its key"] {
        let before = store.latest().await.unwrap();
        let mut places = store.watch(KeyRange::prefix("/registry/masterleases/"), before).unwrap();
        match lost {
            "its lease" => store.revoke(lease.0).await.unwrap(),
            _ => {
                let key = "/registry/masterleases/10.0.0.1:6443";
                store.commit(Batch::new().delete(key, Expect::Present)).await.unwrap();
            }
        }
        let mut told = Vec::new();
        while !told.iter().any(|it: &Record| matches!(it.change, Recorded::Put { .. })) {
            told.extend(places.next().await.unwrap().iter().cloned());
        }
        let came_back = matches!(told[0].change, Recorded::Delete) && told[0].key == told[1].key;
        assert!(came_back, "{lost}: {told:?}");
        until(&two, &both).await;
    }

    // One that ends in order is gone at once.
    ends[0].0.begin();
    first.await.unwrap();
    assert_eq!(endpoints(&two.client("tester").world()).len(), 1, "before the server ends");
    until(&two, &[("10.0.0.2", 6443)]).await;
    ends[1].0.begin();
    second.await.unwrap();
    until(&two, &[]).await;
}

#[tokio::test]
async fn servers_may_have_ports_of_their_own() {
    let store = memory();
    let (one, two) = (open_on(store.clone()).await, open_on(store.clone()).await);
    let end = Shutdown::new();
    let _first = one.appear("10.0.0.1".parse().unwrap(), 7000).await.unwrap();
    let second = two.appear("10.0.0.1".parse().unwrap(), 6443).await.unwrap();
    let world = until(&one, &[("10.0.0.1", 6443), ("10.0.0.1", 7000)]).await;
    drop(world);
    let address = vec!["10.0.0.1".to_owned()];
    let both = [
        ("kubernetes".to_owned(), address.clone(), 6443),
        ("kubernetes-7000".to_owned(), address.clone(), 7000),
    ];
    let mut follower = one.client("tester").follow();
    follower.until(|world| (slices(world) == both).then_some(())).await.unwrap();
    end.0.begin();
    second.keep(end.1.clone()).await;
    let left = [("kubernetes".to_owned(), address, 7000)];
    follower.until(|world| (slices(world) == left).then_some(())).await.unwrap();
}

/// What comes of a watch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    Shut,
    /// What led up to this revision was compacted away meanwhile.
    Forgotten(Revision),
}

/// The same ledger, of which this process is told what the gate lets through.
struct Late(Arc<dyn Store>, watch::Receiver<Gate>);

struct LateWatch {
    inner: Box<dyn Watch>,
    begun: Revision,
    gate: watch::Receiver<Gate>,
}

impl Watch for LateWatch {
    fn next(&mut self) -> BoxFuture<'_, Result<Arc<[Record]>, ReadError>> {
        Box::pin(async move {
            let gate = *self.gate.wait_for(|it| *it != Gate::Shut).await.expect("held by the test");
            match gate {
                Gate::Forgotten(oldest) if self.begun < oldest => {
                    Err(ReadError::Compacted { oldest })
                }
                _ => self.inner.next().await,
            }
        })
    }
}

impl Store for Late {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<Revision, CommitError>> {
        self.0.commit(batch)
    }

    fn latest(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        self.0.latest()
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, StoreError>> {
        self.0.snapshot()
    }

    fn snapshot_at(&self, at: Revision) -> BoxFuture<'_, Result<Arc<dyn Snapshot>, ReadError>> {
        self.0.snapshot_at(at)
    }

    fn watch(&self, range: KeyRange, after: Revision) -> Result<Box<dyn Watch>, ReadError> {
        match *self.1.borrow() {
            Gate::Forgotten(oldest) if after < oldest => Err(ReadError::Compacted { oldest }),
            _ => {
                let (inner, gate) = (self.0.watch(range, after)?, self.1.clone());
                Ok(Box::new(LateWatch { inner, begun: after, gate }))
            }
        }
    }

    fn compact(&self, before: Revision) -> BoxFuture<'_, Result<(), ReadError>> {
        self.0.compact(before)
    }

    fn grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, StoreError>> {
        self.0.grant(ttl)
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), LeaseError>> {
        self.0.keep_alive(lease)
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), LeaseError>> {
        self.0.revoke(lease)
    }

    fn leases(&self) -> BoxFuture<'_, Result<Vec<(LeaseId, Duration)>, StoreError>> {
        self.0.leases()
    }

    fn figures(&self) -> Figures {
        self.0.figures()
    }
}

#[tokio::test]
async fn what_one_server_wrote_is_waited_for_at_the_other_and_never_missing() {
    const MAPS: &str = "/api/v1/namespaces/default/configmaps";
    let store = memory();
    let (gate, open) = watch::channel(Gate::Open);
    let one = Door::open_on(store.clone()).await;
    let two = Door::open_on(Arc::new(Late(store.clone(), open))).await;
    let before = store.latest().await.unwrap();
    gate.send_replace(Gate::Shut);
    // What is under way when the gate is shut still comes; the next thing does not.
    one.post(MAPS, json!({"metadata": {"name": "a"}})).await.is(201);
    let written = one.post(MAPS, json!({"metadata": {"name": "b"}})).await.is(201).body;
    let at = written["metadata"]["resourceVersion"].as_str().unwrap().to_owned();

    let any = two.get(&format!("{MAPS}?resourceVersion=0")).await.is(200).body;
    let seen: u64 = any["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert!(seen >= before.0 && seen.to_string() != at, "{seen} {at}");
    let late = two.get(&format!("{MAPS}/b?resourceVersion={at}")).await.is(504);
    assert_eq!(
        late.message(),
        format!("Timeout: Too large resource version: {at}, current: {seen}")
    );
    assert_eq!(late.headers["retry-after"], "1");
    assert_eq!(late.body["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");

    // What it writes itself is written, told or not; what it judges by what it has not seen is not.
    two.post(MAPS, json!({"metadata": {"name": "c"}})).await.is(201);
    one.get(&format!("{MAPS}/c")).await.is(200);
    let refused = two.post(MAPS, json!({"metadata": {"name": "b"}})).await.is(503);
    assert!(refused.message().starts_with("nothing was written: "), "{}", refused.text);

    let asked = [
        format!("{MAPS}/b"),
        format!("{MAPS}/b?resourceVersion={at}"),
        format!("{MAPS}?resourceVersion={at}&resourceVersionMatch=NotOlderThan"),
    ];
    let waiting = asked.iter().map(|path| two.get(path));
    let open_it = async {
        tokio::task::yield_now().await;
        gate.send_replace(Gate::Open);
    };
    let (answers, ()) = tokio::join!(in_turn(waiting), open_it);
    for answer in answers {
        let answer = answer.is(200);
        assert!(answer.text.contains(&format!("\"resourceVersion\":\"{at}\"")), "{}", answer.text);
    }
}

async fn in_turn<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut answers = Vec::new();
    for one in all {
        answers.push(one.await);
    }
    answers
}

/// While a process was cut off, one object went, one changed and one came, and nobody can tell it how.
#[tokio::test]
async fn whoever_missed_a_part_of_history_learns_what_came_of_it() {
    const MAPS: &str = "/api/v1/namespaces/default/configmaps";
    let store = memory();
    let (gate, open) = watch::channel(Gate::Open);
    let one = Door::open_on(store.clone()).await;
    let two = Door::open_on(Arc::new(Late(store.clone(), open))).await;
    for name in ["goes", "stays"] {
        one.post(MAPS, json!({"metadata": {"name": name}})).await.is(201);
    }
    let seen = two.get(MAPS).await.is(200).body;
    let seen = seen["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut follower = two.server.client("tester").follow();
    gate.send_replace(Gate::Shut);
    // Only this may still slip through.
    one.post(MAPS, json!({"metadata": {"name": "slips"}})).await.is(201);
    one.delete(&format!("{MAPS}/goes")).await.is(200);
    one.post(MAPS, json!({"metadata": {"name": "comes"}})).await.is(201);
    gate.send_replace(Gate::Forgotten(store.latest().await.unwrap()));

    let told = |name: &'static str| {
        move |it: &world::Touched| it.kind.kind == "ConfigMap" && &*it.key.name == name
    };
    let touched = loop {
        let touched = follower.next().await.expect("the server lives").touched;
        let touched = touched.expect("nobody lags here");
        if touched.iter().any(told("comes")) {
            break touched;
        }
    };
    let of = |name| touched.iter().find(|it| told(name)(it)).expect("everything is looked at");
    assert!(of("goes").old.is_some() && of("goes").new.is_none());
    assert!(of("stays").new.is_some() && of("comes").new.is_some());
    two.get(&format!("{MAPS}/goes")).await.is(404);
    two.get(&format!("{MAPS}/comes")).await.is(200);
    let watch = two.get(&format!("{MAPS}?watch=true&resourceVersion={seen}")).await;
    assert!(watch.code == 410 || watch.text.contains("\"code\":410"), "{}", watch.text);
    // From then on it follows as before.
    one.post(MAPS, json!({"metadata": {"name": "next"}})).await.is(201);
    two.get(&format!("{MAPS}/next")).await.is(200);
}
