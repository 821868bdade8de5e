//! Whether a node takes a pod that names it: reasons and messages, as upstream has them.

use crate::fakes::yaml;
use api::core::v1::{Node, Pod};
use kubelet::plan::admit::{Abilities, admit, dotted};

fn node() -> Node {
    yaml(
        "{metadata: {name: n1, labels: {disk: ssd}}, spec: {taints: [{key: away, effect: NoExecute}, {key: soft, effect: NoSchedule}]}, status: {allocatable: {cpu: '2', memory: 1Gi, pods: '2'}}}",
    )
}

fn pod(uid: &str, spec: &str) -> Pod {
    let tolerations = "tolerations: [{key: away, operator: Exists}]";
    yaml(&format!(
        "{{metadata: {{name: {uid}, namespace: d, uid: {uid}}}, spec: {{nodeName: n1, {tolerations}, {spec}}}}}"
    ))
}

/// Reason and message, or nothing if it is taken beside `others`.
fn judge(pod: &Pod, others: &[Pod]) -> Option<(String, String)> {
    let judged = admit(pod, &node(), others.iter(), Abilities { app_armor: false });
    judged.err().map(|it| (it.reason.to_owned(), it.message))
}

#[test]
fn says_what_it_lacks_as_upstream_does() {
    let asks = |resources: &str| {
        format!("containers: [{{name: c, resources: {{requests: {resources}}}}}]")
    };
    let small = pod("small", &asks("{cpu: 1500m}"));
    let one = std::slice::from_ref(&small);
    for (spec, others, reason, why) in [
        (
            asks("{cpu: 600m}"),
            one,
            "OutOfcpu",
            "Node didn't have enough resource: cpu, requested: 600, used: 1500, capacity: 2000",
        ),
        (
            asks("{memory: 2Gi}"),
            &[],
            "OutOfmemory",
            "Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: 1073741824",
        ),
        (
            "nodeSelector: {disk: hdd}, containers: [{name: c}]".to_owned(),
            &[],
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        ),
        (
            "securityContext: {sysctls: [{name: kernel/msgmax, value: '1'}]}, containers: [{name: c}]"
                .to_owned(),
            &[],
            "SysctlForbidden",
            "forbidden sysctl: \"kernel.msgmax\" not allowlisted",
        ),
        (
            "hostNetwork: true, securityContext: {sysctls: [{name: net.ipv4.tcp_syncookies, value: '1'}]}, containers: [{name: c}]"
                .to_owned(),
            &[],
            "SysctlForbidden",
            "forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host Net enabled",
        ),
        (
            "containers: [{name: c, securityContext: {appArmorProfile: {type: RuntimeDefault}}}]"
                .to_owned(),
            &[],
            "AppArmor",
            "Cannot enforce AppArmor: AppArmor is not enabled on the host",
        ),
    ] {
        let expected = (reason.to_owned(), format!("Pod was rejected: {why}"));
        assert_eq!(judge(&pod("p", &spec), others), Some(expected), "{spec}");
    }
    assert_eq!(judge(&pod("p", &asks("{cpu: 500m}")), one), None);
    let two = [pod("a", &asks("{}")), pod("b", &asks("{}"))];
    assert_eq!(judge(&pod("p", &asks("{}")), &two).unwrap().0, "OutOfpods");
}

#[test]
fn a_host_port_has_one_owner() {
    let on = |uid: &str, port: &str| {
        pod(uid, &format!("containers: [{{name: c, ports: [{{containerPort: 1, {port}}}]}}]"))
    };
    let taken = [on("a", "hostPort: 80")];
    assert_eq!(judge(&on("b", "hostPort: 80"), &taken).unwrap().0, "NodePorts");
    assert_eq!(judge(&on("b", "hostPort: 80, hostIP: 127.0.0.1"), &taken).unwrap().0, "NodePorts");
    assert_eq!(judge(&on("b", "hostPort: 80, protocol: UDP"), &taken), None);
}

#[test]
fn only_taints_that_evict_keep_a_pod_out() {
    let stranger: Pod =
        yaml("{metadata: {name: p, uid: p}, spec: {nodeName: n1, containers: [{name: c}]}}");
    let (reason, message) = judge(&stranger, &[]).unwrap();
    assert_eq!(reason, "TaintToleration");
    assert!(message.ends_with("node(s) had taints that the pod didn't tolerate"), "{message}");
    assert_eq!(judge(&pod("p", "containers: [{name: c}]"), &[]), None);
}

#[test]
fn a_sysctl_may_be_written_either_way() {
    assert_eq!(dotted("net/ipv4/conf/eth0.1/x"), "net.ipv4.conf.eth0/1.x");
    assert_eq!(dotted("net.ipv4.conf.eth0/1.x"), "net.ipv4.conf.eth0/1.x");
}
