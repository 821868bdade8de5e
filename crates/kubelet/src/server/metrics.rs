//! Figures as metrics, under upstream's names.
//!
//! Upstream: `pkg/kubelet/metrics/metrics.go`, `metrics/collectors/{resource_metrics,volume_stats}.go`, and cAdvisor's
//! names for `/metrics/cadvisor`.

use super::{
    Context,
    answer::{Answer, whole},
};
use crate::figures::{self, Figures, Used};
use api::{Object, core::pod};
use http::StatusCode;
use std::fmt::{Display, Write};

/// Metrics in the text format: families in the order in which they are begun.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}")
            .expect("writing to a String");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let escaped = |it: &str| it.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        writeln!(self.0, "{name}{labels} {value}").expect("writing to a String");
    }

    fn answer(self) -> Answer {
        whole(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.0)
    }
}

/// `/metrics`: the kubelet itself, and its volumes.
pub(super) async fn kubelet(context: &Context) -> Answer {
    let mut text = Text::default();
    let pods = context.pods();
    let running = pods.iter().filter(|it| pod::phase(it) == "Running").count();
    let containers = pods.iter().filter_map(|it| it.status.as_ref());
    let containers = containers
        .flat_map(|it| it.container_statuses.iter().flatten())
        .filter(|it| it.state.as_ref().is_some_and(|it| it.running.is_some()))
        .count();
    let gauge = |text: &mut Text, name: &str, help: &str, value: usize| {
        text.family(name, "gauge", help);
        text.sample(name, &[], value);
    };
    gauge(
        &mut text,
        "kubelet_desired_pods",
        "[ALPHA] The number of pods the kubelet is being instructed to run",
        pods.len(),
    );
    gauge(
        &mut text,
        "kubelet_running_pods",
        "[BETA] Number of pods that have a running pod sandbox",
        running,
    );
    text.family(
        "kubelet_running_containers",
        "gauge",
        "[BETA] Number of containers currently running",
    );
    text.sample("kubelet_running_containers", &[("container_state", "running")], containers);
    text.family("kubelet_node_name", "gauge", "[STABLE] The node's name. The count is always 1.");
    text.sample("kubelet_node_name", &[("node", &context.shared.facts.node_name)], 1);
    gauge(
        &mut text,
        "stanchion_kubelet_mounts",
        "Volumes of pods that are recorded as mounted",
        context.shared.volumes.ledger().all().len(),
    );
    volumes(&mut text, &figures::measure(&context.shared).await);
    text.answer()
}

fn volumes(text: &mut Text, figures: &Figures) {
    type Field = fn(&::volumes::Stats) -> u64;
    let fields: [(&str, &str, Field); 6] = [
        ("capacity_bytes", "Capacity in bytes of the volume", |it| it.bytes_total),
        ("available_bytes", "Number of available bytes in the volume", |it| it.bytes_available),
        ("used_bytes", "Number of used bytes in the volume", |it| it.bytes_used),
        ("inodes", "Maximum number of inodes in the volume", |it| it.inodes_total),
        ("inodes_free", "Number of free inodes in the volume", |it| it.inodes_free),
        ("inodes_used", "Number of used inodes in the volume", |it| it.inodes_used),
    ];
    for (name, help, field) in fields {
        let name = format!("kubelet_volume_stats_{name}");
        text.family(&name, "gauge", &format!("[ALPHA] {help}"));
        for pod in &figures.pods {
            for volume in &pod.volumes {
                let Some(claim) = &volume.claim else { continue };
                let labels =
                    [("namespace", pod.pod.namespace()), ("persistentvolumeclaim", claim.as_str())];
                text.sample(&name, &labels, field(&volume.stats));
            }
        }
    }
}

/// `/metrics/resource`: what autoscaling reads.
pub(super) async fn resource(context: &Context) -> Answer {
    let figures = figures::measure(&context.shared).await;
    let mut text = Text::default();
    let at = figures.at.0 / 1000;
    let stamped = |value: String| format!("{value} {at}");
    let help = |what: &str| format!("[STABLE] {what}");
    type Field = fn(&Used) -> Option<String>;
    let cpu: Field = |it| it.cpu_nanoseconds.map(seconds);
    let memory: Field = |it| it.working_set.map(|it| it.to_string());
    let kinds = [
        ("cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in core-seconds", cpu),
        ("memory_working_set_bytes", "gauge", "Current working set in bytes", memory),
    ];
    for (suffix, kind, what, field) in kinds {
        let name = format!("node_{suffix}");
        text.family(&name, kind, &help(what));
        if let Some(value) = field(&figures.node) {
            text.sample(&name, &[], stamped(value));
        }
        let (of_containers, of_pods) = (format!("container_{suffix}"), format!("pod_{suffix}"));
        text.family(&of_containers, kind, &help(what));
        for pod in &figures.pods {
            for it in &pod.containers {
                let labels = [
                    ("container", it.name.as_str()),
                    ("namespace", pod.pod.namespace()),
                    ("pod", pod.pod.name()),
                ];
                if let Some(value) = field(&it.used) {
                    text.sample(&of_containers, &labels, stamped(value));
                }
            }
        }
        text.family(&of_pods, kind, &help(what));
        for pod in &figures.pods {
            let labels = [("namespace", pod.pod.namespace()), ("pod", pod.pod.name())];
            if let Some(value) = field(&pod.used) {
                text.sample(&of_pods, &labels, stamped(value));
            }
        }
    }
    let name = "container_start_time_seconds";
    text.family(name, "gauge", &help("Start time of the container since unix epoch in seconds"));
    for pod in &figures.pods {
        for it in &pod.containers {
            let Some(started) = it.started else { continue };
            let labels = [
                ("container", it.name.as_str()),
                ("namespace", pod.pod.namespace()),
                ("pod", pod.pod.name()),
            ];
            text.sample(name, &labels, stamped(started.seconds().to_string()));
        }
    }
    text.family(
        "resource_scrape_error",
        "gauge",
        &help("1 if there was an error while getting container metrics, 0 otherwise"),
    );
    text.sample("resource_scrape_error", &[], 0);
    text.answer()
}

/// `/metrics/cadvisor`: containers under the names that dashboards ask for.
pub(super) async fn cadvisor(context: &Context) -> Answer {
    let figures = figures::measure(&context.shared).await;
    let mut text = Text::default();
    type Field = fn(&figures::ContainerFigures) -> Option<String>;
    let fields: [(&str, &str, &str, Field); 7] = [
        (
            "container_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed in seconds.",
            |it| it.used.cpu_nanoseconds.map(seconds),
        ),
        (
            "container_memory_usage_bytes",
            "gauge",
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
            |it| it.used.memory_bytes.map(|it| it.to_string()),
        ),
        ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", |it| {
            it.used.working_set.map(|it| it.to_string())
        }),
        ("container_memory_rss", "gauge", "Size of RSS in bytes.", |it| {
            it.used.rss.map(|it| it.to_string())
        }),
        (
            "container_fs_usage_bytes",
            "gauge",
            "Number of bytes that are consumed by the container on this filesystem.",
            |it| Some(it.layer.bytes.to_string()),
        ),
        ("container_fs_inodes_total", "gauge", "Number of Inodes", |it| {
            Some(it.layer.inodes.to_string())
        }),
        (
            "container_start_time_seconds",
            "gauge",
            "Start time of the container since unix epoch in seconds.",
            |it| it.started.map(|it| it.seconds().to_string()),
        ),
    ];
    for (name, kind, help, field) in fields {
        text.family(name, kind, help);
        for pod in &figures.pods {
            for it in &pod.containers {
                let labels = [
                    ("container", it.name.as_str()),
                    ("namespace", pod.pod.namespace()),
                    ("pod", pod.pod.name()),
                ];
                if let Some(value) = field(it) {
                    text.sample(name, &labels, value);
                }
            }
        }
    }
    let machine = [
        (
            "machine_memory_bytes",
            "Amount of memory installed on the machine.",
            figures.memory_total,
        ),
        (
            "machine_cpu_cores",
            "Number of logical CPU cores.",
            u64::try_from(context.shared.facts.cpu_milli / 1000).unwrap_or(0),
        ),
    ];
    for (name, help, value) in machine {
        text.family(name, "gauge", help);
        text.sample(name, &[], value);
    }
    text.answer()
}

fn seconds(nanoseconds: u64) -> String {
    format!("{:.6}", nanoseconds as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_escaped_and_follow_their_family() {
        let mut text = Text::default();
        text.family("a", "gauge", "What it is");
        text.sample("a", &[("x", "q\"\\\n"), ("y", "z")], 1);
        text.sample("a", &[], seconds(1_500_000_000));
        assert_eq!(
            text.0,
            "# HELP a What it is\n# TYPE a gauge\na{x=\"q\\\"\\\\\\n\",y=\"z\"} 1\na 1.500000\n"
        );
    }
}
