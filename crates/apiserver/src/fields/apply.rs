//! Server-side apply: a configuration says what its author wants to own, and nothing else.
//!
//! Upstream: `structured-merge-diff/v6/merge/update.go`, Apply;
//! `apimachinery/pkg/util/managedfields/internal/{structuredmerge,skipnonapplied,lastappliedmanager,lastappliedupdater,conflict}.go`.

use super::{
    Document, Set,
    compare::{compare, fields_of},
    document::escape,
    entries,
    managers::{Conflicts, Identity, Managers, Operation, Owned, STRIPPED},
    merge::merge,
    origin::filled,
    remove::remove,
    update::{Author, Stored, hand_over},
    validate::faults,
};
use api::{
    AnyKind, Failure,
    failure::{Cause, Details},
    schema::{Shapes, shape::Place},
};
use std::borrow::Cow;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Upstream's limit for all annotations of an object together.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// What objects that were never applied to are owned by, until somebody applies.
const BEFORE: &str = "before-first-apply";

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    /// The object as JSON, without managedFields.
    pub(crate) json: String,
    pub(crate) managed: Option<String>,
}

/// Applies `config` to what is there; `live` is `None` when nothing is.
pub(crate) fn apply(
    kind: &AnyKind,
    shapes: &Shapes,
    live: Option<Stored<'_>>,
    config: &str,
    author: &Author,
    force: bool,
) -> Result<Applied, Failure> {
    let broken = |what: &str| Failure::internal(format!("{what} is no JSON object"));
    let config_text = config;
    let config = Document::parse(config).map_err(|_| broken("the configuration"))?;
    expect_kind(kind, &author.api_version, &config)?;
    if config.get("metadata").and_then(|it| it.get("managedFields")).is_some_and(|it| !it.is_null())
    {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    let faults = faults(shapes, &config);
    if !faults.is_empty() {
        let why = format!(
            "failed to create typed patch object ({}): {faults}",
            object_shown(kind, &author.api_version, &config)
        );
        return Err(Failure::new(500, "", why));
    }
    let live_document = match live {
        Some(live) => Document::parse(live.json).map_err(|_| broken("the object"))?,
        None => Document::Map(Vec::new()),
    };
    let list = live.and_then(|it| it.managed).map(Document::parse);
    let list = list.transpose().map_err(|_| broken("managedFields"))?;
    let managers = list.as_ref().map(entries::read).transpose();
    let mut managers = managers
        .map_err(|error| Failure::internal(format!("failed to decode managed fields: {error}")))?
        .unwrap_or_default();
    if managers.is_empty() && live.is_some() {
        let before = Author { manager: BEFORE.to_owned(), ..author.clone() };
        let nothing = filled(kind, Document::Map(Vec::new()));
        let all = filled(kind, live_document.clone());
        let changes = compare(shapes, &shapes.root(), &nothing, &all);
        hand_over(&mut managers, changes.each(|it| author.filter.apply(it)), &before);
    }
    managers.for_kind(kind, shapes);
    let applying = Applying { kind, shapes, author, live: &live_document, config: &config };
    let (document, managers) = match applying.run(managers.clone(), force)? {
        Ok(done) => done,
        Err(conflicts) => {
            let conflicts = applying.without_client_side(conflicts);
            if !conflicts.is_empty() {
                return Err(refusal(&conflicts));
            }
            applying.run(managers, true)?.map_err(|it| refusal(&it))?
        }
    };
    let document = with_last_applied(document, author, config_text);
    Ok(Applied { json: document.to_text(), managed: entries::write(&managers) })
}

struct Applying<'d, 'a> {
    kind: &'d AnyKind,
    shapes: &'d Shapes,
    author: &'d Author,
    live: &'d Document<'a>,
    config: &'d Document<'a>,
}

type Done<'a> = Result<(Document<'a>, Managers<'a>), Conflicts<'a>>;

impl<'a> Applying<'_, 'a> {
    fn run(&self, mut managers: Managers<'a>, force: bool) -> Result<Done<'a>, Failure> {
        let (shapes, root) = (self.shapes, self.shapes.root());
        let merged = merge(shapes, &root, self.live, self.config)
            .map_err(|error| Failure::new(500, "", format!("failed to merge config: {error}")))?;
        let identity = self.author.identity(Operation::Apply);
        let filter = self.author.filter;
        let set = filter.apply(fields_of(shapes, &root, self.config));
        let api_version = self.author.api_version.clone();
        let time = managers.get(&identity).and_then(|it| it.time.clone());
        let last = managers.insert(identity.clone(), Owned { api_version, time, set });
        let new = prune(shapes, &root, merged, &managers, last.as_ref().map(|it| &it.set));
        let new = tidy(shapes, &root, new);
        let (old_filled, new_filled) =
            (filled(self.kind, self.live.clone()), filled(self.kind, new.clone()));
        let changes = compare(shapes, &root, &old_filled, &new_filled).each(|it| filter.apply(it));
        let written = changes.modified.union(changes.added);
        if let Err(conflicts) =
            managers.give_way(&written, &changes.removed, Some(&identity), force)
        {
            return Ok(Err(conflicts));
        }
        let changed = *self.live != new;
        if let Some(mut own) = managers.remove(&identity) {
            own.set = own.set.difference(&STRIPPED);
            if changed {
                own.time = Some(self.author.now.clone());
            }
            if !own.set.is_empty() {
                // One who takes over without a change begins now.
                own.time.get_or_insert_with(|| self.author.now.clone());
                managers.insert(identity, own);
            }
        }
        Ok(Ok((new, managers)))
    }

    /// What client-side apply of the same person wrote is no conflict when they turn to this one.
    fn without_client_side(&self, conflicts: Conflicts<'a>) -> Conflicts<'a> {
        if self.author.manager != "kubectl" {
            return conflicts;
        }
        let annotations = self.live.get("metadata").and_then(|it| it.get("annotations"));
        let text = annotations.and_then(|it| it.get(LAST_APPLIED)).and_then(Document::text);
        let Some(text) = text.filter(|it| !it.is_empty()) else { return conflicts };
        let Ok(last) = Document::parse(&text) else { return conflicts };
        if last.get("apiVersion").and_then(Document::text).as_deref()
            != Some(self.author.api_version.as_str())
            || !faults(self.shapes, &last).is_empty()
        {
            return conflicts;
        }
        let root = self.shapes.root();
        let changes = compare(self.shapes, &root, &last, self.live);
        let allowed = fields_of(self.shapes, &root, &last)
            .difference(&changes.modified)
            .difference(&changes.added)
            .difference(&changes.removed)
            .into_owned();
        let rest = conflicts.into_iter().map(|(who, set)| (who, set.difference(&allowed)));
        rest.filter(|it| !it.1.is_empty()).collect()
    }
}

/// Takes out what the author applied last time and not this time, unless somebody else owns it.
fn prune<'a>(
    shapes: &Shapes,
    root: &Place,
    merged: Document<'a>,
    managers: &Managers<'a>,
    last: Option<&Set<'a>>,
) -> Document<'a> {
    let Some(last) = last.filter(|it| !it.is_empty()) else { return merged };
    let named = |it: &Set<'a>| it.with_named_fields(shapes, root);
    let fields = |it: &Document<'a>| named(&fields_of(shapes, root, it));
    let (last, everything) = (named(last), fields(&merged));
    let pruned = remove(shapes, root, &merged, &last);
    // Others' fields come back …
    let kept = fields(&pruned).union(named(&managers.all()));
    let pruned = remove(shapes, root, &merged, &everything.clone().difference(&kept));
    // … and nobody's, if the author did not own them either.
    let gone = everything.difference(&fields(&pruned)).intersection(&last);
    remove(shapes, root, &merged, &gone)
}

/// Without nulls in known fields: they are absent ones.
fn tidy<'a>(shapes: &Shapes, place: &Place, document: Document<'a>) -> Document<'a> {
    match (place, document) {
        (Place::Object { .. } | Place::Map { .. }, Document::Map(fields)) => {
            let fields = fields.into_iter().filter(|it| !it.1.is_null());
            let tidied = fields.map(|(name, value)| {
                let value = match shapes.inside(place, &name) {
                    Some(inside) => tidy(shapes, inside, value),
                    None => value,
                };
                (name, value)
            });
            Document::Map(tidied.collect())
        }
        (Place::List { items, .. }, Document::List(list)) => {
            Document::List(list.into_iter().map(|it| tidy(shapes, items, it)).collect())
        }
        (_, document) => document,
    }
}

/// The annotation of client-side apply is kept true, so that a person may go back to it.
fn with_last_applied<'a>(document: Document<'a>, author: &Author, config: &str) -> Document<'a> {
    let has_one = document
        .get("metadata")
        .and_then(|it| it.get("annotations"))
        .and_then(|it| it.get(LAST_APPLIED))
        .and_then(Document::text)
        .is_some_and(|it| !it.is_empty());
    if author.manager != "kubectl" || !has_one {
        return document;
    }
    let Ok(mut config) = Document::parse(config) else { return document };
    if let Some(annotations) = path_mut(&mut config, &["metadata", "annotations"])
        && let Document::Map(fields) = annotations
    {
        fields.retain(|it| it.0 != LAST_APPLIED);
    }
    let text = format!("{}\n", config.to_text());
    let mut document = document;
    if let Some(Document::Map(fields)) = path_mut(&mut document, &["metadata", "annotations"]) {
        let own = |it: &(Cow<'_, str>, Document<'_>)| it.0 == LAST_APPLIED;
        let length = |it: &Document<'_>| it.text().map_or(0, |it| it.len());
        let others = fields.iter().filter(|it| !own(it));
        let size: usize = others.map(|it| it.0.len() + length(&it.1)).sum();
        if size + LAST_APPLIED.len() + text.len() > ANNOTATIONS_MAX {
            fields.retain(|it| !own(it));
        } else if let Some(field) = fields.iter_mut().find(|it| own(it)) {
            field.1 = Document::Text(Cow::Owned(escape(&text).into_owned()));
        }
    }
    document
}

fn path_mut<'d, 'a>(document: &'d mut Document<'a>, path: &[&str]) -> Option<&'d mut Document<'a>> {
    path.iter().try_fold(document, |at, name| match at {
        Document::Map(fields) => fields.iter_mut().find(|it| it.0 == *name).map(|it| &mut it.1),
        _ => None,
    })
}

fn text_of<'d>(config: &'d Document<'_>, path: &[&str]) -> Cow<'d, str> {
    let found = path.iter().try_fold(config, |at, name| at.get(name));
    found.and_then(Document::text).unwrap_or_default()
}

/// `apps/v1, Kind=StatefulSet`
fn kind_shown(api_version: &str, kind: &str) -> String {
    let core = if api_version.contains('/') { "" } else { "/" };
    format!("{core}{api_version}, Kind={kind}")
}

fn object_shown(kind: &AnyKind, api_version: &str, config: &Document<'_>) -> String {
    let (namespace, name) =
        (text_of(config, &["metadata", "namespace"]), text_of(config, &["metadata", "name"]));
    format!("{namespace}/{name}; {}", kind_shown(api_version, &kind.kind))
}

fn expect_kind(kind: &AnyKind, api_version: &str, config: &Document<'_>) -> Result<(), Failure> {
    let (given_version, given_kind) =
        (text_of(config, &["apiVersion"]), text_of(config, &["kind"]));
    if given_version == api_version && given_kind == kind.kind {
        return Ok(());
    }
    let shown = kind_shown(&given_version, &given_kind);
    Err(Failure::bad_request(format!("invalid object type: {shown}")))
}

/// Who is in the way, and of what.
pub(super) fn refusal(conflicts: &Conflicts<'_>) -> Failure {
    let each =
        || conflicts.iter().flat_map(|(who, set)| set.paths().into_iter().map(move |it| (who, it)));
    let causes: Vec<Cause> = each()
        .map(|(who, path)| Cause {
            reason: "FieldManagerConflict".to_owned(),
            message: format!("conflict with {}", who.shown()),
            field: path,
        })
        .collect();
    let message = match each().collect::<Vec<_>>().as_slice() {
        [(who, path)] => {
            format!("Apply failed with 1 conflict: conflict with {}: {path}", who.shown())
        }
        many => {
            let lines = conflicts.iter().map(|(who, set): &(Identity, Set<'_>)| {
                let paths = set.paths().into_iter().map(|it| format!("\n- {it}"));
                format!("conflicts with {}:{}", who.shown(), paths.collect::<String>())
            });
            let lines: Vec<String> = lines.collect();
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    let details = Details { causes, ..Details::default() };
    Failure { details: Some(Box::new(details)), ..Failure::new(409, "Conflict", message) }
}
