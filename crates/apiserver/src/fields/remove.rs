//! A document without some of its fields.
//!
//! Upstream: `structured-merge-diff/v6/typed/remove.go`.

use super::{Document, Set, compare::element_of, element::Element};
use api::schema::{
    Shapes,
    shape::{Place, Relation},
};

/// What loses all it has is empty, and there until it is removed itself: somebody else may own that it is there.
pub(crate) fn remove<'a>(
    shapes: &Shapes,
    place: &Place,
    document: &Document<'a>,
    fields: &Set<'a>,
) -> Document<'a> {
    match (place, document) {
        (
            Place::Object { atomic: true, .. } | Place::Map { atomic: true, .. },
            Document::Map(_),
        ) => Document::Map(Vec::new()),
        (Place::List { relation: Relation::Atomic, .. }, Document::List(_)) => {
            Document::List(Vec::new())
        }
        (Place::Object { .. } | Place::Map { .. } | Place::Anything, Document::Map(own)) => {
            let mut out = Vec::with_capacity(own.len());
            for (name, value) in own {
                let node = fields.node(&Element::Field(name.clone()));
                if node.is_some_and(|it| it.member) {
                    continue;
                }
                let rest = match (node, shapes.inside(place, name)) {
                    (Some(node), Some(inside)) => remove(shapes, inside, value, &node.below),
                    (_, _) => value.clone(),
                };
                out.push((name.clone(), rest));
            }
            Document::Map(out)
        }
        (Place::List { relation, items }, Document::List(list)) => {
            let mut out = Vec::with_capacity(list.len());
            for (index, item) in list.iter().enumerate() {
                let element = element_of(relation, index, item).ok();
                let node = element.and_then(|it| fields.node(&it));
                match node {
                    Some(node) if node.member => {}
                    Some(node) => out.push(remove(shapes, items, item, &node.below)),
                    None => out.push(item.clone()),
                }
            }
            Document::List(out)
        }
        (_, document) => document.clone(),
    }
}
