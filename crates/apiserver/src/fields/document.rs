//! JSON as it is walked for ownership: borrowed from its text, fields sorted, scalars left as written.
//!
//! Texts keep their quotes and escapes; what one encoder wrote compares byte by byte. Other encoders
//! escape differently, so a text with a backslash is written anew when it is read.

use std::{borrow::Cow, fmt::Write};

/// Deeper than any object of the API; a limit keeps the walk off the end of the stack.
const DEPTH_MAX: usize = 256;

#[derive(Clone, Debug)]
pub(crate) enum Document<'a> {
    Null,
    Truth(bool),
    /// As written.
    Number(Cow<'a, str>),
    /// Between the quotes, with escapes.
    Text(Cow<'a, str>),
    List(Vec<Document<'a>>),
    /// Sorted by name, no name twice.
    Map(Vec<(Cow<'a, str>, Document<'a>)>),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON document, at byte {at}")]
pub(crate) struct NotJson {
    at: usize,
}

impl<'a> Document<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Document<'a>, NotJson> {
        let mut reader = Reader { text, at: 0 };
        let document = reader.value(0).ok_or(NotJson { at: reader.at })?;
        reader.space();
        match reader.at == text.len() {
            true => Ok(document),
            false => Err(NotJson { at: reader.at }),
        }
    }

    /// What is in a field of an object.
    pub(crate) fn get(&self, name: &str) -> Option<&Document<'a>> {
        let Document::Map(fields) = self else { return None };
        let at = fields.binary_search_by(|it| (*it.0).cmp(name)).ok()?;
        Some(&fields[at].1)
    }

    pub(crate) fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            Document::Text(text) if !text.contains('\\') => Some(Cow::Borrowed(text)),
            Document::Text(text) => Some(Cow::Owned(unescape(text)?)),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Document::Null)
    }

    /// No list, no map, or one without content.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Document::List(items) => items.is_empty(),
            Document::Map(fields) => fields.is_empty(),
            _ => true,
        }
    }

    pub(crate) fn write(&self, out: &mut String) {
        match self {
            Document::Null => out.push_str("null"),
            Document::Truth(truth) => out.push_str(if *truth { "true" } else { "false" }),
            Document::Number(number) => out.push_str(number),
            Document::Text(text) => {
                out.push('"');
                out.push_str(text);
                out.push('"');
            }
            Document::List(items) => {
                out.push('[');
                for (n, item) in items.iter().enumerate() {
                    if n > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Document::Map(fields) => {
                out.push('{');
                for (n, (name, value)) in fields.iter().enumerate() {
                    if n > 0 {
                        out.push(',');
                    }
                    let _infallible = write!(out, "\"{name}\":");
                    value.write(out);
                }
                out.push('}');
            }
        }
    }

    pub(crate) fn to_text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }
}

impl PartialEq for Document<'_> {
    fn eq(&self, other: &Document<'_>) -> bool {
        match (self, other) {
            (Document::Null, Document::Null) => true,
            (Document::Truth(a), Document::Truth(b)) => a == b,
            (Document::Number(a), Document::Number(b)) => {
                // Large whole numbers that differ may be one to a float.
                let whole = |it: &str| it.parse::<i64>().is_ok();
                a == b
                    || !(whole(a) && whole(b))
                        && matches!((a.parse::<f64>(), b.parse::<f64>()), (Ok(a), Ok(b)) if a == b)
            }
            (Document::Text(a), Document::Text(b)) => a == b,
            (Document::List(a), Document::List(b)) => a == b,
            (Document::Map(a), Document::Map(b)) => a == b,
            _ => false,
        }
    }
}

/// What an escaped text says.
pub(super) fn unescape(text: &str) -> Option<String> {
    serde_json::from_str(&format!("\"{text}\"")).ok()
}

/// A text as JSON writes it, without its quotes.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|it| it == b'"' || it == b'\\' || it < 0x20) {
        return Cow::Borrowed(text);
    }
    let quoted = serde_json::Value::from(text).to_string();
    Cow::Owned(quoted[1..quoted.len() - 1].to_owned())
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &str, document: Document<'a>) -> Option<Document<'a>> {
        self.text[self.at..].starts_with(word).then(|| {
            self.at += word.len();
            document
        })
    }

    fn value(&mut self, depth: usize) -> Option<Document<'a>> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.space();
        match self.peek()? {
            b'{' => self.map(depth),
            b'[' => self.list(depth),
            b'"' => self.string().map(Document::Text),
            b't' => self.word("true", Document::Truth(true)),
            b'f' => self.word("false", Document::Truth(false)),
            b'n' => self.word("null", Document::Null),
            b'-' | b'0'..=b'9' => {
                let start = self.at;
                self.number()?;
                Some(Document::Number(Cow::Borrowed(&self.text[start..self.at])))
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<()> {
        self.at += usize::from(self.peek() == Some(b'-'));
        if self.peek()? == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Some(())
    }

    /// At least one.
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn string(&mut self) -> Option<Cow<'a, str>> {
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.at += 2;
                }
                // As serde has it: control characters are written with a backslash.
                0..=0x1f => return None,
                _ => self.at += 1,
            }
        }
        let text = self.text.get(start..self.at)?;
        self.at += 1;
        if !escaped {
            return Some(Cow::Borrowed(text));
        }
        Some(Cow::Owned(escape(&unescape(text)?).into_owned()))
    }

    fn list(&mut self, depth: usize) -> Option<Document<'a>> {
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.peek()? == b']' {
            self.at += 1;
            return Some(Document::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.space();
            let next = self.peek()?;
            self.at += 1;
            match next {
                b',' => {}
                b']' => return Some(Document::List(items)),
                _ => return None,
            }
        }
    }

    fn map(&mut self, depth: usize) -> Option<Document<'a>> {
        self.at += 1;
        let mut fields: Vec<(Cow<'a, str>, Document<'a>)> = Vec::new();
        let mut sorted = true;
        self.space();
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(Document::Map(fields));
        }
        loop {
            self.space();
            if self.peek()? != b'"' {
                return None;
            }
            let name = self.string()?;
            self.space();
            if self.peek()? != b':' {
                return None;
            }
            self.at += 1;
            let value = self.value(depth + 1)?;
            sorted = sorted && fields.last().is_none_or(|it| it.0 < name);
            fields.push((name, value));
            self.space();
            let next = self.peek()?;
            self.at += 1;
            match next {
                b',' => {}
                b'}' => break,
                _ => return None,
            }
        }
        if !sorted {
            // Stable: of two with one name the last counts.
            fields.reverse();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            fields.dedup_by(|a, b| a.0 == b.0);
        }
        Some(Document::Map(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sorts_fields_and_keeps_the_last_of_two() {
        let document = Document::parse(
            r#" {"b": [1, -2.5e3, true], "a": null, "b": {"\u003c": "\u0041\n"}} "#,
        );
        assert_eq!(document.unwrap().to_text(), r#"{"a":null,"b":{"<":"A\n"}}"#);
    }

    #[test]
    fn numbers_are_equal_however_they_are_written() {
        assert_eq!(Document::parse("1").unwrap(), Document::parse("1.0").unwrap());
        assert_ne!(Document::parse("1").unwrap(), Document::parse("\"1\"").unwrap());
    }

    #[test]
    fn gives_up_on_what_is_no_json() {
        for text in [
            "",
            "{",
            "[1,]",
            "{\"a\"}",
            "{} x",
            "nul",
            "\"\\",
            "{\"a\":1,}",
            "\"\\u12\"",
            "\"\n\"",
            "-",
            "01",
            "1.",
            "1e",
        ] {
            assert!(Document::parse(text).is_err(), "{text}");
        }
        assert!(Document::parse(&"[".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let ours = Document::parse(&text).is_ok();
            let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            // What a decoder takes is taken here; decoders come first and are stricter.
            prop_assert!(ours || !theirs);
        }
    }
}
