//! `metrics.k8s.io`: what nodes and pods use now, as their nodes measure it. `kubectl top` asks here.
//!
//! Nothing is kept: each question is passed on to the nodes that it is about. A node that does not answer, or has not
//! looked twice yet, has no figures, and what has no figures is not listed.
//! Upstream: `k8s.io/metrics/pkg/apis/metrics/v1beta1`, kubernetes-sigs/metrics-server.

use crate::{
    answer::{self, Answer},
    node,
    server::Server,
    target::Query,
};
use api::{
    Failure, Object,
    core::{
        pod::node_name,
        v1::{Node, Pod},
    },
    failure::Details,
    meta::Selector,
};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use world::ObjectKey;

pub(crate) const GROUP: &str = "metrics.k8s.io";
pub(crate) const VERSION: &str = "v1beta1";

/// Over this the nodes take their rates.
const WINDOW: &str = "10s";

/// A node that takes longer has no figures.
const PATIENCE: Duration = Duration::from_secs(5);

/// The summary of a node with the most pods that it may have.
const SUMMARY_BYTES_MAX: usize = 16 << 20;

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Empty: all of them.
    Nodes(String),
    /// Namespace and name; empty: all of them.
    Pods(String, String),
}

impl Asked {
    pub(crate) fn parse(path: &str) -> Option<Asked> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let ["apis", GROUP, VERSION, rest @ ..] = parts.as_slice() else { return None };
        let owned = |it: &&str| (*it).to_owned();
        match rest {
            ["nodes"] => Some(Asked::Nodes(String::new())),
            ["nodes", name] => Some(Asked::Nodes(owned(name))),
            ["pods"] => Some(Asked::Pods(String::new(), String::new())),
            ["namespaces", namespace, "pods"] => Some(Asked::Pods(owned(namespace), String::new())),
            ["namespaces", namespace, "pods", name] => {
                Some(Asked::Pods(owned(namespace), owned(name)))
            }
            _ => None,
        }
    }

    /// Resource, namespace and name, as roles name them.
    pub(crate) fn names(&self) -> (&'static str, &str, &str) {
        match self {
            Asked::Nodes(name) => ("nodes", "", name),
            Asked::Pods(namespace, name) => ("pods", namespace, name),
        }
    }
}

impl Server {
    pub(crate) async fn usage(&self, asked: &Asked, query: &Query) -> Result<Answer, Failure> {
        let labels = Selector::parse(query.one("labelSelector")).map_err(Failure::bad_request)?;
        let document = match asked {
            Asked::Nodes(name) => self.usage_of_nodes(name, &labels).await?,
            Asked::Pods(namespace, name) => self.usage_of_pods(namespace, name, &labels).await?,
        };
        Ok(answer::json(StatusCode::OK, &document))
    }

    async fn usage_of_nodes(&self, name: &str, labels: &Selector) -> Result<Value, Failure> {
        let view = self.ledger.view();
        let wanted = |it: &world::Typed<Node>| {
            (name.is_empty() || it.name() == name)
                && labels.matches(it.metadata.labels.as_ref().unwrap_or(&BTreeMap::new()))
        };
        let nodes: Vec<world::Typed<Node>> = view.world.all::<Node>().filter(wanted).collect();
        let summaries = join_all(nodes.iter().map(|it| self.summary(it))).await;
        let metrics = nodes.iter().zip(summaries).filter_map(|(node, summary)| {
            let summary = summary?;
            let usage = usage(&summary["node"])?;
            Some(json!({
                "metadata": {
                    "name": node.name(),
                    "creationTimestamp": self.now().rfc3339(),
                    "labels": node.metadata.labels,
                },
                "timestamp": summary["node"]["cpu"]["time"],
                "window": WINDOW,
                "usage": usage,
            }))
        });
        one_or_list(metrics.collect(), "NodeMetrics", "nodes", name)
    }

    async fn usage_of_pods(
        &self,
        namespace: &str,
        name: &str,
        labels: &Selector,
    ) -> Result<Value, Failure> {
        let view = self.ledger.view();
        let wanted = |it: &world::Typed<Pod>| {
            (namespace.is_empty() || it.namespace() == namespace)
                && (name.is_empty() || it.name() == name)
                && labels.matches(it.metadata.labels.as_ref().unwrap_or(&BTreeMap::new()))
        };
        let mut pods: BTreeMap<ObjectKey, world::Typed<Pod>> = BTreeMap::new();
        for pod in view.world.all::<Pod>().filter(wanted) {
            pods.insert(ObjectKey::new(pod.namespace(), pod.name()), pod);
        }
        let mut names: Vec<&str> = pods.values().map(|it| node_name(it)).collect();
        names.sort_unstable();
        names.dedup();
        let nodes = names.iter().filter_map(|it| view.world.cluster::<Node>(it));
        let nodes: Vec<world::Typed<Node>> = nodes.collect();
        let summaries = join_all(nodes.iter().map(|it| self.summary(it))).await;
        let mut metrics = BTreeMap::new();
        for summary in summaries.iter().flatten() {
            for measured in summary["pods"].as_array().into_iter().flatten() {
                let reference =
                    |field: &str| measured["podRef"][field].as_str().unwrap_or_default();
                let key = ObjectKey::new(reference("namespace"), reference("name"));
                let Some(pod) = pods.get(&key).filter(|it| it.uid() == reference("uid")) else {
                    continue;
                };
                let containers = measured["containers"].as_array().cloned().unwrap_or_default();
                let containers: Option<Vec<Value>> = containers
                    .iter()
                    .map(|it| Some(json!({"name": it["name"], "usage": usage(it)?})))
                    .collect();
                // One container without figures: the pod's would be too small.
                let Some(containers) = containers.filter(|it| !it.is_empty()) else { continue };
                let value = json!({
                    "metadata": {
                        "name": &*key.name,
                        "namespace": &*key.namespace,
                        "creationTimestamp": self.now().rfc3339(),
                        "labels": pod.metadata.labels,
                    },
                    "timestamp": measured["cpu"]["time"],
                    "window": WINDOW,
                    "containers": containers,
                });
                metrics.insert(key, value);
            }
        }
        let whole = match (namespace, name) {
            ("", _) | (_, "") => name.to_owned(),
            (namespace, name) => format!("{namespace}/{name}"),
        };
        one_or_list(metrics.into_values().collect(), "PodMetrics", "pods", &whole)
    }

    /// What a node measures; none if it does not tell.
    async fn summary(&self, node: &Node) -> Option<Value> {
        let proxy = self.node_proxy().ok()?;
        let request = Request::get("/stats/summary").header(header::HOST, "node");
        let request = request.body(Empty::<Bytes>::new()).ok()?;
        let answered = async {
            let answer = node::send(proxy, node, request).await.ok()?;
            let is_fine = answer.status().is_success();
            let body = Limited::new(answer.into_body(), SUMMARY_BYTES_MAX).collect().await.ok()?;
            is_fine.then(|| body.to_bytes())
        };
        let body = stdx::timeout(PATIENCE, answered).await??;
        serde_json::from_slice(&body).ok()
    }
}

/// Of a node, or of a container: CPU in billionths, memory in kibibytes, as metrics-server writes them.
fn usage(measured: &Value) -> Option<Value> {
    let cores = measured["cpu"]["usageNanoCores"].as_u64()?;
    let bytes = measured["memory"]["workingSetBytes"].as_u64()?;
    Some(json!({"cpu": format!("{cores}n"), "memory": format!("{}Ki", bytes / 1024)}))
}

fn one_or_list(
    items: Vec<Value>,
    kind: &str,
    resource: &str,
    name: &str,
) -> Result<Value, Failure> {
    let group_version = format!("{GROUP}/{VERSION}");
    if name.is_empty() {
        return Ok(json!({
            "kind": format!("{kind}List"), "apiVersion": group_version, "metadata": {}, "items": items,
        }));
    }
    let Some(mut one) = items.into_iter().next() else {
        let message = format!("{}.{GROUP} {name:?} not found", kind.to_lowercase());
        let details = Details {
            name: name.to_owned(),
            group: GROUP.to_owned(),
            kind: resource.to_owned(),
            ..Details::default()
        };
        let failure = Failure::new(404, "NotFound", message);
        return Err(Failure { details: Some(Box::new(details)), ..failure });
    };
    one["kind"] = kind.into();
    one["apiVersion"] = group_version.into();
    Ok(one)
}

/// The group, as discovery lists it.
pub(crate) fn group() -> Value {
    let version = json!({"groupVersion": format!("{GROUP}/{VERSION}"), "version": VERSION});
    json!({"name": GROUP, "versions": [version], "preferredVersion": version})
}

const RESOURCES: [(&str, &str, bool); 2] =
    [("nodes", "NodeMetrics", false), ("pods", "PodMetrics", true)];

pub(crate) fn resources() -> Value {
    let resources = RESOURCES.map(|(name, kind, namespaced)| {
        json!({
            "name": name, "singularName": "", "namespaced": namespaced, "kind": kind,
            "verbs": ["get", "list"],
        })
    });
    json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": format!("{GROUP}/{VERSION}"), "resources": resources,
    })
}

pub(crate) fn aggregated() -> Value {
    let resources = RESOURCES.map(|(name, kind, namespaced)| {
        json!({
            "resource": name,
            "responseKind": {"group": GROUP, "version": VERSION, "kind": kind},
            "scope": if namespaced { "Namespaced" } else { "Cluster" },
            "singularResource": "",
            "verbs": ["get", "list"],
        })
    });
    json!({
        "metadata": {"name": GROUP, "creationTimestamp": null},
        "versions": [{"version": VERSION, "resources": resources, "freshness": "Current"}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_figures_is_not_found_or_not_listed() {
        let measured =
            json!({"cpu": {"usageNanoCores": 12_345}, "memory": {"workingSetBytes": 4096}});
        assert_eq!(usage(&measured), Some(json!({"cpu": "12345n", "memory": "4Ki"})));
        assert_eq!(usage(&json!({"cpu": {"usageNanoCores": null}})), None);
        let list = one_or_list(Vec::new(), "PodMetrics", "pods", "").unwrap();
        assert_eq!((&list["kind"], &list["items"]), (&json!("PodMetricsList"), &json!([])));
        let refused = one_or_list(Vec::new(), "PodMetrics", "pods", "default/web-0").unwrap_err();
        assert_eq!(refused.message, "podmetrics.metrics.k8s.io \"default/web-0\" not found");
        assert_eq!(refused.code, 404);
    }

    #[test]
    fn paths_name_nodes_and_pods() {
        let base = "/apis/metrics.k8s.io/v1beta1";
        let at = |rest: &str| Asked::parse(&format!("{base}{rest}"));
        assert_eq!(at("/nodes/n1"), Some(Asked::Nodes("n1".to_owned())));
        let pods = |namespace: &str, name: &str| Asked::Pods(namespace.into(), name.into());
        assert_eq!(at("/pods"), Some(pods("", "")));
        assert_eq!(at("/namespaces/a/pods"), Some(pods("a", "")));
        assert_eq!(at("/namespaces/a/pods/b"), Some(pods("a", "b")));
        assert_eq!(at(""), None);
        assert_eq!(at("/services"), None);
    }
}
