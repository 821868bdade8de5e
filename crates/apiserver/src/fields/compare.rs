//! Which fields a document has, and what changed between two of one kind.
//!
//! Upstream: `structured-merge-diff/v6/typed/{tofieldset,compare,helpers}.go`.

use super::{Document, Set, element::Element};
use api::schema::{
    Shapes,
    shape::{Place, Relation},
};
use std::{borrow::Cow, collections::BTreeMap};

/// What became of fields. No field is in two of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Changes<'a> {
    pub(crate) removed: Set<'a>,
    pub(crate) modified: Set<'a>,
    pub(crate) added: Set<'a>,
}

/// What became of the field itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Same,
    Removed,
    Modified,
    Added,
}

/// Why an item of a list has no name there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoElement {
    #[error("associative list with keys may not have a null element")]
    Null,
    #[error("associative list with keys may not have non-map elements")]
    NoMap,
    #[error(
        "associative list with keys has an element that omits all key fields {0:?} (and doesn't have default values for any key fields)"
    )]
    NoKey(Vec<&'static str>),
    #[error("associative list without keys has an element that's a map type")]
    Map,
    #[error("not supported: associative list with lists as elements")]
    List,
    #[error("associative list without keys has an element that's an explicit null")]
    NullValue,
}

/// How an item is told apart from the others of its list.
pub(super) fn element_of(
    relation: &Relation,
    index: usize,
    item: &Document<'_>,
) -> Result<Element<'static>, NoElement> {
    match (relation, item) {
        (Relation::Atomic, _) => Ok(Element::Index(index)),
        (Relation::Set, Document::Map(_)) => Err(NoElement::Map),
        (Relation::Set, Document::List(_)) => Err(NoElement::List),
        (Relation::Set, Document::Null) => Err(NoElement::NullValue),
        (Relation::Set, value) => Ok(Element::value(value)),
        (Relation::Keyed(_), Document::Null) => Err(NoElement::Null),
        (Relation::Keyed(keys), item @ Document::Map(_)) => {
            let value = |(name, default): &(&'static str, Option<&'static str>)| {
                let value = item.get(name).map(|it| Cow::Owned(it.to_text()));
                Some((*name, value.or(default.map(Cow::Borrowed))?))
            };
            let fields: Vec<_> = keys.iter().filter_map(value).collect();
            if fields.is_empty() {
                return Err(NoElement::NoKey(keys.iter().map(|it| it.0).collect()));
            }
            Ok(Element::key(&fields))
        }
        (Relation::Keyed(_), _) => Err(NoElement::NoMap),
    }
}

/// The fields of a document.
pub(crate) fn fields_of<'a>(shapes: &Shapes, place: &Place, document: &Document<'a>) -> Set<'a> {
    fields(shapes, place, document).0
}

/// What is within, and whether the field itself counts.
fn fields<'a>(shapes: &Shapes, place: &Place, document: &Document<'a>) -> (Set<'a>, bool) {
    let mut set = Set::default();
    match (place, document) {
        (Place::Object { atomic: true, .. } | Place::Map { atomic: true, .. }, _)
        | (Place::List { relation: Relation::Atomic, .. }, _)
        | (Place::Scalar(_), _) => return (set, true),
        (Place::Object { .. } | Place::Map { .. } | Place::Anything, Document::Map(fields)) => {
            for (name, value) in fields {
                let Some(inside) = shapes.inside(place, name) else { continue };
                let declared = matches!(place, Place::Object { .. });
                let (below, own) = self::fields(shapes, inside, value);
                let blank = value.is_null() || matches!(value, Document::Map(it) if it.is_empty());
                set.add(Element::Field(name.clone()), own || blank || !declared, below);
            }
        }
        (Place::List { relation, items }, Document::List(list)) => {
            for (element, list) in indexed(relation, list) {
                match list[..] {
                    [item] => set.add(element, true, self::fields(shapes, items, item).0),
                    // Items that cannot be told apart are owned as one.
                    _ => set.add(element, true, Set::default()),
                }
            }
        }
        (Place::Anything, _) => return (set, true),
        (Place::Object { .. } | Place::Map { .. } | Place::List { .. }, _) => {}
    }
    (set, false)
}

/// Items by how they are told apart; what has no name is passed over.
fn indexed<'d, 'a>(
    relation: &Relation,
    list: &'d [Document<'a>],
) -> BTreeMap<Element<'static>, Vec<&'d Document<'a>>> {
    let mut items: BTreeMap<Element<'static>, Vec<&Document<'a>>> = BTreeMap::new();
    for (index, item) in list.iter().enumerate() {
        if let Ok(element) = element_of(relation, index, item) {
            items.entry(element).or_default().push(item);
        }
    }
    items
}

/// What has to be done to `old` to get `new`.
pub(crate) fn compare<'a>(
    shapes: &Shapes,
    place: &Place,
    old: &Document<'a>,
    new: &Document<'a>,
) -> Changes<'a> {
    compare_both(shapes, place, Some(old), Some(new)).0
}

impl<'a> Changes<'a> {
    fn add(&mut self, element: Element<'a>, (below, own): (Changes<'a>, Own)) {
        self.removed.add(element.clone(), own == Own::Removed, below.removed);
        self.modified.add(element.clone(), own == Own::Modified, below.modified);
        self.added.add(element, own == Own::Added, below.added);
    }

    pub(crate) fn each(self, change: impl Fn(Set<'a>) -> Set<'a>) -> Changes<'a> {
        Changes {
            removed: change(self.removed),
            modified: change(self.modified),
            added: change(self.added),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }
}

type Both<'d, 'a> = Option<&'d Document<'a>>;

fn presence(old: Both<'_, '_>, new: Both<'_, '_>) -> Own {
    match (old, new) {
        (None, _) => Own::Added,
        (_, None) => Own::Removed,
        (Some(_), Some(_)) => Own::Same,
    }
}

fn leaf(old: Both<'_, '_>, new: Both<'_, '_>) -> Own {
    match presence(old, new) {
        Own::Same if old != new => Own::Modified,
        own => own,
    }
}

pub(super) fn is_blank(document: Both<'_, '_>) -> bool {
    document.is_none_or(Document::is_empty)
}

fn compare_both<'a>(
    shapes: &Shapes,
    place: &Place,
    old: Both<'_, 'a>,
    new: Both<'_, 'a>,
) -> (Changes<'a>, Own) {
    let mut changes = Changes::default();
    match place {
        Place::Scalar(_)
        | Place::Object { atomic: true, .. }
        | Place::Map { atomic: true, .. }
        | Place::List { relation: Relation::Atomic, .. } => (changes, leaf(old, new)),
        // One that lost its content differs from one that never had any.
        _ if is_blank(old) && is_blank(new) => (changes, leaf(old, new)),
        Place::Object { .. } | Place::Map { .. } => {
            compare_maps(shapes, place, old, new, &mut changes);
            (changes, presence(old, new))
        }
        Place::List { relation, items } => {
            compare_lists(shapes, relation, items, old, new, &mut changes);
            (changes, presence(old, new))
        }
        Place::Anything => {
            let is_map = |it: Both<'_, '_>| it.is_none_or(|it| matches!(it, Document::Map(_)));
            if is_map(old) || is_map(new) {
                compare_maps(shapes, place, old, new, &mut changes);
            }
            let own = match is_map(old) && is_map(new) {
                true => presence(old, new),
                false => leaf(old, new),
            };
            (changes, own)
        }
    }
}

fn compare_maps<'a>(
    shapes: &Shapes,
    place: &Place,
    old: Both<'_, 'a>,
    new: Both<'_, 'a>,
    changes: &mut Changes<'a>,
) {
    fn fields<'d, 'a>(it: Both<'d, 'a>) -> &'d [(Cow<'a, str>, Document<'a>)] {
        match it {
            Some(Document::Map(fields)) => fields,
            _ => &[],
        }
    }
    for (name, old, new) in zip(fields(old), fields(new)) {
        if let Some(inside) = shapes.inside(place, name) {
            let found = compare_both(shapes, inside, old, new);
            changes.add(Element::Field(name.clone()), found);
        }
    }
}

type Zipped<'d, 'a> = (&'d Cow<'a, str>, Both<'d, 'a>, Both<'d, 'a>);

/// Two sorted lists of fields side by side.
pub(super) fn zip<'d, 'a>(
    old: &'d [(Cow<'a, str>, Document<'a>)],
    new: &'d [(Cow<'a, str>, Document<'a>)],
) -> impl Iterator<Item = Zipped<'d, 'a>> {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return None,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => a.0.cmp(&b.0),
        };
        let a = if order.is_gt() { None } else { old.next() };
        let b = if order.is_lt() { None } else { new.next() };
        let (name, _) = a.or(b)?;
        Some((name, a.map(|it| &it.1), b.map(|it| &it.1)))
    })
}

fn compare_lists<'a>(
    shapes: &Shapes,
    relation: &Relation,
    items: &Place,
    old: Both<'_, 'a>,
    new: Both<'_, 'a>,
    changes: &mut Changes<'a>,
) {
    fn list<'d, 'a>(it: Both<'d, 'a>) -> &'d [Document<'a>] {
        match it {
            Some(Document::List(items)) => items,
            _ => &[],
        }
    }
    let old = indexed(relation, list(old));
    let mut new = indexed(relation, list(new));
    let mut both: BTreeMap<_, (Vec<&Document<'a>>, Vec<&Document<'a>>)> = BTreeMap::new();
    for (element, old) in old {
        let new = new.remove(&element).unwrap_or_default();
        both.insert(element, (old, new));
    }
    both.extend(new.into_iter().map(|(element, new)| (element, (Vec::new(), new))));
    for (element, (old, new)) in both {
        let one = |old, new| compare_both(shapes, items, old, new);
        let found = match (&old[..], &new[..]) {
            ([] | [_], [] | [_]) => one(old.first().copied(), new.first().copied()),
            ([_, _, ..], [_, _, ..]) => {
                let own = if old == new { Own::Same } else { Own::Modified };
                (Changes::default(), own)
            }
            // They can be told apart from now on.
            ([_, _, ..], rest) => {
                let below = rest.first().map(|it| one(None, Some(*it)).0).unwrap_or_default();
                (below, Own::Removed)
            }
            // They cannot any more.
            (rest, [_, _, ..]) => {
                let below = rest.first().map(|it| one(Some(*it), None).0).unwrap_or_default();
                (below, Own::Added)
            }
        };
        changes.add(element, found);
    }
}
