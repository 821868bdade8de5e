//! The authority and the admin's identity: that they are there, belong together, and hold.

use super::Finding;
use crate::{config::Settings, node::Memory, pki::Validity};
use anyhow::{Context, Result};
use std::fs;
use stdx::{Clock, SystemClock};

pub(super) fn check(settings: &Settings) -> Result<Vec<Finding>> {
    let dir = settings.data_dir.join("pki");
    if !dir.exists() {
        return Ok(vec![Finding::Note("there are none yet".to_owned())]);
    }
    let now = SystemClock.now();
    let mut findings = Vec::new();
    let of_node = Memory::read(&settings.data_dir)?.and_then(|it| it.server);
    let names: &[&str] = match of_node {
        Some(_) => &["cluster-ca", "node-client", "node-serving"],
        None => &["ca", "admin"],
    };
    for name in names.iter().copied() {
        let (apart, joined) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.pem")));
        let path = match name.starts_with("node-") && (joined.exists() || !apart.exists()) {
            true => joined,
            false => apart,
        };
        let remedy = match name {
            "ca" => format!(
                "stop the server, remove {}, start it again, and give every user a new kubeconfig",
                dir.display()
            ),
            "cluster-ca" | "node-client" => {
                "start the node with a new --token of `stanchion token create`".to_owned()
            }
            "node-serving" => "the node asks for another one while it runs".to_owned(),
            _ => "the next start of the server makes another one".to_owned(),
        };
        if !path.exists() {
            findings.push(Finding::wrong(format!("{} is not there", path.display()), remedy));
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        findings.push(match Validity::of(&text) {
            Err(error) => {
                let why = stdx::one_line(error.as_ref());
                Finding::wrong(format!("{}: {why}", path.display()), remedy)
            }
            Ok(validity) if now < validity.from => Finding::wrong(
                format!("{} holds from {} only: it is {now} here", path.display(), validity.from),
                "set the clock",
            ),
            Ok(validity) if now >= validity.until => {
                Finding::wrong(format!("{} ended at {}", path.display(), validity.until), remedy)
            }
            // A node renews its own by itself.
            Ok(validity) if validity.is_due(now) && !name.starts_with("node-") => {
                Finding::Note(format!("{} ends at {}: {remedy}", path.display(), validity.until))
            }
            Ok(validity) => Finding::Fine(format!("{name} until {}", validity.until)),
        });
    }
    Ok(findings)
}
