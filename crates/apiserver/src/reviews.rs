//! Questions that are asked by creating an object, and answered in its status: who am I, whose token is
//! this, may they. Nothing of it is kept.
//!
//! Upstream: `pkg/registry/authentication/{tokenreview,selfsubjectreview}`,
//! `pkg/registry/authorization`, `pkg/apis/authorization/validation`.

use crate::{
    accept,
    answer::Answer,
    authz::{About, Objects, Verdict, Wish},
    body,
    server::Server,
    show,
    user::User,
    view::View,
};
use api::{
    Errors, Failure,
    failure::{Cause, Details},
    rbac::v1::PolicyRule,
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
pub(crate) const VERSION: &str = "v1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    WhoAmI,
    WhoseToken,
    MayTheyHere,
    MayThey,
    MayI,
    WhatMayI,
}

/// A kind whose objects are only ever created.
#[derive(Debug)]
pub(crate) struct Review {
    pub(crate) group: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) singular: &'static str,
    pub(crate) namespaced: bool,
    question: Question,
}

const fn review(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    question: Question,
) -> Review {
    let namespaced = matches!(question, Question::MayTheyHere);
    Review { group, kind, plural, singular, namespaced, question }
}

/// In the order of discovery.
pub(crate) const ALL: &[Review] = &[
    review(
        AUTHENTICATION,
        "SelfSubjectReview",
        "selfsubjectreviews",
        "selfsubjectreview",
        Question::WhoAmI,
    ),
    review(AUTHENTICATION, "TokenReview", "tokenreviews", "tokenreview", Question::WhoseToken),
    review(
        AUTHORIZATION,
        "LocalSubjectAccessReview",
        "localsubjectaccessreviews",
        "localsubjectaccessreview",
        Question::MayTheyHere,
    ),
    review(
        AUTHORIZATION,
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        "selfsubjectaccessreview",
        Question::MayI,
    ),
    review(
        AUTHORIZATION,
        "SelfSubjectRulesReview",
        "selfsubjectrulesreviews",
        "selfsubjectrulesreview",
        Question::WhatMayI,
    ),
    review(
        AUTHORIZATION,
        "SubjectAccessReview",
        "subjectaccessreviews",
        "subjectaccessreview",
        Question::MayThey,
    ),
];

impl Review {
    /// The review that a path names, and the namespace that it is asked in.
    pub(crate) fn parse(path: &str) -> Option<(&'static Review, String)> {
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, plural, namespace) = match *segments.as_slice() {
            ["apis", group, VERSION, plural] => (group, plural, ""),
            ["apis", group, VERSION, "namespaces", namespace, plural] => (group, plural, namespace),
            _ => return None,
        };
        let fits = |it: &&Review| {
            it.group == group && it.plural == plural && it.namespaced != namespace.is_empty()
        };
        ALL.iter().find(fits).map(|it| (it, namespace.to_owned()))
    }

    pub(crate) fn api_version(&self) -> String {
        format!("{}/{VERSION}", self.group)
    }
}

/// Answers one review; that it may be asked is known.
pub(crate) fn answer(
    server: &Server,
    view: &View,
    user: &User,
    review: &Review,
    namespace: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Answer, Failure> {
    let form = accept::form_without_table(headers)?;
    let json = body::to_json(headers, body)?;
    let mut asked: Value =
        serde_json::from_slice(&json).map_err(|error| Failure::bad_request(error.to_string()))?;
    let fits = |field: &str, expected: &str| match asked[field].as_str() {
        None | Some("") => true,
        Some(given) => given == expected,
    };
    if !asked.is_object()
        || !fits("kind", review.kind)
        || !fits("apiVersion", &review.api_version())
    {
        return Err(Failure::bad_request(format!("not a {}", review.kind)));
    }
    let status = match review.question {
        Question::WhoAmI => json!({"userInfo": user.to_json()}),
        Question::WhoseToken => whose_token(server, view, &asked["spec"])?,
        Question::WhatMayI => rules(server, view, user, &asked["spec"])?,
        Question::MayI => {
            let errors = check(&asked, review, namespace);
            refuse(review, &errors)?;
            may(server, view, user, &asked["spec"])
        }
        Question::MayThey | Question::MayTheyHere => {
            let errors = check(&asked, review, namespace);
            refuse(review, &errors)?;
            may(server, view, &subject(&asked["spec"]), &asked["spec"])
        }
    };
    asked["apiVersion"] = review.api_version().into();
    asked["kind"] = review.kind.into();
    if !asked["metadata"].is_object() {
        asked["metadata"] = json!({"creationTimestamp": null});
    }
    asked["status"] = status;
    show::bytes(form, false, StatusCode::CREATED, asked.to_string().into())
}

fn whose_token(server: &Server, view: &View, spec: &Value) -> Result<Value, Failure> {
    let token = spec["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(Failure::bad_request("token is required for TokenReview in authentication"));
    }
    let asked: Vec<String> = texts(&spec["audiences"]);
    let audiences = if asked.is_empty() { server.tokens.audiences() } else { asked };
    Ok(match server.bearer(view, token, &audiences) {
        Ok(bearer) => json!({
            "authenticated": true, "user": bearer.user.to_json(), "audiences": bearer.audiences,
        }),
        Err(why) => json!({"user": {}, "error": format!("invalid bearer token, {why}")}),
    })
}

fn rules(server: &Server, view: &View, user: &User, spec: &Value) -> Result<Value, Failure> {
    let namespace = spec["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(Failure::bad_request("no namespace on request"));
    }
    let rules = server.policy(view).rules(user, namespace);
    let list = |it: &Option<Vec<String>>| it.clone().unwrap_or_default();
    let about_objects = |it: &PolicyRule| {
        let resources = list(&it.resources);
        if resources.is_empty() {
            return None;
        }
        let mut rule = json!({
            "verbs": it.verbs, "apiGroups": list(&it.api_groups), "resources": resources,
        });
        if let Some(names) = it.resource_names.as_ref().filter(|it| !it.is_empty()) {
            rule["resourceNames"] = json!(names);
        }
        Some(rule)
    };
    let about_paths = |it: &PolicyRule| {
        let urls = it.non_resource_urls.as_ref().filter(|it| !it.is_empty())?;
        Some(json!({"verbs": it.verbs, "nonResourceURLs": urls}))
    };
    let mut status = json!({
        "resourceRules": rules.iter().filter_map(about_objects).collect::<Vec<_>>(),
        "nonResourceRules": rules.iter().filter_map(about_paths).collect::<Vec<_>>(),
        "incomplete": false,
    });
    if user.node().is_some() {
        status["incomplete"] = true.into();
        status["evaluationError"] = "node authorizer does not support user rule resolution".into();
    }
    Ok(status)
}

fn may(server: &Server, view: &View, user: &User, spec: &Value) -> Value {
    let text = |it: &'_ Value| it.as_str().unwrap_or_default().to_owned();
    let verdict = if let Some(it) = spec["resourceAttributes"].as_object() {
        let part = |key: &str| it.get(key).map(text).unwrap_or_default();
        let (verb, group, resource) = (part("verb"), part("group"), part("resource"));
        let (subresource, namespace) = (part("subresource"), part("namespace"));
        let (name, fields) = (part("name"), selector(&spec["resourceAttributes"]["fieldSelector"]));
        let about = Objects {
            group: &group,
            resource: &resource,
            subresource: &subresource,
            namespace: &namespace,
            name: &name,
            fields: &fields,
        };
        server.authorize(view, user, &Wish { verb: &verb, about: About::Objects(about) })
    } else {
        let it = &spec["nonResourceAttributes"];
        let (verb, path) = (text(&it["verb"]), text(&it["path"]));
        server.authorize(view, user, &Wish::path(&verb, &path))
    };
    let Verdict { allowed, reason } = verdict;
    let mut status = json!({"allowed": allowed});
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    status
}

/// A field selector as it would stand in a query.
fn selector(asked: &Value) -> String {
    if let Some(raw) = asked["rawSelector"].as_str() {
        return raw.to_owned();
    }
    let one = |it: &Value| {
        let (key, values) = (it["key"].as_str()?, texts(&it["values"]));
        match (it["operator"].as_str()?, values.as_slice()) {
            ("In", [value]) => Some(format!("{key}={value}")),
            _ => None,
        }
    };
    let requirements = asked["requirements"].as_array().into_iter().flatten();
    requirements.filter_map(one).collect::<Vec<_>>().join(",")
}

/// The user whom an access review is about. It may name any group: it is only asked about.
fn subject(spec: &Value) -> User {
    let mut extra = BTreeMap::new();
    for (key, values) in spec["extra"].as_object().unwrap_or(&Map::new()) {
        extra.insert(key.to_lowercase(), texts(values));
    }
    let text = |key: &str| spec[key].as_str().unwrap_or_default().to_owned();
    let (name, uid, groups) = (text("user"), text("uid"), texts(&spec["groups"]));
    User { name, uid, groups, extra, inside: false }
}

fn texts(list: &Value) -> Vec<String> {
    let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

fn check(asked: &Value, review: &Review, namespace: &str) -> Errors {
    let mut errors = Errors::default();
    let spec = &asked["spec"];
    let (objects, paths) =
        (spec["resourceAttributes"].is_object(), spec["nonResourceAttributes"].is_object());
    if objects && paths {
        let why = "cannot be specified in combination with resourceAttributes";
        errors.invalid("spec.nonResourceAttributes", &spec["nonResourceAttributes"], why);
    }
    if !objects && !paths {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.invalid("spec.resourceAttributes", "null", why);
    }
    if review.question != Question::MayI {
        let user = spec["user"].as_str().unwrap_or_default();
        if user.is_empty() && texts(&spec["groups"]).is_empty() {
            let why = "at least one of user or group must be specified";
            errors.invalid("spec.user", "\"\"", why);
        }
    }
    if review.question == Question::MayTheyHere {
        let own = &spec["resourceAttributes"]["namespace"];
        if objects && own.as_str() != Some(namespace) {
            let shown = api::field::quoted(own.as_str().unwrap_or_default());
            errors.invalid(
                "spec.resourceAttributes.namespace",
                shown,
                "must match metadata.namespace",
            );
        }
        if paths {
            let why = "disallowed on this kind of request";
            errors.invalid("spec.nonResourceAttributes", &spec["nonResourceAttributes"], why);
        }
    }
    errors
}

fn refuse(review: &Review, errors: &Errors) -> Result<(), Failure> {
    if errors.is_empty() {
        return Ok(());
    }
    let (kind, group) = (review.kind, review.group);
    let message = format!("{kind}.{group} \"\" is invalid: {}", errors.message());
    let causes = errors.0.iter().map(|it| Cause {
        reason: it.reason.cause().to_owned(),
        message: it.body(),
        field: it.path.clone(),
    });
    let details = Details {
        group: group.to_owned(),
        kind: kind.to_owned(),
        causes: causes.collect(),
        ..Details::default()
    };
    Err(Failure { details: Some(Box::new(details)), ..Failure::new(422, "Invalid", message) })
}
