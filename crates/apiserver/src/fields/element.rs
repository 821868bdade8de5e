//! One step of a path to a field: a field by name, an item of a list by its key, its value or its place.
//!
//! Upstream: `structured-merge-diff/v6/fieldpath/{element,serialize-pe}.go`.

use super::{
    Document,
    document::{escape, unescape},
};
use std::{borrow::Cow, cmp::Ordering, fmt};

/// Ordered as upstream orders them: fields, then keys, then values, then places.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Element<'a> {
    /// Its name, escaped as in JSON.
    Field(Cow<'a, str>),
    /// `{"containerPort":80,"protocol":"TCP"}`
    Key(Json),
    /// `"example.com/finalizer"`
    Value(Json),
    Index(usize),
}

/// JSON in one way of writing: fields sorted, no spaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Json(Box<str>);

impl PartialOrd for Json {
    fn partial_cmp(&self, other: &Json) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Json {
    /// Texts by their letters, numbers by their size, what ends first first.
    fn cmp(&self, other: &Json) -> Ordering {
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        let Some(at) = a.iter().zip(b).position(|(a, b)| a != b) else {
            return a.len().cmp(&b.len());
        };
        let quoted = a[..at].iter().filter(|it| **it == b'"').count() % 2 == 1;
        let number = |text: &[u8]| {
            let digit = |it: &u8| it.is_ascii_digit() || b"+-.eE".contains(it);
            let start = at - text[..at].iter().rev().take_while(|it| digit(it)).count();
            let end = at + text[at..].iter().take_while(|it| digit(it)).count();
            std::str::from_utf8(&text[start..end]).ok()?.parse::<f64>().ok()
        };
        if !quoted
            && let (Some(a), Some(b)) = (number(a), number(b))
            && a != b
        {
            return a.total_cmp(&b);
        }
        let rank = |it: u8| (it != b'}' && (!quoted || it != b'"'), it);
        rank(a[at]).cmp(&rank(b[at]))
    }
}

impl<'a> Element<'a> {
    pub(crate) fn key(fields: &[(&str, Cow<'_, str>)]) -> Element<'static> {
        let mut text = String::from("{");
        for (n, (name, value)) in fields.iter().enumerate() {
            if n > 0 {
                text.push(',');
            }
            text.push('"');
            text.push_str(name);
            text.push_str("\":");
            text.push_str(value);
        }
        text.push('}');
        Element::Key(Json(text.into()))
    }

    pub(crate) fn value(value: &Document<'_>) -> Element<'static> {
        Element::Value(Json(value.to_text().into()))
    }

    /// Reads `f:spec` and the like, escaped as in JSON. `Ok(None)`: one of a kind that may come later.
    pub(crate) fn read(text: &Cow<'a, str>) -> Result<Option<Element<'a>>, InvalidElement> {
        let invalid = || InvalidElement(text.clone().into_owned());
        let json = |rest: &str| -> Result<Json, InvalidElement> {
            let rest = unescape(rest).ok_or_else(invalid)?;
            let document = Document::parse(&rest).map_err(|_| invalid())?;
            Ok(Json(document.to_text().into()))
        };
        let (kind, rest) = text.split_at_checked(2).ok_or_else(invalid)?;
        match kind {
            "f:" => Ok(Some(Element::Field(match text {
                Cow::Borrowed(text) => Cow::Borrowed(&text[2..]),
                Cow::Owned(_) => Cow::Owned(rest.to_owned()),
            }))),
            "k:" => json(rest).map(|it| it.0.starts_with('{').then_some(Element::Key(it))),
            "v:" => json(rest).map(Element::Value).map(Some),
            "i:" => rest.parse().map(Element::Index).map(Some).map_err(|_| invalid()),
            _ if kind.ends_with(':') => Ok(None),
            _ => Err(invalid()),
        }
    }

    /// Appends it as a name in a JSON object, without quotes.
    pub(crate) fn write(&self, out: &mut String) {
        match self {
            Element::Field(name) => {
                out.push_str("f:");
                out.push_str(name);
            }
            Element::Key(json) => {
                out.push_str("k:");
                out.push_str(&escape(&json.0));
            }
            Element::Value(json) => {
                out.push_str("v:");
                out.push_str(&escape(&json.0));
            }
            Element::Index(at) => {
                out.push_str("i:");
                out.push_str(&at.to_string());
            }
        }
    }

    pub(crate) fn into_owned(self) -> Element<'static> {
        match self {
            Element::Field(name) => Element::Field(Cow::Owned(name.into_owned())),
            Element::Key(json) => Element::Key(json),
            Element::Value(json) => Element::Value(json),
            Element::Index(at) => Element::Index(at),
        }
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a step of a path to a field: {0:?}")]
pub(crate) struct InvalidElement(String);

impl fmt::Display for Element<'_> {
    /// As people read it: `.spec`, `[name="nginx"]`, `[="a"]`, `[0]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Element::Field(name) => {
                write!(f, ".{}", unescape(name).unwrap_or_else(|| name.clone().into_owned()))
            }
            Element::Key(json) => {
                let document = Document::parse(&json.0).map_err(|_| fmt::Error)?;
                let Document::Map(fields) = document else { return Err(fmt::Error) };
                let shown: Vec<String> =
                    fields.iter().map(|(name, it)| format!("{name}={}", it.to_text())).collect();
                write!(f, "[{}]", shown.join(","))
            }
            Element::Value(json) => write!(f, "[={}]", json.0),
            Element::Index(at) => write!(f, "[{at}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Element<'_> {
        Element::read(&Cow::Borrowed(text)).unwrap().unwrap()
    }

    #[test]
    fn reads_what_it_writes_in_one_way() {
        for (given, written, shown) in [
            ("f:spec", "f:spec", ".spec"),
            (
                r#"k:{ \"protocol\": \"TCP\",\"containerPort\":80}"#,
                r#"k:{\"containerPort\":80,\"protocol\":\"TCP\"}"#,
                r#"[containerPort=80,protocol="TCP"]"#,
            ),
            (r#"v:\"a/b\""#, r#"v:\"a/b\""#, r#"[="a/b"]"#),
            ("v:1", "v:1", "[=1]"),
            ("i:3", "i:3", "[3]"),
        ] {
            let element = read(given);
            let mut out = String::new();
            element.write(&mut out);
            assert_eq!(out, written);
            assert_eq!(element.to_string(), shown);
        }
        assert_eq!(Element::read(&"x:y".into()), Ok(None));
        for bad in ["", "f", "spec", "v:{", "k:x", "i:x"] {
            assert!(Element::read(&bad.into()).is_err(), "{bad}");
        }
    }

    #[test]
    fn is_ordered_as_upstream_orders() {
        let sorted = [
            "f:a",
            "f:b",
            r#"k:{\"containerPort\":80}"#,
            r#"k:{\"containerPort\":80,\"protocol\":\"TCP\"}"#,
            r#"k:{\"containerPort\":443}"#,
            r#"k:{\"name\":\"a\"}"#,
            r#"k:{\"name\":\"a 10\"}"#,
            r#"k:{\"name\":\"a 9\"}"#,
            r#"k:{\"name\":\"b\"}"#,
            "v:9",
            "v:10",
            "i:2",
            "i:10",
        ];
        for pair in sorted.windows(2) {
            assert!(read(pair[0]) < read(pair[1]), "{pair:?}");
            assert!(read(pair[1]) > read(pair[0]), "{pair:?}");
        }
    }
}
