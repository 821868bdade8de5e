//! A node that runs nothing: its pods are ready as soon as it sees them, and gone when told to go.

use api::{
    Object, codec,
    core::{
        pod::{is_ready, set_condition},
        v1::{Node, Pod},
    },
};
use client::Client;
use serde_json::json;
use std::sync::Arc;
use tokio::task::JoinHandle;
use world::{Change, Typed};

pub(crate) async fn start(client: Arc<dyn Client>, name: &str) -> JoinHandle<()> {
    let node: Node = codec::from_value(&json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {
            "allocatable": {"cpu": "64", "memory": "256Gi", "pods": "1000"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }))
    .expect("a node");
    client.write(vec![Change::create_with_status(node)]).await.expect("a node joins");
    let name = name.to_owned();
    tokio::spawn(async move {
        let mut follower = client.follow();
        loop {
            let world = client.world();
            let mine: Vec<Typed<Pod>> = world.indexed::<Pod>("node", &name).collect();
            for pod in mine {
                // A conflict is seen again with the next world.
                let _stale = match pod.is_deleting() {
                    true => client.write(vec![Change::delete_now(&*pod)]).await,
                    false if is_ready(&pod) => continue,
                    false => client.write(vec![Change::status(ready(&pod))]).await,
                };
            }
            if follower.next().await.is_none() {
                return;
            }
        }
    })
}

fn ready(pod: &Pod) -> Pod {
    let mut pod = pod.clone();
    pod.status.get_or_insert_default().phase = Some("Running".to_owned());
    set_condition(&mut pod, "Ready", "True", "", "", stdx::Timestamp::from_seconds(1));
    pod
}
