//! The runtime behind CRI, over any tower service: a channel to a socket, or the server itself in this process.

use super::{
    Changes, Condition, Container, Image, Limits, Observed, PulledImage, Result, RunningPod,
    Runtime, RuntimeError, Sandbox, State, message,
};
use futures_util::{StreamExt, future::try_join_all};
use message::{
    image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient,
};
use std::{collections::HashMap, sync::Arc};
use stdx::{BoxFuture, Timestamp};
use tonic::{Code, Status, body::Body, codegen::StdError};

/// Labels that every runtime keeps for us. Upstream: `kubelet/types/labels.go`.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// An annotation of sandboxes: how long a stop may take when the pod's object is gone.
pub const GRACE_SECONDS: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Metadata of an answer to PullImage, where the embedded runtime has an imported image in place of a pulled one.
const IMPORTED_INSTEAD: &str = "stanchion-imported-instead";

/// 16 MiB: exec output and lists of many containers are larger than gRPC's default of 4 MiB.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A runtime that speaks CRI v1.
#[derive(Clone)]
pub struct Cri<S> {
    runtime: RuntimeServiceClient<S>,
    images: ImageServiceClient<S>,
}

impl<S> Cri<S>
where
    S: tonic::client::GrpcService<Body> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<StdError>,
    S::ResponseBody: tonic::codegen::Body<Data = bytes::Bytes> + Send + 'static,
    <S::ResponseBody as tonic::codegen::Body>::Error: Into<StdError> + Send,
{
    /// `service` answers both the runtime's and the images' calls.
    pub fn new(service: S) -> Cri<S> {
        let runtime = RuntimeServiceClient::new(service.clone());
        let images = ImageServiceClient::new(service);
        Cri {
            runtime: runtime.max_decoding_message_size(ANSWER_BYTES_MAX),
            images: images.max_decoding_message_size(ANSWER_BYTES_MAX),
        }
    }

    async fn sandbox(&self, id: String) -> Result<Option<Sandbox>> {
        let request = message::PodSandboxStatusRequest { pod_sandbox_id: id, verbose: false };
        match self.runtime.clone().pod_sandbox_status(request).await {
            Ok(answer) => Ok(answer.into_inner().status.map(sandbox)),
            // Removed since it was listed.
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(error("PodSandboxStatus", status)),
        }
    }

    async fn container(&self, listed: message::Container) -> Result<Option<Container>> {
        let request =
            message::ContainerStatusRequest { container_id: listed.id.clone(), verbose: false };
        match self.runtime.clone().container_status(request).await {
            Ok(answer) => Ok(answer.into_inner().status.map(|it| container(it, listed))),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(error("ContainerStatus", status)),
        }
    }
}

impl<S> Runtime for Cri<S>
where
    S: tonic::client::GrpcService<Body> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<StdError>,
    S::ResponseBody: tonic::codegen::Body<Data = bytes::Bytes> + Send + 'static,
    <S::ResponseBody as tonic::codegen::Body>::Error: Into<StdError> + Send,
{
    fn condition(&self) -> BoxFuture<'_, Result<Condition>> {
        Box::pin(async {
            let request = message::VersionRequest { version: "v1".to_owned() };
            let version = self.runtime.clone().version(request).await;
            let version = version.map_err(|it| error("Version", it))?.into_inner();
            let request = message::StatusRequest { verbose: false };
            let status = self.runtime.clone().status(request).await;
            let status = status.map_err(|it| error("Status", it))?.into_inner();
            let (handlers, features) = (status.runtime_handlers, status.features);
            let conditions = status.status.unwrap_or_default().conditions;
            let mut problems = Vec::new();
            for (kind, what) in [
                ("RuntimeReady", "container runtime"),
                ("NetworkReady", "container runtime network"),
            ] {
                match conditions.iter().find(|it| it.r#type == kind) {
                    Some(it) if it.status => {}
                    Some(it) => problems.push(format!(
                        "{what} not ready: {kind}=false reason:{} message:{}",
                        it.reason, it.message
                    )),
                    None => problems.push(format!("{what} status unknown: {kind} not reported")),
                }
            }
            let version = format!("{}://{}", version.runtime_name, version.runtime_version);
            Ok(Condition { version, problems, handlers, features })
        })
    }

    fn pods(&self) -> BoxFuture<'_, Result<Vec<RunningPod>>> {
        Box::pin(async {
            let request = message::ListPodSandboxRequest { filter: None };
            let answer = self.runtime.clone().list_pod_sandbox(request).await;
            let items = answer.map_err(|it| error("ListPodSandbox", it))?.into_inner().items;
            let ours = items.into_iter().filter(|it| it.labels.contains_key(POD_UID));
            let mut pods: Vec<RunningPod> = ours
                .filter_map(|it| it.metadata)
                .map(|it| RunningPod { uid: it.uid, namespace: it.namespace, name: it.name })
                .collect();
            pods.sort_by(|a, b| a.uid.cmp(&b.uid));
            pods.dedup_by(|a, b| a.uid == b.uid);
            Ok(pods)
        })
    }

    fn observe<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<Observed>> {
        Box::pin(async move {
            let selector = HashMap::from([(POD_UID.to_owned(), uid.to_owned())]);
            let sandboxes = async {
                let filter = message::PodSandboxFilter {
                    label_selector: selector.clone(),
                    ..Default::default()
                };
                let request = message::ListPodSandboxRequest { filter: Some(filter) };
                let answer = self.runtime.clone().list_pod_sandbox(request).await;
                let items = answer.map_err(|it| error("ListPodSandbox", it))?.into_inner().items;
                try_join_all(items.into_iter().map(|it| self.sandbox(it.id))).await
            };
            let containers = async {
                let filter = message::ContainerFilter {
                    label_selector: selector.clone(),
                    ..Default::default()
                };
                let request = message::ListContainersRequest { filter: Some(filter) };
                let answer = self.runtime.clone().list_containers(request).await;
                let items =
                    answer.map_err(|it| error("ListContainers", it))?.into_inner().containers;
                try_join_all(items.into_iter().map(|it| self.container(it))).await
            };
            let (sandboxes, containers) = tokio::try_join!(sandboxes, containers)?;
            let mut observed = Observed {
                sandboxes: sandboxes.into_iter().flatten().collect(),
                containers: containers.into_iter().flatten().collect(),
            };
            observed.sort();
            Ok(observed)
        })
    }

    fn changes(&self) -> BoxFuture<'_, Result<Changes>> {
        Box::pin(async {
            let request = message::GetEventsRequest {};
            let answer = self.runtime.clone().get_container_events(request).await;
            let events = answer.map_err(|it| error("GetContainerEvents", it))?.into_inner();
            let uids = events
                .take_while(|it| std::future::ready(it.is_ok()))
                .filter_map(|it| std::future::ready(it.ok().and_then(uid_of)));
            Ok(Box::pin(uids) as Changes)
        })
    }

    fn run_sandbox(
        &self,
        config: message::PodSandboxConfig,
        handler: String,
    ) -> BoxFuture<'_, Result<String>> {
        Box::pin(async {
            let request =
                message::RunPodSandboxRequest { config: Some(config), runtime_handler: handler };
            let answer = self.runtime.clone().run_pod_sandbox(request).await;
            Ok(answer.map_err(|it| error("RunPodSandbox", it))?.into_inner().pod_sandbox_id)
        })
    }

    fn stop_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let request = message::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
            gone_is_fine("StopPodSandbox", self.runtime.clone().stop_pod_sandbox(request).await)
        })
    }

    fn remove_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let request = message::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
            gone_is_fine("RemovePodSandbox", self.runtime.clone().remove_pod_sandbox(request).await)
        })
    }

    fn image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Image>>> {
        Box::pin(async move {
            let image = message::ImageSpec { image: reference.to_owned(), ..Default::default() };
            let request = message::ImageStatusRequest { image: Some(image), verbose: false };
            let answer = self.images.clone().image_status(request).await;
            let answer = answer.map_err(|it| error("ImageStatus", it))?.into_inner();
            Ok(answer.image.map(|it| Image {
                id: it.id,
                bytes: it.size,
                uid: it.uid.map(|it| it.value),
                username: it.username,
            }))
        })
    }

    fn pull_image(&self, request: message::PullImageRequest) -> BoxFuture<'_, Result<PulledImage>> {
        Box::pin(async {
            let answer = self.images.clone().pull_image(request).await;
            let answer = answer.map_err(|it| error("PullImage", it))?;
            let instead = answer.metadata().get(IMPORTED_INSTEAD);
            let imported_instead =
                instead.map(|it| it.to_str().unwrap_or("no registry").to_owned());
            Ok(PulledImage { reference: answer.into_inner().image_ref, imported_instead })
        })
    }

    fn remove_image<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let image = message::ImageSpec { image: id.to_owned(), ..Default::default() };
            let request = message::RemoveImageRequest { image: Some(image) };
            gone_is_fine("RemoveImage", self.images.clone().remove_image(request).await)
        })
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<message::Image>>> {
        Box::pin(async {
            let request = message::ListImagesRequest::default();
            let answer = self.images.clone().list_images(request).await;
            Ok(answer.map_err(|it| error("ListImages", it))?.into_inner().images)
        })
    }

    fn create_container(
        &self,
        request: message::CreateContainerRequest,
    ) -> BoxFuture<'_, Result<String>> {
        Box::pin(async {
            let answer = self.runtime.clone().create_container(request).await;
            Ok(answer.map_err(|it| error("CreateContainer", it))?.into_inner().container_id)
        })
    }

    fn start_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let request = message::StartContainerRequest { container_id: id.to_owned() };
            let answer = self.runtime.clone().start_container(request).await;
            answer.map(drop).map_err(|it| error("StartContainer", it))
        })
    }

    fn stop_container<'a>(&'a self, id: &'a str, grace_seconds: i64) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let request = message::StopContainerRequest {
                container_id: id.to_owned(),
                timeout: grace_seconds,
            };
            gone_is_fine("StopContainer", self.runtime.clone().stop_container(request).await)
        })
    }

    fn remove_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let request = message::RemoveContainerRequest { container_id: id.to_owned() };
            gone_is_fine("RemoveContainer", self.runtime.clone().remove_container(request).await)
        })
    }

    fn limit_container<'a>(
        &'a self,
        id: &'a str,
        resources: message::LinuxContainerResources,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let request = message::UpdateContainerResourcesRequest {
                container_id: id.to_owned(),
                linux: Some(resources),
                ..Default::default()
            };
            let answer = self.runtime.clone().update_container_resources(request).await;
            answer.map(drop).map_err(|it| error("UpdateContainerResources", it))
        })
    }

    fn limit_sandbox<'a>(
        &'a self,
        id: &'a str,
        resources: message::LinuxContainerResources,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let request = message::UpdatePodSandboxResourcesRequest {
                pod_sandbox_id: id.to_owned(),
                overhead: None,
                resources: Some(resources),
            };
            let answer = self.runtime.clone().update_pod_sandbox_resources(request).await;
            answer.map(drop).map_err(|it| error("UpdatePodSandboxResources", it))
        })
    }

    fn reopen_log<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let request = message::ReopenContainerLogRequest { container_id: id.to_owned() };
            let answer = self.runtime.clone().reopen_container_log(request).await;
            answer.map(drop).map_err(|it| error("ReopenContainerLog", it))
        })
    }

    fn execute<'a>(
        &'a self,
        id: &'a str,
        command: Vec<String>,
        timeout_seconds: i64,
    ) -> BoxFuture<'a, Result<(i32, Vec<u8>)>> {
        Box::pin(async move {
            let request = message::ExecSyncRequest {
                container_id: id.to_owned(),
                cmd: command,
                timeout: timeout_seconds,
            };
            let answer = self.runtime.clone().exec_sync(request).await;
            let answer = answer.map_err(|it| error("ExecSync", it))?.into_inner();
            let mut output = answer.stdout;
            output.extend(answer.stderr);
            Ok((answer.exit_code, output))
        })
    }

    fn exec(&self, request: message::ExecRequest) -> BoxFuture<'_, Result<String>> {
        Box::pin(async {
            let answer = self.runtime.clone().exec(request).await;
            Ok(answer.map_err(|it| error("Exec", it))?.into_inner().url)
        })
    }

    fn attach(&self, request: message::AttachRequest) -> BoxFuture<'_, Result<String>> {
        Box::pin(async {
            let answer = self.runtime.clone().attach(request).await;
            Ok(answer.map_err(|it| error("Attach", it))?.into_inner().url)
        })
    }

    fn port_forward(&self, request: message::PortForwardRequest) -> BoxFuture<'_, Result<String>> {
        Box::pin(async {
            let answer = self.runtime.clone().port_forward(request).await;
            Ok(answer.map_err(|it| error("PortForward", it))?.into_inner().url)
        })
    }

    fn stats(&self) -> BoxFuture<'_, Result<Vec<message::PodSandboxStats>>> {
        Box::pin(async {
            let request = message::ListPodSandboxStatsRequest { filter: None };
            let answer = self.runtime.clone().list_pod_sandbox_stats(request).await;
            Ok(answer.map_err(|it| error("ListPodSandboxStats", it))?.into_inner().stats)
        })
    }
}

fn error(operation: &'static str, status: Status) -> RuntimeError {
    let not_found = status.code() == Code::NotFound;
    let is_late = status.code() == Code::DeadlineExceeded;
    RuntimeError { operation, message: status.message().to_owned(), not_found, is_late }
}

fn gone_is_fine<T>(operation: &'static str, answer: std::result::Result<T, Status>) -> Result<()> {
    match answer {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::NotFound => Ok(()),
        Err(status) => Err(error(operation, status)),
    }
}

fn uid_of(event: message::ContainerEventResponse) -> Option<Arc<str>> {
    let sandbox = event.pod_sandbox_status.and_then(|it| it.metadata).map(|it| it.uid);
    let label = || event.containers_statuses.first().and_then(|it| it.labels.get(POD_UID).cloned());
    sandbox.or_else(label).map(Arc::from)
}

fn sandbox(status: message::PodSandboxStatus) -> Sandbox {
    let options = status.linux.and_then(|it| it.namespaces).and_then(|it| it.options);
    Sandbox {
        attempt: status.metadata.unwrap_or_default().attempt,
        ready: status.state == message::PodSandboxState::SandboxReady as i32,
        created: nanos(status.created_at),
        ip: status.network.unwrap_or_default().ip,
        host_network: options.is_some_and(|it| it.network == message::NamespaceMode::Node as i32),
        grace_seconds: status.annotations.get(GRACE_SECONDS).and_then(|it| it.parse().ok()),
        id: status.id,
    }
}

fn container(status: message::ContainerStatus, listed: message::Container) -> Container {
    let state = match message::ContainerState::try_from(status.state) {
        Ok(message::ContainerState::ContainerCreated) => State::Created,
        Ok(message::ContainerState::ContainerRunning) => State::Running,
        Ok(message::ContainerState::ContainerExited) => State::Exited,
        Ok(message::ContainerState::ContainerUnknown) | Err(_) => State::Unknown,
    };
    let metadata = status.metadata.unwrap_or_default();
    let image = status.image.unwrap_or_default();
    let spec_image = image.user_specified_image.clone();
    let image = match image.user_specified_image {
        named if !named.is_empty() => named,
        _ => image.image,
    };
    let user = status.user.and_then(|it| it.linux);
    let limits = status.resources.and_then(|it| it.linux).map(|it| Limits {
        cpu_shares: it.cpu_shares,
        cpu_quota: it.cpu_quota.max(0),
        memory: it.memory_limit_in_bytes.max(0),
    });
    Container {
        id: status.id,
        sandbox: listed.pod_sandbox_id,
        name: metadata.name,
        attempt: metadata.attempt,
        state,
        image,
        spec_image,
        image_ref: status.image_ref,
        created: nanos(status.created_at),
        started: nanos(status.started_at),
        finished: nanos(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        log_path: status.log_path,
        user: user.map(|it| (it.uid, it.gid, it.supplemental_groups)),
        limits,
    }
}

fn nanos(nanoseconds: i64) -> Timestamp {
    Timestamp(nanoseconds / 1000)
}
