//! A set of fields, as a tree of path elements.
//!
//! `below` of a node holds the fields within it; `member` says that the field itself is in the set. A
//! node is one or has some: others are not kept.
//!
//! Upstream: `structured-merge-diff/v6/fieldpath/{set,serialize}.go`.

use super::{
    Document,
    element::{Element, InvalidElement},
};
use api::schema::{Shapes, shape::Place};
use std::{borrow::Cow, cmp::Ordering};

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Set<'a>(
    /// Sorted by element.
    Vec<Node<'a>>,
);

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node<'a> {
    pub(crate) element: Element<'a>,
    pub(crate) member: bool,
    pub(crate) below: Set<'a>,
}

impl<'a> Set<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a node; nodes that say nothing are left out. Cheap when nodes come in order.
    pub(crate) fn add(&mut self, element: Element<'a>, member: bool, below: Set<'a>) {
        if !member && below.is_empty() {
            return;
        }
        let node = Node { element, member, below };
        match self.0.last() {
            Some(last) if last.element >= node.element => {
                match self.0.binary_search_by(|it| it.element.cmp(&node.element)) {
                    Ok(at) => {
                        let old = &mut self.0[at];
                        old.member |= node.member;
                        old.below = std::mem::take(&mut old.below).union(node.below);
                    }
                    Err(at) => self.0.insert(at, node),
                }
            }
            _ => self.0.push(node),
        }
    }

    pub(crate) fn node(&self, element: &Element<'_>) -> Option<&Node<'a>> {
        let at = self.0.binary_search_by(|it| it.element.cmp(element)).ok()?;
        Some(&self.0[at])
    }

    /// Adds a field by the names that lead to it.
    #[cfg(test)]
    pub(crate) fn with(mut self, path: &[&'a str]) -> Set<'a> {
        self.insert(path);
        self
    }

    pub(crate) fn insert(&mut self, path: &[&'a str]) {
        if let Some((first, rest)) = path.split_first() {
            let mut below = Set::default();
            below.insert(rest);
            self.add(Element::Field(Cow::Borrowed(first)), rest.is_empty(), below);
        }
    }

    pub(crate) fn union(self, other: Set<'a>) -> Set<'a> {
        if self.is_empty() || other.is_empty() {
            return if self.is_empty() { other } else { self };
        }
        let mut out = Vec::with_capacity(self.0.len().max(other.0.len()));
        let (mut left, mut right) = (self.0.into_iter().peekable(), other.0.into_iter().peekable());
        loop {
            let order = match (left.peek(), right.peek()) {
                (None, None) => return Set(out),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => a.element.cmp(&b.element),
            };
            let a = if order == Ordering::Greater { None } else { left.next() };
            let b = if order == Ordering::Less { None } else { right.next() };
            out.extend(match (a, b) {
                (Some(a), Some(b)) => Some(Node {
                    element: a.element,
                    member: a.member || b.member,
                    below: a.below.union(b.below),
                }),
                (a, b) => a.or(b),
            });
        }
    }

    pub(crate) fn intersection(&self, other: &Set<'a>) -> Set<'a> {
        let (few, many) = if self.0.len() <= other.0.len() { (self, other) } else { (other, self) };
        let both = |a: &Node<'a>| {
            let b = many.node(&a.element)?;
            let (member, below) = (a.member && b.member, a.below.intersection(&b.below));
            let node = || Node { element: a.element.clone(), member, below: below.clone() };
            (member || !below.is_empty()).then(node)
        };
        Set(few.0.iter().filter_map(both).collect())
    }

    /// Keeps nodes as `change` leaves them; those that say nothing any more go.
    fn changed(mut self, other: &Set<'a>, change: fn(&mut Node<'a>, &Node<'a>)) -> Set<'a> {
        if other.is_empty() {
            return self;
        }
        self.0.retain_mut(|node| {
            if let Some(other) = other.node(&node.element) {
                change(node, other);
            }
            node.member || !node.below.is_empty()
        });
        self
    }

    /// Without the fields that are in `other`. What is within such a field stays.
    pub(crate) fn difference(self, other: &Set<'a>) -> Set<'a> {
        self.changed(other, |node, other| {
            node.member &= !other.member;
            node.below = std::mem::take(&mut node.below).difference(&other.below);
        })
    }

    /// Without the fields that are in `other`, and without what is within them.
    pub(crate) fn without(self, other: &Set<'a>) -> Set<'a> {
        self.changed(other, |node, other| {
            let below = std::mem::take(&mut node.below);
            if other.member {
                node.member = false;
            } else {
                node.below = below.without(&other.below);
            }
        })
    }

    /// With the known fields on the way to its members.
    pub(crate) fn with_named_fields(&self, shapes: &Shapes, place: &Place) -> Set<'a> {
        let node = |it: &Node<'a>| {
            let (declared, inside) = match (place, &it.element) {
                (Place::Object { of, .. }, Element::Field(name)) => {
                    match shapes.type_of(*of).field(name) {
                        Some(field) => (true, Some(&field.place)),
                        None => (false, None),
                    }
                }
                (Place::List { items, .. }, _) => (false, Some(&**items)),
                (place, Element::Field(name)) => (false, shapes.inside(place, name)),
                (_, _) => (false, None),
            };
            let below = match inside {
                Some(inside) => it.below.with_named_fields(shapes, inside),
                None => it.below.clone(),
            };
            let member = it.member || declared && !it.below.is_empty();
            Node { element: it.element.clone(), member, below }
        };
        Set(self.0.iter().map(node).collect())
    }

    /// With fields that have one owner now owned whole, where they were owned piece by piece; `None`
    /// when nothing changes.
    pub(crate) fn reconciled(&self, shapes: &Shapes, place: &Place) -> Option<Set<'a>> {
        let inside = |it: &Node<'a>| match (place, &it.element) {
            (Place::List { items, .. }, _) => Some(&**items),
            (place, Element::Field(name)) => shapes.inside(place, name),
            (_, _) => None,
        };
        let mut changed = None;
        for (at, node) in self.0.iter().enumerate().filter(|it| !it.1.below.is_empty()) {
            let Some(inside) = inside(node) else { continue };
            let whole = inside.is_atomic();
            let below = match whole {
                true => Some(Set::default()),
                false => node.below.reconciled(shapes, inside),
            };
            if let Some(below) = below {
                let nodes = &mut changed.get_or_insert_with(|| self.clone()).0;
                nodes[at].member |= whole;
                nodes[at].below = below;
            }
        }
        changed
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node<'a>> {
        self.0.iter()
    }

    /// Every field of the set as people read it, parents first.
    pub(crate) fn paths(&self) -> Vec<String> {
        fn walk(set: &Set<'_>, prefix: &str, out: &mut Vec<String>) {
            for node in set.0.iter().filter(|it| it.member) {
                out.push(format!("{prefix}{}", node.element));
            }
            for node in set.0.iter().filter(|it| !it.below.is_empty()) {
                walk(&node.below, &format!("{prefix}{}", node.element), out);
            }
        }
        let mut out = Vec::new();
        walk(self, "", &mut out);
        out
    }

    /// Appends it in the form `FieldsV1`.
    pub(crate) fn write(&self, out: &mut String) {
        out.push('{');
        self.write_content(out, true);
        out.push('}');
    }

    fn write_content(&self, out: &mut String, mut first: bool) {
        for node in &self.0 {
            if !first {
                out.push(',');
            }
            first = false;
            out.push('"');
            node.element.write(out);
            out.push_str("\":{");
            if node.member && !node.below.is_empty() {
                out.push_str("\".\":{}");
            }
            node.below.write_content(out, !node.member);
            out.push('}');
        }
    }

    /// Reads the form `FieldsV1`.
    pub(crate) fn read(document: &Document<'a>) -> Result<Set<'a>, InvalidElement> {
        Ok(read(document)?.0)
    }

    pub(crate) fn into_owned(self) -> Set<'static> {
        let node = |it: Node<'a>| Node {
            element: it.element.into_owned(),
            member: it.member,
            below: it.below.into_owned(),
        };
        Set(self.0.into_iter().map(node).collect())
    }
}

/// What is within, and whether the field itself is a member.
fn read<'a>(document: &Document<'a>) -> Result<(Set<'a>, bool), InvalidElement> {
    let mut set = Set::default();
    let mut member = false;
    if let Document::Map(fields) = document {
        for (name, value) in fields {
            if name == "." {
                member = true;
            } else if let Some(element) = Element::read(name)? {
                let (below, own) = read(value)?;
                set.add(element, own, below);
            }
        }
    }
    let alone = set.is_empty();
    Ok((set, member || alone))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> Set<'static> {
        Set::read(&Document::parse(text).unwrap()).unwrap().into_owned()
    }

    fn text(set: &Set<'_>) -> String {
        let mut out = String::new();
        set.write(&mut out);
        out
    }

    #[test]
    fn reads_and_writes_the_form_of_the_api() {
        let json = r#"{"f:metadata":{"f:finalizers":{".":{},"v:\"a\"":{}}},"f:spec":{"f:ports":{"k:{\"port\":80}":{".":{},"f:port":{}}},"f:replicas":{}}}"#;
        let set = of(json);
        assert_eq!(text(&set), json);
        assert_eq!(
            set.paths(),
            [
                ".metadata.finalizers",
                ".metadata.finalizers[=\"a\"]",
                ".spec.replicas",
                ".spec.ports[port=80]",
                ".spec.ports[port=80].port",
            ]
        );
        assert_eq!(of("{}"), Set::default());
    }

    #[test]
    fn a_difference_leaves_what_is_within_and_without_does_not() {
        let (a, b) = (of(r#"{"f:a":{".":{},"f:b":{}}}"#), of(r#"{"f:a":{}}"#));
        assert_eq!(text(&a.clone().difference(&b)), r#"{"f:a":{"f:b":{}}}"#);
        assert_eq!(text(&a.clone().without(&b)), "{}");
        assert_eq!(text(&b.clone().difference(&a)), "{}");
        assert_eq!(text(&a.intersection(&b)), r#"{"f:a":{}}"#);
    }

    /// Trees over few names, so that two of them meet.
    fn sets() -> impl Strategy<Value = Set<'static>> {
        let names = ["a", "b", "c"];
        let path = proptest::collection::vec(0..names.len(), 1..4);
        proptest::collection::vec(path, 0..12).prop_map(move |paths| {
            let mut set = Set::default();
            for path in paths {
                set.insert(&path.into_iter().map(|it| names[it]).collect::<Vec<_>>());
            }
            set
        })
    }

    fn paths(set: &Set<'_>) -> std::collections::BTreeSet<String> {
        set.paths().into_iter().collect()
    }

    proptest! {
        #[test]
        fn behaves_as_a_set_of_paths(a in sets(), b in sets()) {
            let (x, y) = (paths(&a), paths(&b));
            prop_assert_eq!(paths(&a.clone().union(b.clone())), &x | &y);
            prop_assert_eq!(paths(&a.intersection(&b)), &x & &y);
            prop_assert_eq!(paths(&a.clone().difference(&b)), &x - &y);
            let within = |it: &String| y.iter().any(|other| it == other || it.starts_with(&format!("{other}.")));
            let rest: std::collections::BTreeSet<String> = x.iter().filter(|it| !within(it)).cloned().collect();
            prop_assert_eq!(paths(&a.clone().without(&b)), rest);
            prop_assert_eq!(of(&text(&a)), a);
        }
    }
}
