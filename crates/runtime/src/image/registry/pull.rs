//! A pull from its name to the store: manifest, platform, config, missing layers.

use super::{
    Auth, Progress, PullError, Registries, Report, Result,
    download::{self, Wanted},
    repository::Repository,
};
use crate::image::{
    Digest, Image, ImageError, ImageStore, Reference,
    manifest::{self, Candidate, Document, Platform},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use stdx::Backoff;

/// So many layers of one image at a time, as docker does.
const LAYERS_AT_ONCE: usize = 3;

/// An index may name another index, in practice once.
const INDEX_DEPTH_MAX: u32 = 3;

/// Manifests and configs are asked for this often.
const TRIES: u32 = 3;

impl Registries {
    /// Fetches what is missing of an image and names it. Nothing is written if the tag still leads to what is here.
    pub async fn pull(
        &self,
        store: &ImageStore,
        reference: &Reference,
        auth: &Auth,
        report: &Report,
    ) -> Result<Image, ImageError> {
        let found = async {
            let (places, head) = self.resolve(reference, auth).await?;
            fetch(store, reference, places, head, report).await
        };
        found.await.map_err(|source| named(reference, source))
    }

    /// The same, but gives up early on a registry that does not tell at once what the name leads to.
    pub async fn pull_if_near(
        &self,
        store: &ImageStore,
        reference: &Reference,
        auth: &Auth,
        report: &Report,
        patience: Duration,
    ) -> Result<Image, ImageError> {
        let resolved = stdx::timeout(patience, self.resolve(reference, auth)).await;
        let slow = || {
            let source = std::io::Error::from(std::io::ErrorKind::TimedOut);
            Err(PullError::unreachable(format!("ask {}", reference.host()), source))
        };
        let found = async {
            let (places, head) = resolved.unwrap_or_else(slow)?;
            fetch(store, reference, places, head, report).await
        };
        found.await.map_err(|source| named(reference, source))
    }

    /// What the name leads to, and the places that may have it, that one first which answered.
    async fn resolve<'a>(
        &'a self,
        reference: &Reference,
        auth: &Auth,
    ) -> Result<(Vec<Repository<'a>>, Head)> {
        let mut places = Repository::places(self, reference, auth);
        let wanted = reference.wanted();
        let mut last = None;
        for at in 0..places.len() {
            let place = &places[at];
            match again(|| place.manifest(&wanted)).await {
                Ok((digest, bytes)) => {
                    places.rotate_left(at);
                    return Ok((places, Head { digest, bytes: bytes.to_vec() }));
                }
                Err(error) => {
                    if at + 1 < places.len() {
                        let mirror = place.host();
                        tracing::info!(mirror, error = stdx::one_line(&error), "ask the next one");
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| PullError::NotFound(String::new())))
    }
}

/// What a tag or a digest leads to.
struct Head {
    digest: Digest,
    bytes: Vec<u8>,
}

async fn fetch(
    store: &ImageStore,
    reference: &Reference,
    places: Vec<Repository<'_>>,
    head: Head,
    report: &Report,
) -> Result<Image> {
    let by_digest = format!("{}@{}", reference.repository(), head.digest);
    let known = store.resolve(&reference.to_string());
    if let Some(image) = known
        && image.digests.contains(&by_digest)
        && image.is_pulled(reference)
    {
        return Ok(image);
    }
    let place = &places[0];
    let (candidate, sizes) = candidate(store, place, reference, head).await?;
    let mut wanted: Vec<Wanted> = Vec::new();
    for (layer, size) in candidate.layers.iter().zip(sizes) {
        let Some(blob) = layer.blob.clone() else { continue };
        let twice = wanted.iter().any(|it| it.diff_id == layer.diff_id);
        if !twice && !store.has_layer(&layer.diff_id).map_err(Box::new)? {
            wanted.push(Wanted { blob, diff_id: layer.diff_id.clone(), size });
        }
    }
    let directory = store.downloads().map_err(Box::new)?;
    let bytes = wanted.iter().map(|it| it.size).sum();
    let begun = Progress { layers: wanted.len(), bytes, ..Progress::default() };
    let progress = Mutex::new(begun);
    let advance = |change: &dyn Fn(&mut Progress)| {
        let now = {
            let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut progress);
            *progress
        };
        report(now);
    };
    let arrived = |bytes: i64| {
        advance(&|it| it.bytes_done = it.bytes_done.saturating_add_signed(bytes));
    };
    let downloads = wanted.iter().map(|layer| {
        let (places, directory, arrived, advance) = (&places, &directory, &arrived, &advance);
        async move {
            download::download(store, places, directory, layer, arrived).await?;
            advance(&|it| it.layers_done += 1);
            Ok::<_, PullError>(())
        }
    });
    // Boxed one by one: a stream of borrowing futures is too general for the compiler otherwise.
    let downloads: Vec<stdx::BoxFuture<'_, Result<()>>> =
        downloads.map(|it| Box::pin(it) as stdx::BoxFuture<'_, _>).collect();
    stream::iter(downloads).buffer_unordered(LAYERS_AT_ONCE).try_collect::<()>().await?;
    let (taker, from) = (store.clone(), directory.clone());
    let taken = tokio::task::spawn_blocking(move || taker.take_pulled(candidate, &from)).await;
    let taken = taken.map_err(|error| PullError::Unfit(format!("unpack the layers: {error}")))?;
    // Damaged ones too: the next try must not find them.
    download::tidy(&directory, &wanted);
    Ok(taken.map_err(Box::new)?)
}

/// Reads on from what a name leads to, to the image for this machine and the sizes of its layers.
async fn candidate(
    store: &ImageStore,
    place: &Repository<'_>,
    reference: &Reference,
    head: Head,
) -> Result<(Candidate, Vec<u64>)> {
    let (top, mut digest, mut bytes) = (head.digest.clone(), head.digest, head.bytes);
    let mut seen = Vec::new();
    for _ in 0..=INDEX_DEPTH_MAX {
        let (config, layers) = match manifest::document(&bytes, &digest).map_err(Box::new)? {
            Document::Image { config, layers } => (config, layers),
            Document::Index(manifests) => {
                let Some(best) = manifest::fitting(&manifests, &mut seen) else { break };
                digest = best.digest().map_err(Box::new)?;
                let wanted = digest.to_string();
                bytes = match store.document(&digest) {
                    Some(bytes) => bytes,
                    None => again(|| place.manifest(&wanted)).await?.1.to_vec(),
                };
                continue;
            }
        };
        if !config.is_config() {
            return Err(PullError::Unfit(format!(
                "it is no image, but something of type {:?}",
                config.media_type()
            )));
        }
        let id = config.digest().map_err(Box::new)?;
        let config = match store.document(&id) {
            Some(bytes) => bytes,
            None => again(|| place.small_blob(&id)).await?.to_vec(),
        };
        let sizes = layers.iter().map(|it| it.size).collect();
        let index = Some(top.clone()).filter(|it| *it != digest);
        let manifest = (digest, bytes);
        let candidate = manifest::remote(reference.clone(), manifest, index, (id, config), &layers);
        return Ok((candidate.map_err(Box::new)?, sizes));
    }
    let seen = if seen.is_empty() { "no image".to_owned() } else { seen.join(", ") };
    Err(PullError::Unfit(format!("no image for {}: the registry has {seen}", Platform::ours())))
}

/// Tries again what may pass.
async fn again<T, F: Future<Output = Result<T>>>(work: impl Fn() -> F) -> Result<T> {
    let mut backoff = Backoff::new(Duration::from_millis(300), Duration::from_secs(2));
    loop {
        match work().await {
            Err(error) if error.may_pass() => {
                let wait = backoff.failed();
                if backoff.failures() >= TRIES {
                    return Err(error);
                }
                stdx::sleep(wait).await;
            }
            done => return done,
        }
    }
}

fn named(reference: &Reference, source: PullError) -> ImageError {
    ImageError::Pull { reference: reference.familiar(), source }
}
