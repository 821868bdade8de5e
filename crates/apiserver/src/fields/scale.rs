//! Owners of the number of replicas, when it is written as a `Scale`.
//!
//! Upstream: `apimachinery/pkg/util/managedfields/scalehandler.go`. There each author becomes one of a
//! Scale and one of the object again; here the one field moves between the authors of the object.

use super::{
    Document, Set,
    apply::refusal,
    compare::Changes,
    entries,
    managers::{Managers, Operation, Owned},
    update::{Author, hand_over},
};
use api::Failure;

const SCALE: &str = "autoscaling/v1";

fn replicas() -> Set<'static> {
    let mut set = Set::default();
    set.insert(&["spec", "replicas"]);
    set
}

fn read<'a>(managed: Option<&Document<'a>>) -> Managers<'a> {
    managed.and_then(|it| entries::read(it).ok()).unwrap_or_default()
}

/// After an update that changed the number.
pub(crate) fn updated(managed: Option<&str>, author: &Author) -> Option<String> {
    let list = managed.map(Document::parse).and_then(Result::ok);
    let mut managers = read(list.as_ref());
    if managers.is_empty() {
        return managed.map(str::to_owned);
    }
    let changes = Changes { modified: replicas(), ..Changes::default() };
    hand_over(&mut managers, changes, author);
    entries::write(&managers)
}

/// After an apply that says the number; `changed`: it was another one.
pub(crate) fn applied(
    managed: Option<&str>,
    changed: bool,
    author: &Author,
    force: bool,
) -> Result<Option<String>, Failure> {
    let list = managed.map(Document::parse).and_then(Result::ok);
    let mut managers = read(list.as_ref());
    let identity = author.identity(Operation::Apply);
    if changed {
        managers.give_way(&replicas(), &Set::default(), Some(&identity), force).map_err(
            |mut conflicts| {
                // They are met as authors of a Scale.
                let updaters = conflicts.iter_mut().map(|it| &mut it.0.api_version);
                updaters.filter(|it| !it.is_empty()).for_each(|it| *it = SCALE.to_owned());
                refusal(&conflicts)
            },
        )?;
    }
    let (api_version, time) = (author.api_version.clone(), Some(author.now.clone()));
    if changed || managers.get(&identity).is_none() {
        managers.insert(identity, Owned { api_version, time, set: replicas() });
    }
    Ok(entries::write(&managers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::reset::Filter;

    fn author(manager: &str) -> Author {
        Author {
            manager: manager.to_owned(),
            api_version: "apps/v1".to_owned(),
            subresource: "scale".to_owned(),
            filter: Filter::All,
            now: "2026-01-01T00:00:00Z".to_owned(),
        }
    }

    const OWNED: &str = r#"[{"manager":"a","operation":"Apply","apiVersion":"apps/v1","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:replicas":{},"f:serviceName":{}}}}]"#;

    #[test]
    fn the_number_is_taken_from_whom_it_was() {
        let list = updated(Some(OWNED), &author("hpa")).unwrap();
        assert!(list.contains(r#"{"f:spec":{"f:serviceName":{}}}"#), "{list}");
        assert!(
            list.contains(r#""manager":"hpa","operation":"Update","apiVersion":"apps/v1""#),
            "{list}"
        );
        assert!(
            list.ends_with(r#"{"f:spec":{"f:replicas":{}}},"subresource":"scale"}]"#),
            "{list}"
        );
        let again = updated(Some(&list), &author("hpa")).unwrap();
        assert_eq!(again, list);
    }

    #[test]
    fn who_applies_a_scale_meets_conflicts() {
        let refused = applied(Some(OWNED), true, &author("b"), false).unwrap_err();
        assert_eq!(
            refused.message,
            "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas"
        );
        let scaled = updated(Some(OWNED), &author("hpa")).unwrap();
        let refused = applied(Some(&scaled), true, &author("b"), false).unwrap_err();
        assert_eq!(
            refused.message,
            "Apply failed with 1 conflict: conflict with \"hpa\" with subresource \"scale\" using autoscaling/v1: .spec.replicas"
        );
        let forced = applied(Some(&scaled), true, &author("b"), true).unwrap().unwrap();
        assert!(!forced.contains("hpa"), "{forced}");
        let shared = applied(Some(OWNED), false, &author("b"), false).unwrap().unwrap();
        assert_eq!(shared.matches("f:replicas").count(), 2);
    }
}
