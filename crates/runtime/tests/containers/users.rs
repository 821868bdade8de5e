//! Pods with users of their own: root in them is nobody on the host, and their files are root's on the disk.

use crate::harness::{Harness, fields, import_busybox, script, security, with_runtime};
use rpc::cri;
use std::{fs, os::unix::fs::MetadataExt, path::Path};

/// Far from what a node on this machine may have given away.
const FIRST: u32 = 1 << 30;

async fn sandbox(harness: &Harness) -> String {
    let range = cri::IdMapping { host_id: FIRST, container_id: 0, length: 65536 };
    let users = cri::UserNamespace {
        mode: cri::NamespaceMode::Pod as i32,
        uids: vec![range],
        gids: vec![range],
    };
    harness
        .sandbox(|config| {
            let linux = config.linux.as_mut().unwrap();
            linux.sysctls.insert("kernel.shm_rmid_forced".to_owned(), "1".to_owned());
            let options =
                cri::NamespaceOption { userns_options: Some(users), ..Default::default() };
            linux.security_context = Some(cri::LinuxSandboxSecurityContext {
                namespace_options: Some(options),
                ..Default::default()
            });
        })
        .await
}

fn root(mut config: cri::ContainerConfig) -> cri::ContainerConfig {
    security(&mut config).run_as_user = Some(cri::Int64Value { value: 0 });
    config
}

fn volume(mut config: cri::ContainerConfig, host: &Path) -> cri::ContainerConfig {
    config.mounts.push(cri::Mount {
        container_path: "/data".to_owned(),
        host_path: host.to_string_lossy().into_owned(),
        ..Default::default()
    });
    config
}

#[test]
fn root_of_a_pod_is_nobody_on_the_host_and_its_files_are_roots_on_the_disk() {
    with_runtime(|harness| async move {
        let data = harness.directory.join("data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("before"), "x").unwrap();
        let sandbox = sandbox(&harness).await;
        let work = "id -u; stat -c %u:%g / /bin/busybox /data/before /dev/null /dev/shm; \
                    touch /data/after /new; cat /proc/self/uid_map /proc/sys/kernel/shm_rmid_forced; \
                    hostname; echo ready; exec sleep 1000";
        let id = harness.run(&sandbox, volume(root(script("a", work)), &data)).await;
        while !harness.output(&id).await.contains("ready") {
            // It says so a moment after it started; an exec takes that moment.
            harness.exec(&id, &["true"]).await;
        }
        let (code, text) =
            harness.exec(&id, &["sh", "-c", "id -u; touch /data/exec; stat -c %u /new"]).await;
        assert_eq!((code, text.as_str()), (0, "0\n0\n"));
        let output = harness.output(&id).await;
        let lines: Vec<String> =
            output.lines().map(|it| it.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let zero = "0:0";
        let map = format!("0 {FIRST} 65536");
        let expected = ["0", zero, zero, zero, zero, zero, &map, "1", "web-0", "ready"];
        assert_eq!(lines, expected);

        let pid = harness.pid(&id).await;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let uids: Vec<String> =
            fields(&status)["Uid"].split_whitespace().map(str::to_owned).collect();
        assert_eq!(uids, vec![FIRST.to_string(); 4]);
        for name in ["before", "after", "exec"] {
            assert_eq!(fs::metadata(data.join(name)).unwrap().uid(), 0, "{name}");
        }
        harness.stop(&id, 0).await;
    });
}

#[test]
fn what_root_of_a_pod_may_do_it_may_do_in_the_pod_alone() {
    with_runtime(|harness| async move {
        let sandbox = sandbox(&harness).await;
        let secret = harness.directory.join("secret");
        fs::write(&secret, "x").unwrap();
        let work = "hostname mine && hostname; mkdir /m && mount -t tmpfs x /m && echo mounted; \
                    mknod /dev/sda9 b 8 9 || echo refused; echo x > /proc/sysrq-trigger || echo refused";
        let mut config = root(script("a", work));
        let own = security(&mut config);
        own.seccomp = Some(cri::SecurityProfile { profile_type: 1, ..Default::default() });
        own.capabilities = Some(cri::Capability {
            add_capabilities: vec!["SYS_ADMIN".to_owned(), "MKNOD".to_owned()],
            ..Default::default()
        });
        let (status, output) = harness.run_to_end(&sandbox, config).await;
        let ours = rustix::system::uname().nodename().to_string_lossy().into_owned();
        assert_ne!(ours, "mine");
        let said: Vec<&str> = output.lines().filter(|it| !it.contains(':')).collect();
        assert_eq!(said, ["mine", "mounted", "refused", "refused"], "{output} {status:?}");
    });
}

#[test]
fn an_image_volume_belongs_to_the_pods_root() {
    with_runtime(|harness| async move {
        import_busybox(&harness.directory);
        let sandbox = sandbox(&harness).await;
        let mut config = root(script("a", "stat -c %u:%g /image/bin/busybox"));
        let image = config.image.clone();
        config.mounts.push(cri::Mount {
            container_path: "/image".to_owned(),
            image,
            readonly: true,
            ..Default::default()
        });
        let (_, output) = harness.run_to_end(&sandbox, config).await;
        assert_eq!(output, "0:0\n");
    });
}
