//! The class `local`: what is promised to whoever claims a volume of it.

use crate::{GIB, MIB, Node, create_request, installed, unique, with};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{ErrorKind, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::Path,
};
use volumes::{ExpandVolume, LOCAL_DRIVER, Volume, VolumeError, VolumePlugin, mount};

/// Creates, stages and publishes; answers the volume and where it is.
async fn published(
    node: &Node,
    plugin: &dyn VolumePlugin,
    request: &volumes::CreateVolume,
) -> (Volume, std::path::PathBuf) {
    let volume = plugin.create(request).await.unwrap();
    plugin.stage(&node.stage_request(&volume)).await.unwrap();
    let published = plugin.publish(&node.publish_request(&volume, "pod")).await.unwrap();
    (volume, published.host_path)
}

async fn withdraw(node: &Node, plugin: &dyn VolumePlugin, volume: &Volume) {
    plugin.unpublish(&volume.handle, &node.target("pod", &volume.handle)).await.unwrap();
    plugin.unstage(&volume.handle, &node.staging(&volume.handle)).await.unwrap();
}

fn one_line(error: &VolumeError) -> String {
    stdx::one_line(error)
}

/// Writes until there is no space; answers how much went in.
fn fill(path: &Path) -> u64 {
    let mut file = File::create(path).unwrap();
    let chunk = vec![7; 64 * 1024];
    let mut written = 0;
    loop {
        match file.write(&chunk) {
            Ok(bytes) => written += bytes as u64,
            Err(error) if error.kind() == ErrorKind::StorageFull => break,
            Err(error) => panic!("{error}"),
        }
    }
    match file.sync_all() {
        Ok(()) => written,
        Err(error) if error.kind() == ErrorKind::StorageFull => written,
        Err(error) => panic!("fsync: {error}"),
    }
}

#[tokio::test]
async fn asking_twice_gives_one_volume_and_asking_otherwise_is_refused() {
    let Some(node) = Node::new() else { return };
    let plugin = node.plugin(LOCAL_DRIVER);
    let request = create_request("pvc-3f1c9a52-8a4e-4a57-9d6b-0c2f5e7a1b3d", 17 * MIB - 5);
    let volume = plugin.create(&request).await.unwrap();
    assert_eq!((volume.bytes, volume.topology.values().next().unwrap().as_str()), (17 * MIB, "n1"));
    assert_eq!(plugin.create(&request).await.unwrap(), volume);
    let other = create_request(&request.name, 18 * MIB);
    let error = plugin.create(&other).await.unwrap_err();
    assert!(
        matches!(&error, VolumeError::Invalid(text) if text.contains("exists with")),
        "{error}"
    );
    assert_eq!(fs::read_dir(node.at("volumes")).unwrap().count(), 1);
}

#[tokio::test]
async fn claims_that_look_alike_when_joined_get_different_volumes() {
    let Some(node) = Node::new() else { return };
    let plugin = node.plugin(LOCAL_DRIVER);
    // a/b-c and a-b/c: their uids differ, and nothing else counts.
    let mut places = BTreeSet::new();
    for (uid, claim) in [("pvc-1", "a/b-c"), ("pvc-2", "a-b/c")] {
        let mut request = create_request(uid, 16 * MIB);
        request.claim = Some(claim.to_string());
        let (_, path) = published(&node, &*plugin, &request).await;
        fs::write(path.join("whose"), claim).unwrap();
        places.insert(fs::metadata(&path).unwrap().dev());
    }
    assert_eq!(places.len(), 2);
    let first = node.target("pod", "pvc-1");
    assert_eq!(fs::read_to_string(first.join("whose")).unwrap(), "a/b-c");
}

#[tokio::test]
async fn blocks_are_reserved_unless_overcommitted() {
    let Some(node) = Node::new() else { return };
    let plugin = node.plugin(LOCAL_DRIVER);
    let blocks = |handle: &str| {
        fs::metadata(node.at(&format!("volumes/{handle}/disk.img"))).unwrap().blocks() * 512
    };
    for fs_type in ["ext4", "xfs", "btrfs"] {
        if !installed(&format!("mkfs.{fs_type}")) {
            continue;
        }
        let name = unique(fs_type);
        let parameters = [("csi.storage.k8s.io/fstype", fs_type)];
        let request = with(create_request(&name, 320 * MIB), &parameters);
        let volume = plugin.create(&request).await.unwrap();
        let mut stage = node.stage_request(&volume);
        if fs_type == "ext4" {
            // With this, small writes into preallocated files zero their surroundings.
            stage.mount_options = vec!["nodioread_nolock".to_string()];
        }
        plugin.stage(&stage).await.unwrap();
        let path = plugin.publish(&node.publish_request(&volume, "pod")).await.unwrap().host_path;
        let before = blocks(&name);
        assert!(before >= 320 * MIB);
        // Neither removing files nor preallocating them gives blocks of the image back.
        fs::write(path.join("file"), vec![1; 8 << 20]).unwrap();
        fs::remove_file(path.join("file")).unwrap();
        for number in 0..64 {
            let file = File::create(path.join(number.to_string())).unwrap();
            let flags = rustix::fs::FallocateFlags::empty();
            rustix::fs::fallocate(&file, flags, 0, 16 * 1024).unwrap();
            std::os::unix::fs::FileExt::write_at(&file, b"x", 8 * 1024).unwrap();
            file.sync_all().unwrap();
        }
        assert!(blocks(&name) >= before, "{fs_type} in use: {} of {before}", blocks(&name));
        withdraw(&node, &*plugin, &volume).await;
        assert!(blocks(&name) >= before, "{fs_type} afterwards: {} of {before}", blocks(&name));
    }

    let request = with(create_request("pvc-sparse", 64 * MIB), &[("overcommit", "true")]);
    let volume = plugin.create(&request).await.unwrap();
    assert_eq!(volume.bytes, 64 * MIB);
    assert!(blocks("pvc-sparse") < 32 * MIB, "{}", blocks("pvc-sparse"));
}

#[tokio::test]
async fn a_write_beyond_the_claim_fails_and_a_full_host_hurts_nobody() {
    let Some(outer) = Node::new() else { return };
    let host = outer.plugin(LOCAL_DRIVER);
    for fs_type in ["ext4", "xfs", "btrfs"] {
        if !installed(&format!("mkfs.{fs_type}")) {
            continue;
        }
        let parameters = [("csi.storage.k8s.io/fstype", fs_type)];
        let request = with(create_request(&unique("host"), 500 * MIB), &parameters);
        let (_, disk) = published(&outer, &*host, &request).await;
        full_host(&Node::on(&disk, outer.at(fs_type)), &disk).await;
    }
}

async fn full_host(node: &Node, disk: &Path) {
    let plugin = node.plugin(LOCAL_DRIVER);
    let (_, greedy) = published(node, &*plugin, &create_request("pvc-greedy", 32 * MIB)).await;
    let (volume, quiet) = published(node, &*plugin, &create_request("pvc-quiet", 32 * MIB)).await;

    let error = plugin.create(&create_request("pvc-big", GIB)).await.unwrap_err();
    let needs = "needs 1073741824 bytes";
    assert!(matches!(&error, VolumeError::Exhausted(text) if text.contains(needs)), "{error}");
    let names = fs::read_dir(disk.join("volumes")).unwrap();
    assert_eq!(names.count(), 2, "nothing is left of it");

    let written = fill(&greedy.join("file"));
    assert!(written < 32 * MIB, "{written}");
    // Now the host's disk too, to the last block.
    fill(&disk.join("rubbish"));
    // The neighbour gets all that it was promised, twice over the same blocks.
    for byte in [8, 9] {
        let path = quiet.join("all");
        let _ = fs::remove_file(&path);
        let stats = plugin.stats(&volume.handle, &quiet).await.unwrap();
        let content = vec![byte; usize::try_from(stats.bytes_available - MIB).unwrap()];
        let mut file = File::create(&path).unwrap();
        file.write_all(&content).unwrap();
        file.sync_all().unwrap();
        drop(file);
        withdraw(node, &*plugin, &volume).await;
        plugin.stage(&node.stage_request(&volume)).await.unwrap();
        plugin.publish(&node.publish_request(&volume, "pod")).await.unwrap();
        assert!(fs::read(&path).unwrap() == content, "{byte}");
    }
}

#[tokio::test]
async fn what_df_says_is_below_the_capacity_and_at_least_nine_tenths_of_it() {
    let Some(node) = Node::new() else { return };
    let plugin = node.plugin(LOCAL_DRIVER);
    for fs_type in ["ext4", "xfs", "btrfs"] {
        if !installed(&format!("mkfs.{fs_type}")) {
            continue;
        }
        // 10Gi overcommitted: the same filesystem without taking the space.
        for (bytes, overcommit) in [(GIB, "false"), (10 * GIB, "true")] {
            let name = unique(fs_type);
            let parameters = [("csi.storage.k8s.io/fstype", fs_type), ("overcommit", overcommit)];
            let request = with(create_request(&name, bytes), &parameters);
            let (volume, path) = published(&node, &*plugin, &request).await;
            assert_eq!(volume.bytes, bytes);
            let stats = plugin.stats(&name, &path).await.unwrap();
            let total = stats.bytes_total;
            assert!(total < bytes && total * 10 >= bytes * 9, "{fs_type} {bytes}: {total}");
            assert!(stats.bytes_available * 100 >= bytes * 88, "{fs_type} {bytes}: {stats:?}");
            println!("{fs_type} {bytes}: df {:.1} %", total as f64 * 100.0 / bytes as f64);
            withdraw(&node, &*plugin, &volume).await;
            plugin.delete(&name).await.unwrap();
        }
    }
}

#[tokio::test]
async fn delete_waits_for_users_and_gives_the_space_back() {
    let Some(node) = Node::new() else { return };
    let plugin = node.plugin(LOCAL_DRIVER);
    let request = create_request("pvc-used", 16 * MIB);
    let (volume, path) = published(&node, &*plugin, &request).await;
    fs::write(path.join("secret"), "of the first owner").unwrap();
    let error = plugin.delete("pvc-used").await.unwrap_err();
    let named = node.target("pod", "pvc-used").display().to_string();
    assert!(
        matches!(&error, VolumeError::Busy { holders, .. }
        if holders.iter().any(|holder| holder.contains(&named))),
        "{error}"
    );
    assert!(path.join("secret").exists());
    withdraw(&node, &*plugin, &volume).await;
    plugin.delete("pvc-used").await.unwrap();
    plugin.delete("pvc-used").await.unwrap();
    assert_eq!(fs::read_dir(node.at("volumes")).unwrap().count(), 0);

    // A new volume of the name is empty.
    let (_, path) = published(&node, &*plugin, &request).await;
    let names: Vec<_> = fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["lost+found"]);
}

#[tokio::test]
async fn a_missing_or_foreign_disk_is_an_error_and_never_an_empty_directory() {
    let Some(node) = Node::new() else { return };
    let plugin = node.plugin(LOCAL_DRIVER);
    let mine = plugin.create(&create_request("pvc-mine", 16 * MIB)).await.unwrap();
    let other = plugin.create(&create_request("pvc-other", 16 * MIB)).await.unwrap();
    let image = |volume: &Volume| node.at(&format!("volumes/{}/disk.img", volume.handle));
    fs::copy(image(&other), image(&mine)).unwrap();
    let error = one_line(&plugin.stage(&node.stage_request(&mine)).await.unwrap_err());
    assert!(error.contains("the image holds another filesystem"), "{error}");

    File::options().write(true).open(image(&mine)).unwrap().write_all(&[0; 8192]).unwrap();
    let error = one_line(&plugin.stage(&node.stage_request(&mine)).await.unwrap_err());
    assert!(error.contains("holds no filesystem"), "{error}");

    fs::remove_file(image(&mine)).unwrap();
    let error = one_line(&plugin.stage(&node.stage_request(&mine)).await.unwrap_err());
    assert!(error.contains("disk.img is missing"), "{error}");
    let error = one_line(&plugin.create(&create_request("pvc-mine", 16 * MIB)).await.unwrap_err());
    assert!(error.contains("disk.img is missing"), "{error}");

    // Published without being staged: nothing appears either.
    let error = plugin.publish(&node.publish_request(&other, "pod")).await.unwrap_err();
    assert!(matches!(&error, VolumeError::Pending(text) if text.contains("not staged")), "{error}");
    assert!(!node.target("pod", "pvc-other").exists());
    let never = Volume { handle: "pvc-never".to_string(), ..Volume::default() };
    let error = plugin.stage(&node.stage_request(&never)).await.unwrap_err();
    assert!(matches!(error, VolumeError::NotFound));
}

#[tokio::test]
async fn a_restart_finds_what_is_mounted_and_a_crash_leaves_nothing_half_made() {
    let Some(node) = Node::new() else { return };
    let plugin = node.plugin(LOCAL_DRIVER);
    let request = create_request("pvc-kept", 16 * MIB);
    let (volume, path) = published(&node, &*plugin, &request).await;
    fs::write(path.join("text"), "kept").unwrap();

    // As if killed in the middle of a create and of a delete.
    let (creating, deleting) =
        (node.at("volumes/.creating-pvc-new"), node.at("volumes/.deleting-pvc-old"));
    for directory in [&creating, &deleting] {
        fs::create_dir(directory).unwrap();
        fs::write(directory.join("disk.img"), "half").unwrap();
    }
    let busy = node.at("volumes/.creating-pvc-busy");
    fs::create_dir(&busy).unwrap();
    let held = File::open(&busy).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();

    let plugin = node.plugin(LOCAL_DRIVER);
    assert!(!creating.exists() && !deleting.exists());
    assert!(busy.exists(), "another process works on it");
    plugin.stage(&node.stage_request(&volume)).await.unwrap();
    let again = plugin.publish(&node.publish_request(&volume, "pod")).await.unwrap();
    assert_eq!(fs::read_to_string(again.host_path.join("text")).unwrap(), "kept");
    let mounts = mount::mounts_below(&node.directory).unwrap();
    assert_eq!(mounts.len(), 2, "{mounts:?}");

    let device = mounts[0].source.clone();
    withdraw(&node, &*plugin, &volume).await;
    withdraw(&node, &*plugin, &volume).await;
    let name = device.file_name().unwrap().to_str().unwrap();
    let file = fs::read_to_string(format!("/sys/block/{name}/loop/backing_file"));
    assert!(!file.is_ok_and(|file| file.contains("pvc-kept")), "the loop device is free");
    assert!(!node.target("pod", "pvc-kept").exists());
}

#[tokio::test]
async fn volumes_grow_while_mounted_and_while_not() {
    let Some(node) = Node::new() else { return };
    let plugin = node.plugin(LOCAL_DRIVER);
    for fs_type in ["ext4", "xfs", "btrfs"] {
        if !installed(&format!("mkfs.{fs_type}")) {
            continue;
        }
        let name = unique(fs_type);
        let request =
            with(create_request(&name, 320 * MIB), &[("csi.storage.k8s.io/fstype", fs_type)]);
        let (volume, path) = published(&node, &*plugin, &request).await;
        fs::write(path.join("text"), "kept").unwrap();
        let grow = |bytes| ExpandVolume {
            volume: volume.clone(),
            bytes_min: bytes,
            ..ExpandVolume::default()
        };
        let total = |path: std::path::PathBuf| {
            let plugin = plugin.clone();
            let name = name.clone();
            async move { plugin.stats(&name, &path).await.unwrap().bytes_total }
        };
        let first = total(path.clone()).await;
        match plugin.expand(&grow(400 * MIB)).await {
            Ok(bytes) => {
                assert_eq!(bytes, 400 * MIB);
                let online = total(path.clone()).await;
                assert!(online > first + 60 * MIB, "{fs_type}: {first} {online}");
            }
            Err(VolumeError::Pending(text)) if fs_type == "ext4" => println!("{text}"),
            Err(error) => panic!("{fs_type}: {error:?}"),
        }
        withdraw(&node, &*plugin, &volume).await;
        // Asked again, and for less: nothing shrinks. Not done before the filesystem has grown, too.
        for bytes in [480 * MIB, 480 * MIB, MIB] {
            match plugin.expand(&grow(bytes)).await {
                Ok(bytes) => assert_eq!((fs_type, bytes), ("ext4", 480 * MIB)),
                Err(VolumeError::Pending(_)) => assert_ne!(fs_type, "ext4"),
                Err(error) => panic!("{fs_type}: {error:?}"),
            }
        }
        plugin.stage(&node.stage_request(&volume)).await.unwrap();
        let staging = node.staging(&name);
        let offline = total(staging.clone()).await;
        assert!(offline > first + 130 * MIB, "{fs_type}: {first} {offline}");
        assert_eq!(plugin.expand(&grow(480 * MIB)).await.unwrap(), 480 * MIB);
        assert_eq!(fs::read_to_string(staging.join("text")).unwrap(), "kept");
        plugin.unstage(&name, &staging).await.unwrap();
        plugin.delete(&name).await.unwrap();
    }
}

#[tokio::test]
async fn read_only_is_read_only_for_one_pod_and_files_get_the_group() {
    let Some(node) = Node::new() else { return };
    let plugin = node.plugin(LOCAL_DRIVER);
    let (volume, path) = published(&node, &*plugin, &create_request("pvc-ro", 16 * MIB)).await;
    let mut reader = node.publish_request(&volume, "reader");
    reader.read_only = true;
    let reader = plugin.publish(&reader).await.unwrap();
    assert!(reader.read_only);
    let error = fs::write(reader.host_path.join("text"), "no").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
    fs::write(path.join("text"), "yes").unwrap();
    assert_eq!(fs::read_to_string(reader.host_path.join("text")).unwrap(), "yes");

    let mut grouped = node.publish_request(&volume, "grouped");
    grouped.pod.fs_group = Some(2000);
    let grouped = plugin.publish(&grouped).await.unwrap();
    let found = fs::metadata(grouped.host_path.join("text")).unwrap();
    assert_eq!((found.gid(), found.mode() & 0o660), (2000, 0o660));
    assert_eq!(fs::metadata(grouped.host_path).unwrap().mode() & 0o2770, 0o2770);
}

#[tokio::test]
async fn a_busy_mount_stays_and_its_holder_is_named() {
    let Some(node) = Node::new() else { return };
    let plugin = node.plugin(LOCAL_DRIVER);
    let (volume, path) = published(&node, &*plugin, &create_request("pvc-busy", 16 * MIB)).await;
    let held = File::create(path.join("open")).unwrap();
    let error = plugin.unpublish(&volume.handle, &path).await.unwrap_err();
    let named = format!("pid {} (", std::process::id());
    assert!(
        matches!(&error, VolumeError::Busy { holders, .. }
        if holders.iter().any(|holder| holder.starts_with(&named))),
        "{error}"
    );
    assert!(path.join("open").exists());
    drop(held);
    plugin.unpublish(&volume.handle, &path).await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_device_is_exactly_the_capacity() {
    let Some(node) = Node::new() else { return };
    let plugin = node.plugin(LOCAL_DRIVER);
    let mut request = create_request("pvc-block", 5 * MIB + 1);
    request.block = true;
    let volume = plugin.create(&request).await.unwrap();
    let mut stage = node.stage_request(&volume);
    stage.block = true;
    plugin.stage(&stage).await.unwrap();
    plugin.stage(&stage).await.unwrap();
    let mut publish = node.publish_request(&volume, "pod");
    publish.block = true;
    let device = plugin.publish(&publish).await.unwrap().host_path;
    let mut disk = File::open(&device).unwrap();
    assert_eq!((disk.seek(SeekFrom::End(0)).unwrap(), volume.bytes), (6 * MIB, 6 * MIB));
    drop(disk);
    let error = plugin.delete("pvc-block").await.unwrap_err();
    assert!(matches!(&error, VolumeError::Busy { .. }), "{error}");
    plugin.unpublish(&volume.handle, &publish.target).await.unwrap();
    plugin.unstage(&volume.handle, &stage.staging).await.unwrap();
    plugin.delete("pvc-block").await.unwrap();
}
