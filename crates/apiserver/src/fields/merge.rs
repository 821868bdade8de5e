//! An applied configuration laid over the object that is there.
//!
//! Upstream: `structured-merge-diff/v6/typed/merge.go`.

use super::{
    Document,
    compare::{NoElement, element_of, is_blank, zip},
    element::Element,
};
use api::schema::{
    Shapes,
    shape::{Place, Relation},
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

/// `live` with everything that `config` says.
pub(crate) fn merge<'a>(
    shapes: &Shapes,
    place: &Place,
    live: &Document<'a>,
    config: &Document<'a>,
) -> Result<Document<'a>, NoElement> {
    Ok(merge_both(shapes, place, Some(live), Some(config))?.unwrap_or(Document::Map(Vec::new())))
}

type Both<'d, 'a> = Option<&'d Document<'a>>;

fn merge_both<'a>(
    shapes: &Shapes,
    place: &Place,
    live: Both<'_, 'a>,
    config: Both<'_, 'a>,
) -> Result<Option<Document<'a>>, NoElement> {
    let later = || Ok(config.or(live).cloned());
    match place {
        Place::Scalar(_)
        | Place::Object { atomic: true, .. }
        | Place::Map { atomic: true, .. }
        | Place::List { relation: Relation::Atomic, .. } => later(),
        _ if is_blank(live) && is_blank(config) => later(),
        Place::Anything => {
            let is_map = |it: Both<'_, '_>| {
                it.is_none_or(|it| matches!(it, Document::Map(_) | Document::Null))
            };
            match is_map(live) && is_map(config) {
                true => merge_maps(shapes, place, live, config),
                false => later(),
            }
        }
        Place::Object { .. } | Place::Map { .. } => merge_maps(shapes, place, live, config),
        Place::List { relation, items } => merge_lists(shapes, relation, items, live, config),
    }
}

fn merge_maps<'a>(
    shapes: &Shapes,
    place: &Place,
    live: Both<'_, 'a>,
    config: Both<'_, 'a>,
) -> Result<Option<Document<'a>>, NoElement> {
    fn fields<'d, 'a>(it: Both<'d, 'a>) -> &'d [(Cow<'a, str>, Document<'a>)] {
        match it {
            Some(Document::Map(fields)) => fields,
            _ => &[],
        }
    }
    let mut out = Vec::new();
    for (name, live, config) in zip(fields(live), fields(config)) {
        let merged = match shapes.inside(place, name) {
            Some(inside) => merge_both(shapes, inside, live, config)?,
            // A field that the kind does not have is the decoder's to judge.
            None => config.or(live).cloned(),
        };
        out.extend(merged.map(|it| (name.clone(), it)));
    }
    Ok((!out.is_empty()).then_some(Document::Map(out)))
}

/// Items in the order of the configuration; those of the live object that it does not name keep
/// their places between them.
fn merge_lists<'a>(
    shapes: &Shapes,
    relation: &Relation,
    items: &Place,
    live: Both<'_, 'a>,
    config: Both<'_, 'a>,
) -> Result<Option<Document<'a>>, NoElement> {
    fn list<'d, 'a>(it: Both<'d, 'a>) -> &'d [Document<'a>] {
        match it {
            Some(Document::List(items)) => items,
            _ => &[],
        }
    }
    let named = |it: &[Document<'a>]| -> Result<Vec<Element<'static>>, NoElement> {
        it.iter().enumerate().map(|(n, it)| element_of(relation, n, it)).collect()
    };
    let (left, right) = (list(live), list(config));
    let (left_names, right_names) = (named(left)?, named(right)?);
    // Items of the live object that cannot be told apart are not merged with anything.
    let nothing = Document::Null;
    let mut known: BTreeMap<&Element<'_>, &Document<'a>> = BTreeMap::new();
    for (name, item) in left_names.iter().zip(left) {
        known.entry(name).and_modify(|it| *it = &nothing).or_insert(item);
    }
    let wanted: BTreeSet<&Element<'_>> = right_names.iter().collect();
    let mut shared = right_names.iter().filter(|it| known.contains_key(it)).peekable();
    let mut done: BTreeSet<&Element<'_>> = BTreeSet::new();
    let mut out = Vec::with_capacity(left.len().max(right.len()));
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        let name = left_names.get(l);
        if let (Some(name), Some(next)) = (name, right_names.get(r)) {
            if name == next {
                done.insert(name);
                let live = known.get(name).copied();
                out.extend(merge_both(shapes, items, live, Some(&right[r]))?);
                (l, r) = (l + 1, r + 1);
                shared.next();
                continue;
            }
            if wanted.contains(name) && shared.peek().is_some_and(|it| *it != name) {
                // It is named, and comes later.
                l += 1;
                continue;
            }
        }
        if let Some(name) = name {
            if !wanted.contains(name) {
                out.extend(merge_both(shapes, items, Some(&left[l]), None)?);
                l += 1;
                continue;
            }
            if done.contains(name) {
                l += 1;
            }
        }
        if let Some(name) = right_names.get(r) {
            done.insert(name);
            let live = known.get(name).copied();
            out.extend(merge_both(shapes, items, live, Some(&right[r]))?);
            r += 1;
            if shared.peek() == Some(&name) {
                shared.next();
            }
        }
    }
    Ok((!out.is_empty()).then_some(Document::List(out)))
}
