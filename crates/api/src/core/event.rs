//! `v1` Event: something that happened to an object, for people to read.
//!
//! Upstream: `pkg/apis/core/validation/events.go` (the rules of `v1`), `pkg/registry/core/event`.

use crate::{
    Object,
    field::{Errors, quoted},
    k8s::api::core::v1::Event,
    kind::{Cell, Column, Format, Kind, Names, Printing, Scope, Subresource},
    meta::{
        self,
        absent::text,
        columns::{self, or, wide},
        names,
    },
};
use stdx::Timestamp;

impl Kind for Event {
    const NAMES: Names =
        Names { plural: "events", singular: "event", short: &["ev"], categories: &[] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/events";
    const SUBRESOURCES: &'static [Subresource] = &[];
    const GENERATION: bool = false;
    const COLUMNS: &'static [Column<Event>] = COLUMNS;

    fn validate(&self, errors: &mut Errors) {
        let (own, theirs) = (self.namespace(), text(&self.involved_object.namespace));
        let path = "involvedObject.namespace";
        let detail = "does not match event.namespace";
        if self.event_time.is_none() {
            let of_cluster = theirs.is_empty() && (own.is_empty() || own == "default");
            if !of_cluster && own != theirs {
                errors.invalid(path, quoted(theirs), detail);
            }
            return;
        }
        if theirs.is_empty() && own != "default" && own != "kube-system" {
            errors.invalid(path, quoted(theirs), detail);
        }
        let reporter = text(&self.reporting_component);
        if reporter.is_empty() {
            errors.required("reportingComponent", "");
        }
        names::qualified_name("reportingComponent", reporter, errors);
        let limited = [
            ("reportingInstance", text(&self.reporting_instance), 128),
            ("action", text(&self.action), 128),
            ("reason", text(&self.reason), 128),
            ("message", text(&self.message), 1024),
        ];
        for (field, value, most) in limited {
            if value.is_empty() && field != "message" {
                errors.required(field, "");
            }
            if value.len() > most {
                errors.invalid(field, "\"\"", format!("can have at most {most} characters"));
            }
        }
    }

    /// Old clients name events in ways that are no DNS names.
    fn validate_name(name: &str, errors: &mut Errors) {
        names::path_segment("metadata.name", name, errors);
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let object = &self.involved_object;
        let component = self.source.as_ref().map_or("", |it| text(&it.component));
        let reporter = text(&self.reporting_component);
        let fields = [
            ("involvedObject.kind", text(&object.kind)),
            ("involvedObject.namespace", text(&object.namespace)),
            ("involvedObject.name", text(&object.name)),
            ("involvedObject.uid", text(&object.uid)),
            ("involvedObject.apiVersion", text(&object.api_version)),
            ("involvedObject.resourceVersion", text(&object.resource_version)),
            ("involvedObject.fieldPath", text(&object.field_path)),
            ("reason", text(&self.reason)),
            ("reportingComponent", reporter),
            ("source", or(component, reporter)),
            ("type", text(&self.type_)),
        ];
        fields.into_iter().map(|(field, value)| (field, value.to_owned())).collect()
    }
}

const COLUMNS: &[Column<Event>] = &[
    columns::text("Last Seen", "When it happened last.", |event, printing| {
        meta::age(last(event), printing.now).into()
    }),
    columns::text("Type", "Normal or Warning.", |event, _| text(&event.type_).into()),
    columns::text("Reason", "What happened, in one word.", |event, _| text(&event.reason).into()),
    columns::text("Object", "The object that it is about.", |event, _| {
        let object = &event.involved_object;
        let kind = text(&object.kind).to_lowercase();
        match text(&object.name) {
            "" => kind.into(),
            name => format!("{kind}/{name}").into(),
        }
    }),
    wide("Subobject", "The part of the object that it is about.", |event, _| {
        text(&event.involved_object.field_path).into()
    }),
    wide("Source", "Who says so.", |event, _| source(event).into()),
    columns::text("Message", "What happened, in a sentence.", |event, _| {
        text(&event.message).trim().into()
    }),
    wide("First Seen", "When it happened first.", |event, printing| {
        meta::age(first(event), printing.now).into()
    }),
    wide("Count", "How often it happened.", |event, _| {
        let series = event.series.as_ref().map(|it| it.count.unwrap_or(0));
        let count = series.unwrap_or_else(|| event.count.unwrap_or(0).max(1));
        Cell::Number(i64::from(count))
    }),
    Column {
        title: "Name",
        format: Format::Name,
        wide: true,
        description: "Name of the event, unique within its namespace.",
        cell: |event: &Event, _: &Printing| event.name().into(),
    },
];

fn first(event: &Event) -> Option<Timestamp> {
    let first = event.first_timestamp.as_ref().map(meta::timestamp_of);
    first.or_else(|| event.event_time.as_ref().map(|it| Timestamp(it.0.as_microsecond())))
}

fn last(event: &Event) -> Option<Timestamp> {
    match &event.series {
        Some(series) => {
            series.last_observed_time.as_ref().map(|it| Timestamp(it.0.as_microsecond()))
        }
        None => event.last_timestamp.as_ref().map(meta::timestamp_of).or_else(|| first(event)),
    }
}

/// `kubelet, node-1`
fn source(event: &Event) -> String {
    let source = event.source.as_ref();
    let component =
        or(source.map_or("", |it| text(&it.component)), text(&event.reporting_component));
    let host = or(source.map_or("", |it| text(&it.host)), text(&event.reporting_instance));
    match host {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        codec::from_value,
        meta::columns::tests::{NOW, row},
    };
    use serde_json::json;

    #[test]
    fn prints_what_happened_to_whom_and_how_often() {
        let at = |ago: i64| Timestamp::from_seconds(NOW.seconds() - ago).rfc3339();
        let event: Event = from_value(&json!({"metadata": {"name": "web-0.1", "namespace": "ns"},
            "type": "Normal", "reason": "Created", "message": "made it \n", "count": 4,
            "involvedObject": {"kind": "Pod", "name": "web-0", "namespace": "ns",
                "fieldPath": "spec.containers{c}"},
            "source": {"component": "kubelet", "host": "n1"},
            "firstTimestamp": at(70), "lastTimestamp": at(7)}))
        .unwrap();
        assert_eq!(
            row(&event),
            "7s | Normal | Created | pod/web-0 | spec.containers{c} | kubelet, n1 | made it | 70s | 4 | web-0.1"
        );
        let mut errors = Errors::default();
        event.validate(&mut errors);
        assert_eq!(errors.message(), "");
        assert!(event.fields().contains(&("source", "kubelet".to_owned())));
    }
}
