//! The pods of a Job: made with a finalizer that keeps them until they are counted.
//!
//! Upstream: `pkg/controller/job/job_controller.go` (1.36), manageJob, syncOrphanPod.

use super::{Look, backoff, rules};
use crate::pod_template;
use api::{
    Object,
    batch::job::{INDEX, TRACKING},
    core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod, PodSpec},
};
use world::{Change, Event, ObjectKey, Plan, World};

impl Look<'_> {
    pub(super) fn start(&mut self, count: usize) {
        let indexes: Vec<Option<i32>> = match self.indexed() {
            None => vec![None; count],
            Some(needed) => {
                let (done, failed) = (self.completed_indexes(), self.failed_indexes());
                let taken: Vec<i32> = self.holders().filter_map(|it| self.index_of(it)).collect();
                let open = (0..needed).filter(|it| {
                    !done.contains(*it) && !failed.contains(*it) && !taken.contains(it)
                });
                let open: Vec<i32> = open.take(count).collect();
                self.now_ready(open).into_iter().map(Some).collect()
            }
        };
        for (nth, index) in indexes.into_iter().enumerate() {
            let mut pod = pod_template::pod(self.world, &self.job, &self.spec.template, nth);
            pod.metadata.finalizers.get_or_insert_default().push(TRACKING.to_owned());
            if let Some(index) = index {
                give_index(&mut pod, self.job.name(), index);
                self.pass_on_failures(&mut pod, index);
            }
            let message = format!("Created pod: {}", pod.name());
            self.plan.event(Event::normal(&self.job, "SuccessfulCreate", message));
            self.plan.write([Change::create(pod)]);
        }
    }

    /// Indexes whose wait is over; if none is, the Job comes back when the first will be.
    fn now_ready(&mut self, indexes: Vec<i32>) -> Vec<i32> {
        if self.limits_indexes().is_none() {
            return indexes;
        }
        let wait = |index: &i32| {
            let before = self.failed_last(*index)?;
            backoff::remaining_after(rules::failures(before), before, self.now)
        };
        let waits: Vec<_> = indexes.into_iter().map(|it| (it, wait(&it))).collect();
        let first = waits.iter().filter_map(|it| it.1).min();
        if let Some(first) = first {
            self.come_back(first);
        }
        waits.into_iter().filter(|it| it.1.is_none()).map(|it| it.0).collect()
    }

    /// Stops a pod that is not needed. It is let go of first: it did not fail.
    pub(super) fn stop(&mut self, pod: Pod) {
        let message = format!("Deleted pod: {}", pod.name());
        if let Some(free) = without_finalizer(&pod) {
            self.plan.write([Change::update(free)]);
        }
        self.plan.write([Change::delete(&pod)]);
        self.plan.event(Event::normal(&self.job, "SuccessfulDelete", message));
    }
}

fn without_finalizer(pod: &Pod) -> Option<Pod> {
    if !pod.has_finalizer(TRACKING) {
        return None;
    }
    let mut pod = pod.clone();
    let mut finalizers = pod.metadata.finalizers.take().unwrap_or_default();
    finalizers.retain(|it| it != TRACKING);
    pod.metadata.finalizers = (!finalizers.is_empty()).then_some(finalizers);
    Some(pod)
}

/// `web-3-x7k2d`, the host `web-3`, and the number where programs look for it.
fn give_index(pod: &mut Pod, job: &str, index: i32) {
    let name = pod.metadata.name.take().unwrap_or_default();
    let end = name.rsplit('-').next().unwrap_or_default();
    pod.metadata.name = Some(format!("{job}-{index}-{end}"));
    pod.metadata.generate_name = Some(format!("{job}-{index}-"));
    let text = index.to_string();
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), text.clone());
    pod.metadata.annotations.get_or_insert_default().insert(INDEX.to_owned(), text);
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(format!("{job}-{index}"));
    add_variable(spec);
}

fn add_variable(spec: &mut PodSpec) {
    let field = ObjectFieldSelector {
        field_path: format!("metadata.labels['{INDEX}']"),
        ..ObjectFieldSelector::default()
    };
    let variable = EnvVar {
        name: "JOB_COMPLETION_INDEX".to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
        ..EnvVar::default()
    };
    let containers = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
    for container in containers {
        let variables = container.env.get_or_insert_default();
        if !variables.iter().any(|it| it.name == variable.name) {
            variables.push(variable.clone());
        }
    }
}

/// Nobody will count the pods of a Job that is gone, or that it does not own any more. `uid`: of the Job that has the name
/// now, or nothing.
pub(super) fn let_go_of_orphans(world: &World, job: &ObjectKey, uid: &str, plan: &mut Plan) {
    let name = job.to_string();
    let kept = world.table::<Pod>().into_iter().flat_map(|it| it.indexed("job", &name));
    let nobodys =
        kept.filter(|row| row.meta.controller().map_or("", |it| &it.uid) != uid || uid.is_empty());
    for pod in nobodys.filter_map(|it| without_finalizer(&*it.typed::<Pod>()?)) {
        plan.write([Change::update(pod)]);
    }
}
