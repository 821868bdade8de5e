//! Golden tests: a world in YAML, a plan out.

use super::*;
use bytes::Bytes;
use expect_test::{Expect, expect};

mod preemption;

fn world(yaml: &str) -> World {
    let mut world = World::default();
    for document in yaml.split("---\n").filter(|it| !it.trim().is_empty()) {
        let value: serde_json::Value = serde_saphyr::from_str(document).expect("YAML");
        let kind =
            api::kinds().iter().find(|it| value["kind"] == it.kind.as_str()).expect("a kind");
        let json = serde_json::to_vec(&value).expect("plain data");
        let (mut object, unknown) = kind.rules.decode(&json).expect("an object");
        assert!(unknown.is_empty(), "{unknown:?}");
        kind.rules.default(&mut object);
        let revision = world.revision + 1;
        world.put(kind, Bytes::from(object.encode()), revision).expect("decodes");
    }
    world
}

fn node(name: &str, more: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{kubernetes.io/hostname: {name}}}}}\n{more}\nstatus: {{allocatable: {{cpu: '2', memory: 4Gi, pods: '10'}}}}\n"
    )
}

fn pod(spec: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: default, uid: u-p}}\nspec: {{containers: [{{name: c, image: i, resources: {{requests: {{cpu: '1'}}}}}}]{spec}}}\n"
    )
}

#[track_caller]
fn check(yaml: &str, expected: Expect) {
    let plan = Scheduler.reconcile(&world(yaml), &ObjectKey::new("default", "p"), Timestamp(0));
    expected.assert_eq(&plan.to_string());
}

#[test]
fn says_why_not_per_reason_with_the_number_of_nodes() {
    let full = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: q, namespace: default, uid: u-q}\nspec: {nodeName: n3, containers: [{name: c, image: i, resources: {requests: {cpu: 1500m}}}]}\n";
    let yaml = [
        node("n1", "spec: {taints: [{key: a, value: b, effect: NoSchedule}]}"),
        node("n2", "spec: {unschedulable: true}"),
        node("n3", ""),
        node("n4", "spec: {taints: [{key: a, effect: NoExecute}]}"),
        full.to_owned(),
        pod(""),
    ]
    .concat();
    check(
        &yaml,
        expect![[r#"
            write
              status Pod default/p
            event Warning FailedScheduling 0/4 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable, 2 node(s) had untolerated taint(s). preemption: 0/4 nodes are available: 1 No preemption victims found for incoming pod, 3 Preemption is not helpful for scheduling.
        "#]],
    );
}

#[test]
fn binds_to_the_node_with_the_most_room() {
    let busy = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: q, namespace: default, uid: u-q}\nspec: {nodeName: n1, containers: [{name: c, image: i, resources: {requests: {cpu: 500m}}}]}\n";
    check(
        &[node("n1", ""), node("n2", ""), busy.to_owned(), pod("")].concat(),
        expect![[r#"
            write
              update Pod default/p
            event Normal Scheduled Successfully assigned default/p to n2
        "#]],
    );
}

/// A machine on which one small pod more or less does not show.
fn large(name: &str, zone: &str) -> String {
    node(name, "").replace("cpu: '2', memory: 4Gi", "cpu: '64', memory: 512Gi").replace(
        "hostname: ",
        &format!("hostname: {name}, topology.kubernetes.io/zone: {zone}, x: "),
    )
}

fn member(name: &str, on: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default, uid: u-{name}, labels: {{app: a}}, ownerReferences: [{{apiVersion: apps/v1, kind: StatefulSet, name: web, uid: u-web, controller: true}}]}}\nspec: {{{on}containers: [{{name: c, image: i}}]}}\n"
    )
}

#[track_caller]
fn goes_to(yaml: &str, node: &str) {
    let plan = Scheduler.reconcile(&world(yaml), &ObjectKey::new("default", "p"), Timestamp(0));
    let plan = plan.to_string();
    assert!(plan.contains(&format!("Successfully assigned default/p to {node}\n")), "{plan}");
}

#[test]
fn pods_of_one_controller_or_service_spread_over_nodes_and_zones_however_large_these_are() {
    const SET: &str = "---\napiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: web, namespace: default, uid: u-web}\nspec: {serviceName: web, selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: i}]}}}\n";
    const SERVICE: &str = "---\napiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: default, uid: u-s}\nspec: {selector: {app: a}, ports: [{port: 80}]}\n";
    let nodes = |zones: [&str; 3]| -> String {
        ["n1", "n2", "n3"].iter().zip(zones).map(|(name, zone)| large(name, zone)).collect()
    };
    let on = |node: &str| format!("nodeName: {node}, ");
    let first = member("q", &on("n1"));
    for why in [SET, SERVICE] {
        let begun = [&*nodes(["a", "a", "a"]), why, &member("p", "")].concat();
        goes_to(&begun, "n1");
        goes_to(&[&*begun, &first].concat(), "n2");
        goes_to(&[&*begun, &first, &member("r", &on("n2"))].concat(), "n3");
        let zones = [&*nodes(["a", "a", "b"]), why, &member("p", ""), &first].concat();
        goes_to(&zones, "n3");
    }
    // Nobody says that these belong together.
    goes_to(&[&*nodes(["a", "a", "a"]), &member("p", ""), &first].concat(), "n1");
}

#[test]
fn a_soft_taint_is_stayed_clear_of_by_those_who_do_not_tolerate_it() {
    let tainted = large("n1", "a").replace(
        "status:",
        "spec: {taints: [{key: x, value: z, effect: PreferNoSchedule}]}\nstatus:",
    );
    let nodes = [tainted, large("n2", "a")].concat();
    goes_to(&[&*nodes, &member("p", "")].concat(), "n2");
    let tolerates = "tolerations: [{key: x, operator: Exists}], ";
    goes_to(&[&*nodes, &member("p", tolerates)].concat(), "n1");
}

#[test]
fn pods_go_near_those_that_they_like_and_away_from_those_that_they_do_not() {
    let nodes: String =
        [("n1", "a"), ("n2", "b"), ("n3", "b")].map(|it| large(it.0, it.1)).concat();
    let other =
        |on: &str| member("q", &format!("nodeName: {on}, ")).replace("app: a", "app: other");
    let likes = |side: &str| {
        format!(
            "affinity: {{{side}: {{preferredDuringSchedulingIgnoredDuringExecution: [{{weight: 100, podAffinityTerm: {{topologyKey: topology.kubernetes.io/zone, labelSelector: {{matchLabels: {{app: other}}}}}}}}]}}}}, "
        )
    };
    let away = member("p", &likes("podAntiAffinity"));
    goes_to(&[&*nodes, &away, &other("n1")].concat(), "n2");
    goes_to(&[&*nodes, &away, &other("n2")].concat(), "n1");
    goes_to(&[&*nodes, &member("p", &likes("podAffinity")), &other("n3")].concat(), "n2");
}

#[test]
fn soft_constraints_of_a_pod_are_about_nodes_that_have_the_label() {
    let bare = node("n0", "").replace("cpu: '2', memory: 4Gi", "cpu: '64', memory: 512Gi");
    let spread = "topologySpreadConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: a}}}], ";
    let yaml = [
        bare,
        large("n1", "a"),
        large("n2", "b"),
        member("q", "nodeName: n1, "),
        member("p", spread),
    ];
    goes_to(&yaml.concat(), "n2");
}

const CLASS: &str = "---\napiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: local}\nprovisioner: local.csi.stanchion.dev\nvolumeBindingMode: WaitForFirstConsumer\n";
const CLAIM: &str = "---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: c, namespace: default, uid: u-c}\nspec: {storageClassName: local, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n";
const VOLUMES: &str = ", volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]";

#[test]
fn chooses_the_node_and_tells_the_provisioner_before_it_binds_the_pod() {
    let yaml = [node("n1", ""), CLASS.to_owned(), CLAIM.to_owned(), pod(VOLUMES)].concat();
    check(
        &yaml,
        expect![[r#"
            write
              status Pod default/p
            write
              update PersistentVolumeClaim default/c
        "#]],
    );
}

#[test]
fn prefers_a_volume_that_is_there_and_reachable() {
    let volume = |name: &str, node: &str| {
        format!(
            "---\napiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: {name}, uid: {name}}}\nspec: {{storageClassName: local, capacity: {{storage: 1Gi}}, accessModes: [ReadWriteOnce], local: {{path: /x}}, nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [{node}]}}]}}]}}}}}}\n"
        )
    };
    let class = CLASS.replace("local.csi.stanchion.dev", "kubernetes.io/no-provisioner");
    let yaml = [
        node("n1", ""),
        node("n2", ""),
        class.clone(),
        CLAIM.to_owned(),
        volume("elsewhere", "n9"),
        volume("here", "n2"),
        pod(VOLUMES),
    ]
    .concat();
    check(
        &yaml,
        expect![[r#"
            write
              status Pod default/p
            write
              update PersistentVolume here
              update PersistentVolumeClaim default/c
        "#]],
    );
    let yaml = [node("n1", ""), class, CLAIM.to_owned(), volume("elsewhere", "n9"), pod(VOLUMES)];
    check(
        &yaml.concat(),
        expect![[r#"
            write
              status Pod default/p
            event Warning FailedScheduling 0/1 nodes are available: 1 node(s) didn't find available persistent volumes to bind. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.
        "#]],
    );
}

#[test]
fn waits_for_claims_that_are_missing_or_unbound() {
    check(
        &[node("n1", ""), pod(VOLUMES)].concat(),
        expect![[r#"
            write
              status Pod default/p
            event Warning FailedScheduling 0/1 nodes are available: persistentvolumeclaim "c" not found. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.
        "#]],
    );
    let manual = CLAIM.replace("storageClassName: local", "storageClassName: manual");
    check(
        &[node("n1", ""), manual, pod(VOLUMES)].concat(),
        expect![[r#"
            write
              status Pod default/p
            event Warning FailedScheduling 0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.
        "#]],
    );
}

#[test]
fn a_nominated_pod_keeps_its_room() {
    let nominated = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: q, namespace: default, uid: u-q}\nspec: {containers: [{name: c, image: i, resources: {requests: {cpu: 1500m}}}]}\nstatus: {nominatedNodeName: n1}\n";
    check(
        &[node("n1", ""), nominated.to_owned(), pod("")].concat(),
        expect![[r#"
            write
              status Pod default/p
            event Warning FailedScheduling 0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.
        "#]],
    );
    let ended = nominated.replace("nominatedNodeName: n1", "nominatedNodeName: n1, phase: Failed");
    check(
        &[node("n1", ""), ended, pod("")].concat(),
        expect![[r#"
            write
              update Pod default/p
            event Normal Scheduled Successfully assigned default/p to n1
        "#]],
    );
}

const APART: &str = ", affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: web}}}]}}";

fn labelled(name: &str, node: &str, more: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default, uid: u-{name}, labels: {{app: web}}}}\nspec: {{nodeName: '{node}', containers: [{{name: c, image: i}}]{more}}}\n"
    )
}

#[test]
fn pods_that_want_to_be_apart_are_on_different_nodes() {
    let yaml = [node("n1", ""), node("n2", ""), labelled("q", "n1", ""), labelled("p", "", APART)];
    check(
        &yaml.concat(),
        expect![[r#"
            write
              update Pod default/p
            event Normal Scheduled Successfully assigned default/p to n2
        "#]],
    );
    let yaml = [node("n1", ""), labelled("q", "n1", APART), labelled("p", "", "")];
    check(
        &yaml.concat(),
        expect![[r#"
            write
              status Pod default/p
            event Warning FailedScheduling 0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.
        "#]],
    );
}

#[test]
fn pods_that_want_to_be_together_follow_the_first() {
    let together = APART.replace("podAntiAffinity", "podAffinity");
    let first = [node("n1", ""), node("n2", ""), labelled("p", "", &together)].concat();
    check(
        &first,
        expect![[r#"
            write
              update Pod default/p
            event Normal Scheduled Successfully assigned default/p to n1
        "#]],
    );
    check(
        &format!("{first}{}", labelled("q", "n2", "")),
        expect![[r#"
            write
              update Pod default/p
            event Normal Scheduled Successfully assigned default/p to n2
        "#]],
    );
}

#[test]
fn spread_pods_go_where_the_fewest_are() {
    let spread = ", topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}]";
    let yaml = [
        node("n1", ""),
        node("n2", "spec: {unschedulable: true}"),
        labelled("q", "n1", ""),
        labelled("p", "", spread),
    ];
    check(
        &yaml.concat(),
        expect![[r#"
            write
              status Pod default/p
            event Warning FailedScheduling 0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) were unschedulable. preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling.
        "#]],
    );
}

/// Who is woken when one pod becomes another: `waits` waits for a node, `lonely` for other pods.
#[track_caller]
fn check_woken(old: &str, new: &str, expected: &[&str]) {
    let refused = "conditions: [{type: PodScheduled, status: 'False', reason: Unschedulable}]";
    let waiting = |name: &str, spec: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default, uid: u-{name}}}\nspec: {{containers: [{{name: c, image: i}}]{spec}}}\nstatus: {{{refused}}}\n"
        )
    };
    let lonely = ", affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: db}}}]}}";
    let uneven = ", topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {}}]";
    let others = [
        waiting("waits", ""),
        waiting("lonely", lonely),
        waiting("uneven", uneven),
        waiting("elsewhere", &format!("{lonely}, schedulerName: other")),
    ]
    .concat();
    let pod = |rest: &str| {
        let text =
            "---\napiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: default, uid: u-p, ";
        if rest.is_empty() { String::new() } else { format!("{text}{rest}\n") }
    };
    let key = ObjectKey::new("default", "p");
    let (old, new) = (world(&pod(old)), world(&[others, pod(new)].concat()));
    let kind = api::kind_of::<Pod>().clone();
    let row = |world: &World| world.row_of::<Pod>(&key).cloned();
    let touched = Touched { kind, key: key.clone(), old: row(&old), new: row(&new) };
    let woken = waiting_for_pods(&new, &touched);
    let mut woken: Vec<&str> = woken.iter().map(|it| &*it.name).filter(|it| *it != "p").collect();
    woken.sort_unstable();
    assert_eq!(woken, expected);
}

#[test]
fn who_makes_room_wakes_all_that_wait_and_who_comes_wakes_those_that_want_company() {
    const ALL: [&str; 3] = ["lonely", "uneven", "waits"];
    let pod = |node: &str, cpu: &str, status: &str| {
        format!(
            "labels: {{app: db}}}}\nspec: {{{node} containers: [{{name: c, image: i, resources: {{requests: {{cpu: {cpu}}}}}}}]}}\nstatus: {{{status}}}"
        )
    };
    let bound = pod("nodeName: n1,", "500m", "");
    let kept = |node: &str| pod("", "500m", &format!("nominatedNodeName: {node}"));
    // Room is made.
    check_woken(&bound, "", &ALL);
    check_woken(&bound, &pod("nodeName: n1,", "500m", "phase: Succeeded"), &ALL);
    check_woken(&bound, &pod("nodeName: n1,", "400m", ""), &ALL);
    check_woken(&bound, &bound.replace("app: db", "app: web"), &ALL);
    check_woken(&kept("n2"), &bound, &ALL);
    check_woken(&kept("n2"), &kept("n1"), &ALL);
    check_woken(&kept("n2"), &pod("", "500m", ""), &ALL);
    check_woken(&kept("n2"), &pod("", "500m", "nominatedNodeName: n2, phase: Failed"), &ALL);
    // Somebody comes.
    check_woken(&pod("", "500m", ""), &bound, &ALL[..2]);
    check_woken(&kept("n1"), &bound, &ALL[..2]);
    check_woken("", &bound, &ALL[..2]);
    // Nothing of the kind.
    check_woken(&bound, &bound, &[]);
    check_woken(&bound, &pod("nodeName: n1,", "1", "phase: Running"), &[]);
    check_woken("", &kept("n1"), &[]);
    check_woken("", &pod("", "500m", ""), &[]);
}
