//! The ReplicaSets of a Deployment: the one of its template, and those of earlier ones.
//!
//! Upstream: `pkg/controller/deployment/sync.go` (getNewReplicaSet), `util/deployment_util.go`.

use super::Look;
use crate::owner;
use api::{
    Object,
    apps::{
        deployment::{
            DESIRED_REPLICAS, MAX_REPLICAS, REVISION, REVISION_HISTORY, fenceposts,
            replica_set_name, replicas,
        },
        replica_set,
        template::{TEMPLATE_HASH_LABEL, hash_of, same_pods},
        v1::{Deployment, ReplicaSet, ReplicaSetSpec},
    },
    core::v1::PodTemplateSpec,
    meta::ObjectMeta,
};
use std::collections::BTreeMap;
use world::{Change, Event, ObjectKey, World};

/// On what kubectl applied: not for the ReplicaSets, which nobody applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// So many letters of earlier revisions are remembered: a hundred of them.
const HISTORY_LENGTH: usize = 2000;

pub(super) struct Sets {
    /// That of the Deployment's template.
    pub(super) latest: Option<ReplicaSet>,
    /// All others, the oldest first.
    pub(super) old: Vec<ReplicaSet>,
}

impl Sets {
    pub(super) fn of(world: &World, deployment: &Deployment) -> Sets {
        let mut old: Vec<ReplicaSet> =
            world.owned::<ReplicaSet>(deployment.uid()).map(|it| it.to_owned()).collect();
        sort_by_age(&mut old);
        let template = deployment.spec.as_ref().map(|it| &it.template);
        let empty = PodTemplateSpec::default();
        let is_latest = |set: &ReplicaSet| {
            let own = set.spec.as_ref().and_then(|it| it.template.as_ref());
            same_pods(own.unwrap_or(&empty), template.unwrap_or(&empty))
        };
        let latest = old.iter().position(is_latest).map(|it| old.remove(it));
        Sets { latest, old }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(&self.latest)
    }

    /// Pods that all of them want.
    pub(super) fn wanted(&self) -> i32 {
        self.all().map(replica_set::replicas).sum()
    }

    pub(super) fn available(&self) -> i32 {
        self.all().map(available).sum()
    }
}

pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|it| it.available_replicas).unwrap_or(0)
}

pub(super) fn is_active(set: &ReplicaSet) -> bool {
    replica_set::replicas(set) > 0
}

pub(super) fn revision(set: &ReplicaSet) -> i64 {
    set.annotation(REVISION).and_then(|it| it.parse().ok()).unwrap_or(0)
}

fn sort_by_age(sets: &mut [ReplicaSet]) {
    sets.sort_by(|a, b| {
        let created = |it: &ReplicaSet| it.metadata.creation_timestamp.as_ref().map(|it| it.0);
        (created(a), a.name()).cmp(&(created(b), b.name()))
    });
}

impl Look<'_> {
    /// The latest ReplicaSet has the Deployment's annotations and the highest revision; the Deployment
    /// says which that is.
    pub(super) fn keep_latest_up_to_date(&mut self) {
        let next = self.sets.old.iter().map(revision).max().unwrap_or(0) + 1;
        let Some(latest) = &self.sets.latest else { return };
        let mut set = latest.clone();
        annotate(&self.deployment, &mut set, next);
        let seconds = self.deployment.spec.as_ref().and_then(|it| it.min_ready_seconds);
        set.spec.get_or_insert_default().min_ready_seconds = seconds;
        if set != *latest {
            self.plan.write([Change::update(set.clone())]);
        }
        if let Some(revision) = set.annotation(REVISION).map(str::to_owned) {
            set_annotation(&mut self.deployment.metadata, REVISION, revision);
        }
        super::status::note_found(&mut self.deployment, set.name(), self.now);
        self.sets.latest = Some(set);
    }

    /// Makes the ReplicaSet of the template, if there is none.
    pub(super) fn make_latest(&mut self) {
        if self.sets.latest.is_some() || self.namespace_is_leaving() {
            return;
        }
        let next = self.sets.old.iter().map(revision).max().unwrap_or(0) + 1;
        let collisions =
            self.deployment.status.as_ref().and_then(|it| it.collision_count).unwrap_or(0);
        let mut set = new_set(&self.deployment, collisions);
        if self.world.row_of::<ReplicaSet>(&ObjectKey::of(&set)).is_some() {
            // Somebody else has the name: the next look tries another one.
            let status = self.deployment.status.get_or_insert_default();
            status.collision_count = Some(collisions + 1);
            return;
        }
        annotate(&self.deployment, &mut set, next);
        let count = self.room_for_latest(0);
        set.spec.get_or_insert_default().replicas = Some(count);
        set_scale_annotations(&self.deployment, &mut set);
        let name = set.name().to_owned();
        self.plan.write([Change::create(set.clone())]);
        if count > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {count}");
            self.plan.event(Event::normal(&self.deployment, "ScalingReplicaSet", message));
        }
        set_annotation(&mut self.deployment.metadata, REVISION, next.to_string());
        super::status::note_created(&mut self.deployment, &name, self.now);
        self.sets.latest = Some(set);
    }

    /// Drops the oldest of those that have no pods, beyond the limit.
    pub(super) fn forget_old(&mut self) {
        let limit = self.deployment.spec.as_ref().and_then(|it| it.revision_history_limit);
        let Some(Ok(limit)) = limit.map(usize::try_from) else { return };
        let mut sets: Vec<&ReplicaSet> =
            self.sets.old.iter().filter(|it| !it.is_deleting()).collect();
        sets.sort_by_key(|it| revision(it));
        let surplus = sets.len().saturating_sub(limit);
        for set in sets.into_iter().take(surplus) {
            let status = set.status.clone().unwrap_or_default();
            let is_seen = status.observed_generation >= set.metadata.generation;
            if status.replicas == 0 && !is_active(set) && is_seen {
                self.plan.write([Change::delete(set)]);
            }
        }
    }
}

fn new_set(deployment: &Deployment, collisions: i32) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let hash = hash_of(&spec.template, collisions);
    let label = |labels: &mut BTreeMap<String, String>| {
        labels.insert(TEMPLATE_HASH_LABEL.to_owned(), hash.clone());
    };
    let mut template = spec.template;
    let meta = template.metadata.get_or_insert_default();
    label(meta.labels.get_or_insert_default());
    let labels = meta.labels.clone();
    let mut selector = spec.selector;
    label(selector.match_labels.get_or_insert_default());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(replica_set_name(deployment, &hash)),
            namespace: deployment.metadata.namespace.clone(),
            labels,
            owner_references: Some(vec![owner(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// The Deployment's annotations, and a revision that is not behind `next`. A ReplicaSet that was the
/// latest before remembers when.
fn annotate(deployment: &Deployment, set: &mut ReplicaSet, next: i64) {
    let own = [LAST_APPLIED, REVISION, REVISION_HISTORY, DESIRED_REPLICAS, MAX_REPLICAS];
    let others = deployment.metadata.annotations.iter().flatten();
    for (key, value) in others.filter(|(key, _)| !own.contains(&key.as_str())) {
        set_annotation(&mut set.metadata, key, value.clone());
    }
    let before = set.annotation(REVISION).map(str::to_owned);
    if revision(set) >= next {
        return;
    }
    set_annotation(&mut set.metadata, REVISION, next.to_string());
    let Some(before) = before else { return };
    let history = set.annotation(REVISION_HISTORY).unwrap_or_default().to_owned();
    let mut places: Vec<&str> = history.split(',').filter(|it| !it.is_empty()).collect();
    places.push(&before);
    while places.join(",").len() > HISTORY_LENGTH {
        places.remove(0);
    }
    set_annotation(&mut set.metadata, REVISION_HISTORY, places.join(","));
}

/// How many pods the Deployment wants, for the next time that it is scaled. Says whether that is news.
pub(super) fn set_scale_annotations(deployment: &Deployment, set: &mut ReplicaSet) {
    let wanted = replicas(deployment);
    let most = wanted + fenceposts(deployment).0;
    set_annotation(&mut set.metadata, DESIRED_REPLICAS, wanted.to_string());
    set_annotation(&mut set.metadata, MAX_REPLICAS, most.to_string());
}

fn set_annotation(meta: &mut ObjectMeta, key: &str, value: String) {
    meta.annotations.get_or_insert_default().insert(key.to_owned(), value);
}
