//! What can be asked for: groups, versions, kinds and their paths, in upstream's two forms.
//!
//! Upstream: `apiserver/pkg/endpoints/discovery`; `k8s.io/api/apidiscovery/v2`.

use crate::{
    answer::{self, Answer},
    reviews::{self, Review},
    server::Server,
    usage,
};
use api::{AnyKind, KindRef, Subresource};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

const VERBS: [&str; 8] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Of kinds that are only listed.
const LISTED: [&str; 5] = ["delete", "deletecollection", "get", "list", "watch"];

fn verbs(kind: &AnyKind) -> &'static [&'static str] {
    if kind.refused.is_some() { &LISTED } else { &VERBS }
}

impl Server {
    /// Answers `/api`, `/apis` and what lies directly below; `None` for any other path.
    pub(crate) fn discovery(&self, path: &str, headers: &HeaderMap) -> Option<Answer> {
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let in_group = |group: &str| self.groups().contains(&group);
        let document = match *segments.as_slice() {
            ["api"] | ["apis"] if asks_aggregated(headers) => {
                return Some(self.aggregated(segments[0] == "api"));
            }
            ["api"] => json!({
                "kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [],
            }),
            ["api", "v1"] => self.resources("", "v1")?,
            ["apis"] => {
                let mut groups: Vec<Value> = self
                    .groups()
                    .iter()
                    .filter(|it| !it.is_empty())
                    .map(|it| self.group(it))
                    .collect();
                groups.push(usage::group());
                json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
            }
            ["apis", usage::GROUP] => {
                let mut group = usage::group();
                group["kind"] = "APIGroup".into();
                group["apiVersion"] = "v1".into();
                group
            }
            ["apis", usage::GROUP, usage::VERSION] => usage::resources(),
            ["apis", group] if !group.is_empty() && in_group(group) => {
                let mut group = self.group(group);
                group["kind"] = "APIGroup".into();
                group["apiVersion"] = "v1".into();
                group
            }
            ["apis", group, version] if !group.is_empty() => self.resources(group, version)?,
            _ => return None,
        };
        Some(answer::json(StatusCode::OK, &document))
    }

    /// Groups in the order in which their kinds are listed.
    fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<&str> = Vec::new();
        for kind in &self.kinds {
            if !groups.contains(&kind.group.as_str()) {
                groups.push(&kind.group);
            }
        }
        for review in reviews::ALL {
            if !groups.contains(&review.group) {
                groups.push(review.group);
            }
        }
        groups
    }

    /// Versions of a group, the preferred first.
    fn versions(&self, group: &str) -> Vec<&str> {
        let mut versions: Vec<&str> = Vec::new();
        for kind in self.kinds.iter().filter(|it| it.group == group) {
            for version in &kind.served {
                if !versions.contains(&version.as_str()) {
                    versions.push(version);
                }
            }
        }
        if versions.is_empty() && reviews::ALL.iter().any(|it| it.group == group) {
            versions.push(reviews::VERSION);
        }
        versions.sort_by_key(|it| it.contains("alpha") || it.contains("beta"));
        versions
    }

    fn group(&self, group: &str) -> Value {
        let versions: Vec<Value> = self
            .versions(group)
            .iter()
            .map(|it| json!({"groupVersion": format!("{group}/{it}"), "version": it}))
            .collect();
        json!({"name": group, "versions": versions, "preferredVersion": versions.first()})
    }

    fn served(&self, group: &str, version: &str) -> Vec<&KindRef> {
        let served = |it: &&KindRef| it.group == group && it.served.iter().any(|it| it == version);
        self.kinds.iter().filter(served).collect()
    }

    fn resources(&self, group: &str, version: &str) -> Option<Value> {
        let kinds = self.served(group, version);
        let reviews = of(group, version);
        if kinds.is_empty() && reviews.is_empty() {
            return None;
        }
        let mut resources = Vec::new();
        for it in reviews {
            resources.push(json!({
                "name": it.plural, "singularName": it.singular, "namespaced": it.namespaced,
                "kind": it.kind, "verbs": ["create"],
            }));
        }
        for kind in &kinds {
            let mut resource = json!({
                "name": kind.plural, "singularName": kind.singular,
                "namespaced": kind.is_namespaced(), "kind": kind.kind, "verbs": verbs(kind),
            });
            if !kind.short_names.is_empty() {
                resource["shortNames"] = json!(kind.short_names);
            }
            if !kind.categories.is_empty() {
                resource["categories"] = json!(kind.categories);
            }
            resources.push(resource);
            for it in &kind.subresources {
                let answers = answers(kind, version, *it);
                let mut resource = json!({
                    "name": format!("{}/{}", kind.plural, it.name()), "singularName": "",
                    "namespaced": kind.is_namespaced(), "kind": answers.kind,
                    "verbs": answers.verbs,
                });
                if let Some((group, version)) = answers.elsewhere {
                    if !group.is_empty() {
                        resource["group"] = group.into();
                    }
                    resource["version"] = version.into();
                }
                resources.push(resource);
            }
        }
        let group_version = match group {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        };
        Some(json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version,
            "resources": resources,
        }))
    }

    /// Everything in one document; `core`: the group without a name, else all others.
    fn aggregated(&self, core: bool) -> Answer {
        let groups = self.groups();
        let items = groups.into_iter().filter(|it| it.is_empty() == core).map(|group| {
            let versions: Vec<Value> = self
                .versions(group)
                .iter()
                .map(|version| {
                    let kinds = self.served(group, version);
                    let kinds = kinds.iter().map(|it| aggregated_resource(it, version));
                    let reviews = of(group, version).into_iter().map(aggregated_review);
                    let resources: Vec<Value> = kinds.chain(reviews).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = match group {
                "" => json!({"creationTimestamp": null}),
                group => json!({"name": group, "creationTimestamp": null}),
            };
            json!({"metadata": metadata, "versions": versions})
        });
        let own = (!core).then(usage::aggregated);
        let document = json!({
            "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2",
            "metadata": {}, "items": items.chain(own).collect::<Vec<_>>(),
        });
        let mut answer = answer::json(StatusCode::OK, &document);
        let kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::VARY, HeaderValue::from_static("Accept"));
        answer
    }
}

/// Kinds of a group and version that are only created.
fn of(group: &str, version: &str) -> Vec<&'static Review> {
    let fits = |it: &&Review| it.group == group && version == reviews::VERSION;
    reviews::ALL.iter().filter(fits).collect()
}

fn aggregated_review(it: &Review) -> Value {
    json!({
        "resource": it.plural,
        "responseKind": {"group": it.group, "version": reviews::VERSION, "kind": it.kind},
        "scope": if it.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": it.singular,
        "verbs": ["create"],
    })
}

fn asks_aggregated(headers: &HeaderMap) -> bool {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|it| it.to_str().ok());
    accept.flat_map(|it| it.split(',')).any(|clause| {
        let parts: Vec<&str> = clause.split(';').map(str::trim).collect();
        parts[0] == "application/json"
            && ["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"]
                .iter()
                .all(|it| parts.contains(it))
    })
}

fn aggregated_resource(kind: &AnyKind, version: &str) -> Value {
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": version, "kind": kind.kind},
        "scope": if kind.is_namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": verbs(kind),
    });
    if !kind.short_names.is_empty() {
        resource["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        resource["categories"] = json!(kind.categories);
    }
    let subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|it| {
            let answers = answers(kind, version, *it);
            let (group, version) = answers.elsewhere.unwrap_or((&kind.group, version));
            json!({
                "subresource": it.name(), "verbs": answers.verbs,
                "responseKind": {"group": group, "version": version, "kind": answers.kind},
            })
        })
        .collect();
    if !subresources.is_empty() {
        resource["subresources"] = subresources.into();
    }
    resource
}

/// What a subresource answers with, and to which verbs.
struct Answers<'a> {
    kind: &'a str,
    verbs: &'static [&'static str],
    /// Group and version where they are not the kind's own.
    elsewhere: Option<(&'a str, &'a str)>,
}

fn answers<'a>(kind: &'a AnyKind, _version: &str, subresource: Subresource) -> Answers<'a> {
    let own = |verbs| Answers { kind: &kind.kind, verbs, elsewhere: None };
    let other = |name, verbs, elsewhere| Answers { kind: name, verbs, elsewhere };
    match subresource {
        Subresource::Status
        | Subresource::Approval
        | Subresource::EphemeralContainers
        | Subresource::Resize => own(&["get", "patch", "update"]),
        Subresource::Finalize => own(&["update"]),
        Subresource::Scale => {
            other("Scale", &["get", "patch", "update"], Some(("autoscaling", "v1")))
        }
        Subresource::Binding => other("Binding", &["create"], None),
        Subresource::Eviction => other("Eviction", &["create"], Some(("policy", "v1"))),
        Subresource::Log => own(&["get"]),
        Subresource::Exec => other("PodExecOptions", &["create", "get"], None),
        Subresource::Attach => other("PodAttachOptions", &["create", "get"], None),
        Subresource::PortForward => other("PodPortForwardOptions", &["create", "get"], None),
        Subresource::Proxy => {
            let verbs = &["create", "delete", "get", "patch", "update"];
            match kind.kind.as_str() {
                "Node" => other("NodeProxyOptions", verbs, None),
                "Service" => other("ServiceProxyOptions", verbs, None),
                _ => other("PodProxyOptions", verbs, None),
            }
        }
        Subresource::Token => {
            other("TokenRequest", &["create"], Some(("authentication.k8s.io", "v1")))
        }
    }
}
