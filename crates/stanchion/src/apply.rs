//! `--apply`: brings manifests in once the cluster is ready, and shows what becomes of them.
//!
//! Upstream: `kubectl apply` by merging: what a document does not name stays as it is.

use crate::progress;
use anyhow::{Context, Result, bail};
use api::{AnyObject, KindRef};
use client::Client;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use world::{Change, Expected, ObjectKey, Verb};

/// One document of a manifest.
struct Document {
    path: PathBuf,
    value: Value,
    kind: KindRef,
    key: ObjectKey,
}

pub(crate) async fn run(client: Arc<dyn Client>, paths: &[PathBuf]) -> Result<()> {
    let mut documents = Vec::new();
    for path in paths {
        for file in files(path)? {
            documents.extend(read(&file)?);
        }
    }
    let begun = std::time::Instant::now();
    let mut said = Vec::new();
    for document in &documents {
        let done = apply(&*client, document).await.with_context(|| {
            let kind = &document.kind.kind;
            format!("apply {kind} {} from {}", document.key, document.path.display())
        })?;
        said.push(format!("{}/{} {done}", named(&document.kind), document.key.name));
    }
    println!("{}", said.join(" · "));
    let sets = documents.iter().filter(|it| it.kind.plural == "statefulsets");
    let sets: Vec<ObjectKey> = sets.map(|it| it.key.clone()).collect();
    progress::show(&*client, &sets, begun).await
}

/// `service`, `statefulset.apps`: as kubectl names what it did.
fn named(kind: &KindRef) -> String {
    match kind.group.as_str() {
        "" => kind.singular.clone(),
        group => format!("{}.{group}", kind.singular),
    }
}

/// The manifests in a directory, in order of name; or the one file.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let attempt = || format!("read {}", path.display());
    if !path.metadata().with_context(attempt)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in path.read_dir().with_context(attempt)? {
        let file = entry.with_context(attempt)?.path();
        let ending = file.extension().and_then(|it| it.to_str()).unwrap_or_default();
        if matches!(ending, "yaml" | "yml" | "json") {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        bail!("read {}: no .yaml, .yml or .json file in it", path.display());
    }
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<Document>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let values: Vec<Value> =
        serde_saphyr::from_multiple(&text).with_context(|| format!("read {}", path.display()))?;
    let documents = values.into_iter().filter(|it| !it.is_null()).map(|value| {
        let said = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let (version, kind_name) = (said("apiVersion"), said("kind"));
        let fits = |it: &&KindRef| {
            it.kind == kind_name && it.served.iter().any(|v| it.api_version_as(v) == version)
        };
        let Some(kind) = api::kinds().iter().find(fits) else {
            bail!("read {}: no kind {kind_name:?} in version {version:?}", path.display());
        };
        let meta = |field: &str| value["metadata"][field].as_str().map(str::to_owned);
        let name = meta("name").unwrap_or_default();
        let namespace = match kind.is_namespaced() {
            true => meta("namespace").unwrap_or_else(|| "default".to_owned()),
            false => String::new(),
        };
        let (kind, key) = (kind.clone(), ObjectKey::new(&namespace, &name));
        Ok(Document { path: path.to_owned(), value, kind, key })
    });
    documents.collect()
}

async fn apply(client: &dyn Client, document: &Document) -> Result<&'static str> {
    let (kind, key) = (&document.kind, &document.key);
    let mut wanted = document.value.clone();
    wanted["apiVersion"] = kind.api_version().into();
    if kind.is_namespaced() {
        wanted["metadata"]["namespace"] = (*key.namespace).into();
    }
    loop {
        let world = client.world();
        let row = world.row(&kind.resource(), key);
        let (verb, expected, object) = match row {
            None => (Verb::Create, Expected::Absent, decode(kind, &wanted)?),
            Some(row) => {
                let mut merged: Value = serde_json::from_slice(&row.json()).context("read")?;
                let before = merged.clone();
                merge(&mut merged, &wanted);
                if merged == before {
                    return Ok("unchanged");
                }
                (Verb::Update, Expected::Revision(row.revision), decode(kind, &merged)?)
            }
        };
        let object = Some(Arc::new(object));
        let change = Change { verb, kind: kind.clone(), key: key.clone(), expected, object };
        match client.write(vec![change]).await {
            Ok(_) if verb == Verb::Create => return Ok("created"),
            Ok(_) => return Ok("configured"),
            // Somebody else was faster: look again.
            Err(failure) if failure.is_conflict() || failure.is_already_exists() => {}
            Err(failure) => return Err(failure.into()),
        }
    }
}

/// Reads an object; a field that its kind does not have is refused.
fn decode(kind: &KindRef, value: &Value) -> Result<AnyObject> {
    let json = serde_json::to_vec(value).context("write JSON")?;
    let (object, unknown) = kind.rules.decode(&json)?;
    match unknown.as_slice() {
        [] => Ok(object),
        fields => {
            let fields: Vec<String> =
                fields.iter().map(|it| format!("unknown field {it:?}")).collect();
            bail!("strict decoding error: {}", fields.join(", "))
        }
    }
}

/// A JSON merge patch without deletions: lists are replaced, objects are merged.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}
