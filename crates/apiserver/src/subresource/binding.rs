//! A pod gets its node.
//!
//! Upstream: `pkg/registry/core/pod/storage/storage.go`, BindingREST.

use crate::{
    admit::{Part, existing},
    answer::{self, Answer},
    ask::Ask,
    body,
};
use api::{
    Failure,
    core::{
        pod,
        v1::{Pod, PodCondition},
    },
    meta,
};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use world::Row;

pub(crate) async fn create(ask: &Ask, bytes: Bytes) -> Result<Answer, Failure> {
    let dry_run = body::dry_run(&ask.query, "CreateOptions")?;
    let json = body::to_json(&ask.headers, bytes)?;
    let binding: Value =
        serde_json::from_slice(&json).map_err(|error| Failure::bad_request(error.to_string()))?;
    let (kind, name) = (&ask.target.kind, &ask.target.name);
    if !matches!(binding["kind"].as_str(), None | Some("Binding")) {
        return Err(Failure::bad_request(format!("not a Binding object: {}", binding["kind"])));
    }
    if binding["metadata"]["name"].as_str().unwrap_or_default() != name {
        return Err(Failure::bad_request("name in URL does not match name in Binding object"));
    }
    let target = &binding["target"];
    if !matches!(target["kind"].as_str(), None | Some("" | "Node")) {
        return Err(Failure::bad_request(format!(
            "target.kind: Unsupported value: {}: supported values: \"Node\", \"<empty>\"",
            target["kind"]
        )));
    }
    let node = target["name"].as_str().filter(|it| !it.is_empty());
    let node = node.ok_or_else(|| Failure::bad_request("target.name: Required value"))?;
    ask.server
        .write(dry_run, |view| {
            let row = existing(view, kind, &ask.key())?;
            expect(row, &binding, |why| Failure::conflict(kind, name, why))?;
            let mut pod =
                row.typed::<Pod>().ok_or_else(|| Failure::internal("not a pod"))?.to_owned();
            bind(&mut pod, &binding, node, ask.server.now()).map_err(|why| conflict(name, &why))?;
            let object = Box::new(pod);
            Ok(vec![ask.server.draft_update(
                view,
                kind,
                &ask.user,
                &ask.key(),
                Part::Both,
                object,
            )?])
        })
        .await?;
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
    });
    Ok(answer::json(StatusCode::CREATED, &status))
}

fn expect(row: &Row, binding: &Value, conflict: impl Fn(&str) -> Failure) -> Result<(), Failure> {
    let meta = &binding["metadata"];
    if let Some(uid) = meta["uid"].as_str().filter(|it| !it.is_empty() && *it != row.meta.uid) {
        return Err(conflict(&format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            row.meta.uid
        )));
    }
    let revision = row.revision.to_string();
    if let Some(asked) =
        meta["resourceVersion"].as_str().filter(|it| !it.is_empty() && *it != revision)
    {
        return Err(conflict(&format!(
            "Precondition failed: ResourceVersion in precondition: {asked}, ResourceVersion in object meta: {revision}"
        )));
    }
    Ok(())
}

fn bind(pod: &mut Pod, binding: &Value, node: &str, now: stdx::Timestamp) -> Result<(), String> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    if pod.metadata.deletion_timestamp.is_some() {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let bound = pod::node_name(pod);
    if !bound.is_empty() {
        return Err(format!("pod {name} is already assigned to node {bound:?}"));
    }
    let spec = pod.spec.get_or_insert_default();
    if spec.scheduling_gates.as_ref().is_some_and(|it| !it.is_empty()) {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    spec.node_name = Some(node.to_owned());
    merge(&mut pod.metadata.annotations, &binding["metadata"]["annotations"]);
    merge(&mut pod.metadata.labels, &binding["metadata"]["labels"]);
    let status = pod.status.get_or_insert_default();
    status.nominated_node_name = None;
    let scheduled = PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(meta::time(now)),
        observed_generation: pod.metadata.generation,
        ..Default::default()
    };
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|it| it.type_ == scheduled.type_) {
        Some(old) => *old = scheduled,
        None => conditions.push(scheduled),
    }
    Ok(())
}

fn merge(own: &mut Option<BTreeMap<String, String>>, given: &Value) {
    for (key, value) in given.as_object().into_iter().flatten() {
        if let Some(value) = value.as_str() {
            own.get_or_insert_default().insert(key.clone(), value.to_owned());
        }
    }
}

fn conflict(name: &str, why: &str) -> Failure {
    let pods = api::kind_of::<Pod>();
    let message = format!("Operation cannot be fulfilled on pods/binding {name:?}: {why}");
    Failure::new(409, "Conflict", message).about(pods, name)
}
