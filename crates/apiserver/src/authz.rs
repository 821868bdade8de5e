//! May they: masters may everything, nodes what concerns their pods, everyone what roles give them.
//! Whatever no one allows is refused.
//!
//! Loops of this process are not asked: they hold the ledger's bytes anyway, so a check would cost
//! every write and protect nothing. They still write under the names of upstream's controllers.
//!
//! Upstream: `apiserver/pkg/authorization/union`; `apiserver/pkg/endpoints/handlers/responsewriters/errors.go`
//! for the words.

pub(crate) mod bootstrap;
pub(crate) mod escalation;
mod node;
pub(crate) mod policy;

use crate::{server::Server, target::Target, user::User, view::View};
use api::{Failure, failure::Details};
use policy::Policy;
use std::sync::Arc;

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    pub(crate) verb: &'a str,
    pub(crate) about: About<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum About<'a> {
    Objects(Objects<'a>),
    /// A path that is about no objects.
    Path(&'a str),
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Objects<'a> {
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    /// Empty: all of them, or objects of the cluster.
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// The field selector of a list or a watch, as it was written.
    pub(crate) fields: &'a str,
}

/// Allowed or not, and why, as far as there is something to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) allowed: bool,
    pub(crate) reason: String,
}

impl Verdict {
    pub(crate) fn yes(reason: impl Into<String>) -> Verdict {
        Verdict { allowed: true, reason: reason.into() }
    }

    pub(crate) fn no(reason: impl Into<String>) -> Verdict {
        Verdict { allowed: false, reason: reason.into() }
    }
}

impl<'a> Wish<'a> {
    pub(crate) fn of(verb: &'a str, target: &'a Target) -> Wish<'a> {
        let kind = &target.kind;
        // A namespace lies in itself, as upstream reads its path.
        let is_namespace = kind.plural == "namespaces" && kind.group.is_empty();
        let namespace = if is_namespace { &target.name } else { &target.namespace };
        Wish {
            verb,
            about: About::Objects(Objects {
                group: target.group(),
                resource: &kind.plural,
                subresource: &target.subresource,
                namespace,
                name: &target.name,
                fields: "",
            }),
        }
    }

    pub(crate) fn path(verb: &'a str, path: &'a str) -> Wish<'a> {
        Wish { verb, about: About::Path(path) }
    }
}

impl Server {
    /// Judges a wish by the roles of a view.
    pub(crate) fn authorize(&self, view: &View, user: &User, wish: &Wish<'_>) -> Verdict {
        if user.is_master() {
            return Verdict::yes("");
        }
        let mut reasons = Vec::new();
        if let Some(name) = user.node() {
            let verdict = node::authorize(view, name, wish);
            if verdict.allowed {
                return verdict;
            }
            reasons.push(verdict.reason);
        }
        let verdict = self.policy(view).authorize(user, wish);
        if verdict.allowed {
            return verdict;
        }
        reasons.push(verdict.reason);
        reasons.retain(|it| !it.is_empty());
        Verdict::no(reasons.join("\n"))
    }

    /// Lets a wish through, or says that it may not be.
    pub(crate) fn permit(&self, view: &View, user: &User, wish: &Wish<'_>) -> Result<(), Failure> {
        match self.authorize(view, user, wish) {
            Verdict { allowed: true, .. } => Ok(()),
            Verdict { reason, .. } => Err(forbidden(user, wish, &reason)),
        }
    }

    /// The roles of a view, ready to be asked. Made anew only when a role or a binding has changed.
    pub(crate) fn policy(&self, view: &View) -> Arc<Policy> {
        let known = self.policy.read().expect("no panic while held").clone();
        if known.is_of(view) {
            return known;
        }
        let new = Arc::new(Policy::of(view, &known));
        let mut latest = self.policy.write().expect("no panic while held");
        // A view that lags is judged by its own roles; it does not take the newer ones back.
        if latest.is_older_than(&new) {
            *latest = new.clone();
        }
        new
    }
}

/// The refusal, in upstream's words.
pub(crate) fn forbidden(user: &User, wish: &Wish<'_>, reason: &str) -> Failure {
    let (name, verb) = (&user.name, wish.verb);
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let it = match wish.about {
        About::Objects(it) => it,
        About::Path(path) => {
            let verb = verb.to_lowercase();
            let message = format!("forbidden: User {name:?} cannot {verb} path {path:?}{reason}");
            let details = Some(Box::new(Details::default()));
            return Failure { details, ..Failure::new(403, "Forbidden", message) };
        }
    };
    let resource = match it.subresource {
        "" => it.resource.to_owned(),
        subresource => format!("{}/{subresource}", it.resource),
    };
    let place = match it.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let qualified = match it.group {
        "" => it.resource.to_owned(),
        group => format!("{}.{group}", it.resource),
    };
    let about = match it.name {
        "" => qualified,
        name => format!("{qualified} {name:?}"),
    };
    let message = format!(
        "{about} is forbidden: User {name:?} cannot {verb} resource {resource:?} in API group {:?} {place}{reason}",
        it.group
    );
    let details = Details {
        name: it.name.to_owned(),
        group: it.group.to_owned(),
        kind: it.resource.to_owned(),
        ..Details::default()
    };
    Failure { details: Some(Box::new(details)), ..Failure::new(403, "Forbidden", message) }
}
