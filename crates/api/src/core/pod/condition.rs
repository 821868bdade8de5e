//! What a pod says of itself: conditions, and what follows from phase and conditions.

use crate::{
    k8s::api::core::v1::{Pod, PodCondition},
    meta,
};
use stdx::Timestamp;

/// Finished, and never to run again.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Has a node.
pub fn is_scheduled(pod: &Pod) -> bool {
    !node_name(pod).is_empty()
}

/// The condition `Ready` is true.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|it| it.status == "True")
}

/// Ready for at least `seconds`.
pub fn is_available(pod: &Pod, seconds: i32, now: Timestamp) -> bool {
    let since = condition(pod, "Ready").and_then(|it| it.last_transition_time.as_ref());
    let waited = || Some(now.seconds() - meta::timestamp_of(since?).seconds());
    is_ready(pod) && (seconds == 0 || waited().is_some_and(|it| it >= i64::from(seconds)))
}

/// The phase; empty on an object that was never stored.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|it| it.phase.as_deref()).unwrap_or_default()
}

/// The node; empty while the pod is not scheduled.
pub fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|it| it.node_name.as_deref()).unwrap_or_default()
}

/// The condition of this type.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|it| it.type_ == kind)
}

/// Writes a condition, and says whether that changed anything. The time of transition moves only when
/// the status does.
pub fn set_condition(
    pod: &mut Pod,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> bool {
    let text = |it: &str| (!it.is_empty()).then(|| it.to_owned());
    let mut wanted = PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: text(reason),
        message: text(message),
        last_transition_time: Some(meta::time(now)),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    };
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    let Some(old) = conditions.iter_mut().find(|it| it.type_ == kind) else {
        conditions.push(wanted);
        return true;
    };
    if old.status == wanted.status {
        wanted.last_transition_time = old.last_transition_time.clone();
    }
    wanted.last_probe_time = old.last_probe_time.clone();
    let changed = *old != wanted;
    *old = wanted;
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_moves_its_time_only_with_its_status() {
        let mut pod = Pod::default();
        let at = Timestamp::from_seconds;
        assert!(set_condition(&mut pod, "Ready", "False", "ContainersNotReady", "", at(10)));
        assert!(!set_condition(&mut pod, "Ready", "False", "ContainersNotReady", "", at(20)));
        assert!(set_condition(&mut pod, "Ready", "False", "Other", "", at(30)));
        let time = |pod: &Pod| condition(pod, "Ready").unwrap().last_transition_time.clone();
        assert_eq!(time(&pod), Some(meta::time(at(10))));
        assert!(set_condition(&mut pod, "Ready", "True", "", "", at(40)));
        assert_eq!(time(&pod), Some(meta::time(at(40))));
        assert!(is_ready(&pod) && is_available(&pod, 5, at(45)) && !is_available(&pod, 6, at(45)));
    }
}
