//! Interfaces and control groups of this instance: each belongs to a sandbox that it knows.

use super::Finding;
use crate::config::Settings;
use anyhow::Result;
use std::{collections::BTreeSet, fs, path::PathBuf};

pub(super) fn check(settings: &Settings) -> Result<Vec<Finding>> {
    let data_dir = settings.data_dir.display();
    let sandboxes: BTreeSet<String> =
        names(settings.data_dir.join("runtime/sandboxes")).into_iter().collect();
    let down = format!(
        "restart the server, which sweeps; or stop everything: stanchion down --data-dir {data_dir}"
    );
    let mut findings = Vec::new();
    let prefix = format!("stanchion {} ", settings.instance);
    for name in names("/sys/class/net".into()) {
        let alias = fs::read_to_string(format!("/sys/class/net/{name}/ifalias"));
        let alias = alias.unwrap_or_default();
        // `stanchion INSTANCE ADDRESS SANDBOX`; the bridge has no sandbox.
        let Some(rest) = alias.trim().strip_prefix(&prefix) else { continue };
        if let Some((_, sandbox)) = rest.split_once(' ')
            && !sandboxes.contains(sandbox)
        {
            let what = format!("interface {name} is of the sandbox {sandbox}, which is gone");
            findings.push(Finding::wrong(what, down.clone()));
        }
    }
    for group in groups(&format!("stanchion-{}", settings.instance)) {
        let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        if sandboxes.is_empty() && !processes.trim().is_empty() {
            let what = format!("processes run in {}, and no sandbox is known", group.display());
            findings.push(Finding::wrong(what, down.clone()));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::Fine(format!("none; {} sandboxes", sandboxes.len())));
    }
    Ok(findings)
}

fn names(dir: PathBuf) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|it| it.file_name().into_string().ok()).collect()
}

/// Every control group of the instance, in whichever hierarchies there are, and those below.
fn groups(name: &str) -> Vec<PathBuf> {
    let root = PathBuf::from("/sys/fs/cgroup");
    let mut found = vec![root.join(name)];
    found.extend(names(root.clone()).iter().map(|it| root.join(it).join(name)));
    let mut at = 0;
    while let Some(group) = found.get(at).cloned() {
        let below = fs::read_dir(&group).into_iter().flatten().flatten();
        found.extend(below.map(|it| it.path()).filter(|it| it.is_dir()));
        at += 1;
    }
    found
}
