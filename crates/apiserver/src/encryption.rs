//! Objects encrypted on their way to the store and decrypted on their way back: the ledger's bytes are
//! sealed, the world's are not. The form is upstream's, so that both read the same etcd.
//!
//! `k8s:enc:aesgcm:v1:<key name>:`, a nonce of 12 bytes, then the sealed bytes; what they belong to (the
//! store key) is authenticated with them, so that no object can be put in another's place.
//!
//! Upstream: `apiserver/pkg/server/options/encryptionconfig`, `apiserver/pkg/storage/value`. Deviation:
//! of the providers only `aesgcm` and `identity` are there.

use crate::yaml;
use api::AnyKind;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde_json::Value;
use std::{fmt, sync::Arc};
use stdx::Entropy;

const ANY: &str = "k8s:enc:";
const GCM: &str = "k8s:enc:aesgcm:v1:";

/// Which kinds are sealed with which keys; by default none.
#[derive(Clone, Default)]
pub struct Encryption {
    rules: Arc<[Rule]>,
}

struct Rule {
    /// `secrets`, `deployments.apps`, `*.apps`, `*.*`.
    resources: Vec<String>,
    /// The first seals, all open.
    providers: Vec<Provider>,
}

enum Provider {
    Gcm { name: String, key: Box<LessSafeKey> },
    Identity,
}

impl Encryption {
    /// Reads an `EncryptionConfiguration` (`apiserver.config.k8s.io/v1`), YAML or JSON.
    pub fn parse(text: &str) -> Result<Encryption, String> {
        // What is wrong is told without the text around it: keys are near.
        let config = yaml::read(text.as_bytes())?.value;
        let (version, kind) = (&config["apiVersion"], &config["kind"]);
        if kind != "EncryptionConfiguration" || version != "apiserver.config.k8s.io/v1" {
            return Err(
                "expected kind EncryptionConfiguration of apiserver.config.k8s.io/v1".to_owned()
            );
        }
        let rules = config["resources"].as_array().filter(|it| !it.is_empty());
        let rules = rules.ok_or("resources: at least one is required")?;
        let rules = rules.iter().map(rule).collect::<Result<Vec<_>, _>>()?;
        Ok(Encryption { rules: rules.into() })
    }

    fn rule(&self, kind: &AnyKind) -> Option<&Rule> {
        self.rules.iter().find(|it| it.resources.iter().any(|it| covers(it, kind)))
    }

    /// The bytes as the store gets them.
    pub(crate) fn seal(
        &self,
        kind: &AnyKind,
        key: &str,
        plain: &Bytes,
        entropy: &dyn Entropy,
    ) -> Result<Bytes, String> {
        match self.rule(kind).and_then(|it| it.providers.first()) {
            None | Some(Provider::Identity) => Ok(plain.clone()),
            Some(Provider::Gcm { name, key: secret }) => {
                let mut nonce = [0u8; NONCE_LEN];
                entropy.fill(&mut nonce);
                let mut sealed = plain.to_vec();
                secret
                    .seal_in_place_append_tag(
                        Nonce::assume_unique_for_key(nonce),
                        Aad::from(key.as_bytes()),
                        &mut sealed,
                    )
                    .map_err(|_| format!("encrypting {key} failed"))?;
                let mut stored = format!("{GCM}{name}:").into_bytes();
                stored.extend_from_slice(&nonce);
                stored.append(&mut sealed);
                Ok(stored.into())
            }
        }
    }

    /// The bytes as everyone else knows them.
    pub(crate) fn open(&self, kind: &AnyKind, key: &str, stored: &Bytes) -> Result<Bytes, String> {
        let rule = self.rule(kind);
        if !stored.starts_with(ANY.as_bytes()) {
            let plain = rule
                .is_none_or(|it| it.providers.iter().any(|it| matches!(it, Provider::Identity)));
            let why = || format!("{key} is not encrypted, and identity is not among its providers");
            return if plain { Ok(stored.clone()) } else { Err(why()) };
        }
        let no_key = || format!("no key opens {key}");
        let rest = stored.strip_prefix(GCM.as_bytes()).ok_or_else(no_key)?;
        let end = rest.iter().position(|it| *it == b':').ok_or_else(no_key)?;
        let (own, rest) = (&rest[..end], &rest[end + 1..]);
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or_else(no_key)?;
        for provider in rule.iter().flat_map(|it| &it.providers) {
            let Provider::Gcm { name, key: secret } = provider else { continue };
            if name.as_bytes() != own {
                continue;
            }
            let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| no_key())?;
            let mut bytes = sealed.to_vec();
            let opened = secret.open_in_place(nonce, Aad::from(key.as_bytes()), &mut bytes);
            if let Ok(opened) = opened {
                return Ok(Bytes::copy_from_slice(opened));
            }
        }
        Err(no_key())
    }
}

fn rule(value: &Value) -> Result<Rule, String> {
    let resources = value["resources"].as_array().into_iter().flatten();
    let resources: Vec<String> = resources.filter_map(Value::as_str).map(str::to_owned).collect();
    let providers = value["providers"].as_array().into_iter().flatten();
    let mut all = Vec::new();
    for provider in providers {
        let fields = provider.as_object().filter(|it| it.len() == 1);
        let (name, config) = fields
            .and_then(|it| it.iter().next())
            .ok_or("providers: each names one way to encrypt")?;
        match name.as_str() {
            "identity" => all.push(Provider::Identity),
            "aesgcm" => {
                for key in config["keys"].as_array().into_iter().flatten() {
                    all.push(gcm(key)?);
                }
            }
            other => {
                return Err(format!("provider {other}: only aesgcm and identity are there"));
            }
        }
    }
    if resources.is_empty() || all.is_empty() {
        return Err("resources and providers: at least one of each is required".to_owned());
    }
    Ok(Rule { resources, providers: all })
}

fn gcm(key: &Value) -> Result<Provider, String> {
    let name = key["name"].as_str().filter(|it| !it.is_empty() && !it.contains(':'));
    let name = name.ok_or("aesgcm: a key needs a name without colons")?.to_owned();
    let wrong = || format!("aesgcm key {name}: expected 16 or 32 bytes as base64");
    let secret = STANDARD.decode(key["secret"].as_str().unwrap_or_default());
    let secret = secret.map_err(|_| wrong())?;
    let algorithm = match secret.len() {
        16 => &AES_128_GCM,
        32 => &AES_256_GCM,
        _ => return Err(wrong()),
    };
    let key = UnboundKey::new(algorithm, &secret).map_err(|_| wrong())?;
    Ok(Provider::Gcm { name, key: Box::new(LessSafeKey::new(key)) })
}

fn covers(resource: &str, kind: &AnyKind) -> bool {
    match resource.split_once('.') {
        None => kind.group.is_empty() && (resource == kind.plural),
        Some(("*", "*")) => true,
        Some((plural, group)) => (plural == "*" || plural == kind.plural) && group == kind.group,
    }
}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.rules.iter().map(|it| &it.resources)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::core::v1::{ConfigMap, Secret};
    use stdx::SystemEntropy;

    const CONFIG: &str = "
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - aesgcm:
      keys:
      - {name: key1, secret: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=}
      - {name: key0, secret: MDEyMzQ1Njc4OTAxMjM0NQ==}
  - identity: {}
";

    #[test]
    fn what_is_sealed_opens_at_its_own_place_only() {
        let it = Encryption::parse(CONFIG).unwrap();
        let (kind, plain) = (api::kind_of::<Secret>(), Bytes::from_static(b"{\"hidden\":1}"));
        let entropy = SystemEntropy::default();
        let key = "/registry/secrets/a/b";
        let stored = it.seal(kind, key, &plain, &entropy).unwrap();
        assert!(stored.starts_with(b"k8s:enc:aesgcm:v1:key1:"));
        assert!(!stored.windows(6).any(|it| it == b"hidden"));
        assert_eq!(it.open(kind, key, &stored).unwrap(), plain);
        assert!(it.open(kind, "/registry/secrets/a/c", &stored).is_err());
        assert_eq!(it.open(kind, key, &plain).unwrap(), plain, "written before there was a key");
        let other = Encryption::default();
        assert!(other.open(kind, key, &stored).is_err());
        let map = api::kind_of::<ConfigMap>();
        assert_eq!(it.seal(map, "/registry/configmaps/a/b", &plain, &entropy).unwrap(), plain);
    }

    #[test]
    fn an_unfit_file_is_refused() {
        for (from, to) in [("aesgcm", "aescbc"), ("MDEy", "MD"), ("[secrets]", "[]")] {
            assert!(Encryption::parse(&CONFIG.replace(from, to)).is_err(), "{from} {to}");
        }
    }
}
