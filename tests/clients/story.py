"""What a program that uses PyPI's `kubernetes` does: create, watch, patch, exec and log.

Speaks to the cluster of KUBECONFIG; ends with an exception where something is not as it should be.
"""

import sys

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import stream

NAMESPACE = "python"
PATIENCE = 120

config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()


def same(found, expected, what):
    if found != expected:
        sys.exit(f"{what}: found {found!r}, expected {expected!r}")


core.create_namespace({"metadata": {"name": NAMESPACE}})

# Objects: create, get, list by label, patch in three ways, conflict, delete; and a watch that tells all of it.
labels = {"app": "python"}
created = core.create_namespaced_config_map(
    NAMESPACE, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="a", labels=labels), data={"k": "1"})
)
since = created.metadata.resource_version
listed = core.list_namespaced_config_map(NAMESPACE, label_selector="app=python")
same([it.metadata.name for it in listed.items], ["a"], "list by label")
core.patch_namespaced_config_map("a", NAMESPACE, {"data": {"l": "2"}})
core.patch_namespaced_config_map("a", NAMESPACE, [{"op": "remove", "path": "/data/k"}])
read = core.read_namespaced_config_map("a", NAMESPACE)
same(read.data, {"l": "2"}, "after two patches")
try:
    created.data = {"late": "1"}
    core.replace_namespaced_config_map("a", NAMESPACE, created)
    sys.exit("an old version was written over a newer one")
except ApiException as error:
    same(error.status, 409, "a late replace")
core.delete_namespaced_config_map("a", NAMESPACE)
told = []
stories = watch.Watch()
for event in stories.stream(
    core.list_namespaced_config_map, NAMESPACE, resource_version=since, label_selector="app=python", timeout_seconds=PATIENCE
):
    told.append(event["type"])
    if event["type"] == "DELETED":
        stories.stop()
same(told, ["MODIFIED", "MODIFIED", "DELETED"], "the watch")
try:
    core.read_namespaced_config_map("a", NAMESPACE)
    sys.exit("a deleted object is read")
except ApiException as error:
    same(error.status, 404, "a deleted object")

# A pod: seen to run, what it says, and what a program in it says.
core.create_namespaced_pod(
    NAMESPACE,
    {
        "metadata": {"name": "p", "labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "main",
                    "image": "busybox",
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sh", "-c", "echo one; echo two; exec sleep infinity"],
                }
            ],
        },
    },
)
stories = watch.Watch()
for event in stories.stream(
    core.list_namespaced_pod, NAMESPACE, field_selector="metadata.name=p", timeout_seconds=PATIENCE
):
    statuses = event["object"].status.container_statuses or []
    if statuses and statuses[0].ready:
        stories.stop()
same(core.read_namespaced_pod("p", NAMESPACE).status.phase, "Running", "the pod")
same(core.read_namespaced_pod_log("p", NAMESPACE), "one\ntwo\n", "its log")
same(core.read_namespaced_pod_log("p", NAMESPACE, tail_lines=1), "two\n", "the end of its log")
said = stream(
    core.connect_get_namespaced_pod_exec,
    "p",
    NAMESPACE,
    command=["sh", "-c", "echo out; echo err >&2"],
    stdout=True,
    stderr=True,
    stdin=False,
    tty=False,
    _preload_content=False,
)
said.run_forever(timeout=PATIENCE)
same((said.read_stdout(), said.read_stderr(), said.returncode), ("out\n", "err\n", 0), "exec")
asked = stream(
    core.connect_get_namespaced_pod_exec,
    "p",
    NAMESPACE,
    command=["sh", "-c", "read line; echo got $line; exit 7"],
    stdout=True,
    stderr=True,
    stdin=True,
    tty=False,
    _preload_content=False,
)
asked.write_stdin("this\n")
asked.run_forever(timeout=PATIENCE)
same((asked.read_stdout(), asked.returncode), ("got this\n", 7), "exec with input")

# A StatefulSet: made, scaled through its subresource, gone with everything.
apps.create_namespaced_stateful_set(
    NAMESPACE,
    {
        "metadata": {"name": "s"},
        "spec": {
            "replicas": 1,
            "serviceName": "s",
            "selector": {"matchLabels": {"set": "s"}},
            "template": {
                "metadata": {"labels": {"set": "s"}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [
                        {"name": "main", "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sleep", "infinity"]}
                    ],
                },
            },
        },
    },
)
apps.patch_namespaced_stateful_set_scale("s", NAMESPACE, {"spec": {"replicas": 2}})
stories = watch.Watch()
for event in stories.stream(
    apps.list_namespaced_stateful_set, NAMESPACE, field_selector="metadata.name=s", timeout_seconds=PATIENCE
):
    if event["object"].status.ready_replicas == 2:
        stories.stop()
same(apps.read_namespaced_stateful_set("s", NAMESPACE).status.ready_replicas, 2, "scaled")
core.delete_namespace(NAMESPACE)
stories = watch.Watch()
for event in stories.stream(core.list_namespace, field_selector=f"metadata.name={NAMESPACE}", timeout_seconds=PATIENCE):
    if event["type"] == "DELETED":
        stories.stop()
print("all as it should be")
