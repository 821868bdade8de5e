//! Nobody gives what they do not have: writing a role takes its rules or `escalate`, binding one takes
//! its rules or `bind`.
//!
//! Upstream: `pkg/registry/rbac/{escalation_check.go,*/policybased/storage.go}`,
//! `component-helpers/auth/rbac/validation/policy_comparator.go`.

use super::{
    About, Objects, Wish,
    policy::{Policy, covers_path, not_found},
};
use crate::{server::Server, user::User, view::View};
use api::{
    Erased, Failure, KindRef, Object, rbac,
    rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef},
};
use std::collections::BTreeSet;

/// Judges the write of a role or a binding; every other object may pass.
pub(crate) fn check(
    server: &Server,
    view: &View,
    user: &User,
    kind: &KindRef,
    object: &dyn Erased,
    old: Option<&dyn Erased>,
) -> Result<(), Failure> {
    if kind.group != rbac::GROUP
        || user.is_master()
        || old.is_some_and(|it| is_letting_go(object, it))
    {
        return Ok(());
    }
    let judge = Judge { server, view, user, kind, policy: server.policy(view) };
    let any = object.as_any();
    if let Some(role) = any.downcast_ref::<Role>() {
        judge.role(role.namespace(), role.name(), role.rules.as_deref(), false)
    } else if let Some(role) = any.downcast_ref::<ClusterRole>() {
        let gathers = |it: &ClusterRole| {
            let selectors = it.aggregation_rule.as_ref().map(|it| &it.cluster_role_selectors);
            selectors.is_some_and(|it| it.as_ref().is_some_and(|it| !it.is_empty()))
        };
        let before = old.and_then(|it| it.as_any().downcast_ref::<ClusterRole>());
        let gathers = gathers(role) || before.is_some_and(gathers);
        judge.role("", role.name(), role.rules.as_deref(), gathers)
    } else if let Some(binding) = any.downcast_ref::<RoleBinding>() {
        judge.binding(binding.namespace(), binding.name(), &binding.role_ref)
    } else if let Some(binding) = any.downcast_ref::<ClusterRoleBinding>() {
        judge.binding("", binding.name(), &binding.role_ref)
    } else {
        Ok(())
    }
}

/// Whether nothing changes but what holds a deletion up: the collector must be able to let go.
fn is_letting_go(object: &dyn Erased, old: &dyn Erased) -> bool {
    let mut copy = object.clone_box();
    let (meta, was) = (copy.metadata_mut(), old.metadata());
    meta.finalizers.clone_from(&was.finalizers);
    meta.managed_fields.clone_from(&was.managed_fields);
    meta.owner_references.clone_from(&was.owner_references);
    meta.resource_version.clone_from(&was.resource_version);
    copy.equals(old)
}

/// Pieces of the rules of one role that are compared: more than any role of a person has, and few enough to be held.
const GRAINS_MAX: usize = 10_000;

struct Judge<'a> {
    server: &'a Server,
    view: &'a View,
    user: &'a User,
    kind: &'a KindRef,
    policy: std::sync::Arc<Policy>,
}

impl Judge<'_> {
    fn may(&self, verb: &str, resource: &str, namespace: &str, name: &str) -> bool {
        let group = rbac::GROUP;
        let about = Objects { group, resource, namespace, name, ..Objects::default() };
        let wish = Wish { verb, about: About::Objects(about) };
        self.server.authorize(self.view, self.user, &wish).allowed
    }

    fn role(
        &self,
        namespace: &str,
        name: &str,
        rules: Option<&[PolicyRule]>,
        gathers: bool,
    ) -> Result<(), Failure> {
        if self.may("escalate", &self.kind.plural, namespace, name) {
            return Ok(());
        }
        let refused = |why: &str| Err(Failure::forbidden(self.kind, name, why));
        if let Err(why) = self.holds(namespace, rules.unwrap_or_default()) {
            return refused(&why);
        }
        if gathers && self.holds(namespace, &everything()).is_err() {
            return refused("must have cluster-admin privileges to use the aggregationRule");
        }
        Ok(())
    }

    fn binding(&self, namespace: &str, name: &str, role: &RoleRef) -> Result<(), Failure> {
        let resource = if role.kind == "Role" { "roles" } else { "clusterroles" };
        if self.may("bind", resource, namespace, &role.name) {
            return Ok(());
        }
        let Some(rules) = self.policy.rules_of(namespace, role) else {
            return Err(Failure::new(404, "NotFound", not_found(role)));
        };
        self.holds(namespace, &rules).map_err(|why| Failure::forbidden(self.kind, name, &why))
    }

    /// Whether the user has all of these rules; else which are missing.
    fn holds(&self, namespace: &str, wanted: &[PolicyRule]) -> Result<(), String> {
        if wanted.iter().map(size).fold(0, usize::saturating_add) > GRAINS_MAX {
            return Err(format!(
                "its rules come to more than {GRAINS_MAX} permissions, and cannot be compared with those of the user"
            ));
        }
        let own = self.policy.rules(self.user, namespace);
        let missing: Vec<Grain> = wanted
            .iter()
            .flat_map(grains)
            .filter(|it| !own.iter().any(|rule| covers(rule, it)))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let shown: BTreeSet<String> = compact(missing).iter().map(show).collect();
        let groups: Vec<String> = self.user.groups.iter().map(|it| format!("{it:?}")).collect();
        Err(format!(
            "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
            self.user.name,
            groups.join(" "),
            shown.into_iter().collect::<Vec<_>>().join("\n")
        ))
    }
}

fn everything() -> [PolicyRule; 2] {
    let star = || vec!["*".to_owned()];
    [
        PolicyRule {
            verbs: star(),
            api_groups: Some(star()),
            resources: Some(star()),
            ..PolicyRule::default()
        },
        PolicyRule { verbs: star(), non_resource_urls: Some(star()), ..PolicyRule::default() },
    ]
}

/// The smallest piece of a rule: one verb on one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Grain {
    Objects { verb: String, group: String, resource: String, name: Option<String> },
    Path { verb: String, url: String },
}

/// How many pieces a rule has.
fn size(rule: &PolicyRule) -> usize {
    let len = |it: &Option<Vec<String>>| it.as_ref().map_or(0, Vec::len);
    let objects = len(&rule.api_groups)
        .saturating_mul(len(&rule.resources))
        .saturating_mul(len(&rule.resource_names).max(1));
    rule.verbs.len().saturating_mul(objects.saturating_add(len(&rule.non_resource_urls)))
}

fn grains(rule: &PolicyRule) -> Vec<Grain> {
    let list = |it: &Option<Vec<String>>| it.clone().unwrap_or_default();
    let mut all = Vec::new();
    let names: Vec<Option<String>> = match list(&rule.resource_names) {
        names if names.is_empty() => vec![None],
        names => names.into_iter().map(Some).collect(),
    };
    for verb in &rule.verbs {
        for group in list(&rule.api_groups) {
            for resource in list(&rule.resources) {
                for name in names.clone() {
                    let (verb, group) = (verb.clone(), group.clone());
                    let resource = resource.clone();
                    all.push(Grain::Objects { verb, group, resource, name });
                }
            }
        }
        for url in list(&rule.non_resource_urls) {
            all.push(Grain::Path { verb: verb.clone(), url });
        }
    }
    all
}

fn covers(rule: &PolicyRule, grain: &Grain) -> bool {
    let has = |list: &[String], it: &str| list.iter().any(|one| one == "*" || one == it);
    let list = |it: &'_ Option<Vec<String>>| it.clone().unwrap_or_default();
    match grain {
        Grain::Objects { verb, group, resource, name } => {
            let resources = list(&rule.resources);
            let any = resource.split_once('/').map(|(_, it)| format!("*/{it}"));
            let names = list(&rule.resource_names);
            has(&rule.verbs, verb)
                && has(&list(&rule.api_groups), group)
                && (has(&resources, resource) || any.is_some_and(|it| resources.contains(&it)))
                && (names.is_empty() || name.as_ref().is_some_and(|it| names.contains(it)))
        }
        Grain::Path { verb, url } => {
            has(&rule.verbs, verb)
                && list(&rule.non_resource_urls).iter().any(|it| covers_path(it, url))
        }
    }
}

/// Those of the wanted rules that the own ones do not cover, piece by piece.
pub(super) fn missing(own: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let grains = wanted.iter().flat_map(grains);
    let missing = grains.filter(|it| !own.iter().any(|rule| covers(rule, it))).collect();
    compact(missing).into_iter().map(rule).collect()
}

fn rule((verbs, grain): (Vec<String>, Grain)) -> PolicyRule {
    match grain {
        Grain::Objects { group, resource, name, .. } => PolicyRule {
            verbs,
            api_groups: Some(vec![group]),
            resources: Some(vec![resource]),
            resource_names: name.map(|it| vec![it]),
            non_resource_urls: None,
        },
        Grain::Path { url, .. } => {
            PolicyRule { verbs, non_resource_urls: Some(vec![url]), ..PolicyRule::default() }
        }
    }
}

/// Grains that differ in nothing but their verb, as one rule.
fn compact(missing: Vec<Grain>) -> Vec<(Vec<String>, Grain)> {
    let bare = |grain: &Grain| match grain.clone() {
        Grain::Objects { verb, group, resource, name } => {
            (verb, Grain::Objects { verb: String::new(), group, resource, name })
        }
        Grain::Path { verb, url } => (verb, Grain::Path { verb: String::new(), url }),
    };
    let mut rules: Vec<(Vec<String>, Grain)> = Vec::new();
    for grain in missing {
        let (verb, rest) = bare(&grain);
        match rules.iter_mut().find(|it| it.1 == rest) {
            Some((verbs, _)) if verbs.contains(&verb) => {}
            Some((verbs, _)) => verbs.push(verb),
            None => rules.push((vec![verb], rest)),
        }
    }
    rules
}

/// `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`
fn show((verbs, grain): &(Vec<String>, Grain)) -> String {
    let verbs: Vec<String> = verbs.iter().map(|it| format!("{it:?}")).collect();
    let verbs = verbs.join(" ");
    match grain {
        Grain::Objects { group, resource, name, .. } => {
            let name = name.as_ref().map(|it| format!(", ResourceNames:[{it:?}]"));
            let name = name.unwrap_or_default();
            format!("{{APIGroups:[{group:?}], Resources:[{resource:?}]{name}, Verbs:[{verbs}]}}")
        }
        Grain::Path { url, .. } => format!("{{NonResourceURLs:[{url:?}], Verbs:[{verbs}]}}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], resources: &[&str]) -> PolicyRule {
        let owned = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        PolicyRule {
            verbs: owned(verbs),
            api_groups: Some(vec![String::new()]),
            resources: Some(owned(resources)),
            ..PolicyRule::default()
        }
    }

    #[test]
    fn what_is_missing_is_named_by_resource() {
        let own = rule(&["get"], &["pods", "*/log"]);
        let wanted = rule(&["get", "list"], &["pods", "nodes/log"]);
        let missing: Vec<Grain> =
            grains(&wanted).into_iter().filter(|it| !covers(&own, it)).collect();
        let shown: Vec<String> = compact(missing).iter().map(show).collect();
        assert_eq!(
            shown,
            [
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["list"]}"#,
                r#"{APIGroups:[""], Resources:["nodes/log"], Verbs:["list"]}"#,
            ]
        );
        assert!(everything().iter().flat_map(grains).all(|it| !covers(&own, &it)));
        assert_eq!((size(&wanted), grains(&wanted).len()), (4, 4));
        let many = vec!["x"; 3_000];
        assert_eq!(size(&rule(&many, &many)), 9_000_000);
    }
}
