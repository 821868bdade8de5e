//! A world that works against the set, from a seed: pods fail, go and come back, users scale and edit,
//! plans come too late or get only half-way. Whatever happens, no identity is there twice, no pod is
//! without its claims, no claim is lost; and when the world calms down, the set is as it was asked for.

use super::*;
use crate::testing::world;
use std::collections::BTreeMap;
use world::{Expected, Step};

const SET: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web, namespace: default, uid: u1}
spec:
  replicas: 3
  podManagementPolicy: POLICY
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: db, image: db}]}}
  volumeClaimTemplates: [{metadata: {name: a}, spec: {}}, {metadata: {name: b}, spec: {}}]
";
const ROUNDS: usize = 80;
const SEEDS: u64 = 24;
const NOW: Timestamp = Timestamp(0);

#[test]
fn holds_its_promises_against_an_adversary() {
    for seed in 1..=SEEDS {
        let policy = if seed % 2 == 0 { "Parallel" } else { "OrderedReady" };
        let mut run = Run {
            world: world(&SET.replace("POLICY", policy)),
            chance: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            seed,
            pods: BTreeMap::new(),
            claims: BTreeMap::new(),
        };
        for _ in 0..ROUNDS {
            run.round();
        }
        run.calm_down();
    }
}

struct Run {
    world: World,
    chance: u64,
    seed: u64,
    /// Uids by name, as they were after the last change.
    pods: BTreeMap<String, String>,
    claims: BTreeMap<String, String>,
}

impl Run {
    fn round(&mut self) {
        let plan = self.decide();
        if self.draw(3) == 0 {
            // The plan was decided before this.
            self.mischief();
        }
        let steps = match self.draw(4) {
            0 => self.draw(plan.steps.len() + 1),
            _ => usize::MAX,
        };
        self.execute(&plan, steps);
        self.mischief();
    }

    fn decide(&self) -> Plan {
        let key = ObjectKey::new("default", "web");
        let plan = StatefulSetController.reconcile(&self.world, &key, NOW);
        let set = self.set();
        let of_pods = |verb: fn(&Change) -> bool| {
            let changes = plan.changes().filter(|it| it.kind.kind == "Pod" && verb(it));
            changes.map(|it| ordinal_of(&set, &it.key.name).unwrap()).collect::<Vec<_>>()
        };
        let created = of_pods(|it| it.verb == world::Verb::Create);
        let deleted = of_pods(|it| matches!(it.verb, world::Verb::Delete { .. }));
        if !is_parallel(&set) {
            assert!(
                created.len() + deleted.len() <= 1,
                "one at a time, seed {}: {plan}",
                self.seed
            );
            for ordinal in created.into_iter().flat_map(|it| 0..it) {
                let before = self.pod(&format!("web-{ordinal}"));
                let is_up = before.is_some_and(|it| is_ready(&it) && !it.is_deleting());
                assert!(is_up, "web-{ordinal} comes first, seed {}: {plan}", self.seed);
            }
        }
        plan
    }

    /// As the door does it: a commit whose expectations do not hold ends the plan.
    fn execute(&mut self, plan: &Plan, steps: usize) {
        let mut written: BTreeMap<String, u64> = BTreeMap::new();
        for step in plan.steps.iter().take(steps) {
            let Step::Write(changes) = step else { continue };
            if !changes.iter().all(|it| self.holds(it, &written)) {
                return;
            }
            for change in changes {
                self.world.apply(change, NOW);
                written.insert(change.to_string(), self.world.revision);
            }
            self.check();
        }
        if let Some(status) = plan.status.as_ref().filter(|_| steps == usize::MAX)
            && self.holds(status, &written)
        {
            self.world.apply(status, NOW);
        }
    }

    fn holds(&self, change: &Change, written: &BTreeMap<String, u64>) -> bool {
        let row = self.world.row(&change.kind.resource(), &change.key);
        match &change.expected {
            Expected::Anything => true,
            Expected::Absent => row.is_none(),
            Expected::Uid(uid) => row.is_some_and(|it| it.meta.uid == *uid),
            Expected::Revision(revision) => row.is_some_and(|it| {
                it.revision == *revision || written.values().any(|own| *own == it.revision)
            }),
        }
    }

    fn mischief(&mut self) {
        let pods: Vec<Pod> = self.world.list::<Pod>("default").map(|it| it.to_owned()).collect();
        let victim = pods.get(self.draw(pods.len().max(1))).cloned();
        match (self.draw(10), victim) {
            (0, _) => {
                let replicas = i32::try_from(self.draw(6)).unwrap();
                self.edit(|spec| spec.replicas = Some(replicas));
            }
            (1, _) => {
                let image = format!("db:{}", self.draw(3));
                let template = |it: &mut api::apps::v1::StatefulSetSpec| {
                    it.template.spec.as_mut().unwrap().containers[0].image = Some(image);
                };
                self.edit(template);
            }
            (2, Some(pod)) if !is_terminal(&pod) => self.set_phase(pod, "Failed", "False"),
            (3, Some(pod)) if !is_terminal(&pod) => self.set_phase(pod, "Running", "False"),
            (4, Some(pod)) => {
                self.world.apply(&Change::delete(&pod), NOW);
            }
            (5, Some(pod)) => {
                // Somebody takes the pod's labels away, or its owner.
                let mut pod = pod;
                if self.draw(2) == 0 {
                    pod.metadata.owner_references = None;
                } else {
                    pod.metadata.labels = None;
                }
                self.world.apply(&Change::update(pod), NOW);
            }
            (_, Some(pod)) if pod.is_deleting() => {
                self.world.apply(&Change::delete_now(&pod), NOW);
            }
            (_, Some(pod)) if !is_terminal(&pod) => self.set_phase(pod, "Running", "True"),
            (_, _) => {}
        }
        self.check();
    }

    /// Nodes do their work, nobody else does anything: the set becomes what was asked for.
    fn calm_down(&mut self) {
        for _ in 0..200 {
            let plan = self.decide();
            self.execute(&plan, usize::MAX);
            let pods: Vec<Pod> =
                self.world.list::<Pod>("default").map(|it| it.to_owned()).collect();
            let mut worked = false;
            for pod in pods {
                // A pod that lost its labels belongs to nobody and stands in the way until a user goes by.
                let is_foreign = pod.metadata.owner_references.is_none();
                if pod.is_deleting() || is_foreign {
                    self.world.apply(&Change::delete_now(&pod), NOW);
                    worked = true;
                } else if !is_terminal(&pod) && !is_ready(&pod) {
                    self.set_phase(pod, "Running", "True");
                    worked = true;
                }
                self.check();
            }
            if plan.is_empty() && !worked {
                return self.assert_settled();
            }
        }
        panic!("does not settle, seed {}: {}", self.seed, self.decide());
    }

    fn assert_settled(&self) {
        let set = self.set();
        let names: Vec<String> =
            self.world.list::<Pod>("default").map(|it| it.name().to_owned()).collect();
        let wanted: Vec<String> = (0..replicas(&set)).map(|it| format!("web-{it}")).collect();
        assert_eq!(names, wanted, "seed {}", self.seed);
        let status = set.status.as_ref().unwrap();
        assert_eq!(status.current_revision, status.update_revision, "seed {}", self.seed);
        let label = api::apps::stateful_set::REVISION_LABEL;
        for pod in self.world.list::<Pod>("default") {
            assert_eq!(pod.label(label), status.update_revision.as_deref(), "seed {}", self.seed);
        }
        let count = |it: Option<i32>| it.unwrap_or(0);
        assert_eq!(
            (status.replicas, count(status.ready_replicas), count(status.updated_replicas)),
            (replicas(&set), replicas(&set), replicas(&set)),
            "seed {}",
            self.seed
        );
    }

    /// After every single change.
    fn check(&mut self) {
        let uids = |it: world::Typed<Pod>| (it.name().to_owned(), it.uid().to_owned());
        let pods: BTreeMap<_, _> = self.world.list::<Pod>("default").map(uids).collect();
        for (name, uid) in &pods {
            let before = self.pods.get(name);
            assert!(before.is_none_or(|it| it == uid), "{name} twice at once, seed {}", self.seed);
            for template in ["a", "b"] {
                let claim = ObjectKey::new("default", &format!("{template}-{name}"));
                let row = self.world.row_of::<PersistentVolumeClaim>(&claim);
                assert!(row.is_some(), "{name} without {claim}, seed {}", self.seed);
            }
        }
        self.pods = pods;
        let uids =
            |it: world::Typed<PersistentVolumeClaim>| (it.name().to_owned(), it.uid().to_owned());
        let claims: BTreeMap<_, _> =
            self.world.list::<PersistentVolumeClaim>("default").map(uids).collect();
        for (name, uid) in &self.claims {
            assert_eq!(claims.get(name), Some(uid), "{name} was lost, seed {}", self.seed);
        }
        self.claims = claims;
    }

    fn set(&self) -> StatefulSet {
        let key = ObjectKey::new("default", "web");
        self.world.get::<StatefulSet>(&key).unwrap().to_owned()
    }

    fn pod(&self, name: &str) -> Option<Pod> {
        self.world.get::<Pod>(&ObjectKey::new("default", name)).map(|it| it.to_owned())
    }

    fn edit(&mut self, change: impl FnOnce(&mut api::apps::v1::StatefulSetSpec)) {
        let mut set = self.set();
        change(set.spec.as_mut().unwrap());
        self.world.apply(&Change::update(set), NOW);
    }

    fn set_phase(&mut self, mut pod: Pod, phase: &str, ready: &str) {
        pod.spec.as_mut().unwrap().node_name = Some("n1".to_owned());
        pod.status.get_or_insert_default().phase = Some(phase.to_owned());
        api::core::pod::set_condition(&mut pod, "Ready", ready, "", "", NOW);
        self.world.apply(&Change::both(pod), NOW);
    }

    /// Below `end`. Xorshift.
    fn draw(&mut self, end: usize) -> usize {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        usize::try_from(self.chance >> 33).unwrap() % end.max(1)
    }
}
