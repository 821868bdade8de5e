//! Nothing is created in a namespace that is not there or that is going, and some never go.
//!
//! Upstream: `apiserver/pkg/admission/plugin/namespace/lifecycle/admission.go`. Where upstream waits
//! for its cache and looks again, the commit checks that the namespace is still as it was judged.

use super::{Act, Attempt, Plugin};
use api::{AnyObject, Failure, core::v1::Namespace, failure::Cause};
use store::{Check, Expect, Revision};
use world::ObjectKey;

pub(super) const PLUGIN: Plugin = Plugin { name: "NamespaceLifecycle", admit };

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

fn admit(attempt: &mut Attempt<'_>, _: Option<&mut AnyObject>) -> Result<(), Failure> {
    let kind = attempt.kind;
    let namespaces = api::kind_of::<Namespace>();
    if kind == namespaces {
        let immortal = IMMORTAL.contains(&&*attempt.key.name);
        return match attempt.act {
            Act::Delete if immortal => {
                let why = "this namespace may not be deleted";
                Err(Failure::forbidden(kind, &attempt.key.name, why))
            }
            Act::Create | Act::Update | Act::Status | Act::Delete => Ok(()),
        };
    }
    if attempt.key.namespace.is_empty() || matches!(attempt.act, Act::Delete | Act::Status) {
        return Ok(());
    }
    let name = &*attempt.key.namespace;
    let row = attempt.view.row(namespaces, &ObjectKey::cluster(name));
    let row = row.ok_or_else(|| Failure::not_found(namespaces, name))?;
    if attempt.act != Act::Create {
        return Ok(());
    }
    if row.meta.deletion.is_none() {
        let key = namespaces.key("", name).into();
        attempt.checks.push(Check { key, expect: Expect::At(Revision(row.revision)) });
        return Ok(());
    }
    let why =
        format!("unable to create new content in namespace {name} because it is being terminated");
    let mut failure = Failure::forbidden(kind, &attempt.key.name, &why);
    failure.details.get_or_insert_default().causes.push(Cause {
        reason: "NamespaceTerminating".to_owned(),
        message: format!("namespace {name} is being terminated"),
        field: "metadata.namespace".to_owned(),
    });
    Err(failure)
}
