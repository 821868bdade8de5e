//! The pod that empties a released NFS volume: made, watched to its end, removed.
//!
//! Upstream: pkg/volume/util/recyclerclient, pkg/volume/nfs/nfs.go, Recycle, and NewPersistentVolumeRecyclerPodTemplate
//! (1.36). Deviation: the image is `busybox`, which is pulled only where
//! it is missing.

use api::{
    Object,
    core::{
        persistent_volume as volumes, pod as pods,
        v1::{Container, NFSVolumeSource, PersistentVolume, Pod, PodSpec, Volume, VolumeMount},
    },
    meta::ObjectMeta,
};
use world::{ObjectKey, Touched, World};

const NAMESPACE: &str = "default";
const PREFIX: &str = "recycler-for-";
/// Hidden files too; a file that cannot be removed, or that comes back, is a failure. Not every find has `-delete`.
const COMMAND: &str = "test -e /scrub && find /scrub -mindepth 1 -maxdepth 1 -exec rm -rf {} + \
                       && test -z \"$(ls -A /scrub)\" || exit 1";
const VOLUME: &str = "vol";
const SCRUBBED: &str = "/scrub";
/// Seconds, as upstream's controller manager has them by default.
const SECONDS_MIN: i64 = 300;
const SECONDS_PER_GIB: i64 = 30;

/// How far the pod is.
pub(super) enum Look {
    Absent,
    /// Made, running, or about to go.
    Waits,
    Done(Pod),
    /// Of its name, and yet not what empties this volume: somebody else's, or of a volume that had its name.
    Stranger(Pod),
    Failed(Pod, String),
}

pub(super) fn key(volume: &str) -> ObjectKey {
    ObjectKey::new(NAMESPACE, &format!("{PREFIX}{volume}"))
}

pub(super) fn volume_of_pod(_: &World, touched: &Touched) -> Vec<ObjectKey> {
    let ours =
        touched.key.name.strip_prefix(PREFIX).filter(|_| &*touched.key.namespace == NAMESPACE);
    ours.map(ObjectKey::cluster).into_iter().collect()
}

pub(super) fn look(world: &World, volume: &PersistentVolume, source: &NFSVolumeSource) -> Look {
    let Some(pod) = world.get::<Pod>(&key(volume.name())) else { return Look::Absent };
    if pod.is_deleting() {
        return Look::Waits;
    }
    if !does_the_work(&pod, &self::pod(volume, source)) {
        return Look::Stranger(pod.to_owned());
    }
    match pods::phase(&pod) {
        "Succeeded" => Look::Done(pod.to_owned()),
        "Failed" => {
            let said = pod.status.as_ref().and_then(|it| it.message.clone());
            let said = said.filter(|it| !it.is_empty());
            let said = said.unwrap_or_else(|| "pod failed, pod.Status.Message unknown".to_owned());
            Look::Failed(pod.to_owned(), said)
        }
        _ => Look::Waits,
    }
}

/// Whether what runs in a pod is what was made for the volume. The door adds defaults, an account with its token, and
/// tolerations; whoever may write pods here could have made one that empties nothing.
fn does_the_work(found: &Pod, made: &Pod) -> bool {
    let owner =
        |it: &Pod| it.metadata.owner_references.iter().flatten().next().map(|it| it.uid.clone());
    let (Some(is), Some(should)) = (&found.spec, &made.spec) else { return false };
    let ([container], [wanted]) = (&*is.containers, &*should.containers) else { return false };
    let mount = |it: &Container| {
        let mounts = it.volume_mounts.iter().flatten();
        let mut named =
            mounts.filter(|it| it.name == VOLUME || it.mount_path.starts_with(SCRUBBED));
        let first = named.next().map(|it| {
            let parts = it.sub_path.is_none() && it.sub_path_expr.is_none();
            (it.name.clone(), it.mount_path.clone(), parts && it.read_only != Some(true))
        });
        named.next().is_none().then_some(first)
    };
    let share = |it: &PodSpec| {
        let found = it.volumes.iter().flatten().find(|it| it.name == VOLUME);
        found
            .and_then(|it| it.nfs.clone())
            .map(|it| (it.server, it.path, it.read_only == Some(true)))
    };
    owner(found) == owner(made)
        && is.init_containers.as_ref().is_none_or(Vec::is_empty)
        && (&container.image, &container.command, &container.args)
            == (&wanted.image, &wanted.command, &wanted.args)
        && container.env.as_ref().is_none_or(Vec::is_empty)
        && container.env_from.as_ref().is_none_or(Vec::is_empty)
        && mount(container) == mount(wanted)
        && share(is) == share(should)
}

pub(super) fn pod(volume: &PersistentVolume, source: &NFSVolumeSource) -> Pod {
    let gib = volumes::capacity(volume).units() >> 30;
    let container = Container {
        name: "pv-recycler".to_owned(),
        image: Some("busybox".to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec!["/bin/sh".to_owned()]),
        args: Some(vec!["-c".to_owned(), COMMAND.to_owned()]),
        volume_mounts: Some(vec![VolumeMount {
            name: VOLUME.to_owned(),
            mount_path: SCRUBBED.to_owned(),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    };
    Pod {
        metadata: ObjectMeta {
            name: Some(key(volume.name()).name.to_string()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: Some(vec![crate::owner(volume)]),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            active_deadline_seconds: Some(gib.saturating_mul(SECONDS_PER_GIB).max(SECONDS_MIN)),
            restart_policy: Some("Never".to_owned()),
            volumes: Some(vec![Volume {
                name: VOLUME.to_owned(),
                nfs: Some(NFSVolumeSource { read_only: None, ..source.clone() }),
                ..Volume::default()
            }]),
            containers: vec![container],
            ..PodSpec::default()
        }),
        status: None,
    }
}
