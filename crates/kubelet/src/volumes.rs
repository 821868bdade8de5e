//! The hands on volumes: stage once for the node, publish once for each pod, and undo both in reverse.
//!
//! A record is written before each mount and removed after each unmount. One volume of the node is worked on by one
//! call at a time; different volumes never wait for one another.

use crate::{
    ledger::{Ledger, LedgerError, Record},
    plan::volumes::{Mountable, TokenFile},
    spec::Facts,
    token_life::TokenLife,
};
use ::volumes::{ProjectedFile, Published, VolumeError, VolumePlugin, mount, subpath};
use api::{Failure, Object, core::v1::Pod};
use client::{Bind, Client, TokenWish};
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};
use stdx::Timestamp;
use tokio::sync::OwnedMutexGuard;

/// Why a volume is not there yet, in the words of upstream's events.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    #[error(
        "MountVolume.FindPluginBySpec failed for volume \"{0}\" : no volume plugin matched name: {1}"
    )]
    NoPlugin(String, String),
    #[error("MountVolume.MountDevice failed for volume \"{title}\" : {}", stdx::one_line(source))]
    Stage { title: String, source: VolumeError },
    #[error("MountVolume.SetUp failed for volume \"{title}\" : {}", stdx::one_line(source))]
    Publish { title: String, source: VolumeError },
    #[error(
        "MountVolume.SetUp failed for volume \"{0}\" : volume uses the ReadWriteOncePod access mode and is already in use by another pod"
    )]
    OnePod(String),
    #[error("UnmountVolume.TearDown failed for volume \"{title}\" : {}", stdx::one_line(source))]
    Unpublish { title: String, source: VolumeError },
    #[error("UnmountDevice failed for volume \"{title}\" : {}", stdx::one_line(source))]
    Unstage { title: String, source: VolumeError },
    #[error("MountVolume.SetUp failed for volume \"{title}\" : failed to fetch token: {source}")]
    Token { title: String, source: Failure },
    #[error("{}", stdx::one_line(.0))]
    Ledger(#[from] LedgerError),
}

type Locks = HashMap<(String, String), Arc<tokio::sync::Mutex<()>>>;

pub(crate) struct Volumes {
    plugins: BTreeMap<String, Arc<dyn VolumePlugin>>,
    ledger: Ledger,
    /// What was published by this process, as it was asked for: contents are compared with it.
    asked: Mutex<HashMap<(String, String), Asked>>,
    /// (plugin, handle) → one call at a time. Bounded by the calls under way.
    locks: Mutex<Locks>,
}

/// A volume as it was asked for.
struct Asked {
    wanted: Mountable,
    /// Of the tokens in it, if there are any.
    tokens: Option<TokenLife>,
}

/// How a wanted volume stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Absent,
    /// Usable, with other contents than wanted, or not looked at since this process began.
    Outdated,
    Ready,
}

impl Volumes {
    pub(crate) fn new(plugins: Vec<Arc<dyn VolumePlugin>>, ledger: Ledger) -> Volumes {
        let plugins = plugins.into_iter().map(|it| (it.name().to_owned(), it)).collect();
        Volumes { plugins, ledger, asked: Mutex::default(), locks: Mutex::default() }
    }

    pub(crate) fn plugin(&self, name: &str) -> Option<&Arc<dyn VolumePlugin>> {
        self.plugins.get(name)
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(crate) fn standing(
        &self,
        uid: &str,
        volume: &str,
        wanted: &Mountable,
        now: Timestamp,
    ) -> Standing {
        let key = (uid.to_owned(), volume.to_owned());
        let records = self.ledger.of_pod(uid);
        let record = records.iter().find(|it| it.volume == volume);
        if record.is_none_or(|it| it.host_path.is_none()) {
            return Standing::Absent;
        }
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |it: &Asked| it.tokens.is_none_or(|it| it.is_fresh(now));
        let same = asked.get(&key).is_some_and(|it| it.wanted == *wanted && fresh(it));
        if same { Standing::Ready } else { Standing::Outdated }
    }

    /// When the first of the pod's tokens is to be made anew.
    pub(crate) fn renew_at(&self, uid: &str) -> Option<Timestamp> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let own = asked.iter().filter(|((of, _), _)| of == uid);
        own.filter_map(|(_, it)| Some(it.tokens?.renew_at)).min()
    }

    /// Pod volume → where it can be used.
    pub(crate) fn published(&self, uid: &str) -> BTreeMap<String, Published> {
        let records = self.ledger.of_pod(uid).into_iter();
        records.filter_map(|it| Some((it.volume.clone(), it.published()?))).collect()
    }

    /// Makes a volume usable for one pod. Doing so again brings new contents.
    pub(crate) async fn publish(
        &self,
        client: &dyn Client,
        pod: &Pod,
        volume: &str,
        wanted: &Mountable,
    ) -> Result<(), MountError> {
        let (plugin, title) = (&wanted.plugin, || wanted.title.clone());
        let plugin = self
            .plugin(plugin)
            .ok_or_else(|| MountError::NoPlugin(title(), plugin.clone()))?
            .clone();
        let stages = plugin.capabilities().stage;
        let handle = &wanted.publish.volume.handle;
        let _alone = match stages {
            true => Some(self.lock(&wanted.plugin, handle).await),
            false => None,
        };
        let taken =
            |it: &Record| it.plugin == wanted.plugin && it.handle == *handle && it.uid != pod.uid();
        if stages && self.ledger.all().iter().any(|it| taken(it) && (wanted.one_pod || it.one_pod))
        {
            return Err(MountError::OnePod(title()));
        }
        let before = self.ledger.of_pod(pod.uid()).into_iter().find(|it| it.volume == volume);
        let mut record = Record {
            uid: pod.uid().to_owned(),
            pod: format!("{}/{}", pod.namespace(), pod.name()),
            volume: volume.to_owned(),
            plugin: wanted.plugin.clone(),
            handle: handle.clone(),
            target: wanted.publish.target.clone(),
            staging: stages.then(|| wanted.stage.staging.clone()),
            one_pod: wanted.one_pod,
            host_path: None,
            read_only: false,
        };
        // A running container keeps what it has while new contents are brought.
        if before.as_ref().is_none_or(|it| it.host_path.is_none()) {
            self.ledger.write(&record)?;
        }
        if stages {
            let staged = plugin.stage(&wanted.stage).await;
            staged.map_err(|source| MountError::Stage { title: title(), source })?;
        }
        let mut request = wanted.publish.clone();
        request.staging = request.staging.filter(|_| stages);
        let mut tokens: Option<TokenLife> = None;
        for file in &wanted.tokens {
            let token = client.token(wish(pod, file)).await;
            let token = token.map_err(|source| MountError::Token { title: title(), source })?;
            let life = TokenLife::of(&token);
            tokens = Some(tokens.map_or(life, |it| it.together(life)));
            let (data, mode, owner) = (token.token.into_bytes(), file.mode, file.owner);
            let files = request.files.get_or_insert_default();
            files.insert(file.path.clone(), ProjectedFile { data, mode, owner });
        }
        let published = plugin.publish(&request).await;
        let published =
            published.map_err(|source| MountError::Publish { title: title(), source })?;
        record.host_path = Some(published.host_path);
        record.read_only = published.read_only;
        if before.as_ref() != Some(&record) {
            self.ledger.write(&record)?;
            if let Some(text) = plugin.remark(&request) {
                client.record(world::Event::normal(
                    pod,
                    "VolumeRemark",
                    format!("{volume}: {text}"),
                ));
            }
        }
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = wanted.clone();
        asked.insert((record.uid, record.volume), Asked { wanted, tokens });
        Ok(())
    }

    /// The pod's processes were killed and do not end: nothing of its volumes is to be waited for any more.
    pub(crate) async fn abort(&self, uid: &str) {
        let aborts = self.ledger.of_pod(uid).into_iter().filter_map(|record| {
            let plugin = self.plugin(&record.plugin)?.clone();
            Some(async move {
                if let Err(error) = plugin.abort(&record.handle, &record.target).await {
                    tracing::warn!(pod = record.pod, volume = record.volume, %error, "abort");
                }
            })
        });
        futures_util::future::join_all(aborts).await;
    }

    /// Takes a volume away from one pod, and from the node with the last pod that had it.
    pub(crate) async fn unpublish(
        &self,
        uid: &str,
        volume: &str,
        facts: &Facts,
    ) -> Result<(), MountError> {
        let records = self.ledger.of_pod(uid);
        let Some(record) = records.into_iter().find(|it| it.volume == volume) else {
            return Ok(());
        };
        let title = || record.volume.clone();
        let plugin = self
            .plugin(&record.plugin)
            .ok_or_else(|| MountError::NoPlugin(title(), record.plugin.clone()))?
            .clone();
        let _alone = match record.staging {
            Some(_) => Some(self.lock(&record.plugin, &record.handle).await),
            None => None,
        };
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&(uid.to_owned(), volume.to_owned()));
        let failed = |source| MountError::Unpublish { title: title(), source };
        let parts = facts.pod_dir(uid).join("volume-subpaths").join(volume);
        subpath::unpublish_below(volume, &parts).await.map_err(failed)?;
        plugin.unpublish(&record.handle, &record.target).await.map_err(failed)?;
        if let Some(staging) = &record.staging
            && !self.is_staged_for_others(&record, staging)
        {
            let unstaged = plugin.unstage(&record.handle, staging).await;
            unstaged.map_err(|source| MountError::Unstage { title: title(), source })?;
            // The directory around it is ours, and empty.
            if let Some(around) = staging.parent() {
                let _not_empty = tokio::fs::remove_dir(around).await;
            }
        }
        Ok(self.ledger.remove(uid, volume)?)
    }

    fn is_staged_for_others(&self, record: &Record, staging: &Path) -> bool {
        self.ledger.all().iter().any(|it| {
            it.staging.as_deref() == Some(staging)
                && (&it.uid, &it.volume) != (&record.uid, &record.volume)
        })
    }

    async fn lock(&self, plugin: &str, handle: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            let key = (plugin.to_owned(), handle.to_owned());
            Arc::clone(locks.entry(key).or_default())
        };
        lock.lock_owned().await
    }

    /// Mounts below the kubelet's directory that no record explains: those of a ledger that was lost.
    pub(crate) fn unexplained(&self, facts: &Facts) -> Vec<std::path::PathBuf> {
        let below = mount::mounts_below(&facts.kubelet_dir).unwrap_or_default();
        let records = self.ledger.all();
        let explained = |point: &Path| {
            records.iter().any(|it| {
                let parts = facts.pod_dir(&it.uid).join("volume-subpaths");
                point.starts_with(&it.target)
                    || point.starts_with(parts)
                    || it.staging.as_ref().is_some_and(|staging| point.starts_with(staging))
            })
        };
        below.into_iter().map(|it| it.point).filter(|it| !explained(it)).collect()
    }
}

/// A token for the pod's own account, that ends with the pod.
fn wish(pod: &Pod, file: &TokenFile) -> TokenWish {
    let account = pod.spec.as_ref().and_then(|it| it.service_account_name.clone());
    TokenWish {
        namespace: pod.namespace().to_owned(),
        account: account.unwrap_or_default(),
        account_uid: String::new(),
        audiences: match file.audience.as_str() {
            "" => Vec::new(),
            audience => vec![audience.to_owned()],
        },
        expiration_s: file.expiration_s,
        bound: Some(Bind {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
        }),
    }
}

/// Removes what is left of a pod's directory once nothing is mounted in it: files of ours, and empty directories.
///
/// Never more: a directory that is not empty is somebody's data.
pub(crate) fn remove_pod_dir(facts: &Facts, uid: &str) -> std::io::Result<()> {
    let pod_dir = facts.pod_dir(uid);
    let fine = |result: std::io::Result<()>| match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    };
    fine(std::fs::remove_dir_all(pod_dir.join("containers")))?;
    fine(std::fs::remove_file(facts.hosts_file(uid)))?;
    for name in [crate::users::FILE, crate::users::UNFINISHED] {
        fine(std::fs::remove_file(pod_dir.join(name)))?;
    }
    for name in ["volumes", "volumeDevices", "volume-subpaths"] {
        remove_empty(&pod_dir.join(name), 4)?;
    }
    fine(std::fs::remove_dir(pod_dir))
}

fn remove_empty(directory: &Path, depth: u32) -> std::io::Result<()> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        if depth > 0 && entry.file_type()?.is_dir() {
            remove_empty(&entry.path(), depth - 1)?;
        }
    }
    std::fs::remove_dir(directory)
}
