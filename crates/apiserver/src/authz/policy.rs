//! All roles and bindings of a view, filed by whom they are given to: asking costs a look-up for each
//! name and group of the user, not a walk over all bindings.
//!
//! Upstream: `plugin/pkg/auth/authorizer/rbac/rbac.go`, `pkg/registry/rbac/validation/rule.go`,
//! `pkg/apis/rbac/v1/evaluation_helpers.go`.

use super::{About, Objects, Verdict, Wish};
use crate::{
    user::{User, account_name},
    view::View,
};
use api::{
    Kind, Object,
    rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject},
};
use std::{collections::HashMap, sync::Arc};
use world::{ObjectKey, Row};

/// Rules of roles by namespace (empty: of the cluster) and name, with the version that they were read at.
type Roles = HashMap<ObjectKey, (u64, Arc<[PolicyRule]>)>;

#[derive(Default)]
pub(crate) struct Policy {
    /// The last changes of roles, cluster roles, bindings and cluster bindings.
    revisions: [u64; 4],
    roles: Roles,
    users: HashMap<String, Vec<Arc<Grant>>>,
    groups: HashMap<String, Vec<Arc<Grant>>>,
}

/// One binding for one subject.
struct Grant {
    /// Empty: everywhere.
    namespace: String,
    binding: String,
    role: RoleRef,
    subject: String,
    /// `None`: there is no such role.
    rules: Option<Arc<[PolicyRule]>>,
}

impl Policy {
    /// Whether the view has the roles and bindings that this was made of.
    pub(crate) fn is_of(&self, view: &View) -> bool {
        self.revisions == revisions(view)
    }

    pub(crate) fn is_older_than(&self, other: &Policy) -> bool {
        self.revisions.iter().max() <= other.revisions.iter().max()
    }

    /// Reads the view; what did not change since `known` is taken from there.
    pub(crate) fn of(view: &View, known: &Policy) -> Policy {
        let mut policy = Policy { revisions: revisions(view), ..Policy::default() };
        for row in rows::<Role>(view) {
            policy
                .role(row, known, |it| Some(it.typed::<Role>()?.rules.clone().unwrap_or_default()));
        }
        for row in rows::<ClusterRole>(view) {
            policy.role(row, known, |it| {
                Some(it.typed::<ClusterRole>()?.rules.clone().unwrap_or_default())
            });
        }
        for binding in view.world.all::<ClusterRoleBinding>() {
            policy.bind("", binding.name(), &binding.role_ref, &binding.subjects);
        }
        for it in view.world.all::<RoleBinding>() {
            policy.bind(it.namespace(), it.name(), &it.role_ref, &it.subjects);
        }
        policy
    }

    fn role(
        &mut self,
        row: &Arc<Row>,
        known: &Policy,
        read: impl Fn(&Row) -> Option<Vec<PolicyRule>>,
    ) {
        let key = row.key();
        let same = known.roles.get(&key).filter(|it| it.0 == row.revision);
        let rules = match same {
            Some((_, rules)) => Some(rules.clone()),
            None => read(row).map(Arc::from),
        };
        if let Some(rules) = rules {
            self.roles.insert(key, (row.revision, rules));
        }
    }

    fn bind(
        &mut self,
        namespace: &str,
        binding: &str,
        role: &RoleRef,
        subjects: &Option<Vec<Subject>>,
    ) {
        let rules = self.rules_of(namespace, role);
        for subject in subjects.iter().flatten() {
            let place = match subject.namespace.as_deref().unwrap_or_default() {
                "" => namespace,
                own => own,
            };
            let (table, key, shown) = match subject.kind.as_str() {
                "Group" => (&mut self.groups, subject.name.clone(), subject.name.clone()),
                "User" => (&mut self.users, subject.name.clone(), subject.name.clone()),
                "ServiceAccount" if !place.is_empty() => {
                    let user = account_name(place, &subject.name);
                    (&mut self.users, user, format!("{}/{place}", subject.name))
                }
                _ => continue,
            };
            table.entry(key).or_default().push(Arc::new(Grant {
                namespace: namespace.to_owned(),
                binding: binding.to_owned(),
                role: role.clone(),
                subject: format!("{} {shown:?}", subject.kind),
                rules: rules.clone(),
            }));
        }
    }

    /// What a binding in a namespace gives; `None`: there is no such role.
    pub(crate) fn rules_of(&self, namespace: &str, role: &RoleRef) -> Option<Arc<[PolicyRule]>> {
        let key = match role.kind.as_str() {
            "Role" => ObjectKey::new(namespace, &role.name),
            _ => ObjectKey::cluster(&role.name),
        };
        self.roles.get(&key).map(|it| it.1.clone())
    }

    fn grants<'a>(
        &'a self,
        user: &'a User,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Grant>> {
        let own = self.users.get(&user.name).into_iter().flatten();
        let of_groups = user.groups.iter().filter_map(|it| self.groups.get(it)).flatten();
        let here = move |it: &&Arc<Grant>| it.namespace.is_empty() || it.namespace == namespace;
        own.chain(of_groups).filter(here)
    }

    pub(crate) fn authorize(&self, user: &User, wish: &Wish<'_>) -> Verdict {
        let namespace = match wish.about {
            About::Objects(it) => it.namespace,
            About::Path(_) => "",
        };
        let mut missing: Vec<String> = Vec::new();
        for grant in self.grants(user, namespace) {
            match &grant.rules {
                Some(rules) if rules.iter().any(|it| allows(it, wish)) => {
                    return Verdict::yes(format!("RBAC: allowed by {}", grant.shown()));
                }
                Some(_) => {}
                None => missing.push(not_found(&grant.role)),
            }
        }
        missing.sort();
        missing.dedup();
        match missing.as_slice() {
            [] => Verdict::no(""),
            [one] => Verdict::no(format!("RBAC: {one}")),
            many => Verdict::no(format!("RBAC: [{}]", many.join(", "))),
        }
    }

    /// Everything that a user may do in a namespace, and everywhere.
    pub(crate) fn rules(&self, user: &User, namespace: &str) -> Vec<PolicyRule> {
        let grants = self.grants(user, namespace);
        grants.filter_map(|it| it.rules.as_deref()).flatten().cloned().collect()
    }
}

impl Grant {
    /// Upstream writes the name of what lies in a namespace before the namespace.
    fn shown(&self) -> String {
        let (kind, name) = match self.namespace.as_str() {
            "" => ("ClusterRoleBinding", self.binding.clone()),
            namespace => ("RoleBinding", format!("{}/{namespace}", self.binding)),
        };
        let role = &self.role;
        format!("{kind} {name:?} of {} {:?} to {}", role.kind, role.name, self.subject)
    }
}

pub(crate) fn not_found(role: &RoleRef) -> String {
    format!("{}.rbac.authorization.k8s.io {:?} not found", role.kind.to_lowercase(), role.name)
}

fn rows<T: Kind>(view: &View) -> impl Iterator<Item = &Arc<Row>> {
    view.world.table::<T>().map(|it| it.rows(None)).into_iter().flatten()
}

fn revisions(view: &View) -> [u64; 4] {
    fn of<T: Kind>(view: &View) -> u64 {
        view.world.table::<T>().map_or(0, |it| it.revision)
    }
    [
        of::<Role>(view),
        of::<ClusterRole>(view),
        of::<RoleBinding>(view),
        of::<ClusterRoleBinding>(view),
    ]
}

fn allows(rule: &PolicyRule, wish: &Wish<'_>) -> bool {
    let has = |list: &[String], it: &str| list.iter().any(|one| one == "*" || one == it);
    has(&rule.verbs, wish.verb)
        && match &wish.about {
            About::Objects(it) => {
                has(rule.api_groups.as_deref().unwrap_or_default(), it.group)
                    && names_resource(rule.resources.as_deref().unwrap_or_default(), it)
                    && names_object(rule.resource_names.as_deref().unwrap_or_default(), it.name)
            }
            About::Path(path) => {
                let urls = rule.non_resource_urls.as_deref().unwrap_or_default();
                urls.iter().any(|it| covers_path(it, path))
            }
        }
}

fn names_resource(resources: &[String], asked: &Objects<'_>) -> bool {
    resources.iter().any(|it| match (it.as_str(), asked.subresource) {
        ("*", _) => true,
        (it, "") => it == asked.resource,
        (it, subresource) => it
            .split_once('/')
            .is_some_and(|(of, own)| own == subresource && (of == "*" || of == asked.resource)),
    })
}

fn names_object(names: &[String], asked: &str) -> bool {
    names.is_empty() || names.iter().any(|it| it == asked)
}

pub(super) fn covers_path(rule: &str, path: &str) -> bool {
    rule == path || rule.ends_with('*') && path.starts_with(rule.trim_end_matches('*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> PolicyRule {
        let owned = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        PolicyRule {
            verbs: owned(verbs),
            api_groups: Some(owned(groups)),
            resources: Some(owned(resources)),
            resource_names: Some(owned(names)),
            non_resource_urls: None,
        }
    }

    fn wish<'a>(verb: &'a str, resource: &'a str, name: &'a str) -> Wish<'a> {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let about = Objects { resource, subresource, name, namespace: "a", ..Objects::default() };
        Wish { verb, about: About::Objects(about) }
    }

    #[test]
    fn a_rule_allows_what_it_names_and_nothing_else() {
        let pods = rule(&["get"], &[""], &["pods"], &[]);
        assert!(allows(&pods, &wish("get", "pods", "x")));
        assert!(!allows(&pods, &wish("list", "pods", "")));
        assert!(!allows(&pods, &wish("get", "pods/log", "x")), "a subresource is another thing");
        let logs = rule(&["*"], &["*"], &["*/log"], &[]);
        assert!(allows(&logs, &wish("get", "pods/log", "x")));
        assert!(!allows(&logs, &wish("get", "pods", "x")));
        let one = rule(&["get"], &[""], &["secrets"], &["mine"]);
        assert!(allows(&one, &wish("get", "secrets", "mine")));
        assert!(!allows(&one, &wish("get", "secrets", "yours")));
        assert!(!allows(&one, &wish("list", "secrets", "")), "a list names no object");
        let all = rule(&["*"], &["*"], &["*"], &[]);
        assert!(allows(&all, &wish("create", "pods/exec", "x")));
        assert!(!allows(&all, &Wish::path("get", "/metrics")), "paths are not objects");
    }

    #[test]
    fn a_path_may_end_in_a_star() {
        let urls = Some(vec!["/healthz/*".to_owned(), "/metrics".to_owned()]);
        let rule =
            PolicyRule { verbs: vec!["get".into()], non_resource_urls: urls, ..Default::default() };
        assert!(allows(&rule, &Wish::path("get", "/healthz/etcd")));
        assert!(allows(&rule, &Wish::path("get", "/metrics")));
        assert!(!allows(&rule, &Wish::path("get", "/metrics/x")));
        assert!(!allows(&rule, &Wish::path("post", "/metrics")));
    }
}
