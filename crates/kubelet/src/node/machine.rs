//! What the machine is: processors, memory, disk, names. Read from /proc and /sys.

use std::fs;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) cpus: i64,
    pub(crate) memory_bytes: i64,
    pub(crate) memory_available_bytes: i64,
    pub(crate) machine_id: String,
    pub(crate) system_uuid: String,
    pub(crate) boot_id: String,
    pub(crate) kernel: String,
    pub(crate) os_image: String,
    pub(crate) swap_bytes: i64,
}

pub(crate) fn machine() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let memory = read("/proc/meminfo");
    let kib = |name: &str| {
        let line = memory.lines().find(|it| it.split(':').next() == Some(name));
        let number = line.and_then(|it| it.split_whitespace().nth(1));
        number.and_then(|it| it.parse::<i64>().ok()).unwrap_or(0) * 1024
    };
    let machine_id = read("/etc/machine-id");
    let system_uuid = match read("/sys/class/dmi/id/product_uuid") {
        none if none.is_empty() => machine_id.clone(),
        uuid => uuid,
    };
    let release = read("/etc/os-release");
    let pretty = release.lines().find_map(|it| it.strip_prefix("PRETTY_NAME="));
    Machine {
        cpus: std::thread::available_parallelism().map_or(1, |it| it.get() as i64),
        memory_bytes: kib("MemTotal"),
        memory_available_bytes: kib("MemAvailable"),
        machine_id,
        system_uuid,
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        kernel: read("/proc/sys/kernel/osrelease"),
        os_image: pretty.map(|it| it.trim_matches('"').to_owned()).unwrap_or("Linux".to_owned()),
        swap_bytes: kib("SwapTotal"),
    }
}
