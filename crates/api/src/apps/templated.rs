//! Kinds that keep pods of one template: what they print, scale, count and warn of alike.
//!
//! Upstream repeats it kind by kind: `pkg/printers/internalversion/printers.go`,
//! `pkg/registry/{apps,batch,core}/*/strategy.go`, `pkg/apis/apps/validation/validation.go` (1.36).

use crate::{
    core::pod,
    field::Errors,
    k8s::api::core::v1::{PodSpec, PodTemplateSpec},
    kind::{Cell, Column, Object, Printing, ScaleOf},
    meta::{
        Selector,
        absent::text,
        columns::{NONE, integer, or, wide},
        names,
    },
};

/// A kind that makes pods of a template.
pub trait Templated: Object {
    /// Where the template is.
    const PATH: &'static str = "spec.template";

    /// `None` if the template was left out where that is possible.
    fn template(&self) -> Option<&PodTemplateSpec>;

    /// Which pods are its own.
    fn own_pods(&self) -> Selector;

    fn pods(&self) -> Option<&PodSpec> {
        self.template()?.spec.as_ref()
    }
}

/// A kind that keeps so many pods.
pub(crate) trait Replicated: Templated {
    /// How many pods are wanted.
    fn wanted(&self) -> i32;
    fn want(&mut self, replicas: i32);
    /// How many there are, as the status says.
    fn current(&self) -> i32;
}

pub(crate) const fn containers<T: Templated>() -> Column<T> {
    wide("Containers", "The containers of each pod.", |it: &T, _: &Printing| {
        joined(it, |container| container.name.as_str()).into()
    })
}

pub(crate) const fn images<T: Templated>() -> Column<T> {
    wide("Images", "Their images.", |it: &T, _: &Printing| {
        joined(it, |container| text(&container.image)).into()
    })
}

pub(crate) const fn selector<T: Templated>() -> Column<T> {
    wide("Selector", "Which pods are its own.", |it: &T, _: &Printing| {
        or(&it.own_pods().to_string(), NONE).into()
    })
}

pub(crate) const fn desired<T: Replicated>() -> Column<T> {
    integer("Desired", "Pods that are wanted.", |it: &T, _: &Printing| count(it.wanted()))
}

pub(crate) const fn current<T: Replicated>() -> Column<T> {
    integer("Current", "Pods that are there.", |it: &T, _: &Printing| count(it.current()))
}

pub(crate) const fn scale<T: Replicated>() -> ScaleOf<T> {
    ScaleOf {
        replicas: |it| it.wanted(),
        set_replicas: |it, replicas| it.want(replicas),
        status_replicas: |it| it.current(),
        selector: |it| it.own_pods().to_string(),
    }
}

pub(crate) fn count(number: i32) -> Cell {
    Cell::Number(i64::from(number))
}

/// A field of each container, joined by commas.
fn joined<T: Templated>(
    it: &T,
    field: fn(&crate::k8s::api::core::v1::Container) -> &str,
) -> String {
    let containers = it.pods().map(|it| it.containers.as_slice()).unwrap_or_default();
    containers.iter().map(field).collect::<Vec<_>>().join(",")
}

/// Sentences about a template that is new, or may be.
pub(crate) fn warnings<T: Templated>(new: &T, old: Option<&T>) -> Vec<String> {
    if old.is_some_and(|old| old.metadata().generation == new.metadata().generation) {
        return Vec::new();
    }
    new.template().map(|it| pod::template_warnings(T::PATH, it)).unwrap_or_default()
}

/// The sentence about a new object whose pods' host names will surprise.
pub(crate) fn name_warning<T: Templated>(new: &T, old: Option<&T>) -> Option<String> {
    let problems = names::label_problems(new.name());
    let what = "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended";
    (old.is_none() && !problems.is_empty()).then(|| format!("{what}: [{}]", problems.join(" ")))
}

/// The counts of a status.
pub(crate) struct Counts<'a> {
    pub(crate) replicas: i32,
    /// Those that cannot be more than `replicas`.
    pub(crate) of_replicas: &'a [(&'static str, Option<i32>)],
    pub(crate) others: &'a [(&'static str, Option<i64>)],
    pub(crate) ready: Option<i32>,
    pub(crate) available: Option<i32>,
    /// Upstream's name of the ready ones, which is not the same for each kind.
    pub(crate) ready_name: &'static str,
}

impl Counts<'_> {
    pub(crate) fn validate(&self, errors: &mut Errors) {
        let path = |field: &str| format!("status.{field}");
        names::not_negative(path("replicas"), i64::from(self.replicas), errors);
        let all = self.of_replicas.iter().map(|(field, count)| (field, count.map(i64::from)));
        for (field, count) in all.chain(self.others.iter().map(|(field, count)| (field, *count))) {
            names::not_negative(path(field), count.unwrap_or(0), errors);
        }
        for (field, count) in self.of_replicas {
            if let Some(count) = count.filter(|it| *it > self.replicas) {
                errors.invalid(path(field), count, "cannot be greater than status.replicas");
            }
        }
        let available = self.available.unwrap_or(0);
        if available > self.ready.unwrap_or(0) {
            let detail = format!("cannot be greater than {}", self.ready_name);
            errors.invalid(path("availableReplicas"), available, detail);
        }
    }
}

/// Names that were taken already are never fewer than before.
pub(crate) fn validate_collisions(now: Option<i32>, before: Option<i32>, errors: &mut Errors) {
    let path = "status.collisionCount";
    names::not_negative(path, i64::from(now.unwrap_or(0)), errors);
    if before.is_some_and(|before| now.is_none_or(|now| now < before)) {
        errors.invalid(path, now.unwrap_or(0), "cannot be decremented");
    }
}
