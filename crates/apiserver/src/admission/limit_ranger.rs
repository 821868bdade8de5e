//! Pods and claims keep to the LimitRanges of their namespace; containers that ask for nothing get
//! what the ranges say.
//!
//! Upstream: `plugin/pkg/admission/limitranger/admission.go`.

use super::{Act, Attempt, Plugin};
use api::{
    AnyObject, Failure,
    core::{
        limit_range,
        v1::{LimitRange, PersistentVolumeClaim, Pod},
    },
};

pub(super) const PLUGIN: Plugin = Plugin { name: "LimitRanger", admit };
pub(super) const CHECK: Plugin = Plugin { name: "LimitRanger", admit: check };

fn admit(attempt: &mut Attempt<'_>, object: Option<&mut AnyObject>) -> Result<(), Failure> {
    let pod = object.and_then(|it| (**it).as_any_mut().downcast_mut::<Pod>());
    let Some(pod) = pod.filter(|_| attempt.act == Act::Create) else { return Ok(()) };
    for range in attempt.view.world.list::<LimitRange>(&attempt.key.namespace) {
        limit_range::apply_defaults(&range, pod);
    }
    Ok(())
}

fn check(attempt: &mut Attempt<'_>, object: Option<&mut AnyObject>) -> Result<(), Failure> {
    let Some(object) = object.map(|it| (**it).as_any()) else { return Ok(()) };
    let pod = object.downcast_ref::<Pod>().filter(|_| attempt.act == Act::Create);
    let is_written = matches!(attempt.act, Act::Create | Act::Update);
    let claim = object.downcast_ref::<PersistentVolumeClaim>().filter(|_| is_written);
    if pod.is_none() && claim.is_none() {
        return Ok(());
    }
    for range in attempt.view.world.list::<LimitRange>(&attempt.key.namespace) {
        let mut found = Vec::new();
        found.extend(pod.iter().flat_map(|it| limit_range::violations_of_pod(&range, it)));
        found.extend(claim.iter().flat_map(|it| limit_range::violations_of_claim(&range, it)));
        let mut once: Vec<String> = Vec::new();
        for it in found {
            if !once.contains(&it) {
                once.push(it);
            }
        }
        let why = match once.as_slice() {
            [] => continue,
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        return Err(Failure::forbidden(attempt.kind, &attempt.key.name, &why));
    }
    Ok(())
}
