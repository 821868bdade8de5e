//! A Secret of the type `kubernetes.io/service-account-token` holds a token of its account, for as long
//! as both are there.
//!
//! Upstream: `pkg/controller/serviceaccount/tokens_controller.go`. Deviation: the token is there when
//! the Secret is; upstream fills it in later. Secrets whose account is gone are deleted by a controller.

use super::{Act, Attempt, Plugin};
use api::{
    AnyObject, Failure, Object,
    core::v1::{Secret, ServiceAccount},
    k8s::ByteString,
};
use world::ObjectKey;

pub(super) const PLUGIN: Plugin = Plugin { name: "ServiceAccountToken", admit };

const KIND: &str = "kubernetes.io/service-account-token";
const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";

fn admit(attempt: &mut Attempt<'_>, object: Option<&mut AnyObject>) -> Result<(), Failure> {
    let secret = object.and_then(|it| (**it).as_any_mut().downcast_mut::<Secret>());
    let Some(secret) = secret.filter(|it| it.type_.as_deref() == Some(KIND)) else { return Ok(()) };
    if !matches!(attempt.act, Act::Create | Act::Update) || secret.is_deleting() {
        return Ok(());
    }
    let Some(name) = secret.annotation(NAME).filter(|it| !it.is_empty()) else { return Ok(()) };
    let key = ObjectKey::new(&attempt.key.namespace, name);
    let Some(account) = attempt.view.world.get::<ServiceAccount>(&key) else { return Ok(()) };
    // Of another account that had the name: the controller takes it away.
    if secret.annotation(UID).is_some_and(|it| !it.is_empty() && it != account.uid()) {
        return Ok(());
    }
    let has = |key: &str| {
        let value = secret.data.as_ref().and_then(|it| it.get(key));
        value.is_some_and(|it| !it.0.is_empty())
    };
    let ca = attempt.server.config.access.root_ca.clone();
    let mut missing = Vec::new();
    if !has("token") {
        let named = Secret {
            metadata: api::meta::ObjectMeta {
                name: Some(attempt.key.name.to_string()),
                ..Default::default()
            },
            ..Secret::default()
        };
        let token = attempt.server.tokens.legacy(&named, &account);
        let token = token.map_err(|error| Failure::internal(stdx::one_line(&error)))?;
        missing.push(("token", token));
    }
    if !has("namespace") {
        missing.push(("namespace", attempt.key.namespace.to_string()));
    }
    if !has("ca.crt") && !ca.is_empty() {
        missing.push(("ca.crt", ca));
    }
    let data = secret.data.get_or_insert_default();
    for (key, value) in missing {
        data.insert(key.to_owned(), ByteString(value.into_bytes()));
    }
    let uid = account.uid().to_owned();
    secret.metadata.annotations.get_or_insert_default().insert(UID.to_owned(), uid);
    Ok(())
}
