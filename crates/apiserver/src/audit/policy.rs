//! How much is told of which request: the first rule that fits says it; none fits, nothing is told.
//!
//! Upstream: `apiserver/pkg/audit/policy/{checker,reader}.go`.

use crate::{
    authz::{About, Objects, Wish},
    user::User,
    yaml,
};
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }

    fn parse(text: &str) -> Option<Level> {
        let all = [Level::None, Level::Metadata, Level::Request, Level::RequestResponse];
        all.into_iter().find(|it| it.name() == text)
    }
}

impl Stage {
    pub(super) fn name(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }

    fn parse(text: &str) -> Option<Stage> {
        let all =
            [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic];
        all.into_iter().find(|it| it.name() == text)
    }
}

/// Rules in the order of a policy file.
#[derive(Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    omitted: Vec<Stage>,
    omits_managed_fields: bool,
}

/// How much is told of one request.
#[derive(Debug)]
pub(super) struct Detail {
    pub(super) level: Level,
    pub(super) omitted: Vec<Stage>,
    pub(super) omits_managed_fields: bool,
}

#[derive(Debug)]
struct Rule {
    level: Level,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    namespaces: Vec<String>,
    resources: Vec<Resources>,
    urls: Vec<String>,
    omitted: Vec<Stage>,
    /// Instead of what the policy as a whole says.
    omits_managed_fields: Option<bool>,
}

#[derive(Debug)]
struct Resources {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

impl Policy {
    /// Reads a `Policy` (`audit.k8s.io/v1`), YAML or JSON.
    pub fn parse(text: &str) -> Result<Policy, String> {
        let policy = yaml::read(text.as_bytes())?.value;
        if policy["kind"] != "Policy" || policy["apiVersion"] != "audit.k8s.io/v1" {
            return Err("expected kind Policy of audit.k8s.io/v1".to_owned());
        }
        only(
            &policy,
            &["kind", "apiVersion", "metadata", "rules", "omitStages", "omitManagedFields"],
        )?;
        let rules = policy["rules"].as_array().filter(|it| !it.is_empty());
        let rules = rules.ok_or("rules: at least one is required")?;
        let rules = rules.iter().map(rule).collect::<Result<_, _>>()?;
        let omits_managed_fields = policy["omitManagedFields"] == true;
        Ok(Policy { rules, omitted: stages(&policy["omitStages"])?, omits_managed_fields })
    }

    pub(super) fn judge(&self, user: Option<&User>, wish: &Wish<'_>) -> Detail {
        let rule = self.rules.iter().find(|it| it.fits(user, wish));
        let omitted = rule.into_iter().flat_map(|it| &it.omitted).chain(&self.omitted);
        let omits_managed_fields = rule.and_then(|it| it.omits_managed_fields);
        Detail {
            level: rule.map_or(Level::None, |it| it.level),
            omitted: omitted.copied().collect(),
            omits_managed_fields: omits_managed_fields.unwrap_or(self.omits_managed_fields),
        }
    }
}

fn texts(value: &Value) -> Vec<String> {
    let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

fn only(value: &Value, known: &[&str]) -> Result<(), String> {
    let mut keys = value.as_object().into_iter().flat_map(|it| it.keys());
    match keys.find(|it| !known.contains(&it.as_str())) {
        Some(other) => Err(format!("unknown field {other:?}")),
        None => Ok(()),
    }
}

fn stages(value: &Value) -> Result<Vec<Stage>, String> {
    let parse = |it: String| Stage::parse(&it).ok_or_else(|| format!("unknown stage {it:?}"));
    texts(value).into_iter().map(parse).collect()
}

/// The fields of a rule: one that is misspelt would make the rule fit everything.
const FIELDS: [&str; 9] = [
    "level",
    "users",
    "userGroups",
    "verbs",
    "resources",
    "namespaces",
    "nonResourceURLs",
    "omitStages",
    "omitManagedFields",
];

fn rule(value: &Value) -> Result<Rule, String> {
    only(value, &FIELDS)?;
    for it in value["resources"].as_array().into_iter().flatten() {
        only(it, &["group", "resources", "resourceNames"])?;
    }
    let level = value["level"].as_str().unwrap_or_default();
    let resources = value["resources"].as_array().into_iter().flatten().map(|it| Resources {
        group: it["group"].as_str().unwrap_or_default().to_owned(),
        resources: texts(&it["resources"]),
        names: texts(&it["resourceNames"]),
    });
    let rule = Rule {
        level: Level::parse(level).ok_or_else(|| format!("unknown level {level:?}"))?,
        users: texts(&value["users"]),
        groups: texts(&value["userGroups"]),
        verbs: texts(&value["verbs"]),
        namespaces: texts(&value["namespaces"]),
        resources: resources.collect(),
        urls: texts(&value["nonResourceURLs"]),
        omitted: stages(&value["omitStages"])?,
        omits_managed_fields: value["omitManagedFields"].as_bool(),
    };
    if !rule.urls.is_empty() && (!rule.resources.is_empty() || !rule.namespaces.is_empty()) {
        return Err("rules cannot apply to both regular resources and non-resource URLs".to_owned());
    }
    Ok(rule)
}

impl Rule {
    fn fits(&self, user: Option<&User>, wish: &Wish<'_>) -> bool {
        let has = |list: &[String], it: &str| list.iter().any(|one| one == it);
        let any = |list: &[String], fits: &dyn Fn(&User) -> bool| {
            list.is_empty() || user.is_some_and(fits)
        };
        any(&self.users, &|it| has(&self.users, &it.name))
            && any(&self.groups, &|it| self.groups.iter().any(|group| it.is_in(group)))
            && (self.verbs.is_empty() || has(&self.verbs, wish.verb))
            && match &wish.about {
                _ if !self.namespaces.is_empty() || !self.resources.is_empty() => {
                    matches!(&wish.about, About::Objects(it) if self.fits_objects(it))
                }
                _ if self.urls.is_empty() => true,
                About::Path(path) => self.urls.iter().any(|it| covers(it, path)),
                About::Objects(_) => false,
            }
    }

    fn fits_objects(&self, it: &Objects<'_>) -> bool {
        let in_place =
            self.namespaces.is_empty() || self.namespaces.iter().any(|one| one == it.namespace);
        in_place && (self.resources.is_empty() || self.resources.iter().any(|one| one.fits(it)))
    }
}

impl Resources {
    fn fits(&self, it: &Objects<'_>) -> bool {
        if self.group != it.group && self.group != "*" {
            return false;
        }
        let name_fits = self.names.is_empty() || self.names.iter().any(|one| one == it.name);
        self.resources.is_empty()
            || name_fits
                && self.resources.iter().any(|one| match one.split_once('/') {
                    None => one == "*" || it.subresource.is_empty() && one == it.resource,
                    // All of it, and the thing itself.
                    Some((of, "*")) => of == it.resource,
                    Some((of, part)) => (of == "*" || of == it.resource) && part == it.subresource,
                })
    }
}

fn covers(url: &str, path: &str) -> bool {
    url == "*" || url == path || url.ends_with('*') && path.starts_with(url.trim_end_matches('*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_says_how_much() {
        let policy = Policy::parse(
            "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: [system:kube-proxy], verbs: [watch]}
- level: Metadata
  resources: [{group: '', resources: [secrets, 'pods/*']}]
- {level: None, nonResourceURLs: ['/healthz*']}
- {level: Request, namespaces: [kube-system]}
- {level: RequestResponse, omitStages: [Panic]}
",
        )
        .unwrap();
        let level = |resource: &str, namespace: &str| {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let about = Objects { resource, subresource, namespace, ..Objects::default() };
            policy.judge(None, &Wish { verb: "get", about: About::Objects(about) }).level
        };
        assert_eq!(level("secrets", "a"), Level::Metadata);
        assert_eq!(level("pods/log", "a"), Level::Metadata);
        assert_eq!(level("pods", "a"), Level::Metadata, "what is below it, and itself");
        assert_eq!(level("configmaps", "kube-system"), Level::Request);
        assert_eq!(level("configmaps", "a"), Level::RequestResponse);
        assert_eq!(policy.judge(None, &Wish::path("get", "/healthz/x")).level, Level::None);
        let detail = policy.judge(None, &Wish::path("get", "/metrics"));
        assert_eq!(detail.omitted, [Stage::Panic, Stage::RequestReceived]);
        assert!(!detail.omits_managed_fields);
        let parse = |rules: &str| {
            Policy::parse(&format!(
                "{{kind: Policy, apiVersion: audit.k8s.io/v1, rules: [{rules}]}}"
            ))
        };
        assert!(parse("{}").is_err());
        let misspelt = parse("{level: Metadata, resource: [{group: ''}]}").unwrap_err();
        assert_eq!(misspelt, "unknown field \"resource\"");
    }
}
