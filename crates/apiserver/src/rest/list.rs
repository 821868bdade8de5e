//! Objects of a kind: stored bytes, spliced together without decoding, in pages if asked.
//!
//! The first page comes from the world; the following ones from the ledger at the revision of the
//! first, so that a list in pages is one list.
//!
//! Upstream: `apiserver/pkg/storage/etcd3/store.go` GetList.

use super::{token::Token, version};
use crate::{
    accept::Shape, answer::Answer, ask::Ask, body::invalid_options, commit::store_failure,
    encryption::Encryption, selection::Selection, show, table, view::View,
};
use api::{AnyKind, Failure, KindRef, failure::Details};
use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use serde_json::json;
use std::sync::Arc;
use store::{Entry, Key, KeyRange, ReadError, Revision, Snapshot};
use world::{ObjectKey, Row};

/// Rows of one answer and what is said about them.
pub(crate) struct Listed {
    pub(crate) revision: u64,
    pub(crate) rows: Vec<Arc<Row>>,
    next: Option<String>,
    remaining: Option<u64>,
}

pub(crate) async fn list(ask: &Ask) -> Result<Answer, Failure> {
    let selection = Selection::of(&ask.target, &ask.query)?;
    let listed = select(ask, &selection).await?;
    answer(ask, &listed)
}

/// The rows in the form that was asked for.
pub(crate) fn answer(ask: &Ask, listed: &Listed) -> Result<Answer, Failure> {
    let kind = &ask.target.kind;
    let json = match ask.form.shape {
        Shape::Object => whole(kind, &ask.target.version, listed),
        Shape::PartialList | Shape::Partial => partial(listed)?,
        Shape::Table => {
            let include = table::Include::of(&ask.query)?;
            let version = &*ask.target.version;
            let seen =
                |row| table::Seen { row, json: show::versioned(kind, version, Row::json(row)) };
            let rows: Vec<_> = listed.rows.iter().map(seen).collect();
            let metadata = listed.metadata();
            table::table(kind, ask.server.now(), &rows, metadata, include, true)?.to_string().into()
        }
    };
    show::bytes(ask.form, ask.is_pretty(), StatusCode::OK, json)
}

/// What the request asks for, from the world or from the ledger's past.
pub(crate) async fn select(ask: &Ask, selection: &Selection) -> Result<Listed, Failure> {
    let query = &ask.query;
    let limit = match query.one("limit") {
        "" => 0,
        text => text
            .parse::<i64>()
            .map_err(|_| Failure::bad_request(format!("invalid limit {text:?}")))?,
    };
    let limit = usize::try_from(limit).ok().filter(|it| *it > 0).unwrap_or(usize::MAX);
    let asked = version::parse(query.one("resourceVersion"))?;
    if query.has("sendInitialEvents") {
        let why = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list";
        return Err(invalid_options("ListOptions", why));
    }
    let (kind, server) = (&ask.target.kind, &ask.server);
    let exact = match (query.one("continue"), query.one("resourceVersionMatch"), asked) {
        ("", "", asked) => {
            // An old rule: a first page at a revision is of exactly that revision.
            asked.filter(|it| *it > 0 && limit != usize::MAX)
        }
        ("", _, None) => {
            return Err(forbidden_match(
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        ("", "NotOlderThan", Some(_)) => None,
        ("", "Exact", Some(0)) => {
            return Err(forbidden_match(
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
        ("", "Exact", Some(revision)) => Some(revision),
        ("", other, Some(_)) => {
            let why = format!(
                "resourceVersionMatch: Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\""
            );
            return Err(invalid_options("ListOptions", &why));
        }
        (_, "", None | Some(0)) => None,
        (_, "", Some(_)) => {
            return Err(Failure::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        (..) => {
            return Err(forbidden_match(
                "resourceVersionMatch is forbidden when continue is provided",
            ));
        }
    };
    let encryption = &server.config.access.encryption;
    match query.one("continue") {
        "" => match exact {
            None => {
                let view = server.fresh(asked).await?;
                Ok(first_page(&view, kind, selection, limit))
            }
            Some(revision) => {
                server.fresh(Some(revision)).await?;
                let snapshot =
                    server.store.snapshot_at(Revision(revision)).await.map_err(|it| {
                        too_old(it, "The resourceVersion for the provided list is too old.")
                    })?;
                page(&*snapshot, encryption, kind, selection, limit, None)
            }
        },
        text => {
            let token = Token::decode(text)?;
            let snapshot = server.store.snapshot_at(Revision(token.revision)).await;
            let snapshot = match snapshot {
                Ok(snapshot) => snapshot,
                Err(ReadError::Compacted { .. }) => {
                    let latest = server.store.latest().await.map_err(store_failure)?;
                    return Err(inconsistent(&token, latest.0));
                }
                Err(error) => return Err(too_old(error, "")),
            };
            let after: Key = format!("{}/{}", kind.storage, token.after).into();
            page(&*snapshot, encryption, kind, selection, limit, Some(after))
        }
    }
}

fn first_page(view: &View, kind: &KindRef, selection: &Selection, limit: usize) -> Listed {
    let mut listed =
        Listed { revision: view.revision, rows: Vec::new(), next: None, remaining: None };
    let Some(table) = view.table(kind) else { return listed };
    if let Some(name) = selection.name()
        && (selection.namespace.is_some() || !kind.is_namespaced())
    {
        let namespace = selection.namespace.as_deref().unwrap_or_default();
        let row = table.get(&ObjectKey::new(namespace, name));
        listed.rows.extend(row.filter(|it| selection.wants(it)).cloned());
        return listed;
    }
    let mut rows = table.rows(selection.namespace.as_deref()).filter(|it| selection.wants(it));
    listed.rows.extend(rows.by_ref().take(limit).cloned());
    if rows.next().is_some() {
        let after = listed.rows.last().map(|it| it.key().to_string()).unwrap_or_default();
        listed.next = Some(Token { revision: view.revision, after }.encode());
        // Counting what is selected would cost as much as sending it: upstream does not either.
        listed.remaining = selection.is_everything().then(|| rows.count() as u64 + 1);
    }
    listed
}

/// Rows read at once from the ledger.
const CHUNK: usize = 500;

fn page(
    snapshot: &dyn Snapshot,
    encryption: &Encryption,
    kind: &KindRef,
    selection: &Selection,
    limit: usize,
    mut after: Option<Key>,
) -> Result<Listed, Failure> {
    let prefix = match &selection.namespace {
        Some(namespace) => format!("{}/{namespace}/", kind.storage),
        None => format!("{}/", kind.storage),
    };
    let range = KeyRange::prefix(&prefix);
    let revision = snapshot.revision().0;
    let mut listed = Listed { revision, rows: Vec::new(), next: None, remaining: None };
    let read = |it: ReadError| too_old(it, "The resourceVersion for the provided list is too old.");
    'full: loop {
        let page = snapshot.range(&range, CHUNK, after.as_ref()).map_err(read)?;
        for Entry { key, value, modified, .. } in &page.entries {
            let value = encryption.open(kind, key.as_str(), value).map_err(Failure::internal)?;
            let row = Row::new(kind, value, modified.0).map_err(Failure::internal)?;
            if !selection.wants(&row) {
                continue;
            }
            if listed.rows.len() == limit {
                let before = listed.rows.last().map(|it| it.key().to_string()).unwrap_or_default();
                listed.next = Some(Token { revision, after: before }.encode());
                if selection.is_everything() {
                    let rest = KeyRange::new(key.clone(), range.to.clone());
                    listed.remaining = Some(snapshot.count(&rest).map_err(read)?);
                }
                break 'full;
            }
            listed.rows.push(Arc::new(row));
        }
        match (page.more, page.entries.last()) {
            (true, Some(last)) => after = Some(last.key.clone()),
            _ => break,
        }
    }
    Ok(listed)
}

impl Listed {
    fn metadata(&self) -> serde_json::Value {
        let mut metadata = json!({"resourceVersion": self.revision.to_string()});
        if let Some(next) = &self.next {
            metadata["continue"] = next.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        metadata
    }
}

/// The list as JSON: each item is its stored bytes with one splice.
fn whole(kind: &AnyKind, version: &str, listed: &Listed) -> Bytes {
    let size: usize = listed.rows.iter().map(|it| it.bytes.len() + 48).sum();
    let mut out = BytesMut::with_capacity(size + 256);
    let head = format!(
        "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
        kind.kind,
        kind.api_version_as(version),
        listed.metadata()
    );
    out.put_slice(head.as_bytes());
    for (n, row) in listed.rows.iter().enumerate() {
        if n > 0 {
            out.put_u8(b',');
        }
        if version == kind.version {
            row.json_into(&mut out);
        } else {
            out.put_slice(&show::versioned(kind, version, row.json()));
        }
    }
    out.put_slice(b"]}");
    out.freeze()
}

fn partial(listed: &Listed) -> Result<Bytes, Failure> {
    let items: Result<Vec<String>, Failure> =
        listed.rows.iter().map(|it| show::partial(&it.json())).collect();
    let text = format!(
        "{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{},\"items\":[{}]}}",
        listed.metadata(),
        items?.join(",")
    );
    Ok(text.into())
}

fn forbidden_match(why: &str) -> Failure {
    invalid_options("ListOptions", &format!("resourceVersionMatch: Forbidden: {why}"))
}

fn too_old(error: ReadError, why: &str) -> Failure {
    match error {
        ReadError::Compacted { .. } => Failure::expired(why),
        ReadError::Future { latest } => version::too_large(latest.0 + 1, latest.0),
        ReadError::Store(error) => store_failure(error),
    }
}

/// The past of the first page is forgotten. Whoever can live with a list of two times gets a token.
fn inconsistent(token: &Token, latest: u64) -> Failure {
    let why = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";
    let next = Token { revision: latest, after: token.after.clone() }.encode();
    let mut failure = Failure::expired(why);
    failure.details = Some(Box::new(Details { continue_token: next, ..Details::default() }));
    failure
}
