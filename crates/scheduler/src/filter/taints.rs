//! Taints that a pod does not tolerate. Upstream: `plugins/tainttoleration`.

use crate::pod::Place;
use api::core::v1::{PodSpec, Toleration};

pub(super) struct Taint<'a> {
    pub(super) key: &'a str,
    pub(super) value: &'a str,
    pub(super) effect: &'a str,
}

pub(super) fn filter(place: &Place<'_>) -> Vec<String> {
    let taints = place.node.spec.iter().filter_map(|it| it.taints.as_ref()).flatten();
    let mut hard = taints.filter(|it| matches!(it.effect.as_str(), "NoSchedule" | "NoExecute"));
    let refused = hard.any(|it| {
        let value = it.value.as_deref().unwrap_or_default();
        !tolerates(&place.request.spec, &Taint { key: &it.key, value, effect: &it.effect })
    });
    match refused {
        true => vec!["node(s) had untolerated taint(s)".to_owned()],
        false => Vec::new(),
    }
}

pub(super) fn tolerates(spec: &PodSpec, taint: &Taint<'_>) -> bool {
    spec.tolerations.iter().flatten().any(|it| covers(it, taint))
}

fn covers(toleration: &Toleration, taint: &Taint<'_>) -> bool {
    let text = |it: &Option<String>| it.clone().unwrap_or_default();
    let (key, effect) = (text(&toleration.key), text(&toleration.effect));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    let value = text(&toleration.value);
    let number = |it: &str| it.parse::<i64>().ok();
    match text(&toleration.operator).as_str() {
        "Exists" => true,
        "" | "Equal" => !key.is_empty() && value == taint.value,
        "Gt" => number(taint.value).zip(number(&value)).is_some_and(|(a, b)| a > b),
        "Lt" => number(taint.value).zip(number(&value)).is_some_and(|(a, b)| a < b),
        _ => false,
    }
}
