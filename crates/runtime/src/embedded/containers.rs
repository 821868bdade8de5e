//! Containers: created, started, stopped, removed, changed.

use super::{Embedded, KILL_PATIENCE, START_ERROR, ask};
use crate::{
    container::{Container, State, limits, security},
    error::{Attempt, Error, Result},
    link::Link,
    record::{self, ContainerRecord},
    spec, stop_signal,
};
use prost::Message;
use rpc::cri::{ContainerConfig, ContainerEventType, LinuxContainerResources};
use shim::protocol::{Exit, Named, Request, Signal};
use std::{fs, path::PathBuf, sync::Arc, time::Duration};

impl Embedded {
    pub(crate) fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
    ) -> Result<String> {
        let sandbox = self.sandbox(sandbox)?;
        sandbox.link()?;
        spec::check_container(&config)?;
        let wanted = config.image.clone().unwrap_or_default();
        let name = if wanted.image_ref.is_empty() { &wanted.image } else { &wanted.image_ref };
        let images = &self.inner.config.images;
        let image = images.resolve(name).or_else(|| images.resolve(&wanted.image));
        let image =
            image.ok_or_else(|| crate::image::ImageError::NotFound(wanted.image.clone()))?;
        let image_volumes = spec::image_volumes(&config, images)?;
        let from_image = stop_signal::parse(&image.config.stop_signal);
        let record = ContainerRecord {
            config: config.encode_to_vec(),
            created_at: self.now(),
            image_id: image.id.clone(),
            image_ref: image.digests.first().unwrap_or(&image.id).clone(),
            layers: image.layers.iter().map(|layer| layer.to_string_lossy().into_owned()).collect(),
            environment: spec::environment(&config, &image.config.env, &sandbox),
            arguments: spec::arguments(&config, &image.config)?,
            directory: [&config.working_dir, &image.config.working_dir]
                .into_iter()
                .find(|directory| !directory.is_empty())
                .map_or_else(|| "/".to_owned(), Clone::clone),
            user: image.config.user.clone(),
            stop_signal: stop_signal::of_interface(config.stop_signal)
                .or(from_image)
                .unwrap_or(stop_signal::DEFAULT),
            image_volumes,
        };
        let id = self.new_id();
        let directory = sandbox.directory.join("containers").join(&id);
        let group = self.inner.cgroups.container(&sandbox.group, &id, &limits(&config));
        let container =
            Container::new(id.clone(), sandbox, directory, record, config, group, State::Created)
                .map(Arc::new)?;
        if let Err(error) = self.make_container(&container) {
            // What was made of it is found by its directory and removed with the sandbox, if not now.
            let _kept_for_the_sandbox = record::remove(&container.directory);
            self.inner.cgroups.remove_if_unused(&container.group);
            return Err(error);
        }
        self.inner.containers().insert(id.clone(), Arc::clone(&container));
        self.tell(&id, ContainerEventType::ContainerCreatedEvent, &container.sandbox);
        Ok(id)
    }

    pub(super) fn make_container(&self, container: &Container) -> Result<()> {
        for part in ["upper", "work", "rootfs"] {
            let directory = container.directory.join(part);
            fs::create_dir_all(&directory).attempt(|| format!("make {}", directory.display()))?;
        }
        let cgroups = &self.inner.cgroups;
        cgroups.create(&container.group)?;
        cgroups.limit(&container.group, &container.resources())?;
        if !security(&container.config).privileged {
            cgroups.limit_devices(&container.group, &spec::device_rules(&container.config)?)?;
        }
        let log = PathBuf::from(container.log_path());
        if let Some(parent) = log.parent() {
            fs::create_dir_all(parent)
                .attempt(|| format!("make the log directory {}", parent.display()))?;
        }
        record::write(&container.directory, "config", &container.record)
    }

    pub(crate) fn seccomp(&self, container: &Container) -> Result<Vec<Vec<u8>>> {
        let security = security(&container.config);
        if security.privileged {
            return Ok(Vec::new());
        }
        self.inner.seccomp.programs(security.seccomp.as_ref(), container.capabilities)
    }

    /// Returns when the program runs. One that cannot be started has exited with code 128 and the reason.
    pub(crate) async fn start_container(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        match container.state() {
            State::Created => {}
            State::Running(_) => return Ok(()),
            State::Exited { .. } => return Err(Error::State(format!("container {id} has exited"))),
        }
        let failed = match self.start_created(&container).await {
            Ok(()) => return Ok(()),
            Err(failed) => failed,
        };
        // The shim has kept it in a file, if it came that far.
        let exit = record::read(&container.directory, "exit").unwrap_or_else(|| Exit {
            code: START_ERROR,
            finished_at: self.now(),
            start_error: stdx::one_line(&failed),
            ..Exit::default()
        });
        record::write(&container.directory, "exit", &exit)?;
        self.ended(&container, exit);
        Err(failed)
    }

    pub(super) async fn start_created(&self, container: &Container) -> Result<()> {
        let link = container.sandbox.link()?;
        let cgroup = self.inner.cgroups.describe(&container.group);
        let (start, sources) = spec::start(container, cgroup, self.seccomp(container)?)?;
        let (reply, _) = link.request(Request::Start(start), sources).await?;
        match reply.started {
            Some(started) if reply.error.is_empty() => {
                self.began(container, started);
                Ok(())
            }
            _ => {
                // No id: who reads it knows the container, and equal failures are counted together.
                let attempted = "start the container".to_owned();
                Err(Error::Shim { attempted, why: reply.error })
            }
        }
    }

    /// Asks it to end, kills it when the grace is over, and returns when it has ended.
    pub(crate) async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        if !matches!(container.state(), State::Running(_)) {
            return Ok(());
        }
        let link = container.sandbox.link()?;
        if !grace.is_zero() {
            self.signal(&link, &container, container.record.stop_signal, false).await?;
            if stdx::timeout(grace, container.wait_for_exit()).await.is_some() {
                return Ok(());
            }
        }
        self.signal(&link, &container, libc::SIGKILL, true).await?;
        match stdx::timeout(KILL_PATIENCE, container.wait_for_exit()).await {
            Some(_) => Ok(()),
            None => {
                Err(Error::DeadlineExceeded(format!("container {id} was killed and does not end")))
            }
        }
    }

    pub(super) async fn signal(
        &self,
        link: &Link,
        container: &Container,
        signal: i32,
        all: bool,
    ) -> Result<()> {
        let request = Request::Signal(Signal { container: container.id.clone(), signal, all });
        match ask(link, request, || format!("signal container {}", container.id)).await {
            // Its end is told by another way.
            Ok(_) | Err(Error::SandboxGone(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes it, running or not. May be repeated.
    pub(crate) async fn remove_container(&self, id: &str) -> Result<()> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        self.stop_container(id, Duration::ZERO).await?;
        if let Ok(link) = container.sandbox.link() {
            let request = Request::Forget(Named { container: id.to_owned() });
            match ask(&link, request, || format!("forget container {id}")).await {
                Ok(_) | Err(Error::SandboxGone(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.discard(&container).await
    }

    pub(super) async fn discard(&self, container: &Container) -> Result<()> {
        self.inner.cgroups.remove(&container.group).await?;
        record::remove(&container.directory)?;
        self.inner.containers().remove(&container.id);
        self.tell(&container.id, ContainerEventType::ContainerDeletedEvent, &container.sandbox);
        Ok(())
    }

    pub(crate) fn update_resources(
        &self,
        id: &str,
        wanted: &LinuxContainerResources,
    ) -> Result<()> {
        let container = self.container(id)?;
        self.inner.cgroups.limit(&container.group, wanted)?;
        container.set_resources(merged(container.resources(), wanted));
        Ok(())
    }

    /// What the whole pod may use from now on.
    pub(crate) fn update_sandbox(&self, id: &str, wanted: &LinuxContainerResources) -> Result<()> {
        let sandbox = self.sandbox(id)?;
        self.inner.cgroups.limit(&sandbox.group, wanted)
    }

    pub(crate) async fn reopen_log(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        container.running()?;
        let request = Request::Reopen(Named { container: id.to_owned() });
        ask(&container.sandbox.link()?, request, || format!("reopen the log of container {id}"))
            .await
            .map(drop)
    }
}

/// An update names only what changes.
fn merged(
    mut now: LinuxContainerResources,
    wanted: &LinuxContainerResources,
) -> LinuxContainerResources {
    let numbers = [
        (&mut now.cpu_period, wanted.cpu_period),
        (&mut now.cpu_quota, wanted.cpu_quota),
        (&mut now.cpu_shares, wanted.cpu_shares),
        (&mut now.memory_limit_in_bytes, wanted.memory_limit_in_bytes),
        (&mut now.memory_swap_limit_in_bytes, wanted.memory_swap_limit_in_bytes),
    ];
    for (own, new) in numbers {
        if new != 0 {
            *own = new;
        }
    }
    for (own, new) in
        [(&mut now.cpuset_cpus, &wanted.cpuset_cpus), (&mut now.cpuset_mems, &wanted.cpuset_mems)]
    {
        if !new.is_empty() {
            own.clone_from(new);
        }
    }
    now.unified.extend(wanted.unified.clone());
    now
}
