//! Who owns what after a write that is no apply: what it changed is its author's.
//!
//! Upstream: `apimachinery/pkg/util/managedfields/internal/{fieldmanager,skipnonapplied}.go`, Update.

use super::{
    Document,
    compare::{Changes, compare},
    entries,
    managers::{Identity, Managers, Operation},
    origin::filled,
    reset::Filter,
};
use api::{AnyKind, schema::Shapes};

/// Who writes, by which path, and when.
#[derive(Clone, Debug)]
pub(crate) struct Author {
    /// `kubectl`
    pub(crate) manager: String,
    /// The version that is spoken: `apps/v1`.
    pub(crate) api_version: String,
    /// Empty for the object's own path.
    pub(crate) subresource: String,
    /// What of an object that path writes.
    pub(crate) filter: Filter,
    /// RFC 3339, in seconds.
    pub(crate) now: String,
}

impl Author {
    pub(crate) fn identity(&self, operation: Operation) -> Identity {
        let manager = if self.manager.is_empty() { "unknown" } else { &self.manager };
        let subresource = self.subresource.clone();
        Identity::new(manager.to_owned(), operation, &self.api_version, subresource)
    }
}

/// What a request says of managedFields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    Nothing,
    /// An empty list, or one with an empty entry: ownership is to be forgotten.
    Reset,
    /// A list, as JSON.
    Entries(String),
}

/// An object as it is stored: JSON without managedFields, and those.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored<'a> {
    pub(crate) json: &'a str,
    pub(crate) managed: Option<&'a str>,
}

/// managedFields after a write of `new`; `live`: what was there before. `None`: nobody is known.
pub(crate) fn updated(
    kind: &AnyKind,
    shapes: &Shapes,
    live: Option<Stored<'_>>,
    new: &str,
    given: &Given,
    authors: &[Author],
) -> Option<String> {
    let before = live.and_then(|it| it.managed);
    // Through a path of its own nobody writes the list itself.
    let own = authors.first().is_some_and(|it| it.subresource.is_empty());
    let list = match given {
        Given::Reset if own => None,
        Given::Entries(list) if own && is_readable(list) => Some(list.as_str()),
        _ => before,
    };
    let list = list.map(Document::parse).and_then(Result::ok);
    let mut managers = list.as_ref().and_then(|it| entries::read(it).ok()).unwrap_or_default();
    if managers.is_empty() && live.is_some() {
        // Nobody was known before, and nobody begins to be by an update.
        return None;
    }
    // An object that cannot be read is told of elsewhere; nobody owns anything of it.
    let new = Document::parse(new).ok()?;
    let old = match live {
        Some(live) => Document::parse(live.json).ok()?,
        None => Document::Map(Vec::new()),
    };
    let (old, new) = (filled(kind, old), filled(kind, new));
    let changes = compare(shapes, &shapes.root(), &old, &new);
    if changes.is_empty() && *given == Given::Nothing {
        return before.map(str::to_owned);
    }
    managers.for_kind(kind, shapes);
    if let Some((last, others)) = authors.split_last() {
        for author in others {
            hand_over(&mut managers, changes.clone().each(|it| author.filter.apply(it)), author);
        }
        hand_over(&mut managers, changes.each(|it| last.filter.apply(it)), last);
    }
    entries::write(&managers)
}

fn is_readable(list: &str) -> bool {
    let document = Document::parse(list);
    let managers = document.as_ref().ok().and_then(|it| entries::read(it).ok());
    managers.is_some_and(|it| !it.is_empty())
}

/// What changed belongs to its author now.
pub(super) fn hand_over<'a>(managers: &mut Managers<'a>, changes: Changes<'a>, author: &Author) {
    if changes.is_empty() {
        return;
    }
    let set = changes.modified.union(changes.added);
    let forced = managers.give_way(&set, &changes.removed, None, true);
    debug_assert!(forced.is_ok(), "force leaves no conflict");
    let identity = author.identity(Operation::Update);
    managers.take_over(identity, &author.api_version, &author.now, set);
    managers.cap();
}
