//! Actions on their way, and what is remembered when they land.

use super::{Held, MOUNT_FIRST, MOUNT_MOST, Worker, say};
use crate::{
    lifecycle::{self, Refused, Run, Unfetched},
    plan::{Action, Ensured, Failure, Slot, Why, containers::named},
    runtime::{RuntimeError, State},
    spec,
    volumes::MountError,
};
use api::{Failure as Refusal, core::v1::Pod};
use std::time::Duration;
use stdx::{Backoff, BoxFuture, Timestamp};
use world::{Change, Event, World};

/// An image is tried again after 10 s, 20 s … 5 min.
const IMAGE_FIRST: Duration = Duration::from_secs(10);
/// A container or a sandbox that cannot be made: 1 s, 2 s … 5 min.
const MAKE_FIRST: Duration = Duration::from_secs(1);
/// What is missing may be a ConfigMap that someone is about to make.
const MAKE_MOST: Duration = Duration::from_secs(16);
/// Memory in use may be free at any time. Upstream tries with every sync of the pod: about once a minute.
const RESIZE_MOST: Duration = Duration::from_secs(60);
/// How long the failure itself is shown, before the waiting for the next try.
const SHOWN: Duration = Duration::from_secs(2);

/// What landed.
pub(super) enum Done {
    Published(String, Result<(), MountError>),
    Unpublished(String, Result<(), MountError>),
    Sandbox(Result<String, RuntimeError>),
    SandboxStopped(String, Result<(), RuntimeError>),
    Removed(Result<(), RuntimeError>),
    Image(String, Result<Ensured, Unfetched>),
    Started {
        container: String,
        after: Option<Timestamp>,
        result: Result<(), Refused>,
    },
    Stopped(String, Result<(), RuntimeError>),
    /// A container has been told of its end.
    Hooked,
    /// For the pod of this generation.
    Resized(Option<i64>, Result<(), RuntimeError>),
    /// The object was written or deleted.
    Reported(Result<(), Refusal>),
}

impl Worker {
    /// Sets an action on its way. None: there is nothing to do for it.
    pub(super) fn flight(&mut self, action: Action) -> Option<BoxFuture<'static, Done>> {
        let shared = self.shared.clone();
        let uid = self.uid.clone();
        let pod = self.pod.clone();
        let address = self.address();
        Some(match action {
            Action::Publish { volume } => {
                let pod = pod?;
                let source = pod.spec.as_ref()?.volumes.iter().flatten();
                let source = source.into_iter().find(|it| it.name == volume)?;
                let world = shared.client.world();
                let wanted =
                    crate::plan::volumes::resolve(&world, &pod, source, &shared.facts, &address)
                        .ok()?;
                Box::pin(async move {
                    let published =
                        shared.volumes.publish(&*shared.client, &pod, &volume, &wanted).await;
                    Done::Published(volume, published)
                })
            }
            Action::Unpublish { volume } => Box::pin(async move {
                let unpublished = shared.volumes.unpublish(&uid, &volume, &shared.facts).await;
                Done::Unpublished(volume, unpublished)
            }),
            Action::RunSandbox { attempt } => {
                let pod = pod?;
                let mut config = spec::sandbox::config(&pod, attempt, &shared.facts);
                let handler = handler(&shared.client.world(), &pod);
                Box::pin(async move {
                    let refused = |why: String| RuntimeError::new("RunPodSandbox", why);
                    let users = shared.users.of(&pod, &shared.facts).await.map_err(refused);
                    Done::Sandbox(match (handler.map_err(refused), users) {
                        (Ok(handler), Ok(users)) => {
                            if let Some(first) = users {
                                spec::security::map_users(&mut config, None, first);
                            }
                            shared.runtime.run_sandbox(config, handler).await
                        }
                        (Err(error), _) | (_, Err(error)) => Err(error),
                    })
                })
            }
            Action::StopSandbox { id } => Box::pin(async move {
                let stopped = shared.runtime.stop_sandbox(&id).await;
                Done::SandboxStopped(id, stopped)
            }),
            Action::RemoveSandbox { id } => {
                Box::pin(async move { Done::Removed(shared.runtime.remove_sandbox(&id).await) })
            }
            Action::RemoveContainer { id, .. } => {
                Box::pin(async move { Done::Removed(shared.runtime.remove_container(&id).await) })
            }
            Action::EnsureImage { container } => {
                let pod = pod?;
                let spec = named(&pod, &container)?.into_owned();
                Box::pin(async move {
                    Done::Image(container, lifecycle::ensure_image(&shared, &pod, &spec).await)
                })
            }
            Action::Start { container, attempt, sandbox, after } => {
                let pod = pod?;
                let spec = named(&pod, &container)?.into_owned();
                let image = self.memory.images.get(&container)?.clone();
                let sandbox_attempt = self.observed.sandbox().map_or(0, |it| it.attempt);
                let target = self.target(&pod, &container);
                Box::pin(async move {
                    let run = Run {
                        pod: &pod,
                        container: &spec,
                        attempt,
                        sandbox: &sandbox,
                        sandbox_attempt,
                        address: &address,
                        image: &image,
                        target: target.as_ref().map(|it| it.as_deref()),
                    };
                    let result = lifecycle::start(&shared, &run).await;
                    Done::Started { container, after, result }
                })
            }
            Action::Stop { container, id, by, why } => {
                let first = self.memory.stopping.insert(id.clone(), by).is_none()
                    && !self.memory.hooked.contains(&id);
                Box::pin(async move {
                    let pod = pod.as_deref();
                    let container = &container;
                    let stop = lifecycle::Stop { pod: &uid, container, id: &id, by, why, first };
                    let stopped = lifecycle::stop(&shared, pod, &stop, &address).await;
                    Done::Stopped(id, stopped)
                })
            }
            Action::Hook { container, id, by } => {
                self.memory.hooked.insert(id.clone());
                Box::pin(async move {
                    let pod = pod.as_deref();
                    let (container, why, first) = (&container, Why::Ending, true);
                    let stop = lifecycle::Stop { pod: &uid, container, id: &id, by, why, first };
                    lifecycle::tell(&shared, pod, &stop, &address).await;
                    Done::Hooked
                })
            }
            Action::Resize { sandbox } => {
                let pod = pod?;
                let running = self.observed.containers.clone();
                Box::pin(async move {
                    let resized = lifecycle::resize(&shared, &pod, &sandbox, &running).await;
                    Done::Resized(pod.metadata.generation, resized)
                })
            }
            Action::Delete => {
                let pod = pod?;
                // Its last status is on its way: it goes afterwards.
                if self.reporter.is_behind() || self.reporter.not_before() > shared.clock.now() {
                    return None;
                }
                let change = Change::delete_now(&*pod);
                Box::pin(async move {
                    let deleted = shared.client.write(vec![change]).await.map(drop);
                    Done::Reported(deleted)
                })
            }
            Action::Forget => return None,
        })
    }

    pub(super) fn land(&mut self, slot: Slot, done: Done) {
        self.busy.remove(&slot);
        let now = self.shared.clock.now();
        match done {
            Done::Published(volume, Ok(())) => {
                self.held.remove(&volume);
                self.said.remove(&volume);
            }
            Done::Published(volume, Err(error)) | Done::Unpublished(volume, Err(error)) => {
                let backoff = Backoff::new(MOUNT_FIRST, MOUNT_MOST);
                let held = self.held.entry(volume.clone()).or_insert(Held { backoff, until: now });
                held.until = now.plus(held.backoff.failed());
                tracing::warn!(pod = %self.key, volume, error = stdx::one_line(&error), "volume");
                if let Some(pod) = &self.pod {
                    // Each attempt is told: they come ever more rarely, and are counted up.
                    self.said.remove(&volume);
                    say(&self.shared, &mut self.said, pod, &volume, error.to_string());
                }
            }
            Done::Unpublished(volume, Ok(())) => {
                self.held.remove(&volume);
            }
            Done::Sandbox(result) => {
                self.stale = true;
                self.memory.sandbox = match result {
                    Ok(_) => None,
                    Err(error) => Some(self.no_sandbox(&error, now)),
                };
            }
            Done::SandboxStopped(id, result) => {
                self.stale = true;
                match result {
                    Ok(()) => {
                        self.memory.trouble = None;
                        self.memory.stopped.insert(id);
                    }
                    Err(error) => self.trouble(&error, now),
                }
            }
            Done::Removed(result) => {
                self.stale = true;
                match result {
                    Ok(()) => self.memory.trouble = None,
                    Err(error) => self.trouble(&error, now),
                }
            }
            Done::Image(container, Ok(image)) => {
                // A container that could not be made is shown so until it is.
                self.memory.failures.retain(|name, it| *name != container || it.of_making);
                self.memory.images.insert(container, image);
            }
            Done::Image(container, Err(Unfetched { image, refused })) => {
                let before = self.memory.failures.get(&container);
                let mut failure =
                    Failure::new(refused.reason, &refused.message, now, before, IMAGE_FIRST);
                if matches!(
                    refused.reason,
                    "ErrImagePull" | "RegistryUnavailable" | "SignatureValidationFailed"
                ) {
                    let message = format!(
                        "Back-off pulling image {image:?}: {}: {}",
                        refused.reason, refused.message
                    );
                    failure.then = Some(("ImagePullBackOff", message));
                    failure.calm_at = now.plus(SHOWN);
                    self.tell(&container, |pod| {
                        Event::normal(pod, "BackOff", format!("Back-off pulling image {image:?}"))
                    });
                    self.tell(&container, |pod| {
                        Event::warning(pod, "Failed", "Error: ImagePullBackOff")
                    });
                }
                self.memory.failures.insert(container, failure);
            }
            Done::Started { container, after, result } => {
                self.stale = true;
                self.memory.images.remove(&container);
                if let Some(finished) = after {
                    self.memory.restarted(&container, finished);
                }
                match result {
                    Ok(()) => drop(self.memory.failures.remove(&container)),
                    Err(refused) => {
                        let before = self.memory.failures.get(&container);
                        let mut failure =
                            Failure::new(refused.reason, refused.message, now, before, MAKE_FIRST);
                        failure.of_making = true;
                        failure.wait_at_most(MAKE_MOST, now);
                        self.memory.failures.insert(container, failure);
                    }
                }
            }
            Done::Stopped(id, result) => {
                self.stale = true;
                match result {
                    Ok(()) => self.memory.trouble = None,
                    Err(error) => {
                        self.memory.stopping.remove(&id);
                        self.trouble(&error, now);
                    }
                }
            }
            Done::Hooked => {}
            Done::Resized(generation, result) => {
                self.stale = true;
                let before = self.memory.resize_failed.take();
                let before = before.filter(|_| self.memory.resize_generation == generation);
                self.memory.resize_generation = generation;
                self.memory.resize_failed = result.err().map(|error| {
                    tracing::warn!(pod = %self.key, %error, "resize");
                    let text = error.to_string();
                    if let Some(pod) = self.pod.as_ref().filter(|_| before.is_none()) {
                        let text = format!("Pod resize error: {text}");
                        let event = Event::warning(&**pod, "ResizeError", text);
                        self.shared.client.record(event);
                    }
                    let mut failure = Failure::new("Error", text, now, before.as_ref(), MAKE_FIRST);
                    failure.wait_at_most(RESIZE_MOST, now);
                    failure
                });
            }
            Done::Reported(Ok(())) => self.reporter.written(),
            Done::Reported(Err(refusal)) => {
                self.reporter.refused(now);
                if !refusal.is_conflict() && !refusal.is_not_found() {
                    tracing::warn!(pod = %self.key, error = %refusal, "write a pod's status");
                }
            }
        }
    }

    fn no_sandbox(&self, error: &RuntimeError, now: Timestamp) -> Failure {
        let message = format!("Failed to create pod sandbox: {error}");
        tracing::warn!(pod = %self.key, message);
        if let Some(pod) = &self.pod {
            let event = Event::warning(&**pod, "FailedCreatePodSandBox", message.clone());
            self.shared.client.record(event);
        }
        let before = self.memory.sandbox.as_ref();
        Failure::new("FailedCreatePodSandBox", message, now, before, MAKE_FIRST)
    }

    fn trouble(&mut self, error: &RuntimeError, now: Timestamp) {
        tracing::warn!(pod = %self.key, operation = error.operation, %error, "end what runs");
        let before = self.memory.trouble.as_ref();
        let message = error.to_string();
        self.memory.trouble = Some(Failure::new("FailedKillPod", message, now, before, MAKE_FIRST));
    }

    /// For an ephemeral container that names one: the container whose processes it shall see, if that runs.
    fn target(&self, pod: &Pod, name: &str) -> Option<Option<String>> {
        let ephemeral = pod.spec.as_ref()?.ephemeral_containers.as_ref()?;
        let own = ephemeral.iter().find(|it| it.name == name)?;
        let target = own.target_container_name.as_ref().filter(|it| !it.is_empty())?;
        let seen = self.observed.latest(target).filter(|it| it.state == State::Running);
        Some(seen.map(|it| it.id.clone()))
    }

    fn tell(&self, container: &str, event: impl FnOnce(&Pod) -> Event) {
        if let Some(pod) = &self.pod
            && let Some(container) = named(pod, container)
        {
            crate::events::about_container(&*self.shared.client, pod, &container, event(pod));
        }
    }
}

/// What the runtime calls the pod's RuntimeClass.
fn handler(world: &World, pod: &Pod) -> Result<String, String> {
    let named = pod.spec.as_ref().and_then(|it| it.runtime_class_name.as_deref());
    let Some(name) = named.filter(|it| !it.is_empty()) else { return Ok(String::new()) };
    match world.cluster::<api::node::v1::RuntimeClass>(name) {
        Some(class) => Ok(class.handler.clone()),
        None => Err(format!("runtimeclass.node.k8s.io {name:?} not found")),
    }
}
