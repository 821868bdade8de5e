//! Questions to small worlds, answers as `dig` prints them.

use super::*;
use expect_test::{Expect, expect};
use std::str::FromStr;

/// A world of these stored objects, each JSON, in namespaces `default` and `other`.
fn world(objects: &[String]) -> World {
    let mut world = World::default();
    let spaces = ["default", "other"].map(|it| object("Namespace", "", it, "", ""));
    for (revision, text) in (1..).zip(spaces.iter().chain(objects)) {
        let kind = text.split('"').nth(3).unwrap();
        let kind = api::kinds().iter().find(|it| it.kind == kind).unwrap();
        world.put(kind, text.clone().into(), revision).unwrap();
    }
    world
}

fn object(kind: &str, namespace: &str, name: &str, metadata: &str, rest: &str) -> String {
    let group = if kind == "EndpointSlice" { "discovery.k8s.io/v1" } else { "v1" };
    let namespace = match namespace {
        "" => String::new(),
        namespace => format!(r#","namespace":"{namespace}""#),
    };
    format!(
        r#"{{"kind":"{kind}","apiVersion":"{group}",
            "metadata":{{"name":"{name}","uid":"{name}"{namespace}{metadata}}}{rest}}}"#
    )
}

fn service(name: &str, spec: &str) -> String {
    object("Service", "default", name, "", &format!(r#","spec":{{{spec}}}"#))
}

/// `web-0` of the Service `nginx`, as a stateful set makes it; `state` is `ready`, `unready`,
/// `deleting` or `done`.
fn pod(name: &str, address: &str, state: &str) -> String {
    let deletion = match state {
        "deleting" => r#","deletionTimestamp":"2026-11-21T10:00:00Z""#,
        _ => "",
    };
    let metadata = format!(r#","labels":{{"app":"nginx","name":"{name}"}}{deletion}"#);
    let ready = if state == "unready" { "False" } else { "True" };
    let phase = if state == "done" { "Succeeded" } else { "Running" };
    let rest = format!(
        r#","spec":{{"hostname":"{name}","subdomain":"nginx","containers":[{{"name":"c",
            "ports":[{{"name":"web","containerPort":8080}}]}}]}},
           "status":{{"phase":"{phase}","podIP":"{address}","podIPs":[{{"ip":"{address}"}}],
            "conditions":[{{"type":"Ready","status":"{ready}"}}]}}"#
    );
    object("Pod", "default", name, &metadata, &rest)
}

const HEADLESS: &str = r#""clusterIP":"None","clusterIPs":["None"],"selector":{"app":"nginx"},
    "ports":[{"name":"http","port":80,"targetPort":"web"}]"#;

fn zone() -> Zone {
    let ranges = vec!["10.244.0.0/16".parse().unwrap(), "10.96.0.0/12".parse().unwrap()];
    Zone::new("cluster.local", ranges, vec!["10.96.0.10".parse().unwrap()]).unwrap()
}

/// Each line of `questions` is a type and a name; a name without a dot at its end is in the domain.
fn check(world: &World, questions: &[&str], expected: Expect) {
    check_in(&zone(), world, questions, expected);
}

fn check_in(zone: &Zone, world: &World, questions: &[&str], expected: Expect) {
    let mut said = String::new();
    for question in questions {
        let (record_type, name) = question.split_once(' ').unwrap();
        let name = match name.strip_suffix('.') {
            Some(_) => name.to_owned(),
            None => format!("{name}.cluster.local."),
        };
        let name = Name::from_ascii(name).unwrap();
        let query = Query::query(name, RecordType::from_str(record_type).unwrap());
        said.push_str(&format!("{question}\n"));
        let mut line = |mark: &str, it: &Record| {
            let (name, ttl, kind) = (&it.name, it.ttl, it.record_type());
            said.push_str(&format!("  {mark}{name} {ttl} {kind} {}\n", it.data));
        };
        match answer(world, zone, &query) {
            Answer::Records { answers, additionals } => {
                answers.iter().for_each(|it| line("", it));
                additionals.iter().for_each(|it| line("+ ", it));
            }
            Answer::Alias(target) => line("", &alias(query.name(), target)),
            Answer::NoData => said.push_str("  no data\n"),
            Answer::NoName => said.push_str("  no such name\n"),
            Answer::Elsewhere => said.push_str("  elsewhere\n"),
        }
    }
    expected.assert_eq(&said);
}

#[test]
fn a_service_has_its_cluster_address_and_ports() {
    let spec = r#""clusterIP":"10.96.0.1","clusterIPs":["10.96.0.1"],
        "ports":[{"name":"https","port":443,"targetPort":6443},{"name":"dns","port":53,"protocol":"UDP"}]"#;
    let world = world(&[service("kubernetes", spec)]);
    let questions = [
        "A kubernetes.default.svc",
        "A KUBERNETES.Default.svc",
        "AAAA kubernetes.default.svc",
        "SRV _https._tcp.kubernetes.default.svc",
        "SRV _dns._udp.kubernetes.default.svc",
        "SRV _dns._tcp.kubernetes.default.svc",
        "SRV kubernetes.default.svc",
        "A _https._tcp.kubernetes.default.svc",
        "A _tcp.kubernetes.default.svc",
        "A _sctp.kubernetes.default.svc",
        "PTR 1.0.96.10.in-addr.arpa.",
    ];
    check(
        &world,
        &questions,
        expect![[r#"
        A kubernetes.default.svc
          kubernetes.default.svc.cluster.local. 30 A 10.96.0.1
        A KUBERNETES.Default.svc
          KUBERNETES.Default.svc.cluster.local. 30 A 10.96.0.1
        AAAA kubernetes.default.svc
          no data
        SRV _https._tcp.kubernetes.default.svc
          _https._tcp.kubernetes.default.svc.cluster.local. 30 SRV 0 100 443 kubernetes.default.svc.cluster.local.
          + kubernetes.default.svc.cluster.local. 30 A 10.96.0.1
        SRV _dns._udp.kubernetes.default.svc
          _dns._udp.kubernetes.default.svc.cluster.local. 30 SRV 0 100 53 kubernetes.default.svc.cluster.local.
          + kubernetes.default.svc.cluster.local. 30 A 10.96.0.1
        SRV _dns._tcp.kubernetes.default.svc
          no such name
        SRV kubernetes.default.svc
          kubernetes.default.svc.cluster.local. 30 SRV 0 50 443 kubernetes.default.svc.cluster.local.
          kubernetes.default.svc.cluster.local. 30 SRV 0 50 53 kubernetes.default.svc.cluster.local.
          + kubernetes.default.svc.cluster.local. 30 A 10.96.0.1
        A _https._tcp.kubernetes.default.svc
          no data
        A _tcp.kubernetes.default.svc
          no data
        A _sctp.kubernetes.default.svc
          no such name
        PTR 1.0.96.10.in-addr.arpa.
          1.0.96.10.in-addr.arpa. 30 PTR kubernetes.default.svc.cluster.local.
    "#]],
    );
}

#[test]
fn a_headless_service_has_the_addresses_of_its_ready_pods() {
    let world = world(&[
        service("nginx", HEADLESS),
        pod("web-0", "10.244.0.5", "ready"),
        pod("web-1", "10.244.0.6", "ready"),
        pod("web-2", "10.244.0.7", "unready"),
        pod("web-3", "10.244.0.8", "deleting"),
        pod("web-4", "10.244.0.9", "done"),
    ]);
    let questions = [
        "A nginx.default.svc",
        "A web-0.nginx.default.svc",
        "A Web-1.nginx.default.svc",
        "A web-2.nginx.default.svc",
        "A web-3.nginx.default.svc",
        "A web-4.nginx.default.svc",
        "A 10-244-0-5.nginx.default.svc",
        "AAAA web-0.nginx.default.svc",
        "SRV _http._tcp.nginx.default.svc",
        "SRV web-0.nginx.default.svc",
        "PTR 5.0.244.10.in-addr.arpa.",
        "PTR 7.0.244.10.in-addr.arpa.",
        "PTR 8.0.244.10.in-addr.arpa.",
        "A nginx.other.svc",
        "A a.b.c.nginx.default.svc",
    ];
    check(
        &world,
        &questions,
        expect![[r#"
        A nginx.default.svc
          nginx.default.svc.cluster.local. 30 A 10.244.0.5
          nginx.default.svc.cluster.local. 30 A 10.244.0.6
        A web-0.nginx.default.svc
          web-0.nginx.default.svc.cluster.local. 30 A 10.244.0.5
        A Web-1.nginx.default.svc
          Web-1.nginx.default.svc.cluster.local. 30 A 10.244.0.6
        A web-2.nginx.default.svc
          no such name
        A web-3.nginx.default.svc
          no such name
        A web-4.nginx.default.svc
          no such name
        A 10-244-0-5.nginx.default.svc
          no such name
        AAAA web-0.nginx.default.svc
          no data
        SRV _http._tcp.nginx.default.svc
          _http._tcp.nginx.default.svc.cluster.local. 30 SRV 0 50 8080 web-0.nginx.default.svc.cluster.local.
          _http._tcp.nginx.default.svc.cluster.local. 30 SRV 0 50 8080 web-1.nginx.default.svc.cluster.local.
          + web-0.nginx.default.svc.cluster.local. 30 A 10.244.0.5
          + web-1.nginx.default.svc.cluster.local. 30 A 10.244.0.6
        SRV web-0.nginx.default.svc
          web-0.nginx.default.svc.cluster.local. 30 SRV 0 100 8080 web-0.nginx.default.svc.cluster.local.
          + web-0.nginx.default.svc.cluster.local. 30 A 10.244.0.5
        PTR 5.0.244.10.in-addr.arpa.
          5.0.244.10.in-addr.arpa. 30 PTR web-0.nginx.default.svc.cluster.local.
        PTR 7.0.244.10.in-addr.arpa.
          no such name
        PTR 8.0.244.10.in-addr.arpa.
          no such name
        A nginx.other.svc
          no such name
        A a.b.c.nginx.default.svc
          no such name
    "#]],
    );
}

#[test]
fn a_service_that_asks_for_it_shows_pods_that_are_not_ready() {
    let spec = format!(r#"{HEADLESS},"publishNotReadyAddresses":true"#);
    let world = world(&[
        service("nginx", &spec),
        pod("web-0", "10.244.0.5", "unready"),
        pod("web-1", "10.244.0.6", "done"),
    ]);
    check(
        &world,
        &["A nginx.default.svc", "A web-1.nginx.default.svc"],
        expect![[r#"
        A nginx.default.svc
          nginx.default.svc.cluster.local. 30 A 10.244.0.5
        A web-1.nginx.default.svc
          no such name
    "#]],
    );
}

#[test]
fn a_headless_service_without_ready_pods_is_no_name() {
    let world = world(&[service("nginx", HEADLESS), pod("web-0", "10.244.0.5", "unready")]);
    check(
        &world,
        &["A nginx.default.svc", "SRV _http._tcp.nginx.default.svc"],
        expect![[r#"
        A nginx.default.svc
          no such name
        SRV _http._tcp.nginx.default.svc
          no such name
    "#]],
    );
}

#[test]
fn pods_without_a_chosen_name_are_named_by_their_address() {
    let spec = r#""clusterIP":"None","selector":{"app":"nginx"}"#;
    let world = world(&[service("others", spec), pod("web-0", "10.244.0.5", "ready")]);
    let questions = [
        "A others.default.svc",
        "A 10-244-0-5.others.default.svc",
        "A web-0.others.default.svc",
        "SRV others.default.svc",
        "PTR 5.0.244.10.in-addr.arpa.",
    ];
    check(
        &world,
        &questions,
        expect![[r#"
        A others.default.svc
          others.default.svc.cluster.local. 30 A 10.244.0.5
        A 10-244-0-5.others.default.svc
          10-244-0-5.others.default.svc.cluster.local. 30 A 10.244.0.5
        A web-0.others.default.svc
          no such name
        SRV others.default.svc
          no data
        PTR 5.0.244.10.in-addr.arpa.
          5.0.244.10.in-addr.arpa. 30 PTR 10-244-0-5.others.default.svc.cluster.local.
    "#]],
    );
}

#[test]
fn a_service_without_a_selector_leads_where_its_slices_or_endpoints_say() {
    let slice = object(
        "EndpointSlice",
        "default",
        "db-1",
        r#","labels":{"kubernetes.io/service-name":"db"}"#,
        r#","addressType":"IPv4","ports":[{"name":"sql","port":5432}],"endpoints":[
            {"addresses":["192.0.2.1"],"hostname":"first"},
            {"addresses":["192.0.2.2"],"conditions":{"ready":false}}]"#,
    );
    let endpoints = object(
        "Endpoints",
        "default",
        "old",
        "",
        r#","subsets":[{"addresses":[{"ip":"192.0.2.3"}],"notReadyAddresses":[{"ip":"192.0.2.4"}],
            "ports":[{"port":80}]}]"#,
    );
    let bare = r#""clusterIP":"None""#;
    let world = world(&[service("db", bare), slice, service("old", bare), endpoints]);
    let questions = [
        "A db.default.svc",
        "A first.db.default.svc",
        "SRV _sql._tcp.db.default.svc",
        "A old.default.svc",
    ];
    check(
        &world,
        &questions,
        expect![[r#"
        A db.default.svc
          db.default.svc.cluster.local. 30 A 192.0.2.1
        A first.db.default.svc
          first.db.default.svc.cluster.local. 30 A 192.0.2.1
        SRV _sql._tcp.db.default.svc
          _sql._tcp.db.default.svc.cluster.local. 30 SRV 0 100 5432 first.db.default.svc.cluster.local.
          + first.db.default.svc.cluster.local. 30 A 192.0.2.1
        A old.default.svc
          old.default.svc.cluster.local. 30 A 192.0.2.3
    "#]],
    );
}

#[test]
fn an_external_name_is_an_alias() {
    let spec = r#""type":"ExternalName","externalName":"db.example.com""#;
    let address = r#""type":"ExternalName","externalName":"192.0.2.7""#;
    let world = world(&[service("db", spec), service("fixed", address)]);
    let questions =
        ["A db.default.svc", "CNAME db.default.svc", "A x.db.default.svc", "A fixed.default.svc"];
    check(
        &world,
        &questions,
        expect![[r#"
        A db.default.svc
          db.default.svc.cluster.local. 30 CNAME db.example.com.
        CNAME db.default.svc
          db.default.svc.cluster.local. 30 CNAME db.example.com.
        A x.db.default.svc
          no such name
        A fixed.default.svc
          fixed.default.svc.cluster.local. 30 A 192.0.2.7
    "#]],
    );
}

#[test]
fn pods_have_names_made_from_addresses_in_namespaces_that_exist() {
    let questions = [
        "A 10-244-0-5.default.pod",
        "AAAA fd00--5.default.pod",
        "AAAA 10-244-0-5.default.pod",
        "A 10-244-0-5.missing.pod",
        "A web-0.default.pod",
    ];
    check(
        &world(&[]),
        &questions,
        expect![[r#"
        A 10-244-0-5.default.pod
          10-244-0-5.default.pod.cluster.local. 30 A 10.244.0.5
        AAAA fd00--5.default.pod
          fd00--5.default.pod.cluster.local. 30 AAAA fd00::5
        AAAA 10-244-0-5.default.pod
          no data
        A 10-244-0-5.missing.pod
          no such name
        A web-0.default.pod
          no such name
    "#]],
    );
}

#[test]
fn tells_names_without_data_from_names_that_do_not_exist() {
    let questions = [
        "SOA cluster.local.",
        "NS cluster.local.",
        "A cluster.local.",
        "A svc",
        "A default.svc",
        "A missing.svc",
        "A other.pod",
        "TXT dns-version",
        "A ns.dns",
        "A missing.default.svc",
        "A www.example.com",
        "A www.example.com.",
        "A local.",
        "A notcluster.local.",
        "PTR 9.9.244.10.in-addr.arpa.",
        "PTR 244.10.in-addr.arpa.",
        "PTR 10.in-addr.arpa.",
        "PTR 1.2.0.192.in-addr.arpa.",
    ];
    check(
        &world(&[]),
        &questions,
        expect![[r#"
        SOA cluster.local.
          cluster.local. 30 SOA ns.dns.cluster.local. hostmaster.cluster.local. 2 7200 1800 86400 5
        NS cluster.local.
          cluster.local. 30 NS ns.dns.cluster.local.
          + ns.dns.cluster.local. 30 A 10.96.0.10
        A cluster.local.
          no data
        A svc
          no data
        A default.svc
          no data
        A missing.svc
          no such name
        A other.pod
          no data
        TXT dns-version
          dns-version.cluster.local. 30 TXT 1.1.0
        A ns.dns
          ns.dns.cluster.local. 30 A 10.96.0.10
        A missing.default.svc
          no such name
        A www.example.com
          no such name
        A www.example.com.
          elsewhere
        A local.
          elsewhere
        A notcluster.local.
          elsewhere
        PTR 9.9.244.10.in-addr.arpa.
          no such name
        PTR 244.10.in-addr.arpa.
          no data
        PTR 10.in-addr.arpa.
          elsewhere
        PTR 1.2.0.192.in-addr.arpa.
          elsewhere
    "#]],
    );
}

#[test]
fn a_world_with_the_pods_of_one_node_answers_from_slices() {
    let label = r#","labels":{"kubernetes.io/service-name":"nginx"}"#;
    let rest = r#","addressType":"IPv4","ports":[{"name":"http","port":8080,"protocol":"TCP"}],"endpoints":[
        {"addresses":["10.244.1.7"],"hostname":"web-0","nodeName":"n2","conditions":{"ready":true}},
        {"addresses":["10.244.2.7"],"hostname":"web-1","nodeName":"n3","conditions":{"ready":false}},
        {"addresses":["10.244.2.8"],"nodeName":"n3"}]"#;
    // Its own node's pod is Ready; what the slice does not say yet is not said.
    let world = world(&[
        service("nginx", HEADLESS),
        object("EndpointSlice", "default", "nginx-1", label, rest),
        pod("web-2", "10.244.0.7", "ready"),
    ]);
    let zone = zone().knowing(crate::dns::Known::Slices);
    let questions = [
        "A web-0.nginx.default.svc",
        "A web-1.nginx.default.svc",
        "A web-2.nginx.default.svc",
        "A nginx.default.svc",
        "SRV _http._tcp.nginx.default.svc",
        "PTR 7.1.244.10.in-addr.arpa.",
        "PTR 7.0.244.10.in-addr.arpa.",
    ];
    check_in(
        &zone,
        &world,
        &questions,
        expect![[r#"
        A web-0.nginx.default.svc
          web-0.nginx.default.svc.cluster.local. 30 A 10.244.1.7
        A web-1.nginx.default.svc
          no such name
        A web-2.nginx.default.svc
          no such name
        A nginx.default.svc
          nginx.default.svc.cluster.local. 30 A 10.244.1.7
          nginx.default.svc.cluster.local. 30 A 10.244.2.8
        SRV _http._tcp.nginx.default.svc
          _http._tcp.nginx.default.svc.cluster.local. 30 SRV 0 50 8080 10-244-2-8.nginx.default.svc.cluster.local.
          _http._tcp.nginx.default.svc.cluster.local. 30 SRV 0 50 8080 web-0.nginx.default.svc.cluster.local.
          + web-0.nginx.default.svc.cluster.local. 30 A 10.244.1.7
          + 10-244-2-8.nginx.default.svc.cluster.local. 30 A 10.244.2.8
        PTR 7.1.244.10.in-addr.arpa.
          7.1.244.10.in-addr.arpa. 30 PTR web-0.nginx.default.svc.cluster.local.
        PTR 7.0.244.10.in-addr.arpa.
          no such name
    "#]],
    );
}
