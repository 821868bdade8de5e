//! Golden messages: what the runtime is asked for on behalf of a pod.

use crate::fakes::{FakeClient, yaml};
use api::core::v1::{ConfigMap, Pod, Secret, Service};
use client::Client as _;
use kubelet::{
    runtime::{Image, message},
    spec::{
        Facts, container, dns, env_files::Files, environment, host_name, hosts, resources, sandbox,
        security,
    },
};
use std::collections::BTreeMap;

fn facts() -> Facts {
    Facts {
        node_name: "n1".to_owned(),
        node_address: "192.0.2.1".to_owned(),
        kubelet_dir: "/k".into(),
        log_dir: "/l".into(),
        cpu_milli: 4000,
        memory_bytes: 8 << 30,
        cluster_dns: "10.96.0.10".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        host_dns: dns::parse("nameserver 1.1.1.1 # one\nsearch example.org.\noptions rotate\n"),
        host_hosts: "127.0.0.1\thost\n".to_owned(),
        ..Facts::default()
    }
}

fn pod(spec: &str) -> Pod {
    yaml(&format!("{{metadata: {{name: web-0, namespace: ns, uid: u}}, spec: {{{spec}}}}}"))
}

#[test]
fn hosts_name_the_pod_with_its_domain_and_aliases() {
    let pod = pod(
        "hostname: web-0, subdomain: nginx, containers: [], hostAliases: [{ip: 1.2.3.4, hostnames: [a, b]}]",
    );
    let (name, domain) = host_name(&pod, &facts());
    let text = hosts::content(&pod, "10.0.0.2", &name, &domain, "");
    assert_eq!(
        text,
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n\
         10.0.0.2\tweb-0.nginx.ns.svc.cluster.local\tweb-0\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
    );
}

#[test]
fn a_pod_is_called_as_its_spec_says() {
    let name =
        |spec: &str| sandbox::config(&pod(&format!("{spec} containers: []")), 0, &facts()).hostname;
    assert_eq!(name(""), "web-0");
    assert_eq!(name("hostname: db, subdomain: nginx,"), "db");
    let whole = "hostname: db, subdomain: nginx, setHostnameAsFQDN: true,";
    assert_eq!(name(whole), "db.nginx.ns.svc.cluster.local");
    assert_eq!(name("setHostnameAsFQDN: true,"), "web-0", "without a domain");
    assert_eq!(name("hostnameOverride: other.name, hostname: db, subdomain: nginx,"), "other.name");
}

#[test]
fn a_pod_on_the_hosts_network_has_the_hosts_names() {
    let pod = pod("hostNetwork: true, containers: []");
    let text = hosts::content(&pod, "192.0.2.1", "n1", "", &facts().host_hosts);
    assert_eq!(text, "# Kubernetes-managed hosts file (host network).\n127.0.0.1\thost\n");
    assert_eq!(dns::config(&pod, &facts()).servers, ["1.1.1.1"]);
    assert_eq!(sandbox::config(&pod, 0, &facts()).hostname, "");
}

#[test]
fn names_are_asked_of_the_cluster_first() {
    let config = dns::config(&pod("containers: []"), &facts());
    assert_eq!(config.servers, ["10.96.0.10"]);
    let searches = ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.org"];
    assert_eq!(config.searches, searches);
    assert_eq!(config.options, ["ndots:5"]);
    let own = pod(
        "dnsPolicy: None, dnsConfig: {nameservers: [9.9.9.9], options: [{name: ndots, value: '2'}]}, containers: []",
    );
    let config = dns::config(&own, &facts());
    assert_eq!(
        (config.servers, config.options),
        (vec!["9.9.9.9".to_owned()], vec!["ndots:2".to_owned()])
    );
}

#[test]
fn an_environment_is_services_then_sources_then_the_containers_own_words() {
    let client = FakeClient::new();
    client.put::<Service>(yaml(
        "{metadata: {name: kubernetes, namespace: default}, spec: {clusterIP: 10.96.0.1, ports: [{name: https, port: 443}]}}",
    ));
    client.put::<Service>(yaml(
        "{metadata: {name: my-db, namespace: ns}, spec: {clusterIP: 10.96.0.7, ports: [{port: 5432, protocol: TCP}]}}",
    ));
    client.put::<Service>(yaml(
        "{metadata: {name: headless, namespace: ns}, spec: {clusterIP: None, ports: [{port: 80}]}}",
    ));
    client.put::<ConfigMap>(yaml("{metadata: {name: m, namespace: ns}, data: {A: a, B: b}}"));
    client.put::<Secret>(yaml("{metadata: {name: s, namespace: ns}, data: {pw: c2VjcmV0}}"));
    let pod = pod(
        "containers: [{name: c, envFrom: [{prefix: P_, configMapRef: {name: m}}, {secretRef: {name: none, optional: true}}],
          env: [{name: ME, valueFrom: {fieldRef: {fieldPath: status.podIP}}},
                {name: PW, valueFrom: {secretKeyRef: {name: s, key: pw}}},
                {name: NOT, valueFrom: {configMapKeyRef: {name: m, key: none, optional: true}}},
                {name: ALL, value: '$(P_A)-$(ME)-$(MY_DB_SERVICE_HOST)-$(LATER)'},
                {name: LATER, value: x}]}]",
    );
    let container = &pod.spec.as_ref().unwrap().containers[0];
    let world = client.world();
    let found =
        environment::of(&world, &pod, container, &facts(), "10.0.0.2", &Files::new()).unwrap();
    let lines: Vec<String> = found.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let expected = "ALL=a-10.0.0.2-10.96.0.7-$(LATER)
KUBERNETES_PORT=tcp://10.96.0.1:443
KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443
KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1
KUBERNETES_PORT_443_TCP_PORT=443
KUBERNETES_PORT_443_TCP_PROTO=tcp
KUBERNETES_SERVICE_HOST=10.96.0.1
KUBERNETES_SERVICE_PORT=443
KUBERNETES_SERVICE_PORT_HTTPS=443
LATER=x
ME=10.0.0.2
MY_DB_PORT=tcp://10.96.0.7:5432
MY_DB_PORT_5432_TCP=tcp://10.96.0.7:5432
MY_DB_PORT_5432_TCP_ADDR=10.96.0.7
MY_DB_PORT_5432_TCP_PORT=5432
MY_DB_PORT_5432_TCP_PROTO=tcp
MY_DB_SERVICE_HOST=10.96.0.7
MY_DB_SERVICE_PORT=5432
PW=secret
P_A=a
P_B=b";
    assert_eq!(lines.join("\n"), expected);
    let mut missing = container.clone();
    missing.env_from = None;
    missing.env = yaml_env("{name: X, valueFrom: {configMapKeyRef: {name: m, key: none}}}");
    let why = environment::of(&world, &pod, &missing, &facts(), "", &Files::new()).unwrap_err();
    assert_eq!(why, "couldn't find key none in ConfigMap ns/m");
}

fn yaml_env(text: &str) -> Option<Vec<api::core::v1::EnvVar>> {
    let pod = pod(&format!("containers: [{{name: c, env: [{text}]}}]"));
    pod.spec.unwrap().containers.remove(0).env
}

#[test]
fn resources_are_what_the_kernel_wants() {
    let of = |text: &str| {
        let pod = pod(&format!("containers: [{{name: c, resources: {{{text}}}}}]"));
        let it = resources::of_container(&pod, &pod.spec.as_ref().unwrap().containers[0], &facts());
        let parent = resources::cgroup_parent(&pod, &facts());
        (it.cpu_shares, it.cpu_quota, it.memory_limit_in_bytes, it.oom_score_adj, parent)
    };
    assert_eq!(of(""), (2, 0, 0, 1000, "/kubepods/besteffort/podu".to_owned()));
    let full = "limits: {cpu: 500m, memory: 64Mi}, requests: {cpu: 500m, memory: 64Mi}";
    assert_eq!(of(full), (512, 50_000, 64 << 20, -997, "/kubepods/podu".to_owned()));
    let half = "limits: {cpu: 1m}, requests: {cpu: 1m, memory: 4Gi}";
    assert_eq!(of(half), (2, 1000, 0, 500, "/kubepods/burstable/podu".to_owned()));
}

#[test]
fn who_runs_is_the_containers_word_before_the_pods_before_the_images() {
    let of = |text: &str, image: &Image| {
        let pod = pod(text);
        security::of_container(&pod, &pod.spec.as_ref().unwrap().containers[0], image, &facts())
    };
    let root = Image::default();
    let numbered = Image { uid: Some(7), ..Image::default() };
    let user = |it: &message::LinuxContainerSecurityContext| it.run_as_user.map(|it| it.value);
    let both = "securityContext: {runAsUser: 1, fsGroup: 5, supplementalGroups: [6]}, containers: [{name: c, securityContext: {runAsUser: 2}}]";
    let context = of(both, &numbered).unwrap();
    assert_eq!((user(&context), context.supplemental_groups.as_slice()), (Some(2), &[5, 6][..]));
    assert_eq!(user(&of("containers: [{name: c}]", &numbered).unwrap()), Some(7));
    let non_root = "containers: [{name: c, securityContext: {runAsNonRoot: true}}]";
    assert!(of(non_root, &numbered).is_ok());
    let why = of(non_root, &root).unwrap_err();
    assert_eq!(
        why,
        "container has runAsNonRoot and image will run as root (pod: \"web-0_ns(u)\", container: c)"
    );
    let locked = "containers: [{name: c, securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {add: [NET_ADMIN], drop: [ALL]}}}]";
    let context = of(locked, &root).unwrap();
    assert!(context.no_new_privs && context.readonly_rootfs);
    assert_eq!(context.capabilities.unwrap().drop_capabilities, ["ALL"]);
    assert!(context.masked_paths.contains(&"/proc/kcore".to_owned()));
}

#[test]
fn a_container_is_asked_for_with_everything_it_mounts() {
    let pod = pod(
        "containers: [{name: c, image: i, command: [run, $(NAME)], args: ['$$(NAME)'], terminationMessagePath: /dev/termination-log,
          volumeMounts: [{name: v, mountPath: data, readOnly: true}, {name: v, mountPath: /sub, subPathExpr: 'x/$(NAME)'}]}]",
    );
    let container = &pod.spec.as_ref().unwrap().containers[0];
    let environment = BTreeMap::from([("NAME".to_owned(), "me".to_owned())]);
    let published = volumes::Published { host_path: "/k/v".into(), read_only: false };
    let volumes = BTreeMap::from([("v".to_owned(), published)]);
    let parts = container::sub_paths(&pod, container, &environment, &volumes, &facts()).unwrap();
    assert_eq!(parts.len(), 1);
    let (index, part) = &parts[0];
    assert_eq!((*index, part.path.as_str()), (1, "x/me"));
    assert_eq!(part.target.to_str(), Some("/k/pods/u/volume-subpaths/v/c/1"));
    let bound = BTreeMap::from([(1, part.target.clone())]);
    let prepared = container::Prepared {
        target: None,
        attempt: 2,
        image: &Image::default(),
        image_ref: "sha256:1",
        environment: &environment,
        volumes: &volumes,
        parts: &bound,
        image_volumes: &BTreeMap::new(),
    };
    let config = container::config(&pod, container, &prepared, &facts()).unwrap();
    assert_eq!(
        (config.command, config.args),
        (vec!["run".to_owned(), "me".to_owned()], vec!["$(NAME)".to_owned()])
    );
    assert_eq!(config.log_path, "c/2.log");
    let mounts: Vec<String> = config
        .mounts
        .iter()
        .map(|it| {
            format!(
                "{} at {}{}",
                it.host_path,
                it.container_path,
                if it.readonly { " ro" } else { "" }
            )
        })
        .collect();
    assert_eq!(
        mounts,
        [
            "/k/v at /data ro",
            "/k/pods/u/volume-subpaths/v/c/1 at /sub",
            "/k/pods/u/etc-hosts at /etc/hosts",
            "/k/pods/u/containers/c/2 at /dev/termination-log",
        ]
    );
    let nothing = BTreeMap::new();
    let without = container::Prepared { volumes: &nothing, ..prepared };
    let why = container::config(&pod, container, &without, &facts()).unwrap_err();
    assert_eq!(why, "cannot find volume \"v\" to mount into container \"c\"");
}
