//! Flags of where objects are kept.

use anyhow::{Result, bail};
use clap::Args;
use std::path::PathBuf;
use store::backend::EtcdTls;

/// Where objects are kept, and how etcd is reached.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub(crate) struct StoreFlags {
    /// Where objects are kept: embedded (in the data dir), etcd://HOST:PORT[,HOST:PORT...], or
    /// etcds://... with TLS. Several servers may share one etcd
    #[arg(long, default_value = "embedded", value_name = "URL")]
    pub(crate) store: String,
    #[command(flatten)]
    pub(crate) tls: EtcdFlags,
}

/// Upstream's flags for the same files.
#[derive(Args, Clone, Debug, Default)]
#[group(skip)]
pub(crate) struct EtcdFlags {
    /// Authority of etcd's certificates (etcds://)
    #[arg(long, value_name = "FILE")]
    pub(crate) etcd_cafile: Option<PathBuf>,
    /// Certificate that is shown to etcd
    #[arg(long, value_name = "FILE")]
    pub(crate) etcd_certfile: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "FILE")]
    pub(crate) etcd_keyfile: Option<PathBuf>,
}

impl StoreFlags {
    pub(crate) fn check(&self) -> Result<()> {
        match self.store.split_once("://") {
            Some(("etcd" | "etcds", _)) => Ok(()),
            None if self.store == "embedded" => Ok(()),
            Some(_) | None => bail!(
                "open store {:?}: expected embedded, etcd://HOST:PORT or etcds://HOST:PORT",
                self.store
            ),
        }
    }

    /// Whether other servers may be at work on it, too.
    pub(crate) fn is_shared(&self) -> bool {
        self.store != "embedded"
    }
}

impl EtcdFlags {
    pub(crate) fn files(&self) -> EtcdTls {
        EtcdTls {
            authority: self.etcd_cafile.clone(),
            certificate: self.etcd_certfile.clone(),
            key: self.etcd_keyfile.clone(),
        }
    }

    /// As a process elsewhere finds them.
    pub(crate) fn absolute(&self) -> std::io::Result<EtcdFlags> {
        let absolute = |it: &Option<PathBuf>| it.as_deref().map(std::path::absolute).transpose();
        Ok(EtcdFlags {
            etcd_cafile: absolute(&self.etcd_cafile)?,
            etcd_certfile: absolute(&self.etcd_certfile)?,
            etcd_keyfile: absolute(&self.etcd_keyfile)?,
        })
    }
}
