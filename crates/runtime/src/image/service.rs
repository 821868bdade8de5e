//! CRI's ImageService over the store.
//!
//! Upstream: staging/src/k8s.io/cri-api/pkg/apis/runtime/v1/api.proto, service ImageService.
//! PullImage answers for what is there and says what to do about the rest; it fetches nothing.

use super::{Image, ImageError, ImageStore, Reference, TOOLBOX_REFERENCE};
use rpc::cri::{
    FilesystemIdentifier, FilesystemUsage, ImageFsInfoRequest, ImageFsInfoResponse, ImageSpec,
    ImageStatusRequest, ImageStatusResponse, Int64Value, ListImagesRequest, ListImagesResponse,
    PullImageRequest, PullImageResponse, RemoveImageRequest, RemoveImageResponse, UInt64Value,
    image_service_server::ImageService,
};
use std::sync::Arc;
use stdx::Clock;
use tonic::{Code, Request, Response, Status};

/// Names a container that uses an image id, if any does.
type User = dyn Fn(&str) -> Option<String> + Send + Sync;

/// The image half of the container runtime interface.
#[derive(Clone)]
pub struct Images {
    store: ImageStore,
    clock: Arc<dyn Clock>,
    user: Arc<User>,
}

impl Images {
    /// `user` names a container that uses an image id: such an image is not removed.
    pub fn new(
        store: ImageStore,
        clock: Arc<dyn Clock>,
        user: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Images {
        Images { store, clock, user: Arc::new(user) }
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
        let name = named(request.into_inner().image)?;
        let image = self
            .with_store(move |images| match images.store.resolve(&name) {
                Some(image) => Ok(Ok(image)),
                None => Reference::parse(&name).map(|_| Err(name)),
            })
            .await?;
        match image {
            Ok(image) => Ok(Response::new(PullImageResponse { image_ref: image.id })),
            Err(name) => Err(Status::not_found(format!(
                "pull image {name}: not in the local store; import it with `stanchion image import`"
            ))),
        }
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
        // It came with the binary and cannot be fetched again.
        pinned: image.references.iter().any(|reference| reference == TOOLBOX_REFERENCE),
    }
}

fn status(error: ImageError) -> Status {
    let code = match &error {
        ImageError::Io { .. } | ImageError::Index { .. } => Code::Internal,
        ImageError::Archive(_) | ImageError::Reference { .. } => Code::InvalidArgument,
        ImageError::NotFound(_) => Code::NotFound,
        ImageError::InUse { .. } => Code::FailedPrecondition,
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
        let directory = tempfile::tempdir().unwrap();
        let store = ImageStore::open(directory.path()).unwrap();
        store.import_bytes(docker_archive("web:1", &[layer(&[("a", b"a")])])).unwrap();
        let used = |_: &str| Some("c1".to_owned());
        let images = Images::new(store, Arc::new(SystemClock), used);

        let pulled = images.pull_image(Request::new(PullImageRequest {
            image: spec("web:1"),
            ..PullImageRequest::default()
        }));
        let id = pulled.await.unwrap().into_inner().image_ref;
        let status = images.image_status(Request::new(ImageStatusRequest {
            image: spec("docker.io/library/web:1"),
            ..ImageStatusRequest::default()
        }));
        assert_eq!(status.await.unwrap().into_inner().image.unwrap().id, id);
        let listed = images.list_images(Request::new(ListImagesRequest::default())).await.unwrap();
        assert_eq!(listed.into_inner().images[0].repo_tags, ["docker.io/library/web:1"]);

        let missing = images
            .pull_image(Request::new(PullImageRequest {
                image: spec("web:2"),
                ..PullImageRequest::default()
            }))
            .await
            .unwrap_err();
        assert_eq!(missing.code(), Code::NotFound);
        assert_eq!(
            missing.message(),
            "pull image web:2: not in the local store; import it with `stanchion image import`"
        );
        let removed =
            images.remove_image(Request::new(RemoveImageRequest { image: spec("web:1") })).await;
        assert_eq!(removed.unwrap_err().code(), Code::FailedPrecondition);
        let info = images.image_fs_info(Request::new(ImageFsInfoRequest {})).await.unwrap();
        assert_eq!(
            info.into_inner().image_filesystems[0].used_bytes,
            Some(UInt64Value { value: 1 })
        );
    }
}
