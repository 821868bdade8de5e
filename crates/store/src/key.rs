//! Keys, and half-open ranges of them, in byte order.

use std::{borrow::Borrow, fmt, sync::Arc};

/// A path such as `/registry/pods/default/web-0`. Cheap to clone; ordered by bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Key {
        Key(text.into())
    }
}

impl From<String> for Key {
    fn from(text: String) -> Key {
        Key(text.into())
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// From `from` on, up to but without `to`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    pub from: Key,
    pub to: Key,
}

/// Greater than every key that begins with another character.
const GREATEST: char = char::MAX;

impl KeyRange {
    pub fn new(from: impl Into<Key>, to: impl Into<Key>) -> KeyRange {
        KeyRange { from: from.into(), to: to.into() }
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: &str) -> KeyRange {
        let mut end = prefix.to_owned();
        match end.pop() {
            // The next character ends the range exactly: `/registry/pods0` for `/registry/pods/`.
            Some(last) if last < '\x7f' => end.push(char::from(last as u8 + 1)),
            Some(last) => end.extend([last, GREATEST]),
            None => end.push(GREATEST),
        }
        KeyRange::new(prefix, end)
    }

    /// Every key.
    pub fn all() -> KeyRange {
        KeyRange::prefix("")
    }

    pub fn contains(&self, key: &Key) -> bool {
        self.from <= *key && *key < self.to
    }

    pub fn is_empty(&self) -> bool {
        self.from >= self.to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_holds_what_begins_with_it_and_nothing_else() {
        let pods = KeyRange::prefix("/registry/pods/");
        assert!(pods.contains(&Key::from("/registry/pods/default/web-0")));
        assert!(pods.contains(&Key::from("/registry/pods/é")));
        assert!(!pods.contains(&Key::from("/registry/pods")));
        assert!(!pods.contains(&Key::from("/registry/podtemplates/a")));
        assert!(KeyRange::all().contains(&Key::from("ÿ")));
        assert!(KeyRange::prefix("aé").contains(&Key::from("aéz")));
        assert!(!KeyRange::prefix("aé").contains(&Key::from("aê")));
    }
}
