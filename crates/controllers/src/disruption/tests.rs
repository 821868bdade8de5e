//! Budgets in small worlds.

use super::*;
use crate::testing::world;
use api::codec;
use expect_test::{Expect, expect};
use serde_json::Value;

const NOW: Timestamp = Timestamp::from_seconds(1_700_000_000);

const SET: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web, namespace: default, uid: s}
spec: {replicas: 3, serviceName: web, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: i}]}}}
---
";

fn pod(name: &str, ready: &str, owner: &str) -> String {
    let owners = match owner {
        "" => String::new(),
        uid => format!(
            ", ownerReferences: [{{apiVersion: apps/v1, kind: StatefulSet, name: web, uid: {uid}, controller: true}}]"
        ),
    };
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default, labels: {{app: web}}{owners}}}
spec: {{containers: [{{name: c, image: i}}]}}
status: {{phase: Running, conditions: [{{type: Ready, status: '{ready}'}}]}}
---
"
    )
}

fn budget(spec: &str, status: &str) -> String {
    format!(
        "
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: web, namespace: default, uid: b, generation: 2}}
spec: {{selector: {{matchLabels: {{app: web}}}}, {spec}}}
status: {{{status}}}
---
"
    )
}

fn check(yaml: &str, expected: Expect) {
    let plan = Disruption.reconcile(&world(yaml), &ObjectKey::new("default", "web"), NOW);
    let mut told = String::new();
    if let Some(budget) = plan.status.as_ref().and_then(|it| it.object::<PodDisruptionBudget>()) {
        let status: Value = codec::to_value(budget)["status"].take();
        let condition = &status["conditions"][0];
        told = format!(
            "healthy {} of {} wanted {} allowed {} seen {} disrupted {}\n{} {} {}\n",
            status["currentHealthy"],
            status["expectedPods"],
            status["desiredHealthy"],
            status["disruptionsAllowed"],
            status["observedGeneration"],
            status["disruptedPods"],
            condition["status"],
            condition["reason"],
            condition["message"],
        );
    }
    for it in &plan.events {
        told.push_str(&format!("{:?} {}: {}\n", it.note, it.reason, it.message));
    }
    if let Some(after) = plan.requeue {
        told.push_str(&format!("again in {after:?}\n"));
    }
    expected.assert_eq(&told);
}

#[test]
fn counts_the_pods_that_are_well_against_what_their_set_wants() {
    let pods = [pod("web-0", "True", "s"), pod("web-1", "True", "s"), pod("web-2", "False", "s")];
    let yaml = [SET, &pods.concat(), &budget("maxUnavailable: 2", "")].concat();
    check(
        &yaml,
        expect![[r#"
        healthy 2 of 3 wanted 1 allowed 1 seen 2 disrupted null
        "True" "SufficientPods" ""
    "#]],
    );
    let yaml = [SET, &pods.concat(), &budget("minAvailable: 50%", "")].concat();
    check(
        &yaml,
        expect![[r#"
        healthy 2 of 3 wanted 2 allowed 0 seen 2 disrupted null
        "False" "InsufficientPods" ""
    "#]],
    );
}

#[test]
fn a_count_needs_no_set() {
    let yaml = [pod("a", "True", ""), pod("b", "True", ""), budget("minAvailable: 1", "")].concat();
    check(
        &yaml,
        expect![[r#"
        healthy 2 of 2 wanted 1 allowed 1 seen 2 disrupted null
        "True" "SufficientPods" ""
    "#]],
    );
}

#[test]
fn without_pods_nothing_may_go() {
    check(
        &budget("minAvailable: 0", ""),
        expect![[r#"
        healthy 0 of 0 wanted 0 allowed 0 seen 2 disrupted null
        "False" "InsufficientPods" ""
        Normal NoPods: No matching pods found
    "#]],
    );
}

#[test]
fn a_pod_whose_set_is_gone_closes_the_budget() {
    let yaml = [pod("web-0", "True", "gone"), budget("maxUnavailable: 1", "")].concat();
    check(
        &yaml,
        expect![[r#"
        healthy 0 of 0 wanted 0 allowed 0 seen null disrupted null
        "False" "SyncFailed" "found no controllers for pod \"web-0\""
        Warning CalculateExpectedPodCountFailed: Failed to calculate the number of expected pods: found no controllers for pod "web-0"
    "#]],
    );
}

#[test]
fn an_evicted_pod_counts_no_longer_until_it_should_have_gone() {
    let yaml = |at: &str| {
        let status = format!("disruptedPods: {{a: '{at}'}}, disruptionsAllowed: 0");
        [pod("a", "True", ""), pod("b", "True", ""), budget("minAvailable: 1", &status)].concat()
    };
    check(
        &yaml("2023-11-14T22:13:00Z"),
        expect![[r#"
        healthy 1 of 2 wanted 1 allowed 0 seen 2 disrupted {"a":"2023-11-14T22:13:00Z"}
        "False" "InsufficientPods" ""
        again in 100s
    "#]],
    );
    check(
        &yaml("2023-11-14T22:11:00Z"),
        expect![[r#"
        healthy 2 of 2 wanted 1 allowed 1 seen 2 disrupted null
        "True" "SufficientPods" ""
        Warning NotDeleted: Pod was expected by PDB default/web to be deleted but it wasn't
    "#]],
    );
}
