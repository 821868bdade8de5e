//! Keeps each PodDisruptionBudget's status: how many of its pods are well, and how many may go.
//!
//! Upstream: `pkg/controller/disruption/disruption.go` (1.36). Of the controllers that own pods only
//! those exist whose kind has a scale.

use api::{
    Erased, Object,
    core::{pod, v1::Pod},
    k8s::apimachinery::pkg::util::intstr::IntOrString,
    meta::{Selector, Time, timestamp_of},
    policy::{
        pod_disruption_budget::{self as budgets, SYNC_FAILED},
        v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use stdx::Timestamp;
use world::{Change, Controller, Event, ObjectKey, Plan, Row, Touched, Typed, Watch, World};

/// Its keys are budgets.
pub struct Disruption;

/// A pod whose eviction was allowed must be seen going within this time, else it counts again.
const DELETION_MOST: Duration = Duration::from_secs(120);

impl Controller for Disruption {
    fn name(&self) -> &'static str {
        "disruption-controller"
    }

    fn reporter(&self) -> &'static str {
        "controllermanager"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::of::<PodDisruptionBudget>(),
            Watch::mapped::<Pod>(budgets_of_pod),
            Watch::Any(budgets_of_owner),
        ]
    }

    fn reconcile(&self, world: &World, key: &ObjectKey, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(budget) = world.get::<PodDisruptionBudget>(key) else { return plan };
        let pods: Vec<Typed<Pod>> = pods_of(world, &budget).collect();
        if pods.is_empty() {
            plan.event(Event::normal(&*budget, "NoPods", "No matching pods found"));
        }
        let old = budget.status.clone().unwrap_or_default();
        let status = match expected(world, &budget, &pods, &mut plan) {
            Ok(expected) => counted(&budget, &pods, expected, now, &mut plan),
            Err(why) => {
                let message = format!("Failed to calculate the number of expected pods: {why}");
                plan.event(Event::warning(&*budget, "CalculateExpectedPodCountFailed", message));
                let mut status = old.clone();
                status.disruptions_allowed = Some(0);
                budgets::set_condition(&mut status, "False", SYNC_FAILED, &why, now);
                status
            }
        };
        if status == old {
            // What was told of it was told when it became so.
            plan.events.clear();
        } else {
            let mut written = budget.to_owned();
            written.status = Some(status);
            plan.status = Some(Change::status(written));
        }
        plan
    }
}

fn pods_of(world: &World, budget: &PodDisruptionBudget) -> impl Iterator<Item = Typed<Pod>> {
    let selector = Selector::of(budget.spec.as_ref().and_then(|it| it.selector.as_ref()));
    let rows = world.table::<Pod>().map(|it| it.rows(Some(budget.namespace())));
    let chosen = rows.into_iter().flatten().filter(move |it| selector.matches(&it.meta.labels));
    chosen.filter_map(|it| it.typed())
}

/// Budgets that are about the pod as it is or was.
fn budgets_of_pod(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let rows = [&touched.old, &touched.new];
    let covered = |it: &Typed<PodDisruptionBudget>| {
        rows.iter().any(|row| row.as_ref().is_some_and(|row| budgets::covers(it, &row.meta.labels)))
    };
    let budgets = world.list::<PodDisruptionBudget>(&touched.key.namespace);
    budgets.filter(covered).map(|it| ObjectKey::of(&*it)).collect()
}

/// Budgets of the namespace in which something that owns pods was scaled.
fn budgets_of_owner(world: &World, touched: &Touched) -> Vec<ObjectKey> {
    let scale = |row: &Option<Arc<Row>>| {
        let row = row.as_ref()?;
        row.kind.rules.scale(&*row.object().ok()?).map(|it| it.replicas)
    };
    if !touched.kind.is_namespaced() || touched.kind == *api::kind_of::<Pod>() {
        return Vec::new();
    }
    let mut budgets = world.list::<PodDisruptionBudget>(&touched.key.namespace).peekable();
    if budgets.peek().is_none() || scale(&touched.old) == scale(&touched.new) {
        return Vec::new();
    }
    budgets.map(|it| ObjectKey::of(&*it)).collect()
}

/// How many pods there should be, and how many of them must be well.
fn expected(
    world: &World,
    budget: &PodDisruptionBudget,
    pods: &[Typed<Pod>],
    plan: &mut Plan,
) -> Result<(i32, i32), String> {
    let spec = budgets::spec(budget);
    let not_an_amount = |it: &IntOrString| {
        let text = match it {
            IntOrString::Int(count) => count.to_string(),
            IntOrString::String(text) => text.clone(),
        };
        format!("invalid value for IntOrString: invalid type: strings must be a percentage: {text}")
    };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let total = scale(world, budget, pods, plan)?;
            let most = budgets::scaled(most, total).ok_or_else(|| not_an_amount(most))?;
            Ok((total, total.saturating_sub(most).max(0)))
        }
        (None, Some(IntOrString::Int(least))) => {
            Ok((i32::try_from(pods.len()).unwrap_or(i32::MAX), *least))
        }
        (None, Some(share)) => {
            let total = scale(world, budget, pods, plan)?;
            Ok((total, budgets::scaled(share, total).ok_or_else(|| not_an_amount(share))?))
        }
        (None, None) => Ok((0, 0)),
    }
}

/// How many pods the controllers of these pods want together.
fn scale(
    world: &World,
    budget: &PodDisruptionBudget,
    pods: &[Typed<Pod>],
    plan: &mut Plan,
) -> Result<i32, String> {
    let mut scales: BTreeMap<&str, i32> = BTreeMap::new();
    let mut alone = BTreeSet::new();
    for pod in pods {
        let owners = pod.metadata.owner_references.iter().flatten();
        let Some(owner) = owners.into_iter().find(|it| it.controller == Some(true)) else {
            alone.insert(pod.name());
            continue;
        };
        if scales.contains_key(owner.uid.as_str()) {
            continue;
        }
        let row = named(world, pod.namespace(), &owner.api_version, &owner.kind, &owner.name);
        let row = row.filter(|it| it.meta.uid == owner.uid);
        // A ReplicaSet is as large as the Deployment that it belongs to says.
        let above = row.and_then(|it| it.meta.controller()).and_then(|it| {
            let above = named(world, pod.namespace(), &it.api_version, &it.kind, &it.name);
            above.filter(|row| row.meta.uid == it.uid)
        });
        let scaling = above.or(row).and_then(|it| {
            let object = it.object().ok()?;
            let object: &dyn Erased = &*object;
            it.kind.rules.scale(object)
        });
        match scaling {
            Some(scaling) => {
                let uid = above.map_or(owner.uid.as_str(), |it| &it.meta.uid);
                scales.insert(uid, scaling.replicas);
            }
            None => return Err(format!("found no controllers for pod {:?}", pod.name())),
        }
    }
    if !alone.is_empty() {
        let selector = budgets::spec(budget).selector;
        let message = format!(
            "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.",
            Selector::of(selector.as_ref())
        );
        plan.event(Event::warning(budget, "UnmanagedPods", message));
    }
    Ok(scales.values().fold(0, |sum, it| sum.saturating_add(*it)))
}

fn named<'a>(
    world: &'a World,
    namespace: &str,
    api_version: &str,
    kind: &str,
    name: &str,
) -> Option<&'a Arc<Row>> {
    let group = api_version.split_once('/').map_or("", |it| it.0);
    let table = world.tables().find(|it| it.kind.kind == kind && it.kind.group == group);
    table?.get(&ObjectKey::new(namespace, name))
}

fn counted(
    budget: &PodDisruptionBudget,
    pods: &[Typed<Pod>],
    (expected, wanted): (i32, i32),
    now: Timestamp,
    plan: &mut Plan,
) -> PodDisruptionBudgetStatus {
    let old = budget.status.clone().unwrap_or_default();
    let disrupted = still_expected(&old, budget, pods, now, plan);
    let healthy = pods
        .iter()
        .filter(|it| !it.is_deleting() && !disrupted.contains_key(it.name()) && pod::is_ready(it));
    let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    let allowed = if expected > 0 { healthy.saturating_sub(wanted).max(0) } else { 0 };
    let mut status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(wanted),
        expected_pods: Some(expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        observed_generation: budget.metadata.generation,
        conditions: old.conditions,
    };
    budgets::set_allowance(&mut status, now);
    status
}

/// Pods whose eviction was allowed and that are not seen going yet.
fn still_expected(
    old: &PodDisruptionBudgetStatus,
    budget: &PodDisruptionBudget,
    pods: &[Typed<Pod>],
    now: Timestamp,
    plan: &mut Plan,
) -> BTreeMap<String, Time> {
    let mut expected = BTreeMap::new();
    let Some(disrupted) = &old.disrupted_pods else { return expected };
    for pod in pods.iter().filter(|it| !it.is_deleting()) {
        let Some(at) = disrupted.get(pod.name()) else { continue };
        let passed = now.since(timestamp_of(at));
        if passed >= DELETION_MOST {
            let message = format!(
                "Pod was expected by PDB {}/{} to be deleted but it wasn't",
                budget.namespace(),
                budget.name()
            );
            plan.event(Event::warning(&**pod, "NotDeleted", message));
            continue;
        }
        let left = DELETION_MOST - passed;
        plan.requeue = Some(plan.requeue.map_or(left, |it| it.min(left)));
        expected.insert(pod.name().to_owned(), at.clone());
    }
    expected
}

#[cfg(test)]
mod tests;
