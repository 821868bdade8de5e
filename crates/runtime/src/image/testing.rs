//! Archives for tests, made entry by entry.

use super::Digest;

/// One entry of a layer: kind, name, link target, content.
pub(super) struct Entry<'a> {
    pub(super) kind: tar::EntryType,
    pub(super) name: &'a str,
    pub(super) link: &'a str,
    pub(super) content: &'a [u8],
}

/// A layer of plain files; a name that ends in `/` is a directory.
pub(super) fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
    let entries: Vec<Entry<'_>> = files
        .iter()
        .map(|(name, content)| Entry {
            kind: match name.ends_with('/') {
                true => tar::EntryType::Directory,
                false => tar::EntryType::Regular,
            },
            name,
            link: "",
            content,
        })
        .collect();
    tar_of(&entries)
}

/// Writes names as they are, the wicked ones too.
pub(super) fn tar_of(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        let raw = header.as_gnu_mut().unwrap();
        raw.name[..entry.name.len()].copy_from_slice(entry.name.as_bytes());
        raw.linkname[..entry.link.len()].copy_from_slice(entry.link.as_bytes());
        header.set_entry_type(entry.kind);
        header.set_mode(0o644 | if entry.kind.is_dir() { 0o111 } else { 0 });
        header.set_uid(1000);
        header.set_gid(1001);
        header.set_mtime(1_000_000);
        header.set_size(entry.content.len() as u64);
        header.set_cksum();
        builder.append(&header, entry.content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(super) fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    serde_json::to_vec(&serde_json::json!({
        "os": "linux",
        "created": "2026-01-02T03:04:05Z",
        "config": { "Cmd": ["/run"], "User": "1000:1000", "ExposedPorts": { "80/tcp": {} } },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    }))
    .unwrap()
}

/// What `docker save` writes.
pub(super) fn docker_archive(reference: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    let config = config(layers);
    let names: Vec<String> = (0..layers.len()).map(|n| format!("{n}/layer.tar")).collect();
    let manifest = serde_json::json!([
        { "Config": "config.json", "RepoTags": [reference], "Layers": names }
    ]);
    let manifest = manifest.to_string();
    let mut files = vec![("config.json", &config[..]), ("manifest.json", manifest.as_bytes())];
    files.extend(names.iter().map(String::as_str).zip(layers.iter().map(Vec::as_slice)));
    layer(&files)
}
