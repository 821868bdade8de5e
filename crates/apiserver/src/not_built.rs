//! Kinds of upstream's that this cluster does not have, and why: who asks to make one is told, and
//! nothing answers as if it had been made.

use api::{AnyKind, Failure, failure::Details};

/// Group, plural, why not, for kinds that are not even listed.
const NOT_BUILT: [(&str, &str, &str); 2] = [
    (
        "networking.k8s.io",
        "ingressclasses",
        "no ingress controller is part of this cluster; expose pods with a Service",
    ),
    (
        "networking.k8s.io",
        "networkpolicies",
        "traffic between pods is not filtered in this cluster; a policy would not be enforced",
    ),
];

/// Where custom kinds would be listed.
pub(crate) const CUSTOM_KINDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// The list of custom kinds: there are none.
pub(crate) fn no_custom_kinds(revision: u64) -> serde_json::Value {
    serde_json::json!({
        "kind": "CustomResourceDefinitionList",
        "apiVersion": "apiextensions.k8s.io/v1",
        "metadata": {"resourceVersion": revision.to_string()},
        "items": [],
    })
}

/// The refusal of a request to make an object of a kind that is only listed.
pub(crate) fn refusal_of(kind: &AnyKind) -> Option<Failure> {
    kind.refused.as_deref().map(|why| refused(&kind.group, &kind.plural, why))
}

fn refused(group: &str, plural: &str, why: &str) -> Failure {
    let qualified = match group {
        "" => plural.to_owned(),
        group => format!("{plural}.{group}"),
    };
    let details =
        Details { group: group.to_owned(), kind: plural.to_owned(), ..Details::default() };
    let message = format!("{qualified} cannot be created: {why}");
    let mut failure = Failure::new(405, "MethodNotAllowed", message);
    failure.details = Some(Box::new(details));
    failure
}

/// The refusal of a request to make one of them.
pub(crate) fn refusal(path: &str) -> Option<Failure> {
    let mut segments = path.strip_prefix("/apis/")?.split('/');
    let (group, _version) = (segments.next()?, segments.next()?);
    let plural = match segments.next()? {
        "namespaces" => segments.nth(1)?,
        plural => plural,
    };
    let (_, _, why) = NOT_BUILT.iter().find(|it| it.0 == group && it.1 == plural)?;
    Some(refused(group, plural, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_not_there_and_why() {
        let failure = refusal("/apis/networking.k8s.io/v1/namespaces/a/networkpolicies").unwrap();
        assert_eq!(failure.code, 405);
        assert!(failure.message.starts_with("networkpolicies.networking.k8s.io cannot be created"));
        assert!(refusal("/apis/networking.k8s.io/v1/ingressclasses").is_some());
        assert!(refusal("/apis/apps/v1/namespaces/default/statefulsets").is_none());
        assert!(refusal("/apis/autoscaling").is_none());
    }
}
