//! Deployments, DaemonSets and Jobs: what drivers, provisioners and set-up jobs come as.

use serde_json::Value;
use tests::{Cluster, Options, images};

const DEPLOYMENT: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: c, image: 'busybox:latest', imagePullPolicy: IfNotPresent, command: [sleep, '1000'], env: [{name: TEXT, value: one}]}
";

const DAEMON: &str = r"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: 'busybox:latest', imagePullPolicy: IfNotPresent, command: [sleep, '1000']}]
";

const JOBS: &str = r"
apiVersion: batch/v1
kind: Job
metadata: {name: counted}
spec:
  completions: 3
  parallelism: 2
  completionMode: Indexed
  template:
    spec:
      restartPolicy: Never
      containers: [{name: c, image: 'busybox:latest', imagePullPolicy: IfNotPresent, command: [sh, -c, 'echo $JOB_COMPLETION_INDEX']}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: broken}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: c, image: 'busybox:latest', imagePullPolicy: IfNotPresent, command: ['false']}]
";

const CRON_JOB: &str = r"
apiVersion: batch/v1
kind: CronJob
metadata: {name: tick}
spec:
  schedule: '@every 1s'
  timeZone: Pacific/Auckland
  concurrencyPolicy: Forbid
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: c, image: 'busybox:latest', imagePullPolicy: IfNotPresent, command: [echo, tock]}]
";

#[test]
fn a_deployment_rolls_to_a_new_template_and_back() {
    let options = Options { images: vec![images().busybox.clone()], ..Options::default() };
    let Some(cluster) = Cluster::start_with("workloads", options) else { return };
    cluster.apply(DEPLOYMENT);
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    let text = |cluster: &Cluster| {
        cluster
            .kubectl(&["exec", "deployment/web", "--", "sh", "-c", "echo $TEXT"])
            .trim()
            .to_owned()
    };
    assert_eq!(text(&cluster), "one");
    cluster.kubectl(&["set", "env", "deployment/web", "TEXT=two"]);
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    let two = cluster.json(&["get", "pods", "-l", "app=web"]);
    for pod in two["items"].as_array().unwrap() {
        let leaves = pod["metadata"]["deletionTimestamp"].is_string();
        let text = &pod["spec"]["containers"][0]["env"][0]["value"];
        assert!(leaves || text == "two", "{pod:#}");
    }
    cluster.kubectl(&["rollout", "undo", "deployment/web"]);
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    let sets = cluster.json(&["get", "replicasets"]);
    assert_eq!(sets["items"].as_array().map(Vec::len), Some(2));
    let history = cluster.kubectl(&["rollout", "history", "deployment/web"]);
    assert!(history.contains('3') && !history.contains('1'), "the first is the third: {history}");

    cluster.apply(DAEMON);
    cluster.kubectl(&["rollout", "status", "daemonset/agent", "--timeout=120s"]);

    cluster.apply(JOBS);
    let has = |job: &Value, condition: &str| {
        let conditions = job["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|it| it["type"] == condition && it["status"] == "True")
    };
    let counted = cluster.wait_for("the Job is complete", &["job", "counted"], |it| {
        has(it, "Complete").then(|| it.clone())
    });
    assert_eq!(counted["status"]["completedIndexes"], "0-2");
    let broken = cluster
        .wait_for("the Job failed", &["job", "broken"], |it| has(it, "Failed").then(|| it.clone()));
    assert_eq!(broken["status"]["failed"], 1);

    cluster.apply(CRON_JOB);
    let tick = cluster.wait_for("a Job of the CronJob is done", &["cronjob", "tick"], |it| {
        it["status"]["lastSuccessfulTime"].is_string().then(|| it.clone())
    });
    assert!(tick["status"]["lastScheduleTime"].is_string(), "{tick:#}");
    let jobs = cluster.json(&["get", "jobs"]);
    let own = jobs["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["metadata"]["ownerReferences"][0]["uid"] == tick["metadata"]["uid"]);
    let own = &own.expect("a Job of the CronJob")["metadata"];
    assert!(own["name"].as_str().unwrap().starts_with("tick-"), "{own:#}");
    let at = own["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"].as_str();
    assert!(at.is_some_and(|it| it.ends_with("+13:00") || it.ends_with("+12:00")), "{own:#}");

    cluster.kubectl(&["delete", "deployment/web", "daemonset/agent", "job/counted", "job/broken"]);
    cluster.kubectl(&["delete", "cronjob/tick"]);
    cluster.wait_gone(&["pods"]);
}
