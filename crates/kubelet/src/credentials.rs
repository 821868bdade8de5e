//! Who may pull an image: logins of docker's configuration files and of pull secrets, found by an image's name.
//!
//! Upstream: `pkg/credentialprovider/{config,keyring,secrets}.go`.

use crate::{pull_records::PullSecret, runtime::message};
use api::{
    Object,
    core::v1::{Pod, Secret},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;
use sha2::{Digest, Sha256};
use world::{ObjectKey, World};

/// One login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credential {
    pub username: String,
    pub password: String,
    pub identity_token: String,
    pub registry_token: String,
    /// Where it is from, if from a secret of the cluster.
    pub secret: Option<PullSecret>,
}

/// A file of logins that is none.
#[derive(Debug, thiserror::Error)]
#[error("it is not a docker configuration: {0}")]
pub struct NotLogins(String);

/// Logins by the registry, or the part of one, that they are for.
#[derive(Clone, Debug, Default)]
pub struct Keyring(Vec<(String, Credential)>);

impl Keyring {
    /// `~/.docker/config.json`, or the value of `.dockerconfigjson`.
    pub fn of_config(bytes: &[u8]) -> Result<Keyring, NotLogins> {
        let config: Value = serde_json::from_slice(bytes).map_err(|it| NotLogins(place(&it)))?;
        let auths =
            config.get("auths").cloned().unwrap_or_else(|| Value::Object(Default::default()));
        Keyring::of_auths(&auths)
    }

    /// The value of `.dockercfg`: the logins without anything around them.
    pub fn of_legacy_config(bytes: &[u8]) -> Result<Keyring, NotLogins> {
        let auths = serde_json::from_slice(bytes).map_err(|it| NotLogins(place(&it)))?;
        Keyring::of_auths(&auths)
    }

    fn of_auths(auths: &Value) -> Result<Keyring, NotLogins> {
        let auths =
            auths.as_object().ok_or_else(|| NotLogins("the logins are no object".to_owned()))?;
        let mut keys = Vec::new();
        for (registry, login) in auths {
            let text =
                |name: &str| login.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let mut credential = Credential {
                username: text("username"),
                password: text("password"),
                identity_token: text("identitytoken"),
                registry_token: text("registrytoken"),
                secret: None,
            };
            let both = text("auth");
            if !both.is_empty() {
                let bad = || {
                    NotLogins(format!(
                        "the login for {registry:?} has an \"auth\" that is not base64 of user:password"
                    ))
                };
                let plain = BASE64_STANDARD.decode(&both).map_err(|_| bad())?;
                let plain = String::from_utf8(plain).map_err(|_| bad())?;
                let (username, password) = plain.split_once(':').ok_or_else(bad)?;
                credential.username = username.to_owned();
                credential.password = password.trim_end_matches('\0').to_owned();
            }
            if credential != Credential::default() {
                keys.push((key(registry), credential));
            }
        }
        Ok(Keyring(keys))
    }

    /// The logins for an image, the most particular first.
    pub fn lookup(&self, image: &str) -> impl Iterator<Item = &Credential> {
        let repository = repository(image);
        let mut found: Vec<&(String, Credential)> =
            self.0.iter().filter(|(key, _)| is_for(key, &repository)).collect();
        found.sort_by(|a, b| b.0.cmp(&a.0));
        found.into_iter().map(|(_, credential)| credential)
    }

    /// Adds the logins of a secret.
    fn extend(&mut self, other: Keyring, secret: &Secret) {
        for (key, mut credential) in other.0 {
            credential.secret = Some(PullSecret {
                uid: secret.uid().to_owned(),
                namespace: secret.namespace().to_owned(),
                name: secret.name().to_owned(),
                hash: hash(&credential),
            });
            self.0.push((key, credential));
        }
    }
}

/// Equal logins have equal ones; it tells nobody what the login is.
fn hash(login: &Credential) -> String {
    let parts = [&login.username, &login.password, &login.identity_token, &login.registry_token];
    let text = Value::from(parts.map(|it| Value::from(it.as_str())).to_vec()).to_string();
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The logins that a pod's pull secrets have for an image, and which of the secrets are not there.
pub(crate) fn of_pod(world: &World, pod: &Pod, image: &str) -> (Vec<Credential>, Vec<String>) {
    let names = pod.spec.iter().flat_map(|it| it.image_pull_secrets.iter().flatten());
    let (mut keyring, mut troubles) = (Keyring::default(), Vec::new());
    for name in names.map(|it| it.name.as_str()).filter(|it| !it.is_empty()) {
        let secret = world.get::<Secret>(&ObjectKey::new(pod.namespace(), name));
        let Some(secret) = secret else {
            troubles.push(name.to_owned());
            continue;
        };
        let data = |key: &str| {
            secret.data.iter().flatten().find(|it| it.0 == key).map(|it| it.1.0.as_slice())
        };
        let read = match secret.type_.as_deref() {
            Some("kubernetes.io/dockerconfigjson") => {
                data(".dockerconfigjson").map(Keyring::of_config)
            }
            Some("kubernetes.io/dockercfg") => data(".dockercfg").map(Keyring::of_legacy_config),
            Some(_) | None => None,
        };
        match read {
            Some(Ok(more)) => keyring.extend(more, &secret),
            Some(Err(error)) => {
                tracing::warn!(pod = pod.name(), secret = name, %error, "pull secret")
            }
            None => {}
        }
    }
    (keyring.lookup(image).cloned().collect(), troubles)
}

/// As runtimes take it.
pub(crate) fn message(login: &Credential) -> message::AuthConfig {
    message::AuthConfig {
        username: login.username.clone(),
        password: login.password.clone(),
        identity_token: login.identity_token.clone(),
        registry_token: login.registry_token.clone(),
        ..message::AuthConfig::default()
    }
}

/// Where it went wrong, without what is there: it is a secret.
fn place(error: &serde_json::Error) -> String {
    format!("line {}, column {}", error.line(), error.column())
}

/// Host and path of what a login is for: without scheme, and without the API's version.
fn key(registry: &str) -> String {
    let rest = registry.strip_prefix("https://").or(registry.strip_prefix("http://"));
    let rest = rest.unwrap_or(registry).trim_end_matches('/');
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.strip_prefix("v1").or(path.strip_prefix("v2")).unwrap_or(path);
    let path = path.trim_matches('/');
    if path.is_empty() { host.to_owned() } else { format!("{host}/{path}") }
}

/// `docker.io/library/nginx`, as logins mean it: docker's own registry is the index.
fn repository(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        Some(_) | None => name,
    };
    match name.split_once('/') {
        Some(("docker.io", path)) => format!("index.docker.io/{path}"),
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => name.to_owned(),
        Some(_) | None => format!("index.docker.io/{name}"),
    }
}

/// Parts of the host may be `*`; the path is a beginning.
fn is_for(key: &str, repository: &str) -> bool {
    let split = |text: &str| {
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
        (name.to_owned(), port.to_owned(), path.to_owned())
    };
    let ((name, port, path), (wanted, wanted_port, wanted_path)) = (split(key), split(repository));
    let (parts, wanted): (Vec<&str>, Vec<&str>) =
        (name.split('.').collect(), wanted.split('.').collect());
    port == wanted_port
        && wanted_path.starts_with(&path)
        && parts.len() == wanted.len()
        && parts.iter().zip(&wanted).all(|(pattern, part)| fits(pattern, part))
}

/// `*` is any number of characters.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices()
                .map(|it| it.0)
                .chain([rest.len()])
                .any(|at| fits(after, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(auths: &str, image: &str) -> Vec<String> {
        let keyring = Keyring::of_config(format!("{{\"auths\": {auths}}}").as_bytes()).unwrap();
        keyring.lookup(image).map(|it| it.username.clone()).collect()
    }

    #[test]
    fn finds_logins_by_host_and_path_the_most_particular_first() {
        let auths = r#"{
            "https://index.docker.io/v1/": {"auth": "aHViOnA="},
            "registry.lan:5000": {"username": "all", "password": "p"},
            "registry.lan:5000/team": {"username": "team", "password": "p"},
            "*.example.com": {"username": "star", "password": "p"},
            "empty.lan": {}
        }"#;
        let none: [&str; 0] = [];
        assert_eq!(users(auths, "nginx"), ["hub"]);
        assert_eq!(users(auths, "docker.io/a/b:1"), ["hub"]);
        assert_eq!(users(auths, "registry.lan:5000/x:1"), ["all"]);
        assert_eq!(users(auths, "registry.lan:5000/team/x@sha256:0"), ["team", "all"]);
        assert_eq!(users(auths, "a.example.com/x"), ["star"]);
        assert_eq!(users(auths, "a.b.example.com/x"), none);
        assert_eq!(users(auths, "registry.lan/x"), none);
        assert_eq!(users(auths, "empty.lan/x"), none);
    }

    #[test]
    fn a_password_may_hold_colons_and_a_bad_file_is_not_quoted() {
        let both = Keyring::of_legacy_config(br#"{"r.lan": {"auth": "dTpwOnE="}}"#).unwrap();
        assert_eq!(both.lookup("r.lan/x").next().unwrap().password, "p:q");
        for bad in [
            r#"{"auths": {"r": {"auth": "geheim!"}}}"#,
            r#"{"auths": geheim}"#,
            r#"{"auths": "geheim"}"#,
        ] {
            let error = Keyring::of_config(bad.as_bytes()).unwrap_err().to_string();
            assert!(!error.contains("geheim"), "{error}");
        }
    }
}
