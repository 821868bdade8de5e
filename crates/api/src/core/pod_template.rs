//! `v1` PodTemplate: pods as somebody wants them, kept for whoever makes pods. Nothing here does.
//!
//! Upstream: `pkg/apis/core/validation/validation.go` (ValidatePodTemplate), `pkg/registry/core/podtemplate`.

use crate::{
    apps::template,
    field::Errors,
    k8s::api::core::v1::{PodSpec, PodTemplate},
    kind::{Column, Kind, Names, Scope},
    meta::{
        Selector,
        absent::same,
        columns::{self, NONE, name, or},
        validate::validate_template,
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
        columns::text("Containers", "The containers of each pod.", |it, _| {
            template::containers(pods(it), |it| it.name.as_str()).into()
        }),
        columns::text("Images", "Their images.", |it, _| {
            template::containers(pods(it), template::image).into()
        }),
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
        let grown = i64::from(!same(&self.template, &old.template));
        self.metadata.generation = old.metadata.generation.map(|it| it + grown).or(Some(1));
    }

    fn validate(&self, errors: &mut Errors) {
        let template = self.template.clone().unwrap_or_default();
        validate_template("template", template.metadata.as_ref(), errors);
        crate::core::pod::validate_spec(
            "template.spec",
            &template.spec.unwrap_or_default(),
            None,
            errors,
        );
    }
}

fn pods(template: &PodTemplate) -> Option<&PodSpec> {
    template.template.as_ref()?.spec.as_ref()
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
