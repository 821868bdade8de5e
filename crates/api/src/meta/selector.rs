//! Label selectors: read from a LabelSelector object or from a query's text, then asked of labels.
//!
//! Upstream: `apimachinery/pkg/labels/selector.go`.

use super::LabelSelector;
use std::{collections::BTreeMap, fmt};

/// All requirements must hold. None at all: everything is selected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
    /// The selector of an absent LabelSelector: nothing is selected.
    nothing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    pub values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

impl Selector {
    pub fn everything() -> Selector {
        Selector::default()
    }

    pub fn nothing() -> Selector {
        Selector { nothing: true, ..Selector::default() }
    }

    pub fn new(requirements: Vec<Requirement>) -> Selector {
        Selector { requirements, nothing: false }
    }

    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// From `spec.selector` of Services and the like: every pair must match.
    pub fn of_map(pairs: &BTreeMap<String, String>) -> Selector {
        Selector::new(pairs.iter().map(|(key, value)| equals(key, value)).collect())
    }

    /// From a LabelSelector. An absent one selects nothing, an empty one everything.
    pub fn of(selector: Option<&LabelSelector>) -> Selector {
        let Some(selector) = selector else { return Selector::nothing() };
        let pairs = selector.match_labels.iter().flatten().map(|(key, value)| equals(key, value));
        let expressions = selector.match_expressions.iter().flatten().map(|it| Requirement {
            key: it.key.clone(),
            operator: match it.operator.as_str() {
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                _ => Operator::In,
            },
            values: it.values.clone().unwrap_or_default(),
        });
        Selector::new(pairs.chain(expressions).collect())
    }

    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.nothing && self.requirements.iter().all(|it| it.matches(labels))
    }

    /// Reads the text of `?labelSelector=`: `a=b,c!=d,e in (f,g),h,!i,j>1`.
    pub fn parse(text: &str) -> Result<Selector, String> {
        let mut parser = Parser { rest: text.trim() };
        let mut requirements = Vec::new();
        if parser.rest.is_empty() {
            return Ok(Selector::everything());
        }
        loop {
            requirements.push(parser.requirement()?);
            if parser.rest.is_empty() {
                return Ok(Selector::new(requirements));
            }
            parser.expect(',')?;
        }
    }
}

impl Requirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let listed = || value.is_some_and(|it| self.values.contains(it));
        let number = |text: &String| text.parse::<i64>().ok();
        let limit = || self.values.first().and_then(number);
        match self.operator {
            Operator::In => listed(),
            Operator::NotIn => !listed(),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => {
                value.and_then(number).zip(limit()).is_some_and(|(a, b)| a > b)
            }
            Operator::LessThan => value.and_then(number).zip(limit()).is_some_and(|(a, b)| a < b),
        }
    }
}

fn equals(key: &str, value: &str) -> Requirement {
    Requirement { key: key.to_owned(), operator: Operator::In, values: vec![value.to_owned()] }
}

/// The text form, which `Selector::parse` reads back.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, it) in self.requirements.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            let values = it.values.join(",");
            match (it.operator, it.values.len()) {
                (Operator::In, 1) => write!(f, "{comma}{}={values}", it.key)?,
                (Operator::NotIn, 1) => write!(f, "{comma}{}!={values}", it.key)?,
                (Operator::In, _) => write!(f, "{comma}{} in ({values})", it.key)?,
                (Operator::NotIn, _) => write!(f, "{comma}{} notin ({values})", it.key)?,
                (Operator::Exists, _) => write!(f, "{comma}{}", it.key)?,
                (Operator::DoesNotExist, _) => write!(f, "{comma}!{}", it.key)?,
                (Operator::GreaterThan, _) => write!(f, "{comma}{}>{values}", it.key)?,
                (Operator::LessThan, _) => write!(f, "{comma}{}<{values}", it.key)?,
            }
        }
        Ok(())
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn requirement(&mut self) -> Result<Requirement, String> {
        if self.take("!") {
            let key = self.word("a key")?;
            return Ok(Requirement { key, operator: Operator::DoesNotExist, values: Vec::new() });
        }
        let key = self.word("a key")?;
        let one = |parser: &mut Parser<'a>, operator| {
            let values = vec![parser.value()];
            Ok(Requirement { key: key.clone(), operator, values })
        };
        if self.take("==") || self.take("=") {
            one(self, Operator::In)
        } else if self.take("!=") {
            one(self, Operator::NotIn)
        } else if self.take(">") {
            one(self, Operator::GreaterThan)
        } else if self.take("<") {
            one(self, Operator::LessThan)
        } else if self.take_word("in") {
            Ok(Requirement { key, operator: Operator::In, values: self.set()? })
        } else if self.take_word("notin") {
            Ok(Requirement { key, operator: Operator::NotIn, values: self.set()? })
        } else {
            Ok(Requirement { key, operator: Operator::Exists, values: Vec::new() })
        }
    }

    fn set(&mut self) -> Result<Vec<String>, String> {
        self.expect('(')?;
        let mut values = Vec::new();
        loop {
            values.push(self.value());
            if self.take(")") {
                return Ok(values);
            }
            self.expect(',')?;
        }
    }

    fn value(&mut self) -> String {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|it: char| ",()=!<> ".contains(it)).unwrap_or(self.rest.len());
        let (value, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        value.to_owned()
    }

    fn word(&mut self, what: &str) -> Result<String, String> {
        match self.value() {
            word if word.is_empty() => {
                Err(format!("unable to parse requirement: found '{}', expected: {what}", self.rest))
            }
            word => Ok(word),
        }
    }

    fn take(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest.trim_start();
        true
    }

    fn take_word(&mut self, word: &str) -> bool {
        let after = self.rest.strip_prefix(word);
        let ends = |it: &str| it.starts_with([' ', '(']);
        if after.is_some_and(ends) { self.take(word) } else { false }
    }

    fn expect(&mut self, token: char) -> Result<(), String> {
        if self.take(token.encode_utf8(&mut [0; 4])) {
            return Ok(());
        }
        Err(format!("unable to parse requirement: found '{}', expected: '{token}'", self.rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn selects_by_every_operator() {
        let labels = labels(&[("app", "web"), ("tier", "3")]);
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier", true),
            ("app!=web", false),
            ("other!=x", true),
            ("app in (db, web)", true),
            ("app notin (db,web)", false),
            ("!app", false),
            ("!other", true),
            ("tier>2", true),
            ("tier<3", false),
            ("index", false),
        ] {
            assert_eq!(Selector::parse(text).unwrap().matches(&labels), expected, "{text}");
        }
    }

    #[test]
    fn text_comes_back_as_it_was_understood() {
        let text = "app=web,tier in (a,b),!x,y,z!=1,n>3";
        assert_eq!(Selector::parse(text).unwrap().to_string(), text);
        for text in ["=x", "a in b", "a in (b", "a=b c", ",a"] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_absent_selector_selects_nothing_and_an_empty_one_everything() {
        assert!(!Selector::of(None).matches(&BTreeMap::new()));
        assert!(Selector::of(Some(&LabelSelector::default())).matches(&BTreeMap::new()));
    }
}
