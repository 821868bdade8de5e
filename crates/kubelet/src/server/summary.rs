//! Figures: pods of the node, their use of the machine, and how full their volumes are.
//!
//! Upstream: `kubelet/pkg/apis/stats/v1alpha1/types.go`.

use super::{
    Context,
    answer::{Answer, json, whole},
};
use crate::runtime::message::{ContainerStats, PodSandboxStats, UInt64Value};
use api::{Object, core::pod};
use http::StatusCode;
use serde_json::{Map, Value, json};
use stdx::Timestamp;

pub(super) fn pods(context: &Context) -> Answer {
    let items: Vec<Value> = context.pods().iter().map(|it| api::codec::to_value(&**it)).collect();
    json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// Few, and under upstream's names.
pub(super) fn metrics(context: &Context) -> Answer {
    let pods = context.pods();
    let running = pods.iter().filter(|it| pod::phase(it) == "Running").count();
    let volumes = context.shared.volumes.ledger().all().len();
    let text = format!(
        "# HELP kubelet_desired_pods [ALPHA] Number of pods that should run on this node\n\
         # TYPE kubelet_desired_pods gauge\n\
         kubelet_desired_pods {}\n\
         # HELP kubelet_running_pods [BETA] Number of pods that have a running pod sandbox\n\
         # TYPE kubelet_running_pods gauge\n\
         kubelet_running_pods {running}\n\
         # HELP stanchion_kubelet_mounts Volumes of pods that are recorded as mounted\n\
         # TYPE stanchion_kubelet_mounts gauge\n\
         stanchion_kubelet_mounts {volumes}\n",
        pods.len()
    );
    whole(StatusCode::OK, "text/plain; version=0.0.4", text)
}

pub(super) async fn summary(context: &Context) -> Answer {
    // Without the runtime's word the volumes are still worth telling.
    let stats = context.shared.runtime.stats().await.unwrap_or_default();
    let mut pods = Vec::new();
    for pod in context.pods() {
        let of_pod = |it: &&PodSandboxStats| {
            let metadata = it.attributes.as_ref().and_then(|it| it.metadata.as_ref());
            metadata.is_some_and(|it| it.uid == pod.uid())
        };
        let mut summary = stats.iter().find(of_pod).map(usage).unwrap_or_default();
        let reference = json!({"name": pod.name(), "namespace": pod.namespace(), "uid": pod.uid()});
        summary.insert("podRef".to_owned(), reference);
        summary.insert("volume".to_owned(), volumes(context, &pod).await.into());
        pods.push(Value::Object(summary));
    }
    let node = json!({"nodeName": context.shared.facts.node_name});
    json(&json!({"node": node, "pods": pods}))
}

async fn volumes(context: &Context, pod: &api::core::v1::Pod) -> Vec<Value> {
    let claims = pod::claims(pod);
    let volumes = &context.shared.volumes;
    let mut all = Vec::new();
    for record in volumes.ledger().of_pod(pod.uid()) {
        let (Some(path), Some(plugin)) = (&record.host_path, volumes.plugin(&record.plugin)) else {
            continue;
        };
        let Ok(stats) = plugin.stats(&record.handle, path).await else { continue };
        let mut value = json!({
            "name": record.volume,
            "capacityBytes": stats.bytes_total,
            "usedBytes": stats.bytes_used,
            "availableBytes": stats.bytes_available,
            "inodes": stats.inodes_total,
            "inodesUsed": stats.inodes_used,
            "inodesFree": stats.inodes_free,
            "time": context.shared.clock.now().rfc3339(),
        });
        if let Some((_, claim)) = claims.iter().find(|(volume, _)| *volume == record.volume) {
            value["pvcRef"] = json!({"name": claim, "namespace": pod.namespace()});
        }
        all.push(value);
    }
    all
}

fn usage(stats: &PodSandboxStats) -> Map<String, Value> {
    let linux = stats.linux.clone().unwrap_or_default();
    let containers: Vec<Value> = linux.containers.iter().map(container).collect();
    let mut map = Map::new();
    map.insert("containers".to_owned(), containers.into());
    if let Some(interface) = linux.network.and_then(|it| it.default_interface) {
        let network = json!({
            "name": interface.name,
            "rxBytes": number(&interface.rx_bytes),
            "txBytes": number(&interface.tx_bytes),
        });
        map.insert("network".to_owned(), network);
    }
    map
}

fn container(stats: &ContainerStats) -> Value {
    let metadata = stats.attributes.clone().and_then(|it| it.metadata).unwrap_or_default();
    let mut value = json!({"name": metadata.name});
    if let Some(cpu) = &stats.cpu {
        value["cpu"] = json!({
            "time": Timestamp(cpu.timestamp / 1000).rfc3339(),
            "usageNanoCores": number(&cpu.usage_nano_cores),
            "usageCoreNanoSeconds": number(&cpu.usage_core_nano_seconds),
        });
    }
    if let Some(memory) = &stats.memory {
        value["memory"] = json!({
            "time": Timestamp(memory.timestamp / 1000).rfc3339(),
            "workingSetBytes": number(&memory.working_set_bytes),
            "usageBytes": number(&memory.usage_bytes),
            "rssBytes": number(&memory.rss_bytes),
        });
    }
    value
}

fn number(value: &Option<UInt64Value>) -> Option<u64> {
    value.as_ref().map(|it| it.value)
}
