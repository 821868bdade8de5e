//! Pods that make room, in worlds of YAML.

use super::*;

const NODE: &str = "---\napiVersion: v1\nkind: Node\nmetadata: {name: n1}\nstatus: {allocatable: {cpu: '2', memory: 4Gi, pods: '10'}}\n";

/// A pod that runs, and asks for some CPU.
fn runs(name: &str, node: &str, priority: i32, milli: i32, more: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default, uid: u-{name}, labels: {{app: {name}}}}}\nspec: {{nodeName: {node}, priority: {priority}, containers: [{{name: c, image: i, resources: {{requests: {{cpu: {milli}m}}}}}}]}}\nstatus: {{phase: Running{more}}}\n"
    )
}

fn urgent(more: &str) -> String {
    pod(&format!(", priority: 100{more}"))
}

fn budget(name: &str, app: &str, allowed: i32) -> String {
    format!(
        "---\napiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {{name: {name}, namespace: default}}\nspec: {{minAvailable: 1, selector: {{matchLabels: {{app: {app}}}}}}}\nstatus: {{disruptionsAllowed: {allowed}}}\n"
    )
}

/// Who is deleted.
fn victims(yaml: &str) -> Vec<String> {
    let plan =
        Scheduler.reconcile(&super::world(yaml), &ObjectKey::new("default", "p"), Timestamp(0));
    let plan = plan.to_string();
    let deleted = plan.lines().filter_map(|it| it.trim().strip_prefix("delete Pod default/"));
    deleted.map(str::to_owned).collect()
}

#[test]
fn a_pod_that_matters_more_takes_the_place_of_one_that_matters_less() {
    check(
        &[NODE.to_owned(), runs("q", "n1", 0, 1500, ""), urgent("")].concat(),
        expect![[r#"
            write
              status Pod default/p
            write
              status Pod default/q
            write
              delete Pod default/q
            event Warning FailedScheduling 0/1 nodes are available: 1 Insufficient cpu.
            event Normal Preempted Preempted by pod u-p on node n1
        "#]],
    );
}

#[test]
fn nobody_goes_for_an_equal_or_where_the_policy_says_never_or_where_it_would_not_help() {
    let equal = [NODE.to_owned(), runs("q", "n1", 100, 1500, ""), urgent("")];
    check(
        &equal.concat(),
        expect![[r#"
        write
          status Pod default/p
        event Warning FailedScheduling 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.
    "#]],
    );
    let never = urgent(", preemptionPolicy: Never");
    check(
        &[NODE.to_owned(), runs("q", "n1", 0, 1500, ""), never].concat(),
        expect![[r#"
        write
          status Pod default/p
        event Warning FailedScheduling 0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.
    "#]],
    );
    let small = NODE.replace("cpu: '2'", "cpu: 500m");
    check(
        &[small, runs("q", "n1", 0, 100, ""), urgent("")].concat(),
        expect![[r#"
        write
          status Pod default/p
        event Warning FailedScheduling 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.
    "#]],
    );
    let mixed =
        [NODE.to_owned(), runs("q", "n1", 0, 100, ""), runs("r", "n1", 200, 1500, ""), urgent("")];
    check(
        &mixed.concat(),
        expect![[r#"
        write
          status Pod default/p
        event Warning FailedScheduling 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Insufficient cpu.
    "#]],
    );
}

#[test]
fn a_claim_that_is_not_there_is_not_helped_by_anybodys_leaving() {
    let waits = urgent(VOLUMES);
    check(
        &[NODE.to_owned(), runs("q", "n1", 0, 1500, ""), waits].concat(),
        expect![[r#"
        write
          status Pod default/p
        event Warning FailedScheduling 0/1 nodes are available: persistentvolumeclaim "c" not found. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.
    "#]],
    );
}

#[test]
fn who_goes_already_is_waited_for() {
    let target =
        ", conditions: [{type: DisruptionTarget, status: 'True', reason: PreemptionByScheduler}]";
    let going = runs("q", "n1", 0, 1500, target)
        .replace("uid: u-q,", "uid: u-q, deletionTimestamp: '2026-01-01T00:00:00Z',");
    let nominated = format!("{}status: {{nominatedNodeName: n1}}\n", urgent(""));
    check(
        &[NODE.to_owned(), going, nominated].concat(),
        expect![[r#"
        write
          status Pod default/p
        event Warning FailedScheduling 0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to a terminating pod on the nominated node.
    "#]],
    );
}

#[test]
fn as_few_as_possible_go_and_the_least_important_first() {
    let three = |a: i32, b: i32, c: i32| {
        let all =
            [runs("a", "n1", a, 600, ""), runs("b", "n1", b, 600, ""), runs("c", "n1", c, 600, "")];
        format!("{NODE}{}{}", all.concat(), urgent(""))
    };
    assert_eq!(victims(&three(1, 2, 3)), ["b", "a"]);
    assert_eq!(victims(&three(3, 2, 1)), ["b", "c"]);
    // One large pod less is enough, whatever the small ones matter.
    let yaml = [
        NODE.to_owned(),
        runs("a", "n1", 1, 200, ""),
        runs("b", "n1", 2, 1500, ""),
        runs("c", "n1", 3, 200, ""),
        urgent(""),
    ];
    assert_eq!(victims(&yaml.concat()), ["b"]);
    // Of equals the one that began last.
    let at = |hour: u32| format!(", startTime: '2026-01-01T0{hour}:00:00Z'");
    let yaml = [
        NODE.to_owned(),
        runs("a", "n1", 1, 900, &at(2)),
        runs("b", "n1", 1, 900, &at(1)),
        urgent(""),
    ];
    assert_eq!(victims(&yaml.concat()), ["a"]);
}

#[test]
fn who_a_budget_keeps_goes_only_if_nobody_else_can() {
    let pods =
        [NODE.to_owned(), runs("a", "n1", 1, 900, ""), runs("b", "n1", 2, 900, ""), urgent("")];
    let pods = pods.concat();
    assert_eq!(victims(&pods), ["a"]);
    assert_eq!(victims(&format!("{pods}{}", budget("keep", "a", 0))), ["b"]);
    assert_eq!(victims(&format!("{pods}{}", budget("keep", "a", 1))), ["a"]);
    let both = [pods, budget("keep", "a", 0), budget("keep-too", "b", 0)].concat();
    assert_eq!(victims(&both), ["a"]);
}

#[test]
fn the_node_is_chosen_where_it_costs_least() {
    let two = |a: &[String], b: &[String], more: &str| {
        let nodes = [NODE.to_owned(), NODE.replace("n1", "n2")].concat();
        victims(&[nodes, a.concat(), b.concat(), urgent(""), more.to_owned()].concat())
    };
    let at = |hour: u32| format!(", startTime: '2026-01-01T0{hour}:00:00Z'");
    let one =
        |name: &str, node: &str, priority: i32, more: &str| runs(name, node, priority, 1500, more);
    // Budgets before priorities.
    let keep = budget("keep", "a", 0);
    assert_eq!(two(&[one("a", "n1", 1, "")], &[one("b", "n2", 2, "")], &keep), ["b"]);
    // The lowest highest priority.
    assert_eq!(two(&[one("a", "n1", 2, "")], &[one("b", "n2", 1, "")], ""), ["b"]);
    // The lowest sum, then the fewest, of which each counts.
    let more =
        [runs("a", "n1", 2, 700, ""), runs("c", "n1", 2, 700, ""), runs("e", "n1", 200, 600, "")];
    assert_eq!(two(&more, &[one("f", "n2", 2, "")], ""), ["f"]);
    // The youngest.
    assert_eq!(two(&[one("a", "n1", 1, &at(1))], &[one("b", "n2", 1, &at(2))], ""), ["b"]);
    assert_eq!(two(&[one("a", "n1", 1, &at(2))], &[one("b", "n2", 1, &at(1))], ""), ["a"]);
}

#[test]
fn the_place_goes_to_whom_it_was_kept_for() {
    let nominated = format!("{}status: {{nominatedNodeName: n2}}\n", urgent(""));
    let yaml = [NODE.to_owned(), NODE.replace("n1", "n2"), runs("q", "n2", 0, 900, ""), nominated];
    check(
        &yaml.concat(),
        expect![[r#"
        write
          update Pod default/p
        event Normal Scheduled Successfully assigned default/p to n2
    "#]],
    );
    // What is kept for pods that matter less does not stand in the way.
    let less = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: q, namespace: default, uid: u-q}\nspec: {priority: 1, containers: [{name: c, image: i, resources: {requests: {cpu: 1500m}}}]}\nstatus: {nominatedNodeName: n1}\n";
    check(
        &[NODE.to_owned(), less.to_owned(), urgent("")].concat(),
        expect![[r#"
        write
          update Pod default/p
        event Normal Scheduled Successfully assigned default/p to n1
    "#]],
    );
}
