//! CRI's ImageService over the store.
//!
//! Upstream: staging/src/k8s.io/cri-api/pkg/apis/runtime/v1/api.proto, service ImageService.
//! PullImage answers for what is there and says what to do about the rest; it fetches nothing.

use super::{
    Auth, Image, ImageError, ImageStore, Progress, PullError, Reference, Registries,
    TOOLBOX_REFERENCE,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use rpc::cri::{
    AuthConfig, FilesystemIdentifier, FilesystemUsage, ImageFsInfoRequest, ImageFsInfoResponse,
    ImageSpec, ImageStatusRequest, ImageStatusResponse, Int64Value, ListImagesRequest,
    ListImagesResponse, PullImageRequest, PullImageResponse, RemoveImageRequest,
    RemoveImageResponse, UInt64Value, image_service_server::ImageService,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use stdx::{Clock, Timestamp};
use tonic::{Code, Request, Response, Status, metadata::MetadataValue};

/// Names a container that uses an image id, if any does.
type User = dyn Fn(&str) -> Option<String> + Send + Sync;

/// Metadata of an answer to PullImage: the registry could not be asked, or did not have it, and the image is the one
/// that somebody imported under this name. Its value says why.
pub const IMPORTED_INSTEAD: &str = "stanchion-imported-instead";

/// An image that was imported runs without its registry: that one is given this long to have a newer one.
const IMPORTED_PATIENCE: Duration = Duration::from_secs(5);

/// A registry that was not reached is not asked again about imported images for this long.
const UNREACHED: Duration = Duration::from_secs(120);

/// Hosts of registries that were not reached: as many as people name in images, but not without end.
const UNREACHED_MAX: usize = 256;

/// The image half of the container runtime interface.
#[derive(Clone)]
pub struct Images {
    store: ImageStore,
    registries: Registries,
    /// Host of a registry → when it was not reached, and why.
    unreached: Arc<Mutex<HashMap<String, (Timestamp, String)>>>,
    clock: Arc<dyn Clock>,
    user: Arc<User>,
}

impl Images {
    /// `user` names a container that uses an image id: such an image is not removed.
    pub fn new(
        store: ImageStore,
        registries: Registries,
        clock: Arc<dyn Clock>,
        user: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Images {
        Images { store, registries, unreached: Arc::default(), clock, user: Arc::new(user) }
    }

    /// From the registry; or, where somebody has imported an image of this name and the registry gives none, that
    /// one, and why.
    async fn pull(&self, name: &str, auth: &Auth) -> super::Result<(Image, Option<String>)> {
        let (store, at) = (self.store.clone(), name.to_owned());
        let local = tokio::task::spawn_blocking(move || store.resolve(&at)).await.ok().flatten();
        let reference = match (Reference::parse(name), &local) {
            (Ok(reference), _) => reference,
            // By its id: there is no registry to ask.
            (Err(_), Some(image)) => {
                return Ok((image.clone(), Some("it is named by its id".to_owned())));
            }
            (Err(error), None) => return Err(error),
        };
        let report: super::Report = {
            let name = name.to_owned();
            Arc::new(move |it: Progress| {
                tracing::trace!(image = name, done = it.bytes_done, of = it.bytes, "pull");
            })
        };
        let Some(image) = local.filter(|it| !it.is_pulled(&reference)) else {
            let pulled = self.registries.pull(&self.store, &reference, auth, &report).await;
            return pulled.map(|image| (image, None));
        };
        if image.references.iter().any(|it| it == TOOLBOX_REFERENCE) {
            return Ok((image, Some("it is part of this program".to_owned())));
        }
        if let Some(why) = self.is_unreached(reference.host()) {
            return Ok((image, Some(why)));
        }
        let near =
            self.registries.pull_if_near(&self.store, &reference, auth, &report, IMPORTED_PATIENCE);
        match near.await {
            Ok(image) => Ok((image, None)),
            Err(error) => {
                let why = stdx::one_line(&error);
                if let ImageError::Pull { source: PullError::Unreachable { .. }, .. } = &error {
                    self.note_unreached(reference.host(), &why);
                }
                Ok((image, Some(why)))
            }
        }
    }

    fn is_unreached(&self, host: &str) -> Option<String> {
        let unreached = self.unreached.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, why) = unreached.get(host)?;
        (self.clock.now().since(*at) < UNREACHED).then(|| why.clone())
    }

    fn note_unreached(&self, host: &str, why: &str) {
        let now = self.clock.now();
        let mut unreached = self.unreached.lock().unwrap_or_else(PoisonError::into_inner);
        unreached.retain(|_, (at, _)| now.since(*at) < UNREACHED);
        if unreached.len() < UNREACHED_MAX {
            unreached.insert(host.to_owned(), (now, why.to_owned()));
        }
    }

    /// Takes the store off the async threads: it reads and writes files.
    async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Images) -> super::Result<T> + Send + 'static,
    ) -> Result<T, Status> {
        let images = self.clone();
        tokio::task::spawn_blocking(move || work(&images))
            .await
            .map_err(|error| Status::internal(format!("image service: {error}")))?
            .map_err(status)
    }
}

#[tonic::async_trait]
impl ImageService for Images {
    async fn list_images(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let wanted = request.into_inner().filter.and_then(|filter| filter.image);
        let wanted = wanted.map(|spec| spec.image).filter(|name| !name.is_empty());
        let images = self
            .with_store(move |images| match wanted {
                Some(name) => Ok(images.store.resolve(&name).into_iter().collect()),
                None => images.store.list(),
            })
            .await?;
        Ok(Response::new(ListImagesResponse { images: images.iter().map(message).collect() }))
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        let name = named(request.into_inner().image)?;
        let image = self.with_store(move |images| Ok(images.store.resolve(&name))).await?;
        Ok(Response::new(ImageStatusResponse {
            image: image.as_ref().map(message),
            ..ImageStatusResponse::default()
        }))
    }

    async fn pull_image(
        &self,
        request: Request<PullImageRequest>,
    ) -> Result<Response<PullImageResponse>, Status> {
        let request = request.into_inner();
        let name = named(request.image)?;
        let auth = auth(request.auth.unwrap_or_default())?;
        let (image, instead) = self.pull(&name, &auth).await.map_err(status)?;
        let mut response = Response::new(PullImageResponse { image_ref: image.id });
        if let Some(why) = instead {
            let plain: String = why.chars().filter(|c| c.is_ascii() && !c.is_control()).collect();
            let why = plain.parse().unwrap_or(MetadataValue::from_static("no registry"));
            response.metadata_mut().insert(IMPORTED_INSTEAD, why);
        }
        Ok(response)
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let name = named(request.into_inner().image)?;
        self.with_store(move |images| {
            // All of its references go, whichever one it is called by; gone already is as good.
            match images.store.resolve(&name) {
                Some(image) => images.store.remove(&image.id, &*images.user).map(drop),
                None => Ok(()),
            }
        })
        .await?;
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn image_fs_info(
        &self,
        _request: Request<ImageFsInfoRequest>,
    ) -> Result<Response<ImageFsInfoResponse>, Status> {
        let usage = self
            .with_store(|images| {
                let used = images.store.bytes()?;
                let mountpoint = images.store.directory().display().to_string();
                Ok(FilesystemUsage {
                    timestamp: images.clock.now().0.saturating_mul(1000),
                    fs_id: Some(FilesystemIdentifier { mountpoint }),
                    used_bytes: Some(UInt64Value { value: used }),
                    inodes_used: None,
                })
            })
            .await?;
        Ok(Response::new(ImageFsInfoResponse {
            image_filesystems: vec![usage.clone()],
            container_filesystems: vec![usage],
        }))
    }
}

fn named(spec: Option<ImageSpec>) -> Result<String, Status> {
    spec.map(|spec| spec.image)
        .filter(|name| !name.is_empty())
        .ok_or_else(|| Status::invalid_argument("no image is named"))
}

/// Credentials as CRI has them: `auth` is both, encoded.
fn auth(config: AuthConfig) -> Result<Auth, Status> {
    let mut auth = Auth {
        username: config.username,
        password: config.password,
        identity_token: config.identity_token,
        registry_token: config.registry_token,
    };
    if auth.username.is_empty() && !config.auth.is_empty() {
        let bad = || Status::invalid_argument("the credentials are not base64 of user:password");
        let plain = BASE64_STANDARD.decode(config.auth).map_err(|_| bad())?;
        let plain = String::from_utf8(plain).map_err(|_| bad())?;
        let (username, password) = plain.split_once(':').ok_or_else(bad)?;
        (auth.username, auth.password) =
            (username.to_owned(), password.trim_end_matches('\0').to_owned());
    }
    Ok(auth)
}

fn message(image: &Image) -> rpc::cri::Image {
    // `uid`, `uid:gid` or a name; the group has no field.
    let user = image.config.user.split(':').next().unwrap_or_default();
    let uid = if user.is_empty() { Some(0) } else { user.parse().ok() };
    rpc::cri::Image {
        id: image.id.clone(),
        repo_tags: image.references.clone(),
        repo_digests: image.digests.clone(),
        size: image.size,
        uid: uid.map(|value| Int64Value { value }),
        username: if uid.is_none() { user.to_owned() } else { String::new() },
        spec: Some(ImageSpec { image: image.id.clone(), ..ImageSpec::default() }),
        // It came with the binary, or somebody imported it: it cannot be fetched again.
        pinned: image.references.iter().any(|reference| !image.pulled.contains(reference)),
    }
}

fn status(error: ImageError) -> Status {
    let code = match &error {
        ImageError::Io { .. } | ImageError::Index { .. } => Code::Internal,
        ImageError::Archive(_) | ImageError::Reference { .. } => Code::InvalidArgument,
        ImageError::NotFound(_) => Code::NotFound,
        ImageError::InUse { .. } => Code::FailedPrecondition,
        ImageError::Pull { source, .. } => match source {
            PullError::NotFound(_) => Code::NotFound,
            PullError::Denied(_) => Code::PermissionDenied,
            PullError::Unreachable { .. } | PullError::Answer { .. } => Code::Unavailable,
            PullError::Unfit(_) => Code::FailedPrecondition,
            PullError::Store(_) => Code::Internal,
        },
    };
    Status::new(code, stdx::one_line(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::testing::{docker_archive, layer};
    use stdx::SystemClock;

    fn spec(image: &str) -> Option<ImageSpec> {
        Some(ImageSpec { image: image.to_owned(), ..ImageSpec::default() })
    }

    #[tokio::test]
    async fn answers_for_what_is_there_and_never_pretends_a_pull() {
        if !rustix::process::geteuid().is_root() {
            return println!("skipped: import needs root");
        }
        let directory = tempfile::tempdir().unwrap();
        let store = ImageStore::open(directory.path()).unwrap();
        store.import_bytes(docker_archive("127.0.0.1:1/web:1", &[layer(&[("a", b"a")])])).unwrap();
        let used = |_: &str| Some("c1".to_owned());
        let images = Images::new(store, Registries::default(), Arc::new(SystemClock), used);

        let pulled = images.pull_image(Request::new(PullImageRequest {
            image: spec("127.0.0.1:1/web:1"),
            ..PullImageRequest::default()
        }));
        let pulled = pulled.await.unwrap();
        let why = pulled.metadata().get(IMPORTED_INSTEAD).unwrap().to_str().unwrap();
        assert!(why.contains("reach http://127.0.0.1:1: Connection refused"), "{why}");
        let id = pulled.into_inner().image_ref;
        let status = images.image_status(Request::new(ImageStatusRequest {
            image: spec("127.0.0.1:1/web:1"),
            ..ImageStatusRequest::default()
        }));
        assert_eq!(status.await.unwrap().into_inner().image.unwrap().id, id);
        let listed = images.list_images(Request::new(ListImagesRequest::default())).await.unwrap();
        assert_eq!(listed.into_inner().images[0].repo_tags, ["127.0.0.1:1/web:1"]);

        let missing = images
            .pull_image(Request::new(PullImageRequest {
                image: spec("127.0.0.1:1/web:2"),
                ..PullImageRequest::default()
            }))
            .await
            .unwrap_err();
        assert_eq!(missing.code(), Code::Unavailable);
        assert_eq!(
            missing.message(),
            "pull image 127.0.0.1:1/web:2: reach http://127.0.0.1:1: Connection refused (os error 111)"
        );
        let removed = images
            .remove_image(Request::new(RemoveImageRequest { image: spec("127.0.0.1:1/web:1") }))
            .await;
        assert_eq!(removed.unwrap_err().code(), Code::FailedPrecondition);
        let info = images.image_fs_info(Request::new(ImageFsInfoRequest {})).await.unwrap();
        assert_eq!(
            info.into_inner().image_filesystems[0].used_bytes,
            Some(UInt64Value { value: 1 })
        );
    }
}
