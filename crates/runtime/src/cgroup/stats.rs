//! What a control group has used.

use super::Hierarchy;
use std::{fs, path::Path};

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// CPU time over the group's life.
    pub(crate) cpu_nanoseconds: Option<u64>,
    pub(crate) memory_bytes: Option<u64>,
    /// Without file pages that nobody used lately.
    pub(crate) working_set_bytes: Option<u64>,
    pub(crate) rss_bytes: Option<u64>,
    pub(crate) page_faults: Option<u64>,
    pub(crate) major_page_faults: Option<u64>,
    pub(crate) processes: Option<u64>,
}

pub(super) fn read(directory: &Path, hierarchy: &Hierarchy, usage: &mut Usage) {
    let text = |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default();
    let number = |file: &str| text(file).trim().parse::<u64>().ok();
    if hierarchy.has("cpuacct") {
        usage.cpu_nanoseconds = number("cpuacct.usage");
    } else if hierarchy.unified && hierarchy.has("cpu") {
        usage.cpu_nanoseconds = field(&text("cpu.stat"), "usage_usec").map(|micros| micros * 1_000);
    }
    if hierarchy.has("memory") {
        let (current, inactive, rss) = if hierarchy.unified {
            ("memory.current", "inactive_file", "anon")
        } else {
            ("memory.usage_in_bytes", "total_inactive_file", "total_rss")
        };
        let stat = text("memory.stat");
        usage.memory_bytes = number(current);
        usage.working_set_bytes = usage
            .memory_bytes
            .map(|bytes| bytes.saturating_sub(field(&stat, inactive).unwrap_or(0)));
        usage.rss_bytes = field(&stat, rss);
        usage.page_faults = field(&stat, "pgfault");
        usage.major_page_faults = field(&stat, "pgmajfault");
    }
    if hierarchy.has("pids") {
        usage.processes = number("pids.current");
    }
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}
