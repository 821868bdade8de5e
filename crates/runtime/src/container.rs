//! One container: what was asked for, and where it stands.

use crate::{
    capability::Capabilities,
    cgroup::Group,
    error::{Error, Result},
    record::ContainerRecord,
    sandbox::Sandbox,
};
use rpc::cri::{
    self, ContainerConfig, ContainerState, FilesystemIdentifier, FilesystemUsage,
    LinuxContainerResources, LinuxContainerSecurityContext, UInt64Value,
};
use shim::protocol::{Exit, Started};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::watch;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum State {
    Created,
    Running(Started),
    /// `started` is unset when it never ran.
    Exited {
        started: Option<Started>,
        exit: Exit,
    },
}

#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) directory: PathBuf,
    pub(crate) record: ContainerRecord,
    pub(crate) config: ContainerConfig,
    pub(crate) group: Group,
    pub(crate) capabilities: Capabilities,
    resources: Mutex<LinuxContainerResources>,
    state: watch::Sender<State>,
    /// What its own layer takes, as it was counted last.
    written: Mutex<Option<FilesystemUsage>>,
}

/// Files are counted again after so many nanoseconds: whoever asks more often gets the same answer. Less than a node
/// waits between two looks at who fills its disk: it must not send the wrong pod away.
const COUNT_EVERY: i64 = 8_000_000_000;

impl Container {
    pub(crate) fn new(
        id: String,
        sandbox: Arc<Sandbox>,
        directory: PathBuf,
        record: ContainerRecord,
        config: ContainerConfig,
        group: Group,
        state: State,
    ) -> Result<Container> {
        let resources = limits(&config);
        let capabilities = capabilities(&security(&config))?;
        let (state, resources) = (watch::Sender::new(state), Mutex::new(resources));
        Ok(Container {
            id,
            sandbox,
            directory,
            record,
            config,
            group,
            capabilities,
            resources,
            state,
            written: Mutex::default(),
        })
    }

    /// What the container has written outside of its volumes. Walks its layer: for a thread that may block.
    pub(crate) fn written(&self, now: i64) -> Option<FilesystemUsage> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = written.as_ref().filter(|it| now - it.timestamp < COUNT_EVERY) {
            return Some(known.clone());
        }
        let layer = self.directory.join("upper");
        let usage = stdx::disk_usage(&layer).ok()?;
        let mountpoint = self.directory.display().to_string();
        *written = Some(FilesystemUsage {
            timestamp: now,
            fs_id: Some(FilesystemIdentifier { mountpoint }),
            used_bytes: Some(UInt64Value { value: usage.bytes }),
            inodes_used: Some(UInt64Value { value: usage.inodes }),
        });
        written.clone()
    }

    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    pub(crate) fn running(&self) -> Result<Started> {
        match self.state() {
            State::Running(started) => Ok(started),
            State::Created => Err(Error::State(format!(
                "container {} is not running: it was not started",
                self.id
            ))),
            State::Exited { .. } => {
                Err(Error::State(format!("container {} is not running: it has exited", self.id)))
            }
        }
    }

    /// `true` when this was news: a container runs once, and ends once.
    pub(crate) fn started(&self, started: Started) -> bool {
        self.state.send_if_modified(|state| {
            let news = *state == State::Created;
            if news {
                *state = State::Running(started);
            }
            news
        })
    }

    pub(crate) fn exited(&self, exit: Exit) -> bool {
        self.state.send_if_modified(|state| {
            let started = match state {
                State::Exited { .. } => return false,
                State::Running(started) => Some(started.clone()),
                State::Created => None,
            };
            *state = State::Exited { started, exit: exit.clone() };
            true
        })
    }

    pub(crate) async fn wait_for_exit(&self) -> Exit {
        let mut states = self.state.subscribe();
        let ended = states.wait_for(|state| matches!(state, State::Exited { .. })).await;
        match ended.as_deref() {
            Ok(State::Exited { exit, .. }) => exit.clone(),
            Ok(_) | Err(_) => unreachable!("the sender lives as long as the container"),
        }
    }

    pub(crate) fn resources(&self) -> LinuxContainerResources {
        self.resources.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_resources(&self, resources: LinuxContainerResources) {
        *self.resources.lock().unwrap_or_else(PoisonError::into_inner) = resources;
    }

    pub(crate) fn log_path(&self) -> String {
        let directory = &self.sandbox.config.log_directory;
        match (directory.is_empty(), self.config.log_path.is_empty()) {
            (false, false) => {
                format!("{}/{}", directory.trim_end_matches('/'), self.config.log_path)
            }
            _ => String::new(),
        }
    }

    pub(crate) fn summary(&self) -> cri::Container {
        cri::Container {
            id: self.id.clone(),
            pod_sandbox_id: self.sandbox.id.clone(),
            metadata: self.config.metadata.clone(),
            image: self.config.image.clone(),
            image_ref: self.record.image_ref.clone(),
            image_id: self.record.image_id.clone(),
            state: state_message(&self.state()) as i32,
            created_at: self.record.created_at,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
        }
    }

    pub(crate) fn status(&self) -> cri::ContainerStatus {
        let state = self.state();
        let (started, exit) = match &state {
            State::Created => (None, None),
            State::Running(started) => (Some(started), None),
            State::Exited { started, exit } => (started.as_ref(), Some(exit)),
        };
        let (reason, message) = exit.map_or_else(Default::default, reason);
        let user = started.map(|started| cri::LinuxContainerUser {
            uid: i64::from(started.user.uid),
            gid: i64::from(started.user.gid),
            supplemental_groups: started.user.groups.iter().map(|gid| i64::from(*gid)).collect(),
        });
        cri::ContainerStatus {
            id: self.id.clone(),
            metadata: self.config.metadata.clone(),
            state: state_message(&state) as i32,
            created_at: self.record.created_at,
            started_at: started.map_or(0, |started| started.started_at),
            finished_at: exit.map_or(0, |exit| exit.finished_at),
            exit_code: exit.map_or(0, |exit| exit.code),
            image: self.config.image.clone(),
            image_ref: self.record.image_ref.clone(),
            image_id: self.record.image_id.clone(),
            reason,
            message,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            mounts: self.config.mounts.clone(),
            log_path: self.log_path(),
            resources: Some(cri::ContainerResources { linux: Some(self.resources()) }),
            user: user.map(|user| cri::ContainerUser { linux: Some(user) }),
            stop_signal: self.config.stop_signal,
        }
    }
}

/// containerd's words, which users know.
fn reason(exit: &Exit) -> (String, String) {
    let reason = match exit {
        Exit { start_error, .. } if !start_error.is_empty() => "StartError",
        Exit { oom_killed: true, .. } => "OOMKilled",
        Exit { signal: UNSEEN, .. } => "Unknown",
        Exit { code: 0, .. } => "Completed",
        Exit { .. } => "Error",
    };
    (reason.to_owned(), exit.start_error.clone())
}

/// In place of a signal: nobody saw how it ended.
const UNSEEN: i32 = -1;

/// For a container whose shim is gone without having told how it ended.
pub(crate) fn unseen_exit(now: i64) -> Exit {
    // containerd's code for it.
    Exit { code: 255, signal: UNSEEN, finished_at: now, ..Exit::default() }
}

fn state_message(state: &State) -> ContainerState {
    match state {
        State::Created => ContainerState::ContainerCreated,
        State::Running(_) => ContainerState::ContainerRunning,
        State::Exited { .. } => ContainerState::ContainerExited,
    }
}

pub(crate) fn security(config: &ContainerConfig) -> LinuxContainerSecurityContext {
    config.linux.as_ref().and_then(|linux| linux.security_context.clone()).unwrap_or_default()
}

pub(crate) fn limits(config: &ContainerConfig) -> LinuxContainerResources {
    config.linux.as_ref().and_then(|linux| linux.resources.clone()).unwrap_or_default()
}

fn capabilities(security: &LinuxContainerSecurityContext) -> Result<Capabilities> {
    if security.privileged {
        // The kernel takes away what this process does not have itself.
        return Ok(Capabilities::ALL);
    }
    Capabilities::adjusted(&security.capabilities.clone().unwrap_or_default())
}
