//! Whether a document has the shape of its kind: what is applied is checked before it is merged.
//!
//! Upstream: `structured-merge-diff/v6/typed/validate.go`.

use super::{Document, compare::element_of};
use api::schema::{
    Shapes,
    shape::{Place, Relation, Scalar},
};
use std::collections::BTreeSet;

/// Every fault with its path, in upstream's words; empty when there is none.
pub(crate) fn faults(shapes: &Shapes, document: &Document<'_>) -> String {
    let mut faults = Vec::new();
    walk(shapes, &shapes.root(), document, "", &mut faults);
    match &faults[..] {
        [] => String::new(),
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    }
}

fn walk(
    shapes: &Shapes,
    place: &Place,
    document: &Document<'_>,
    path: &str,
    faults: &mut Vec<String>,
) {
    let mut fault = |path: &str, why: String| {
        faults.push(if path.is_empty() { why } else { format!("{path}: {why}") });
    };
    match (place, document) {
        (_, Document::Null) | (Place::Anything, _) => {}
        (Place::Scalar(scalar), value) => {
            if let Some(why) = scalar_fault(*scalar, value) {
                fault(path, why);
            }
        }
        (Place::Object { .. } | Place::Map { .. }, Document::Map(fields)) => {
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                match shapes.inside(place, name) {
                    Some(inside) => walk(shapes, inside, value, &path, faults),
                    None => faults.push(format!("{path}: field not declared in schema")),
                }
            }
        }
        (Place::Object { .. } | Place::Map { .. }, value) => {
            fault(path, format!("expected map, got {}", shown(value)));
        }
        (Place::List { relation, items }, Document::List(list)) => {
            let mut seen = BTreeSet::new();
            for (index, item) in list.iter().enumerate() {
                match element_of(relation, index, item) {
                    Ok(element) => {
                        let inside = format!("{path}{element}");
                        if *relation != Relation::Atomic && seen.contains(&element) {
                            let why = format!("duplicate entries for key {element}");
                            faults.push(format!("{path}: {why}"));
                        }
                        seen.insert(element);
                        walk(shapes, items, item, &inside, faults);
                    }
                    // Nothing below it can be named.
                    Err(why) => {
                        faults.push(format!("{path}: element {index}: {why}"));
                        return;
                    }
                }
            }
        }
        (Place::List { .. }, value) => fault(path, format!("expected list, got {}", shown(value))),
    }
}

fn scalar_fault(scalar: Scalar, value: &Document<'_>) -> Option<String> {
    let is_fit = match (scalar, value) {
        (Scalar::Text, Document::Text(_))
        | (Scalar::Number, Document::Number(_))
        | (Scalar::Truth, Document::Truth(_))
        | (Scalar::Either, Document::Text(_) | Document::Number(_)) => true,
        (Scalar::Text | Scalar::Number | Scalar::Truth | Scalar::Either, _) => false,
    };
    if is_fit {
        return None;
    }
    Some(match scalar {
        Scalar::Text => format!("expected string, got {}", shown(value)),
        Scalar::Number => format!("expected numeric (int or float), got {}", type_of(value)),
        Scalar::Truth => format!("expected boolean, got {}", shown(value)),
        Scalar::Either => format!("expected any scalar, got {}", shown(value)),
    })
}

/// What Go calls such a value.
fn type_of(value: &Document<'_>) -> &'static str {
    match value {
        Document::Null => "nil",
        Document::Truth(_) => "bool",
        Document::Number(number) if number.contains(['.', 'e', 'E']) => "float64",
        Document::Number(_) => "int64",
        Document::Text(_) => "string",
        Document::List(_) => "[]interface {}",
        Document::Map(_) => "map[string]interface {}",
    }
}

fn shown(value: &Document<'_>) -> String {
    match value {
        Document::Map(_) | Document::List(_) => value.to_text(),
        value => format!("&value.valueUnstructured{{Value:{}}}", value.to_text()),
    }
}
