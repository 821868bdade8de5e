//! The roles and bindings that every cluster begins with, and how a cluster that has others keeps up.
//!
//! `bootstrap/roles.txt` holds them a line each: `cluster-role NAME` or `role NAMESPACE NAME`, with
//! `+label` (gathered by that role) and `<label` (gathers those); below it its rules, as
//! `verbs groups: resources = names` or `verbs /paths`; `core` stands for the group without a name.
//! `cluster-bind NAME Kind/role subjects` and `bind NAMESPACE NAME Kind/role subjects` give them.
//!
//! At every start what is missing is added: objects, rules, subjects. What somebody added stays, and
//! objects annotated with `rbac.authorization.kubernetes.io/autoupdate: "false"` stay as they are.
//!
//! Upstream: `plugin/pkg/auth/authorizer/rbac/bootstrappolicy` for the facts,
//! `component-helpers/auth/rbac/reconciliation` for the rest. The last lines are ours: what nodes need
//! to join, which kubeadm binds upstream.

use super::escalation;
use crate::{error::Error, server::Server};
use api::{
    Kind,
    meta::{LabelSelector, ObjectMeta},
    rbac::{
        GROUP,
        v1::{
            AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding,
            RoleRef, Subject,
        },
    },
};
use futures_util::{StreamExt, stream};
use std::{collections::BTreeMap, sync::Arc};
use world::{Change, ObjectKey, World};

const TEXT: &str = include_str!("bootstrap/roles.txt");
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const LABELS: &str = "rbac.authorization.k8s.io/";

/// Writes under way at once: they share syncs of the ledger.
const WRITES: usize = 64;

/// Everything of one file.
#[derive(Debug, Default, PartialEq)]
struct Defaults {
    cluster_roles: Vec<ClusterRole>,
    roles: Vec<Role>,
    cluster_bindings: Vec<ClusterRoleBinding>,
    bindings: Vec<RoleBinding>,
}

/// Adds what is missing.
pub(crate) async fn fill(server: &Arc<Server>) -> Result<(), Error> {
    let client = server.client("system:apiserver");
    let world = client.world();
    let defaults = read(TEXT);
    let mut changes = Vec::new();
    changes.extend(defaults.cluster_roles.into_iter().filter_map(|it| {
        keep_up(&world, it, |old, new| {
            let rules = with_rules(&old.rules, &new.rules);
            let gathers = old.aggregation_rule.is_none() && new.aggregation_rule.is_some();
            if gathers {
                old.aggregation_rule.clone_from(&new.aggregation_rule);
            }
            // What is gathered is the gatherer's to write.
            let more = rules.filter(|_| old.aggregation_rule.is_none());
            let grows = more.is_some();
            old.rules = more.or(old.rules.take());
            grows || gathers
        })
    }));
    changes.extend(defaults.roles.into_iter().filter_map(|it| {
        keep_up(&world, it, |old, new| {
            let rules = with_rules(&old.rules, &new.rules);
            let grows = rules.is_some();
            old.rules = rules.or(old.rules.take());
            grows
        })
    }));
    changes.extend(defaults.cluster_bindings.into_iter().filter_map(|it| {
        keep_up(&world, it, |old, new| add_subjects(&mut old.subjects, &new.subjects))
    }));
    changes.extend(defaults.bindings.into_iter().filter_map(|it| {
        keep_up(&world, it, |old, new| add_subjects(&mut old.subjects, &new.subjects))
    }));
    let client = &client;
    let writes = stream::iter(changes.into_iter().map(|change| async move {
        let what = change.to_string();
        match client.write(vec![change]).await {
            Ok(_) => Ok(()),
            // Another server of this ledger was first.
            Err(failure) if failure.is_already_exists() || failure.is_conflict() => Ok(()),
            Err(source) => Err(Error::Startup { what, source }),
        }
    }));
    let mut writes = writes.buffer_unordered(WRITES);
    while let Some(written) = writes.next().await {
        written?;
    }
    Ok(())
}

/// The write that brings an object up to date, if it takes one.
fn keep_up<T: Kind>(
    world: &World,
    new: T,
    extend: impl FnOnce(&mut T, &T) -> bool,
) -> Option<Change> {
    let Some(old) = world.get::<T>(&ObjectKey::of(&new)) else { return Some(Change::create(new)) };
    if old.annotation(AUTOUPDATE) == Some("false") {
        return None;
    }
    let mut object = old.to_owned();
    let mut grows = extend(&mut object, &new);
    let (meta, wanted) = (object.metadata_mut(), new.metadata());
    for (own, wanted) in
        [(&mut meta.labels, &wanted.labels), (&mut meta.annotations, &wanted.annotations)]
    {
        let own = own.get_or_insert_default();
        for (key, value) in wanted.iter().flatten() {
            grows |= own.insert(key.clone(), value.clone()).as_ref() != Some(value);
        }
    }
    grows.then(|| Change::update(object))
}

/// The rules with those that are missing, if some are.
fn with_rules(
    old: &Option<Vec<PolicyRule>>,
    new: &Option<Vec<PolicyRule>>,
) -> Option<Vec<PolicyRule>> {
    let mut rules = old.clone().unwrap_or_default();
    let missing = escalation::missing(&rules, new.as_deref().unwrap_or_default());
    let grows = !missing.is_empty();
    rules.extend(missing);
    grows.then_some(rules)
}

fn add_subjects(old: &mut Option<Vec<Subject>>, new: &Option<Vec<Subject>>) -> bool {
    let own = old.get_or_insert_default();
    let before = own.len();
    for subject in new.iter().flatten() {
        if !own.contains(subject) {
            own.push(subject.clone());
        }
    }
    own.len() > before
}

fn read(text: &str) -> Defaults {
    let mut all = Defaults::default();
    let mut in_cluster_role = false;
    for line in text.lines() {
        if let Some(rule) = line.strip_prefix("  ") {
            let rules = match in_cluster_role {
                true => all.cluster_roles.last_mut().map(|it| &mut it.rules),
                false => all.roles.last_mut().map(|it| &mut it.rules),
            };
            rules.expect("rules follow their role").get_or_insert_default().push(self::rule(rule));
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        match *words.as_slice() {
            ["cluster-role", name, ref rest @ ..] => {
                in_cluster_role = true;
                all.cluster_roles.push(cluster_role(name, rest));
            }
            ["role", namespace, name] => {
                in_cluster_role = false;
                let metadata = metadata(namespace, name);
                all.roles.push(Role { metadata, rules: None });
            }
            ["cluster-bind", name, role, ref subjects @ ..] => {
                all.cluster_bindings.push(ClusterRoleBinding {
                    metadata: metadata("", name),
                    role_ref: reference(role),
                    subjects: Some(subjects.iter().map(|it| subject(it)).collect()),
                });
            }
            ["bind", namespace, name, role, ref subjects @ ..] => {
                all.bindings.push(RoleBinding {
                    metadata: metadata(namespace, name),
                    role_ref: reference(role),
                    subjects: Some(subjects.iter().map(|it| subject(it)).collect()),
                });
            }
            _ => unreachable!("no such line: {line}"),
        }
    }
    all
}

fn metadata(namespace: &str, name: &str) -> ObjectMeta {
    let one = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
        labels: Some(one("kubernetes.io/bootstrapping", "rbac-defaults")),
        annotations: Some(one(AUTOUPDATE, "true")),
        ..ObjectMeta::default()
    }
}

fn cluster_role(name: &str, marks: &[&str]) -> ClusterRole {
    let mut metadata = metadata("", name);
    let mut selectors = Vec::new();
    for mark in marks {
        let label = |it: &str| (format!("{LABELS}{it}"), "true".to_owned());
        match mark.split_at(1) {
            ("+", it) => {
                metadata.labels.get_or_insert_default().extend([label(it)]);
            }
            ("<", it) => selectors.push(LabelSelector {
                match_labels: Some(BTreeMap::from([label(it)])),
                ..LabelSelector::default()
            }),
            _ => unreachable!("no such mark: {mark}"),
        }
    }
    let aggregation_rule = (!selectors.is_empty())
        .then_some(AggregationRule { cluster_role_selectors: Some(selectors) });
    ClusterRole { metadata, aggregation_rule, rules: None }
}

fn rule(line: &str) -> PolicyRule {
    let list =
        |text: &str, by: char| -> Vec<String> { text.split(by).map(str::to_owned).collect() };
    let (verbs, rest) = line.split_once(' ').expect("verbs, then what they are about");
    let verbs = list(verbs, ',');
    let Some((groups, resources)) = rest.split_once(": ") else {
        let non_resource_urls = Some(list(rest, ' '));
        return PolicyRule { verbs, non_resource_urls, ..PolicyRule::default() };
    };
    let (resources, names) = match resources.split_once(" = ") {
        Some((resources, names)) => (resources, Some(list(names, ' '))),
        None => (resources, None),
    };
    let group = |it: &str| if it == "core" { String::new() } else { it.to_owned() };
    PolicyRule {
        verbs,
        api_groups: Some(groups.split(',').map(group).collect()),
        resources: Some(list(resources, ' ')),
        resource_names: names,
        non_resource_urls: None,
    }
}

fn reference(text: &str) -> RoleRef {
    let (kind, name) = text.split_once('/').expect("kind and name of a role");
    let (kind, name) = (kind.to_owned(), name.to_owned());
    RoleRef { api_group: Some(GROUP.to_owned()), kind, name }
}

fn subject(text: &str) -> Subject {
    let (kind, name) = text.split_once(':').expect("kind and name of a subject");
    let of_group = |kind: &str| Subject {
        api_group: Some(GROUP.to_owned()),
        kind: kind.to_owned(),
        name: name.to_owned(),
        namespace: None,
    };
    match kind {
        "user" => of_group("User"),
        "group" => of_group("Group"),
        _ => {
            let (namespace, name) = name.split_once('/').expect("namespace and name");
            Subject {
                api_group: None,
                kind: "ServiceAccount".to_owned(),
                name: name.to_owned(),
                namespace: Some(namespace.to_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{Errors, Object};

    #[test]
    fn every_line_is_a_role_a_rule_or_a_binding() {
        let all = read(TEXT);
        assert_eq!(all.cluster_roles.len() + all.roles.len(), 80);
        let mut errors = Errors::default();
        all.cluster_roles.iter().for_each(|it| it.validate(&mut errors));
        all.roles.iter().for_each(|it| it.validate(&mut errors));
        all.cluster_bindings.iter().for_each(|it| it.validate(&mut errors));
        all.bindings.iter().for_each(|it| it.validate(&mut errors));
        assert_eq!(errors.message(), "");
        let known = |name: &str| all.cluster_roles.iter().any(|it| it.name() == name);
        assert!(all.cluster_bindings.iter().all(|it| known(&it.role_ref.name)));
        let edit = all.cluster_roles.iter().find(|it| it.name() == "edit").unwrap();
        assert!(edit.aggregation_rule.is_some() && edit.rules.is_none());
    }

    #[test]
    fn what_somebody_added_stays_and_what_is_missing_comes() {
        let rules = |text: &str| Some(vec![rule(text)]);
        assert_eq!(with_rules(&rules("get,list core: pods"), &rules("get core: pods")), None);
        let both = with_rules(&rules("list core: pods"), &rules("get core: pods")).unwrap();
        assert_eq!(both.len(), 2);
    }
}
