//! Paths of reviews: kinds that are only ever created.
//!
//! Upstream: `api/openapi-spec/v3`, groups `authentication.k8s.io` and `authorization.k8s.io`.

use super::{
    parameters as parameter,
    paths::{OBJECT_TYPES, content, pascal},
};
use crate::reviews::{self, Review};
use api::schema::{self, Companion, Definitions};
use serde_json::{Map, Value, json};

/// The groups that hold nothing but reviews.
pub(super) fn group_versions() -> impl Iterator<Item = (String, String)> {
    let groups = reviews::ALL.chunk_by(|a, b| a.group == b.group);
    groups.map(|it| (it[0].group.to_owned(), reviews::VERSION.to_owned()))
}

/// Adds the paths of one group and version.
pub(super) fn paths(
    group: &str,
    version: &str,
    definitions: &mut Definitions,
    served: &[(String, String)],
    paths: &mut Map<String, Value>,
) {
    for review in reviews::ALL.iter().filter(|it| it.group == group && version == reviews::VERSION)
    {
        let namespace = if review.namespaced { "/namespaces/{namespace}" } else { "" };
        let path = format!("/apis/{group}/{version}{namespace}/{}", review.plural);
        paths.insert(path, item(review, definitions, served));
    }
}

fn item(review: &Review, definitions: &mut Definitions, served: &[(String, String)]) -> Value {
    let schema = schema::reference(&definitions.companion(companion(review.kind), served));
    let group = review.group.split('.').next().unwrap_or_default();
    let scope = if review.namespaced { "Namespaced" } else { "" };
    let answer = |description: &str| json!({"description": description, "content": content(&OBJECT_TYPES, &schema)});
    let mut post = json!({
        "description": format!("create a {}", review.kind),
        "operationId": format!("create{}V1{scope}{}", pascal(group), review.kind),
        "parameters": parameter::query(&[parameter::WRITE]),
        "requestBody": {"content": content(&["*/*"], &schema), "required": true},
        "responses": {
            "200": answer("OK"),
            "201": answer("Created"),
            "202": answer("Accepted"),
            "401": {"description": "Unauthorized"},
        },
        "tags": [format!("{group}_{}", reviews::VERSION)],
        "x-kubernetes-action": "post",
    });
    post[schema::GROUP_VERSION_KIND] = schema::tag(review.group, reviews::VERSION, review.kind);
    let mut shared = parameter::query(&[parameter::PRETTY]);
    if review.namespaced {
        shared.push(parameter::path("namespace", "The namespace of the object."));
    }
    json!({"post": post, "parameters": shared})
}

fn companion(kind: &str) -> Companion {
    match kind {
        "SelfSubjectReview" => Companion::SelfSubjectReview,
        "TokenReview" => Companion::TokenReview,
        "LocalSubjectAccessReview" => Companion::LocalSubjectAccessReview,
        "SelfSubjectAccessReview" => Companion::SelfSubjectAccessReview,
        "SelfSubjectRulesReview" => Companion::SelfSubjectRulesReview,
        "SubjectAccessReview" => Companion::SubjectAccessReview,
        other => unreachable!("{other} is no review"),
    }
}
