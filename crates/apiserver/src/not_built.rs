//! Kinds of upstream's that this cluster does not have, and why: who asks to make one is told, and
//! nothing answers as if it had been made.

use api::{Failure, failure::Details};

/// Group, plural, what there is not, what there is instead.
const NOT_BUILT: [(&str, &str, &str); 4] = [
    (
        "autoscaling",
        "horizontalpodautoscalers",
        "nothing in this cluster scales by load: no metrics are collected to decide by; set the number of replicas with \"kubectl scale\"",
    ),
    (
        "networking.k8s.io",
        "ingressclasses",
        "no ingress controller is part of this cluster; expose pods with a Service",
    ),
    (
        "networking.k8s.io",
        "ingresses",
        "no ingress controller is part of this cluster; expose pods with a Service",
    ),
    (
        "networking.k8s.io",
        "networkpolicies",
        "traffic between pods is not filtered in this cluster; a policy would not be enforced",
    ),
];

/// The refusal of a request to make one of them.
pub(crate) fn refusal(path: &str) -> Option<Failure> {
    let mut segments = path.strip_prefix("/apis/")?.split('/');
    let (group, _version) = (segments.next()?, segments.next()?);
    let plural = match segments.next()? {
        "namespaces" => segments.nth(1)?,
        plural => plural,
    };
    let (_, _, why) = NOT_BUILT.iter().find(|it| it.0 == group && it.1 == plural)?;
    let message = format!("{plural}.{group} cannot be created: {why}");
    let details =
        Details { group: group.to_owned(), kind: plural.to_owned(), ..Details::default() };
    let mut failure = Failure::new(405, "MethodNotAllowed", message);
    failure.details = Some(Box::new(details));
    Some(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_not_there_and_why() {
        let path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
        let failure = refusal(path).unwrap();
        assert_eq!(failure.code, 405);
        assert!(
            failure.message.starts_with("horizontalpodautoscalers.autoscaling cannot be created")
        );
        assert!(refusal("/apis/networking.k8s.io/v1/ingressclasses").is_some());
        assert!(refusal("/apis/apps/v1/namespaces/default/statefulsets").is_none());
        assert!(refusal("/apis/autoscaling").is_none());
    }
}
