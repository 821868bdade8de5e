//! After a restart: what an earlier process left running is known again, from its records and from the shims.

use super::{Embedded, SHIM_PATIENCE, ask};
use crate::{
    container::{Container, State, limits, unseen_exit},
    error::Result,
    link::Link,
    record::{self, ContainerRecord, ReadyRecord, SandboxRecord},
    sandbox::{Hold, Sandbox},
};
use prost::Message;
use rpc::cri::{ContainerConfig, LinuxContainerResources, PodSandboxConfig};
use shim::protocol::{Nothing, Request};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

impl Embedded {
    pub(super) async fn take_back(&self, id: &str) -> Result<()> {
        let directory = record::sandboxes(&self.inner.config.data_dir).join(id);
        let stored: Option<SandboxRecord> = record::read(&directory, "config");
        let Some((stored, config)) = stored.and_then(|stored| {
            Some((stored.clone(), PodSandboxConfig::decode(stored.config.as_slice()).ok()?))
        }) else {
            tracing::warn!(sandbox = id, "its record is torn; nothing of it can run");
            return record::remove(&directory);
        };
        let parent = config.linux.as_ref().map_or("", |linux| linux.cgroup_parent.as_str());
        let group = self.inner.cgroups.pod(parent)?;
        let ready: Option<ReadyRecord> = record::read(&directory, "ready");
        let link = match Link::connect(&directory) {
            Ok(socket) => Some(self.link(id, socket)?),
            Err(_) => None,
        };
        let mut states = BTreeMap::new();
        let mut living = None;
        // Not served any more, but still to be stopped.
        let mut silent = None;
        if let Some(link) = link {
            let state =
                ask(&link, Request::State(Nothing {}), || format!("ask sandbox {id} how it is"));
            match stdx::timeout(SHIM_PATIENCE, state).await {
                Some(Ok(reply)) => {
                    let state = reply.state.unwrap_or_default();
                    states.extend(
                        state.containers.into_iter().map(|state| (state.container.clone(), state)),
                    );
                    living = Some((link, state.pid));
                }
                Some(Err(error)) => {
                    tracing::warn!(sandbox = id, error = stdx::one_line(&error), "its shim is gone")
                }
                None => {
                    tracing::warn!(sandbox = id, "its shim does not answer");
                    silent = Some(link);
                }
            }
        }
        let hold = Hold {
            shim: living.as_ref().map_or(0, |(_, pid)| *pid),
            ready: living.is_some() && ready.is_some(),
            link: living.map(|(link, _)| link).or(silent),
            addresses: ready.map(|ready| ready.addresses).unwrap_or_default(),
            detached: false,
        };
        let sandbox = Arc::new(Sandbox {
            id: id.to_owned(),
            directory,
            config,
            handler: stored.handler,
            created_at: stored.created_at,
            group,
            hold: Mutex::new(hold),
            turn: tokio::sync::Mutex::default(),
        });
        self.inner.sandboxes().insert(id.to_owned(), Arc::clone(&sandbox));
        for name in record::names(&sandbox.directory.join("containers")) {
            self.take_back_container(&sandbox, &name, states.remove(&name))?;
        }
        Ok(())
    }

    pub(super) fn take_back_container(
        &self,
        sandbox: &Arc<Sandbox>,
        id: &str,
        known: Option<shim::protocol::ContainerState>,
    ) -> Result<()> {
        let directory = sandbox.directory.join("containers").join(id);
        let stored: Option<ContainerRecord> = record::read(&directory, "config");
        let Some((stored, config)) = stored.and_then(|stored| {
            Some((stored.clone(), ContainerConfig::decode(stored.config.as_slice()).ok()?))
        }) else {
            let everywhere =
                LinuxContainerResources { cpuset_cpus: "0".into(), ..Default::default() };
            let group = self.inner.cgroups.container(&sandbox.group, id, &everywhere);
            self.inner.cgroups.remove_if_unused(&group);
            return record::remove(&directory);
        };
        let group = self.inner.cgroups.container(&sandbox.group, id, &limits(&config));
        let started = record::read(&directory, "started");
        let state = match (known, record::read(&directory, "exit")) {
            (Some(known), _) => match known.exit {
                Some(exit) => {
                    State::Exited { started: started.filter(|_| exit.start_error.is_empty()), exit }
                }
                // It was on its way when the server that asked for it ended.
                None if known.started.pid == 0 => State::Created,
                None => State::Running(known.started),
            },
            (None, Some(exit)) => State::Exited { started, exit },
            (None, None) if started.is_some() => {
                self.inner.cgroups.kill(&group);
                State::Exited { started, exit: unseen_exit(self.now()) }
            }
            (None, None) => State::Created,
        };
        let container = Container::new(
            id.to_owned(),
            Arc::clone(sandbox),
            directory,
            stored,
            config,
            group,
            state,
        )?;
        self.inner.containers().insert(id.to_owned(), Arc::new(container));
        Ok(())
    }
}
