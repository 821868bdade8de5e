//! Numbers: ranks of times, what the server counted, what the kernel says about it.

use anyhow::{Context, Result, anyhow};
use std::{fs, time::Duration};

/// Times in order, to be asked for ranks.
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn new(mut times: Vec<Duration>) -> Times {
        times.sort();
        Times(times)
    }

    /// Milliseconds that this share of the times does not exceed.
    pub(crate) fn ms(&self, percent: usize) -> f64 {
        let at = self.0.len().saturating_sub(1) * percent / 100;
        self.0.get(at).map_or(f64::NAN, |it| it.as_secs_f64() * 1e3)
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "p50 {:.1} ms, p99 {:.1} ms", self.ms(50), self.ms(99))
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// What the ledger and the process had done at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counters {
    pub(crate) commits: f64,
    pub(crate) writes: f64,
    pub(crate) syncs: f64,
    pub(crate) cpu_seconds: f64,
}

impl Counters {
    pub(crate) fn read(metrics: &str, pid: u32) -> Result<Counters> {
        // A server that does not say is measured all the same.
        let figure = |name: &str| {
            let line = metrics.lines().find_map(|it| it.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|it| it.trim().parse::<f64>().ok()).unwrap_or(f64::NAN)
        };
        Ok(Counters {
            commits: figure("stanchion_store_commits_total"),
            writes: figure("stanchion_store_writes_total"),
            syncs: figure("stanchion_store_syncs_total"),
            cpu_seconds: cpu_seconds(pid)?,
        })
    }

    /// `commits 100, syncs 10 (12.0 writes each), server CPU 1.2 s`
    pub(crate) fn since(&self, before: &Counters) -> String {
        let syncs = self.syncs - before.syncs;
        format!(
            "{} commits, {syncs} syncs ({:.1} writes each), server CPU {:.2} s",
            self.commits - before.commits,
            (self.writes - before.writes) / syncs.max(1.0),
            self.cpu_seconds - before.cpu_seconds
        )
    }
}

/// User and system time of a process.
fn cpu_seconds(pid: u32) -> Result<f64> {
    /// `sysconf(_SC_CLK_TCK)` on every Linux that there is.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("read the server's time")?;
    // Fields 14 and 15; the name before them may hold spaces.
    let fields: Vec<&str> =
        stat.rsplit(") ").next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at - 3).and_then(|it| it.parse::<f64>().ok());
    Ok((ticks(14).unwrap_or(0.0) + ticks(15).unwrap_or(0.0)) / TICKS_PER_SECOND)
}

/// Proportional set size in MB (10^6 bytes): all of it, and what is no file's.
pub(crate) fn memory_mb(pid: u32) -> Result<(f64, f64)> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let figure = |name: &str| {
        let line = text.lines().find_map(|it| it.strip_prefix(name));
        let kib = line.and_then(|it| it.split_whitespace().next()?.parse::<f64>().ok());
        kib.map(|it| it * 1024.0 / 1e6).ok_or_else(|| anyhow!("{path}: no {name}"))
    };
    Ok((figure("Pss:")?, figure("Pss_Anon:")?))
}

/// Runnable processes of late: what a figure has to be read with.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}
