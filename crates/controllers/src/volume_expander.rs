//! Lets volumes of the built-in class grow when their claims ask for more.
//!
//! Upstream: external-resizer `controller.go`, and `pkg/volume/util/resize_util.go` (1.36). Whether a
//! claim may ask at all is the door's to say (its class must allow it). The capacities are written, on
//! both sides in one commit, only after the volume has grown.

use crate::{volume_provisioner::LOCAL, volume_reclaimer::node_of};
use api::{
    Object,
    core::{
        persistent_volume as volumes, persistent_volume_claim as claims, pod,
        v1::{
            PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimCondition,
            PersistentVolumeClaimStatus, Pod,
        },
    },
    meta::{self, Exact, quantity},
    storage::{storage_class::is_expandable, v1::StorageClass},
};
use std::{collections::BTreeMap, time::Duration};
use stdx::Timestamp;
use world::{
    CallFailure, Change, Controller, Event, ObjectKey, Outcome, Place, Plan, Touched, Typed,
    VolumeCall, Watch, World,
};

/// Its keys are claims.
pub struct VolumeExpander;

/// How long until a node that is not there is looked for again. Claims are few, nodes change often.
const NODE_IS_AWAY: Duration = Duration::from_secs(15);

const STORAGE: &str = "storage";
/// The volume is being made larger.
const RESIZING: &str = "Resizing";
/// The volume is larger, its filesystem will be at the next mount.
const PENDING: &str = "FileSystemResizePending";
const CONDITIONS: [&str; 4] = [RESIZING, PENDING, "ControllerResizeError", "NodeResizeError"];

impl Controller for VolumeExpander {
    fn name(&self) -> &'static str {
        "volume-expander"
    }

    fn reporter(&self) -> &'static str {
        "volume_expand"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::of::<PersistentVolumeClaim>(),
            Watch::mapped::<PersistentVolume>(claim_of_volume),
            Watch::mapped::<Pod>(pending_claims_of_pod),
        ]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some((claim, volume)) = growing(world, key) else { return plan };
        let Some(source) = volume.spec.as_ref().and_then(|it| it.csi.as_ref()) else { return plan };
        let Some(node) = node_of(world, &volume) else {
            plan.requeue = Some(NODE_IS_AWAY);
            return plan;
        };
        let bytes = claims::requested(&claim).units().unsigned_abs();
        let mut told = claim.to_owned();
        begin(&mut told, bytes, now);
        if told.status != claim.status {
            plan.write([Change::status(told)]);
            let message = format!("External resizer is resizing volume {}", volume.name());
            plan.event(Event::normal(&*claim, "Resizing", message));
        }
        let call = VolumeCall::Expand {
            plugin: source.driver.clone(),
            volume: ObjectKey::of(&*volume),
            handle: source.volume_handle.clone(),
            bytes,
        };
        plan.call(Place::Node(node), call);
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
        let VolumeCall::Expand { volume: name, handle, bytes, .. } = call else { return plan };
        // The claim may have gone meanwhile, or be another one of its name.
        let Some((claim, volume)) = growing(world, key) else { return plan };
        let source = volume.spec.as_ref().and_then(|it| it.csi.as_ref());
        if volume.name() != &*name.name || source.is_none_or(|it| it.volume_handle != *handle) {
            return plan;
        }
        match result {
            Ok(outcome) if outcome.bytes >= *bytes => {
                grown(world, &claim, &volume, outcome.bytes, &mut plan);
            }
            Ok(outcome) => {
                let why = format!("it has {} bytes, {bytes} were asked for", outcome.bytes);
                failed(&claim, &volume, &why, &mut plan);
            }
            Err(failure) if waits_for_mount(failure) => {
                let mut told = claim.to_owned();
                let message = "Waiting for user to (re-)start a pod to finish file system resize of volume on node.";
                set_condition(&mut told, PENDING, message, now);
                set_progress(&mut told, Some("NodeResizePending"));
                if told.status != claim.status {
                    plan.write([Change::status(told)]);
                    let message = "Require file system resize of volume on node";
                    plan.event(Event::normal(&*claim, "FileSystemResizeRequired", message));
                }
            }
            Err(failure) => {
                let mut told = claim.to_owned();
                let infeasible = (!failure.retry).then_some("ControllerResizeInfeasible");
                set_progress(&mut told, infeasible.or(Some("ControllerResizeInProgress")));
                if told.status != claim.status {
                    plan.write([Change::status(told)]);
                }
                failed(&claim, &volume, &failure.message, &mut plan);
            }
        }
        plan
    }
}

/// The claim that a volume is bound to, if the volume's size changed.
fn claim_of_volume(_world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let volume =
        |row: &Option<std::sync::Arc<world::Row>>| row.as_ref()?.typed::<PersistentVolume>();
    let (old, new) = (volume(&touched.old), volume(&touched.new));
    let size = |it: &Option<Typed<PersistentVolume>>| it.as_ref().map(|it| volumes::capacity(it));
    if size(&old) == size(&new) {
        return Vec::new();
    }
    let held = new.as_deref().and_then(volumes::claim_ref);
    let text = |it: &Option<String>| it.clone().unwrap_or_default();
    held.map(|it| ObjectKey::new(&text(&it.namespace), &text(&it.name))).into_iter().collect()
}

/// A pod that starts or goes has mounted or unmounted what waits for that.
fn pending_claims_of_pod(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let pods = [&touched.old, &touched.new].into_iter().flatten();
    let Some(pod) = pods.last().and_then(|it| it.typed::<Pod>()) else { return Vec::new() };
    let keys = pod::claims(&pod).into_iter().map(|it| ObjectKey::new(pod.namespace(), &it.1));
    let waits = |key: &ObjectKey| {
        world.get::<PersistentVolumeClaim>(key).is_some_and(|it| has_condition(&it, PENDING))
    };
    keys.filter(waits).collect()
}

type Pair = (Typed<PersistentVolumeClaim>, Typed<PersistentVolume>);

/// A bound claim that asks for more than it has, with its volume, if the volume is ours to grow.
fn growing(world: &World, key: &ObjectKey) -> Option<Pair> {
    let claim = world.get::<PersistentVolumeClaim>(key)?;
    let is_bound = claims::phase(&claim) == claims::BOUND && !claim.is_deleting();
    if !is_bound || claims::requested(&claim) <= capacity(&claim)? {
        return None;
    }
    let volume = world.cluster::<PersistentVolume>(claims::volume_name(&claim))?;
    let source = volume.spec.as_ref()?.csi.as_ref()?;
    if source.driver != LOCAL || !volumes::is_bound_to(&volume, &claim) || volume.is_deleting() {
        return None;
    }
    let class = world.cluster::<StorageClass>(claims::class(&claim).unwrap_or_default());
    // A class that is gone had allowed it when the claim asked.
    class.is_none_or(|it| is_expandable(&it)).then_some((claim, volume))
}

/// What the claim has; none before it has something.
fn capacity(claim: &PersistentVolumeClaim) -> Option<Exact> {
    claim.status.as_ref()?.capacity.as_ref()?.get(STORAGE).map(Exact::of)
}

fn begin(claim: &mut PersistentVolumeClaim, bytes: u64, now: Timestamp) {
    let resizing = has_condition(claim, RESIZING) || has_condition(claim, PENDING);
    let is_new =
        status(claim).allocated_resources.as_ref().and_then(|it| it.get(STORAGE)).map(Exact::of)
            != Some(Exact::of(&quantity::binary(bytes)));
    if resizing && !is_new {
        return;
    }
    forget_conditions(claim);
    set_condition(claim, RESIZING, "", now);
    set_progress(claim, Some("ControllerResizeInProgress"));
    let allocated = status(claim).allocated_resources.get_or_insert_default();
    allocated.insert(STORAGE.to_owned(), quantity::binary(bytes));
}

fn grown(
    world: &World,
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
    bytes: u64,
    plan: &mut Plan,
) {
    let size = quantity::binary(bytes);
    let mut larger = volume.clone();
    let spec = larger.spec.get_or_insert_default();
    spec.capacity.get_or_insert_default().insert(STORAGE.to_owned(), size.clone());
    let mut told = claim.clone();
    forget_conditions(&mut told);
    set_progress(&mut told, None);
    let status = status(&mut told);
    status.capacity.get_or_insert_default().insert(STORAGE.to_owned(), size.clone());
    status.allocated_resources.get_or_insert_default().insert(STORAGE.to_owned(), size);
    plan.write([Change::update(larger), Change::status(told)]);
    plan.event(Event::normal(claim, "VolumeResizeSuccessful", "Resize volume succeeded"));
    if claims::volume_mode(claim) == "Block" {
        return;
    }
    // Where a pod has it mounted, its filesystem has grown too.
    let key = ObjectKey::of(claim).to_string();
    let mut users = world.indexed::<Pod>("claim", &key).filter(|it| pod::phase(it) == "Running");
    if let Some(user) = users.next() {
        let message = format!(
            "MountVolume.NodeExpandVolume succeeded for volume {:?} {}",
            volume.name(),
            pod::node_name(&user)
        );
        let reason = "FileSystemResizeSuccessful";
        plan.event(Event::normal(&*user, reason, message.clone()));
        plan.event(Event::normal(claim, reason, message));
    }
}

fn failed(claim: &PersistentVolumeClaim, volume: &PersistentVolume, why: &str, plan: &mut Plan) {
    let message = format!("resize volume {:?} by resizer {LOCAL:?} failed: {why}", volume.name());
    plan.event(Event::warning(claim, "VolumeResizeFailed", message));
}

/// The volume has grown, but its filesystem cannot while it is mounted.
fn waits_for_mount(failure: &CallFailure) -> bool {
    failure.retry && failure.message.contains("will grow at the next mount")
}

fn status(claim: &mut PersistentVolumeClaim) -> &mut PersistentVolumeClaimStatus {
    claim.status.get_or_insert_default()
}

fn set_progress(claim: &mut PersistentVolumeClaim, progress: Option<&str>) {
    status(claim).allocated_resource_statuses =
        progress.map(|it| BTreeMap::from([(STORAGE.to_owned(), it.to_owned())]));
}

fn has_condition(claim: &PersistentVolumeClaim, kind: &str) -> bool {
    let conditions = claim.status.iter().flat_map(|it| it.conditions.iter().flatten());
    conditions.into_iter().any(|it| it.type_ == kind && it.status == "True")
}

fn set_condition(claim: &mut PersistentVolumeClaim, kind: &str, message: &str, now: Timestamp) {
    if has_condition(claim, kind) {
        return;
    }
    status(claim).conditions.get_or_insert_default().push(PersistentVolumeClaimCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        message: (!message.is_empty()).then(|| message.to_owned()),
        last_transition_time: Some(meta::time(now)),
        ..PersistentVolumeClaimCondition::default()
    });
}

fn forget_conditions(claim: &mut PersistentVolumeClaim) {
    let conditions = &mut status(claim).conditions;
    if let Some(all) = conditions {
        all.retain(|it| !CONDITIONS.contains(&it.type_.as_str()));
        if all.is_empty() {
            *conditions = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::world;
    use expect_test::{Expect, expect};

    const YAML: &str = "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: local}
provisioner: local.csi.stanchion.dev
allowVolumeExpansion: true
---
{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {kubernetes.io/hostname: n1}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: c, namespace: default, uid: u-c}
spec: {storageClassName: local, volumeName: v, accessModes: [ReadWriteOnce], resources: {requests: {storage: 2Gi}}}
status: {phase: Bound, capacity: {storage: 1Gi}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: v, uid: u-v}
spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], claimRef: {namespace: default, name: c, uid: u-c}, csi: {driver: local.csi.stanchion.dev, volumeHandle: h}}
status: {phase: Bound}
";
    const POD: &str = "---\n{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: default}, spec: {nodeName: n1, containers: [], volumes: [{name: d, persistentVolumeClaim: {claimName: c}}]}, status: {phase: Running}}\n";

    #[test]
    fn asks_the_volumes_node_and_says_nothing_of_capacity_before() {
        let world = world(YAML);
        let after = check(
            &look(&world),
            &world,
            expect![[r#"
                write
                  status PersistentVolumeClaim default/c
                call at Node("n1"): Expand { plugin: "local.csi.stanchion.dev", volume: ObjectKey { namespace: "", name: "v" }, handle: "h", bytes: 2147483648 }
                event Normal Resizing External resizer is resizing volume v
            "#]],
        );
        assert_eq!(sizes(&after), ("1Gi".to_owned(), "1Gi".to_owned()));
        assert_eq!(conditions(&after), ["Resizing"]);
        let again = look(&after);
        assert_eq!((again.steps.len(), again.events.len()), (1, 0), "told once: {again}");
    }

    #[test]
    fn both_capacities_follow_in_one_commit_once_it_has_grown() {
        let world = started(&[YAML, POD].concat());
        let outcome = Outcome { bytes: 2 << 30, ..Outcome::default() };
        let after = check(
            &back(&world, Ok(outcome)),
            &world,
            expect![[r#"
                write
                  update PersistentVolume v
                  status PersistentVolumeClaim default/c
                event Normal VolumeResizeSuccessful Resize volume succeeded
                event Normal FileSystemResizeSuccessful MountVolume.NodeExpandVolume succeeded for volume "v" n1
                event Normal FileSystemResizeSuccessful MountVolume.NodeExpandVolume succeeded for volume "v" n1
            "#]],
        );
        assert_eq!(sizes(&after), ("2Gi".to_owned(), "2Gi".to_owned()));
        assert!(conditions(&after).is_empty());
        assert!(look(&after).is_empty());
    }

    #[test]
    fn a_filesystem_that_has_to_wait_for_a_mount_is_said_to_wait() {
        let world = started(&[YAML, POD].concat());
        let message = "volume h has 2147483648 bytes; its filesystem will grow at the next mount";
        let failure = CallFailure { retry: true, unknown: false, message: message.to_owned() };
        let after = check(
            &back(&world, Err(failure.clone())),
            &world,
            expect![[r"
                write
                  status PersistentVolumeClaim default/c
                event Normal FileSystemResizeRequired Require file system resize of volume on node
            "]],
        );
        assert_eq!(sizes(&after), ("1Gi".to_owned(), "1Gi".to_owned()));
        assert_eq!(conditions(&after), ["Resizing", "FileSystemResizePending"]);
        assert!(back(&after, Err(failure)).is_empty(), "told once");
        let row = after.row_of::<Pod>(&ObjectKey::new("default", "p")).cloned();
        let kind = api::kind_of::<Pod>().clone();
        let touched = Touched { kind, key: ObjectKey::new("default", "p"), old: row, new: None };
        assert_eq!(pending_claims_of_pod(&after, &touched), [key()], "its end wakes the claim");
    }

    #[test]
    fn a_failure_is_told_and_changes_no_capacity() {
        let world = started(YAML);
        let failure = CallFailure { retry: true, unknown: false, message: "no space".to_owned() };
        let after = check(
            &back(&world, Err(failure)),
            &world,
            expect![[r#"
                event Warning VolumeResizeFailed resize volume "v" by resizer "local.csi.stanchion.dev" failed: no space
            "#]],
        );
        assert_eq!(sizes(&after), ("1Gi".to_owned(), "1Gi".to_owned()));
        let short = Outcome { bytes: 1 << 30, ..Outcome::default() };
        assert_eq!(back(&world, Ok(short)).steps.len(), 0, "less than asked is no success");
    }

    #[test]
    fn leaves_alone_what_need_not_or_may_not_grow() {
        for (from, to) in [
            ("requests: {storage: 2Gi}", "requests: {storage: 1Gi}"),
            ("allowVolumeExpansion: true", "allowVolumeExpansion: false"),
            ("csi: {driver: local.csi.stanchion.dev", "csi: {driver: other"),
            ("uid: u-c}, csi", "uid: other}, csi"),
            ("phase: Bound, capacity: {storage: 1Gi}", "phase: Pending"),
        ] {
            assert!(YAML.contains(from));
            assert!(look(&world(&YAML.replace(from, to))).is_empty(), "{to}");
        }
    }

    fn key() -> ObjectKey {
        ObjectKey::new("default", "c")
    }

    fn look(world: &World) -> Plan {
        VolumeExpander.reconcile(world, &key(), Timestamp(0))
    }

    fn started(yaml: &str) -> World {
        let world = world(yaml);
        world.after(&look(&world), Timestamp(0))
    }

    fn back(world: &World, result: Result<Outcome, CallFailure>) -> Plan {
        let call = look(world).steps.into_iter().find_map(|it| match it {
            world::Step::Call(_, call) => Some(call),
            world::Step::Write(_) => None,
        });
        VolumeExpander.returned(world, &key(), &call.expect("a call"), &result, Timestamp(0))
    }

    /// Of the volume and of the claim.
    fn sizes(world: &World) -> (String, String) {
        let claim = world.get::<PersistentVolumeClaim>(&key()).unwrap();
        let volume = world.cluster::<PersistentVolume>("v").unwrap();
        let of_claim = claim.status.as_ref().unwrap().capacity.as_ref().unwrap()[STORAGE].0.clone();
        (volume.spec.as_ref().unwrap().capacity.as_ref().unwrap()[STORAGE].0.clone(), of_claim)
    }

    fn conditions(world: &World) -> Vec<String> {
        let claim = world.get::<PersistentVolumeClaim>(&key()).unwrap();
        let conditions = claim.status.as_ref().unwrap().conditions.iter().flatten();
        conditions.map(|it| it.type_.clone()).collect()
    }

    #[track_caller]
    fn check(plan: &Plan, world: &World, expected: Expect) -> World {
        expected.assert_eq(&plan.to_string());
        world.after(plan, Timestamp(0))
    }
}
