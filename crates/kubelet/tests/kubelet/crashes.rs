//! The server may be killed at any moment: the next one takes over what it finds and doubles nothing.

use crate::fakes::{CrashAt, FakeRuntime, Node, with_volumes};
use api::{Object, core::v1::Pod};
use client::Client as _;
use kubelet::runtime::State;
use world::{Change, ObjectKey};

/// Calls of a whole life are fewer.
const CALLS_MAX: usize = 40;

/// Kills the kubelet at every call of a pod's life, before and after its effect. True if the life was that long.
async fn survives(crash: CrashAt, deleting: bool) -> bool {
    let runtime = FakeRuntime::new(false);
    let node = Node::with(runtime.clone());
    let pod = with_volumes(&node.client);
    node.client.put(pod);
    let uid = node.uid("web-0");
    let mut running = Some(node.start().await);
    if deleting {
        node.until_ready("web-0").await;
        let so_far = node.runtime.log().len();
        let call = so_far + crash.call;
        *runtime.crash.lock().unwrap() = Some(CrashAt { call, ..crash });
        node.delete("web-0");
    } else {
        *runtime.crash.lock().unwrap() = Some(crash);
    }
    let crashed = tokio::select! {
        () = runtime.crashed.notified() => true,
        () = async { if deleting {
            node.until_gone("web-0").await;
            node.until_clean(&uid).await;
        } else { node.until_ready("web-0").await; } } => false,
    };
    *runtime.crash.lock().unwrap() = None;
    if crashed {
        drop(running.take());
        running = Some(node.start().await);
    }
    if deleting {
        node.until_gone("web-0").await;
        node.until_clean(&uid).await;
        assert!(node.plugins[2].staged.lock().unwrap().is_empty());
    } else {
        node.until_ready("web-0").await;
        let observed = runtime.observed(&uid);
        let living = observed.containers.iter().filter(|it| it.state == State::Running);
        assert_eq!(living.count(), 1, "{observed:#?}");
    }
    drop(running);
    crashed
}

#[tokio::test]
async fn a_kill_at_any_call_doubles_nothing_and_loses_nothing() {
    for deleting in [false, true] {
        for after_effect in [false, true] {
            let mut calls = 0;
            for call in 1..CALLS_MAX {
                if !survives(CrashAt { call, after_effect }, deleting).await {
                    break;
                }
                calls = call;
            }
            assert!((2..CALLS_MAX - 1).contains(&calls), "{calls} calls were cut off");
        }
    }
}

#[tokio::test]
async fn running_containers_are_taken_back_as_they_are() {
    let node = Node::new();
    let pod = with_volumes(&node.client);
    node.client.put(pod);
    let running = node.start().await;
    let uid = node.until_ready("web-0").await.uid().to_owned();
    let before = node.runtime.observed(&uid);
    drop(running);
    let _running = node.start().await;
    // Something happens, so that the new one has looked.
    let key = ObjectKey::new("default", "web-0");
    let mut pod = node.client.world().get::<Pod>(&key).unwrap().to_owned();
    pod.status.as_mut().unwrap().phase = Some("Pending".to_owned());
    node.client.apply(&Change::status(pod)).unwrap();
    node.until_pod("web-0", "is told again", |it| {
        (it.status.as_ref()?.phase.as_deref() == Some("Running")).then_some(())
    })
    .await;
    assert_eq!(node.runtime.observed(&uid), before);
}

#[tokio::test]
async fn what_runs_without_an_object_is_stopped() {
    let node = Node::new();
    let pod = with_volumes(&node.client);
    node.client.put(pod);
    let running = node.start().await;
    let pod = node.until_ready("web-0").await;
    drop(running);
    // Deleted by force while nobody was there.
    node.client.apply(&Change::delete_now(&pod)).unwrap();
    let _running = node.start().await;
    node.until_clean(pod.uid()).await;
}

/// Deleted while the node was down, with nothing mounted any more: nobody else comes for its directory.
#[tokio::test]
async fn the_directory_of_a_pod_that_went_meanwhile_goes_too() {
    let node = Node::new();
    let pod_dir = node.directory.path().join("kubelet/pods/uid-of-gone");
    std::fs::create_dir_all(pod_dir.join("containers/app")).unwrap();
    for name in ["userns", ".userns", "etc-hosts"] {
        std::fs::write(pod_dir.join(name), "").unwrap();
    }
    let _running = node.start().await;
    node.until_clean("uid-of-gone").await;
}
