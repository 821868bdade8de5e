//! Use of the machine by containers and sandboxes, as the interface tells it.

use crate::{Embedded, cgroup::Usage, container::Container, sandbox::Sandbox};
use rpc::cri;

impl Embedded {
    /// Counting walks files: off the async threads.
    pub(crate) async fn counted<T: Send + 'static>(
        &self,
        count: impl FnOnce(&Embedded) -> T + Send + 'static,
    ) -> Result<T, tonic::Status> {
        let embedded = self.clone();
        let counted = tokio::task::spawn_blocking(move || count(&embedded)).await;
        counted.map_err(|error| tonic::Status::internal(format!("count what is used: {error}")))
    }

    pub(crate) fn container_stats(&self, container: &Container) -> cri::ContainerStats {
        let usage = self.inner.cgroups.usage(&container.group);
        let timestamp = self.now();
        cri::ContainerStats {
            attributes: Some(cri::ContainerAttributes {
                id: container.id.clone(),
                metadata: container.config.metadata.clone(),
                labels: container.config.labels.clone(),
                annotations: container.config.annotations.clone(),
            }),
            cpu: Some(cpu(timestamp, &usage)),
            memory: Some(memory(timestamp, &usage)),
            writable_layer: container.written(timestamp),
            ..cri::ContainerStats::default()
        }
    }

    pub(crate) fn sandbox_stats(&self, sandbox: &Sandbox) -> cri::PodSandboxStats {
        let usage = self.inner.cgroups.usage(&sandbox.group);
        let timestamp = self.now();
        let containers = self.containers_of(&sandbox.id);
        cri::PodSandboxStats {
            attributes: Some(cri::PodSandboxAttributes {
                id: sandbox.id.clone(),
                metadata: sandbox.config.metadata.clone(),
                labels: sandbox.config.labels.clone(),
                annotations: sandbox.config.annotations.clone(),
            }),
            linux: Some(cri::LinuxPodSandboxStats {
                cpu: Some(cpu(timestamp, &usage)),
                memory: Some(memory(timestamp, &usage)),
                process: Some(cri::ProcessUsage {
                    timestamp,
                    process_count: value(usage.processes),
                }),
                containers: containers
                    .iter()
                    .map(|container| self.container_stats(container))
                    .collect(),
                ..cri::LinuxPodSandboxStats::default()
            }),
        }
    }
}

fn value(number: Option<u64>) -> Option<cri::UInt64Value> {
    number.map(|value| cri::UInt64Value { value })
}

fn cpu(timestamp: i64, usage: &Usage) -> cri::CpuUsage {
    cri::CpuUsage {
        timestamp,
        usage_core_nano_seconds: value(usage.cpu_nanoseconds),
        ..cri::CpuUsage::default()
    }
}

fn memory(timestamp: i64, usage: &Usage) -> cri::MemoryUsage {
    cri::MemoryUsage {
        timestamp,
        working_set_bytes: value(usage.working_set_bytes),
        usage_bytes: value(usage.memory_bytes),
        rss_bytes: value(usage.rss_bytes),
        page_faults: value(usage.page_faults),
        major_page_faults: value(usage.major_page_faults),
        ..cri::MemoryUsage::default()
    }
}
