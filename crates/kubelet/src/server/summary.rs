//! Figures as JSON: pods of the node, their use of the machine, and how full their volumes are.
//!
//! Upstream: `kubelet/pkg/apis/stats/v1alpha1/types.go`.

use super::{
    Context,
    answer::{Answer, json},
};
use crate::figures::{self, ContainerFigures, Disk, Figures, PodFigures, Used, VolumeFigures};
use api::{Object, meta};
use serde_json::{Value, json};
use stdx::{DiskUsage, Timestamp};

pub(super) fn pods(context: &Context) -> Answer {
    let items: Vec<Value> = context.pods().iter().map(|it| api::codec::to_value(&**it)).collect();
    json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

pub(super) async fn summary(context: &Context) -> Answer {
    let figures = figures::measure(&context.shared).await;
    json(&of(&context.shared.facts.node_name, &figures))
}

fn of(node_name: &str, figures: &Figures) -> Value {
    let at = figures.at;
    let disk = filesystem(&figures.disk, at);
    let mut images = filesystem(&figures.image_disk, at);
    images["usedBytes"] = figures.image_bytes.into();
    let mut memory = memory(&figures.node, at);
    memory["availableBytes"] = figures.memory_available.into();
    let node = json!({
        "nodeName": node_name,
        "cpu": cpu(&figures.node, at),
        "memory": memory,
        "fs": disk,
        "runtime": {"imageFs": images, "containerFs": filesystem(&figures.image_disk, at)},
    });
    let pods: Vec<Value> = figures.pods.iter().map(|it| pod(figures, it)).collect();
    json!({"node": node, "pods": pods})
}

fn pod(figures: &Figures, pod: &PodFigures) -> Value {
    let at = figures.at;
    let object = &pod.pod;
    let containers: Vec<Value> = pod.containers.iter().map(|it| container(figures, it)).collect();
    let volumes: Vec<Value> =
        pod.volumes.iter().map(|it| volume(it, object.namespace(), at)).collect();
    let start = object.status.as_ref().and_then(|it| it.start_time.as_ref());
    let mut value = json!({
        "podRef": {"name": object.name(), "namespace": object.namespace(), "uid": object.uid()},
        "startTime": start.map(|it| meta::timestamp_of(it).rfc3339()),
        "containers": containers,
        "cpu": cpu(&pod.used, at),
        "memory": memory(&pod.used, at),
        "volume": volumes,
        "ephemeral-storage": taken(pod.ephemeral(), &figures.disk, at),
    });
    if let Some(processes) = pod.processes {
        value["process_stats"] = json!({"process_count": processes});
    }
    if let Some(interface) = &pod.network {
        let number =
            |it: &Option<crate::runtime::message::UInt64Value>| it.as_ref().map(|it| it.value);
        value["network"] = json!({
            "time": at.rfc3339(),
            "name": interface.name,
            "rxBytes": number(&interface.rx_bytes),
            "txBytes": number(&interface.tx_bytes),
        });
    }
    value
}

fn container(figures: &Figures, container: &ContainerFigures) -> Value {
    json!({
        "name": container.name,
        "startTime": container.started.map(Timestamp::rfc3339),
        "cpu": cpu(&container.used, figures.at),
        "memory": memory(&container.used, figures.at),
        "rootfs": taken(container.layer, &figures.image_disk, figures.at),
        "logs": taken(container.logs, &figures.disk, figures.at),
    })
}

fn volume(volume: &VolumeFigures, namespace: &str, at: Timestamp) -> Value {
    let stats = &volume.stats;
    let mut value = json!({
        "name": volume.name,
        "time": at.rfc3339(),
        "capacityBytes": stats.bytes_total,
        "usedBytes": stats.bytes_used,
        "availableBytes": stats.bytes_available,
        "inodes": stats.inodes_total,
        "inodesUsed": stats.inodes_used,
        "inodesFree": stats.inodes_free,
    });
    if let Some(claim) = &volume.claim {
        value["pvcRef"] = json!({"name": claim, "namespace": namespace});
    }
    value
}

fn cpu(used: &Used, at: Timestamp) -> Value {
    json!({
        "time": at.rfc3339(),
        "usageNanoCores": used.nano_cores,
        "usageCoreNanoSeconds": used.cpu_nanoseconds,
    })
}

fn memory(used: &Used, at: Timestamp) -> Value {
    json!({
        "time": at.rfc3339(),
        "usageBytes": used.memory_bytes,
        "workingSetBytes": used.working_set,
        "rssBytes": used.rss,
        "pageFaults": used.page_faults,
        "majorPageFaults": used.major_page_faults,
    })
}

fn filesystem(disk: &Disk, at: Timestamp) -> Value {
    json!({
        "time": at.rfc3339(),
        "availableBytes": disk.available,
        "capacityBytes": disk.bytes,
        "usedBytes": disk.used,
        "inodesFree": disk.inodes_free,
        "inodes": disk.inodes,
        "inodesUsed": disk.inodes.saturating_sub(disk.inodes_free),
    })
}

/// A part of a disk.
fn taken(part: DiskUsage, disk: &Disk, at: Timestamp) -> Value {
    let mut value = filesystem(disk, at);
    value["usedBytes"] = part.bytes.into();
    value["inodesUsed"] = part.inodes.into();
    value
}
