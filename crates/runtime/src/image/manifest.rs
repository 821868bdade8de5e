//! What an archive says is in it: images with a config and layers, in docker's and OCI's words.
//!
//! Upstream: github.com/opencontainers/image-spec (image-layout.md, manifest.md, config.md) and
//! docker's image/spec for manifest.json.

use super::{Digest, ImageConfig, ImageError, Reference, Result, archive::Archive};
use serde::Deserialize;
use std::collections::BTreeMap;

/// overlayfs takes 500 lower directories; docker builds at most 127 layers.
const LAYERS_MAX: usize = 127;

/// An index may name another index, in practice once.
const INDEX_DEPTH_MAX: u32 = 3;

/// One image of an archive, checked against its digests as far as it has been read: all but the layers.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) id: Digest,
    pub(super) config: Vec<u8>,
    pub(super) manifest: Option<(Digest, Vec<u8>)>,
    pub(super) references: Vec<Reference>,
    /// What a tag led to on the way to the manifest: the digest of an index.
    pub(super) index: Option<Digest>,
    /// From a registry, and not from a file that somebody imported.
    pub(super) pulled: bool,
    /// Lowest first.
    pub(super) layers: Vec<Layer>,
}

/// What a manifest's digest leads to.
pub(super) enum Document {
    Index(Vec<Descriptor>),
    Image { config: Descriptor, layers: Vec<Descriptor> },
}

#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) member: String,
    /// Of the bytes in the archive; docker archives do not always tell.
    pub(super) blob: Option<Digest>,
    /// Of the plain tar.
    pub(super) diff_id: Digest,
}

/// The parts of a config file that matter here.
#[derive(Debug, Default)]
pub(super) struct Config {
    pub(super) run: ImageConfig,
    pub(super) created: Option<stdx::Timestamp>,
    diff_ids: Vec<Digest>,
    platform: Platform,
}

/// All images in the archive that this machine can run.
pub(super) fn read(archive: &Archive) -> Result<Vec<Candidate>> {
    // What docker save writes is both: its own manifest names the references as they were typed.
    if let Some(bytes) = archive.document("manifest.json")? {
        let images: Vec<DockerImage> = parse(&bytes, "manifest.json")?;
        return images.into_iter().map(|image| docker(archive, image)).collect();
    }
    let Some(bytes) = archive.document("index.json")? else {
        return Err(ImageError::Archive(
            "no image in it: neither manifest.json (docker) nor index.json (OCI)".to_owned(),
        ));
    };
    let index: Index = parse(&bytes, "index.json")?;
    let mut seen = Vec::new();
    let mut candidates: Vec<Candidate> = Vec::new();
    for descriptor in &index.manifests {
        let Some(mut candidate) = oci(archive, descriptor, 0, &mut seen)? else { continue };
        candidate.references.extend(descriptor.reference());
        match candidates.iter_mut().find(|known| known.id == candidate.id) {
            Some(known) => known.references.append(&mut candidate.references),
            None => candidates.push(candidate),
        }
    }
    if candidates.is_empty() {
        let seen = if seen.is_empty() { "no image".to_owned() } else { seen.join(", ") };
        return Err(ImageError::Archive(format!(
            "no image for {}: the archive has {seen}",
            Platform::ours()
        )));
    }
    Ok(candidates)
}

/// Reads a config file. Refuses platforms that are not ours.
pub(super) fn config(bytes: &[u8]) -> Result<Config> {
    let file: ConfigFile = parse(bytes, "the image config")?;
    let run = file.config.unwrap_or_default();
    let keys = |map: Option<BTreeMap<String, serde::de::IgnoredAny>>| {
        map.unwrap_or_default().into_keys().collect()
    };
    Ok(Config {
        run: ImageConfig {
            env: run.env.unwrap_or_default(),
            entrypoint: run.entrypoint.unwrap_or_default(),
            cmd: run.cmd.unwrap_or_default(),
            user: run.user.unwrap_or_default(),
            working_dir: run.working_dir.unwrap_or_default(),
            stop_signal: run.stop_signal.unwrap_or_default(),
            labels: run.labels.unwrap_or_default(),
            exposed_ports: keys(run.exposed_ports),
            volumes: keys(run.volumes),
        },
        created: file.created.as_deref().and_then(stdx::Timestamp::parse),
        diff_ids: digests(&file.rootfs.diff_ids.unwrap_or_default())?,
        platform: Platform {
            os: file.os.unwrap_or_default(),
            architecture: file.architecture.unwrap_or_default(),
            variant: None,
        },
    })
}

fn docker(archive: &Archive, image: DockerImage) -> Result<Candidate> {
    let config_bytes = needed(archive, &image.config)?;
    let id = Digest::of(&config_bytes);
    // Both `<hex>.json` and `blobs/sha256/<hex>` state the digest.
    if let Some(stated) = stated_digest(&image.config)
        && stated != id
    {
        return Err(mismatch(&image.config, &stated, &id));
    }
    let layers = image.layers.unwrap_or_default();
    let layers = layers
        .into_iter()
        .map(|member| (member.strip_prefix("blobs/sha256/").and_then(hex_digest), member))
        .collect();
    let references = image.repo_tags.unwrap_or_default();
    let references = references.iter().map(|tag| Reference::parse(tag)).collect::<Result<_>>()?;
    candidate(id, config_bytes, None, references, layers)
}

fn oci(
    archive: &Archive,
    descriptor: &Descriptor,
    depth: u32,
    seen: &mut Vec<String>,
) -> Result<Option<Candidate>> {
    if descriptor.is_attestation() || depth > INDEX_DEPTH_MAX {
        return Ok(None);
    }
    if let Some(platform) = &descriptor.platform
        && !platform.is_ours()
    {
        seen.push(platform.to_string());
        return Ok(None);
    }
    let digest = digest(&descriptor.digest)?;
    let bytes = blob(archive, &digest)?;
    let (config, layers) = match document(&bytes, &digest)? {
        Document::Index(manifests) => {
            let Some(best) = fitting(&manifests, seen) else { return Ok(None) };
            return oci(archive, best, depth + 1, seen);
        }
        Document::Image { config, layers } => (config, layers),
    };
    if !is_image_config(&config.media_type) {
        seen.push(format!("something of type {}", config.media_type));
        return Ok(None);
    }
    let id = self::digest(&config.digest)?;
    let config_bytes = blob(archive, &id)?;
    let layers = layers
        .iter()
        .map(|layer| {
            let digest = self::digest(&layer.digest)?;
            Ok((Some(digest.clone()), blob_member(&digest)))
        })
        .collect::<Result<_>>()?;
    candidate(id, config_bytes, Some((digest, bytes)), Vec::new(), layers).map(Some)
}

/// Reads a manifest or an index of either kind.
pub(super) fn document(bytes: &[u8], digest: &Digest) -> Result<Document> {
    let document: ManifestOrIndex = parse(bytes, &format!("manifest {digest}"))?;
    match document {
        ManifestOrIndex { manifests: Some(manifests), .. } => Ok(Document::Index(manifests)),
        ManifestOrIndex { config: Some(config), layers: Some(layers), .. } => {
            Ok(Document::Image { config, layers })
        }
        _ => Err(ImageError::Archive(format!("manifest {digest} has no config or no layers"))),
    }
}

/// The manifest of an index that this machine can run; the platforms that are not ours are `seen`.
pub(super) fn fitting<'a>(
    manifests: &'a [Descriptor],
    seen: &mut Vec<String>,
) -> Option<&'a Descriptor> {
    let mut best: Option<(&Descriptor, bool)> = None;
    for inner in manifests.iter().filter(|it| !it.is_attestation()) {
        let Some(platform) = &inner.platform else {
            best = best.or(Some((inner, false)));
            continue;
        };
        if !platform.is_ours() {
            seen.push(platform.to_string());
        } else if best.is_none_or(|(_, plain)| !plain) {
            // The plain platform runs on every machine; a variant may want a newer one.
            best = Some((inner, platform.variant.is_none()));
        }
    }
    best.map(|(best, _)| best)
}

/// An image in a registry, from what its manifest and its config say. Layers are members by their hex digits.
pub(super) fn remote(
    reference: Reference,
    manifest: (Digest, Vec<u8>),
    index: Option<Digest>,
    config: (Digest, Vec<u8>),
    layers: &[Descriptor],
) -> Result<Candidate> {
    let layers = layers.iter().map(|layer| {
        let digest = layer.digest()?;
        Ok((Some(digest.clone()), digest.hex().to_owned()))
    });
    let layers = layers.collect::<Result<_>>()?;
    let candidate = candidate(config.0, config.1, Some(manifest), vec![reference], layers)?;
    Ok(Candidate { index, pulled: true, ..candidate })
}

fn candidate(
    id: Digest,
    config_bytes: Vec<u8>,
    manifest: Option<(Digest, Vec<u8>)>,
    references: Vec<Reference>,
    layers: Vec<(Option<Digest>, String)>,
) -> Result<Candidate> {
    let config = config(&config_bytes)?;
    if !config.platform.is_ours() {
        return Err(ImageError::Archive(format!(
            "the image is for {}, this machine is {}",
            config.platform,
            Platform::ours()
        )));
    }
    if layers.len() != config.diff_ids.len() {
        return Err(ImageError::Archive(format!(
            "image {id} has {} layers, but its config names {}",
            layers.len(),
            config.diff_ids.len()
        )));
    }
    if layers.len() > LAYERS_MAX {
        return Err(ImageError::Archive(format!("image {id} has more than {LAYERS_MAX} layers")));
    }
    let layers = layers
        .into_iter()
        .zip(config.diff_ids)
        .map(|((blob, member), diff_id)| Layer { member, blob, diff_id })
        .collect();
    Ok(Candidate {
        id,
        config: config_bytes,
        manifest,
        references,
        index: None,
        pulled: false,
        layers,
    })
}

impl Config {
    pub(super) fn diff_ids(&self) -> &[Digest] {
        &self.diff_ids
    }
}

fn needed(archive: &Archive, member: &str) -> Result<Vec<u8>> {
    let missing = || ImageError::Archive(format!("the archive names {member}, but has it not"));
    archive.document(member)?.ok_or_else(missing)
}

fn blob(archive: &Archive, digest: &Digest) -> Result<Vec<u8>> {
    let member = blob_member(digest);
    let bytes = needed(archive, &member)?;
    let found = Digest::of(&bytes);
    if found != *digest { Err(mismatch(&member, digest, &found)) } else { Ok(bytes) }
}

pub(super) fn mismatch(member: &str, stated: &Digest, found: &Digest) -> ImageError {
    ImageError::Archive(format!("{member} should have digest {stated}, but has {found}"))
}

fn blob_member(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn stated_digest(member: &str) -> Option<Digest> {
    let name = member.rsplit('/').next().unwrap_or(member);
    hex_digest(name.strip_suffix(".json").unwrap_or(name))
}

fn hex_digest(hex: &str) -> Option<Digest> {
    format!("sha256:{hex}").parse().ok()
}

fn digest(text: &str) -> Result<Digest> {
    text.parse().map_err(ImageError::Archive)
}

fn digests(texts: &[String]) -> Result<Vec<Digest>> {
    texts.iter().map(|text| digest(text)).collect()
}

fn is_image_config(media_type: &str) -> bool {
    media_type == "application/vnd.oci.image.config.v1+json"
        || media_type == "application/vnd.docker.container.image.v1+json"
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &str) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| ImageError::Archive(format!("{what} is not what it should be: {error}")))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

/// The two differ in their fields; older writers leave out the media type.
#[derive(Deserialize)]
struct ManifestOrIndex {
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    /// Bytes; an archive's member tells by itself.
    #[serde(default)]
    pub(super) size: u64,
    platform: Option<Platform>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    pub(super) fn digest(&self) -> Result<Digest> {
        digest(&self.digest)
    }

    /// Nothing to run, but something said about an image.
    fn is_attestation(&self) -> bool {
        self.annotation("vnd.docker.reference.type").is_some()
    }

    pub(super) fn is_config(&self) -> bool {
        is_image_config(&self.media_type)
    }

    pub(super) fn media_type(&self) -> &str {
        &self.media_type
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// containerd writes the whole name; others write a name or only a tag, which names nothing.
    fn reference(&self) -> Option<Reference> {
        let whole = self.annotation("io.containerd.image.name");
        let short = self.annotation("org.opencontainers.image.ref.name");
        let short = short.filter(|name| name.contains([':', '/']));
        Reference::parse(whole.or(short)?).ok()
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    pub(super) fn ours() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Platform { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None }
    }

    /// What is not said fits.
    fn is_ours(&self) -> bool {
        let ours = Platform::ours();
        (self.os.is_empty() || self.os == ours.os)
            && (self.architecture.is_empty() || self.architecture == ours.architecture)
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

#[derive(Deserialize)]
struct ConfigFile {
    created: Option<String>,
    architecture: Option<String>,
    os: Option<String>,
    config: Option<Run>,
    rootfs: RootFilesystem,
}

#[derive(Deserialize)]
struct RootFilesystem {
    diff_ids: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Run {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
}
