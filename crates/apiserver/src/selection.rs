//! Which objects of a kind a list or a watch is about: by namespace, labels and fields.
//!
//! Upstream: `apimachinery/pkg/fields/selector.go`, `pkg/apis/core/v1/conversion.go` (field labels).

use crate::target::{Query, Target};
use api::{AnyKind, Failure, events::event, meta::Selector};
use world::Row;

#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// `None`: all namespaces, or objects of the cluster.
    pub(crate) namespace: Option<String>,
    labels: Selector,
    fields: Vec<Field>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    label: String,
    value: String,
    equal: bool,
}

const NAME: &str = "metadata.name";
const NAMESPACE: &str = "metadata.namespace";

impl Selection {
    pub(crate) fn of(target: &Target, query: &Query) -> Result<Selection, Failure> {
        let named = |label: &str| match target.is_face() {
            true => event::field_of_core(label),
            false => Some(label.to_owned()),
        };
        Selection::of_kind(&target.kind, &target.namespace, query, named)
    }

    /// `named`: what the kind calls a field that is asked for.
    pub(crate) fn of_kind(
        kind: &AnyKind,
        namespace: &str,
        query: &Query,
        named: impl Fn(&str) -> Option<String>,
    ) -> Result<Selection, Failure> {
        let labels = Selector::parse(query.one("labelSelector")).map_err(Failure::bad_request)?;
        let mut fields = parse(query.one("fieldSelector")).map_err(Failure::bad_request)?;
        for field in &mut fields {
            field.label = named(&field.label).ok_or_else(|| {
                Failure::bad_request(format!("field label not supported: {}", field.label))
            })?;
        }
        known(kind, &fields)?;
        let namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
        Ok(Selection { namespace, labels, fields })
    }

    /// One object by name, as a watch or a list.
    pub(crate) fn named(mut self, name: &str) -> Selection {
        if !name.is_empty() {
            let (label, value) = (NAME.to_owned(), name.to_owned());
            self.fields.push(Field { label, value, equal: true });
        }
        self
    }

    /// Whether every object of the namespace is wanted.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_empty()
    }

    /// The one name that can match, if there is only one.
    pub(crate) fn name(&self) -> Option<&str> {
        self.fields.iter().find(|it| it.equal && it.label == NAME).map(|it| it.value.as_str())
    }

    pub(crate) fn wants(&self, row: &Row) -> bool {
        if self.namespace.as_deref().is_some_and(|it| it != row.meta.namespace)
            || !self.labels.matches(&row.meta.labels)
        {
            return false;
        }
        let mut own: Option<Vec<(&'static str, String)>> = None;
        self.fields.iter().all(|field| {
            let value = match field.label.as_str() {
                NAME => &row.meta.name,
                NAMESPACE => &row.meta.namespace,
                label => {
                    // Decoded only when somebody asks for such a field.
                    let own = own.get_or_insert_with(|| {
                        row.object().map(|it| row.kind.rules.fields(&*it)).unwrap_or_default()
                    });
                    match own.iter().find(|it| it.0 == label) {
                        Some((_, value)) => value,
                        None => "",
                    }
                }
            };
            (value == field.value) == field.equal
        })
    }
}

fn known(kind: &AnyKind, fields: &[Field]) -> Result<(), Failure> {
    if fields.is_empty() {
        return Ok(());
    }
    // Fields are named by objects; one with every part, all empty, names all of them.
    let empty = kind.rules.decode(br#"{"spec":{},"status":{}}"#).ok();
    let own = empty.map(|(it, _)| kind.rules.fields(&*it)).unwrap_or_default();
    for field in fields {
        let label = field.label.as_str();
        let common = label == NAME || label == NAMESPACE;
        if common || own.iter().any(|it| it.0 == label) {
            continue;
        }
        return Err(Failure::bad_request(if own.is_empty() {
            format!(
                "{label:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
            )
        } else {
            format!("field label not supported: {label}")
        }));
    }
    Ok(())
}

/// `a=b,c!=d`; `\` takes the meaning from what follows it.
fn parse(text: &str) -> Result<Vec<Field>, String> {
    let mut fields = Vec::new();
    for term in split(text) {
        if term.is_empty() {
            continue;
        }
        let wrong = || format!("invalid selector: '{text}'; can't understand '{term}'");
        let at = operator(&term).ok_or_else(wrong)?;
        let (label, rest) = term.split_at(at);
        let (equal, value) = if let Some(value) = rest.strip_prefix("!=") {
            (false, value)
        } else if let Some(value) = rest.strip_prefix("==") {
            (true, value)
        } else {
            (true, &rest[1..])
        };
        let value = unescape(value).ok_or_else(wrong)?;
        fields.push(Field { label: label.trim().to_owned(), value, equal });
    }
    Ok(fields)
}

fn split(text: &str) -> Vec<String> {
    let (mut terms, mut escaped) = (vec![String::new()], false);
    for it in text.chars() {
        if it == ',' && !escaped {
            terms.push(String::new());
            continue;
        }
        escaped = it == '\\' && !escaped;
        terms.last_mut().expect("never empty").push(it);
    }
    terms
}

fn operator(term: &str) -> Option<usize> {
    let equal = term.find('=')?;
    Some(if term[..equal].ends_with('!') { equal - 1 } else { equal })
}

fn unescape(value: &str) -> Option<String> {
    let (mut out, mut chars) = (String::new(), value.chars());
    while let Some(it) = chars.next() {
        match it {
            '\\' => match chars.next()? {
                next @ ('\\' | ',' | '=') => out.push(next),
                _ => return None,
            },
            '=' => return None,
            it => out.push(it),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_field_selectors() {
        let shown = |text: &str| -> Vec<String> {
            let one = |it: &Field| {
                format!("{}{}{}", it.label, if it.equal { "=" } else { "!" }, it.value)
            };
            parse(text).unwrap().iter().map(one).collect()
        };
        assert_eq!(shown(""), Vec::<String>::new());
        assert_eq!(shown("a=b,c!=d,e==f,g="), ["a=b", "c!d", "e=f", "g="]);
        assert_eq!(shown("a=b\\,c"), ["a=b,c"]);
        for text in ["a", "a=b=c", "a=\\x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
