//! `node.k8s.io/v1` RuntimeClass: with which handler of the runtime pods are run.
//!
//! Upstream: `pkg/apis/node/validation/validation.go`.

use crate::{
    core::{node::deprecated_label, pod},
    field::{Errors, quoted},
    k8s::api::{core::v1::Toleration, node::v1::RuntimeClass},
    kind::{Column, Kind, Names, Scope, Subresource},
    meta::{
        absent::list,
        columns::{age, name, text},
        names, quantity,
    },
};

impl Kind for RuntimeClass {
    const NAMES: Names =
        Names { plural: "runtimeclasses", singular: "runtimeclass", short: &[], categories: &[] };
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: &'static str = "/registry/runtimeclasses";
    const SUBRESOURCES: &'static [Subresource] = &[];
    const COLUMNS: &'static [Column<RuntimeClass>] = &[
        name(),
        text("Handler", "What the runtime calls it.", |class, _| class.handler.as_str().into()),
        age(),
    ];

    fn default(&mut self) {
        if let Some(overhead) = &mut self.overhead {
            quantity::canonicalize(&mut overhead.pod_fixed);
        }
    }

    fn validate(&self, errors: &mut Errors) {
        match self.handler.as_str() {
            "" => errors.required("handler", ""),
            handler => names::dns_label("handler", handler, errors),
        }
        if let Some(overhead) = self.overhead.as_ref().and_then(|it| it.pod_fixed.as_ref()) {
            pod::validate_overhead("overhead", overhead, errors);
        }
        if let Some(scheduling) = &self.scheduling {
            if let Some(labels) = &scheduling.node_selector {
                names::labels("scheduling.nodeSelector", labels, errors);
            }
            pod::validate_tolerations(
                "scheduling.tolerations",
                list(&scheduling.tolerations),
                errors,
            );
            let all = list(&scheduling.tolerations);
            let timeless = |it: &Toleration| Toleration { toleration_seconds: None, ..it.clone() };
            for (n, it) in all.iter().enumerate() {
                if all[..n].iter().any(|other| timeless(other) == timeless(it)) {
                    let shown = serde_json::to_string(it).expect("API objects are plain data");
                    errors.duplicate(format!("scheduling.tolerations[{n}]"), shown);
                }
            }
        }
    }

    fn warnings(&self, _old: Option<&RuntimeClass>) -> Vec<String> {
        let selector = self.scheduling.iter().flat_map(|it| it.node_selector.iter().flatten());
        let old = selector.filter_map(|(key, _)| deprecated_label(key));
        old.map(|what| format!("scheduling.nodeSelector: {what}")).collect()
    }

    fn validate_update(&self, old: &RuntimeClass, errors: &mut Errors) {
        if self.handler != old.handler {
            errors.invalid("handler", quoted(&self.handler), "field is immutable");
        }
    }
}
