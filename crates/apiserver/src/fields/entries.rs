//! `metadata.managedFields` as it is written and read.
//!
//! Upstream: `apimachinery/pkg/util/managedfields/internal/managedfields.go`.

use super::{
    Document, Set,
    document::escape,
    managers::{Identity, Managers, Operation, Owned},
};
use stdx::Timestamp;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidEntry {
    #[error("managedFields is not a list of objects")]
    NoList,
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    #[error("apiVersion must not be empty")]
    NoVersion,
    #[error("missing fieldsType in managed fields entry {0}")]
    NoType(usize),
    #[error("invalid fieldsType {1:?} in managed fields entry {0}")]
    Type(usize, String),
    #[error("error decoding set: {0}")]
    Set(String),
}

/// Reads a list of entries.
pub(crate) fn read<'a>(list: &Document<'a>) -> Result<Managers<'a>, InvalidEntry> {
    let Document::List(entries) = list else { return Err(InvalidEntry::NoList) };
    let mut managers = Managers::default();
    for (index, entry) in entries.iter().enumerate() {
        let text = |name: &str| {
            let text = entry.get(name).and_then(|it| it.text().map(|it| it.into_owned()));
            text.unwrap_or_default()
        };
        let operation = match text("operation").as_str() {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err(InvalidEntry::Operation),
        };
        let api_version = text("apiVersion");
        if api_version.is_empty() {
            return Err(InvalidEntry::NoVersion);
        }
        match text("fieldsType") {
            it if it == "FieldsV1" => {}
            it if it.is_empty() => return Err(InvalidEntry::NoType(index)),
            it => return Err(InvalidEntry::Type(index, it)),
        }
        let set = match entry.get("fieldsV1") {
            None | Some(Document::Null) => Set::default(),
            Some(fields) => Set::read(fields).map_err(|it| InvalidEntry::Set(it.to_string()))?,
        };
        let time = Some(text("time")).filter(|it| !it.is_empty());
        let identity = Identity::new(text("manager"), operation, &api_version, text("subresource"));
        managers.insert(identity, Owned { api_version, time, set });
    }
    Ok(managers)
}

/// Writes the entries in upstream's order; `None` when there are none.
pub(crate) fn write(managers: &Managers<'_>) -> Option<String> {
    let seconds = |it: &Owned<'_>| {
        let time = it.time.as_deref().and_then(Timestamp::parse);
        time.map_or(0, Timestamp::seconds)
    };
    let mut entries: Vec<_> = managers.iter().collect();
    entries.sort_by(|(a, x), (b, y)| {
        let rest = |it: &Identity| (it.manager.clone(), it.subresource.clone());
        let first = a.operation.cmp(&b.operation).then(seconds(x).cmp(&seconds(y)));
        let names = a.manager.cmp(&b.manager).then(x.api_version.cmp(&y.api_version));
        first.then(names).then_with(|| rest(a).cmp(&rest(b)))
    });
    if entries.is_empty() {
        return None;
    }
    let mut out = String::with_capacity(512);
    for (identity, owned) in entries {
        out.push_str(if out.is_empty() { "[{" } else { ",{" });
        if !identity.manager.is_empty() {
            member(&mut out, "manager", &identity.manager);
        }
        member(&mut out, "operation", identity.operation.name());
        member(&mut out, "apiVersion", &owned.api_version);
        if let Some(time) = &owned.time {
            member(&mut out, "time", time);
        }
        out.push_str("\"fieldsType\":\"FieldsV1\",\"fieldsV1\":");
        owned.set.write(&mut out);
        if !identity.subresource.is_empty() {
            out.push(',');
            member(&mut out, "subresource", &identity.subresource);
            out.pop();
        }
        out.push('}');
    }
    out.push(']');
    Some(out)
}

fn member(out: &mut String, name: &str, value: &str) {
    out.push('"');
    out.push_str(name);
    out.push_str("\":\"");
    out.push_str(&escape(value));
    out.push_str("\",");
}

/// Whether two lists say the same of everything but the time.
pub(crate) fn same_but_time(a: &str, b: &str) -> bool {
    let timeless = |text: &str| {
        let mut managers = read(&Document::parse(text).ok()?).ok()?.into_owned();
        managers.values_mut().for_each(|it| it.time = None);
        Some(managers)
    };
    a == b || matches!((timeless(a), timeless(b)), (Some(a), Some(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn managers(text: &str) -> Result<Managers<'_>, InvalidEntry> {
        read(&Document::parse(text).unwrap())
    }

    const ENTRY: &str = r#"{"manager":"m","operation":"Update","apiVersion":"v1","time":"2026-01-02T03:04:05Z","fieldsType":"FieldsV1","fieldsV1":{"f:data":{}},"subresource":"status"}"#;

    #[test]
    fn writes_what_it_reads() {
        let text = format!("[{ENTRY}]");
        assert_eq!(write(&managers(&text).unwrap()).unwrap(), text);
        assert_eq!(write(&managers("[]").unwrap()), None);
    }

    #[test]
    fn applies_come_first_then_the_oldest() {
        let entry = |manager: &str, operation: &str, day: u8| {
            ENTRY
                .replace("\"m\"", &format!("{manager:?}"))
                .replace("Update", operation)
                .replace("01-02", &format!("01-{day:02}"))
        };
        let (a, b, c) = (entry("z", "Apply", 9), entry("y", "Update", 1), entry("x", "Update", 2));
        let text = format!("[{c},{b},{a}]");
        assert_eq!(write(&managers(&text).unwrap()).unwrap(), format!("[{a},{b},{c}]"));
    }

    #[test]
    fn says_what_is_no_entry() {
        for (from, to, error) in [
            ("Update", "Patch", "operation must be `Apply` or `Update`"),
            ("\"v1\"", "\"\"", "apiVersion must not be empty"),
            ("\"FieldsV1\"", "\"\"", "missing fieldsType in managed fields entry 0"),
            ("\"FieldsV1\"", "\"V2\"", "invalid fieldsType \"V2\" in managed fields entry 0"),
            ("f:data", "data", "error decoding set: not a step of a path to a field: \"data\""),
        ] {
            let text = format!("[{}]", ENTRY.replace(from, to));
            assert_eq!(managers(&text).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn time_does_not_count_where_only_the_time_differs() {
        let (a, later) = (format!("[{ENTRY}]"), format!("[{}]", ENTRY.replace("2026", "2027")));
        assert!(same_but_time(&a, &later));
        assert!(!same_but_time(&a, &later.replace("f:data", "f:other")));
    }
}
