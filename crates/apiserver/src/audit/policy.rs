//! How much is told of which request: the first rule that fits says it; none fits, nothing is told.
//!
//! Upstream: `apiserver/pkg/audit/policy/{checker,reader}.go`.

use crate::{
    authz::{About, Objects, Wish},
    user::User,
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
        let policy: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        if policy["kind"] != "Policy" || policy["apiVersion"] != "audit.k8s.io/v1" {
            return Err("expected kind Policy of audit.k8s.io/v1".to_owned());
        }
        let rules = policy["rules"].as_array().filter(|it| !it.is_empty());
        let rules = rules.ok_or("rules: at least one is required")?;
        let rules = rules.iter().map(rule).collect::<Result<_, _>>()?;
        Ok(Policy { rules, omitted: stages(&policy["omitStages"])? })
    }

    pub(super) fn judge(&self, user: Option<&User>, wish: &Wish<'_>) -> (Level, Vec<Stage>) {
        match self.rules.iter().find(|it| it.fits(user, wish)) {
            Some(rule) => (rule.level, self.omitted.iter().chain(&rule.omitted).copied().collect()),
            None => (Level::None, Vec::new()),
        }
    }
}

fn texts(value: &Value) -> Vec<String> {
    let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

fn stages(value: &Value) -> Result<Vec<Stage>, String> {
    let parse = |it: String| Stage::parse(&it).ok_or_else(|| format!("unknown stage {it:?}"));
    texts(value).into_iter().map(parse).collect()
}

fn rule(value: &Value) -> Result<Rule, String> {
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
                    Some((of, "*")) => of == it.resource && !it.subresource.is_empty(),
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
            policy.judge(None, &Wish { verb: "get", about: About::Objects(about) }).0
        };
        assert_eq!(level("secrets", "a"), Level::Metadata);
        assert_eq!(level("pods/log", "a"), Level::Metadata);
        assert_eq!(level("pods", "kube-system"), Level::Request);
        assert_eq!(level("pods", "a"), Level::RequestResponse);
        assert_eq!(policy.judge(None, &Wish::path("get", "/healthz/x")).0, Level::None);
        let (_, omitted) = policy.judge(None, &Wish::path("get", "/metrics"));
        assert_eq!(omitted, [Stage::RequestReceived, Stage::Panic]);
        assert!(Policy::parse("{kind: Policy, apiVersion: audit.k8s.io/v1, rules: [{}]}").is_err());
    }
}
