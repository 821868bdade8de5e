//! From a pod in the world to a container, and back to nothing.

use crate::fakes::{FakeRuntime, Node, with_volumes, yaml};
use api::{
    Object,
    core::v1::{ConfigMap, Pod},
};
use client::Client as _;
use kubelet::runtime::State;
use world::{Change, ObjectKey};

fn simple(extra: &str) -> Pod {
    yaml(&format!(
        "
metadata: {{name: p, namespace: default, uid: uid-of-p}}
spec:
  nodeName: n1
  {extra}
  containers: [{{name: app, image: 'app:1'}}]
"
    ))
}

#[tokio::test]
async fn a_pod_with_volumes_becomes_ready_and_leaves_nothing_behind() {
    let node = Node::new();
    let pod = with_volumes(&node.client);
    let _running = node.start().await;
    node.client.put(pod);
    let pod = node.until_ready("web-0").await;
    let status = pod.status.clone().unwrap();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert!(status.pod_ip.is_some_and(|it| it.starts_with("10.0.0.")));
    assert_eq!(status.host_ip.as_deref(), Some("192.0.2.1"));
    let container = &status.container_statuses.unwrap()[0];
    assert!(container.container_id.as_deref().is_some_and(|it| it.starts_with("stanchion://c")));
    assert_eq!(
        (container.ready, container.started, container.restart_count),
        (true, Some(true), 0)
    );
    assert_eq!(
        node.client.said(),
        [
            "Pulled Container image \"app:1\" already present on machine and can be accessed by the pod",
            "Created Container created",
            "Started Container started",
        ]
    );
    let volumes = node.directory.path().join("kubelet/pods").join(pod.uid()).join("volumes");
    assert!(volumes.join("kubernetes.io~csi/pv-1/mount").is_dir());
    assert!(volumes.join("kubernetes.io~empty-dir/scratch").is_dir());
    node.delete("web-0");
    node.until_gone("web-0").await;
    assert!(node.client.said().contains(&"Killing Stopping container app".to_owned()));
    node.until_clean(pod.uid()).await;
    assert!(node.plugins[2].staged.lock().unwrap().is_empty(), "unstaged with its last pod");
}

/// A process that was killed writes to a server that is dead: the kernel holds it until its volume gives up.
#[tokio::test]
async fn a_killed_container_that_a_volume_holds_goes_when_the_volume_gives_up() {
    let node = Node::new();
    let mut pod = with_volumes(&node.client);
    pod.spec.as_mut().unwrap().termination_grace_period_seconds = Some(1);
    let _running = node.start().await;
    node.client.put(pod);
    let pod = node.until_ready("web-0").await;
    *node.runtime.held_by.lock().unwrap() = Some(node.plugins[2].clone());
    node.delete("web-0");
    node.until_gone("web-0").await;
    node.until_clean(pod.uid()).await;
}

#[tokio::test]
async fn no_container_is_left_out_when_every_event_is_lost() {
    let node = Node::with(FakeRuntime::new(true));
    let pod = with_volumes(&node.client);
    node.client.put(pod);
    let _running = node.start().await;
    let pod = node.until_ready("web-0").await;
    node.delete("web-0");
    node.until_gone("web-0").await;
    node.until_clean(pod.uid()).await;
}

#[tokio::test]
async fn a_container_that_ends_is_started_again_and_remembered() {
    let node = Node::new();
    let _running = node.start().await;
    node.client.put(simple("restartPolicy: Always"));
    let pod = node.until_ready("p").await;
    node.runtime.exit(pod.uid(), "app", 3);
    let restarted = node
        .until_pod("p", "is restarted", |it| {
            let status = it.status.as_ref()?.container_statuses.as_ref()?[0].clone();
            (status.restart_count == 1 && status.ready).then_some(status)
        })
        .await;
    assert_eq!(restarted.last_state.unwrap().terminated.unwrap().exit_code, 3);
    node.runtime.exit(pod.uid(), "app", 4);
    let waiting = node
        .until_pod("p", "waits", |it| {
            it.status.as_ref()?.container_statuses.as_ref()?[0].state.as_ref()?.waiting.clone()
        })
        .await;
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    let message =
        format!("back-off 10s restarting failed container=app pod=p_default({})", pod.uid());
    assert_eq!(waiting.message, Some(message));
    let phase = node.until_pod("p", "says Running", |it| it.status.as_ref()?.phase.clone()).await;
    assert_eq!(phase, "Running");
}

#[tokio::test]
async fn a_pod_that_has_done_its_work_is_over() {
    for (code, phase) in [(0, "Succeeded"), (1, "Failed")] {
        let node = Node::new();
        let _running = node.start().await;
        node.client.put(simple("restartPolicy: Never"));
        let pod = node.until_ready("p").await;
        node.runtime.exit(pod.uid(), "app", code);
        let over = node
            .until_pod("p", "is over", |it| {
                let status = it.status.clone()?;
                (status.phase.as_deref() == Some(phase)).then_some(status)
            })
            .await;
        let ready = over.conditions.unwrap().into_iter().find(|it| it.type_ == "Ready").unwrap();
        assert_eq!(ready.status, "False");
        assert_eq!(node.runtime.log().iter().filter(|it| it.starts_with("create")).count(), 1);
    }
}

#[tokio::test]
async fn init_containers_run_one_after_the_other() {
    let node = Node::new();
    let _running = node.start().await;
    node.client
        .put(simple("initContainers: [{name: one, image: 'app:1'}, {name: two, image: 'app:1'}]"));
    let uid = node.uid("p");
    for name in ["one", "two"] {
        node.until_pod("p", name, |it| {
            let all = it.status.as_ref()?.init_container_statuses.as_ref()?;
            all.iter().find(|it| it.name == name)?.state.as_ref()?.running.clone()
        })
        .await;
        node.runtime.exit(&uid, name, 0);
    }
    node.until_ready("p").await;
    let created: Vec<String> =
        node.runtime.log().into_iter().filter(|it| it.starts_with("create")).collect();
    assert_eq!(created, ["create one #0", "create two #0", "create app #0"]);
}

#[tokio::test]
async fn a_missing_image_is_told_and_tried_again() {
    let node = Node::new();
    let _running = node.start().await;
    let mut pod = simple("restartPolicy: Always");
    pod.spec.as_mut().unwrap().containers[0].image = Some("other:2".to_owned());
    node.client.put(pod);
    let waiting = node
        .until_pod("p", "waits for its image", |it| {
            let waiting =
                it.status.as_ref()?.container_statuses.as_ref()?[0].state.clone()?.waiting?;
            (waiting.reason.as_deref() == Some("ErrImagePull")).then_some(waiting)
        })
        .await;
    assert_eq!(waiting.message.as_deref(), Some("no registry answers"));
    let said = node.client.said();
    assert_eq!(said[0], "Pulling Pulling image \"other:2\"");
    assert_eq!(said[1], "Failed Failed to pull image \"other:2\": no registry answers");
    assert_eq!(said[2], "Failed Error: ErrImagePull");
    node.until_pod("p", "backs off", |it| {
        let waiting = it.status.as_ref()?.container_statuses.as_ref()?[0].state.clone()?.waiting?;
        (waiting.reason.as_deref() == Some("ImagePullBackOff")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_container_that_cannot_be_made_is_shown_so_until_it_is() {
    let node = Node::new();
    let _running = node.start().await;
    let mut pod = simple("restartPolicy: Always");
    pod.spec.as_mut().unwrap().containers[0].env =
        Some(vec![yaml_env("{name: A, valueFrom: {configMapKeyRef: {name: late, key: k}}}")]);
    node.client.put(pod);
    let mut shown: Vec<String> = Vec::new();
    node.until_pod("p", "is tried again", |it| {
        let waiting = it.status.as_ref()?.container_statuses.as_ref()?[0].state.clone()?.waiting?;
        let reason = waiting.reason.unwrap_or_default();
        if shown.last() != Some(&reason) {
            shown.push(reason);
        }
        let said = node.client.said();
        let tries = said.iter().filter(|it| it.contains("configmap \"late\" not found")).count();
        (tries > 1).then_some(())
    })
    .await;
    assert_eq!(shown.last().unwrap(), "CreateContainerConfigError");
    assert!(shown.len() <= 2, "{shown:?}");
    node.client
        .put::<ConfigMap>(yaml("{metadata: {name: late, namespace: default}, data: {k: v1}}"));
    node.until_ready("p").await;
}

fn yaml_env(text: &str) -> api::core::v1::EnvVar {
    let pod: Pod = yaml(&format!(
        "{{metadata: {{name: x}}, spec: {{containers: [{{name: c, env: [{text}]}}]}}}}"
    ));
    pod.spec.unwrap().containers[0].env.clone().unwrap().remove(0)
}

#[tokio::test]
async fn a_volume_that_fails_is_tried_again_and_a_missing_config_map_waited_for() {
    let node = Node::new();
    let _running = node.start().await;
    *node.plugins[0].failures.lock().unwrap() = 1;
    let mut pod = simple("volumes: [{name: a, emptyDir: {}}, {name: b, configMap: {name: late}}]");
    pod.spec.as_mut().unwrap().containers[0].volume_mounts =
        yaml_mounts(&[("a", "/a"), ("b", "/b")]);
    node.client.put(pod);
    let sleeping = "FailedMount MountVolume.SetUp failed for volume \"a\" : the disk is asleep";
    let missing =
        "FailedMount MountVolume.SetUp failed for volume \"b\" : configmap \"late\" not found";
    node.until_pod("p", "is told why", |_| {
        let said = node.client.said();
        [sleeping, missing].iter().all(|it| said.iter().any(|said| said == it)).then_some(())
    })
    .await;
    node.client
        .put::<ConfigMap>(yaml("{metadata: {name: late, namespace: default}, data: {k: v1}}"));
    let pod = node.until_ready("p").await;
    let file = node.directory.path().join("kubelet/pods").join(pod.uid());
    let file = file.join("volumes/kubernetes.io~configmap/b/k");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "v1");
    // A change reaches the running pod.
    let key = ObjectKey::new("default", "late");
    let mut map = node.client.world().get::<ConfigMap>(&key).unwrap().to_owned();
    map.data.as_mut().unwrap().insert("k".to_owned(), "v2".to_owned());
    node.client.apply(&Change::update(map)).unwrap();
    while std::fs::read_to_string(&file).unwrap_or_default() != "v2" {
        tokio::task::yield_now().await;
    }
    assert_eq!(node.runtime.log().iter().filter(|it| it.starts_with("create")).count(), 1);
}

fn yaml_mounts(mounts: &[(&str, &str)]) -> Option<Vec<api::core::v1::VolumeMount>> {
    let mount = |(name, path): &(&str, &str)| api::core::v1::VolumeMount {
        name: (*name).to_owned(),
        mount_path: (*path).to_owned(),
        ..Default::default()
    };
    Some(mounts.iter().map(mount).collect())
}

#[tokio::test]
async fn probes_decide_readiness_and_life() {
    let node = Node::new();
    let _running = node.start().await;
    let mut pod = simple("restartPolicy: Always");
    let probe = |command: &str| -> Option<api::core::v1::Probe> {
        let exec = api::core::v1::ExecAction { command: Some(vec![command.to_owned()]) };
        Some(api::core::v1::Probe {
            exec: Some(exec),
            failure_threshold: Some(1),
            period_seconds: Some(1),
            ..Default::default()
        })
    };
    let container = &mut pod.spec.as_mut().unwrap().containers[0];
    container.readiness_probe = probe("true");
    container.liveness_probe = probe("false");
    node.client.put(pod);
    node.until_ready("p").await;
    node.until_pod("p", "is restarted", |it| {
        let status = &it.status.as_ref()?.container_statuses.as_ref()?[0];
        (status.restart_count >= 1).then_some(())
    })
    .await;
    let said = node.client.said();
    assert!(said.contains(&"Unhealthy Liveness probe failed: no".to_owned()), "{said:?}");
    let killing = "Killing Container app failed liveness probe, will be restarted";
    assert!(said.contains(&killing.to_owned()), "{said:?}");
}

#[tokio::test]
async fn a_static_pod_runs_from_its_file_and_its_mirror_comes_back() {
    let node = Node::new();
    let manifests = node.directory.path().join("manifests");
    std::fs::create_dir_all(&manifests).unwrap();
    let manifest = "{apiVersion: v1, kind: Pod, metadata: {name: s}, spec: {containers: [{name: app, image: 'app:1', imagePullPolicy: IfNotPresent}]}}";
    std::fs::write(manifests.join("s.yaml"), manifest).unwrap();
    let _running = node.start().await;
    let mirror = node.until_ready("s-n1").await;
    let hash = mirror.annotation("kubernetes.io/config.mirror").unwrap().to_owned();
    assert_ne!(hash, mirror.uid(), "the object has a uid of its own");
    assert_eq!(node.runtime.observed(&hash).containers.len(), 1, "it runs under the file's");
    node.client.apply(&Change::delete_now(&mirror)).unwrap();
    let again = node
        .until_pod("s-n1", "comes back", |it| {
            let is_new = it.uid() != mirror.uid() && api::core::pod::is_ready(it);
            is_new.then(|| it.clone())
        })
        .await;
    assert_eq!(again.annotation("kubernetes.io/config.mirror"), Some(&*hash));
    assert_eq!(node.runtime.observed(&hash).containers[0].attempt, 0, "nothing was restarted");
    std::fs::remove_file(manifests.join("s.yaml")).unwrap();
    node.until_gone("s-n1").await;
    node.until_clean(&hash).await;
}

#[tokio::test]
async fn a_pod_that_does_not_fit_is_failed_and_nothing_of_it_is_made() {
    let node = Node::new();
    let _running = node.start().await;
    node.client.put(simple("nodeSelector: {nowhere: 'true'}"));
    let pod = node
        .until_pod("p", "is failed", |it| {
            (api::core::pod::phase(it) == "Failed").then(|| it.clone())
        })
        .await;
    let status = pod.status.unwrap();
    assert_eq!(status.reason.as_deref(), Some("NodeAffinity"));
    assert_eq!(status.container_statuses, None);
    assert_eq!(node.runtime.log(), [""; 0]);
    let said = "NodeAffinity Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
    assert_eq!(node.client.said(), [said]);
    // Of its server's next life it has nothing to fear either.
    node.delete("p");
    node.until_gone("p").await;
}

/// Whoever deleted a pod whose postStart hook went on waited for the hook, for an hour.
#[tokio::test]
async fn a_pod_goes_while_its_hook_still_runs() {
    let node = Node::new();
    node.client.put::<Pod>(yaml(
        "
metadata: {name: web-0, namespace: default, uid: u}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 5
  containers:
  - {name: app, image: 'app:1', lifecycle: {postStart: {exec: {command: [sleep]}}}}
",
    ));
    let _running = node.start().await;
    node.until_pod("web-0", "has its container", |pod| {
        let runs = node.runtime.observed(pod.uid()).containers;
        let told = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
        (told.container_id.is_some() && runs.first()?.state == State::Running).then_some(())
    })
    .await;
    node.delete("web-0");
    node.until_gone("web-0").await;
}
