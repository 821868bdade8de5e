//! A volume's own life: available, bound, released; and what becomes of it when its claim is gone.
//!
//! Upstream: `pv_controller.go` (1.36), syncVolume, reclaimVolume, recycleVolumeOperation,
//! deleteVolumeOperation. Deviations: a hostPath is emptied by a call at the node instead of a pod; events of the pod that
//! empties an NFS volume are not repeated on the volume.

mod recycler;

use crate::volume_provisioner::{LOCAL, NFS, PROVISIONED_BY, PROVISIONER_FINALIZER, nfs_handle};
use api::{
    Object,
    core::{
        binding::BOUND_BY_CONTROLLER,
        persistent_volume as volumes, persistent_volume_claim as claims, pod as pods,
        v1::{
            NFSVolumeSource, Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeStatus,
            Pod,
        },
    },
    meta,
};
use recycler::Look;
use std::time::Duration;
use stdx::Timestamp;
use world::{
    CallFailure, Change, Controller, Event, ObjectKey, Outcome, Place, Plan, Touched, VolumeCall,
    Watch, World,
};

pub struct VolumeReclaimer;

/// A server that is down is not asked again at once.
const RECYCLE_AGAIN: Duration = Duration::from_secs(60);

impl Controller for VolumeReclaimer {
    fn name(&self) -> &'static str {
        "volume-reclaimer"
    }

    fn reporter(&self) -> &'static str {
        "persistentvolume-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::of::<PersistentVolume>(),
            Watch::mapped::<PersistentVolumeClaim>(volumes_of_claim),
            Watch::mapped::<Node>(released_volumes),
            Watch::mapped::<Pod>(recycler::volume_of_pod),
        ]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(volume) = world.get::<PersistentVolume>(key) else { return plan };
        let Some(held) = volumes::claim_ref(&volume) else {
            if volume.is_deleting() {
                reclaim_deleted(world, &volume, now, &mut plan);
            } else {
                set_phase(&volume, volumes::AVAILABLE, None, now, &mut plan);
            }
            return plan;
        };
        let uid = held.uid.as_deref().unwrap_or_default();
        if uid.is_empty() {
            // Reserved for a claim that is not here yet.
            set_phase(&volume, volumes::AVAILABLE, None, now, &mut plan);
            return plan;
        }
        let claim = ObjectKey::new(
            held.namespace.as_deref().unwrap_or_default(),
            held.name.as_deref().unwrap_or_default(),
        );
        let claim = world.get::<PersistentVolumeClaim>(&claim).filter(|it| it.uid() == uid);
        match claim {
            Some(claim) if claims::volume_name(&claim) == volume.name() => {
                set_phase(&volume, volumes::BOUND, None, now, &mut plan);
            }
            // The binder is about to complete it.
            Some(claim) if claims::volume_name(&claim).is_empty() => {}
            Some(_) => give_back(&volume, &mut plan),
            None => released(world, &volume, now, &mut plan),
        }
        plan
    }

    fn returned(
        &self,
        world: &World,
        key: &ObjectKey,
        call: &VolumeCall,
        result: &Result<Outcome, CallFailure>,
        now: Timestamp,
    ) -> Plan {
        let mut plan = Plan::default();
        let Some(volume) = world.get::<PersistentVolume>(key) else { return plan };
        if !is_meant(&volume, call) {
            // Another volume of its name, or in use again.
            return plan;
        }
        match (call, result) {
            (VolumeCall::Delete { .. }, Ok(_)) => forget(&volume, &mut plan),
            (VolumeCall::Scrub { .. }, Ok(_)) => {
                plan.event(Event::normal(&*volume, "VolumeRecycled", "Volume recycled"));
                let mut volume = volume.to_owned();
                release(&mut volume);
                plan.write([Change::both(volume)]);
            }
            (VolumeCall::Delete { .. }, Err(failure)) => {
                failed(&volume, "VolumeFailedDelete", &failure.message, now, &mut plan);
            }
            (VolumeCall::Scrub { .. }, Err(failure)) => {
                let why = format!("Recycle failed: {}", failure.message);
                failed(&volume, "VolumeFailedRecycle", &why, now, &mut plan);
            }
            (VolumeCall::Create { .. } | VolumeCall::Expand { .. }, _) => {}
        }
        plan
    }
}

/// Whether what a call did was done to this volume, and its claim is still gone or it goes itself.
fn is_meant(volume: &PersistentVolume, call: &VolumeCall) -> bool {
    let spec = volume.spec.as_ref();
    let same = match call {
        VolumeCall::Delete { handle, .. } => {
            let csi = spec.and_then(|it| it.csi.as_ref());
            let share = nfs_handle(volume).flatten();
            csi.is_some_and(|it| it.volume_handle == *handle) || share.as_ref() == Some(handle)
        }
        VolumeCall::Scrub { path, .. } => {
            spec.and_then(|it| it.host_path.as_ref()).is_some_and(|it| it.path == *path)
        }
        VolumeCall::Create { .. } | VolumeCall::Expand { .. } => false,
    };
    let phase = volumes::phase(volume);
    same && (volume.is_deleting() || matches!(phase, volumes::RELEASED | volumes::FAILED))
}

fn volumes_of_claim(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let table = world.table::<PersistentVolume>();
    let claim = touched.key.to_string();
    table.into_iter().flat_map(|it| it.indexed("claim", &claim)).map(|it| it.key()).collect()
}

/// A node that comes back may carry out what waits for it.
fn released_volumes(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let ready = |row: &Option<std::sync::Arc<world::Row>>| {
        row.as_ref()
            .and_then(|it| it.typed::<Node>())
            .is_some_and(|it| api::core::node::is_ready(&it))
    };
    if ready(&touched.old) || !ready(&touched.new) {
        return Vec::new();
    }
    let waits = |it: &world::Typed<PersistentVolume>| {
        matches!(volumes::phase(it), volumes::RELEASED | volumes::FAILED)
    };
    world.all::<PersistentVolume>().filter(waits).map(|it| ObjectKey::of(&*it)).collect()
}

/// The claim is gone.
fn released(world: &World, volume: &PersistentVolume, now: Timestamp, plan: &mut Plan) {
    if !matches!(volumes::phase(volume), volumes::RELEASED | volumes::FAILED) {
        set_phase(volume, volumes::RELEASED, None, now, plan);
        return;
    }
    match volumes::reclaim_policy(volume) {
        "Delete" => delete(world, volume, now, plan),
        "Recycle" => recycle(world, volume, now, plan),
        _ => {
            if volume.is_deleting() {
                // Retain: the object may go, the data stays.
                drop_finalizer(volume, plan);
            }
        }
    }
}

fn delete(world: &World, volume: &PersistentVolume, now: Timestamp, plan: &mut Plan) {
    if let Some(handle) = nfs_handle(volume) {
        delete_directory(volume, handle, now, plan);
        return;
    }
    let source = volume.spec.as_ref().and_then(|it| it.csi.as_ref());
    let Some(source) = source.filter(|it| it.driver == LOCAL) else {
        // Somebody else's volume: its provisioner watches for it.
        let by = volume.annotation(PROVISIONED_BY);
        if by.is_none() && volume.spec.as_ref().is_some_and(|it| it.csi.is_none()) {
            let message =
                "Error getting deleter volume plugin for volume: no volume plugin matched";
            cannot_delete(volume, message, now, plan);
        }
        return;
    };
    let Some(node) = node_of(world, volume) else {
        let message = "delete volume: no node is here that its node affinity names";
        cannot_delete(volume, message, now, plan);
        return;
    };
    plan.call(
        Place::Node(node),
        VolumeCall::Delete {
            plugin: source.driver.clone(),
            volume: ObjectKey::of(volume),
            handle: source.volume_handle.clone(),
        },
    );
}

/// A directory of a share, from wherever the share can be mounted.
fn delete_directory(
    volume: &PersistentVolume,
    handle: Option<String>,
    now: Timestamp,
    plan: &mut Plan,
) {
    let Some(handle) = handle else {
        let message = "delete volume: its annotation nfs.stanchion.dev/handle is missing";
        cannot_delete(volume, message, now, plan);
        return;
    };
    let (plugin, volume) = (NFS.to_owned(), ObjectKey::of(volume));
    plan.call(Place::Anywhere, VolumeCall::Delete { plugin, volume, handle });
}

/// A free volume that a user deletes: its data goes first, if its policy says so.
fn reclaim_deleted(world: &World, volume: &PersistentVolume, now: Timestamp, plan: &mut Plan) {
    if !volume.has_finalizer(PROVISIONER_FINALIZER) {
        return;
    }
    match volumes::reclaim_policy(volume) {
        "Delete" => delete(world, volume, now, plan),
        _ => drop_finalizer(volume, plan),
    }
}

fn recycle(world: &World, volume: &PersistentVolume, now: Timestamp, plan: &mut Plan) {
    let spec = volume.spec.as_ref();
    if let Some(source) = spec.and_then(|it| it.nfs.as_ref()) {
        recycle_by_pod(world, volume, source, now, plan);
        return;
    }
    let path = spec.and_then(|it| it.host_path.as_ref()).map(|it| it.path.clone());
    let Some(path) = path else {
        let message = "No recycler plugin found for the volume!";
        failed(volume, "VolumeFailedRecycle", message, now, plan);
        return;
    };
    let Some(node) = node_of(world, volume) else {
        let message = "Recycle failed: it is not known which node used the volume";
        failed(volume, "VolumeFailedRecycle", message, now, plan);
        return;
    };
    plan.call(Place::Node(node), VolumeCall::Scrub { volume: ObjectKey::of(volume), path });
}

/// One pod at a time, and a pause after each that failed.
fn recycle_by_pod(
    world: &World,
    volume: &PersistentVolume,
    source: &NFSVolumeSource,
    now: Timestamp,
    plan: &mut Plan,
) {
    match recycler::look(world, volume, source) {
        Look::Waits => {}
        Look::Stranger(pod) => {
            let message = format!(
                "Pod {} is not the one that empties this volume, and is removed",
                ObjectKey::of(&pod)
            );
            plan.write([Change::delete(&pod)]);
            plan.event(Event::warning(volume, "VolumeFailedRecycle", message));
        }
        Look::Done(pod) => {
            plan.write([Change::delete(&pod)]);
            plan.event(Event::normal(volume, "VolumeRecycled", "Volume recycled"));
            let mut volume = volume.clone();
            release(&mut volume);
            plan.write([Change::both(volume)]);
        }
        Look::Failed(pod, why) => {
            plan.write([Change::delete(&pod)]);
            let why = format!("Recycle failed: failed to recycle volume: {why}");
            failed(volume, "VolumeFailedRecycle", &why, now, plan);
        }
        Look::Absent if volumes::phase(volume) == volumes::FAILED => {
            let status = volume.status.as_ref();
            let since = status.and_then(|it| it.last_phase_transition_time.as_ref());
            let waited = since.map_or(RECYCLE_AGAIN, |it| now.since(meta::timestamp_of(it)));
            if waited < RECYCLE_AGAIN {
                plan.requeue = Some(RECYCLE_AGAIN.saturating_sub(waited));
            } else {
                set_phase(volume, volumes::RELEASED, None, now, plan);
            }
        }
        Look::Absent => {
            let users = users(world, volume);
            if users.is_empty() {
                plan.write([Change::create(recycler::pod(volume, source))]);
            } else {
                let message = format!("Volume is used by pods: {}", users.join(","));
                plan.event(Event::normal(volume, "VolumeFailedRecycle", message));
                plan.requeue = Some(RECYCLE_AGAIN);
            }
        }
    }
}

/// Pods that run and name the claim, which is gone: it may have lost its protection.
fn users(world: &World, volume: &PersistentVolume) -> Vec<String> {
    let Some(held) = volumes::claim_ref(volume) else { return Vec::new() };
    let claim = ObjectKey::new(
        held.namespace.as_deref().unwrap_or_default(),
        held.name.as_deref().unwrap_or_default(),
    );
    if world.get::<PersistentVolumeClaim>(&claim).is_some() {
        // Another claim of its name, with a volume of its own.
        return Vec::new();
    }
    let name = claim.to_string();
    let running = world.indexed::<Pod>("claim", &name).filter(|it| !pods::is_terminal(it));
    running.map(|it| ObjectKey::of(&*it).to_string()).collect()
}

/// The node that the volume is tied to, or the only one there is.
pub(crate) fn node_of(world: &World, volume: &PersistentVolume) -> Option<String> {
    let mut nodes = world.all::<Node>().filter(|it| volumes::is_reachable_from(volume, it));
    let (first, second) = (nodes.next()?, nodes.next());
    second.is_none().then(|| first.name().to_owned())
}

/// The data is gone: now the object may go.
fn forget(volume: &PersistentVolume, plan: &mut Plan) {
    if volume.has_finalizer(PROVISIONER_FINALIZER) {
        drop_finalizer(volume, plan);
    }
    if !volume.is_deleting() {
        plan.write([Change::delete(volume)]);
    }
}

fn drop_finalizer(volume: &PersistentVolume, plan: &mut Plan) {
    if !volume.has_finalizer(PROVISIONER_FINALIZER) {
        return;
    }
    let mut volume = volume.clone();
    let finalizers = volume.metadata.finalizers.get_or_insert_default();
    finalizers.retain(|it| it != PROVISIONER_FINALIZER);
    plan.write([Change::update(volume)]);
}

/// Bound to a claim that took another volume: free again, if the binder had tied it.
fn give_back(volume: &PersistentVolume, plan: &mut Plan) {
    if volume.annotation(BOUND_BY_CONTROLLER).is_none() {
        // A user reserved it: the reservation stays, without the uid.
        let mut volume = volume.clone();
        let held = volume.spec.as_mut().and_then(|it| it.claim_ref.as_mut());
        held.into_iter().for_each(|it| it.uid = None);
        plan.write([Change::update(volume)]);
        return;
    }
    let mut volume = volume.clone();
    release(&mut volume);
    plan.write([Change::both(volume)]);
}

fn release(volume: &mut PersistentVolume) {
    let by_binder = volume.annotation(BOUND_BY_CONTROLLER).is_some();
    let spec = volume.spec.get_or_insert_default();
    match (&mut spec.claim_ref, by_binder) {
        // A reservation by name outlives the claim that used it.
        (Some(held), false) => {
            held.uid = None;
            held.resource_version = None;
        }
        (claim_ref, _) => *claim_ref = None,
    }
    let annotations = volume.metadata.annotations.get_or_insert_default();
    annotations.remove(BOUND_BY_CONTROLLER);
    volume.status = Some(PersistentVolumeStatus {
        phase: Some(volumes::AVAILABLE.to_owned()),
        ..PersistentVolumeStatus::default()
    });
}

/// There is nothing to try; said once.
fn cannot_delete(volume: &PersistentVolume, message: &str, now: Timestamp, plan: &mut Plan) {
    let status = volume.status.as_ref();
    let is_told = status.and_then(|it| it.message.as_deref()) == Some(message);
    if !is_told || volumes::phase(volume) != volumes::FAILED {
        failed(volume, "VolumeFailedDelete", message, now, plan);
    }
}

fn failed(
    volume: &PersistentVolume,
    reason: &'static str,
    message: &str,
    now: Timestamp,
    plan: &mut Plan,
) {
    set_phase(volume, volumes::FAILED, Some((reason, message)), now, plan);
    plan.event(Event::warning(volume, reason, message));
}

/// Plans a phase, if it or its reason is another one.
fn set_phase(
    volume: &PersistentVolume,
    phase: &str,
    why: Option<(&str, &str)>,
    now: Timestamp,
    plan: &mut Plan,
) {
    let old = volume.status.clone().unwrap_or_default();
    let wanted = PersistentVolumeStatus {
        phase: Some(phase.to_owned()),
        reason: why.map(|(reason, _)| reason.to_owned()),
        message: why.map(|(_, message)| message.to_owned()),
        last_phase_transition_time: match old.phase.as_deref() == Some(phase) {
            true => old.last_phase_transition_time.clone(),
            false => Some(meta::time(now)),
        },
    };
    if wanted != old {
        let mut volume = volume.clone();
        volume.status = Some(wanted);
        plan.status = Some(Change::status(volume));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::world;

    const NODE: &str = "---\napiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {kubernetes.io/hostname: n1}}\n";

    fn volume(policy: &str, source: &str, phase: &str) -> String {
        format!(
            "{NODE}---\napiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: v, uid: v, finalizers: [{PROVISIONER_FINALIZER}], annotations: {{pv.kubernetes.io/bound-by-controller: 'yes'}}}}\nspec: {{capacity: {{storage: 1Gi}}, accessModes: [ReadWriteOnce], persistentVolumeReclaimPolicy: {policy}, claimRef: {{namespace: default, name: c, uid: u-c}}, {source}}}\nstatus: {{phase: {phase}}}\n"
        )
    }

    fn decide(world: &World) -> Plan {
        VolumeReclaimer.reconcile(world, &ObjectKey::cluster("v"), Timestamp(0))
    }

    const CSI: &str = "csi: {driver: local.csi.stanchion.dev, volumeHandle: h}";
    const HOST_PATH: &str = "hostPath: {path: /test-volume}";

    fn phase_after(world: &World, plan: &Plan) -> String {
        let world = world.after(plan, Timestamp(0));
        volumes::phase(&world.cluster::<PersistentVolume>("v").unwrap()).to_owned()
    }

    #[test]
    fn is_released_when_its_claim_is_gone_and_retained_by_policy() {
        let world = world(&volume("Retain", HOST_PATH, "Bound"));
        let plan = decide(&world);
        assert_eq!(phase_after(&world, &plan), "Released");
        let world = world.after(&plan, Timestamp(0));
        assert!(decide(&world).is_empty(), "kept");
    }

    #[test]
    fn deletes_the_data_before_the_object() {
        let released = world(&volume("Delete", CSI, "Released"));
        let plan = decide(&released);
        let [world::Step::Call(Place::Node(node), call)] = plan.steps.as_slice() else {
            panic!("{plan}")
        };
        assert_eq!(node, "n1");
        let failure = CallFailure { retry: true, unknown: false, message: "in use".to_owned() };
        let key = ObjectKey::cluster("v");
        let no = VolumeReclaimer.returned(&released, &key, call, &Err(failure), Timestamp(0));
        assert_eq!(phase_after(&released, &no), "Failed");
        let done = Ok(Outcome::default());
        let yes = |world: &World| VolumeReclaimer.returned(world, &key, call, &done, Timestamp(0));
        let gone = released.after(&yes(&released), Timestamp(0));
        assert!(gone.cluster::<PersistentVolume>("v").is_none());
        // Meanwhile it was made anew, or taken by another claim.
        let other = CSI.replace("volumeHandle: h", "volumeHandle: other");
        assert!(yes(&world(&volume("Delete", &other, "Released"))).is_empty());
        assert!(yes(&world(&volume("Delete", CSI, "Bound"))).is_empty());
    }

    #[test]
    fn what_cannot_be_deleted_says_so_and_why() {
        let released = world(&volume("Delete", HOST_PATH, "Released"));
        let plan = decide(&released);
        assert_eq!(plan.events.len(), 1);
        let world = released.after(&plan, Timestamp(0));
        let volume = world.cluster::<PersistentVolume>("v").unwrap().to_owned();
        let status = volume.status.clone().unwrap();
        assert_eq!(status.phase.as_deref(), Some("Failed"));
        assert_eq!(status.reason.as_deref(), Some("VolumeFailedDelete"));
        let why = "Error getting deleter volume plugin for volume: no volume plugin matched";
        assert_eq!(status.message.as_deref(), Some(why));
        assert!(decide(&world).is_empty(), "said once");
    }

    #[test]
    fn recycles_a_directory_and_is_available_again() {
        let world = world(&volume("Recycle", HOST_PATH, "Released"));
        let plan = decide(&world);
        let [world::Step::Call(_, call)] = plan.steps.as_slice() else { panic!("{plan}") };
        let key = ObjectKey::cluster("v");
        let done =
            VolumeReclaimer.returned(&world, &key, call, &Ok(Outcome::default()), Timestamp(0));
        let world = world.after(&done, Timestamp(0));
        let volume = world.cluster::<PersistentVolume>("v").unwrap();
        assert_eq!(volumes::phase(&volume), "Available");
        assert!(volumes::claim_ref(&volume).is_none());
    }

    #[test]
    fn a_namesake_of_the_claim_does_not_keep_it_bound() {
        let claim = "---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: c, namespace: default, uid: u-other}\nspec: {volumeName: v}\n";
        let world = world(&(volume("Retain", HOST_PATH, "Bound") + claim));
        assert_eq!(phase_after(&world, &decide(&world)), "Released");
    }

    #[test]
    fn a_directory_of_a_share_goes_by_its_handle() {
        let text = volume("Delete", "nfs: {server: s, path: /nfs/d}", "Released");
        let ours = "annotations: {pv.kubernetes.io/provisioned-by: nfs.stanchion.dev, nfs.stanchion.dev/handle: h, ";
        let plan = decide(&world(&text.replace("annotations: {", ours)));
        let [world::Step::Call(Place::Anywhere, VolumeCall::Delete { plugin, handle, .. })] =
            plan.steps.as_slice()
        else {
            panic!("{plan}")
        };
        assert_eq!((&**plugin, &**handle), (NFS, "h"));
        let ours = ours.replace("nfs.stanchion.dev/handle: h, ", "");
        let plan = decide(&world(&text.replace("annotations: {", &ours)));
        assert!(plan.steps.is_empty() && plan.events[0].message.contains("is missing"), "{plan}");
    }

    const SHARE: &str = "nfs: {server: s, path: /data/nfs}";

    fn run(world: &World, plan: &Plan, phase: &str) -> World {
        let mut world = world.after(plan, Timestamp(0));
        let pod = world.get::<Pod>(&recycler::key("v")).unwrap();
        let mut pod = pod.to_owned();
        pod.status.get_or_insert_default().phase = Some(phase.to_owned());
        world.apply(&Change::status(pod), Timestamp(0));
        world
    }

    #[test]
    fn a_pod_empties_an_nfs_volume_once() {
        let released = world(&volume("Recycle", SHARE, "Released"));
        let plan = decide(&released);
        let world = run(&released, &plan, "Running");
        let pod = world.get::<Pod>(&recycler::key("v")).unwrap();
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!(spec.active_deadline_seconds, Some(300));
        assert_eq!(spec.volumes.as_ref().unwrap()[0].nfs.as_ref().unwrap().path, "/data/nfs");
        assert!(decide(&world).is_empty(), "it runs");
        let world = run(&released, &plan, "Succeeded");
        let plan = decide(&world);
        assert!(plan.to_string().contains("VolumeRecycled"), "{plan}");
        let world = world.after(&plan, Timestamp(0));
        let volume = world.cluster::<PersistentVolume>("v").unwrap();
        assert_eq!(volumes::phase(&volume), "Available");
        assert!(volumes::claim_ref(&volume).is_none());
    }

    #[test]
    fn a_pod_that_only_bears_the_name_does_not_make_the_volume_free() {
        let released = world(&volume("Recycle", SHARE, "Released"));
        let made = released.after(&decide(&released), Timestamp(0));
        let made = made.get::<Pod>(&recycler::key("v")).unwrap().to_owned();
        let forge = |change: &dyn Fn(&mut Pod)| {
            let mut pod = made.clone();
            pod.status.get_or_insert_default().phase = Some("Succeeded".to_owned());
            change(&mut pod);
            let mut world = released.clone();
            world.apply(&Change::create_with_status(pod), Timestamp(0));
            decide(&world).to_string()
        };
        let spec = |pod: &mut Pod| pod.spec.clone().unwrap();
        assert!(forge(&|_| ()).contains("VolumeRecycled"));
        let command: &dyn Fn(&mut Pod) = &|it| {
            it.spec.as_mut().unwrap().containers[0].args = Some(vec!["true".to_owned()]);
        };
        let share: &dyn Fn(&mut Pod) = &|it| {
            let mut other = spec(it);
            other.volumes.as_mut().unwrap()[0].nfs.as_mut().unwrap().path = "/other".to_owned();
            it.spec = Some(other);
        };
        let part: &dyn Fn(&mut Pod) = &|it| {
            let mounts = it.spec.as_mut().unwrap().containers[0].volume_mounts.as_mut();
            mounts.unwrap()[0].sub_path = Some("empty".to_owned());
        };
        let first: &dyn Fn(&mut Pod) = &|it| {
            let mut spec = spec(it);
            spec.init_containers = Some(spec.containers.clone());
            it.spec = Some(spec);
        };
        let namesake: &dyn Fn(&mut Pod) = &|it| it.metadata.owner_references = None;
        for change in [command, share, part, first, namesake] {
            let plan = forge(change);
            assert!(!plan.contains("VolumeRecycled") && plan.contains("is removed"), "{plan}");
        }
    }

    #[test]
    fn a_pod_that_fails_is_told_and_tried_again_after_a_pause() {
        let released = world(&volume("Recycle", SHARE, "Released"));
        let world = run(&released, &decide(&released), "Failed");
        let plan = decide(&world);
        assert_eq!(
            plan.events[0].message,
            "Recycle failed: failed to recycle volume: pod failed, pod.Status.Message unknown"
        );
        let mut world = world.after(&plan, Timestamp(0));
        if let Some(pod) = world.get::<Pod>(&recycler::key("v")) {
            let pod = pod.to_owned();
            world.apply(&Change::delete_now(&pod), Timestamp(0));
        }
        let plan = decide(&world);
        assert!(plan.steps.is_empty() && plan.requeue == Some(RECYCLE_AGAIN), "{plan}");
        let key = ObjectKey::cluster("v");
        let later = Timestamp(0).plus(RECYCLE_AGAIN);
        let plan = VolumeReclaimer.reconcile(&world, &key, later);
        assert_eq!(phase_after(&world, &plan), "Released");
    }

    #[test]
    fn a_volume_that_a_pod_still_uses_is_not_emptied() {
        let pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: default}\nspec: {containers: [], volumes: [{name: d, persistentVolumeClaim: {claimName: c}}]}\nstatus: {phase: Running}\n";
        let plan = decide(&world(&(volume("Recycle", SHARE, "Released") + pod)));
        assert_eq!(plan.events[0].message, "Volume is used by pods: default/p");
        assert!(plan.steps.is_empty(), "{plan}");
    }
}
