//! The rest of the walk: what is in files, what runs by the clock, what waits and what is thrown away.

use super::{Step, ok, refused, since};

pub(super) const KUSTOMIZATION: &str = "
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
commonLabels: {made: by-kustomize}
configMapGenerator:
- name: built
  literals: [a=b]
generatorOptions: {disableNameSuffixHash: true}
";

pub(super) const BOTH: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: first, labels: {part: walk}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: second, labels: {part: walk}}
";

pub(super) const ONE: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: first, labels: {part: walk}}
";

/// A request for a certificate of `walker`, whose key is nobody's.
pub(super) const REQUEST: &str = "
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {name: walker}
spec:
  signerName: kubernetes.io/kube-apiserver-client
  usages: [client auth]
  request: \
  LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlITE1ITUNBUUF3RVRFUE1BMEdBMVVFQXd3R2QyRnNhMlZ5\
  TUZrd0V3WUhLb1pJemowQ0FRWUlLb1pJemowRApBUWNEUWdBRTV0VW9VUXJPVE84MC92VTBNbDRGNGJuSjQyN3ROdzRCYUov\
  V2Q5TkdQSDlDUklXSDk2dnJReS8wClZOSk0xUk5INm5hSk80bjVJYy9ISHRzWTQwRjBvcUFBTUFvR0NDcUdTTTQ5QkFNQ0Ew\
  Z0FNRVVDSVFEbE1NYngKRk4rL0toWVlJYy8xS0d1YU5mQlU4V25lU1NJZ2llWkltT2JQV3dJZ1hFUkhRV05NS2hTWUdrUGsv\
  aE1jZlBaRApIT2VVbExhcllnZkhVQURISlVjPQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K
";

/// A question that is asked by creating it.
pub(super) const REVIEW: &str = "
apiVersion: authorization.k8s.io/v1
kind: SelfSubjectAccessReview
spec: {resourceAttributes: {verb: get, resource: pods}}
";

pub(super) const WALK: &[Step] = &[
    // Files.
    ok("apply -k KUSTOMIZATION", &["configmap/built created"]),
    ok("get cm built -o jsonpath={.data.a},{.metadata.labels.made}", &["b,by-kustomize"]),
    ok("delete -k KUSTOMIZATION", &["configmap \"built\" deleted"]),
    since(27, "apply -f BOTH --prune -l part=walk", &["first created", "second created"]),
    since(27, "apply -f ONE --prune -l part=walk", &["first unchanged", "configmap/second pruned"]),
    since(27, "delete -f ONE", &["configmap \"first\" deleted"]),
    ok("apply -f MANIFEST", &["statefulset.apps/web created"]),
    since(27, "apply --server-side --force-conflicts -f MANIFEST", &["serverside-applied"]),
    // A status that changes between the two that are compared is a difference.
    ok("rollout status sts/web --timeout=120s", &[]),
    since(
        27,
        "wait --for=jsonpath={.status.availableReplicas}=3 sts/web --timeout=120s",
        &["condition met"],
    ),
    since(27, "diff --server-side -f MANIFEST", &[]),
    ok("rollout status sts/web --timeout=120s", &["roll out complete"]),
    // The clock.
    since(
        21,
        "create cronjob tick --image=stanchion.dev/toolbox:1 --schedule=0_0_1_1_* -- echo tock",
        &["cronjob.batch/tick created"],
    ),
    since(21, "get cj tick", &["SCHEDULE", "0 0 1 1 *", "<none>"]),
    since(21, "create job now --from=cronjob/tick", &["job.batch/now created"]),
    since(
        21,
        "wait --for=condition=complete job/now --timeout=120s",
        &["job.batch/now condition met"],
    ),
    since(21, "logs job/now", &["tock"]),
    since(21, "describe cj tick", &["Concurrency Policy:", "Allow"]),
    since(21, "explain cronjob.spec --recursive", &["concurrencyPolicy", "jobTemplate"]),
    since(
        21,
        "delete cj tick --cascade=foreground --timeout=60s",
        &["cronjob.batch \"tick\" deleted"],
    ),
    since(21, "get job now --ignore-not-found -o name", &[]),
    // Deployments.
    ok(
        "create deployment dep --image=stanchion.dev/toolbox:1 -- sleep infinity",
        &["deployment.apps/dep created"],
    ),
    ok(
        "rollout status deployment/dep --timeout=120s",
        &["deployment \"dep\" successfully rolled out"],
    ),
    ok("rollout pause deployment/dep", &["deployment.apps/dep paused"]),
    ok("set env deployment/dep A=B", &["deployment.apps/dep env updated"]),
    ok("rollout resume deployment/dep", &["deployment.apps/dep resumed"]),
    ok("rollout status deployment/dep --timeout=120s", &["successfully rolled out"]),
    ok("rollout history deployment/dep", &["REVISION", "2"]),
    ok("rollout undo deployment/dep", &["deployment.apps/dep rolled back"]),
    ok("scale deployment/dep --replicas=0", &["deployment.apps/dep scaled"]),
    ok(
        "delete deployment dep --cascade=foreground --timeout=60s",
        &["deployment.apps \"dep\" deleted"],
    ),
    // What else is set.
    ok("create service clusterip c2 --tcp=80", &["service/c2 created"]),
    ok("set selector svc c2 app=web", &["service/c2 selector updated"]),
    ok("create role r --verb=get --resource=pods", &["role.rbac.authorization.k8s.io/r created"]),
    ok(
        "create rolebinding rb --role=r --user=u",
        &["rolebinding.rbac.authorization.k8s.io/rb created"],
    ),
    ok("set subject rolebinding rb --user=v", &["subjects updated"]),
    ok("auth can-i get pods --as=v", &["yes"]),
    // Who.
    since(24, "create token sa1", &["ey"]),
    ok("create -f REQUEST", &["walker created"]),
    ok("create -f REVIEW -o jsonpath={.status.allowed}", &["true"]),
    ok("explain subjectaccessreview.spec", &["resourceAttributes"]),
    ok("get csr walker", &["Pending"]),
    ok(
        "certificate approve walker",
        &["certificatesigningrequest.certificates.k8s.io/walker approved"],
    ),
    ok("get csr walker", &["Approved"]),
    ok("delete csr walker", &["deleted"]),
    // Looking on.
    ok("cluster-info dump", &["\"kind\": \"NodeList\"", "\"kind\": \"PodList\""]),
    since(27, "api-resources --categories=all -o name", &["cronjobs.batch", "jobs.batch"]),
    ok("api-resources --namespaced=true -o wide", &["podtemplates"]),
    since(27, "events --types=Warning,Normal", &["LAST SEEN"]),
    // Nodes.
    ok("cordon NODE", &["cordoned"]),
    ok("get nodes", &["SchedulingDisabled"]),
    ok("uncordon NODE", &["uncordoned"]),
    ok("drain NODE --dry-run=server --ignore-daemonsets --force", &["web-0"]),
    since(25, "debug web-0 -q --image=stanchion.dev/toolbox:1 -c looker -- echo seen", &[]),
    since(25, "get pod web-0 -o jsonpath={.spec.ephemeralContainers[0].name}", &["looker"]),
    since(
        25,
        "debug node/NODE --image=stanchion.dev/toolbox:1 -- true",
        &["Creating debugging pod"],
    ),
    // Throwing away.
    ok(
        "run thrown --image=stanchion.dev/toolbox:1 --restart=Never -- sleep infinity",
        &["pod/thrown created"],
    ),
    ok("delete pod thrown --grace-period=0 --force", &["pod \"thrown\" force deleted"]),
    ok(
        "run leaving --image=stanchion.dev/toolbox:1 --restart=Never -- sleep infinity",
        &["created"],
    ),
    ok("delete pod leaving --now --wait=false", &["deleted"]),
    since(23, "wait --for=delete pod/leaving --timeout=60s", &[]),
    refused("get pod leaving thrown", &["pods \"leaving\" not found"]),
    refused("wait --for=condition=Ready pod/nobody --timeout=1s", &["not found"]),
    ok("delete all --all --timeout=120s", &["statefulset.apps \"web\" deleted"]),
];
