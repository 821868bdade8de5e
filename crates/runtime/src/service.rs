//! CRI's RuntimeService: each verb takes its message apart and hands on.
//!
//! What changes something runs in a task of its own, so that a caller that goes away leaves nothing half done.

use crate::{
    Embedded,
    error::{Error, Result},
    events::EventStream,
};
use rpc::cri::{
    self, CgroupDriver, ContainerState, ContainerStateValue, LinuxRuntimeConfiguration,
    PodSandboxState, RuntimeCondition, runtime_service_server::RuntimeService,
};
use std::{collections::HashMap, future::Future, time::Duration};
use tonic::{Request, Response, Status};

type Answer<T> = Result<Response<T>, Status>;

/// Runs to its end whatever becomes of the caller.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T, Status> {
    let ended = tokio::spawn(work).await.map_err(|error| Status::internal(error.to_string()))?;
    ended.map_err(Status::from)
}

fn answer<T>(message: T) -> Answer<T> {
    Ok(Response::new(message))
}

fn selected(labels: &HashMap<String, String>, selector: &HashMap<String, String>) -> bool {
    selector.iter().all(|(name, value)| labels.get(name) == Some(value))
}

fn required<T>(part: Option<T>, name: &str) -> Result<T, Status> {
    part.ok_or_else(|| Status::invalid_argument(format!("the request has no {name}")))
}

#[tonic::async_trait]
impl RuntimeService for Embedded {
    async fn version(&self, request: Request<cri::VersionRequest>) -> Answer<cri::VersionResponse> {
        let asked = request.into_inner().version;
        answer(cri::VersionResponse {
            version: if asked.is_empty() { "0.1.0".to_owned() } else { asked },
            runtime_name: "stanchion".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: "v1".to_owned(),
        })
    }

    async fn status(&self, _request: Request<cri::StatusRequest>) -> Answer<cri::StatusResponse> {
        let ready = |kind: &str| RuntimeCondition {
            r#type: kind.to_owned(),
            status: true,
            ..Default::default()
        };
        let conditions = vec![ready("RuntimeReady"), ready("NetworkReady")];
        answer(cri::StatusResponse {
            status: Some(cri::RuntimeStatus { conditions }),
            runtime_handlers: vec![cri::RuntimeHandler {
                name: String::new(),
                features: Some(cri::RuntimeHandlerFeatures {
                    recursive_read_only_mounts: true,
                    user_namespaces: crate::spec::users_are_possible(),
                }),
            }],
            features: Some(cri::RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: false,
            }),
            ..cri::StatusResponse::default()
        })
    }

    async fn runtime_config(
        &self,
        _request: Request<cri::RuntimeConfigRequest>,
    ) -> Answer<cri::RuntimeConfigResponse> {
        let linux = LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs as i32 };
        answer(cri::RuntimeConfigResponse { linux: Some(linux) })
    }

    async fn update_runtime_config(
        &self,
        _request: Request<cri::UpdateRuntimeConfigRequest>,
    ) -> Answer<cri::UpdateRuntimeConfigResponse> {
        Err(Status::unimplemented("the pod range is the network's own configuration"))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<cri::RunPodSandboxRequest>,
    ) -> Answer<cri::RunPodSandboxResponse> {
        let request = request.into_inner();
        if !request.runtime_handler.is_empty() {
            let handler = request.runtime_handler;
            return Err(Status::invalid_argument(format!(
                "no runtime for {handler:?} is configured"
            )));
        }
        let (runtime, config) = (self.clone(), required(request.config, "config")?);
        let made =
            to_the_end(async move { runtime.run_sandbox(config, request.runtime_handler).await });
        answer(cri::RunPodSandboxResponse { pod_sandbox_id: made.await? })
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<cri::StopPodSandboxRequest>,
    ) -> Answer<cri::StopPodSandboxResponse> {
        let (runtime, id) = (self.clone(), request.into_inner().pod_sandbox_id);
        to_the_end(async move { runtime.stop_sandbox(&id).await }).await?;
        answer(cri::StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<cri::RemovePodSandboxRequest>,
    ) -> Answer<cri::RemovePodSandboxResponse> {
        let (runtime, id) = (self.clone(), request.into_inner().pod_sandbox_id);
        to_the_end(async move { runtime.remove_sandbox(&id).await }).await?;
        answer(cri::RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<cri::PodSandboxStatusRequest>,
    ) -> Answer<cri::PodSandboxStatusResponse> {
        let request = request.into_inner();
        let sandbox = self.sandbox(&request.pod_sandbox_id)?;
        let info = if request.verbose {
            HashMap::from([("pid".to_owned(), sandbox.hold().shim.to_string())])
        } else {
            HashMap::new()
        };
        answer(cri::PodSandboxStatusResponse {
            status: Some(sandbox.status()),
            info,
            containers_statuses: self
                .containers_of(&sandbox.id)
                .iter()
                .map(|container| container.status())
                .collect(),
            timestamp: self.now(),
        })
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<cri::ListPodSandboxRequest>,
    ) -> Answer<cri::ListPodSandboxResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let wanted = |sandbox: &cri::PodSandbox| {
            let state = filter.state.as_ref().map(|state: &cri::PodSandboxStateValue| state.state);
            sandbox.id.starts_with(&filter.id)
                && state.is_none_or(|state| state == sandbox.state)
                && selected(&sandbox.labels, &filter.label_selector)
        };
        let items =
            self.sandboxes().iter().map(|sandbox| sandbox.summary()).filter(wanted).collect();
        answer(cri::ListPodSandboxResponse { items })
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<cri::PodSandboxStatsRequest>,
    ) -> Answer<cri::PodSandboxStatsResponse> {
        let sandbox = self.sandbox(&request.into_inner().pod_sandbox_id)?;
        let stats = self.counted(move |it| it.sandbox_stats(&sandbox)).await?;
        answer(cri::PodSandboxStatsResponse { stats: Some(stats) })
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<cri::ListPodSandboxStatsRequest>,
    ) -> Answer<cri::ListPodSandboxStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let ready = PodSandboxState::SandboxReady as i32;
        let sandboxes = self.sandboxes().into_iter().filter(|sandbox| {
            let summary = sandbox.summary();
            summary.state == ready
                && summary.id.starts_with(&filter.id)
                && selected(&summary.labels, &filter.label_selector)
        });
        let sandboxes: Vec<_> = sandboxes.collect();
        let count = move |it: &Embedded| {
            sandboxes.iter().map(|sandbox| it.sandbox_stats(sandbox)).collect()
        };
        let stats = self.counted(count).await?;
        answer(cri::ListPodSandboxStatsResponse { stats })
    }

    async fn port_forward(
        &self,
        request: Request<cri::PortForwardRequest>,
    ) -> Answer<cri::PortForwardResponse> {
        answer(cri::PortForwardResponse {
            url: self.inner.streaming.port_forward(request.into_inner())?,
        })
    }

    async fn create_container(
        &self,
        request: Request<cri::CreateContainerRequest>,
    ) -> Answer<cri::CreateContainerResponse> {
        let request = request.into_inner();
        let config = required(request.config, "config")?;
        let container_id = self.create_container(&request.pod_sandbox_id, config)?;
        answer(cri::CreateContainerResponse { container_id })
    }

    async fn start_container(
        &self,
        request: Request<cri::StartContainerRequest>,
    ) -> Answer<cri::StartContainerResponse> {
        let (runtime, id) = (self.clone(), request.into_inner().container_id);
        to_the_end(async move { runtime.start_container(&id).await }).await?;
        answer(cri::StartContainerResponse {})
    }

    async fn stop_container(
        &self,
        request: Request<cri::StopContainerRequest>,
    ) -> Answer<cri::StopContainerResponse> {
        let request = request.into_inner();
        let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
        let (runtime, id) = (self.clone(), request.container_id);
        to_the_end(async move { runtime.stop_container(&id, grace).await }).await?;
        answer(cri::StopContainerResponse {})
    }

    async fn remove_container(
        &self,
        request: Request<cri::RemoveContainerRequest>,
    ) -> Answer<cri::RemoveContainerResponse> {
        let (runtime, id) = (self.clone(), request.into_inner().container_id);
        to_the_end(async move { runtime.remove_container(&id).await }).await?;
        answer(cri::RemoveContainerResponse {})
    }

    async fn list_containers(
        &self,
        request: Request<cri::ListContainersRequest>,
    ) -> Answer<cri::ListContainersResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let wanted = |container: &cri::Container| {
            let state = filter.state.as_ref().map(|state: &ContainerStateValue| state.state);
            container.id.starts_with(&filter.id)
                && container.pod_sandbox_id.starts_with(&filter.pod_sandbox_id)
                && state.is_none_or(|state| state == container.state)
                && selected(&container.labels, &filter.label_selector)
        };
        let containers =
            self.containers().iter().map(|container| container.summary()).filter(wanted).collect();
        answer(cri::ListContainersResponse { containers })
    }

    async fn container_status(
        &self,
        request: Request<cri::ContainerStatusRequest>,
    ) -> Answer<cri::ContainerStatusResponse> {
        let request = request.into_inner();
        let container = self.container(&request.container_id)?;
        let info = match container.running() {
            Ok(started) if request.verbose => {
                HashMap::from([("pid".to_owned(), started.pid.to_string())])
            }
            _ => HashMap::new(),
        };
        answer(cri::ContainerStatusResponse { status: Some(container.status()), info })
    }

    async fn update_container_resources(
        &self,
        request: Request<cri::UpdateContainerResourcesRequest>,
    ) -> Answer<cri::UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        self.update_resources(&request.container_id, &request.linux.unwrap_or_default())?;
        answer(cri::UpdateContainerResourcesResponse {})
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<cri::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<cri::UpdatePodSandboxResourcesResponse> {
        let request = request.into_inner();
        self.update_sandbox(&request.pod_sandbox_id, &request.resources.unwrap_or_default())?;
        answer(cri::UpdatePodSandboxResourcesResponse {})
    }

    async fn reopen_container_log(
        &self,
        request: Request<cri::ReopenContainerLogRequest>,
    ) -> Answer<cri::ReopenContainerLogResponse> {
        self.reopen_log(&request.into_inner().container_id).await?;
        answer(cri::ReopenContainerLogResponse {})
    }

    async fn container_stats(
        &self,
        request: Request<cri::ContainerStatsRequest>,
    ) -> Answer<cri::ContainerStatsResponse> {
        let container = self.container(&request.into_inner().container_id)?;
        let stats = self.counted(move |it| it.container_stats(&container)).await?;
        answer(cri::ContainerStatsResponse { stats: Some(stats) })
    }

    async fn list_container_stats(
        &self,
        request: Request<cri::ListContainerStatsRequest>,
    ) -> Answer<cri::ListContainerStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let running = ContainerState::ContainerRunning as i32;
        let containers = self.containers().into_iter().filter(|container| {
            let summary = container.summary();
            summary.state == running
                && summary.id.starts_with(&filter.id)
                && summary.pod_sandbox_id.starts_with(&filter.pod_sandbox_id)
                && selected(&summary.labels, &filter.label_selector)
        });
        let containers: Vec<_> = containers.collect();
        let count = move |it: &Embedded| {
            containers.iter().map(|container| it.container_stats(container)).collect()
        };
        let stats = self.counted(count).await?;
        answer(cri::ListContainerStatsResponse { stats })
    }

    async fn exec_sync(
        &self,
        request: Request<cri::ExecSyncRequest>,
    ) -> Answer<cri::ExecSyncResponse> {
        let cri::ExecSyncRequest { container_id, cmd, timeout } = request.into_inner();
        let patience =
            u64::try_from(timeout).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let text = cmd.join(" ");
        let runtime = self.clone();
        let ended =
            to_the_end(async move { runtime.exec_to_end(&container_id, cmd, patience).await })
                .await?;
        let Some((exit_code, stdout, stderr)) = ended else {
            let error =
                Error::DeadlineExceeded(format!("command {text:?} timed out after {timeout} s"));
            return Err(error.into());
        };
        answer(cri::ExecSyncResponse { stdout, stderr, exit_code })
    }

    async fn exec(&self, request: Request<cri::ExecRequest>) -> Answer<cri::ExecResponse> {
        let request = request.into_inner();
        self.container(&request.container_id)?.running()?;
        answer(cri::ExecResponse { url: self.inner.streaming.exec(request)? })
    }

    async fn attach(&self, request: Request<cri::AttachRequest>) -> Answer<cri::AttachResponse> {
        let request = request.into_inner();
        self.container(&request.container_id)?.running()?;
        answer(cri::AttachResponse { url: self.inner.streaming.attach(request)? })
    }

    type GetContainerEventsStream = EventStream;

    async fn get_container_events(
        &self,
        _request: Request<cri::GetEventsRequest>,
    ) -> Answer<EventStream> {
        answer(self.inner.events.listen())
    }
}
