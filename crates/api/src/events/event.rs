//! `events.k8s.io/v1` Event: another face of the core group's Event. The objects are the same; some
//! fields have other names here.
//!
//! Upstream: `pkg/apis/events/v1/conversion.go`, `pkg/apis/core/validation/events.go`.

use crate::{
    core::v1::Event as CoreEvent,
    field::Errors,
    k8s::api::events::v1::Event,
    kind::{Column, Kind, Names, Scope},
    meta::{
        absent::{same, text},
        names,
    },
};
use serde_json::{Map, Value};

/// How this face calls itself, and how the stored one does.
pub const FACE: &str = "events.k8s.io/v1";
const STORED: &str = "v1";

impl Kind for Event {
    const NAMES: Names =
        Names { plural: "events", singular: "event", short: &["ev"], categories: &[] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = <CoreEvent as Kind>::STORAGE;
    const COLUMNS: &'static [Column<Event>] = &[];

    fn validate_name(name: &str, errors: &mut Errors) {
        names::dns_subdomain("metadata.name", name, errors);
    }
}

/// (here, in the core group)
const NAMED_OTHERWISE: [(&str, &str); 7] = [
    ("deprecatedCount", "count"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedSource", "source"),
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
];

fn renamed(
    fields: Map<String, Value>,
    version: &str,
    to: impl Fn(&str) -> Option<&'static str>,
) -> Value {
    let named = fields.into_iter().map(|(name, value)| match to(&name) {
        Some(other) => (other.to_owned(), value),
        None if name == "apiVersion" => (name, version.into()),
        None => (name, value),
    });
    Value::Object(named.collect())
}

/// The document of an event as the core group writes it.
pub fn to_core(event: Value) -> Value {
    let Value::Object(mut fields) = event else { return event };
    // What only the core group calls so is unknown here: it must not pass for the real field.
    for (_, core) in NAMED_OTHERWISE {
        if let Some(value) = fields.remove(core) {
            fields.insert(format!("{core} (of the core group)"), value);
        }
    }
    fields.entry("regarding").or_insert_with(|| Value::Object(Map::new()));
    renamed(fields, STORED, |name| NAMED_OTHERWISE.iter().find(|it| it.0 == name).map(|it| it.1))
}

/// The document of an event as this group writes it.
pub fn from_core(event: Value) -> Value {
    let Value::Object(fields) = event else { return event };
    renamed(fields, FACE, |name| NAMED_OTHERWISE.iter().find(|it| it.1 == name).map(|it| it.0))
}

/// The core group's name for a field of this one, in a selector.
pub fn field_of_core(label: &str) -> Option<String> {
    let plain = ["reason", "type", "metadata.name", "metadata.namespace"];
    match label.split_once('.') {
        Some(("regarding", rest)) => Some(format!("involvedObject.{rest}")),
        None if label == "reportingController" => Some("reportingComponent".to_owned()),
        _ => plain.contains(&label).then(|| label.to_owned()),
    }
}

/// What this group asks of an event besides what the core group does.
pub fn validate(event: &CoreEvent, old: Option<&CoreEvent>, errors: &mut Errors) {
    if old.is_none_or(|it| it.series != event.series)
        && let Some(series) = &event.series
    {
        if series.count.unwrap_or(0) < 2 {
            errors.invalid("series.count", "\"\"", "should be at least 2");
        }
        if series.last_observed_time.is_none() {
            errors.required("series.lastObservedTime", "");
        }
    }
    match old {
        None => validate_new(event, errors),
        Some(old) => validate_changes(event, old, errors),
    }
}

fn validate_new(event: &CoreEvent, errors: &mut Errors) {
    if event.event_time.is_none() {
        errors.required("eventTime", "");
    }
    let kind = text(&event.type_);
    if kind != "Normal" && kind != "Warning" {
        errors.invalid("type", "\"\"", format!("has invalid value: {kind}"));
    }
    let source = event.source.as_ref();
    let has_source = source.is_some_and(|it| it.component.is_some() || it.host.is_some());
    for (field, is_set) in [
        ("firstTimestamp", event.first_timestamp.is_some()),
        ("lastTimestamp", event.last_timestamp.is_some()),
        ("count", event.count.unwrap_or(0) != 0),
        ("source", has_source),
    ] {
        if is_set {
            errors.invalid(field, "\"\"", "needs to be unset");
        }
    }
}

fn validate_changes(event: &CoreEvent, old: &CoreEvent, errors: &mut Errors) {
    let changed = [
        ("involvedObject", !same(&event.involved_object, &old.involved_object)),
        ("reason", !same(&event.reason, &old.reason)),
        ("message", !same(&event.message, &old.message)),
        ("source", !same(&event.source, &old.source)),
        ("firstTimestamp", !same(&event.first_timestamp, &old.first_timestamp)),
        ("lastTimestamp", !same(&event.last_timestamp, &old.last_timestamp)),
        ("count", event.count.unwrap_or(0) != old.count.unwrap_or(0)),
        ("type", !same(&event.type_, &old.type_)),
        ("eventTime", !same(&event.event_time, &old.event_time)),
        ("action", !same(&event.action, &old.action)),
        ("related", !same(&event.related, &old.related)),
        ("reportingController", !same(&event.reporting_component, &old.reporting_component)),
        ("reportingInstance", !same(&event.reporting_instance, &old.reporting_instance)),
    ];
    for (field, _) in changed.iter().filter(|it| it.1) {
        errors.invalid(*field, "\"\"", "field is immutable");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::from_value;
    use serde_json::json;

    #[test]
    fn an_event_comes_back_as_it_went() {
        let core = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"},
            "involvedObject": {"kind": "Pod"}, "message": "m", "count": 3, "reason": "r",
            "source": {"component": "c"}, "reportingComponent": "x"});
        let here = from_core(core.clone());
        assert_eq!(here["apiVersion"], FACE);
        assert_eq!((&here["note"], &here["deprecatedCount"]), (&json!("m"), &json!(3)));
        assert_eq!(here["regarding"], json!({"kind": "Pod"}));
        assert_eq!(to_core(here), core);
    }

    #[test]
    fn a_field_of_the_other_face_is_unknown() {
        let event = to_core(json!({"kind": "Event", "metadata": {"name": "e"}, "message": "m"}));
        assert!(event.get("message").is_none());
        assert_eq!(field_of_core("regarding.name").as_deref(), Some("involvedObject.name"));
        assert_eq!(field_of_core("involvedObject.name"), None);
    }

    #[test]
    fn is_stricter_than_the_core_group() {
        let event: CoreEvent = from_value(&json!({"metadata": {"name": "e"}, "involvedObject": {},
            "count": 1, "type": "Odd", "series": {"count": 1}}))
        .unwrap();
        let mut errors = Errors::default();
        validate(&event, None, &mut errors);
        assert_eq!(
            errors.message(),
            "[series.count: Invalid value: \"\": should be at least 2, series.lastObservedTime: Required value, \
             eventTime: Required value, type: Invalid value: \"\": has invalid value: Odd, \
             count: Invalid value: \"\": needs to be unset]"
        );
    }
}
