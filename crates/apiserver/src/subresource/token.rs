//! A token for a service account, bound to a pod, a Secret or a node if asked.
//!
//! Upstream: `pkg/registry/core/serviceaccount/storage/token.go`. Tokens that kubelets ask for with the
//! default life are, as upstream, good for a year and renewed each hour: old clients that never read
//! their file again keep working until their pod is gone.

use crate::{
    admission::node_restriction,
    answer::Answer,
    ask::Ask,
    authn::token::{Bound, Claims, Reference},
    body,
    server::Server,
    show,
    user::{User, account_name},
    view::View,
};
use api::{
    Failure, Kind,
    core::v1::{Node, Pod, Secret, ServiceAccount},
    field::quoted,
};
use bytes::Bytes;
use client::{Bind, Token, TokenWish};
use http::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;
use world::{ObjectKey, Row};

/// What kubelets ask for, unless a pod says otherwise.
const DEFAULT_S: i64 = 3600;
const RENEWED_S: i64 = 3607;
const EXTENDED_S: i64 = 365 * 24 * 3600;
const LEAST_S: i64 = 600;
const MOST_S: i64 = 1 << 32;

pub(super) async fn create(ask: &Ask, bytes: Bytes) -> Result<Answer, Failure> {
    let json = body::to_json(&ask.headers, bytes)?;
    let mut request: Value =
        serde_json::from_slice(&json).map_err(|error| Failure::bad_request(error.to_string()))?;
    if !matches!(request["kind"].as_str(), None | Some("TokenRequest")) {
        return Err(Failure::bad_request(format!(
            "not a TokenRequest object: {}",
            request["kind"]
        )));
    }
    let (namespace, name) = (&ask.target.namespace, &ask.target.name);
    for (field, expected) in [("name", name), ("namespace", namespace)] {
        let given = request["metadata"][field].as_str().unwrap_or_default();
        if !given.is_empty() && given != expected {
            let why = format!("must match the service account {field} if specified");
            return Err(invalid(name, &format!("metadata.{field}"), &quoted(given), &why));
        }
    }
    let spec = &request["spec"];
    let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
    let bound = spec["boundObjectRef"].as_object().map(|_| {
        let it = &spec["boundObjectRef"];
        let (api_version, kind) = (text(&it["apiVersion"]), text(&it["kind"]));
        Bind { api_version, kind, name: text(&it["name"]), uid: text(&it["uid"]) }
    });
    let audiences = spec["audiences"].as_array().into_iter().flatten().map(text).collect();
    let wish = TokenWish {
        namespace: namespace.clone(),
        account: name.clone(),
        account_uid: text(&request["metadata"]["uid"]),
        audiences,
        expiration_s: spec["expirationSeconds"].as_i64().unwrap_or(DEFAULT_S),
        bound,
    };
    let view = ask.server.fresh(None).await?;
    let dry_run = body::dry_run(&ask.query, "CreateOptions")?;
    let issued = ask.server.issue_token(&view, &ask.user, &wish)?;
    let account = super::super::admit::existing(&view, &ask.target.kind, &ask.key())?;
    request["apiVersion"] = "authentication.k8s.io/v1".into();
    request["kind"] = "TokenRequest".into();
    request["metadata"] = json!({
        "name": name, "namespace": namespace, "uid": account.meta.uid,
        "creationTimestamp": ask.server.now().rfc3339(),
    });
    request["spec"]["audiences"] = json!(issued.audiences);
    request["spec"]["expirationSeconds"] = wish.expiration_s.into();
    let token = if dry_run { String::new() } else { issued.token.token };
    request["status"] = json!({
        "token": token, "expirationTimestamp": issued.token.expires.rfc3339(),
    });
    show::bytes(ask.form, false, StatusCode::CREATED, request.to_string().into())
}

pub(crate) struct Issued {
    pub(crate) token: Token,
    audiences: Vec<String>,
}

impl Server {
    /// Issues a token, if what it is to be bound to is there.
    pub(crate) fn issue_token(
        &self,
        view: &View,
        user: &User,
        wish: &TokenWish,
    ) -> Result<Issued, Failure> {
        let (namespace, name) = (&*wish.namespace, &*wish.account);
        let account = find::<ServiceAccount>(view, namespace, name)?;
        if !wish.account_uid.is_empty() && wish.account_uid != account.meta.uid {
            return Err(conflict(
                "TokenRequest",
                "authentication.k8s.io",
                name,
                &format!(
                    "the UID in the token request ({}) does not match the UID of the service account ({})",
                    wish.account_uid, account.meta.uid
                ),
            ));
        }
        let seconds = wish.expiration_s;
        let path = "spec.expirationSeconds";
        if seconds < LEAST_S {
            let why = "may not specify a duration less than 10 minutes";
            return Err(invalid("", path, &seconds.to_string(), why));
        }
        if seconds > MOST_S {
            let why = "may not specify a duration larger than 2^32 seconds";
            return Err(invalid("", path, &seconds.to_string(), why));
        }
        node_restriction::token(view, user, wish)?;
        let own = self.tokens.audiences();
        let audiences =
            if wish.audiences.is_empty() { own.clone() } else { wish.audiences.clone() };
        let mut bound = Bound {
            namespace: namespace.to_owned(),
            serviceaccount: reference(account),
            ..Bound::default()
        };
        if let Some(bind) = &wish.bound {
            self.bind(view, namespace, name, bind, &mut bound)?;
        }
        let now = self.now();
        let at = now.seconds();
        let mut life = seconds;
        if bound.pod.is_some()
            && seconds == RENEWED_S
            && audiences.iter().all(|it| own.contains(it))
        {
            bound.warnafter = Some(at + seconds);
            life = EXTENDED_S;
        }
        let claims = Claims {
            aud: audiences.clone(),
            exp: Some(at + life),
            iat: Some(at),
            iss: self.tokens.issuer().to_owned(),
            jti: Some(self.config.entropy.uuid()),
            bound: Some(bound),
            nbf: Some(at),
            sub: account_name(namespace, name),
            ..Claims::default()
        };
        let token = self.tokens.sign(&claims).map_err(|error| {
            Failure::internal(format!("failed to generate token: {}", stdx::one_line(&error)))
        })?;
        let life = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        let token = Token { token, issued: now, expires: now.plus(life) };
        Ok(Issued { token, audiences })
    }

    fn bind(
        &self,
        view: &View,
        namespace: &str,
        account: &str,
        bind: &Bind,
        bound: &mut Bound,
    ) -> Result<(), Failure> {
        let group = bind.api_version.split_once('/').map_or("", |it| it.0);
        let (row, plural) = match (group, bind.kind.as_str()) {
            ("", "Pod") => {
                let row = find::<Pod>(view, namespace, &bind.name)?;
                let pod = row.typed::<Pod>().ok_or_else(|| Failure::internal("not a pod"))?;
                let spec = pod.spec.as_ref();
                let runs = spec.and_then(|it| it.service_account_name.as_deref());
                if runs != Some(account) {
                    return Err(Failure::bad_request(format!(
                        "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                    )));
                }
                let node = api::core::pod::node_name(&pod);
                if !node.is_empty() {
                    let row = view.world.row_of::<Node>(&ObjectKey::cluster(node));
                    let uid = row.map(|it| it.meta.uid.clone()).unwrap_or_default();
                    bound.node = Some(Reference { name: node.to_owned(), uid });
                }
                bound.pod = Some(reference(row));
                (row, "pods")
            }
            ("", "Secret") => {
                let row = find::<Secret>(view, namespace, &bind.name)?;
                bound.secret = Some(reference(row));
                (row, "secrets")
            }
            ("", "Node") => {
                let row = find::<Node>(view, "", &bind.name)?;
                bound.node = Some(reference(row));
                (row, "nodes")
            }
            (_, kind) => {
                let version = bind.api_version.rsplit('/').next().unwrap_or_default();
                let shown = format!("{group}/{version}, Kind={kind}");
                let why = format!("cannot bind token to object of type {shown}");
                return Err(Failure::bad_request(why));
            }
        };
        if !bind.uid.is_empty() && bind.uid != row.meta.uid {
            return Err(conflict(
                plural,
                "",
                &bind.name,
                &format!(
                    "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
                    bind.uid
                ),
            ));
        }
        Ok(())
    }
}

fn find<'a, T: Kind>(
    view: &'a View,
    namespace: &str,
    name: &str,
) -> Result<&'a std::sync::Arc<Row>, Failure> {
    let row = view.world.row_of::<T>(&ObjectKey::new(namespace, name));
    row.ok_or_else(|| Failure::not_found(api::kind_of::<T>(), name))
}

fn reference(row: &std::sync::Arc<Row>) -> Reference {
    Reference { name: row.meta.name.clone(), uid: row.meta.uid.clone() }
}

fn conflict(resource: &str, group: &str, name: &str, why: &str) -> Failure {
    let qualified = match group {
        "" => resource.to_owned(),
        group => format!("{resource}.{group}"),
    };
    let message = format!("Operation cannot be fulfilled on {qualified} {name:?}: {why}");
    Failure::new(409, "Conflict", message)
}

fn invalid(name: &str, path: &str, value: &str, why: &str) -> Failure {
    let message = format!(
        "TokenRequest.authentication.k8s.io {name:?} is invalid: {path}: Invalid value: {value}: {why}"
    );
    Failure::new(422, "Invalid", message)
}
