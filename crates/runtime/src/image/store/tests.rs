//! What importing, resolving and removing promise, on archives that the tests make themselves.

use super::*;
use crate::image::testing::{Entry, config, docker_archive, layer, tar_of};
use std::os::unix::fs::FileTypeExt;
use tar::EntryType;

const UNUSED: &dyn Fn(&str) -> Option<String> = &|_| None;

fn store() -> (tempfile::TempDir, ImageStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = ImageStore::open(directory.path().join("images")).unwrap();
    (directory, store)
}

/// Owners and whiteouts need root.
fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: {test} needs root");
    }
    root
}

fn entry<'a>(kind: EntryType, name: &'a str, link: &'a str) -> Entry<'a> {
    Entry { kind, name, link, content: b"" }
}

/// Everything below the store but its fixed directories, the lock and the index.
fn leftovers(store: &ImageStore) -> Vec<PathBuf> {
    let mut left = Vec::new();
    for part in ["blobs/sha256", "layers", "tmp"] {
        left.extend(fs::read_dir(store.path(part)).unwrap().map(|e| e.unwrap().path()));
    }
    left
}

fn refused(store: &ImageStore, archive: Vec<u8>, reason: &str) {
    let error = stdx::one_line(&store.import_bytes(archive).unwrap_err());
    assert!(error.contains(reason), "{error}");
    assert_eq!(leftovers(store), Vec::<PathBuf>::new());
    assert_eq!(store.list().unwrap(), []);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An OCI layout's files: two platforms, each layer compressed another way.
fn layout(layers: &[Vec<u8>]) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    let mut blob = |bytes: Vec<u8>, media_type: &str| {
        let digest = Digest::of(&bytes);
        let descriptor = serde_json::json!({
            "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()
        });
        files.push((format!("blobs/sha256/{}", digest.hex()), bytes));
        descriptor
    };
    let packed = layers.iter().enumerate().map(|(n, layer)| match n % 3 {
        0 => gzip(layer),
        1 => zstd::encode_all(&layer[..], 0).unwrap(),
        _ => layer.clone(),
    });
    let layer_type = "application/vnd.oci.image.layer.v1.tar";
    let layers_json: Vec<_> = packed.map(|layer| blob(layer, layer_type)).collect();
    let config = blob(config(layers), "application/vnd.oci.image.config.v1+json");
    let manifest =
        serde_json::json!({ "schemaVersion": 2, "config": config, "layers": layers_json });
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let mut ours = blob(manifest.to_string().into_bytes(), manifest_type);
    ours["platform"] = serde_json::json!({ "os": "linux" });
    let other = serde_json::json!({
        "mediaType": manifest_type, "digest": Digest::of(b"not here").to_string(), "size": 8,
        "platform": { "os": "plan9", "architecture": "amd64" },
    });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [other, ours] });
    let index_type = "application/vnd.oci.image.index.v1+json";
    let mut index = blob(index.to_string().into_bytes(), index_type);
    index["annotations"] =
        serde_json::json!({ "io.containerd.image.name": "registry.example/web:2" });
    let root = serde_json::json!({ "schemaVersion": 2, "manifests": [index] });
    files.push(("index.json".to_owned(), root.to_string().into_bytes()));
    files
}

#[test]
fn imports_a_docker_archive_and_finds_it_by_every_name() {
    if !is_root("import") {
        return;
    }
    let (_directory, store) = store();
    let layers = [layer(&[("etc/", b""), ("etc/a", b"one")]), layer(&[("etc/b", b"two!")])];
    let image = store.import_bytes(docker_archive("web:1", &layers)).unwrap().remove(0);
    assert_eq!(image.references, ["docker.io/library/web:1"]);
    assert_eq!(image.config.cmd, ["/run"]);
    assert_eq!(image.config.exposed_ports, ["80/tcp"]);
    assert_eq!(image.size, 7);
    assert_eq!(image.created.unwrap().rfc3339(), "2026-01-02T03:04:05Z");
    assert_eq!(fs::read(image.layers[1].join("etc/b")).unwrap(), b"two!");
    let found = fs::metadata(image.layers[0].join("etc/a")).unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (1000, 1001, 0o644));
    assert_eq!(found.mtime(), 1_000_000);
    assert_eq!(fs::metadata(image.layers[0].join("etc")).unwrap().mtime(), 1_000_000);
    for name in ["web:1", "docker.io/web:1", &image.id, &image.id[7..19]] {
        assert_eq!(store.resolve(name).as_ref(), Some(&image), "{name}");
    }
    assert_eq!(store.resolve("web"), None, "latest is another tag");
    let reopened = ImageStore::open(store.directory()).unwrap();
    assert_eq!(reopened.list().unwrap(), [image], "it is still there after a restart");
}

#[test]
fn imports_oci_layouts_and_archives_and_chooses_the_platform() {
    if !is_root("import") {
        return;
    }
    let layers = ["a", "b", "c"].map(|name| layer(&[(name, name.as_bytes())]));
    let files = layout(&layers);
    let plain: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (n.as_str(), &b[..])).collect();
    let archive = layer_with_long_names(&plain);
    let (directory, layout_store) = store();
    let layout = directory.path().join("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    for (name, bytes) in &files {
        fs::write(layout.join(name), bytes).unwrap();
    }
    let path = directory.path().join("archive.tar.gz");
    fs::write(&path, gzip(&archive)).unwrap();
    let image = layout_store.import(&layout).unwrap().remove(0);
    assert_eq!(image.references, ["registry.example/web:2"]);
    assert_eq!(image.digests.len(), 1);
    assert_eq!(layout_store.resolve(&image.digests[0]).as_ref(), Some(&image));
    for (n, name) in ["a", "b", "c"].iter().enumerate() {
        assert_eq!(fs::read_to_string(image.layers[n].join(name)).unwrap(), *name);
    }
    for import in [
        &|store: &ImageStore| store.import(&path) as Result<Vec<Image>>,
        &|store: &ImageStore| store.import_bytes(archive.clone()),
        &|store: &ImageStore| store.import_reader(&archive[..]),
    ] as [&dyn Fn(&ImageStore) -> Result<Vec<Image>>; 3]
    {
        let (_directory, store) = self::store();
        assert_eq!(import(&store).unwrap()[0].id, image.id);
    }
    let renamed = layout_store.import_as(&layout, "other:3").unwrap().remove(0);
    assert_eq!(renamed.references, ["docker.io/library/other:3", "registry.example/web:2"]);
}

fn layer_with_long_names(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn whiteouts_become_those_of_overlayfs() {
    let may = rustix::thread::capabilities(None).map(|it| it.effective);
    if !may.is_ok_and(|it| it.contains(rustix::thread::CapabilitySet::SYS_ADMIN)) {
        return println!("skipped: whiteouts need CAP_SYS_ADMIN, for trusted attributes");
    }
    let (_directory, store) = store();
    let upper = tar_of(&[
        entry(EntryType::Directory, "d", ""),
        entry(EntryType::Regular, "d/.wh..wh..opq", ""),
        entry(EntryType::Regular, "d/new", ""),
        entry(EntryType::Regular, ".wh.gone", ""),
        entry(EntryType::Regular, ".wh.replaced", ""),
        entry(EntryType::Directory, "replaced", ""),
        entry(EntryType::Directory, "kept", ""),
        entry(EntryType::Regular, ".wh.kept", ""),
        entry(EntryType::Regular, ".wh..wh.plnk", ""),
    ]);
    let image = store.import_bytes(docker_archive("w:1", &[upper])).unwrap().remove(0);
    let at = |name: &str| image.layers[0].join(name);
    let opaque = |name: &str| {
        let mut value = [0; 8];
        let found = rustix::fs::getxattr(at(name), "trusted.overlay.opaque", &mut value);
        found.is_ok_and(|length| &value[..length] == b"y")
    };
    let gone = fs::symlink_metadata(at("gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert!(opaque("d") && opaque("replaced") && opaque("kept"));
    assert!(at("d/new").exists() && !at("d/.wh..wh..opq").exists());
    assert!(!at(".wh..wh.plnk").exists() && !at(".wh.gone").exists());
}

#[test]
fn keeps_links_modes_and_extended_attributes() {
    if !is_root("attributes") {
        return;
    }
    let (_directory, store) = store();
    let mut builder = tar::Builder::new(Vec::new());
    let pax: [(&str, &[u8]); 4] = [
        ("mtime", b"12.5"),
        ("SCHILY.xattr.user.a", b"b"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    ];
    builder.append_pax_extensions(pax).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o4755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(1);
    builder.append_data(&mut header, "deep/er/file", &b"x"[..]).unwrap();
    let rest = tar_of(&[
        entry(EntryType::Link, "hard", "deep/er/file"),
        entry(EntryType::Symlink, "soft", "/deep"),
        entry(EntryType::Regular, "soft/through", ""),
        entry(EntryType::Fifo, "fifo", ""),
    ]);
    let mut layer = builder.into_inner().unwrap();
    layer.truncate(layer.len() - 1024);
    layer.extend(rest);
    let image = store.import_bytes(docker_archive("w:1", &[layer])).unwrap().remove(0);
    let at = |name: &str| image.layers[0].join(name);
    let file = fs::metadata(at("deep/er/file")).unwrap();
    assert_eq!((file.mode() & 0o7777, file.mtime(), file.mtime_nsec()), (0o4755, 12, 500_000_000));
    assert_eq!(file.ino(), fs::metadata(at("hard")).unwrap().ino());
    assert_eq!(fs::read_link(at("soft")).unwrap(), Path::new("/deep"));
    assert!(at("deep/through").exists(), "links are followed as the container would");
    assert!(fs::metadata(at("fifo")).unwrap().file_type().is_fifo());
    let attribute =
        |name: &str| rustix::fs::getxattr(at("deep/er/file"), name, &mut [0; 32][..]).is_ok();
    assert!(attribute("user.a") && attribute("security.capability"));
    assert!(!attribute("trusted.overlay.redirect"));
}

#[test]
fn no_name_or_link_leads_outside() {
    if !is_root("unpacking") {
        return;
    }
    let (directory, store) = store();
    let outside = directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "s").unwrap();
    let outside_text = outside.to_str().unwrap();
    let secret = format!("{outside_text}/secret");
    let up = format!("{}{secret}", "/..".repeat(12));
    let cases: [(&str, Vec<Entry<'_>>); 6] = [
        ("..", vec![entry(EntryType::Regular, "../evil", "")]),
        ("..", vec![entry(EntryType::Regular, "a/../../evil", "")]),
        ("..", vec![entry(EntryType::Link, "hard", "../../../outside/secret")]),
        ("hard link", vec![entry(EntryType::Link, "hard", &secret)]),
        (
            "hard link",
            vec![
                entry(EntryType::Symlink, "l", outside_text),
                entry(EntryType::Link, "hard", "l/secret"),
            ],
        ),
        ("a whiteout of nothing", vec![entry(EntryType::Regular, ".wh...", "")]),
    ];
    for (reason, entries) in cases {
        refused(&store, docker_archive("e:1", &[tar_of(&entries)]), reason);
    }
    // Through a symlink the file lands below the layer's own root.
    let layer = tar_of(&[
        entry(EntryType::Directory, &outside_text[1..], ""),
        entry(EntryType::Symlink, "abs", outside_text),
        entry(EntryType::Symlink, "up", &up[..up.len() - "/secret".len()]),
        entry(EntryType::Regular, "abs/evil", ""),
        entry(EntryType::Regular, "up/evil2", ""),
        entry(EntryType::Regular, "/abs/evil3", ""),
    ]);
    let image = store.import_bytes(docker_archive("e:1", &[layer])).unwrap().remove(0);
    for name in ["evil", "evil2", "evil3"] {
        assert!(image.layers[0].join(&outside_text[1..]).join(name).exists(), "{name}");
        assert!(!outside.join(name).exists(), "{name}");
    }
}

#[test]
fn a_damaged_archive_leaves_nothing_behind() {
    let (directory, store) = store();
    let layers = [layer(&[("a", &[7; 3000])]), layer(&[("b", &[8; 3000])])];
    let whole = docker_archive("web:1", &layers);
    let mut length = 700;
    while length < whole.len() - 1024 {
        assert!(store.import_bytes(whole[..length].to_vec()).is_err(), "{length} bytes");
        assert_eq!(leftovers(&store), Vec::<PathBuf>::new(), "{length} bytes");
        length += 700;
    }
    let packed = gzip(&whole);
    let path = directory.path().join("archive");
    fs::write(&path, &packed[..packed.len() - 20]).unwrap();
    let error = store.import(&path).unwrap_err().to_string();
    assert!(error.contains("truncated or damaged"), "{error}");
    assert_eq!(leftovers(&store), Vec::<PathBuf>::new());
    let endless = Entry { content: &vec![b'x'; 9 << 20], ..entry(EntryType::GNULongName, "l", "") };
    let endless = tar_of(&[endless, entry(EntryType::Regular, "a", "")]);
    refused(&store, endless.clone(), "bytes between two entries");
    refused(&store, docker_archive("e:1", &[endless]), "bytes between two entries");
    refused(&store, b"hello".to_vec(), "not an image archive");
    refused(&store, layer(&[("readme", b"")]), "neither manifest.json (docker) nor index.json");
}

#[test]
fn content_that_does_not_match_its_digest_is_refused() {
    let (_directory, store) = store();
    let good = layer(&[("a", b"1")]);
    let config = config(std::slice::from_ref(&good));
    let manifest = br#"[{"Config":"c.json","RepoTags":["x:1"],"Layers":["l"]}]"#;
    let evil = layer(&[("a", b"2")]);
    let archive = layer(&[("manifest.json", manifest), ("c.json", &config), ("l", &evil)]);
    refused(&store, archive, "should have digest");
    let name = format!("{}.json", "0".repeat(64));
    let manifest = format!(r#"[{{"Config":"{name}","RepoTags":["x:1"],"Layers":["l"]}}]"#);
    let archive = layer(&[("manifest.json", manifest.as_bytes()), (&name, &config), ("l", &good)]);
    refused(&store, archive, "should have digest");
    for place in ["blobs/sha256", "index"] {
        let mut files = layout(std::slice::from_ref(&good));
        if place == "index" {
            files.last_mut().unwrap().1.truncate(20);
        } else {
            *files[1].1.last_mut().unwrap() ^= 1;
        }
        let plain: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (n.as_str(), &b[..])).collect();
        refused(&store, layer_with_long_names(&plain), "");
    }
}

#[test]
fn removing_an_image_keeps_the_layers_of_others() {
    if !is_root("import") {
        return;
    }
    let (_directory, store) = store();
    let [base, one, two] = ["base", "one", "two"].map(|name| layer(&[(name, b"x")]));
    let first = docker_archive("one:1", &[base.clone(), one]);
    let first = store.import_bytes(first).unwrap().remove(0);
    let second = store.import_bytes(docker_archive("two:1", &[base, two])).unwrap().remove(0);
    assert_eq!(first.layers[0], second.layers[0]);
    let used = |id: &str| (id == first.id).then(|| "web-0".to_owned());
    assert_eq!(
        store.remove("one:1", &used).unwrap_err().to_string(),
        "image one:1 is in use by container web-0; remove the container first"
    );
    let removed = store.remove("one:1", UNUSED).unwrap();
    assert_eq!(removed.deleted.as_ref(), Some(&first.id));
    assert!(second.layers.iter().all(|layer| layer.exists()));
    assert!(!first.layers[1].exists());
    assert!(matches!(store.remove("one:1", UNUSED), Err(ImageError::NotFound(_))));
    store.remove(&second.id, UNUSED).unwrap();
    assert_eq!(leftovers(&store), Vec::<PathBuf>::new());
}

#[test]
fn a_reference_moves_to_the_image_that_came_last() {
    if !is_root("import") {
        return;
    }
    let (_directory, store) = store();
    let import = |tag: &str, content: &[u8]| {
        store.import_bytes(docker_archive(tag, &[layer(&[("a", content)])])).unwrap().remove(0)
    };
    let old = import("x:1", b"old");
    let also = import("x:2", b"old");
    assert_eq!(also.references.len(), 2);
    let new = import("x:1", b"new");
    assert_eq!(store.resolve("x:1").unwrap().id, new.id);
    assert_eq!(store.resolve(&old.id).unwrap().references, ["docker.io/library/x:2"]);
    let other_process = ImageStore::open(store.directory()).unwrap();
    import("y:1", b"y");
    assert!(other_process.resolve("y:1").is_some(), "what one imports the other sees");
    let removed = store.remove("x:1", UNUSED).unwrap();
    assert_eq!(removed.deleted, Some(new.id));
}

#[test]
fn what_a_crash_left_is_swept_at_the_next_start() {
    let (_directory, store) = store();
    fs::create_dir_all(store.path("tmp/layer-x/deep")).unwrap();
    fs::create_dir_all(store.path("layers").join("ab".repeat(32)).join("deep")).unwrap();
    fs::write(store.path("blobs/sha256/cd"), "").unwrap();
    ImageStore::open(store.directory()).unwrap();
    assert_eq!(leftovers(&store), Vec::<PathBuf>::new());
    fs::write(store.path("images.json"), "{").unwrap();
    assert!(matches!(ImageStore::open(store.directory()), Err(ImageError::Index { .. })));
}
