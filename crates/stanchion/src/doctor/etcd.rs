//! The etcd that keeps the objects: whether its members answer, and what they complain of.

use super::Finding;
use crate::config::StoreFlags;
use anyhow::{Context, Result};
use store::{
    KeyRange, Store,
    backend::{Etcd, MemberStatus},
};

pub(super) fn check(flags: &StoreFlags) -> Result<Vec<Finding>> {
    let url = &flags.store;
    let etcd = match Etcd::open(url, &flags.tls.files()) {
        Ok(etcd) => etcd,
        Err(error) => {
            return Ok(vec![Finding::wrong(
                stdx::one_line(&error),
                "start etcd (a majority of its members), then look again",
            )]);
        }
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.context("start")?;
    let counted = runtime.block_on(async {
        let snapshot = etcd.snapshot().await?;
        anyhow::Ok((snapshot.count(&KeyRange::prefix("/registry/"))?, snapshot.revision()))
    });
    let (objects, revision) = counted.with_context(|| format!("ask {url}"))?;
    let mut findings =
        vec![Finding::Fine(format!("{objects} objects in {url} at revision {revision}"))];
    for (name, said) in etcd.members() {
        findings.extend(match said {
            Ok(said) => member(&name, &said),
            Err(error) => vec![Finding::wrong(
                stdx::one_line(&error),
                format!("start the member {name}, or take it off --store"),
            )],
        });
    }
    Ok(findings)
}

fn member(name: &str, said: &MemberStatus) -> Vec<Finding> {
    let MemberStatus { version, file_bytes, used_bytes, leads, errors } = said;
    let role = if *leads { "leads" } else { "follows" };
    let mut findings = vec![Finding::Fine(format!(
        "{name} is etcd {version}, {role}, {file_bytes} bytes on disk, {used_bytes} in use"
    ))];
    findings.extend(errors.iter().map(|error| {
        let remedy = "etcdctl defrag, then etcdctl alarm disarm; a larger --quota-backend-bytes if that is not enough";
        Finding::wrong(format!("{name} says: {error}"), remedy)
    }));
    findings
}
