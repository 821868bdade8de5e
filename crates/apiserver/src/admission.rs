//! The built-in checks between defaulting and validation, in upstream's order.
//!
//! Upstream: `pkg/kubeapiserver/options/plugins.go` for names, order and defaults.

mod default_storage_class;
mod namespace_lifecycle;
mod persistent_volume_claim_resize;
mod service_account;
pub(crate) mod service_address;
mod storage_object_in_use_protection;

use crate::{error::Error, user::User, view::View};
use api::{AnyObject, Erased, Failure, KindRef};
use std::collections::BTreeSet;
use store::Check;
use world::ObjectKey;

/// One admission check. It may change the object, refuse the request, or ask that what it looked at
/// is still so at the commit.
pub(crate) struct Plugin {
    name: &'static str,
    admit: fn(&mut Attempt<'_>, Option<&mut AnyObject>) -> Result<(), Failure>,
}

const CHAIN: &[Plugin] = &[
    namespace_lifecycle::PLUGIN,
    service_account::PLUGIN,
    default_storage_class::PLUGIN,
    storage_object_in_use_protection::PLUGIN,
    persistent_volume_claim_resize::PLUGIN,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Create,
    Update,
    Status,
    Delete,
}

/// Who wants to do what to which object, and what the cluster looks like.
pub(crate) struct Attempt<'a> {
    pub(crate) view: &'a View,
    pub(crate) kind: &'a KindRef,
    pub(crate) key: &'a ObjectKey,
    pub(crate) act: Act,
    #[allow(dead_code, reason = "quota and node restriction ask who it is")]
    pub(crate) user: &'a User,
    pub(crate) old: Option<&'a dyn Erased>,
    pub(crate) checks: Vec<Check>,
}

impl<'a> Attempt<'a> {
    pub(crate) fn new(
        view: &'a View,
        kind: &'a KindRef,
        key: &'a ObjectKey,
        act: Act,
        user: &'a User,
        old: Option<&'a dyn Erased>,
    ) -> Attempt<'a> {
        Attempt { view, kind, key, act, user, old, checks: Vec::new() }
    }
}

/// The checks that are switched on.
pub(crate) struct Chain(Vec<&'static Plugin>);

impl Chain {
    pub(crate) fn new(
        enabled: &BTreeSet<String>,
        disabled: &BTreeSet<String>,
    ) -> Result<Chain, Error> {
        let known = |name: &&String| CHAIN.iter().any(|it| it.name == name.as_str());
        if let Some(name) = enabled.iter().chain(disabled).find(|it| !known(it)) {
            return Err(Error::UnknownAdmission(name.clone()));
        }
        let on = |it: &&Plugin| enabled.contains(it.name) || !disabled.contains(it.name);
        Ok(Chain(CHAIN.iter().filter(on).collect()))
    }

    pub(crate) fn admit(
        &self,
        attempt: &mut Attempt<'_>,
        mut object: Option<&mut AnyObject>,
    ) -> Result<(), Failure> {
        self.0.iter().try_for_each(|it| (it.admit)(attempt, object.as_deref_mut()))
    }
}
