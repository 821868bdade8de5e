//! A container starts, writes, ends; and nothing of it stays.

use crate::harness::{command, resources, script, security, with_runtime};
use rpc::cri::{self, ContainerState};
use std::{fs, path::Path};

#[test]
fn output_is_in_the_log_and_the_exit_code_in_the_status() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        let (status, output) = harness
            .run_to_end(&sandbox, script("a", "echo hello; echo problem >&2; exit 42"))
            .await;
        assert_eq!((status.exit_code, status.reason.as_str()), (42, "Error"));
        assert!(
            status.created_at <= status.started_at && status.started_at <= status.finished_at,
            "{status:?}"
        );
        assert!(output.contains("hello\n") && output.contains("problem\n"), "{output}");
        let log = fs::read_to_string(&status.log_path).unwrap();
        assert!(log.contains(" stdout F hello\n") && log.contains(" stderr F problem\n"), "{log}");

        let (status, _) = harness.run_to_end(&sandbox, script("b", "true")).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
    });
}

#[test]
fn a_command_that_is_missing_is_a_clear_error() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        for (name, program, text) in [
            ("a", "nope", "exec: \"nope\": executable file not found in $PATH"),
            ("b", "/nope", "exec: \"/nope\": stat /nope: no such file or directory"),
            ("c", "/etc/plain", "exec: \"/etc/plain\": permission denied"),
        ] {
            let id = harness.create(&sandbox, command(name, &[program])).await.unwrap();
            let error = harness.start(&id).await.unwrap_err();
            assert_eq!(error.message(), format!("start the container: {text}"));
            let status = harness.status(&id).await;
            assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
            assert_eq!(status.message, text);
        }
        // What fails before the shim is asked ends the same way.
        let mut config = command("d", &["true"]);
        security(&mut config).seccomp = Some(cri::SecurityProfile {
            profile_type: cri::security_profile::ProfileType::Localhost as i32,
            localhost_ref: "/nowhere.json".into(),
        });
        let id = harness.create(&sandbox, config).await.unwrap();
        harness.start(&id).await.unwrap_err();
        let status = harness.status(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
        assert!(
            status.message.starts_with("read the seccomp profile /nowhere.json: No such file"),
            "{status:?}"
        );
    });
}

#[test]
fn a_container_is_asked_to_end_and_killed_when_it_does_not() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        let polite = script(
            "polite",
            "trap 'echo bye; exit 3' TERM; echo ready; while true; do sleep 0.02; done",
        );
        let id = harness.run(&sandbox, polite).await;
        // The trap is set once it answers.
        while !harness.output(&id).await.contains("ready") {
            harness.exec(&id, &["true"]).await;
        }
        harness.stop(&id, 30).await;
        let status = harness.status(&id).await;
        assert_eq!(status.exit_code, 3);
        assert!(harness.output(&id).await.contains("bye"));

        // The first process of a pid namespace ignores signals that it has no handler for.
        let id = harness.run(&sandbox, command("deaf", &["/bin/sleep", "1000"])).await;
        harness.stop(&id, 0).await;
        assert_eq!(harness.status(&id).await.exit_code, 137);
        harness.stop(&id, 0).await;
    });
}

#[test]
fn too_much_memory_is_named_as_the_reason() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        let mut config =
            command("hungry", &["/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]);
        resources(&mut config).memory_limit_in_bytes = 32 << 20;
        let (status, _) = harness.run_to_end(&sandbox, config).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    });
}

#[test]
fn limits_are_in_the_control_group_and_can_change() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        let mut config = command("limited", &["/bin/sleep", "1000"]);
        *resources(&mut config) = cri::LinuxContainerResources {
            cpu_shares: 102,
            cpu_quota: 50_000,
            cpu_period: 100_000,
            memory_limit_in_bytes: 64 << 20,
            ..Default::default()
        };
        let id = harness.run(&sandbox, config).await;
        let memory = || {
            let path = format!("stanchion-{}/kubepods/pod1234/{id}", harness.instance);
            let v1 = Path::new("/sys/fs/cgroup/memory").join(&path).join("memory.limit_in_bytes");
            let v2 = Path::new("/sys/fs/cgroup").join(&path).join("memory.max");
            fs::read_to_string(v1).or_else(|_| fs::read_to_string(v2)).unwrap().trim().to_owned()
        };
        assert_eq!(memory(), "67108864");
        let linux =
            cri::LinuxContainerResources { memory_limit_in_bytes: 128 << 20, ..Default::default() };
        let request = cri::UpdateContainerResourcesRequest {
            container_id: id.clone(),
            linux: Some(linux),
            ..Default::default()
        };
        harness.client.clone().update_container_resources(request).await.unwrap();
        assert_eq!(memory(), "134217728");
        let told = harness.status(&id).await.resources.unwrap().linux.unwrap();
        assert_eq!((told.memory_limit_in_bytes, told.cpu_quota), (128 << 20, 50_000));
    });
}

#[test]
fn containers_of_a_pod_share_network_and_memory_files() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        let mut writer =
            script("writer", "echo shared > /dev/shm/file; readlink /proc/self/ns/net; hostname");
        security(&mut writer).run_as_user = Some(cri::Int64Value { value: 0 });
        let (_, first) = harness.run_to_end(&sandbox, writer).await;
        let reader = script(
            "reader",
            "cat /dev/shm/file; readlink /proc/self/ns/net; hostname; cat /etc/hostname",
        );
        let (_, second) = harness.run_to_end(&sandbox, reader).await;
        let namespace = first.lines().next().unwrap();
        assert_eq!(second, format!("shared\n{namespace}\nweb-0\nweb-0\n"));
        assert_ne!(fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap(), namespace);
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: sandbox, verbose: false };
        let status = harness.client.clone().pod_sandbox_status(request).await.unwrap().into_inner();
        assert_eq!(status.status.unwrap().network.unwrap().ip, "10.244.0.7");
        assert_eq!(status.containers_statuses.len(), 2);
    });
}

#[test]
fn a_shared_pid_namespace_shows_the_neighbours_processes() {
    with_runtime(|harness| async move {
        let pid = cri::NamespaceMode::Pod as i32;
        let sandbox = harness
            .sandbox(|config| {
                let options = cri::NamespaceOption { pid, ..Default::default() };
                config.linux.as_mut().unwrap().security_context =
                    Some(cri::LinuxSandboxSecurityContext {
                        namespace_options: Some(options),
                        ..Default::default()
                    });
            })
            .await;
        let mut sleeper = command("sleeper", &["/bin/sleep", "4711"]);
        security(&mut sleeper).namespace_options.as_mut().unwrap().pid = pid;
        let sleeper = harness.run(&sandbox, sleeper).await;
        let mut lister = script("lister", "ps -o args; sleep 1000 & echo done");
        security(&mut lister).namespace_options.as_mut().unwrap().pid = pid;
        let (_, output) = harness.run_to_end(&sandbox, lister).await;
        assert!(output.contains("/bin/sleep 4711"), "{output}");
        assert_eq!(harness.status(&sleeper).await.state(), ContainerState::ContainerRunning);
        let (_, left) = harness.exec(&sleeper, &["ps", "-o", "args"]).await;
        assert!(!left.contains("sleep 1000"), "what the first process left behind is gone: {left}");
    });
}

#[test]
fn events_tell_what_happens() {
    with_runtime(|harness| async move {
        use cri::ContainerEventType::{
            ContainerCreatedEvent, ContainerDeletedEvent, ContainerStartedEvent,
            ContainerStoppedEvent,
        };
        let sandbox = harness.sandbox(|_| {}).await;
        let mut events = harness.events().await;
        let id = harness.run(&sandbox, script("a", "exit 5")).await;
        let mut seen = Vec::new();
        let mut last = 0;
        while seen.last() != Some(&ContainerStoppedEvent) {
            let event = events.message().await.unwrap().unwrap();
            assert_eq!(event.container_id, id);
            assert_eq!(event.pod_sandbox_status.as_ref().unwrap().id, sandbox);
            last = event.containers_statuses[0].exit_code;
            seen.push(event.container_event_type());
        }
        assert_eq!(seen, [ContainerCreatedEvent, ContainerStartedEvent, ContainerStoppedEvent]);
        assert_eq!(last, 5);
        harness.remove(&id).await;
        assert_eq!(
            events.message().await.unwrap().unwrap().container_event_type(),
            ContainerDeletedEvent
        );
    });
}

#[test]
fn nothing_stays_when_everything_is_stopped() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        let id = harness.run(&sandbox, command("a", &["/bin/sleep", "1000"])).await;
        let pid = harness.pid(&id).await;
        harness.runtime.stop_all().await.unwrap();
        assert!(!Path::new(&format!("/proc/{pid}/root/bin")).exists(), "the process is gone");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(harness.directory.to_str().unwrap()), "{mounts}");
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
            let ours = hierarchy.unwrap().path().join(format!("stanchion-{}", harness.instance));
            assert!(!ours.exists(), "{}", ours.display());
        }
        assert_eq!(fs::read_dir(harness.directory.join("sandboxes")).unwrap().count(), 0);
    });
}

#[test]
fn a_log_that_was_renamed_is_followed_by_a_new_one() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        let text = "echo before; while ! test -e /dev/shm/go; do sleep 0.01; done; echo after";
        let mut events = harness.events().await;
        let id = harness.run(&sandbox, script("a", text)).await;
        while !harness.output(&id).await.contains("before") {
            harness.exec(&id, &["true"]).await;
        }
        let log = harness.status(&id).await.log_path;
        fs::rename(&log, format!("{log}.1")).unwrap();
        let request = cri::ReopenContainerLogRequest { container_id: id.clone() };
        harness.client.clone().reopen_container_log(request).await.unwrap();
        harness.exec(&id, &["touch", "/dev/shm/go"]).await;
        harness.ended(&mut events, &id).await;
        assert_eq!(harness.output(&id).await, "after\n");
        assert!(fs::read_to_string(format!("{log}.1")).unwrap().ends_with("before\n"));
    });
}

#[test]
fn a_pod_can_use_the_hosts_network() {
    with_runtime(|harness| async move {
        let node = cri::NamespaceMode::Node as i32;
        let sandbox = harness
            .sandbox(|config| {
                let options = cri::NamespaceOption { network: node, ..Default::default() };
                config.hostname.clear();
                config.linux.as_mut().unwrap().security_context =
                    Some(cri::LinuxSandboxSecurityContext {
                        namespace_options: Some(options),
                        ..Default::default()
                    });
            })
            .await;
        let (_, output) =
            harness.run_to_end(&sandbox, script("a", "readlink /proc/self/ns/net; hostname")).await;
        let namespace = fs::read_link("/proc/self/ns/net").unwrap();
        let name = rustix::system::uname();
        let expected = format!("{}\n{}\n", namespace.display(), name.nodename().to_str().unwrap());
        assert_eq!(output, expected);
    });
}

#[test]
fn use_of_the_machine_is_told() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        let id = harness.run(&sandbox, command("a", &["/bin/sleep", "1000"])).await;
        let request = cri::ListPodSandboxStatsRequest { filter: None };
        let stats = harness
            .client
            .clone()
            .list_pod_sandbox_stats(request)
            .await
            .unwrap()
            .into_inner()
            .stats;
        let linux = stats[0].linux.as_ref().unwrap();
        assert_eq!(linux.containers[0].attributes.as_ref().unwrap().id, id);
        let memory = linux.containers[0].memory.as_ref().unwrap();
        assert!(memory.usage_bytes.as_ref().unwrap().value > 0, "{memory:?}");
        assert!(
            linux.containers[0]
                .cpu
                .as_ref()
                .unwrap()
                .usage_core_nano_seconds
                .as_ref()
                .unwrap()
                .value
                > 0
        );
    });
}
