//! The actions of a plan, carried out: image, start, stop. Each says in events what upstream says.
//!
//! Upstream: `pkg/kubelet/images/image_manager.go`, `kuberuntime_container.go` (startContainer, killContainer), 1.36.

mod hooks;
mod image;
mod resize;

pub(crate) use image::{PULLS_AT_ONCE, Unfetched, ensure as ensure_image};
pub(crate) use resize::resize;

use crate::{
    events::about_container,
    kubelet::Shared,
    plan::{Ensured, Why, containers, pod::GRACE_SECONDS_MIN},
    runtime::{RuntimeError, message},
    spec::{self, container::Prepared, environment, host_name, hosts},
};
use ::volumes::subpath;
use api::{
    Object,
    core::v1::{Container, Pod},
};
use std::{collections::BTreeMap, io, path::PathBuf, pin::pin, time::Duration};
use stdx::Timestamp;
use world::Event;

/// Upstream: `DefaultTerminationGracePeriodSeconds`.
const GRACE_SECONDS_DEFAULT: i64 = 30;

/// Why a container could not be started: a reason of the API, and its message.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// One run of a container.
pub(crate) struct Run<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) attempt: u32,
    pub(crate) sandbox: &'a str,
    pub(crate) sandbox_attempt: u32,
    pub(crate) address: &'a str,
    pub(crate) image: &'a Ensured,
    /// For an ephemeral container with a target: the id of that, if it runs.
    pub(crate) target: Option<Option<&'a str>>,
}

/// Creates and starts.
pub(crate) async fn start(shared: &Shared, run: &Run<'_>) -> Result<(), Refused> {
    let (pod, container) = (run.pod, run.container);
    let warn = |message: String| {
        let event = Event::warning(pod, "Failed", message);
        about_container(&*shared.client, pod, container, event);
    };
    let config_error = |message: String| {
        warn(format!("Error: {message}"));
        Refused { reason: "CreateContainerConfigError", message }
    };
    let volumes = shared.volumes.published(pod.uid());
    let facts = &shared.facts;
    let from_files = {
        let (container, volumes) = (container.clone(), volumes.clone());
        let read = move || spec::env_files::read(&container, &volumes);
        let read = tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string());
        read.and_then(|it| it).map_err(config_error)?
    };
    // The world is looked at once, at the start: what changes later is for the next run.
    let (environment, parts) = {
        let world = shared.client.world();
        let environment = environment::of(&world, pod, container, facts, run.address, &from_files);
        let environment = environment.map_err(config_error)?;
        let parts = spec::container::sub_paths(pod, container, &environment, &volumes, facts)
            .map_err(config_error)?;
        (environment, parts)
    };
    let mut bound: BTreeMap<usize, PathBuf> = BTreeMap::new();
    for (index, part) in parts {
        let path = subpath::publish(&part).await.map_err(|error| {
            tracing::warn!(
                pod = pod.name(),
                volume = part.volume,
                error = stdx::one_line(&error),
                "subPath"
            );
            // Not the cause: it could tell about the host's files.
            config_error(format!(
                "failed to prepare subPath for volumeMount \"{}\" of container \"{}\"",
                part.volume, container.name
            ))
        })?;
        bound.insert(index, path);
    }
    let target = match run.target {
        Some(None) => {
            let name = target_name(pod, container);
            return Err(config_error(format!("unable to find target container {name}")));
        }
        Some(Some(id)) => Some(id),
        None => None,
    };
    let prepared = Prepared {
        target,
        attempt: run.attempt,
        image: &run.image.image,
        image_ref: &run.image.image.id,
        image_volumes: &run.image.volumes,
        environment: &environment,
        volumes: &volumes,
        parts: &bound,
    };
    let mut config =
        spec::container::config(pod, container, &prepared, facts).map_err(config_error)?;
    let mut sandbox_config = spec::sandbox::config(pod, run.sandbox_attempt, facts);
    if let Some(first) = shared.users.of(pod, facts).await.map_err(config_error)? {
        spec::security::map_users(&mut sandbox_config, Some(&mut config), first);
    }
    files(shared, run).await.map_err(|error| config_error(error.to_string()))?;
    let request = message::CreateContainerRequest {
        pod_sandbox_id: run.sandbox.to_owned(),
        config: Some(config),
        sandbox_config: Some(sandbox_config),
    };
    let refused = |reason: &'static str| {
        move |error: RuntimeError| {
            warn(format!("Error: {error}"));
            Refused { reason, message: error.message }
        }
    };
    let id =
        shared.runtime.create_container(request).await.map_err(refused("CreateContainerError"))?;
    about_container(
        &*shared.client,
        pod,
        container,
        Event::normal(pod, "Created", "Container created"),
    );
    shared.runtime.start_container(&id).await.map_err(refused("RunContainerError"))?;
    about_container(
        &*shared.client,
        pod,
        container,
        Event::normal(pod, "Started", "Container started"),
    );
    let hook = container.lifecycle.as_ref().and_then(|it| it.post_start.as_ref());
    if let Some(hook) = hook
        && let Err(error) = hooks::run(shared, pod, container, &id, run.address, hook).await
    {
        tracing::warn!(pod = pod.name(), container = container.name, error, "postStart");
        let grace = pod.spec.as_ref().and_then(|it| it.termination_grace_period_seconds);
        let grace = grace.unwrap_or(GRACE_SECONDS_DEFAULT).max(GRACE_SECONDS_MIN);
        // Not the cause: it could hold secrets.
        let event = Event::warning(pod, "FailedPostStartHook", "PostStartHook failed");
        about_container(&*shared.client, pod, container, event);
        let killing = Event::normal(pod, "Killing", "FailedPostStartHook");
        about_container(&*shared.client, pod, container, killing);
        let _ended = shared.runtime.stop_container(&id, grace).await;
        return Err(Refused { reason: "PostStartHookError", message: error });
    }
    Ok(())
}

/// What must lie on the disk before the container is made: its hosts file, its last word, its log's directory.
async fn files(shared: &Shared, run: &Run<'_>) -> io::Result<()> {
    let (pod, facts) = (run.pod, &shared.facts);
    let (name, domain) = host_name(pod, facts);
    let text = hosts::content(pod, run.address, &name, &domain, &facts.host_hosts);
    let hosts_file = facts.hosts_file(pod.uid());
    let word = spec::container::termination_path(run.container)
        .map(|_| facts.termination_log(pod.uid(), &run.container.name, run.attempt));
    let logs = facts.pod_log_dir(pod).join(&run.container.name);
    let write = move || {
        if let Some(directory) = hosts_file.parent() {
            std::fs::create_dir_all(directory)?;
        }
        // The same file, not another one: running containers have it bound.
        if std::fs::read(&hosts_file).ok().as_deref() != Some(text.as_bytes()) {
            std::fs::write(&hosts_file, text)?;
        }
        if let Some(word) = word {
            if let Some(directory) = word.parent() {
                std::fs::create_dir_all(directory)?;
            }
            std::fs::write(&word, b"")?;
            // Whoever the container runs as may write it.
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
            std::fs::set_permissions(&word, mode)?;
        }
        std::fs::create_dir_all(logs)
    };
    tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
}

/// Killed processes end in a moment, unless the kernel holds them for a volume that does not answer.
const KILLED_MAX: Duration = Duration::from_secs(3);

/// An end may write again what could not be written, and wait for that.
const ABORTS_MAX: u32 = 3;

/// One order to end a container.
pub(crate) struct Stop<'a> {
    /// The pod's uid.
    pub(crate) pod: &'a str,
    pub(crate) container: &'a str,
    pub(crate) id: &'a str,
    /// When it is killed.
    pub(crate) by: Timestamp,
    pub(crate) why: Why,
    /// Not a repetition with less patience: hooks run once.
    pub(crate) first: bool,
}

/// Ends one container: hook, then its stop signal, then SIGKILL. `pod`: the object as it was seen last.
pub(crate) async fn stop(
    shared: &Shared,
    pod: Option<&Pod>,
    stop: &Stop<'_>,
    address: &str,
) -> Result<(), RuntimeError> {
    if stop.first {
        tell(shared, pod, stop, address).await;
    }
    let left = stop.by.since(shared.clock.now()) + Duration::from_millis(500);
    let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX).max(GRACE_SECONDS_MIN);
    let mut stopped = pin!(shared.runtime.stop_container(stop.id, seconds));
    let killed = Duration::from_secs(seconds.unsigned_abs()) + KILLED_MAX;
    if let Some(stopped) = stdx::timeout(killed, stopped.as_mut()).await {
        return stopped;
    }
    for _ in 0..ABORTS_MAX {
        shared.volumes.abort(stop.pod).await;
        if let Some(stopped) = stdx::timeout(KILLED_MAX, stopped.as_mut()).await {
            return stopped;
        }
    }
    stopped.await
}

/// Says that a container is to end, and runs its hook.
pub(crate) async fn tell(shared: &Shared, pod: Option<&Pod>, stop: &Stop<'_>, address: &str) {
    let Some(pod) = pod else { return };
    let Some(container) = containers::named(pod, stop.container) else { return };
    let message = killing(pod, &container, stop.why);
    about_container(&*shared.client, pod, &container, Event::normal(pod, "Killing", message));
    let hook = container.lifecycle.as_ref().and_then(|it| it.pre_stop.as_ref());
    let Some(hook) = hook else { return };
    let left = stop.by.since(shared.clock.now());
    let hook = hooks::run(shared, pod, &container, stop.id, address, hook);
    if let Some(Err(error)) = stdx::timeout(left, hook).await {
        tracing::warn!(pod = pod.name(), container = stop.container, error, "preStop");
        let event = Event::warning(pod, "FailedPreStopHook", "PreStopHook failed");
        about_container(&*shared.client, pod, &container, event);
    }
}

fn target_name(pod: &Pod, container: &Container) -> String {
    let ephemeral = pod.spec.iter().flat_map(|it| it.ephemeral_containers.iter().flatten());
    let mut own = ephemeral.filter(|it| it.name == container.name);
    own.find_map(|it| it.target_container_name.clone()).unwrap_or_default()
}

fn killing(pod: &Pod, container: &Container, why: Why) -> String {
    let name = &container.name;
    let policy = container.restart_policy.as_deref();
    let policy = policy.or(pod.spec.as_ref().and_then(|it| it.restart_policy.as_deref()));
    let again = if policy == Some("Never") { "" } else { ", will be restarted" };
    match why {
        Why::Ending => format!("Stopping container {name}"),
        Why::Liveness => format!("Container {name} failed liveness probe{again}"),
        Why::Startup => format!("Container {name} failed startup probe{again}"),
        Why::RestartAll => "killing".to_owned(),
        Why::Changed => format!("Container {name} definition changed, will be restarted"),
        Why::Resize => format!("Container {name} resize requires restart, will be restarted"),
        Why::Unknown => {
            "Container is in \"Unknown\" state, try killing it before restart".to_owned()
        }
    }
}
