//! Gives claims their volumes: exclusive, one to one, both sides in one commit.
//!
//! Upstream: `pkg/controller/volume/persistentvolume/pv_controller.go` (1.36), syncUnboundClaim and
//! syncBoundClaim; `index.go`, findMatchingVolume. Upstream writes four objects one by one and repairs
//! halves; here there are no halves of our own making, but those of others are completed or named.

use crate::volume_provisioner::{SAY_AGAIN, say_why_none_fits};
use api::{
    Object,
    core::{
        binding::{BIND_COMPLETED, SELECTED_NODE},
        persistent_volume as volumes, persistent_volume_claim as claims,
        v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus, Pod},
    },
    storage::{storage_class as classes, v1::StorageClass},
};
use std::sync::Arc;
use stdx::Timestamp;
use world::{Change, Controller, Event, ObjectKey, Plan, Row, Touched, Typed, Watch, World};

pub struct VolumeBinder;

impl Controller for VolumeBinder {
    fn name(&self) -> &'static str {
        "persistentvolume-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::of::<PersistentVolumeClaim>(),
            Watch::mapped::<PersistentVolume>(claims_by_volume),
            Watch::mapped::<StorageClass>(unbound_claims),
        ]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(claim) = world.get::<PersistentVolumeClaim>(key) else { return plan };
        if claim.annotation(BIND_COMPLETED).is_some() {
            bound(world, &claim, &mut plan);
        } else {
            unbound(world, &claim, &mut plan);
        }
        plan
    }
}

/// A volume wakes the claims that it points at or pointed at, and when it becomes free, or another
/// kind of free, those that wait for its class.
fn claims_by_volume(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let volume = |row: &Option<Arc<Row>>| row.as_deref().and_then(Row::typed::<PersistentVolume>);
    let (old, new) = (volume(&touched.old), volume(&touched.new));
    let mut keys = Vec::new();
    for claim in [&old, &new].into_iter().flatten().filter_map(|it| volumes::claim_ref(it)) {
        keys.push(ObjectKey::new(
            claim.namespace.as_deref().unwrap_or_default(),
            claim.name.as_deref().unwrap_or_default(),
        ));
    }
    if let Some(new) = new.filter(|it| is_free(it) && !old.is_some_and(|old| offers(&old, it))) {
        let waiting = world.table::<PersistentVolumeClaim>();
        let waiting = waiting.map(|it| it.indexed("unbound", volumes::class(&new)));
        keys.extend(waiting.into_iter().flatten().map(|it| it.key()));
    }
    let named = world.table::<PersistentVolumeClaim>();
    let named = named.map(|it| it.indexed("volume", &touched.key.name));
    keys.extend(named.into_iter().flatten().map(|it| it.key()));
    keys
}

fn is_free(volume: &PersistentVolume) -> bool {
    volumes::claim_ref(volume).is_none()
}

/// Whether the volume offered before what it offers now: whoever waits has seen it.
fn offers(old: &PersistentVolume, new: &PersistentVolume) -> bool {
    let open = |it| matches!(volumes::phase(it), "" | volumes::PENDING | volumes::AVAILABLE);
    is_free(old)
        && (open(old) || !open(new))
        && old.spec == new.spec
        && old.metadata.labels == new.metadata.labels
        && old.metadata.annotations == new.metadata.annotations
}

fn unbound_claims(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let waiting = |class: &str| -> Vec<ObjectKey> {
        let table = world.table::<PersistentVolumeClaim>();
        let rows = table.into_iter().flat_map(|it| it.indexed("unbound", class));
        rows.map(|it| it.key()).collect()
    };
    let mut keys = waiting(&touched.key.name);
    // A new default class is for those that named none.
    keys.extend(waiting(""));
    keys
}

fn unbound(world: &World, claim: &PersistentVolumeClaim, plan: &mut Plan) {
    if claim.is_deleting() {
        return;
    }
    match claims::volume_name(claim) {
        "" => choose(world, claim, plan),
        name => wanted(world, claim, name, plan),
    }
    if plan.steps.is_empty() {
        set_phase(claim, "Pending", plan);
    }
}

/// The claim leaves the choice to us.
fn choose(world: &World, claim: &PersistentVolumeClaim, plan: &mut Plan) {
    let class = claims::class(claim);
    let class_object = class.and_then(|it| world.cluster::<StorageClass>(it));
    let waits = class_object.as_ref().is_some_and(|it| classes::waits_for_consumer(it));
    if let Some(volume) = find(world, claim, waits) {
        plan.write(Change::bind(&volume, claim));
        return;
    }
    if class.is_none()
        && let Some(default) = default_class(world)
    {
        let mut claim = claim.clone();
        let spec = claim.spec.get_or_insert_default();
        spec.storage_class_name = Some(default.name().to_owned());
        plan.write([Change::update(claim)]);
        return;
    }
    if waits && claim.annotation(SELECTED_NODE).is_none() {
        let used = unscheduled_pod(world, claim);
        let (reason, message) = match used {
            Some(pod) => ("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
            None => (
                "WaitForFirstConsumer",
                "waiting for first consumer to be created before binding".to_owned(),
            ),
        };
        plan.event(Event::normal(claim, reason, message));
    } else if class.unwrap_or_default().is_empty() {
        let message = "no persistent volumes available for this claim and no storage class is set";
        let mut message = message.to_owned();
        say_why_none_fits(world, claim, &mut message);
        plan.event(Event::normal(claim, "FailedBinding", message));
        plan.requeue = Some(SAY_AGAIN);
    }
    // With a class, the provisioner says what it does about it.
}

/// The pod that uses the claim and has no node yet.
fn unscheduled_pod(world: &World, claim: &PersistentVolumeClaim) -> Option<String> {
    let key = ObjectKey::of(claim).to_string();
    let mut pods = world.indexed::<Pod>("claim", &key);
    let pod = pods.find(|it| !api::core::pod::is_scheduled(it) && !it.is_deleting())?;
    Some(pod.name().to_owned())
}

/// The newest of the default classes.
pub(crate) fn default_class(world: &World) -> Option<Typed<StorageClass>> {
    let defaults = world.all::<StorageClass>().filter(|it| classes::is_default(it));
    let created = |it: &Typed<StorageClass>| {
        let at = it.metadata.creation_timestamp.as_ref().map(api::meta::timestamp_of);
        // Of two that are as old, the first by name.
        (at, std::cmp::Reverse(it.name().to_owned()))
    };
    defaults.max_by_key(created)
}

/// The claim names its volume.
fn wanted(world: &World, claim: &PersistentVolumeClaim, name: &str, plan: &mut Plan) {
    let Some(volume) = world.cluster::<PersistentVolume>(name) else { return };
    match volumes::claim_ref(&volume) {
        None => match volumes::satisfies(&volume, claim) {
            Ok(()) | Err(volumes::Mismatch::Selector) => {
                plan.write(Change::bind(&volume, claim));
            }
            Err(why) => {
                let message = format!("Cannot bind to requested volume {name:?}: {why}");
                plan.event(Event::warning(claim, "VolumeMismatch", message));
            }
        },
        Some(_) if volumes::is_bound_to(&volume, claim) => {
            plan.write(Change::bind(&volume, claim));
        }
        Some(_) => {
            let message = format!("volume {name:?} already bound to a different claim.");
            plan.event(Event::warning(claim, "FailedBinding", message));
        }
    }
}

/// A claim whose binding was complete: is it still?
fn bound(world: &World, claim: &PersistentVolumeClaim, plan: &mut Plan) {
    let lost = |plan: &mut Plan, reason, message: &str| {
        if set_phase(claim, "Lost", plan) {
            plan.event(Event::warning(claim, reason, message));
        }
    };
    let name = claims::volume_name(claim);
    if name.is_empty() {
        let message =
            "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
        return lost(plan, "ClaimLost", message);
    }
    let Some(volume) = world.cluster::<PersistentVolume>(name) else {
        let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
        return lost(plan, "ClaimLost", message);
    };
    let points_here = volumes::claim_ref(&volume)
        .is_none_or(|it| it.uid.as_deref().is_none_or(|uid| uid.is_empty() || uid == claim.uid()));
    if !points_here {
        let message = "Two claims are bound to the same volume, this one is bound incorrectly";
        return lost(plan, "ClaimMisbound", message);
    }
    let changes = Change::bind(&volume, claim);
    if !changes.is_empty() {
        plan.write(changes);
    }
}

/// The volume for a claim: one that is reserved for it, else the one with the fewest access modes,
/// then the smallest, then the oldest. With `waits` only a reserved one: the scheduler chooses.
fn find(
    world: &World,
    claim: &PersistentVolumeClaim,
    waits: bool,
) -> Option<Typed<PersistentVolume>> {
    let key = ObjectKey::of(claim).to_string();
    let reserved = world
        .indexed::<PersistentVolume>("claim", &key)
        .find(|it| volumes::is_bound_to(it, claim) && volumes::satisfies(it, claim).is_ok());
    if reserved.is_some() || waits {
        return reserved;
    }
    world.free_volumes(claim).next()
}

/// Plans a phase, if it is another one.
fn set_phase(claim: &PersistentVolumeClaim, phase: &str, plan: &mut Plan) -> bool {
    if claims::phase(claim) == phase {
        return false;
    }
    let mut claim = claim.clone();
    let status = claim.status.get_or_insert_default();
    *status = PersistentVolumeClaimStatus {
        phase: Some(phase.to_owned()),
        conditions: status.conditions.take(),
        ..PersistentVolumeClaimStatus::default()
    };
    plan.status = Some(Change::status(claim));
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::world;

    fn volume(name: &str, more: &str) -> String {
        format!(
            "---\napiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: {name}, uid: {name}, creationTimestamp: '2026-01-01T00:00:0{}Z'}}\nspec: {{{more}}}\n",
            name.len() % 10
        )
    }

    const CLAIM: &str = "---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: c, namespace: default, uid: u-c}\nspec: {storageClassName: manual, accessModes: [ReadWriteOnce], resources: {requests: {storage: 5Gi}}}\n";

    fn hostpath(size: &str, modes: &str) -> String {
        format!(
            "storageClassName: manual, capacity: {{storage: {size}}}, accessModes: [{modes}], hostPath: {{path: /x}}"
        )
    }

    fn decide(yaml: &str) -> (World, Plan) {
        let world = world(yaml);
        let plan = VolumeBinder.reconcile(&world, &ObjectKey::new("default", "c"), Timestamp(0));
        (world, plan)
    }

    fn chosen(yaml: &str) -> Option<String> {
        let (_, plan) = decide(yaml);
        let volume = plan.changes().find(|it| it.kind.kind == "PersistentVolume")?;
        Some(volume.key.to_string())
    }

    #[test]
    fn takes_the_fewest_modes_then_the_smallest_that_fits() {
        let two = "ReadWriteOnce, ReadOnlyMany";
        let yaml = [
            CLAIM.to_owned(),
            volume("small", &hostpath("4Gi", "ReadWriteOnce")),
            volume("wide", &hostpath("5Gi", two)),
            volume("big", &hostpath("10Gi", "ReadWriteOnce")),
            volume("fits", &hostpath("6Gi", "ReadWriteOnce")),
        ]
        .concat();
        assert_eq!(chosen(&yaml).as_deref(), Some("fits"));
        let only = [CLAIM.to_owned(), volume("small", &hostpath("4Gi", "ReadWriteOnce"))].concat();
        assert_eq!(chosen(&only), None, "one byte too few is too few");
    }

    #[test]
    fn what_one_plan_did_is_done_again_to_a_world_that_moved_on_elsewhere() {
        let fits = volume("v", &hostpath("5Gi", "ReadWriteOnce"));
        let (world, plan) = decide(&[CLAIM.to_owned(), fits].concat());
        let mut ahead = world.clone();
        let touched: Vec<Touched> =
            plan.changes().filter_map(|it| ahead.apply(it, Timestamp(0))).collect();
        assert_eq!(touched.len(), 2);
        let phase = |world: &World| {
            let claim = world.get::<PersistentVolumeClaim>(&ObjectKey::new("default", "c"));
            claims::phase(&claim.unwrap()).to_owned()
        };
        let mut elsewhere = world.clone();
        crate::testing::load(&mut elsewhere, &volume("other", &hostpath("9Gi", "ReadWriteOnce")));
        assert!(touched.iter().all(|it| elsewhere.reapply(it)));
        assert_eq!(phase(&elsewhere), "Bound");
        // The claim is another one now: what was done to the one before it says nothing about it.
        let mut moved = world.clone();
        crate::testing::load(&mut moved, CLAIM);
        let again: Vec<bool> = touched.iter().map(|it| moved.reapply(it)).collect();
        assert_eq!(again, [true, false]);
        assert_ne!(phase(&moved), "Bound");
    }

    #[test]
    fn a_reserved_volume_comes_before_a_better_one() {
        let reserved = format!(
            "{}, claimRef: {{name: c, namespace: default}}",
            hostpath("50Gi", "ReadWriteOnce")
        );
        let yaml = [
            CLAIM.to_owned(),
            volume("fits", &hostpath("5Gi", "ReadWriteOnce")),
            volume("reserved", &reserved),
        ]
        .concat();
        assert_eq!(chosen(&yaml).as_deref(), Some("reserved"));
    }

    #[test]
    fn binds_both_sides_in_one_commit() {
        let yaml = [CLAIM.to_owned(), volume("v", &hostpath("5Gi", "ReadWriteOnce"))].concat();
        let (world, plan) = decide(&yaml);
        assert_eq!(plan.steps.len(), 1, "{plan}");
        let world = world.after(&plan, Timestamp(0));
        let claim = world.get::<PersistentVolumeClaim>(&ObjectKey::new("default", "c")).unwrap();
        let volume = world.cluster::<PersistentVolume>("v").unwrap();
        assert_eq!((claims::phase(&claim), claims::volume_name(&claim)), ("Bound", "v"));
        assert_eq!(volumes::phase(&volume), "Bound");
        assert!(volumes::is_bound_to(&volume, &claim));
        let again = VolumeBinder.reconcile(&world, &ObjectKey::of(&*claim), Timestamp(0));
        assert!(again.is_empty(), "{again}");
    }

    #[test]
    fn a_claim_made_anew_does_not_get_its_namesakes_volume() {
        let held = format!(
            "{}, claimRef: {{name: c, namespace: default, uid: u-before}}",
            hostpath("5Gi", "ReadWriteOnce")
        );
        let yaml = [CLAIM.to_owned(), volume("v", &held)].concat();
        assert_eq!(chosen(&yaml), None);
    }

    #[test]
    fn a_free_volume_wakes_all_who_wait_and_a_taken_one_only_its_own() {
        let waiting = CLAIM.replace("name: c", "name: w").replace("u-c", "u-w");
        let yaml = [CLAIM, &waiting, &volume("v", &hostpath("5Gi", "ReadWriteOnce"))].concat();
        let (world, plan) = decide(&yaml);
        let row =
            |world: &World| world.row_of::<PersistentVolume>(&ObjectKey::cluster("v")).cloned();
        let woken = |world: &World, old, new| -> Vec<String> {
            let (kind, key) = (api::kind_of::<PersistentVolume>().clone(), ObjectKey::cluster("v"));
            let keys = claims_by_volume(world, &Touched { kind, key, old, new });
            keys.iter().map(ToString::to_string).collect()
        };
        let free = row(&world);
        assert_eq!(woken(&world, None, free.clone()), ["default/c", "default/w"]);
        assert!(woken(&world, free.clone(), free.clone()).is_empty(), "they have seen it");
        let bound = world.after(&plan, Timestamp(0));
        let taken = row(&bound);
        let mine = woken(&bound, free.clone(), taken.clone());
        assert!(!mine.is_empty() && mine.iter().all(|it| it == "default/c"), "{mine:?}");
        let back = woken(&world, taken, free);
        assert!(back.contains(&"default/w".to_owned()), "{back:?}");
    }

    #[test]
    fn a_lost_volume_is_said_to_be_lost() {
        let claim = CLAIM
            .replace(
                "uid: u-c}",
                "uid: u-c, annotations: {pv.kubernetes.io/bind-completed: 'yes'}}",
            )
            .replace("spec: {", "spec: {volumeName: gone, ");
        let (world, plan) = decide(&claim);
        assert!(plan.to_string().contains("ClaimLost"), "{plan}");
        let world = world.after(&plan, Timestamp(0));
        let claim = world.get::<PersistentVolumeClaim>(&ObjectKey::new("default", "c")).unwrap();
        assert_eq!(claims::phase(&claim), "Lost");
    }
}
