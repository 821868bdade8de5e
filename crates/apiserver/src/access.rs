//! What the door needs in order to know who comes in and to keep what they may not see.

use crate::{audit::AuditConfig, certificates::Signer, encryption::Encryption};
use std::{fmt, sync::Arc, time::Duration};

/// Upstream's `--cluster-signing-duration`.
pub const SIGNING_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// The default is a door of its own: keys made for this run, no default roles, nothing recorded.
#[derive(Clone)]
pub struct Access {
    /// Private keys of service account tokens, PKCS#8 as PEM: the first signs, all are believed.
    /// None: one that nobody else has, and that is gone with the process.
    pub token_keys: Vec<String>,
    /// Who issues tokens, and for whom they are unless asked otherwise.
    pub issuer: String,
    /// Where clients reach this server; tells where its keys are published.
    pub url: String,
    /// Names and addresses for which the API's certificate is: no node gets one for them.
    pub hosts: Vec<String>,
    /// The cluster's certificate authority, PEM: written into tokens' Secrets.
    pub root_ca: String,
    /// Whether the roles and bindings that every cluster has are made at the start.
    pub default_roles: bool,
    /// Signs certificates that were asked for and approved.
    pub signer: Option<Arc<dyn Signer>>,
    /// How long what it signs is good for, unless less is asked for.
    pub signing_life: Duration,
    pub audit: Option<AuditConfig>,
    /// How objects are encrypted before they reach the store.
    pub encryption: Encryption,
}

impl Default for Access {
    fn default() -> Access {
        Access {
            token_keys: Vec::new(),
            issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
            url: "https://kubernetes.default.svc".to_owned(),
            hosts: Vec::new(),
            root_ca: String::new(),
            default_roles: false,
            signer: None,
            signing_life: SIGNING_LIFE,
            audit: None,
            encryption: Encryption::default(),
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}
