//! Which images this node has pulled, and with whose login: whoever has none like it is sent to the registry, although
//! the image is here. What was imported is everybody's.
//!
//! Upstream: `pkg/kubelet/images/pullmanager` (1.36) with the policy `NeverVerifyPreloadedImages`, and its files.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// A secret that a login is from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullSecret {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    /// SHA-256 of the login.
    pub hash: String,
}

/// Secrets remembered for one image; the oldest is forgotten, and its pods ask the registry again.
const SECRETS_MAX: usize = 100;

/// A record of an image that is not listed goes only when it is older: the pull may just have ended.
const YOUNG: Duration = Duration::from_secs(600);

pub(crate) struct PullRecords {
    directory: PathBuf,
    /// Pulls under way, by image. Also keeps writers of one record apart.
    pulling: Mutex<BTreeMap<String, Pulls>>,
}

/// Pulls of one image.
#[derive(Default)]
struct Pulls {
    under_way: usize,
    /// One of them, or of those before, may have brought the image, and nobody knows with whose login.
    lost: bool,
}

enum End {
    Pulled,
    Failed,
    Lost,
}

impl PullRecords {
    pub(crate) fn new(kubelet_dir: &Path) -> PullRecords {
        PullRecords { directory: kubelet_dir.join("image_manager"), pulling: Mutex::default() }
    }

    /// Before a pull: if this node dies before it knows how the pull ended, the image is nobody's until somebody proves
    /// to have a login for it.
    pub(crate) fn begin(&self, image: &str) -> io::Result<()> {
        let mut pulling = self.pulling.lock().unwrap_or_else(PoisonError::into_inner);
        let intent = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "ImagePullIntent",
            "image": image,
        });
        let file = self.file("pulling", image);
        let is_left = !pulling.contains_key(image) && file.exists();
        write(&file, &intent)?;
        let pulls = pulling.entry(image.to_owned()).or_default();
        pulls.under_way += 1;
        pulls.lost |= is_left;
        Ok(())
    }

    /// After it: with whose login, if the image is here now. None: anybody can pull it.
    pub(crate) fn pulled(
        &self,
        image: &str,
        id: &str,
        secret: Option<&PullSecret>,
    ) -> io::Result<()> {
        let mut pulling = self.pulling.lock().unwrap_or_else(PoisonError::into_inner);
        let remembered = self.remember(image, id, secret);
        let end = if remembered.is_ok() { End::Pulled } else { End::Lost };
        remembered.and(self.end(image, end, &mut pulling))
    }

    /// Nothing was pulled.
    pub(crate) fn failed(&self, image: &str) -> io::Result<()> {
        let mut pulling = self.pulling.lock().unwrap_or_else(PoisonError::into_inner);
        self.end(image, End::Failed, &mut pulling)
    }

    /// Something may have been: until a pull succeeds, every pod proves its right to the image.
    pub(crate) fn lost(&self, image: &str) -> io::Result<()> {
        let mut pulling = self.pulling.lock().unwrap_or_else(PoisonError::into_inner);
        self.end(image, End::Lost, &mut pulling)
    }

    /// Whether a pod with these secrets may use an image that is here, without asking its registry.
    pub(crate) fn may_use(&self, image: &str, id: &str, secrets: &[PullSecret]) -> bool {
        let pulling = self.pulling.lock().unwrap_or_else(PoisonError::into_inner);
        let record = match read(&self.file("pulled", id)) {
            Ok(Some(record)) => record,
            Ok(None) => {
                return !pulling.contains_key(image) && !self.file("pulling", image).exists();
            }
            Err(error) => {
                tracing::warn!(image, %error, "read who may use an image");
                return false;
            }
        };
        let known = &record["credentialMapping"][repository(image)];
        if known["nodePodsAccessible"] == true {
            return true;
        }
        let known: Vec<PullSecret> = of_json(&known["kubernetesSecrets"]);
        for secret in secrets {
            let same = |it: &PullSecret| {
                it.uid == secret.uid && it.namespace == secret.namespace && it.name == secret.name
            };
            let by_login = known.iter().any(|it| !it.hash.is_empty() && it.hash == secret.hash);
            if by_login || known.iter().any(same) {
                // Found by either, it is known by both from now on.
                if !known.contains(secret)
                    && let Err(error) = self.remember(image, id, Some(secret))
                {
                    tracing::warn!(image, %error, "write who may use an image");
                }
                return true;
            }
        }
        false
    }

    /// Forgets images that are not here any more.
    pub(crate) fn keep_only(&self, ids: &BTreeSet<String>) {
        let _turn = self.pulling.lock().unwrap_or_else(PoisonError::into_inner);
        let kept: BTreeSet<PathBuf> = ids.iter().map(|it| self.file("pulled", it)).collect();
        let Ok(entries) = fs::read_dir(self.directory.join("pulled")) else { return };
        for path in entries.flatten().map(|it| it.path()).filter(|it| !kept.contains(it)) {
            let written = path.metadata().and_then(|it| it.modified());
            let age = written.ok().and_then(|it| SystemTime::now().duration_since(it).ok());
            if age.is_some_and(|it| it > YOUNG) {
                let _gone_next_time = fs::remove_file(path);
            }
        }
    }

    fn end(&self, image: &str, end: End, pulling: &mut BTreeMap<String, Pulls>) -> io::Result<()> {
        let Some(pulls) = pulling.get_mut(image) else { return Ok(()) };
        match end {
            End::Pulled => pulls.lost = false,
            End::Failed => {}
            End::Lost => pulls.lost = true,
        }
        pulls.under_way = pulls.under_way.saturating_sub(1);
        if pulls.under_way > 0 {
            return Ok(());
        }
        let is_lost = pulls.lost;
        pulling.remove(image);
        if is_lost {
            return Ok(());
        }
        match fs::remove_file(self.file("pulling", image)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn remember(&self, image: &str, id: &str, secret: Option<&PullSecret>) -> io::Result<()> {
        let path = self.file("pulled", id);
        let known = read(&path).ok().flatten().unwrap_or(Value::Null);
        let mut mapping: Map<String, Value> =
            known["credentialMapping"].as_object().cloned().unwrap_or_default();
        let of_image = mapping.entry(repository(image)).or_insert(Value::Null);
        *of_image = match secret {
            _ if of_image["nodePodsAccessible"] == true => return Ok(()),
            None => json!({"nodePodsAccessible": true}),
            Some(secret) => {
                let mut secrets: Vec<PullSecret> = of_json(&of_image["kubernetesSecrets"]);
                let same = |it: &PullSecret| {
                    it.uid == secret.uid
                        && it.namespace == secret.namespace
                        && it.name == secret.name
                };
                secrets.retain(|it| !same(it));
                secrets.push(secret.clone());
                let first = secrets.len().saturating_sub(SECRETS_MAX);
                json!({"kubernetesSecrets": to_json(&secrets[first..])})
            }
        };
        let record = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "ImagePulledRecord",
            "imageRef": id,
            "credentialMapping": mapping,
        });
        write(&path, &record)
    }

    /// A name may hold any character: as a file it is its SHA-256.
    fn file(&self, kind: &str, name: &str) -> PathBuf {
        let digest = Sha256::digest(name.as_bytes());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        self.directory.join(kind).join(format!("sha256-{digest}"))
    }
}

fn of_json(list: &Value) -> Vec<PullSecret> {
    let text = |it: &Value, name: &str| it[name].as_str().unwrap_or_default().to_owned();
    let secret = |it: &Value| PullSecret {
        uid: text(it, "uid"),
        namespace: text(it, "namespace"),
        name: text(it, "name"),
        hash: text(it, "credentialHash"),
    };
    list.as_array().into_iter().flatten().map(secret).collect()
}

fn to_json(secrets: &[PullSecret]) -> Value {
    let each = secrets.iter().map(|it| {
        json!({"uid": it.uid, "namespace": it.namespace, "name": it.name, "credentialHash": it.hash})
    });
    each.collect()
}

/// The image without tag and digest.
fn repository(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name.to_owned(),
        Some(_) | None => name.to_owned(),
    }
}

fn read(path: &Path) -> io::Result<Option<Value>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces the file as a whole.
fn write(path: &Path, value: &Value) -> io::Result<()> {
    let Some(directory) = path.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
    fs::create_dir_all(directory)?;
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, value.to_string())?;
    fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &str = "r.lan:5000/app:1";

    fn secret(name: &str, hash: &str) -> PullSecret {
        PullSecret {
            uid: format!("u-{name}"),
            namespace: "default".to_owned(),
            name: name.to_owned(),
            hash: hash.to_owned(),
        }
    }

    #[test]
    fn an_image_pulled_with_a_login_is_for_those_who_have_it() {
        let directory = tempfile::tempdir().unwrap();
        let records = PullRecords::new(directory.path());
        assert!(records.may_use(IMAGE, "id", &[]), "imported by somebody");
        records.begin(IMAGE).unwrap();
        assert!(!records.may_use(IMAGE, "id", &[]));
        records.pulled(IMAGE, "id", Some(&secret("a", "1"))).unwrap();

        let records = PullRecords::new(directory.path());
        assert!(!records.may_use(IMAGE, "id", &[]), "also after a restart");
        assert!(!records.may_use(IMAGE, "id", &[secret("b", "2")]));
        assert!(records.may_use(IMAGE, "id", &[secret("a", "1")]));
        assert!(records.may_use(IMAGE, "id", &[secret("c", "1")]), "the same login elsewhere");
        assert!(records.may_use(IMAGE, "id", &[secret("a", "9")]), "the same secret, renewed");
        assert!(records.may_use(IMAGE, "id", &[secret("d", "9")]), "by the renewed login");
        assert!(
            !records.may_use("r.lan:5000/other:1", "id", &[secret("a", "1")]),
            "by another name"
        );
    }

    #[test]
    fn an_image_pulled_by_anybody_is_everybodys_and_a_failed_pull_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let records = PullRecords::new(directory.path());
        records.begin(IMAGE).unwrap();
        records.begin(IMAGE).unwrap();
        records.failed(IMAGE).unwrap();
        assert!(!records.may_use(IMAGE, "id", &[]), "another pull is under way");
        records.failed(IMAGE).unwrap();
        assert!(records.may_use(IMAGE, "id", &[]));
        records.begin(IMAGE).unwrap();
        records.pulled(IMAGE, "id", Some(&secret("a", "1"))).unwrap();
        records.begin(IMAGE).unwrap();
        records.pulled(IMAGE, "id", None).unwrap();
        assert!(records.may_use(IMAGE, "id", &[]));
    }

    #[test]
    fn a_pull_that_a_crash_cut_short_and_a_torn_record_prove_nothing() {
        let directory = tempfile::tempdir().unwrap();
        PullRecords::new(directory.path()).begin(IMAGE).unwrap();
        let records = PullRecords::new(directory.path());
        assert!(!records.may_use(IMAGE, "id", &[secret("a", "1")]));
        fs::create_dir_all(directory.path().join("image_manager/pulled")).unwrap();
        fs::write(records.file("pulled", "id"), "{").unwrap();
        assert!(!records.may_use(IMAGE, "id", &[secret("a", "1")]));
    }

    /// Somebody without a login asks the registry, is refused, and asks again: the refusal must not wipe out that an
    /// image may be here which somebody else's login brought.
    #[test]
    fn a_refusal_gives_nobody_what_a_lost_pull_may_have_brought() {
        let directory = tempfile::tempdir().unwrap();
        let records = PullRecords::new(directory.path());
        let refused = |records: &PullRecords| {
            records.begin(IMAGE).unwrap();
            records.failed(IMAGE).unwrap();
            assert!(!records.may_use(IMAGE, "id", &[]));
        };
        records.begin(IMAGE).unwrap();
        records.lost(IMAGE).unwrap();
        refused(&records);
        refused(&records);
        refused(&PullRecords::new(directory.path()));
        records.begin(IMAGE).unwrap();
        records.pulled(IMAGE, "id", Some(&secret("a", "1"))).unwrap();
        assert!(records.may_use(IMAGE, "id", &[secret("a", "1")]));
        assert!(records.may_use(IMAGE, "imported later", &[]), "nothing is in doubt any more");
    }
}
