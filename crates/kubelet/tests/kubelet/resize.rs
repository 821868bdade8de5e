//! Other limits for what runs, in the order in which the kernel takes them.

use crate::fakes::{Node, yaml};
use api::core::v1::Pod;
use client::Client as _;
use world::{Change, ObjectKey};

/// Two containers with these limits.
fn pod(left: &str, right: &str) -> Pod {
    yaml(&format!(
        "{{metadata: {{name: web-0, namespace: default, uid: u}}, spec: {{nodeName: n1, containers: [{{name: left, image: 'app:1', resources: {{limits: {left}}}}}, {{name: right, image: 'app:1', resources: {{limits: {right}}}}}]}}}}"
    ))
}

/// The pod that runs is given the spec of another.
fn give(node: &Node, other: Pod) {
    let world = node.client.world();
    let running = world.get::<Pod>(&ObjectKey::new("default", "web-0")).unwrap().to_owned();
    node.client.apply(&Change::both(Pod { spec: other.spec, ..running })).unwrap();
}

/// What was limited, in this order, by the names of the containers.
fn limited(node: &Node) -> Vec<String> {
    let observed = node.runtime.observed("u");
    let lines = node.runtime.log().into_iter().filter(|it| it.starts_with("limit "));
    let named = |line: String| {
        let container =
            observed.containers.iter().find(|it| line.split(' ').nth(2) == Some(&it.id));
        match container {
            Some(it) => line.replace(&format!("container {}", it.id), &it.name),
            None => line.replace(&format!("sandbox {}", observed.sandboxes[0].id), "the pod"),
        }
    };
    lines.map(named).collect()
}

/// The whole used to be without any limit in between, and stayed so when a step failed.
#[tokio::test]
async fn what_lessens_goes_before_the_whole_and_what_grows_after_it() {
    let node = Node::new();
    let before = pod("{cpu: 100m, memory: 32Mi}", "{cpu: 300m, memory: 32Mi}");
    let after = pod("{cpu: 300m, memory: 32Mi}", "{cpu: 50m, memory: 64Mi}");
    node.client.put(before);
    let _running = node.start().await;
    node.until_ready("web-0").await;
    give(&node, after);
    node.until_pod("web-0", "has its new limits", |pod| {
        let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
        let limits = statuses[0].resources.as_ref()?.limits.as_ref()?;
        (limits["cpu"].0 == "300m").then_some(())
    })
    .await;
    assert_eq!(
        limited(&node),
        [
            "limit right to 5000 us, 67108864 bytes",
            "limit the pod to 35000 us, 100663296 bytes",
            "limit left to 30000 us, 33554432 bytes",
        ]
    );
}

/// The kernel takes a limit below what is in use, and kills until it holds.
#[tokio::test]
async fn memory_in_use_is_not_taken_away() {
    let node = Node::new();
    let one = "{cpu: 100m, memory: 64Mi}";
    node.client.put(pod(one, one));
    let _running = node.start().await;
    node.until_ready("web-0").await;
    let refusal = |what: &'static str, expected: &'static str| {
        let told = move |pod: &Pod| {
            let conditions = pod.status.as_ref()?.conditions.as_ref()?;
            let it = conditions.iter().find(|it| it.type_ == "PodResizeInProgress")?;
            (it.reason.as_deref() == Some("Error") && it.message.as_deref() == Some(expected))
                .then_some(())
        };
        node.until_pod("web-0", what, told)
    };
    give(&node, pod("{cpu: 100m, memory: 32Mi}", one));
    refusal(
        "tells that nobody knows what is in use",
        "cannot decrease memory limits: missing container \"left\" memory usage",
    )
    .await;
    node.runtime.in_use.lock().unwrap().insert("left".to_owned(), 48 << 20);
    refusal(
        "tells what is in use",
        "cannot decrease memory limits: attempting to set container \"left\" memory limit (33554432) below current usage (50331648)",
    )
    .await;
    node.runtime.in_use.lock().unwrap().insert("right".to_owned(), 48 << 20);
    refusal(
        "tells what is in use of the whole",
        "cannot decrease memory limits: [attempting to set pod memory limit (100663296) below current usage (100663296), attempting to set container \"left\" memory limit (33554432) below current usage (50331648)]",
    )
    .await;
    assert_eq!(limited(&node), [""; 0]);
    node.runtime.in_use.lock().unwrap().insert("left".to_owned(), 16 << 20);
    node.until_pod("web-0", "has its new limits", |pod| {
        let conditions = pod.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().all(|it| it.type_ != "PodResizeInProgress").then_some(())
    })
    .await;
    assert_eq!(
        limited(&node),
        ["limit the pod to 20000 us, 100663296 bytes", "limit left to 10000 us, 33554432 bytes",]
    );
}
