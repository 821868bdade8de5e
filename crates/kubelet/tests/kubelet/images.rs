//! Whose an image is that was pulled with a login.

use crate::fakes::{Node, yaml};
use api::core::v1::{Pod, Secret};

const IMAGE: &str = "r.lan/private:1";

fn pod(name: &str, secrets: &str) -> Pod {
    yaml(&format!(
        "{{metadata: {{name: {name}, namespace: default, uid: uid-of-{name}}}, spec: {{nodeName: n1, imagePullSecrets: {secrets}, containers: [{{name: app, image: {IMAGE}}}]}}}}"
    ))
}

/// The pull went well, and then the runtime could not tell about the image: whoever had no login got it for nothing.
#[tokio::test]
async fn a_pull_whose_end_is_not_known_leaves_the_image_to_those_who_have_a_login() {
    let node = Node::new();
    node.runtime.registry.lock().unwrap().insert(IMAGE.to_owned(), "tenant".to_owned());
    node.client.put::<Secret>(yaml(
        "{metadata: {name: login, namespace: default, uid: login-1}, type: kubernetes.io/dockerconfigjson, stringData: {}, data: {.dockerconfigjson: eyJhdXRocyI6eyJyLmxhbiI6eyJ1c2VybmFtZSI6InRlbmFudCIsInBhc3N3b3JkIjoieCJ9fX0=}}",
    ));
    let waits = |pod: &Pod| {
        let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
        statuses.first()?.state.as_ref()?.waiting.clone()?.message
    };
    let _running = node.start().await;
    node.client.put(pod("owner", "[{name: login}]"));
    let told = |pod: &Pod| waits(pod).filter(|it| it.contains("too busy"));
    node.until_pod("owner", "has lost its pull", told).await;
    node.client.put(pod("stranger", "[]"));
    let told = |pod: &Pod| waits(pod).filter(|it| it.contains("not without a login"));
    node.until_pod("stranger", "is refused", told).await;
}
