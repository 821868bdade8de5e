//! How the door of this data dir knows callers: its keys, and the files that the flags name.

use crate::{config::Flags, pki::Authority};
use anyhow::{Context, Result, anyhow, bail};
use apiserver::{Access, AuditConfig, AuditPolicy, Encryption};
use std::{fs, path::Path, sync::Arc};

/// `hosts`: for which the API's certificate will be.
pub(crate) fn open(
    flags: &Flags,
    authority: &Arc<Authority>,
    hosts: Vec<String>,
) -> Result<Access> {
    let read =
        |path: &Path| fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
    let audit = match (&flags.audit_policy_file, &flags.audit_log_path) {
        (None, None) => None,
        (Some(policy), Some(log)) => {
            let parsed = AuditPolicy::parse(&read(policy)?);
            let parsed = parsed.map_err(|why| anyhow!("read {}: {why}", policy.display()))?;
            let config = AuditConfig::open(parsed, log);
            Some(config.with_context(|| format!("open audit log {}", log.display()))?)
        }
        (Some(_), None) => bail!("audit: --audit-policy-file needs --audit-log-path"),
        (None, Some(_)) => bail!("audit: --audit-log-path needs --audit-policy-file"),
    };
    let encryption = match &flags.encryption_provider_config {
        None => Encryption::default(),
        Some(path) => Encryption::parse(&read(path)?)
            .map_err(|why| anyhow!("read {}: {why}", path.display()))?,
    };
    let issuer = format!("https://kubernetes.default.svc.{}", flags.cluster_domain);
    Ok(Access {
        token_keys: vec![authority.token_key()?],
        url: issuer.clone(),
        issuer,
        hosts,
        root_ca: authority.certificate().to_owned(),
        default_roles: true,
        signer: Some(authority.clone()),
        signing_life: flags.cluster_signing_duration.0,
        audit,
        encryption,
    })
}
