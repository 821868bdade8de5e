//! A namespace uses no more than its quotas allow, however many write at once.
//!
//! What is used is summed up from the world that is judged, not from the quota's status, which its
//! controller brings up to date afterwards. Each commit that uses more writes one key of its
//! namespace and expects it as it was judged: of two that judged the same world, one is judged again.
//!
//! Upstream: `apiserver/pkg/admission/plugin/resourcequota/controller.go`, CheckRequest.

use super::{Act, Attempt, Plugin};
use crate::view::View;
use api::{
    AnyObject, Failure, Object,
    core::{
        resource_quota::{self as quotas, Usage},
        v1::ResourceQuota,
    },
    meta::Exact,
};
use store::{Change, Expect, Key, Revision, Write};

pub(super) const CHECK: Plugin = Plugin { name: "ResourceQuota", admit: check };

/// One key for each namespace in which something was ever charged.
pub(crate) const EPOCHS: &str = "/registry/stanchion/quotas/";

fn check(attempt: &mut Attempt<'_>, object: Option<&mut AnyObject>) -> Result<(), Failure> {
    let Some(object) = object.map(|it| &**it) else { return Ok(()) };
    if !matches!(attempt.act, Act::Create | Act::Update) || !quotas::is_charged(attempt.kind) {
        return Ok(());
    }
    let (kind, world) = (attempt.kind, &attempt.view.world);
    let refuse = |why: String| Err(Failure::forbidden(kind, &attempt.key.name, &why));
    let mut charged = false;
    for quota in world.list::<ResourceQuota>(&attempt.key.namespace) {
        let names = quotas::names_about(&quota, kind);
        if names.is_empty() || !quotas::covers(&quota, object) {
            continue;
        }
        let name = quota.name();
        let usage = quotas::quota_usage(kind, object, attempt.now);
        let before = attempt.old.filter(|it| quotas::covers(&quota, *it));
        let before = before.map(|it| quotas::quota_usage(kind, it, attempt.now));
        let more = more(&usage, before.as_ref(), &names);
        if attempt.act == Act::Create {
            let missing = quotas::missing(&names, object);
            if !missing.is_empty() {
                return refuse(format!("failed quota: {name}: must specify {missing}"));
            }
        }
        if more.is_empty() {
            continue;
        }
        charged = true;
        let used = world::quota::used(world, &quota, attempt.now);
        let hard = quotas::hard(&quota);
        let limit = |it: &str| hard.get(it).map(Exact::of).unwrap_or_default();
        let have = |it: &str| used.get(it).copied().unwrap_or_default();
        let exceeded: Vec<&String> = more
            .iter()
            .filter(|(it, more)| have(it) + **more > limit(it))
            .map(|(it, _)| it)
            .collect();
        if exceeded.is_empty() {
            continue;
        }
        let those = |of: &dyn Fn(&str) -> Exact| -> String {
            let usage: Usage = exceeded.iter().map(|it| ((*it).clone(), of(it))).collect();
            quotas::shown(&usage)
        };
        return refuse(format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            those(&|it| more[it]),
            those(&have),
            those(&limit)
        ));
    }
    if charged {
        attempt.writes.push(turn(attempt.view, &attempt.key.namespace));
        attempt.charges = true;
    }
    Ok(())
}

/// What is used beyond what was used before.
fn more(usage: &Usage, before: Option<&Usage>, names: &[String]) -> Usage {
    let beyond = |(name, amount): (&String, &Exact)| {
        let before = before.and_then(|it| it.get(name)).copied().unwrap_or_default();
        let more = *amount - before;
        (names.contains(name) && more > Exact::ZERO).then(|| (name.clone(), more))
    };
    usage.iter().filter_map(beyond).collect()
}

fn epoch(namespace: &str) -> Key {
    format!("{EPOCHS}{namespace}").into()
}

/// The write that no other charge of the namespace can be made beside.
fn turn(view: &View, namespace: &str) -> Write {
    let key = epoch(namespace);
    let expect = match view.epochs.get(&key) {
        Some(revision) => Expect::At(Revision(*revision)),
        None => Expect::Absent,
    };
    Write { key, expect, change: Change::Put { value: "{}".into(), lease: None } }
}

/// What goes with a namespace.
pub(crate) fn forget(view: &View, namespace: &str) -> Option<Write> {
    let key = epoch(namespace);
    let revision = *view.epochs.get(&key)?;
    Some(Write { key, expect: Expect::At(Revision(revision)), change: Change::Delete })
}
