//! A pod is asked to leave, as far as the disruption budgets allow. The budget is charged and the pod
//! deleted in one commit, so two evictions never spend the same allowance.
//!
//! Upstream: `pkg/registry/core/pod/storage/eviction.go`.

use crate::{
    admit::{Deleting, Part, existing},
    answer::{self, Answer},
    ask::Ask,
    body,
    commit::{Draft, Effect},
    rest::delete,
    view::View,
};
use api::{
    Failure, Object,
    core::{pod, v1::Pod},
    failure::Cause,
    meta,
    policy::{
        pod_disruption_budget::{self as budgets, SYNC_FAILED},
        v1::PodDisruptionBudget,
    },
};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use stdx::Timestamp;
use world::{ObjectKey, Row};

/// More evictions than this that the budget's controller has not seen yet are not taken.
const DISRUPTED_MAX: usize = 2000;

/// When to ask again about a budget that is behind.
const RETRY_SECONDS: u32 = 10;

const TOO_SOON: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

pub(crate) async fn create(ask: &Ask, bytes: Bytes) -> Result<Answer, Failure> {
    let json = body::to_json(&ask.headers, bytes)?;
    let eviction: Value =
        serde_json::from_slice(&json).map_err(|error| Failure::bad_request(error.to_string()))?;
    let name = &ask.target.name;
    if !matches!(eviction["kind"].as_str(), None | Some("" | "Eviction")) {
        return Err(Failure::bad_request(format!("not a Eviction object: {}", eviction["kind"])));
    }
    if eviction["metadata"]["name"].as_str().unwrap_or_default() != name {
        return Err(Failure::bad_request("name in URL does not match name in Eviction object"));
    }
    let options = &eviction["deleteOptions"];
    if !options.is_null() {
        delete::expect_types(options)?;
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let asked = Deleting {
        grace_seconds: options["gracePeriodSeconds"].as_i64(),
        propagation: None,
        uid: text(&options["preconditions"]["uid"]),
        revision: text(&options["preconditions"]["resourceVersion"]),
    };
    let dry_run = match options["dryRun"].as_array() {
        Some(list) if list.iter().any(|it| it != "All") => {
            return Err(body::invalid_options(
                "DeleteOptions",
                &format!("dryRun: Unsupported value: {}: supported values: \"All\"", list[0]),
            ));
        }
        Some(list) if !list.is_empty() => true,
        _ => body::dry_run(&ask.query, "CreateOptions")?,
    };
    ask.server.write(dry_run, |view| propose(ask, view, &asked)).await?;
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
    });
    Ok(answer::json(StatusCode::CREATED, &status))
}

fn propose(ask: &Ask, view: &View, asked: &Deleting) -> Result<Vec<Draft>, Failure> {
    let (server, kind, key) = (&ask.server, &ask.target.kind, ask.key());
    let now = server.now();
    let row = existing(view, kind, &key)?;
    let pod = row.typed::<Pod>().ok_or_else(|| Failure::internal("not a pod"))?;
    let mut draft = server.draft_delete(view, kind, &ask.user, &key, asked)?;
    mark(&mut draft, now);
    let mut drafts = Vec::new();
    // What runs no longer, or not yet, is no loss to its application.
    if !pod::is_terminal(&pod) && pod::phase(&pod) != "Pending" && !pod.is_deleting() {
        drafts.extend(charge(ask, view, &pod, row, now)?);
    }
    drafts.push(draft);
    Ok(drafts)
}

/// Says on the pod why it goes.
fn mark(draft: &mut Draft, now: Timestamp) {
    let Effect::Put(bytes, object) = &mut draft.effect else { return };
    if let Some(pod) = (**object).as_any_mut().downcast_mut::<Pod>() {
        let (reason, why) = ("EvictionByEvictionAPI", "Eviction API: evicting");
        pod::set_condition(pod, "DisruptionTarget", "True", reason, why, now);
        *bytes = Bytes::from(object.encode());
    }
}

/// The write of the budget that pays for the pod; none if no budget is about it, or need not pay.
fn charge(
    ask: &Ask,
    view: &View,
    pod: &Pod,
    row: &Row,
    now: Timestamp,
) -> Result<Option<Draft>, Failure> {
    let all = view.world.list::<PodDisruptionBudget>(&row.meta.namespace);
    let mut all = all.filter(|it| budgets::covers(it, &row.meta.labels));
    let Some(budget) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(Failure::new(500, "", why));
    }
    let status = budget.status.clone().unwrap_or_default();
    let (healthy, wanted) =
        (status.current_healthy.unwrap_or(0), status.desired_healthy.unwrap_or(0));
    if !pod::is_ready(pod) {
        let policy = budgets::spec(&budget).unhealthy_pod_eviction_policy;
        if policy.as_deref() == Some("AlwaysAllow") || healthy >= wanted && wanted > 0 {
            return Ok(None);
        }
    }
    let name = budget.name().to_owned();
    if status.observed_generation.unwrap_or(0) < budget.metadata.generation.unwrap_or(0) {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(too_many(why, RETRY_SECONDS));
    }
    if status.disrupted_pods.as_ref().map_or(0, |it| it.len()) > DISRUPTED_MAX {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        let message = format!("poddisruptionbudget.policy {name:?} is forbidden: {why}");
        return Err(Failure::new(403, "Forbidden", message)
            .about(api::kind_of::<PodDisruptionBudget>(), &name));
    }
    if status.disruptions_allowed.unwrap_or(0) <= 0 {
        return Err(too_many(why_not(&name, &budget, healthy, wanted), 0));
    }
    let mut charged = budget.to_owned();
    let status = charged.status.get_or_insert_default();
    status.disruptions_allowed = status.disruptions_allowed.map(|it| it - 1);
    if status.disruptions_allowed == Some(0) {
        budgets::set_allowance(status, now);
    }
    status.disrupted_pods.get_or_insert_default().insert(pod.name().to_owned(), meta::time(now));
    let (kind, key) = (api::kind_of::<PodDisruptionBudget>(), ObjectKey::of(&*budget));
    let object = Box::new(charged);
    ask.server.draft_update(view, kind, &ask.user, &key, Part::Status, object).map(Some)
}

fn why_not(name: &str, budget: &PodDisruptionBudget, healthy: i32, wanted: i32) -> String {
    let condition = budget.status.as_ref().and_then(budgets::allowance);
    let told = condition.filter(|it| it.status == "False" && !it.message.is_empty());
    let not_now = format!("The disruption budget {name} does not allow evicting pods currently");
    match told {
        Some(it) if it.reason == SYNC_FAILED => {
            format!("{not_now} because it failed sync: {}", it.message)
        }
        _ if healthy <= wanted => {
            format!(
                "The disruption budget {name} needs {wanted} healthy pods and has {healthy} currently"
            )
        }
        Some(it) => format!("{not_now} ({}): {}", it.reason, it.message),
        None => not_now,
    }
}

fn too_many(why: String, retry_after_seconds: u32) -> Failure {
    let mut failure = Failure::new(429, "TooManyRequests", TOO_SOON);
    let details = failure.details.get_or_insert_default();
    details.retry_after_seconds = retry_after_seconds;
    details.causes.push(Cause {
        reason: "DisruptionBudget".to_owned(),
        message: why,
        field: String::new(),
    });
    failure
}
