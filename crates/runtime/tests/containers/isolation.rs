//! What a container cannot see, change or do.

use crate::harness::{command, fields, script, security, with_runtime};
use rpc::cri;
use std::fs;

fn as_root(config: &mut cri::ContainerConfig) {
    security(config).run_as_user = Some(cri::Int64Value { value: 0 });
}

#[test]
fn the_process_has_only_the_usual_capabilities_and_a_filter() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        let mut root = command("root", &["cat", "/proc/self/status"]);
        as_root(&mut root);
        let (_, output) = harness.run_to_end(&sandbox, root.clone()).await;
        let status = fields(&output);
        assert_eq!((status["CapEff"], status["CapBnd"]), ("00000000a80425fb", "00000000a80425fb"));
        assert_eq!((status["Seccomp"], status["NoNewPrivs"]), ("2", "0"));

        root.metadata.as_mut().unwrap().name = "changed".into();
        root.log_path = "changed".into();
        security(&mut root).no_new_privs = true;
        security(&mut root).seccomp = None;
        security(&mut root).capabilities = Some(cri::Capability {
            add_capabilities: vec!["NET_ADMIN".into()],
            drop_capabilities: vec!["ALL".into()],
            ..Default::default()
        });
        let (_, output) = harness.run_to_end(&sandbox, root).await;
        let status = fields(&output);
        assert_eq!(status["CapEff"], "0000000000001000");
        assert_eq!((status["Seccomp"], status["NoNewPrivs"]), ("0", "1"));

        let user = command("user", &["cat", "/proc/self/status"]);
        let (_, output) = harness.run_to_end(&sandbox, user).await;
        let status = fields(&output);
        assert_eq!((status["CapEff"], status["CapPrm"]), ("0000000000000000", "0000000000000000"));
        assert_eq!(status["SigIgn"], "0000000000000000");
        assert_eq!(status["SigBlk"], "0000000000000000");
    });
}

#[test]
fn the_filter_refuses_a_new_user_namespace() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        let (status, output) =
            harness.run_to_end(&sandbox, command("a", &["unshare", "-U", "true"])).await;
        assert_ne!(status.exit_code, 0);
        assert!(output.contains("Operation not permitted"), "{output}");
        let mut free = command("b", &["unshare", "-U", "true"]);
        security(&mut free).seccomp =
            Some(cri::SecurityProfile { profile_type: 1, ..Default::default() });
        let (status, output) = harness.run_to_end(&sandbox, free).await;
        assert_eq!(status.exit_code, 0, "{output}");
    });
}

#[test]
fn a_profile_of_ones_own_is_obeyed() {
    with_runtime(|harness| async move {
        let profile = harness.directory.join("profile.json");
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28}]}"#;
        fs::write(&profile, text).unwrap();
        let sandbox = harness.sandbox(|_| {}).await;
        let mut config = command("a", &["mkdir", "/tmp-directory"]);
        as_root(&mut config);
        security(&mut config).seccomp = Some(cri::SecurityProfile {
            profile_type: cri::security_profile::ProfileType::Localhost as i32,
            localhost_ref: profile.to_string_lossy().into_owned(),
        });
        let (_, output) = harness.run_to_end(&sandbox, config).await;
        assert!(output.contains("No space left on device"), "{output}");
    });
}

#[test]
fn its_own_limits_are_shown_and_cannot_be_changed() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        let text = "for file in /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; do \
                    test -e $file && cat $file && echo 1073741824 > $file; done; mkdir /sys/fs/cgroup/memory/x";
        let mut config = script("a", text);
        as_root(&mut config);
        crate::harness::resources(&mut config).memory_limit_in_bytes = 64 << 20;
        let (_, output) = harness.run_to_end(&sandbox, config).await;
        assert!(
            output.contains("67108864\n") && output.contains("Read-only file system"),
            "{output}"
        );
    });
}

#[test]
fn the_host_is_protected() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        let text = "echo 1 > /proc/sys/kernel/panic; cat /proc/keys | wc -c; ls /sys/firmware | wc -l; \
                    mknod /disk b 8 0 && head -c 1 /disk; mount -t tmpfs none /etc; ls /proc | grep -c '^[0-9]'; \
                    ls -a / | grep -c old; mount | grep -c ' / '";
        let mut config = script("a", text);
        as_root(&mut config);
        protect(&mut config);
        let (_, output) = harness.run_to_end(&sandbox, config).await;
        let lines: Vec<&str> = output.lines().collect();
        assert!(
            output.contains("can't create /proc/sys/kernel/panic: Read-only file system"),
            "{output}"
        );
        assert!(output.contains("head: /disk: Operation not permitted"), "{output}");
        assert!(output.contains("mount: permission denied"), "{output}");
        assert_eq!(
            lines.iter().filter(|line| **line == "0").count(),
            3,
            "keys, firmware and old roots: {output}"
        );
        assert_eq!(lines.last(), Some(&"1"), "one root: {output}");
    });
}

/// What a node asks to hide.
fn protect(config: &mut cri::ContainerConfig) {
    let own = |paths: &[&str]| paths.iter().map(|it| (*it).to_owned()).collect();
    security(config).masked_paths =
        own(&["/proc/keys", "/proc/scsi", "/sys/firmware", "/proc/no-such"]);
    security(config).readonly_paths = own(&["/proc/sys", "/proc/sysrq-trigger"]);
}

#[test]
fn what_is_hidden_stays_so_under_a_volume_on_dev_and_is_open_where_nothing_is_asked() {
    with_runtime(|harness| async move {
        let volume = harness.directory.join("volume");
        fs::create_dir(&volume).unwrap();
        let sandbox = harness.sandbox(|_| {}).await;
        let text = "cat /proc/keys | wc -c; ls /dev | wc -l";
        let mut config = script("a", text);
        as_root(&mut config);
        let mut open = config.clone();
        open.metadata.as_mut().unwrap().name = "b".to_owned();
        protect(&mut config);
        config.mounts = vec![cri::Mount {
            container_path: "/dev".into(),
            host_path: volume.to_string_lossy().into_owned(),
            ..Default::default()
        }];
        let (_, output) = harness.run_to_end(&sandbox, config).await;
        assert_eq!(output, "0\n0\n");
        let (_, output) = harness.run_to_end(&sandbox, open).await;
        // Both write to one log.
        let seen: usize = output.lines().nth(2).unwrap().parse().unwrap();
        assert!(seen > 0, "{output}");
    });
}

#[test]
fn a_readonly_root_is_read_only_but_its_volumes_are_not() {
    with_runtime(|harness| async move {
        let volume = harness.directory.join("volume");
        fs::create_dir(&volume).unwrap();
        let sandbox = harness.sandbox(|_| {}).await;
        let mount = |path: &str, readonly| cri::Mount {
            container_path: path.into(),
            host_path: volume.to_string_lossy().into_owned(),
            readonly,
            ..Default::default()
        };
        let mut config = script("a", "touch /x; touch /made/for/it/y; touch /readonly/z; echo end");
        as_root(&mut config);
        security(&mut config).readonly_rootfs = true;
        config.mounts = vec![mount("/made/for/it", false), mount("/readonly", true)];
        let (_, output) = harness.run_to_end(&sandbox, config).await;
        assert!(output.contains("touch: /x: Read-only file system"), "{output}");
        assert!(output.contains("touch: /readonly/z: Read-only file system"), "{output}");
        let written: Vec<_> =
            fs::read_dir(&volume).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(written, ["y"]);
    });
}

#[test]
fn a_device_that_was_asked_for_can_be_opened() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        let mut config = script("a", "head -c 0 /dev/mine && echo opened");
        as_root(&mut config);
        config.devices = vec![cri::Device {
            container_path: "/dev/mine".into(),
            host_path: "/dev/loop-control".into(),
            permissions: "rwm".into(),
        }];
        let (_, output) = harness.run_to_end(&sandbox, config).await;
        assert_eq!(output, "opened\n");
    });
}

#[test]
fn a_device_that_may_only_be_read_is_not_written() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        let text = "head -c 0 /dev/mine && echo read; : > /dev/mine && echo written; true";
        let mut config = script("a", text);
        as_root(&mut config);
        config.devices = vec![cri::Device {
            container_path: "/dev/mine".into(),
            host_path: "/dev/loop-control".into(),
            permissions: "r".into(),
        }];
        let (_, output) = harness.run_to_end(&sandbox, config).await;
        assert!(output.lines().any(|it| it == "read") && !output.contains("written"), "{output}");
        assert!(output.contains("Operation not permitted"), "{output}");
    });
}

/// A directory of the host with a file system of its own on it, let go at the end.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn on(path: std::path::PathBuf) -> Mounted {
        fs::create_dir_all(&path).unwrap();
        rustix::mount::mount("tmpfs", &path, "tmpfs", rustix::mount::MountFlags::empty(), None)
            .unwrap();
        Mounted(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn mounts_travel_only_where_the_pod_asks_for_it() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        let volume = harness.directory.join("volume");
        let outer = Mounted::on(volume.clone());
        let mount = |path: &str, propagation: cri::MountPropagation| cri::Mount {
            container_path: path.into(),
            host_path: volume.to_string_lossy().into_owned(),
            propagation: propagation as i32,
            ..Default::default()
        };
        let mut config = command("a", &["/bin/sleep", "1000"]);
        as_root(&mut config);
        security(&mut config).privileged = true;
        config.mounts = vec![
            mount("/private", cri::MountPropagation::PropagationPrivate),
            mount("/slave", cri::MountPropagation::PropagationHostToContainer),
            mount("/both", cri::MountPropagation::PropagationBidirectional),
        ];
        let id = harness.run(&sandbox, config).await;

        let late = Mounted::on(volume.join("late"));
        fs::write(volume.join("late/file"), "").unwrap();
        let (_, seen) = harness.exec(&id, &["/bin/sh", "-c", "ls -d /*/late/file"]).await;
        assert_eq!(seen, "/both/late/file\n/slave/late/file\n");

        let script =
            "mkdir /both/inner && mount -t tmpfs none /both/inner && touch /both/inner/file";
        let (code, output) = harness.exec(&id, &["/bin/sh", "-c", script]).await;
        assert_eq!(code, 0, "{output}");
        assert!(volume.join("inner/file").exists(), "the host sees it");
        let inner = Mounted(volume.join("inner"));
        drop((inner, late, outer));
        harness.stop(&id, 0).await;
    });
}

#[test]
fn a_privileged_container_has_the_hosts_devices() {
    with_runtime(|harness| async move {
        let sandbox = harness.sandbox(|_| {}).await;
        let mut config =
            script("a", "head -c 0 /dev/loop-control && head -c 0 /dev/kmsg && echo both");
        as_root(&mut config);
        security(&mut config).privileged = true;
        let (_, output) = harness.run_to_end(&sandbox, config).await;
        assert_eq!(output, "both\n");
    });
}

#[test]
fn what_the_runtime_cannot_do_is_refused() {
    with_runtime(|harness| async move {
        let own = cri::UserNamespace { mode: cri::NamespaceMode::Pod as i32, ..Default::default() };
        let options = cri::NamespaceOption { userns_options: Some(own), ..Default::default() };
        let security_context = Some(cri::LinuxSandboxSecurityContext {
            namespace_options: Some(options),
            ..Default::default()
        });
        let linux = Some(cri::LinuxPodSandboxConfig { security_context, ..Default::default() });
        let config = Some(cri::PodSandboxConfig { linux, ..Default::default() });
        let request = cri::RunPodSandboxRequest { config, runtime_handler: String::new() };
        let error = harness.client.clone().run_pod_sandbox(request).await.unwrap_err();
        assert!(error.message().contains("one range from id 0 is wanted"), "{error}");
        let sandbox = harness.sandbox(|_| {}).await;
        let mut config = command("a", &["true"]);
        config.image.as_mut().unwrap().image = "nothing:here".into();
        let error = harness.create(&sandbox, config).await.unwrap_err();
        assert!(error.message().contains("nothing:here is not in the local store"), "{error}");
    });
}
