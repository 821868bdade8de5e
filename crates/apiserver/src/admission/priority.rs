//! A pod is as important as its class says, and there is one default class at most.
//!
//! Upstream: `plugin/pkg/admission/priority/admission.go`.

use super::{Act, Attempt, Plugin};
use api::{
    AnyObject, Failure, Object,
    core::v1::{Pod, PodSpec},
    scheduling::v1::PriorityClass,
};
use world::Typed;

pub(super) const PLUGIN: Plugin = Plugin { name: "Priority", admit };

fn admit(attempt: &mut Attempt<'_>, object: Option<&mut AnyObject>) -> Result<(), Failure> {
    let Some(object) = object else { return Ok(()) };
    let object = (**object).as_any_mut();
    if let Some(class) = object.downcast_ref::<PriorityClass>() {
        return admit_class(attempt, class);
    }
    let Some(spec) = object.downcast_mut::<Pod>().and_then(|it| it.spec.as_mut()) else {
        return Ok(());
    };
    match attempt.act {
        Act::Create => admit_pod(attempt, spec),
        Act::Update => {
            let old = attempt.old.and_then(|it| it.as_any().downcast_ref::<Pod>());
            if let Some(old) = old.and_then(|it| it.spec.as_ref()) {
                spec.priority = spec.priority.or(old.priority);
                if spec.preemption_policy.is_none() {
                    spec.preemption_policy.clone_from(&old.preemption_policy);
                }
            }
            Ok(())
        }
        Act::Status | Act::Delete => Ok(()),
    }
}

fn admit_class(attempt: &Attempt<'_>, class: &PriorityClass) -> Result<(), Failure> {
    let is_written = matches!(attempt.act, Act::Create | Act::Update);
    if !is_written || class.global_default != Some(true) {
        return Ok(());
    }
    match default_class(attempt) {
        Some(other) if attempt.act == Act::Create || other.name() != class.name() => {
            let why = format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                other.name()
            );
            Err(Failure::forbidden(attempt.kind, class.name(), &why))
        }
        Some(_) | None => Ok(()),
    }
}

/// Should there be several, the least important of them.
fn default_class(attempt: &Attempt<'_>) -> Option<Typed<PriorityClass>> {
    let classes = attempt.view.world.all::<PriorityClass>();
    classes.filter(|it| it.global_default == Some(true)).min_by_key(|it| it.value)
}

fn admit_pod(attempt: &Attempt<'_>, spec: &mut PodSpec) -> Result<(), Failure> {
    let refuse = |why: String| Err(Failure::forbidden(attempt.kind, &attempt.key.name, &why));
    let name = spec.priority_class_name.clone().unwrap_or_default();
    let class = match name.as_str() {
        "" => default_class(attempt),
        name => match attempt.view.world.cluster::<PriorityClass>(name) {
            None => return refuse(format!("no PriorityClass with name {name} was found")),
            class => class,
        },
    };
    let (priority, policy) = match &class {
        Some(class) => (class.value.unwrap_or(0), class.preemption_policy.clone()),
        None => (0, Some("PreemptLowerPriority".to_owned())),
    };
    if let Some(given) = spec.priority.filter(|it| *it != priority) {
        return refuse(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
        ));
    }
    if let (Some(given), Some(policy)) = (&spec.preemption_policy, &policy)
        && given != policy
    {
        return refuse(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        ));
    }
    spec.priority = Some(priority);
    spec.preemption_policy = policy.or(spec.preemption_policy.take());
    if let Some(class) = class {
        spec.priority_class_name = Some(class.name().to_owned());
    }
    Ok(())
}
