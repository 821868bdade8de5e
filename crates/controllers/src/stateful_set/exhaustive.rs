//! Every state that a set of up to five replicas can get into: pods become ready, fail, are deleted and
//! go; users scale, change the template and delete claims; plans are carried out whole, in part, or after
//! the world has moved on. In none of these states is an identity there twice, a pod without its claim,
//! or a claim on its way out that the policy keeps; and from each of them the set gets where it should.

use super::*;
use crate::testing::world;
use std::collections::{BTreeMap, HashSet, VecDeque};
use world::{Expected, Step};

const SET: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web, namespace: default, uid: u1}
spec:
  replicas: 0
  podManagementPolicy: MANAGEMENT
  persistentVolumeClaimRetentionPolicy: {whenScaled: SCALED, whenDeleted: DELETED}
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: db, image: '1'}]}}
  volumeClaimTemplates: [{metadata: {name: data}, spec: {}}]
";
const NOW: Timestamp = Timestamp(0);

/// What may happen besides plans.
#[derive(Clone, Copy)]
struct Space {
    management: &'static str,
    scaled: &'static str,
    deleted: &'static str,
    /// The sizes that users choose from.
    sizes: &'static [i32],
    /// Whether they change the template, once.
    updates: bool,
    /// Whether pods fail.
    fails: bool,
    /// Whether users delete claims, and the set.
    deletes: bool,
    /// Whether plans are also carried out after something else happened.
    stale: bool,
}

const PLAIN: Space = Space {
    management: "OrderedReady",
    scaled: "Retain",
    deleted: "Retain",
    sizes: &[0, 3, 5],
    updates: false,
    fails: false,
    deletes: false,
    stale: false,
};

#[test]
fn five_replicas_one_after_the_other() {
    explore(PLAIN);
    explore(Space { fails: true, sizes: &[0, 1, 2, 3], ..PLAIN });
}

#[test]
fn five_replicas_all_at_once() {
    explore(Space { management: "Parallel", sizes: &[0, 5], ..PLAIN });
}

#[test]
fn an_update_of_the_template() {
    explore(Space { updates: true, fails: true, stale: true, sizes: &[0, 1, 2], ..PLAIN });
    explore(Space { management: "Parallel", updates: true, stale: true, sizes: &[0, 2], ..PLAIN });
}

#[test]
fn the_four_cells_of_the_retention_policy() {
    for scaled in ["Retain", "Delete"] {
        for deleted in ["Retain", "Delete"] {
            let sizes = &[0, 1, 2];
            explore(Space { scaled, deleted, deletes: true, stale: true, sizes, ..PLAIN });
        }
    }
}

fn explore(space: Space) {
    let set = SET.replace("MANAGEMENT", space.management);
    let set = set.replace("SCALED", space.scaled).replace("DELETED", space.deleted);
    let start = world(&set);
    let mut seen = HashSet::from([name(&start)]);
    let mut open = VecDeque::from([start]);
    while let Some(world) = open.pop_front() {
        for next in successors(&space, &world) {
            if seen.insert(name(&next)) {
                open.push_back(next);
            }
        }
        assert!(seen.len() < 200_000, "more states than anybody thought of");
    }
    println!("{} states with {} and {}", seen.len(), space.management, space.scaled);
    assert!(seen.len() > 100, "hardly anything happened: {}", seen.len());
}

/// The worlds that may come next.
fn successors(space: &Space, world: &World) -> Vec<World> {
    let others = happenings(space, world);
    let Some(set) = set_of(world) else { return others };
    let plan = StatefulSetController.reconcile(world, &key(), NOW);
    judge(world, &set, &plan);
    let mut next = Vec::new();
    for steps in 1..=plan.steps.len() {
        next.push(carried_out(world, &plan, steps));
    }
    next.push(carried_out(world, &plan, usize::MAX));
    if space.stale {
        next.extend(others.iter().map(|it| carried_out(it, &plan, usize::MAX)));
    }
    if others.is_empty() || plan.is_empty() {
        assert_calm(world, &set, &plan);
    }
    next.extend(others);
    next
}

fn key() -> ObjectKey {
    ObjectKey::new("default", "web")
}

fn set_of(world: &World) -> Option<StatefulSet> {
    world.get::<StatefulSet>(&key()).map(|it| it.to_owned())
}

fn pods(world: &World) -> Vec<Pod> {
    world.list::<Pod>("default").map(|it| it.to_owned()).collect()
}

fn claims(world: &World) -> Vec<PersistentVolumeClaim> {
    world.list::<PersistentVolumeClaim>("default").map(|it| it.to_owned()).collect()
}

fn image(spec: Option<&api::core::v1::PodSpec>) -> &str {
    spec.and_then(|it| it.containers[0].image.as_deref()).unwrap_or_default()
}

/// What a plan may never hold, whatever the world.
fn judge(world: &World, set: &StatefulSet, plan: &Plan) {
    let told = || format!("{plan}\nin {}", name(world));
    let size = replicas(set);
    let ordered = !is_parallel(set);
    let mut moved = 0;
    for change in plan.changes() {
        match (&*change.kind.kind, change.verb) {
            ("PersistentVolumeClaim", world::Verb::Delete { .. }) => {
                panic!("a claim is the user's to delete: {}", told());
            }
            ("PersistentVolumeClaim", _) => {
                let claim = change.object::<PersistentVolumeClaim>().expect("it is written");
                let (_, ordinal) =
                    api::apps::stateful_set::set_and_ordinal(claim.name()).expect("one of ours");
                let policy = |it: fn(
                    &api::apps::v1::StatefulSetPersistentVolumeClaimRetentionPolicy,
                ) -> &Option<String>| {
                    let spec = set.spec.as_ref().unwrap();
                    it(spec.persistent_volume_claim_retention_policy.as_ref().unwrap()).as_deref()
                        == Some("Delete")
                };
                for owner in claim.metadata.owner_references.iter().flatten() {
                    let fits = match &*owner.kind {
                        "Pod" => policy(|it| &it.when_scaled) && ordinal >= size,
                        _ => policy(|it| &it.when_deleted),
                    };
                    assert!(fits, "{} would go with {}: {}", claim.name(), owner.kind, told());
                }
            }
            ("Pod", verb @ (world::Verb::Create | world::Verb::Delete { .. })) => {
                moved += 1;
                let row = world.row_of::<Pod>(&change.key);
                let creates = verb == world::Verb::Create;
                assert_eq!(row.is_none(), creates, "{}: {}", change.key, told());
                let ordinal = ordinal_of(set, &change.key.name).expect("one of ours");
                assert!(!creates || ordinal < size, "nobody asked for it: {}", told());
                for before in (0..ordinal).filter(|_| creates && ordered) {
                    let pod =
                        world.get::<Pod>(&ObjectKey::new("default", &format!("web-{before}")));
                    let is_up = pod.is_some_and(|it| is_ready(&it) && !it.is_deleting());
                    assert!(is_up, "web-{before} comes first: {}", told());
                }
            }
            _ => {}
        }
    }
    assert!(!ordered || moved <= 1, "one at a time: {}", told());
}

/// Where nothing more is to do, the set is as it was asked for.
fn assert_calm(world: &World, set: &StatefulSet, plan: &Plan) {
    if !plan.is_empty() || set.is_deleting() {
        return;
    }
    let pods = pods(world);
    let waits = |it: &Pod| !is_ready(it) || it.is_deleting();
    let doomed = claims(world).iter().any(|it| it.is_deleting());
    if pods.iter().any(waits) || doomed {
        return;
    }
    let names: Vec<&str> = pods.iter().map(|it| it.name()).collect();
    let wanted: Vec<String> = (0..replicas(set)).map(|it| format!("web-{it}")).collect();
    assert_eq!(names, wanted, "{}", name(world));
    let image_of_set = image(set.spec.as_ref().unwrap().template.spec.as_ref());
    assert!(pods.iter().all(|it| image(it.spec.as_ref()) == image_of_set), "{}", name(world));
}

/// As the door does it: a commit whose expectations do not hold ends the plan.
fn carried_out(world: &World, plan: &Plan, steps: usize) -> World {
    let mut world = world.clone();
    let mut own = Vec::new();
    let holds = |world: &World, own: &[u64], change: &Change| {
        let row = world.row(&change.kind.resource(), &change.key);
        match &change.expected {
            Expected::Anything => true,
            Expected::Absent => row.is_none(),
            Expected::Uid(uid) => row.is_some_and(|it| it.meta.uid == *uid),
            Expected::Revision(revision) => {
                row.is_some_and(|it| it.revision == *revision || own.contains(&it.revision))
            }
        }
    };
    for step in plan.steps.iter().take(steps) {
        let Step::Write(changes) = step else { continue };
        if !changes.iter().all(|it| holds(&world, &own, it)) {
            return world;
        }
        for change in changes {
            world.apply(change, NOW);
            own.push(world.revision);
        }
        check(&world);
    }
    if let Some(status) = plan.status.as_ref().filter(|_| steps == usize::MAX)
        && holds(&world, &own, status)
    {
        world.apply(status, NOW);
    }
    world
}

/// No pod without its claim. (That no name is there twice is the world's own nature; `judge` sees that
/// no plan asks for it.)
fn check(world: &World) {
    for pod in pods(world) {
        let claim = ObjectKey::new("default", &format!("data-{}", pod.name()));
        let row = world.row_of::<PersistentVolumeClaim>(&claim);
        assert!(row.is_some(), "{} without {claim} in {}", pod.name(), name(world));
    }
}

/// Everything that others may do next: nodes, users, the garbage collector, claim protection.
fn happenings(space: &Space, world: &World) -> Vec<World> {
    let mut next = Vec::new();
    let mut happen = |change: Change| {
        let mut world = world.clone();
        if world.apply(&change, NOW).is_some() {
            check(&world);
            next.push(world);
        }
    };
    for pod in pods(world) {
        if pod.is_deleting() {
            happen(Change::delete_now(&pod));
            continue;
        }
        happen(Change::delete(&pod));
        if !is_terminal(&pod) && !is_ready(&pod) {
            happen(Change::both(with_phase(&pod, "Running", "True")));
        }
        if space.fails && !is_terminal(&pod) {
            happen(Change::both(with_phase(&pod, "Failed", "False")));
        }
    }
    if let Some(set) = set_of(world).filter(|it| !it.is_deleting()) {
        for size in space.sizes.iter().filter(|it| **it != replicas(&set)) {
            let mut set = set.clone();
            set.spec.as_mut().unwrap().replicas = Some(*size);
            happen(Change::update(set));
        }
        let spec = set.spec.as_ref().unwrap().template.spec.as_ref();
        if space.updates && image(spec) == "1" {
            let mut set = set.clone();
            let pods = set.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
            pods.containers[0].image = Some("2".to_owned());
            happen(Change::update(set));
        }
        if space.deletes {
            happen(Change::delete(&set));
        }
    }
    let alive: HashSet<String> = pods(world)
        .iter()
        .map(|it| it.uid().to_owned())
        .chain(set_of(world).map(|it| it.uid().to_owned()))
        .collect();
    for claim in claims(world) {
        let pod = claim.name().strip_prefix("data-").unwrap_or_default();
        let is_used = world.row_of::<Pod>(&ObjectKey::new("default", pod)).is_some();
        let mut owners = claim.metadata.owner_references.iter().flatten().peekable();
        let is_garbage = owners.peek().is_some() && owners.all(|it| !alive.contains(&it.uid));
        if claim.is_deleting() && !is_used {
            let mut free = claim.clone();
            free.metadata.finalizers = None;
            happen(Change::update(free));
        } else if !claim.is_deleting() && (is_garbage || space.deletes) {
            if space.scaled == "Retain" && space.deleted == "Retain" {
                assert!(!is_garbage, "the policy keeps {}", claim.name());
            }
            happen(protected(&claim));
        }
    }
    next
}

/// A deletion that waits for the pods that use the claim.
fn protected(claim: &PersistentVolumeClaim) -> Change {
    let mut claim = claim.clone();
    claim.metadata.finalizers = Some(vec!["kubernetes.io/pvc-protection".to_owned()]);
    claim.metadata.deletion_timestamp = Some(meta::time(NOW));
    Change::both(claim)
}

fn with_phase(pod: &Pod, phase: &str, ready: &str) -> Pod {
    let mut pod = pod.clone();
    pod.spec.as_mut().unwrap().node_name = Some("n1".to_owned());
    pod.status.get_or_insert_default().phase = Some(phase.to_owned());
    api::core::pod::set_condition(&mut pod, "Ready", ready, "", "", NOW);
    pod
}

/// What makes a state another one: everything that a decision may hang on, and no revision or uid.
fn name(world: &World) -> String {
    let mut text = String::new();
    let set = set_of(world);
    let uid = set.as_ref().map(|it| it.uid().to_owned());
    let revisions: BTreeMap<i64, (String, String)> = world
        .list::<ControllerRevision>("default")
        .map(|it| {
            let template = it.data.as_ref().map(|it| &it.0["spec"]["template"]["spec"]);
            let image = template.map(|it| it["containers"][0]["image"].to_string());
            (it.revision, (it.name().to_owned(), image.unwrap_or_default()))
        })
        .collect();
    if let Some(set) = &set {
        let current = set.status.as_ref().and_then(|it| it.current_revision.as_deref());
        let current = revisions.values().find(|(name, _)| Some(name.as_str()) == current);
        let image = image(set.spec.as_ref().unwrap().template.spec.as_ref());
        text += &format!(
            "{}x{image} now {:?} deleting {}",
            replicas(set),
            current.map(|it| &it.1),
            set.is_deleting()
        );
    }
    text += &format!(" of {:?};", revisions.values().map(|it| &it.1).collect::<Vec<_>>());
    let mut pod_uids = BTreeMap::new();
    for pod in pods(world) {
        pod_uids.insert(pod.name().to_owned(), pod.uid().to_owned());
        let owned =
            pod.metadata.owner_references.iter().flatten().any(|it| Some(&it.uid) == uid.as_ref());
        text += &format!(
            " {}:{}{}{}{}{}",
            pod.name(),
            image(pod.spec.as_ref()),
            phase(&pod),
            if is_ready(&pod) { "+" } else { "" },
            if pod.is_deleting() { "-" } else { "" },
            if owned { "" } else { "?" }
        );
    }
    for claim in claims(world) {
        let owners = claim.metadata.owner_references.iter().flatten().map(|it| {
            let now = pod_uids.get(&it.name).filter(|_| it.kind == "Pod").or(uid.as_ref());
            (it.kind.clone(), now == Some(&it.uid))
        });
        let owners: Vec<_> = owners.collect();
        let leaves = if claim.is_deleting() { "-" } else { "" };
        text += &format!(" {}{leaves}{owners:?}", claim.name());
    }
    text
}
