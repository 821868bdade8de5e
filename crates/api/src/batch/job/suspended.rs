//! What may change in a Job of which nothing runs.
//!
//! Upstream: `pkg/registry/batch/job/strategy.go`, shouldAllowMutablePodTemplate, and
//! `pkg/apis/batch/validation/validation.go`, validatePodTemplateUpdate (1.36).

use super::has;
use crate::k8s::api::{
    batch::v1::Job,
    core::v1::{Container, PodTemplateSpec},
};

/// Nothing of a suspended Job runs: whoever queues it may still say where its pods go and how much they get.
pub(super) fn may_be_placed_anew(job: &Job) -> bool {
    let status = job.status.as_ref();
    let has_begun = status.is_some_and(|it| it.start_time.is_some());
    let runs = status.and_then(|it| it.active).unwrap_or(0) > 0;
    let suspended = job.spec.as_ref().is_some_and(|it| it.suspend == Some(true));
    suspended && (!has_begun || has(job, "Suspended")) && !runs
}

/// The old template with the places and resources of the new one.
pub(super) fn placed_as(old: &PodTemplateSpec, new: &PodTemplateSpec) -> PodTemplateSpec {
    let mut placed = old.clone();
    placed.metadata.clone_from(&new.metadata);
    let (Some(was), Some(is)) = (&mut placed.spec, &new.spec) else { return placed };
    let node_affinity = is.affinity.as_ref().and_then(|it| it.node_affinity.clone());
    let mut affinity = was.affinity.take().unwrap_or_default();
    affinity.node_affinity = node_affinity;
    was.affinity = match is.affinity.is_none() && affinity == Default::default() {
        true => None,
        false => Some(affinity),
    };
    was.node_selector.clone_from(&is.node_selector);
    was.tolerations.clone_from(&is.tolerations);
    was.scheduling_gates.clone_from(&is.scheduling_gates);
    let resources = |was: &mut [Container], is: &[Container]| {
        for (was, is) in was.iter_mut().zip(is).filter(|(was, is)| was.name == is.name) {
            was.resources.clone_from(&is.resources);
        }
    };
    resources(&mut was.containers, &is.containers);
    resources(
        was.init_containers.as_deref_mut().unwrap_or_default(),
        is.init_containers.as_deref().unwrap_or_default(),
    );
    placed
}
