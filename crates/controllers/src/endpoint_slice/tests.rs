//! Golden tests of one look, and worlds that are left to settle.

use super::*;
use crate::testing::{load, world};
use expect_test::{Expect, expect};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default, uid: svc, labels: {team: a}}
spec:
  clusterIP: None
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
";
const NODE: &str = "---\n{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {topology.kubernetes.io/zone: z1}}}\n";

fn pod(name: &str, ip: &str, ready: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default, uid: u-{name}, labels: {{app: web}}}}\nspec: {{hostname: {name}, subdomain: web, nodeName: n1, containers: [{{name: c, image: i, ports: [{{name: http, containerPort: 8080}}]}}]}}\nstatus: {{phase: Running, podIP: {ip}, podIPs: [{{ip: {ip}}}], conditions: [{{type: Ready, status: '{ready}'}}]}}\n"
    )
}

#[test]
fn a_service_without_pods_has_one_empty_slice() {
    let mut world = world(SERVICE);
    check(
        &world,
        expect![[r#"
            write
              create EndpointSlice default/web-8whl7
        "#]],
    );
    settle(&mut world);
    assert_eq!(lines(&world), ["web [] "]);
}

#[test]
fn an_endpoint_says_who_and_where_it_is_and_how_it_does() {
    let mut world = world(&[SERVICE, NODE, &pod("web-0", "10.0.0.1", "True")].concat());
    settle(&mut world);
    let slice = world.all::<EndpointSlice>().next().unwrap();
    let endpoint = &slice.endpoints.as_ref().unwrap()[0];
    assert_eq!(endpoint.hostname.as_deref(), Some("web-0"));
    assert_eq!(endpoint.node_name.as_deref(), Some("n1"));
    assert_eq!(endpoint.zone.as_deref(), Some("z1"));
    assert_eq!(uid_of(endpoint), Some("u-web-0"));
    let conditions = endpoint.conditions.as_ref().unwrap();
    assert_eq!(
        (conditions.ready, conditions.serving, conditions.terminating),
        (Some(true), Some(true), Some(false))
    );
    let labels = slice.metadata.labels.as_ref().unwrap();
    let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(
        labels,
        [
            "endpointslice.kubernetes.io/managed-by=endpointslice-controller.k8s.io",
            "kubernetes.io/service-name=web",
            "service.kubernetes.io/headless=",
            "team=a"
        ]
    );
    assert_eq!(owner_uid(&slice), Some("svc"));
    assert_eq!(slice.address_type, "IPv4");
}

#[test]
fn a_pod_that_ends_is_not_ready_but_may_still_serve() {
    let pod = pod("web-0", "10.0.0.1", "True");
    let going =
        pod.replace("uid: u-web-0", "uid: u-web-0, deletionTimestamp: '2026-01-01T00:00:00Z'");
    let mut world = world(&[SERVICE, NODE, &going].concat());
    settle(&mut world);
    assert_eq!(lines(&world), ["web [web-0 -st] 8080"]);
    let published = SERVICE.replace("selector:", "publishNotReadyAddresses: true\n  selector:");
    load(&mut world, &published);
    settle(&mut world);
    assert_eq!(lines(&world), ["web [web-0 rst] 8080"]);
}

#[test]
fn pods_that_have_another_number_for_a_port_get_another_slice() {
    let other = pod("web-1", "10.0.0.2", "False").replace("8080", "9090");
    let mut world = world(&[SERVICE, NODE, &pod("web-0", "10.0.0.1", "True"), &other].concat());
    settle(&mut world);
    assert_eq!(lines(&world), ["web [web-0 rs-] 8080", "web [web-1 ---] 9090"]);
}

/// Pods come and go: a hundred in a slice, everyone once, and a look at a settled world writes nothing.
#[test]
fn packs_many_pods_and_moves_as_few_as_it_can() {
    let pods: String = (0..250)
        .map(|n| pod(&format!("web-{n}"), &format!("10.0.{}.{}", n / 200, n % 200 + 1), "True"))
        .collect();
    let mut world = world(&[SERVICE, NODE, &pods].concat());
    settle(&mut world);
    assert_eq!(sizes(&world), [50, 100, 100]);
    let gone: Vec<_> = world.list::<Pod>("default").step_by(2).collect();
    for pod in gone {
        world.apply(&Change::delete_now(&*pod), Timestamp(0));
    }
    let before = names(&world);
    settle(&mut world);
    assert_eq!(sizes(&world).iter().sum::<usize>(), 125);
    assert_eq!(names(&world), before, "none is made anew for those that stay");
    for pod in world.list::<Pod>("default").collect::<Vec<_>>() {
        world.apply(&Change::delete_now(&*pod), Timestamp(0));
    }
    settle(&mut world);
    assert_eq!(lines(&world), ["web [] "]);
}

#[test]
fn leaves_services_without_a_selector_and_foreign_slices_alone() {
    let service = SERVICE.replace("  selector: {app: web}\n", "");
    check(
        &world(&service),
        expect![[r"
            nothing to do
        "]],
    );
    let foreign = "---\n{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: x, namespace: default, labels: {kubernetes.io/service-name: web}}, addressType: IPv4, endpoints: [], ports: []}\n";
    let mut world = world(&[SERVICE, foreign].concat());
    settle(&mut world);
    assert_eq!(world.all::<EndpointSlice>().count(), 2);
}

#[test]
fn the_slices_of_a_namesake_that_went_are_replaced() {
    let mut world = world(SERVICE);
    settle(&mut world);
    load(&mut world, &SERVICE.replace("uid: svc", "uid: other"));
    settle(&mut world);
    let slices: Vec<_> = world.all::<EndpointSlice>().collect();
    assert_eq!(slices.len(), 1);
    assert_eq!(owner_uid(&slices[0]), Some("other"));
}

#[test]
fn a_change_that_no_endpoint_shows_wakes_no_service() {
    let mut world = world(&[SERVICE, NODE, &pod("web-0", "10.0.0.1", "True")].concat());
    let key = ObjectKey::new("default", "web-0");
    let row = |world: &World| world.row_of::<Pod>(&key).cloned();
    let old = row(&world);
    let mut touch = |yaml: &str| {
        load(&mut world, yaml);
        let kind = api::kind_of::<Pod>().clone();
        let touched = Touched { kind, key: key.clone(), old: old.clone(), new: row(&world) };
        services_of_pod(&world, &touched).len()
    };
    let pod = pod("web-0", "10.0.0.1", "True");
    assert_eq!(touch(&pod.replace("uid: u-web-0", "uid: u-web-0, annotations: {a: b}")), 0);
    assert_eq!(touch(&pod.replace("'True'", "'False'")), 1);
    assert_eq!(touch(&pod.replace("labels: {app: web}", "labels: {app: other}")), 1, "it left");
}

fn settle(world: &mut World) {
    for _ in 0..8 {
        let plan = look(world);
        if plan.is_empty() {
            return;
        }
        *world = world.after(&plan, Timestamp(0));
    }
    panic!("does not settle: {}", look(world));
}

fn look(world: &World) -> Plan {
    EndpointSliceController.reconcile(world, &ObjectKey::new("default", "web"), Timestamp(0))
}

/// `service [pod rst] port`: ready, serving, terminating.
fn lines(world: &World) -> Vec<String> {
    let mut lines: Vec<String> = world
        .all::<EndpointSlice>()
        .map(|slice| {
            let endpoints = slice.endpoints.iter().flatten().map(|it| {
                let conditions = it.conditions.as_ref().unwrap();
                let flag = |it: Option<bool>, letter| if it == Some(true) { letter } else { '-' };
                let name = it.target_ref.as_ref().unwrap().name.as_deref().unwrap();
                format!(
                    "{name} {}{}{}",
                    flag(conditions.ready, 'r'),
                    flag(conditions.serving, 's'),
                    flag(conditions.terminating, 't')
                )
            });
            let endpoints = endpoints.collect::<Vec<_>>().join(", ");
            let ports = slice.ports.iter().flatten().map(|it| it.port.unwrap().to_string());
            let ports = ports.collect::<Vec<_>>().join(" ");
            format!("{} [{endpoints}] {ports}", slice.label(SERVICE_NAME).unwrap())
        })
        .collect();
    lines.sort();
    lines
}

fn sizes(world: &World) -> Vec<usize> {
    let mut sizes: Vec<_> =
        world.all::<EndpointSlice>().map(|it| it.endpoints.iter().flatten().count()).collect();
    sizes.sort_unstable();
    sizes
}

fn names(world: &World) -> Vec<String> {
    world.all::<EndpointSlice>().map(|it| it.name().to_owned()).collect()
}

#[track_caller]
fn check(world: &World, expected: Expect) {
    expected.assert_eq(&look(world).to_string());
}
