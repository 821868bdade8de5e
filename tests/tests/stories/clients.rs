//! Programs that people write, with the libraries that they use: create, watch, patch, exec and log.

use futures_util::{StreamExt, TryStreamExt, pin_mut};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client, Config,
    api::{AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{
        WatchStreamExt,
        wait::{await_condition, conditions},
        watcher,
    },
};
use serde_json::json;
use std::process::Command;
use tests::{Cluster, Options, images, python};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn with_busybox() -> Options {
    Options { images: vec![images().busybox.clone()], ..Options::default() }
}

#[test]
fn a_python_program_finds_what_it_expects() {
    let Some(cluster) = Cluster::start_with("python", with_busybox()) else { return };
    let Some(python) = python() else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/story.py");
    let mut program = Command::new(python);
    program.arg(script).env("KUBECONFIG", cluster.kubeconfig()).env("HOME", cluster.directory());
    let output = program.output().expect("python");
    let (out, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{errors}");
    assert!(out.ends_with("all as it should be\n"), "{out}");
}

#[test]
fn a_rust_program_finds_what_it_expects() {
    let Some(cluster) = Cluster::start_with("kube-rs", with_busybox()) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        let client = Client::try_from(config).unwrap();
        objects(Api::default_namespaced(client.clone())).await;
        pods(Api::default_namespaced(client)).await;
    });
}

async fn objects(maps: Api<ConfigMap>) {
    let events = watcher(maps.clone(), watcher::Config::default().labels("app=rust"));
    let events = events.default_backoff().applied_objects();
    pin_mut!(events);
    let map = |value: &str| {
        let labels = json!({"app": "rust"});
        serde_json::from_value::<ConfigMap>(json!({
            "metadata": {"name": "a", "labels": labels}, "data": {"k": value},
        }))
        .unwrap()
    };
    let created = maps.create(&PostParams::default(), &map("1")).await.unwrap();
    let again = maps.create(&PostParams::default(), &map("1")).await.unwrap_err();
    assert!(matches!(&again, kube::Error::Api(status) if status.code == 409), "{again}");

    let merge = Patch::Merge(json!({"data": {"l": "2"}}));
    maps.patch("a", &PatchParams::default(), &merge).await.unwrap();
    let strategic = Patch::Strategic(json!({"data": {"k": null}}));
    let patched = maps.patch("a", &PatchParams::default(), &strategic).await.unwrap();
    assert_eq!(patched.data.unwrap().into_iter().collect::<Vec<_>>(), [("l".into(), "2".into())]);
    let late =
        maps.replace("a", &PostParams::default(), &ConfigMap { data: None, ..created }).await;
    assert!(matches!(&late, Err(kube::Error::Api(status)) if status.code == 409), "{late:?}");

    // The watcher may begin at any of these states; the last one is told in any case.
    while let Some(map) = events.try_next().await.unwrap() {
        let data = map.data.unwrap_or_default();
        if data.len() == 1 && data.contains_key("l") {
            break;
        }
    }
    let applied: serde_json::Value = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"a": "1"},
    });
    match maps.patch("applied", &PatchParams::apply("story"), &Patch::Apply(&applied)).await {
        Ok(map) => {
            assert_eq!(map.data.unwrap()["a"], "1");
            let owner = &map.metadata.managed_fields.unwrap()[0];
            assert_eq!(owner.manager.as_deref(), Some("story"));
        }
        // As docs/deviations.md says, for as long as it does.
        Err(kube::Error::Api(status)) if status.code == 415 => {
            println!("skipped: server-side apply is not there yet");
        }
        Err(error) => panic!("{error}"),
    }
    let listed = maps.list(&ListParams::default().labels("app=rust")).await.unwrap();
    assert_eq!(listed.items.len(), 1);
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(maps.get_opt("a").await.unwrap().is_none());
}

async fn pods(pods: Api<Pod>) {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p"},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main", "image": "busybox", "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", "echo one; echo two; exec sleep infinity"],
            }],
        },
    }))
    .unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    await_condition(pods.clone(), "p", conditions::is_pod_running()).await.unwrap();
    let log = pods.log_stream("p", &LogParams { follow: true, ..LogParams::default() }).await;
    let lines = futures_util::io::AsyncBufReadExt::lines(log.unwrap());
    let lines: Vec<String> = lines.take(2).try_collect().await.unwrap();
    assert_eq!(lines, ["one", "two"]);

    let command = ["sh", "-c", "read line; echo got $line; echo bad >&2; exit 7"];
    let streams = AttachParams::default().stdin(true).stdout(true).stderr(true);
    let mut process = pods.exec("p", command, &streams).await.unwrap();
    process.stdin().unwrap().write_all(b"this\n").await.unwrap();
    let (mut out, mut errors) = (String::new(), String::new());
    process.stdout().unwrap().read_to_string(&mut out).await.unwrap();
    process.stderr().unwrap().read_to_string(&mut errors).await.unwrap();
    assert_eq!((out.as_str(), errors.as_str()), ("got this\n", "bad\n"));
    let status = process.take_status().unwrap().await.unwrap();
    assert_eq!(status.status.as_deref(), Some("Failure"), "{status:?}");
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"), "{status:?}");
    process.join().await.unwrap();

    pods.delete("p", &DeleteParams::default()).await.unwrap();
}
