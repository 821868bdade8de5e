//! The built-in checks between defaulting and validation, in upstream's order.
//!
//! Upstream: `pkg/kubeapiserver/options/plugins.go` for names, order and defaults.

mod certificate_request;
mod default_storage_class;
mod default_toleration_seconds;
mod limit_ranger;
mod namespace_lifecycle;
pub(crate) mod node_restriction;
mod persistent_volume_claim_resize;
mod priority;
pub(crate) mod resource_quota;
mod runtime_class;
pub(crate) mod service_account;
mod service_account_token;
pub(crate) mod service_address;
mod storage_object_in_use_protection;
mod taint_nodes_by_condition;

use crate::{error::Error, server::Server, user::User, view::View};
use api::{AnyObject, Erased, Failure, KindRef};
use std::collections::BTreeSet;
use stdx::Timestamp;
use store::{Check, Write};
use world::ObjectKey;

/// One admission check. It may change the object, refuse the request, or ask that what it looked at
/// is still so at the commit.
pub(crate) struct Plugin {
    name: &'static str,
    admit: fn(&mut Attempt<'_>, Option<&mut AnyObject>) -> Result<(), Failure>,
}

const CHAIN: &[Plugin] = &[
    namespace_lifecycle::PLUGIN,
    limit_ranger::PLUGIN,
    service_account::PLUGIN,
    taint_nodes_by_condition::PLUGIN,
    priority::PLUGIN,
    default_toleration_seconds::PLUGIN,
    service_account_token::PLUGIN,
    node_restriction::PLUGIN,
    certificate_request::PLUGIN,
    default_storage_class::PLUGIN,
    storage_object_in_use_protection::PLUGIN,
    persistent_volume_claim_resize::PLUGIN,
    runtime_class::PLUGIN,
];

/// What is checked once the object is valid, and changes nothing.
const CHECKS: &[Plugin] = &[limit_ranger::CHECK, resource_quota::CHECK];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Create,
    Update,
    Status,
    Delete,
}

/// Who wants to do what to which object, and what the cluster looks like.
pub(crate) struct Attempt<'a> {
    pub(crate) server: &'a Server,
    pub(crate) view: &'a View,
    pub(crate) kind: &'a KindRef,
    pub(crate) key: &'a ObjectKey,
    pub(crate) act: Act,
    pub(crate) user: &'a User,
    pub(crate) old: Option<&'a dyn Erased>,
    pub(crate) now: Timestamp,
    pub(crate) checks: Vec<Check>,
    /// Other keys that the commit writes.
    pub(crate) writes: Vec<Write>,
    /// Whether the object uses more of a quota: such commits of a namespace come one after another.
    pub(crate) charges: bool,
}

impl<'a> Attempt<'a> {
    #[allow(
        clippy::too_many_arguments,
        reason = "each is another thing, and named where it is given"
    )]
    pub(crate) fn new(
        server: &'a Server,
        view: &'a View,
        kind: &'a KindRef,
        key: &'a ObjectKey,
        act: Act,
        user: &'a User,
        old: Option<&'a dyn Erased>,
        now: Timestamp,
    ) -> Attempt<'a> {
        let (checks, writes) = (Vec::new(), Vec::new());
        Attempt { server, view, kind, key, act, user, old, now, checks, writes, charges: false }
    }
}

/// The checks that are switched on.
pub(crate) struct Chain {
    mutating: Vec<&'static Plugin>,
    checking: Vec<&'static Plugin>,
}

impl Chain {
    pub(crate) fn new(
        enabled: &BTreeSet<String>,
        disabled: &BTreeSet<String>,
    ) -> Result<Chain, Error> {
        let all = || CHAIN.iter().chain(CHECKS);
        let known = |name: &&String| all().any(|it| it.name == name.as_str());
        if let Some(name) = enabled.iter().chain(disabled).find(|it| !known(it)) {
            return Err(Error::UnknownAdmission(name.clone()));
        }
        let on = |it: &&Plugin| enabled.contains(it.name) || !disabled.contains(it.name);
        let of = |list: &'static [Plugin]| list.iter().filter(on).collect();
        Ok(Chain { mutating: of(CHAIN), checking: of(CHECKS) })
    }

    /// Before the object is prepared and validated.
    pub(crate) fn admit(
        &self,
        attempt: &mut Attempt<'_>,
        mut object: Option<&mut AnyObject>,
    ) -> Result<(), Failure> {
        self.mutating.iter().try_for_each(|it| (it.admit)(attempt, object.as_deref_mut()))
    }

    /// Once it is valid.
    pub(crate) fn check(
        &self,
        attempt: &mut Attempt<'_>,
        object: &mut AnyObject,
    ) -> Result<(), Failure> {
        self.checking.iter().try_for_each(|it| (it.admit)(attempt, Some(object)))
    }
}
