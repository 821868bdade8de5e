//! One look over a JSON text before it is decoded: which kind it says it is, and which fields it
//! names twice. Decoders keep the last of two and say nothing; upstream's strict one tells.

use std::{collections::HashSet, ops::Range};

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// The text between the quotes, and where it is.
    pub(crate) api_version: Option<(String, Range<usize>)>,
    pub(crate) kind: Option<String>,
    /// Paths as upstream writes them: `spec.containers[0].name`.
    pub(crate) duplicates: Vec<String>,
}

/// Deeper than any object of the API; a limit keeps the walk off the end of the stack.
const DEPTH_MAX: usize = 512;

/// Upstream's decoder names no more faults of one text.
const DUPLICATES_MAX: usize = 100;
/// A longer path tells nobody more; a short text may have many that are very long.
const PATH_BYTES_MAX: usize = 1024;

/// `None` when the text is no JSON object: the decoder will say why.
pub(crate) fn scan(json: &[u8]) -> Option<Scan> {
    let mut walk = Walk::of(json);
    walk.space();
    if walk.peek()? != b'{' {
        return None;
    }
    walk.value(0)?;
    Some(walk.scan)
}

/// The fields that a JSON text of any shape names twice.
pub(crate) fn duplicates(json: &[u8]) -> Vec<String> {
    let mut walk = Walk::of(json);
    let _whole = walk.value(0);
    walk.scan.duplicates
}

/// Fields that are named twice and those of these paths, in upstream's words and in the order of the text.
pub(crate) fn oddities(json: &[u8], unknown: &[String]) -> Vec<String> {
    let unknown = &unknown[..unknown.len().min(DUPLICATES_MAX)];
    let mut walk = Walk { unknown, ..Walk::of(json) };
    let _whole = walk.value(0);
    walk.oddities
}

enum Step {
    Field(Range<usize>),
    Item(usize),
}

struct Walk<'a> {
    json: &'a [u8],
    at: usize,
    path: Vec<Step>,
    scan: Scan,
    /// Paths that are to be found, and what was found.
    unknown: &'a [String],
    oddities: Vec<String>,
}

impl<'a> Walk<'a> {
    fn of(json: &'a [u8]) -> Walk<'a> {
        let (path, oddities) = (Vec::new(), Vec::new());
        Walk { json, at: 0, path, scan: Scan::default(), unknown: &[], oddities }
    }

    fn odd(&mut self, what: &str, path: &str) {
        let said = format!("{what} field {path:?}");
        if !self.unknown.is_empty() && !self.oddities.contains(&said) {
            self.oddities.push(said);
        }
    }

    fn peek(&self) -> Option<u8> {
        self.json.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.space();
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// The place of a string's text, between its quotes.
    fn string(&mut self) -> Option<Range<usize>> {
        self.take(b'"')?;
        let start = self.at;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        let range = start..self.at;
        self.at += 1;
        Some(range)
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.space();
        match self.peek()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string().map(drop),
            _ => {
                let ends = |it: u8| matches!(it, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
                let start = self.at;
                while self.peek().is_some_and(|it| !ends(it)) {
                    self.at += 1;
                }
                (self.at > start).then_some(())
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        self.take(b'{')?;
        self.space();
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(());
        }
        let json = self.json;
        // Most objects have a handful of fields, for which looking at each is faster than hashing.
        let mut few: Vec<&[u8]> = Vec::new();
        let mut many: HashSet<&[u8]> = HashSet::new();
        loop {
            self.space();
            let name = self.string()?;
            let text = &json[name.clone()];
            let again = match few.len() {
                0..16 => few.contains(&text),
                _ => {
                    many.extend(few.iter());
                    many.contains(text)
                }
            };
            self.path.push(Step::Field(name));
            // A path is long: it is made where the name fits.
            if self.unknown.iter().any(|it| it.as_bytes().ends_with(text)) {
                let path = self.shown();
                if self.unknown.contains(&path) {
                    self.odd("unknown", &path);
                }
            }
            if again {
                if self.scan.duplicates.len() < DUPLICATES_MAX {
                    let path = self.shown();
                    self.odd("duplicate", &path);
                    if !self.scan.duplicates.contains(&path) {
                        self.scan.duplicates.push(path);
                    }
                }
            } else if many.is_empty() {
                few.push(text);
            } else {
                many.insert(text);
            }
            self.take(b':')?;
            self.space();
            let start = self.at;
            self.value(depth + 1)?;
            if depth == 0 && json[start] == b'"' {
                self.note(text, start + 1..self.at - 1);
            }
            self.path.pop();
            self.space();
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => break,
                _ => return None,
            }
        }
        self.at += 1;
        Some(())
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.take(b'[')?;
        self.space();
        if self.peek()? == b']' {
            self.at += 1;
            return Some(());
        }
        for index in 0.. {
            self.path.push(Step::Item(index));
            self.value(depth + 1)?;
            self.path.pop();
            self.space();
            match self.peek()? {
                b',' => self.at += 1,
                b']' => break,
                _ => return None,
            }
        }
        self.at += 1;
        Some(())
    }

    fn note(&mut self, field: &[u8], value: Range<usize>) {
        let text = String::from_utf8_lossy(&self.json[value.clone()]).into_owned();
        match field {
            b"apiVersion" => self.scan.api_version = Some((text, value)),
            b"kind" => self.scan.kind = Some(text),
            _ => {}
        }
    }

    fn shown(&self) -> String {
        let mut shown = String::new();
        for step in self.path.iter() {
            if shown.len() > PATH_BYTES_MAX {
                break;
            }
            match step {
                Step::Field(name) => {
                    if !shown.is_empty() {
                        shown.push('.');
                    }
                    let name = name.start..name.end.min(name.start + PATH_BYTES_MAX);
                    shown.push_str(&String::from_utf8_lossy(&self.json[name]));
                }
                Step::Item(index) => shown.push_str(&format!("[{index}]")),
            }
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_named_twice() {
        let json = br#" {"apiVersion":"v1","kind":"Pod","a":{"b":[{},{"c":1,"d":"}\"","c":2}]},"kind":"Pod"} "#;
        let scan = scan(json).unwrap();
        assert_eq!(scan.duplicates, ["a.b[1].c", "kind"]);
        // Many faults below a long name: some are told, and shortened.
        let (name, faults) = ("n".repeat(1 << 20), ",{\"a\":0,\"a\":0}".repeat(1 << 14));
        let long = super::scan(format!("{{\"{name}\":[0{faults}]}}").as_bytes()).unwrap();
        assert!(long.duplicates.iter().map(String::len).sum::<usize>() < 1 << 18);
        assert!(!long.duplicates.is_empty() && long.duplicates.len() <= DUPLICATES_MAX);
        assert_eq!(scan.kind.as_deref(), Some("Pod"));
        let (text, at) = scan.api_version.unwrap();
        assert_eq!((text.as_str(), &json[at]), ("v1", b"v1".as_slice()));
    }

    #[test]
    fn tells_what_is_odd_in_the_order_of_the_text() {
        let json = br#"{"a":{"x":0,"r":1,"r":2},"b":[{"y":0}]}"#;
        let unknown = ["b[0].y".to_owned(), "a.x".to_owned()];
        let told =
            [r#"unknown field "a.x""#, r#"duplicate field "a.r""#, r#"unknown field "b[0].y""#];
        assert_eq!(oddities(json, &unknown), told);
    }

    #[test]
    fn finds_one_among_many() {
        let fields: Vec<String> = (0..40).chain([7]).map(|it| format!("\"f{it}\":null")).collect();
        let json = format!("{{\"data\":{{{}}}}}", fields.join(","));
        assert_eq!(scan(json.as_bytes()).unwrap().duplicates, ["data.f7"]);
    }

    #[test]
    fn gives_up_on_what_is_no_object() {
        for json in ["", "[]", "{", "{\"a\"}", "{\"a\":}", "\"x\"", "{\"a\\"] {
            assert_eq!(scan(json.as_bytes()), None, "{json}");
        }
        let deep = "{\"a\":".repeat(100_000);
        assert_eq!(scan(deep.as_bytes()), None);
    }
}
