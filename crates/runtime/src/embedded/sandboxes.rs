//! Sandboxes: made, stopped, removed. Each verb may be repeated.

use super::{Embedded, KILL_PATIENCE, ask, notices::heard};
use crate::{
    container::{State, unseen_exit},
    error::{Attempt, Error, Result},
    link::Link,
    network::PodAttachment,
    record::{self, ReadyRecord, SandboxRecord},
    sandbox::Sandbox,
    spec,
};
use prost::Message;
use rpc::cri::{ContainerEventType, PodSandboxConfig};
use shim::protocol::{Nothing, Request};
use std::{
    fs,
    net::IpAddr,
    sync::{Arc, Mutex},
};

impl Embedded {
    pub(crate) async fn run_sandbox(
        &self,
        config: PodSandboxConfig,
        handler: String,
    ) -> Result<String> {
        spec::check_sandbox(&config)?;
        let parent = config.linux.as_ref().map_or("", |linux| linux.cgroup_parent.as_str());
        let group = self.inner.cgroups.pod(parent)?;
        let id = self.new_id();
        let directory = record::sandboxes(&self.inner.config.data_dir).join(&id);
        fs::create_dir_all(&directory).attempt(|| format!("make {}", directory.display()))?;
        let created_at = self.now();
        let stored =
            SandboxRecord { config: config.encode_to_vec(), handler: handler.clone(), created_at };
        record::write(&directory, "config", &stored)?;
        let sandbox = Arc::new(Sandbox {
            id: id.clone(),
            directory,
            config,
            handler,
            created_at,
            group,
            hold: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        });
        let _turn = sandbox.turn.lock().await;
        self.inner.sandboxes().insert(id.clone(), Arc::clone(&sandbox));
        match self.make_sandbox(&sandbox).await {
            Ok(()) => {
                self.tell(&id, ContainerEventType::ContainerCreatedEvent, &sandbox);
                self.tell(&id, ContainerEventType::ContainerStartedEvent, &sandbox);
                Ok(id)
            }
            Err(error) => {
                if let Err(left) =
                    self.dismantle(&sandbox).await.and_then(|()| record::remove(&sandbox.directory))
                {
                    tracing::warn!(
                        sandbox = id,
                        error = stdx::one_line(&left),
                        "take back an unfinished sandbox"
                    );
                } else {
                    self.inner.sandboxes().remove(&id);
                }
                Err(error)
            }
        }
    }

    pub(super) async fn make_sandbox(&self, sandbox: &Arc<Sandbox>) -> Result<()> {
        let cgroups = &self.inner.cgroups;
        let shims = cgroups.shims();
        cgroups.create(&shims)?;
        cgroups.create(&sandbox.group)?;
        let limits = sandbox.config.linux.as_ref().and_then(|linux| linux.resources.as_ref());
        if let Some(limits) = limits {
            cgroups.limit(&sandbox.group, limits)?;
        }
        let socket = self.inner.program.start(&sandbox.id)?;
        let link = self.link(&sandbox.id, socket)?;
        sandbox.hold().link = Some(link.clone());
        let setup = spec::setup(sandbox, cgroups.describe(&shims).procs)?;
        let reply =
            ask(&link, Request::Setup(setup), || format!("set up sandbox {}", sandbox.id)).await?;
        let shim = reply.state.map_or(0, |state| state.pid);
        sandbox.hold().shim = shim;
        if !sandbox.host_network() {
            let addresses = self.attach_network(sandbox, shim).await?;
            sandbox.hold().addresses = addresses.iter().map(IpAddr::to_string).collect();
        }
        spec::write_files(sandbox)?;
        let addresses = sandbox.hold().addresses.clone();
        record::write(&sandbox.directory, "ready", &ReadyRecord { addresses, shim })?;
        sandbox.hold().ready = true;
        Ok(())
    }

    pub(super) async fn attach_network(&self, sandbox: &Sandbox, shim: i32) -> Result<Vec<IpAddr>> {
        let metadata = sandbox.config.metadata.clone().unwrap_or_default();
        let pod = PodAttachment {
            sandbox: sandbox.id.clone(),
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            pid: shim,
            ports: sandbox.config.port_mappings.clone(),
        };
        let attached = self.inner.config.network.attach(&pod).await;
        attached.map_err(|source| Error::Network { sandbox: sandbox.id.clone(), source })
    }

    pub(super) fn link(
        &self,
        sandbox: &str,
        socket: std::os::unix::net::UnixStream,
    ) -> Result<Link> {
        let (weak, id) = (Arc::downgrade(&self.inner), sandbox.to_owned());
        Link::new(sandbox, socket, move |notice| heard(&weak, &id, notice))
    }

    /// Stops its containers and takes back its network. May be repeated.
    pub(crate) async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        let _turn = sandbox.turn.lock().await;
        let was_ready = sandbox.hold().ready;
        self.dismantle(&sandbox).await?;
        if was_ready {
            self.tell(&sandbox.id, ContainerEventType::ContainerStoppedEvent, &sandbox);
        }
        Ok(())
    }

    /// Ends the shim with all that it holds, and takes back the network.
    pub(super) async fn dismantle(&self, sandbox: &Sandbox) -> Result<()> {
        let link = sandbox.hold().link.clone();
        if let Some(link) = link {
            let shutdown = ask(&link, Request::Shutdown(Nothing {}), || {
                format!("stop sandbox {}", sandbox.id)
            });
            match stdx::timeout(KILL_PATIENCE, shutdown).await {
                Some(Ok(_) | Err(Error::SandboxGone(_))) => {}
                Some(Err(error)) => return Err(error),
                None => {
                    let id = &sandbox.id;
                    return Err(Error::DeadlineExceeded(format!(
                        "sandbox {id}: its processes do not end"
                    )));
                }
            }
        }
        for container in self.containers_of(&sandbox.id) {
            if matches!(container.state(), State::Running(_)) {
                self.inner.cgroups.kill(&container.group);
                let exit = record::read(&container.directory, "exit")
                    .unwrap_or_else(|| unseen_exit(self.now()));
                self.ended(&container, exit);
            }
        }
        {
            let mut hold = sandbox.hold();
            hold.link = None;
            hold.ready = false;
        }
        if !sandbox.host_network() && !sandbox.hold().detached {
            let detached = self.inner.config.network.detach(&sandbox.id).await;
            detached.map_err(|source| Error::Network { sandbox: sandbox.id.clone(), source })?;
            sandbox.hold().detached = true;
        }
        Ok(())
    }

    /// Removes it with its containers. May be repeated.
    pub(crate) async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        let _turn = sandbox.turn.lock().await;
        self.dismantle(&sandbox).await?;
        for container in self.containers_of(&sandbox.id) {
            self.discard(&container).await?;
        }
        record::remove(&sandbox.directory)?;
        self.inner.cgroups.remove_if_unused(&sandbox.group);
        self.inner.sandboxes().remove(&sandbox.id);
        self.tell(&sandbox.id, ContainerEventType::ContainerDeletedEvent, &sandbox);
        Ok(())
    }
}
