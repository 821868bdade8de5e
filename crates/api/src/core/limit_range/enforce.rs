//! What a LimitRange does to pods and claims: amounts for those that name none, and what is wrong
//! with those that name too little or too much.
//!
//! Upstream: `plugin/pkg/admission/limitranger/admission.go`.

use super::{CLAIM, CONTAINER, POD};
use crate::{
    core::pod::{self, Amounts},
    k8s::{
        api::core::v1::{Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod},
        apimachinery::pkg::api::resource::Quantity,
    },
    meta::{Exact, quantity},
};
use std::collections::BTreeMap;

/// Tells what was filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

type List = BTreeMap<String, Quantity>;

fn items<'a>(range: &'a LimitRange, kind: &'a str) -> impl Iterator<Item = &'a LimitRangeItem> {
    let items = range.spec.iter().flat_map(|it| &it.limits);
    items.filter(move |it| it.type_ == kind)
}

/// Gives each container of a new pod what the range says and the container does not.
pub fn apply_defaults(range: &LimitRange, pod: &mut Pod) {
    let (mut requests, mut limits) = (List::new(), List::new());
    for item in items(range, CONTAINER) {
        requests.extend(item.default_request.clone().unwrap_or_default());
        limits.extend(item.default.clone().unwrap_or_default());
    }
    let Some(spec) = &mut pod.spec else { return };
    let mut told = Vec::new();
    for container in &mut spec.containers {
        fill(container, "container", &requests, &limits, &mut told);
    }
    for container in spec.init_containers.iter_mut().flatten() {
        fill(container, "init container", &requests, &limits, &mut told);
    }
    if !told.is_empty() {
        let told = format!("LimitRanger plugin set: {}", told.join("; "));
        pod.metadata.annotations.get_or_insert_default().insert(ANNOTATION.to_owned(), told);
    }
}

fn fill(
    container: &mut Container,
    what: &str,
    requests: &List,
    limits: &List,
    told: &mut Vec<String>,
) {
    if requests.is_empty() && limits.is_empty() {
        return;
    }
    let name = container.name.clone();
    let resources = container.resources.get_or_insert_default();
    for (word, own, given) in
        [("request", &mut resources.requests, requests), ("limit", &mut resources.limits, limits)]
    {
        let own = own.get_or_insert_default();
        let mut set = Vec::new();
        for (resource, amount) in given {
            if !own.contains_key(resource) {
                own.insert(resource.clone(), amount.clone());
                set.push(resource.as_str());
            }
        }
        if !set.is_empty() {
            told.push(format!("{} {word} for {what} {name}", set.join(", ")));
        }
    }
}

/// What is asked for and what is allowed at most, of one thing.
struct Asked {
    requests: BTreeMap<String, (Exact, String)>,
    limits: BTreeMap<String, (Exact, String)>,
}

impl Asked {
    fn of_container(container: &Container) -> Asked {
        let read = |list: Option<&Option<List>>| {
            let list = list.into_iter().flatten().flatten();
            list.map(|(name, it)| (name.clone(), (Exact::of(it), it.0.clone()))).collect()
        };
        let resources = container.resources.as_ref();
        Asked {
            requests: read(resources.map(|it| &it.requests)),
            limits: read(resources.map(|it| &it.limits)),
        }
    }

    fn of_pod(pod: &Pod) -> Asked {
        let read = |amounts: Amounts| {
            let shown = |(name, it): (String, Exact)| (name, (it, quantity::shortest(it)));
            amounts.into_iter().map(shown).collect()
        };
        let mut spec = pod.spec.clone().unwrap_or_default();
        // The overhead is not the author's to ask for.
        spec.overhead = None;
        Asked { requests: read(pod::requests(&spec)), limits: read(pod::limits(&spec)) }
    }

    fn against(&self, item: &LimitRangeItem, found: &mut Vec<String>) {
        let kind = &item.type_;
        for (name, enforced) in item.min.iter().flatten() {
            found.extend(self.too_little(kind, name, enforced));
        }
        for (name, enforced) in item.max.iter().flatten() {
            found.extend(self.too_much(kind, name, enforced));
        }
        for (name, enforced) in item.max_limit_request_ratio.iter().flatten() {
            found.extend(self.too_far_apart(kind, name, enforced));
        }
    }

    fn too_little(&self, kind: &str, name: &str, enforced: &Quantity) -> Option<String> {
        let (least, rule) =
            (Exact::of(enforced), format!("minimum {name} usage per {kind} is {}", enforced.0));
        match (self.requests.get(name), self.limits.get(name)) {
            (None, _) => Some(format!("{rule}.  No request is specified")),
            (Some((it, text)), _) if *it < least => Some(format!("{rule}, but request is {text}")),
            (_, Some((it, text))) if *it < least => Some(format!("{rule}, but limit is {text}")),
            (Some(_), _) => None,
        }
    }

    fn too_much(&self, kind: &str, name: &str, enforced: &Quantity) -> Option<String> {
        let (most, rule) =
            (Exact::of(enforced), format!("maximum {name} usage per {kind} is {}", enforced.0));
        match (self.requests.get(name), self.limits.get(name)) {
            (_, None) => Some(format!("{rule}.  No limit is specified")),
            (_, Some((it, text))) if *it > most => Some(format!("{rule}, but limit is {text}")),
            (Some((it, text)), _) if *it > most => Some(format!("{rule}, but request is {text}")),
            (_, Some(_)) => None,
        }
    }

    fn too_far_apart(&self, kind: &str, name: &str, enforced: &Quantity) -> Option<String> {
        let rule = format!("{name} max limit to request ratio per {kind} is {}", enforced.0);
        let positive = |list: &BTreeMap<String, (Exact, String)>| {
            list.get(name).map(|it| it.0).filter(|it| *it != Exact::ZERO)
        };
        let Some(request) = positive(&self.requests) else {
            return Some(format!("{rule}, but no request is specified or request is 0"));
        };
        let Some(limit) = positive(&self.limits) else {
            return Some(format!("{rule}, but no limit is specified or limit is 0"));
        };
        let ratio = limit.0 as f64 / request.0 as f64;
        let most = Exact::of(enforced).0 as f64 / Exact::from_units(1).0 as f64;
        (ratio > most).then(|| format!("{rule}, but provided ratio is {ratio:.6}"))
    }
}

/// What a new pod asks for and the range does not allow.
pub fn violations_of_pod(range: &LimitRange, pod: &Pod) -> Vec<String> {
    let mut found = Vec::new();
    let Some(spec) = &pod.spec else { return found };
    for item in range.spec.iter().flat_map(|it| &it.limits) {
        match item.type_.as_str() {
            CONTAINER => {
                let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
                all.for_each(|it| Asked::of_container(it).against(item, &mut found));
            }
            POD => Asked::of_pod(pod).against(item, &mut found),
            _ => {}
        }
    }
    found
}

/// What a claim asks for and the range does not allow.
pub fn violations_of_claim(range: &LimitRange, claim: &PersistentVolumeClaim) -> Vec<String> {
    let resources = claim.spec.as_ref().and_then(|it| it.resources.as_ref());
    let requests = resources.and_then(|it| it.requests.as_ref()).into_iter().flatten();
    let requests: BTreeMap<String, (Exact, String)> =
        requests.map(|(name, it)| (name.clone(), (Exact::of(it), it.0.clone()))).collect();
    let asked = Asked { requests, limits: BTreeMap::new() };
    let mut found = Vec::new();
    for item in items(range, CLAIM) {
        for (name, enforced) in item.min.iter().flatten() {
            found.extend(asked.too_little(CLAIM, name, enforced));
        }
        for (name, enforced) in item.max.iter().flatten() {
            let rule = format!("maximum {name} usage per {CLAIM} is {}", enforced.0);
            match asked.requests.get(name) {
                None => found.push(format!("{rule}.  No request is specified")),
                Some((it, text)) if *it > Exact::of(enforced) => {
                    found.push(format!("{rule}, but request is {text}"));
                }
                Some(_) => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, codec::from_value};
    use serde_json::{Value, json};

    fn range(item: Value) -> LimitRange {
        let mut range: LimitRange =
            from_value(&json!({"metadata": {"name": "a"}, "spec": {"limits": [item]}})).unwrap();
        Kind::default(&mut range);
        range
    }

    fn pod(resources: Value) -> Pod {
        let containers = json!([{"name": "c", "resources": resources}]);
        from_value(&json!({"metadata": {"name": "p"}, "spec": {"containers": containers}})).unwrap()
    }

    #[test]
    fn fills_in_what_a_container_does_not_say() {
        let range = range(json!({"type": "Container", "default": {"cpu": "500m", "memory": "1Gi"},
            "defaultRequest": {"cpu": "100m"}}));
        let mut pod = pod(json!({"limits": {"cpu": "1"}}));
        apply_defaults(&range, &mut pod);
        let resources = pod.spec.as_ref().unwrap().containers[0].resources.as_ref().unwrap();
        let value = serde_json::to_value(resources).unwrap();
        assert_eq!(
            value,
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}})
        );
        assert_eq!(
            pod.metadata.annotations.unwrap()[ANNOTATION],
            "LimitRanger plugin set: cpu, memory request for container c; memory limit for container c"
        );
    }

    #[test]
    fn says_what_is_too_little_and_too_much() {
        let item = |kind: &str| {
            range(json!({"type": kind, "min": {"cpu": "100m"}, "max": {"cpu": "1"},
                "maxLimitRequestRatio": {"cpu": "2"}}))
        };
        let found = |asked: Value| violations_of_pod(&item("Container"), &pod(asked));
        assert_eq!(
            found(json!({"requests": {"cpu": "50m"}, "limits": {"cpu": "2"}})),
            [
                "minimum cpu usage per Container is 100m, but request is 50m",
                "maximum cpu usage per Container is 1, but limit is 2",
                "cpu max limit to request ratio per Container is 2, but provided ratio is 40.000000",
            ]
        );
        assert_eq!(
            violations_of_pod(&item("Pod"), &pod(json!({}))),
            [
                "minimum cpu usage per Pod is 100m.  No request is specified",
                "maximum cpu usage per Pod is 1.  No limit is specified",
                "cpu max limit to request ratio per Pod is 2, but no request is specified or request is 0",
            ]
        );
        assert!(found(json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "1"}})).is_empty());
    }

    #[test]
    fn a_claim_is_held_to_its_request() {
        let range =
            range(json!({"type": CLAIM, "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}));
        let claim = |size: &str| -> PersistentVolumeClaim {
            let spec = json!({"resources": {"requests": {"storage": size}}});
            from_value(&json!({"metadata": {"name": "c"}, "spec": spec})).unwrap()
        };
        assert!(violations_of_claim(&range, &claim("1Gi")).is_empty());
        assert_eq!(
            violations_of_claim(&range, &claim("3Gi")),
            ["maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"]
        );
        assert_eq!(
            violations_of_claim(&range, &claim("10Mi")),
            ["minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 10Mi"]
        );
    }
}
