//! CRI's resources as files of control groups.
//!
//! Upstream: pkg/kubelet/cm/cgroup_manager_linux.go, and runc's conversions.

use rpc::cri::LinuxContainerResources;

/// Controller ("" for a file of any), file and value, in the order to be written.
pub(super) fn settings(
    unified: bool,
    resources: &LinuxContainerResources,
) -> Vec<(String, String, String)> {
    let mut settings =
        if unified { unified_settings(resources) } else { separate_settings(resources) };
    for (file, value) in &resources.unified {
        // Files of v2 by name; `pids.max` is the same on v1.
        if unified || file == "pids.max" {
            let controller = file.split('.').next().unwrap_or_default();
            settings.push((controller.to_owned(), file.clone(), value.clone()));
        }
    }
    settings
}

pub(super) fn needs_cpuset(resources: &LinuxContainerResources) -> bool {
    !resources.cpuset_cpus.is_empty() || !resources.cpuset_mems.is_empty()
}

fn separate_settings(resources: &LinuxContainerResources) -> Vec<(String, String, String)> {
    let mut settings = Settings::default();
    settings.number("cpu", "cpu.shares", resources.cpu_shares);
    settings.number("cpu", "cpu.cfs_period_us", resources.cpu_period);
    settings.number("cpu", "cpu.cfs_quota_us", resources.cpu_quota);
    settings.number("memory", "memory.limit_in_bytes", resources.memory_limit_in_bytes);
    settings.text("cpuset", "cpuset.cpus", &resources.cpuset_cpus);
    settings.text("cpuset", "cpuset.mems", &resources.cpuset_mems);
    settings.0
}

fn unified_settings(resources: &LinuxContainerResources) -> Vec<(String, String, String)> {
    let mut settings = Settings::default();
    if resources.cpu_shares > 0 {
        settings.number("cpu", "cpu.weight", weight(resources.cpu_shares));
    }
    if resources.cpu_quota != 0 || resources.cpu_period != 0 {
        let quota = if resources.cpu_quota > 0 {
            resources.cpu_quota.to_string()
        } else {
            "max".to_owned()
        };
        let period = if resources.cpu_period > 0 { resources.cpu_period } else { PERIOD };
        settings.text("cpu", "cpu.max", &format!("{quota} {period}"));
    }
    let memory = resources.memory_limit_in_bytes;
    if memory > 0 {
        settings.number("memory", "memory.max", memory);
        // CRI counts memory and swap together; the kernel counts swap alone.
        let swap = resources.memory_swap_limit_in_bytes;
        if swap >= memory {
            settings.text("memory", "memory.swap.max", &(swap - memory).to_string());
        }
    } else if memory < 0 {
        settings.text("memory", "memory.max", "max");
    }
    settings.text("cpuset", "cpuset.cpus", &resources.cpuset_cpus);
    settings.text("cpuset", "cpuset.mems", &resources.cpuset_mems);
    settings.0
}

/// The kernel's default, in microseconds.
const PERIOD: i64 = 100_000;

/// Shares 2..=262144 as weight 1..=10000.
fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

#[derive(Default)]
struct Settings(Vec<(String, String, String)>);

impl Settings {
    fn number(&mut self, controller: &str, file: &str, value: i64) {
        if value != 0 {
            self.text(controller, file, &value.to_string());
        }
    }
    fn text(&mut self, controller: &str, file: &str, value: &str) {
        if !value.is_empty() {
            self.0.push((controller.to_owned(), file.to_owned(), value.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(unified: bool, resources: &LinuxContainerResources, expected: &[&str]) {
        let got: Vec<String> = settings(unified, resources)
            .into_iter()
            .map(|(_, file, value)| format!("{file}={value}"))
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn both_versions_get_their_own_files() {
        let resources = LinuxContainerResources {
            cpu_shares: 512,
            cpu_quota: 50_000,
            cpu_period: 100_000,
            memory_limit_in_bytes: 64 << 20,
            memory_swap_limit_in_bytes: 64 << 20,
            unified: [("pids.max".to_owned(), "32".to_owned())].into(),
            ..LinuxContainerResources::default()
        };
        let v1 = [
            "cpu.shares=512",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=50000",
            "memory.limit_in_bytes=67108864",
            "pids.max=32",
        ];
        check(false, &resources, &v1);
        let v2 = [
            "cpu.weight=20",
            "cpu.max=50000 100000",
            "memory.max=67108864",
            "memory.swap.max=0",
            "pids.max=32",
        ];
        check(true, &resources, &v2);
    }

    #[test]
    fn what_is_unset_is_left_alone() {
        check(false, &LinuxContainerResources::default(), &[]);
        check(true, &LinuxContainerResources::default(), &[]);
    }
}
