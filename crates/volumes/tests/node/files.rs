//! emptyDir, hostPath and the volumes made of files.

use crate::{MIB, Node};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};
use volumes::{Files, ProjectedFile, PublishVolume, Volume, VolumeError, mount};

fn request(node: &Node, name: &str) -> PublishVolume {
    let volume = Volume { handle: name.to_string(), ..Volume::default() };
    let mut request = node.publish_request(&volume, "pod");
    request.staging = None;
    request
}

fn files(text: &str) -> Option<Files> {
    let file = ProjectedFile { data: text.into(), mode: 0o644, owner: None };
    Some([("conf/key".to_string(), file)].into())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn an_empty_dir_lives_as_long_as_its_pod() {
    let Some(node) = Node::new() else { return };
    let plugin = node.plugin("kubernetes.io/empty-dir");
    let mut request = request(&node, "scratch");
    request.pod.fs_group = Some(3000);
    let path = plugin.publish(&request).await.unwrap().host_path;
    assert_eq!(mode(&path), 0o2777);
    fs::write(path.join("file"), "survives a container").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    plugin.publish(&request).await.unwrap();
    assert!(path.join("file").exists());
    assert_eq!(mode(&path), 0o700, "what a container changed stays");

    // What is mounted below is somebody else's and is not deleted through.
    let other = node.at("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("precious"), "").unwrap();
    fs::create_dir(path.join("mnt")).unwrap();
    rustix::mount::mount_bind(&other, path.join("mnt")).unwrap();
    let error = plugin.unpublish("scratch", &path).await.unwrap_err();
    assert!(matches!(&error, VolumeError::Busy { .. }), "{error}");
    assert!(other.join("precious").exists() && path.join("file").exists());
    rustix::mount::unmount(path.join("mnt"), rustix::mount::UnmountFlags::empty()).unwrap();
    plugin.unpublish("scratch", &path).await.unwrap();
    plugin.unpublish("scratch", &path).await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn memory_is_limited_by_the_smaller_of_two_limits() {
    let Some(node) = Node::new() else { return };
    let plugin = node.plugin("kubernetes.io/empty-dir");
    let mut request = request(&node, "cache");
    request.medium = Some("Memory".to_string());
    request.size_limit = Some(4 * MIB);
    request.memory_limit = Some(2 * MIB);
    let path = plugin.publish(&request).await.unwrap().host_path;
    plugin.publish(&request).await.unwrap();
    assert_eq!(plugin.stats("cache", &path).await.unwrap().bytes_total, 2 * MIB);
    let error = fs::write(path.join("big"), vec![0; 3 << 20]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    plugin.unpublish("cache", &path).await.unwrap();
    assert!(!path.exists() && mount::mounts_below(&node.directory).unwrap().is_empty());

    request.medium = Some("HugePages-2Mi".to_string());
    let error = plugin.publish(&request).await.unwrap_err().to_string();
    assert!(error.contains("HugePages-2Mi is not supported"), "{error}");
}

#[tokio::test]
async fn secrets_stay_in_memory_and_updates_are_seen() {
    let Some(node) = Node::new() else { return };
    for (name, memory) in [
        ("kubernetes.io/configmap", false),
        ("kubernetes.io/downward-api", true),
        ("kubernetes.io/projected", true),
        ("kubernetes.io/secret", true),
    ] {
        let plugin = node.plugin(name);
        let mut request = request(&node, name.rsplit('/').next().unwrap());
        request.pod.fs_group = Some(3000);
        request.files = files("one");
        let published = plugin.publish(&request).await.unwrap();
        assert!(published.read_only, "containers may not change it");
        let path = published.host_path;
        let mounted = mount::mounted_at(&path).unwrap();
        assert_eq!(mounted.is_some_and(|entry| entry.fs_type == "tmpfs"), memory, "{name}");
        assert_eq!(fs::read_to_string(path.join("conf/key")).unwrap(), "one");
        let found = fs::metadata(path.join("conf/key")).unwrap();
        assert_eq!(
            (std::os::unix::fs::MetadataExt::gid(&found), mode(&path.join("conf/key"))),
            (3000, 0o644)
        );
        request.files = files("two");
        plugin.publish(&request).await.unwrap();
        assert_eq!(fs::read_to_string(path.join("conf/key")).unwrap(), "two");
        plugin.unpublish(&request.volume.handle, &path).await.unwrap();
        assert!(!path.exists());
        request.files = None;
        assert!(matches!(plugin.publish(&request).await, Err(VolumeError::Invalid(_))));
    }
}

#[tokio::test]
async fn a_host_path_is_bound_where_it_is() {
    let Some(node) = Node::new() else { return };
    let plugin = node.plugin("kubernetes.io/host-path");
    let mut request = request(&node, "host");
    let path = node.at("on/the/host");
    request.volume.context = [
        ("path".to_string(), path.display().to_string()),
        ("type".to_string(), "DirectoryOrCreate".to_string()),
    ]
    .into();
    assert_eq!(plugin.publish(&request).await.unwrap().host_path, path);
    assert_eq!(mode(&path), 0o755);
    fs::write(path.join("file"), "").unwrap();
    plugin.unpublish("host", &request.target).await.unwrap();
    assert!(path.join("file").exists() && !request.target.exists());
    request.volume.context.insert("type".to_string(), "Socket".to_string());
    let error = stdx::one_line(&plugin.publish(&request).await.unwrap_err());
    let text = format!("hostPath type check failed: {} is not a socket file", path.display());
    assert!(error.ends_with(&text), "{error}");
    let error = plugin.create(&crate::create_request("x", 1)).await.unwrap_err().to_string();
    assert_eq!(error, "plugin kubernetes.io/host-path cannot create volume x");
}
