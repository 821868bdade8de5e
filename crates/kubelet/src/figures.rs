//! What the node and its pods use, measured: for summaries, metrics and evictions.
//!
//! Upstream: `pkg/kubelet/stats/cri_stats_provider.go`, `server/stats/summary.go` (1.36).

use crate::{kubelet::Shared, runtime::message};
use api::{
    Object,
    core::{
        pod,
        v1::{Pod, Volume},
    },
};
use std::{
    collections::HashMap,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use stdx::{DiskUsage, Timestamp};
use world::Typed;

/// A rate over less than this says more about chance than about the load.
const RATE_OVER: Duration = Duration::from_secs(5);

/// Of the node, at one moment.
pub(crate) struct Figures {
    pub(crate) at: Timestamp,
    pub(crate) node: Used,
    pub(crate) memory_total: u64,
    pub(crate) memory_available: u64,
    pub(crate) disk: Disk,
    pub(crate) image_disk: Disk,
    /// Bytes of the images, as the runtime counts them.
    pub(crate) image_bytes: u64,
    pub(crate) pods: Vec<PodFigures>,
}

/// CPU and memory of something.
#[derive(Clone, Debug, Default)]
pub(crate) struct Used {
    pub(crate) cpu_nanoseconds: Option<u64>,
    /// Billionths of a processor; none until it was looked at twice.
    pub(crate) nano_cores: Option<u64>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) working_set: Option<u64>,
    pub(crate) rss: Option<u64>,
    pub(crate) page_faults: Option<u64>,
    pub(crate) major_page_faults: Option<u64>,
}

/// A filesystem.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) bytes: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
}

pub(crate) struct PodFigures {
    pub(crate) pod: Typed<Pod>,
    pub(crate) used: Used,
    pub(crate) processes: Option<u64>,
    pub(crate) network: Option<message::NetworkInterfaceUsage>,
    pub(crate) containers: Vec<ContainerFigures>,
    pub(crate) volumes: Vec<VolumeFigures>,
}

pub(crate) struct ContainerFigures {
    pub(crate) name: String,
    pub(crate) started: Option<Timestamp>,
    pub(crate) used: Used,
    pub(crate) layer: DiskUsage,
    pub(crate) logs: DiskUsage,
}

pub(crate) struct VolumeFigures {
    pub(crate) name: String,
    /// Name of the claim, where there is one.
    pub(crate) claim: Option<String>,
    pub(crate) stats: ::volumes::Stats,
    /// Its files lie on the node's own disk and go with the pod.
    pub(crate) ephemeral: bool,
}

impl PodFigures {
    /// What the pod takes of the node's own disk: layers, logs and volumes that go with it.
    pub(crate) fn ephemeral(&self) -> DiskUsage {
        let volumes = self.volumes.iter().filter(|it| it.ephemeral);
        let volumes = volumes
            .map(|it| DiskUsage { bytes: it.stats.bytes_used, inodes: it.stats.inodes_used });
        let containers = self.containers.iter().flat_map(|it| [it.layer, it.logs]);
        volumes.chain(containers).fold(DiskUsage::default(), |sum, it| DiskUsage {
            bytes: sum.bytes + it.bytes,
            inodes: sum.inodes + it.inodes,
        })
    }
}

/// CPU time as it was seen before: rates are told from two looks. Bounded by what there is at one look.
#[derive(Default)]
pub(crate) struct Rates(Mutex<HashMap<String, Seen>>);

#[derive(Clone, Copy)]
struct Seen {
    at: Timestamp,
    nanoseconds: u64,
    rate: Option<u64>,
}

impl Rates {
    fn rate(&self, name: &str, nanoseconds: Option<u64>, now: Timestamp) -> Option<u64> {
        let nanoseconds = nanoseconds?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = all.get(name).copied().filter(|it| it.nanoseconds <= nanoseconds) else {
            all.insert(name.to_owned(), Seen { at: now, nanoseconds, rate: None });
            return None;
        };
        let passed = now.since(before.at);
        if passed < RATE_OVER {
            return before.rate;
        }
        let rate = u128::from(nanoseconds - before.nanoseconds) * 1_000_000_000 / passed.as_nanos();
        let rate = u64::try_from(rate).ok();
        all.insert(name.to_owned(), Seen { at: now, nanoseconds, rate });
        rate
    }

    fn forget_older(&self, than: Duration, now: Timestamp) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, it| now.since(it.at) < than);
    }
}

/// Measures everything. What the runtime does not tell is left out.
pub(crate) async fn measure(shared: &Shared) -> Figures {
    let now = shared.clock.now();
    let stats = shared.runtime.stats().await.unwrap_or_default();
    let world = shared.client.world();
    let mut pods: Vec<Typed<Pod>> = world.indexed::<Pod>("node", &shared.facts.node_name).collect();
    pods.retain(|it| !pod::is_terminal(it));
    pods.sort_by(|a, b| (a.namespace(), a.name()).cmp(&(b.namespace(), b.name())));
    let mut figures = Vec::with_capacity(pods.len());
    for pod in pods {
        let of_pod = |it: &&message::PodSandboxStats| {
            let metadata = it.attributes.as_ref().and_then(|it| it.metadata.as_ref());
            metadata.is_some_and(|it| it.uid == pod.uid())
        };
        let linux = stats.iter().find(of_pod).and_then(|it| it.linux.clone()).unwrap_or_default();
        figures.push(of(shared, pod, linux, now).await);
    }
    shared.rates.forget_older(Duration::from_secs(600), now);
    let machine = crate::node::machine();
    let bytes = |it: i64| u64::try_from(it).unwrap_or(0);
    let (total, available) = (bytes(machine.memory_bytes), bytes(machine.memory_available_bytes));
    let cpu = processor_nanoseconds();
    let images = shared.runtime.images().await.unwrap_or_default();
    Figures {
        at: now,
        node: Used {
            cpu_nanoseconds: cpu,
            nano_cores: shared.rates.rate("node", cpu, now),
            memory_bytes: Some(total.saturating_sub(free_memory())),
            working_set: Some(total.saturating_sub(available)),
            ..Used::default()
        },
        memory_total: total,
        memory_available: available,
        disk: disk(&shared.facts.kubelet_dir),
        image_disk: disk(&shared.data_dir),
        image_bytes: images.iter().map(|it| it.size).sum(),
        pods: figures,
    }
}

async fn of(
    shared: &Shared,
    pod: Typed<Pod>,
    stats: message::LinuxPodSandboxStats,
    now: Timestamp,
) -> PodFigures {
    let uid = pod.uid().to_owned();
    let logs = shared.facts.pod_log_dir(&pod);
    let mut containers = Vec::with_capacity(stats.containers.len());
    for it in &stats.containers {
        let metadata = it.attributes.clone().unwrap_or_default();
        let name = metadata.metadata.unwrap_or_default().name;
        let directory = logs.join(&name);
        let counted = tokio::task::spawn_blocking(move || stdx::disk_usage(&directory));
        let logs = counted.await.ok().and_then(Result::ok).unwrap_or_default();
        let layer = it.writable_layer.clone().unwrap_or_default();
        let number = |it: &Option<message::UInt64Value>| it.as_ref().map_or(0, |it| it.value);
        containers.push(ContainerFigures {
            used: used(shared, &metadata.id, it.cpu.as_ref(), it.memory.as_ref(), now),
            started: started(&pod, &name),
            layer: DiskUsage {
                bytes: number(&layer.used_bytes),
                inodes: number(&layer.inodes_used),
            },
            logs,
            name,
        });
    }
    PodFigures {
        used: used(shared, &uid, stats.cpu.as_ref(), stats.memory.as_ref(), now),
        processes: stats.process.and_then(|it| it.process_count).map(|it| it.value),
        network: stats.network.and_then(|it| it.default_interface),
        containers,
        volumes: volumes(shared, &pod).await,
        pod,
    }
}

fn used(
    shared: &Shared,
    name: &str,
    cpu: Option<&message::CpuUsage>,
    memory: Option<&message::MemoryUsage>,
    now: Timestamp,
) -> Used {
    let number = |it: &Option<message::UInt64Value>| it.as_ref().map(|it| it.value);
    let cpu_nanoseconds = cpu.and_then(|it| number(&it.usage_core_nano_seconds));
    let told = cpu.and_then(|it| number(&it.usage_nano_cores));
    Used {
        cpu_nanoseconds,
        nano_cores: told.or_else(|| shared.rates.rate(name, cpu_nanoseconds, now)),
        memory_bytes: memory.and_then(|it| number(&it.usage_bytes)),
        working_set: memory.and_then(|it| number(&it.working_set_bytes)),
        rss: memory.and_then(|it| number(&it.rss_bytes)),
        page_faults: memory.and_then(|it| number(&it.page_faults)),
        major_page_faults: memory.and_then(|it| number(&it.major_page_faults)),
    }
}

fn started(pod: &Pod, container: &str) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let lists = [&status.container_statuses, &status.init_container_statuses];
    let found = lists.into_iter().flatten().flatten().find(|it| it.name == container)?;
    let running = found.state.as_ref()?.running.as_ref()?;
    running.started_at.as_ref().map(api::meta::timestamp_of)
}

async fn volumes(shared: &Shared, pod: &Pod) -> Vec<VolumeFigures> {
    let claims = pod::claims(pod);
    let volumes = &shared.volumes;
    let mut all = Vec::new();
    for record in volumes.ledger().of_pod(pod.uid()) {
        let (Some(path), Some(plugin)) = (&record.host_path, volumes.plugin(&record.plugin)) else {
            continue;
        };
        let Ok(stats) = plugin.stats(&record.handle, path).await else { continue };
        let specs = pod.spec.iter().flat_map(|it| it.volumes.iter().flatten());
        let spec = specs.into_iter().find(|it| it.name == record.volume);
        let claim = claims.iter().find(|(volume, _)| *volume == record.volume);
        all.push(VolumeFigures {
            name: record.volume.clone(),
            claim: claim.map(|(_, claim)| claim.clone()),
            stats,
            ephemeral: spec.is_some_and(is_on_disk),
        });
    }
    all
}

fn is_on_disk(volume: &Volume) -> bool {
    volume.empty_dir.as_ref().is_some_and(|it| it.medium.as_deref().unwrap_or("").is_empty())
}

/// The filesystem of a directory, or of the nearest one above it that is there.
pub(crate) fn disk(path: &Path) -> Disk {
    let there = path.ancestors().find(|it| it.exists());
    let Some(Ok(stat)) = there.map(rustix::fs::statvfs) else { return Disk::default() };
    Disk {
        bytes: stat.f_blocks * stat.f_frsize,
        available: stat.f_bavail * stat.f_frsize,
        used: (stat.f_blocks - stat.f_bfree) * stat.f_frsize,
        inodes: stat.f_files,
        inodes_free: stat.f_ffree,
    }
}

/// Time that all processors have worked. /proc/stat counts hundredths of a second.
fn processor_nanoseconds() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let fields = text.lines().next()?.split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.map_while(|it| it.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guests are in user already
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|at| ticks.get(*at)).sum();
    Some(busy * 10_000_000)
}

fn free_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|it| it.strip_prefix("MemFree:"));
    let kib: Option<u64> = line.and_then(|it| it.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_told_from_two_looks_that_are_far_enough_apart() {
        let rates = Rates::default();
        let at = |seconds: i64| Timestamp::from_seconds(seconds);
        assert_eq!(rates.rate("c", Some(1_000_000_000), at(0)), None);
        assert_eq!(rates.rate("c", Some(2_000_000_000), at(1)), None, "too soon");
        assert_eq!(rates.rate("c", Some(6_000_000_000), at(10)), Some(500_000_000));
        assert_eq!(rates.rate("c", Some(9_000_000_000), at(11)), Some(500_000_000));
        assert_eq!(rates.rate("c", Some(5), at(30)), None, "it was begun anew");
        assert_eq!(rates.rate("c", None, at(40)), None);
    }
}
