//! Bootstrap tokens: `abcdef.0123456789abcdef`, kept as Secrets of kube-system. Whoever shows one may
//! ask for a certificate, and little else.
//!
//! Upstream: `plugin/pkg/auth/authenticator/token/bootstrap/bootstrap.go`, `cluster-bootstrap/token`.

use crate::{
    user::{AUTHENTICATED, User},
    view::View,
};
use api::core::v1::Secret;
use stdx::Timestamp;
use world::ObjectKey;

const KIND: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";

/// Id and secret of a token of this form.
pub(super) fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let fits = |it: &str| it.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && fits(id) && fits(secret)).then_some((id, secret))
}

pub(super) fn user(
    view: &View,
    (id, secret): (&str, &str),
    now: Timestamp,
) -> Result<User, String> {
    let name = format!("bootstrap-token-{id}");
    let key = ObjectKey::new("kube-system", &name);
    let kept = view.world.get::<Secret>(&key);
    let kept = kept.ok_or_else(|| format!("there is no bootstrap token {id}"))?;
    let text = |key: &str| {
        let value = kept.data.as_ref().and_then(|it| it.get(key));
        value.and_then(|it| std::str::from_utf8(&it.0).ok()).unwrap_or_default()
    };
    if kept.metadata.deletion_timestamp.is_some() || kept.type_.as_deref() != Some(KIND) {
        return Err(format!("secret {name} is no bootstrap token"));
    }
    let same = super::same(text("token-secret").as_bytes(), secret.as_bytes());
    if !same || text("token-id") != id {
        return Err(format!("bootstrap token {id} was shown with another secret"));
    }
    let expiration = text("expiration");
    if !expiration.is_empty() && Timestamp::parse(expiration).is_none_or(|it| it <= now) {
        return Err(format!("bootstrap token {id} has expired"));
    }
    if text("usage-bootstrap-authentication") != "true" {
        return Err(format!("bootstrap token {id} is not for authentication"));
    }
    let mut groups = vec![GROUP.to_owned()];
    let extra_groups = text("auth-extra-groups").split(',').filter(|it| !it.is_empty());
    for group in extra_groups {
        if !group.starts_with("system:bootstrappers:") {
            return Err(format!("bootstrap token {id} names a group that it may not be in"));
        }
        groups.push(group.to_owned());
    }
    groups.push(AUTHENTICATED.to_owned());
    Ok(User { name: format!("system:bootstrap:{id}"), groups, ..User::default() })
}
