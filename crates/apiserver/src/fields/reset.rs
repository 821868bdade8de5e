//! Fields that a path does not write, whatever its body says: nobody owns them by writing there.
//!
//! Upstream: `GetResetFields` and `GetResetFieldsFilter` in `pkg/registry/*/*/strategy.go`.

use super::{Set, element::Element};
use api::{AnyKind, Subresource};

/// What of a set counts on a path.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Filter {
    All,
    /// Without these and what is within them.
    Without(&'static [&'static [&'static str]]),
    /// Only these and what is within them; `*` is any step.
    Only(&'static [&'static [&'static str]]),
}

const STATUS: &[&[&str]] = &[&["status"]];
const SPEC: &[&[&str]] = &[&["spec"]];
const SPEC_AND_METADATA: &[&[&str]] = &[&["metadata"], &["spec"]];

/// Kinds whose status path leaves more alone than the spec.
const STATUS_PATHS: &[(&str, &str, &[&[&str]])] = &[
    (
        "",
        "pods",
        &[&["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"], &["spec"]],
    ),
    ("apps", "deployments", &[&["metadata", "labels"], &["spec"]]),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", SPEC_AND_METADATA),
    ("certificates.k8s.io", "certificatesigningrequests", &[&["spec"], &["status", "conditions"]]),
    ("storage.k8s.io", "volumeattachments", SPEC_AND_METADATA),
];

impl Filter {
    pub(crate) fn of(kind: &AnyKind, subresource: &str) -> Filter {
        match subresource {
            "" | "finalize" if kind.has(Subresource::Status) => Filter::Without(STATUS),
            "status" => {
                let own =
                    STATUS_PATHS.iter().find(|it| (it.0, it.1) == (&kind.group, &kind.plural));
                Filter::Without(own.map_or(SPEC, |it| it.2))
            }
            "approval" => Filter::Without(&[&["spec"], &["status", "certificate"]]),
            "ephemeralcontainers" => Filter::Only(&[&["spec", "ephemeralContainers"]]),
            "resize" => Filter::Only(&[
                &["spec", "containers", "*", "resources"],
                &["spec", "containers", "*", "resizePolicy"],
                &["spec", "initContainers", "*", "resources"],
                &["spec", "initContainers", "*", "resizePolicy"],
            ]),
            _ => Filter::All,
        }
    }

    pub(crate) fn apply<'a>(&self, set: Set<'a>) -> Set<'a> {
        match self {
            Filter::All => set,
            Filter::Without(paths) => {
                let mut gone = Set::default();
                paths.iter().for_each(|it| gone.insert(it));
                set.without(&gone)
            }
            Filter::Only(patterns) => only(&set, patterns),
        }
    }
}

fn only<'a>(set: &Set<'a>, patterns: &[&[&str]]) -> Set<'a> {
    let mut out = Set::default();
    for node in set.nodes() {
        let meets =
            |it: &&str| *it == "*" || matches!(&node.element, Element::Field(name) if name == *it);
        let rest: Vec<&[&str]> =
            patterns.iter().filter(|it| it.first().is_some_and(meets)).map(|it| &it[1..]).collect();
        if rest.iter().any(|it| it.is_empty()) {
            out.add(node.element.clone(), node.member, node.below.clone());
        } else if !rest.is_empty() {
            out.add(node.element.clone(), node.member, only(&node.below, &rest));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::core::v1::Pod;

    fn kept(subresource: &str) -> Vec<String> {
        let set = Set::default()
            .with(&["metadata", "labels", "a"])
            .with(&["metadata", "ownerReferences"])
            .with(&["spec", "containers", "c", "image"])
            .with(&["spec", "containers", "c", "resources"])
            .with(&["spec", "ephemeralContainers", "e"])
            .with(&["status", "phase"]);
        Filter::of(api::kind_of::<Pod>(), subresource).apply(set).paths()
    }

    #[test]
    fn each_path_writes_its_own() {
        assert_eq!(kept("status"), [".metadata.labels.a", ".status.phase"]);
        assert_eq!(kept("resize"), [".spec.containers.c.resources"]);
        assert_eq!(kept("ephemeralcontainers"), [".spec.ephemeralContainers.e"]);
        assert_eq!(kept("").len(), 5);
        assert!(!kept("").contains(&".status.phase".to_owned()));
    }
}
