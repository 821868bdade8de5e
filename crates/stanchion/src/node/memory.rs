//! What a data dir remembers of its node: for the next start, for `down` and for `reset`.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const FILE: &str = "node.json";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) name: Option<String>,
    pub(crate) kubelet_dir: Option<PathBuf>,
    /// The server elsewhere of which it is a node.
    pub(crate) server: Option<String>,
}

impl Memory {
    pub(crate) fn read(data_dir: &Path) -> Result<Option<Memory>> {
        let path = data_dir.join(FILE);
        let attempt = || format!("read {}", path.display());
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(attempt),
        };
        let value: Value = serde_json::from_str(&text).with_context(attempt)?;
        let field = |name: &str| value[name].as_str().map(str::to_owned);
        Ok(Some(Memory {
            name: field("name"),
            kubelet_dir: field("kubeletDir").map(PathBuf::from),
            server: field("server"),
        }))
    }

    pub(crate) fn write(&self, data_dir: &Path) -> Result<()> {
        let text = json!({
            "name": self.name, "kubeletDir": self.kubelet_dir, "server": self.server,
        });
        crate::pki::write_private(&data_dir.join(FILE), &text.to_string())
    }
}
