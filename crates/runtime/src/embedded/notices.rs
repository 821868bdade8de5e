//! What shims say unasked, and what is told to those who listen.

use super::{Embedded, Inner};
use crate::{
    container::{Container, State, unseen_exit},
    link::Notice,
    record,
    sandbox::Sandbox,
};
use rpc::cri::{ContainerEventResponse, ContainerEventType};
use shim::protocol::{Exit, Started};
use std::sync::Weak;

impl Embedded {
    pub(super) fn began(&self, container: &Container, started: Started) {
        if container.started(started) {
            self.tell(&container.id, ContainerEventType::ContainerStartedEvent, &container.sandbox);
        }
    }

    pub(super) fn ended(&self, container: &Container, exit: Exit) {
        if container.state() == State::Created && exit.start_error.is_empty() {
            // The answer to its start has arrived as well, but may not have been looked at yet.
            let at_least = || Started { started_at: exit.started_at, ..Started::default() };
            self.began(
                container,
                record::read(&container.directory, "started").unwrap_or_else(at_least),
            );
        }
        if container.exited(exit) {
            self.tell(&container.id, ContainerEventType::ContainerStoppedEvent, &container.sandbox);
        }
    }

    pub(super) fn tell(&self, id: &str, kind: ContainerEventType, sandbox: &Sandbox) {
        if !self.inner.events.listened_to() {
            return;
        }
        let containers = self.containers_of(&sandbox.id);
        self.inner.events.tell(ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind as i32,
            created_at: self.now(),
            pod_sandbox_status: Some(sandbox.status()),
            containers_statuses: containers.iter().map(|container| container.status()).collect(),
        });
    }

    /// The kernel kills the first process that a shim leaves behind, unless it has other rights than it had, and we the
    /// others: what is told to have ended has. How is in files, or unseen.
    pub(super) fn shim_gone(&self, id: &str) {
        let Ok(sandbox) = self.sandbox(id) else { return };
        let was_ready = {
            let mut hold = sandbox.hold();
            hold.link = None;
            std::mem::take(&mut hold.ready)
        };
        for container in self.containers_of(id) {
            if matches!(container.state(), State::Running(_)) {
                self.inner.cgroups.kill(&container.group);
                let exit = record::read(&container.directory, "exit")
                    .unwrap_or_else(|| unseen_exit(self.now()));
                self.ended(&container, exit);
            }
        }
        if was_ready {
            self.tell(id, ContainerEventType::ContainerStoppedEvent, &sandbox);
        }
    }
}

/// A shim has spoken unasked.
pub(super) fn heard(inner: &Weak<Inner>, sandbox: &str, notice: Notice) {
    let Some(inner) = inner.upgrade() else { return };
    let embedded = Embedded { inner };
    match notice {
        Notice::Exited { container, exit } => {
            if let Ok(container) = embedded.container(&container) {
                embedded.ended(&container, exit);
            }
        }
        Notice::Closed => embedded.shim_gone(sandbox),
    }
}
