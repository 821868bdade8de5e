//! PersistentVolumes with `local.path`: directories and disks.

use crate::{MIB, Node, create_request};
use std::{fs, path::Path};
use volumes::{LOCAL_DRIVER, Volume, VolumeError, mount};

fn at(path: &Path, handle: &str) -> Volume {
    let context = [("path".to_string(), path.display().to_string())].into();
    Volume { handle: handle.to_string(), context, ..Volume::default() }
}

#[tokio::test]
async fn a_directory_is_bound_and_a_missing_one_is_an_error() {
    let Some(node) = Node::new() else { return };
    let plugin = node.plugin("kubernetes.io/local-volume");
    let path = node.at("disk");
    let volume = at(&path, "local-pv");
    let error = plugin.publish(&node.publish_request(&volume, "pod")).await.unwrap_err();
    assert!(matches!(error, VolumeError::Driver { .. }));
    assert!(!node.target("pod", "local-pv").exists());
    fs::create_dir(&path).unwrap();
    plugin.stage(&node.stage_request(&volume)).await.unwrap();
    let target = plugin.publish(&node.publish_request(&volume, "pod")).await.unwrap().host_path;
    plugin.publish(&node.publish_request(&volume, "pod")).await.unwrap();
    fs::write(target.join("file"), "kept").unwrap();
    plugin.unpublish("local-pv", &target).await.unwrap();
    plugin.unstage("local-pv", &node.staging("local-pv")).await.unwrap();
    assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "kept");
    assert!(mount::mounts_below(&node.directory).unwrap().is_empty() && !target.exists());
}

#[tokio::test]
async fn an_empty_disk_is_formatted_once_and_a_used_one_never() {
    let Some(node) = Node::new() else { return };
    // A loop device of the class local serves as the disk.
    let source = node.plugin(LOCAL_DRIVER);
    let mut request = create_request("pvc-disk", 32 * MIB);
    request.block = true;
    let backing = source.create(&request).await.unwrap();
    let mut stage = node.stage_request(&backing);
    stage.block = true;
    source.stage(&stage).await.unwrap();
    let mut publish = node.publish_request(&backing, "pod");
    publish.block = true;
    let disk = source.publish(&publish).await.unwrap().host_path;

    let plugin = node.plugin("kubernetes.io/local-volume");
    let volume = at(&disk, "disk-pv");
    let staging = node.staging("disk-pv");
    plugin.stage(&node.stage_request(&volume)).await.unwrap();
    let target = plugin.publish(&node.publish_request(&volume, "pod")).await.unwrap().host_path;
    fs::write(target.join("file"), "kept").unwrap();
    plugin.unpublish("disk-pv", &target).await.unwrap();
    plugin.unstage("disk-pv", &staging).await.unwrap();
    plugin.stage(&node.stage_request(&volume)).await.unwrap();
    assert_eq!(fs::read_to_string(staging.join("file")).unwrap(), "kept");
    plugin.unstage("disk-pv", &staging).await.unwrap();

    // Another filesystem than asked for, and data without one.
    let mut xfs = node.stage_request(&volume);
    xfs.fs_type = Some("xfs".to_string());
    let error = stdx::one_line(&plugin.stage(&xfs).await.unwrap_err());
    assert!(error.contains("holds ext4, not xfs"), "{error}");
    let mut bytes = vec![0; 4096];
    bytes[512] = 1;
    let file = fs::OpenOptions::new().write(true).open(&disk).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    file.sync_all().unwrap();
    drop(file);
    let error = stdx::one_line(&plugin.stage(&node.stage_request(&volume)).await.unwrap_err());
    assert!(error.contains("no filesystem known here"), "{error}");
    source.unstage(&backing.handle, &stage.staging).await.unwrap();
    source.delete(&backing.handle).await.unwrap();
}
