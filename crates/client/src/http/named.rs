//! What the pods of a node name: each Secret and ConfigMap is watched by its name, claims and their volumes are asked
//! for, because that is all that a node may.
//!
//! Upstream: `pkg/kubelet/util/manager/watch_based_manager.go`, and the kubelet's reads of claims.

use super::{
    connection::Connection,
    partial::Partial,
    read,
    reflector::{self, Scope},
};
use api::{
    Failure, KindRef, Object,
    core::{
        persistent_volume_claim as claims,
        pod::{self, references},
        v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use stdx::Backoff;
use tokio::{sync::watch, task::AbortHandle};
use world::ObjectKey;

/// How long a pod is held back for what it names; afterwards its worker says what is missing.
const WAIT: Duration = Duration::from_secs(5);
/// How often a claim is asked for that has no volume yet, and one that has.
const UNBOUND: Duration = Duration::from_millis(500);
const BOUND: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum What {
    Secret,
    ConfigMap,
    Claim,
}

pub(super) struct Named {
    connection: Arc<Connection>,
    partial: Arc<Partial>,
    /// Bounded by what the pods of this node name.
    followed: Mutex<BTreeMap<(What, ObjectKey), Followed>>,
}

struct Followed {
    task: AbortHandle,
    told: watch::Receiver<bool>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl What {
    fn kind(self) -> &'static KindRef {
        match self {
            What::Secret => api::kind_of::<Secret>(),
            What::ConfigMap => api::kind_of::<ConfigMap>(),
            What::Claim => api::kind_of::<PersistentVolumeClaim>(),
        }
    }
}

impl Named {
    pub(super) fn new(connection: Arc<Connection>, partial: Arc<Partial>) -> Named {
        Named { connection, partial, followed: Mutex::default() }
    }

    /// Follows what the pod names; returns once all of it was read, or did not come in time.
    pub(super) async fn bring(&self, pod: &Pod) {
        let all: Vec<watch::Receiver<bool>> =
            of_pod(pod).into_iter().map(|(what, key)| self.follow(what, key)).collect();
        let told = async {
            for mut it in all {
                // A task that is gone will not tell any more.
                let _told = it.wait_for(|it| *it).await;
            }
        };
        if stdx::timeout(WAIT, told).await.is_none() {
            tracing::info!(pod = %ObjectKey::of(pod), "not all that the pod names could be read");
        }
    }

    /// Lets go of what no pod names any more.
    pub(super) fn prune(&self) {
        let world = self.partial.feed().latest();
        let wanted: BTreeSet<(What, ObjectKey)> =
            world.all::<Pod>().flat_map(|it| of_pod(&it)).collect();
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let lost: Vec<(What, ObjectKey)> =
            followed.keys().filter(|it| !wanted.contains(it)).cloned().collect();
        for it in &lost {
            followed.remove(it);
            if let (What::Claim, Some(volume)) = (it.0, self.volume(&it.1)) {
                self.partial.absent(api::kind_of::<PersistentVolume>(), &volume);
            }
            self.partial.absent(it.0.kind(), &it.1);
        }
    }

    fn volume(&self, claim: &ObjectKey) -> Option<ObjectKey> {
        volume(&self.partial, claim)
    }

    fn follow(&self, what: What, key: ObjectKey) -> watch::Receiver<bool> {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = || {
            let (tell, told) = watch::channel(false);
            let (connection, partial) = (self.connection.clone(), self.partial.clone());
            let key = key.clone();
            let task = tokio::spawn(async move {
                match what {
                    What::Claim => ask(&connection, &partial, &key, &tell).await,
                    What::Secret | What::ConfigMap => {
                        let scope = Scope::named(what.kind(), &key);
                        reflector::follow(&connection, &partial, &scope, &tell, None).await;
                    }
                }
            });
            Followed { task: task.abort_handle(), told }
        };
        followed.entry((what, key.clone())).or_insert_with(begin).told.clone()
    }
}

fn of_pod(pod: &Pod) -> Vec<(What, ObjectKey)> {
    let key = |name: &str| ObjectKey::new(pod.namespace(), name);
    let secrets = references::secrets(pod).into_iter().map(|it| (What::Secret, key(it)));
    let maps = references::config_maps(pod).into_iter().map(|it| (What::ConfigMap, key(it)));
    let claims = pod::claims(pod).into_iter().map(|it| (What::Claim, key(&it.1)));
    secrets.chain(maps).chain(claims).collect()
}

fn volume(partial: &Partial, claim: &ObjectKey) -> Option<ObjectKey> {
    let claim = partial.feed().latest().get::<PersistentVolumeClaim>(claim)?;
    let name = claim.spec.as_ref()?.volume_name.clone().filter(|it| !it.is_empty())?;
    Some(ObjectKey::cluster(&name))
}

/// Asks for a claim and its volume, for ever.
async fn ask(
    connection: &Connection,
    partial: &Partial,
    key: &ObjectKey,
    tell: &watch::Sender<bool>,
) {
    let mut backoff = Backoff::new(UNBOUND, Duration::from_secs(10));
    loop {
        match ask_once(connection, partial, key).await {
            Ok(is_bound) => {
                backoff.succeeded();
                tell.send_replace(true);
                stdx::sleep(if is_bound { BOUND } else { UNBOUND }).await;
            }
            Err(failure) => {
                tracing::debug!("ask for claim {key}: {failure}");
                stdx::sleep(backoff.failed()).await;
            }
        }
    }
}

async fn ask_once(
    connection: &Connection,
    partial: &Partial,
    key: &ObjectKey,
) -> Result<bool, Failure> {
    // The volume first, if it is known: its claim is then never seen with a volume that is older than it.
    read(connection, partial, api::kind_of::<PersistentVolumeClaim>(), key).await?;
    if let Some(volume) = volume(partial, key) {
        let kind = api::kind_of::<PersistentVolume>();
        match read(connection, partial, kind, &volume).await {
            // A volume that is not bound to this claim is none of the node's.
            Err(failure) if failure.code == 403 => partial.absent(kind, &volume),
            read => read?,
        }
    }
    let claim = partial.feed().latest().get::<PersistentVolumeClaim>(key);
    Ok(claim.is_some_and(|it| claims::phase(&it) == "Bound"))
}
