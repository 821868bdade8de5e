//! `v1` PodTemplate: pods as somebody wants them, kept for whoever makes pods. Nothing here does.
//!
//! Upstream: `pkg/apis/core/validation/validation.go` (ValidatePodTemplate), `pkg/registry/core/podtemplate`.

use crate::{
    apps::{
        template,
        templated::{self, Templated},
    },
    core::pod,
    field::Errors,
    k8s::api::core::v1::{PodTemplate, PodTemplateSpec},
    kind::{Column, Kind, Names, Scope},
    meta::{
        Selector,
        absent::same,
        columns::{self, NONE, name, or},
        next_generation,
    },
};

impl Kind for PodTemplate {
    const NAMES: Names =
        Names { plural: "podtemplates", singular: "podtemplate", short: &[], categories: &[] };
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: &'static str = "/registry/podtemplates";
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column<PodTemplate>] = &[
        name(),
        Column { wide: false, ..templated::containers() },
        Column { wide: false, ..templated::images() },
        columns::text("Pod Labels", "The labels of each pod.", |it, _| {
            let metadata = it.template.as_ref().and_then(|it| it.metadata.as_ref());
            let labels = metadata.and_then(|it| it.labels.as_ref());
            let shown = labels.map(|it| Selector::of_map(it).to_string()).unwrap_or_default();
            or(&shown, NONE).into()
        }),
    ];

    fn default(&mut self) {
        template::default_template(self.template.get_or_insert_default());
    }

    fn prepare_create(&mut self) {
        self.metadata.generation = Some(1);
    }

    fn prepare_update(&mut self, old: &PodTemplate) {
        let changed = !same(&self.template, &old.template);
        next_generation(&mut self.metadata, &old.metadata, changed);
    }

    fn validate(&self, errors: &mut Errors) {
        let template = self.template.clone().unwrap_or_default();
        pod::validate_template(Self::PATH, &template, errors);
    }

    fn warnings(&self, old: Option<&PodTemplate>) -> Vec<String> {
        templated::warnings(self, old)
    }
}

impl Templated for PodTemplate {
    const PATH: &'static str = "template";

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.template.as_ref()
    }

    fn own_pods(&self) -> Selector {
        Selector::of(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::from_value, meta::columns::tests::row};
    use serde_json::{Value, json};

    fn template(containers: &Value) -> PodTemplate {
        let mut template: PodTemplate = from_value(&json!({
            "metadata": {"name": "web", "namespace": "ns"},
            "template": {"metadata": {"labels": {"app": "web", "tier": "front"}},
                "spec": {"containers": containers}}}))
        .unwrap();
        Kind::default(&mut template);
        template.prepare_create();
        template
    }

    #[test]
    fn a_template_is_defaulted_and_judged_as_a_pod_is() {
        let fine = template(&json!([{"name": "c", "image": "busybox"}]));
        let mut errors = Errors::default();
        fine.validate(&mut errors);
        assert_eq!(errors.message(), "");
        assert_eq!(row(&fine), "web | c | busybox | app=web,tier=front");
        let spec = fine.template.unwrap().spec.unwrap();
        assert_eq!(spec.restart_policy.as_deref(), Some("Always"));

        template(&json!([])).validate(&mut errors);
        assert_eq!(errors.message(), "template.spec.containers: Required value");
    }

    #[test]
    fn what_a_template_warns_of_is_said_with_its_place() {
        let mounted = json!([{"name": "c", "image": "busybox",
            "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}]);
        let warned = template(&mounted);
        let said = "template.spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply";
        assert_eq!(warned.warnings(None), [said]);
        assert!(warned.warnings(Some(&warned)).is_empty(), "nothing of it is new");
    }

    #[test]
    fn its_generation_counts_changes_of_the_template() {
        let old = template(&json!([{"name": "c", "image": "busybox"}]));
        let mut new = template(&json!([{"name": "c", "image": "other"}]));
        new.prepare_update(&old);
        assert_eq!(new.metadata.generation, Some(2));
        let mut same = old.clone();
        same.prepare_update(&old);
        assert_eq!(same.metadata.generation, Some(1));
    }
}
