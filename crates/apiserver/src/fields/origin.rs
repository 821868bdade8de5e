//! What objects of a kind hold before anybody wrote anything: fields that upstream's types always have.
//!
//! Nobody becomes the owner of such a field by the mere existence of the object, so both sides of a
//! comparison are given them first.
//!
//! Upstream: fields without `omitempty` in `staging/src/k8s.io/api/*/*/types.go`, told by `origins.txt`.

use super::Document;
use api::AnyKind;
use std::{borrow::Cow, collections::HashMap, sync::LazyLock};

static ORIGINS: LazyLock<HashMap<&'static str, Document<'static>>> = LazyLock::new(|| {
    let line = |line: &'static str| {
        let (name, json) = line.split_once(" {").map(|it| (it.0, &line[it.0.len() + 1..]))?;
        Some((name, Document::parse(json).ok()?))
    };
    include_str!("origins.txt").lines().filter_map(line).collect()
});

/// `rbac/v1 Role`: the group as upstream's packages name it.
fn name(kind: &AnyKind) -> String {
    let group = kind.group.split('.').next().filter(|it| !it.is_empty()).unwrap_or("core");
    format!("{group}/{} {}", kind.version, kind.kind)
}

/// The document with the fields that every object of its kind has.
pub(crate) fn filled<'a>(kind: &AnyKind, document: Document<'a>) -> Document<'a> {
    match ORIGINS.get(name(kind).as_str()) {
        Some(origin) => fill(document, origin),
        None => document,
    }
}

fn fill<'a>(document: Document<'a>, origin: &'static Document<'static>) -> Document<'a> {
    let (Document::Map(mut fields), Document::Map(always)) = (document, origin) else {
        return origin.clone();
    };
    for (name, value) in always {
        match fields.binary_search_by(|it| it.0.cmp(name)) {
            Ok(at)
                if matches!(value, Document::Map(_))
                    && matches!(fields[at].1, Document::Map(_)) =>
            {
                let own = std::mem::replace(&mut fields[at].1, Document::Null);
                fields[at].1 = fill(own, value);
            }
            Ok(_) => {}
            Err(at) => fields.insert(at, (Cow::Borrowed(name), value.clone())),
        }
    }
    Document::Map(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_line() {
        for kind in api::kinds() {
            assert!(ORIGINS.contains_key(name(kind).as_str()), "{}", name(kind));
        }
        assert_eq!(ORIGINS.len(), include_str!("origins.txt").lines().count());
    }
}
