//! Which volume a pod means, and what the plugin must be asked for: from the world alone.
//!
//! Upstream: `pkg/kubelet/volumemanager/populator/desired_state_of_world_populator.go` (createVolumeSpec),
//! `pkg/volume/{configmap,secret,downwardapi,projected}` (1.36).

mod contents;
mod tokens;

pub use tokens::TokenFile;

use crate::spec::Facts;
use api::{
    Object,
    core::{
        persistent_volume::{self, claim_ref},
        persistent_volume_claim::{self as claims},
        pod as pods,
        v1::{
            PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod, Volume as PodVolume,
        },
    },
    meta::Exact,
};
use std::{collections::BTreeMap, path::PathBuf};
use volumes::{FsGroupChange, PodRef, PublishVolume, StageVolume, Volume};
use world::{ObjectKey, World};

pub const CONFIG_MAP: &str = "kubernetes.io/configmap";
pub const DOWNWARD_API: &str = "kubernetes.io/downward-api";
pub const EMPTY_DIR: &str = "kubernetes.io/empty-dir";
pub const HOST_PATH: &str = "kubernetes.io/host-path";
pub const LOCAL_VOLUME: &str = "kubernetes.io/local-volume";
pub const NFS: &str = "kubernetes.io/nfs";
pub const PROJECTED: &str = "kubernetes.io/projected";
pub const SECRET: &str = "kubernetes.io/secret";

/// Everything that a plugin is asked for on behalf of one volume of one pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Mountable {
    /// The plugin by its name: `kubernetes.io/empty-dir`, or a CSI driver.
    pub plugin: String,
    /// As events call it: the persistent volume's name, else the pod volume's.
    pub title: String,
    /// For plugins that stage.
    pub stage: StageVolume,
    pub publish: PublishVolume,
    /// Files that are not in the world: they are asked for when the volume is published.
    pub tokens: Vec<TokenFile>,
    /// `ReadWriteOncePod`: no other pod of this node may have it.
    pub one_pod: bool,
}

/// Finds what the pod's volume is. The error says what is missing: it is tried again when the world changes.
pub fn resolve(
    world: &World,
    pod: &Pod,
    volume: &PodVolume,
    facts: &Facts,
    address: &str,
) -> Result<Mountable, String> {
    let claim = pods::claims(pod).into_iter().find(|(name, _)| *name == volume.name);
    match claim {
        Some((_, claim)) => persistent(world, pod, volume, &claim, facts),
        None => inline(world, pod, volume, facts, address),
    }
}

fn inline(
    world: &World,
    pod: &Pod,
    volume: &PodVolume,
    facts: &Facts,
    address: &str,
) -> Result<Mountable, String> {
    let name = &volume.name;
    let mut what = Volume { handle: name.clone(), ..Volume::default() };
    let mut publish = PublishVolume { pod: pod_ref(pod), ..PublishVolume::default() };
    let mut tokens = Vec::new();
    let plugin = if let Some(source) = &volume.empty_dir {
        publish.medium = source.medium.clone();
        publish.size_limit = source.size_limit.as_ref().map(|it| bytes(Exact::of(it)));
        let limit = pod.spec.as_ref().and_then(|it| pods::limits(it).get("memory").copied());
        publish.memory_limit = limit.map(bytes);
        EMPTY_DIR
    } else if let Some(source) = &volume.host_path {
        what.context = host_path(&source.path, source.type_.as_deref());
        HOST_PATH
    } else if let Some(source) = &volume.nfs {
        what.context = nfs(&source.server, &source.path);
        publish.read_only = source.read_only == Some(true);
        NFS
    } else if let Some(source) = &volume.config_map {
        publish.files = Some(contents::config_map(world, pod.namespace(), source)?);
        CONFIG_MAP
    } else if let Some(source) = &volume.secret {
        publish.files = Some(contents::secret(world, pod.namespace(), source)?);
        SECRET
    } else if let Some(source) = &volume.downward_api {
        let items = source.items.as_deref().unwrap_or_default();
        publish.files = Some(contents::downward(pod, items, source.default_mode, facts, address)?);
        DOWNWARD_API
    } else if let Some(source) = &volume.projected {
        publish.files = Some(contents::projected(world, pod, source, facts, address)?);
        tokens = tokens::tokens(pod, source);
        PROJECTED
    } else {
        let kind = kind_of(volume);
        return Err(format!(
            "no volume plugin matched name: {kind}: this node cannot mount such volumes"
        ));
    };
    publish.volume = what.clone();
    publish.target = target(facts, pod, plugin, name, false);
    let stage = StageVolume { volume: what, ..StageVolume::default() };
    let (plugin, title) = (plugin.to_owned(), name.clone());
    Ok(Mountable { plugin, title, stage, publish, tokens, one_pod: false })
}

fn persistent(
    world: &World,
    pod: &Pod,
    volume: &PodVolume,
    claim: &str,
    facts: &Facts,
) -> Result<Mountable, String> {
    let key = ObjectKey::new(pod.namespace(), claim);
    let processing = |why: String| format!("error processing PVC {key}: {why}");
    let (claim, persistent) = bound(world, &key, volume, pod).map_err(processing)?;
    let spec = persistent.spec.as_ref().ok_or_else(|| "the volume has no spec".to_owned())?;
    let source = volume.persistent_volume_claim.as_ref();
    let mut read_only = source.is_some_and(|it| it.read_only == Some(true));
    let block = persistent_volume::volume_mode(&persistent) == "Block";
    let (mounted, mapped) = uses(pod, &volume.name);
    if (block && mounted) || (!block && mapped) {
        let (mode, field) =
            if block { ("Block", "volumeMounts") } else { ("Filesystem", "volumeDevices") };
        return Err(format!(
            "volume {} has volumeMode {mode}, but is specified in {field}",
            volume.name
        ));
    }
    let title = persistent.name().to_owned();
    let mut what = Volume {
        handle: title.clone(),
        bytes: bytes(persistent_volume::capacity(&persistent)),
        ..Volume::default()
    };
    let mut fs_type = None;
    let (plugin, staging) = if let Some(source) = &spec.csi {
        what.handle.clone_from(&source.volume_handle);
        what.context = source.volume_attributes.clone().unwrap_or_default();
        fs_type.clone_from(&source.fs_type);
        read_only |= source.read_only == Some(true);
        let below = facts.kubelet_dir.join("plugins/kubernetes.io/csi").join(&source.driver);
        (source.driver.as_str(), below.join(digest(&source.volume_handle)).join("globalmount"))
    } else if let Some(source) = &spec.host_path {
        what.context = host_path(&source.path, source.type_.as_deref());
        (HOST_PATH, PathBuf::new())
    } else if let Some(source) = &spec.local {
        what.context = BTreeMap::from([("path".to_owned(), source.path.clone())]);
        fs_type.clone_from(&source.fs_type);
        let below = facts.kubelet_dir.join("plugins/kubernetes.io/local-volume/mounts");
        (LOCAL_VOLUME, below.join(&title))
    } else if let Some(source) = &spec.nfs {
        what.context = nfs(&source.server, &source.path);
        read_only |= source.read_only == Some(true);
        (NFS, PathBuf::new())
    } else {
        let kind = persistent_kind_of(spec);
        return Err(format!(
            "no volume plugin matched name: {kind} (PersistentVolume {title}): this node cannot mount such volumes"
        ));
    };
    if let Some(node) = world.cluster(&facts.node_name)
        && !persistent_volume::is_reachable_from(&persistent, &node)
    {
        return Err("no matching NodeSelectorTerms".to_owned());
    }
    let options = spec.mount_options.clone().unwrap_or_default();
    let one_pod = claims::access_modes(&claim) == ["ReadWriteOncePod"];
    let stage = StageVolume {
        volume: what.clone(),
        staging: staging.clone(),
        block,
        fs_type: fs_type.clone(),
        mount_options: options.clone(),
        ..StageVolume::default()
    };
    let publish = PublishVolume {
        volume: what,
        pod: pod_ref(pod),
        staging: Some(staging),
        target: target(facts, pod, plugin, &title, block),
        read_only,
        block,
        fs_type,
        mount_options: options,
        ..PublishVolume::default()
    };
    let (plugin, tokens) = (plugin.to_owned(), Vec::new());
    Ok(Mountable { plugin, title, stage, publish, tokens, one_pod })
}

/// The claim and its volume, if each names the other.
fn bound(
    world: &World,
    key: &ObjectKey,
    volume: &PodVolume,
    pod: &Pod,
) -> Result<(world::Typed<PersistentVolumeClaim>, world::Typed<PersistentVolume>), String> {
    let claim = world.get::<PersistentVolumeClaim>(key).ok_or_else(|| {
        format!(
            "failed to fetch PVC from API server: persistentvolumeclaims \"{}\" not found",
            key.name
        )
    })?;
    let owned = || {
        let owners = claim.metadata.owner_references.iter().flatten();
        owners.into_iter().any(|it| it.controller == Some(true) && it.uid == pod.uid())
    };
    if volume.ephemeral.is_some() && !owned() {
        return Err(format!(
            "PVC {key} was not created for pod {}/{} (pod is not owner)",
            pod.namespace(),
            pod.name()
        ));
    }
    if claim.is_deleting() && !claim.has_finalizer("kubernetes.io/pvc-protection") {
        return Err("PVC is being deleted".to_owned());
    }
    if claims::phase(&claim) != claims::BOUND {
        return Err("PVC is not bound".to_owned());
    }
    let name = claims::volume_name(&claim);
    if name.is_empty() {
        return Err("PVC has empty pvc.Spec.VolumeName".to_owned());
    }
    let persistent = world.cluster::<PersistentVolume>(name).ok_or_else(|| {
        format!("failed to fetch PV {name} from API server: persistentvolumes \"{name}\" not found")
    })?;
    let holder = claim_ref(&persistent).ok_or_else(|| {
        format!(
            "found PV object {name} but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"
        )
    })?;
    let uid = holder.uid.as_deref().unwrap_or_default();
    if uid != claim.uid() {
        return Err(format!(
            "found PV object {name} but its pv.Spec.ClaimRef.UID {uid} does not point to claim.UID {}",
            claim.uid()
        ));
    }
    Ok((claim, persistent))
}

/// Whether a container mounts the volume, and whether one wants its device.
fn uses(pod: &Pod, volume: &str) -> (bool, bool) {
    let spec = pod.spec.iter();
    let containers: Vec<_> = spec
        .flat_map(|it| it.containers.iter().chain(it.init_containers.iter().flatten()))
        .collect();
    let mounts = containers.iter().flat_map(|it| it.volume_mounts.iter().flatten());
    let devices = containers.iter().flat_map(|it| it.volume_devices.iter().flatten());
    (
        mounts.into_iter().any(|it| it.name == volume),
        devices.into_iter().any(|it| it.name == volume),
    )
}

fn pod_ref(pod: &Pod) -> PodRef {
    let spec = pod.spec.as_ref();
    let security = spec.and_then(|it| it.security_context.as_ref());
    let account = spec.and_then(|it| it.service_account_name.clone());
    let policy = security.and_then(|it| it.fs_group_change_policy.as_deref());
    PodRef {
        namespace: pod.namespace().to_owned(),
        name: pod.name().to_owned(),
        uid: pod.uid().to_owned(),
        service_account: account.unwrap_or_default(),
        fs_group: security.and_then(|it| it.fs_group).and_then(|it| u32::try_from(it).ok()),
        fs_group_change: match policy {
            Some("OnRootMismatch") => FsGroupChange::OnRootMismatch,
            _ => FsGroupChange::Always,
        },
    }
}

/// Where the pod's view of the volume is, as upstream lays it out.
fn target(facts: &Facts, pod: &Pod, plugin: &str, name: &str, block: bool) -> PathBuf {
    let pod_dir = facts.pod_dir(pod.uid());
    let built_in = plugin.strip_prefix("kubernetes.io/");
    let kind = format!("kubernetes.io~{}", built_in.unwrap_or("csi"));
    if block {
        return pod_dir.join("volumeDevices").join(kind).join(name);
    }
    let path = pod_dir.join("volumes").join(kind).join(name);
    if built_in.is_none() { path.join("mount") } else { path }
}

fn host_path(path: &str, kind: Option<&str>) -> BTreeMap<String, String> {
    let kind = kind.unwrap_or_default();
    BTreeMap::from([("path".to_owned(), path.to_owned()), ("type".to_owned(), kind.to_owned())])
}

fn nfs(server: &str, path: &str) -> BTreeMap<String, String> {
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    BTreeMap::from([field("server", server), field("path", path)])
}

fn bytes(amount: Exact) -> u64 {
    u64::try_from(amount.units()).unwrap_or(0)
}

/// A handle may hold any character: as a directory it is its SHA-256.
fn digest(handle: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(handle.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The field of the source that is set, in upstream's name for its plugin, for a message about a kind
/// that no plugin serves.
fn kind_of(volume: &PodVolume) -> &'static str {
    let kinds = [
        (volume.aws_elastic_block_store.is_some(), "kubernetes.io/aws-ebs"),
        (volume.azure_disk.is_some(), "kubernetes.io/azure-disk"),
        (volume.azure_file.is_some(), "kubernetes.io/azure-file"),
        (volume.cephfs.is_some(), "kubernetes.io/cephfs"),
        (volume.cinder.is_some(), "kubernetes.io/cinder"),
        (volume.csi.is_some(), "kubernetes.io/csi"),
        (volume.ephemeral.is_some(), "ephemeral"),
        (volume.fc.is_some(), "kubernetes.io/fc"),
        (volume.flex_volume.is_some(), "kubernetes.io/flexvolume"),
        (volume.flocker.is_some(), "kubernetes.io/flocker"),
        (volume.gce_persistent_disk.is_some(), "kubernetes.io/gce-pd"),
        (volume.git_repo.is_some(), "kubernetes.io/git-repo"),
        (volume.glusterfs.is_some(), "kubernetes.io/glusterfs"),
        (volume.image.is_some(), "kubernetes.io/image"),
        (volume.iscsi.is_some(), "kubernetes.io/iscsi"),
        (volume.nfs.is_some(), "kubernetes.io/nfs"),
        (volume.photon_persistent_disk.is_some(), "kubernetes.io/photon-pd"),
        (volume.portworx_volume.is_some(), "kubernetes.io/portworx-volume"),
        (volume.quobyte.is_some(), "kubernetes.io/quobyte"),
        (volume.rbd.is_some(), "kubernetes.io/rbd"),
        (volume.scale_io.is_some(), "kubernetes.io/scaleio"),
        (volume.storageos.is_some(), "kubernetes.io/storageos"),
        (volume.vsphere_volume.is_some(), "kubernetes.io/vsphere-volume"),
    ];
    set_one(&kinds)
}

/// The same of a PersistentVolume.
fn persistent_kind_of(spec: &PersistentVolumeSpec) -> &'static str {
    let kinds = [
        (spec.aws_elastic_block_store.is_some(), "kubernetes.io/aws-ebs"),
        (spec.azure_disk.is_some(), "kubernetes.io/azure-disk"),
        (spec.azure_file.is_some(), "kubernetes.io/azure-file"),
        (spec.cephfs.is_some(), "kubernetes.io/cephfs"),
        (spec.cinder.is_some(), "kubernetes.io/cinder"),
        (spec.fc.is_some(), "kubernetes.io/fc"),
        (spec.flex_volume.is_some(), "kubernetes.io/flexvolume"),
        (spec.flocker.is_some(), "kubernetes.io/flocker"),
        (spec.gce_persistent_disk.is_some(), "kubernetes.io/gce-pd"),
        (spec.glusterfs.is_some(), "kubernetes.io/glusterfs"),
        (spec.iscsi.is_some(), "kubernetes.io/iscsi"),
        (spec.nfs.is_some(), "kubernetes.io/nfs"),
        (spec.photon_persistent_disk.is_some(), "kubernetes.io/photon-pd"),
        (spec.portworx_volume.is_some(), "kubernetes.io/portworx-volume"),
        (spec.quobyte.is_some(), "kubernetes.io/quobyte"),
        (spec.rbd.is_some(), "kubernetes.io/rbd"),
        (spec.scale_io.is_some(), "kubernetes.io/scaleio"),
        (spec.storageos.is_some(), "kubernetes.io/storageos"),
        (spec.vsphere_volume.is_some(), "kubernetes.io/vsphere-volume"),
    ];
    set_one(&kinds)
}

fn set_one(kinds: &[(bool, &'static str)]) -> &'static str {
    kinds.iter().find(|(set, _)| *set).map_or("unknown", |(_, kind)| kind)
}
