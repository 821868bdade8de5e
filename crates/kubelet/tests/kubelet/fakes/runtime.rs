//! A runtime in memory: processes end when a test says so, and the kubelet crashes when a test says so.

use super::{FakePlugin, machine::Machine};
use futures_util::StreamExt;
use kubelet::runtime::{
    Changes, Condition, Container, Image, Limits, Observed, PulledImage, Result, RunningPod,
    Runtime, RuntimeError, Sandbox, State, message,
};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
};
use stdx::{BoxFuture, Clock, SystemClock};
use tokio::sync::{Notify, broadcast};

/// Where the next crash is: at this call, before or after its effect.
#[derive(Clone, Copy)]
pub(crate) struct CrashAt {
    pub(crate) call: usize,
    pub(crate) after_effect: bool,
}

pub(crate) struct FakeRuntime {
    machine: Mutex<Machine>,
    changes: broadcast::Sender<Arc<str>>,
    /// Events get lost.
    pub(crate) deaf: bool,
    pub(crate) crash: Mutex<Option<CrashAt>>,
    pub(crate) crashed: Notify,
    /// Where streams are.
    pub(crate) streams: Mutex<Option<String>>,
    /// Images that can be pulled, and by whom. The first question after a pull is not answered.
    pub(crate) registry: Mutex<BTreeMap<String, String>>,
    /// Container → bytes of memory.
    pub(crate) in_use: Mutex<BTreeMap<String, u64>>,
    /// Killed processes do not end until this volume gives up.
    pub(crate) held_by: Mutex<Option<Arc<FakePlugin>>>,
}

impl FakeRuntime {
    pub(crate) fn new(deaf: bool) -> Arc<FakeRuntime> {
        let machine = Machine { images: ["app:1".to_owned()].into(), ..Machine::default() };
        Arc::new(FakeRuntime {
            machine: Mutex::new(machine),
            changes: broadcast::channel(1024).0,
            deaf,
            crash: Mutex::default(),
            crashed: Notify::new(),
            streams: Mutex::default(),
            registry: Mutex::default(),
            in_use: Mutex::default(),
            held_by: Mutex::default(),
        })
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap()
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.machine().log.clone()
    }

    pub(crate) fn observed(&self, uid: &str) -> Observed {
        self.machine().pods.get(uid).cloned().unwrap_or_default()
    }

    /// A process ends by itself.
    pub(crate) fn exit(&self, uid: &str, container: &str, code: i32) {
        {
            let mut machine = self.machine();
            let pod = machine.pods.get_mut(uid).expect("a pod");
            let running = |it: &&mut Container| it.name == container && it.state == State::Running;
            let it = pod.containers.iter_mut().find(running).expect("a running container");
            it.state = State::Exited;
            it.exit_code = code;
            it.finished = SystemClock.now();
        }
        self.changed(uid);
    }

    fn changed(&self, uid: &str) {
        if !self.deaf {
            let _nobody_listens = self.changes.send(uid.into());
        }
    }

    /// One call that changes something; here the process may "crash": the call never returns.
    async fn call<T>(
        &self,
        line: String,
        effect: impl FnOnce(&mut Machine) -> Result<T>,
    ) -> Result<T> {
        // A runtime takes a moment: others go on meanwhile.
        tokio::task::yield_now().await;
        let (crash, result) = {
            let mut machine = self.machine();
            machine.calls += 1;
            let crash = self.crash.lock().unwrap().filter(|it| it.call == machine.calls);
            let lost = crash.is_some_and(|it| !it.after_effect);
            let result = if lost {
                None
            } else {
                machine.log.push(line);
                let result = effect(&mut machine);
                machine.check();
                Some(result)
            };
            (crash.is_some(), result)
        };
        if crash {
            self.crashed.notify_one();
            return std::future::pending().await;
        }
        result.expect("an effect without a crash")
    }
}

impl Runtime for FakeRuntime {
    fn condition(&self) -> BoxFuture<'_, Result<Condition>> {
        let condition = Condition { version: "fake://1".to_owned(), ..Condition::default() };
        Box::pin(async { Ok(condition) })
    }

    fn pods(&self) -> BoxFuture<'_, Result<Vec<RunningPod>>> {
        Box::pin(async {
            let machine = self.machine();
            let living = machine.pods.iter().filter(|(_, it)| !it.sandboxes.is_empty());
            let pod = |uid: &String| {
                let (namespace, name) = machine.names[uid].clone();
                RunningPod { uid: uid.clone(), namespace, name }
            };
            Ok(living.map(|(uid, _)| pod(uid)).collect())
        })
    }

    fn observe<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Result<Observed>> {
        Box::pin(async move {
            let mut observed = self.observed(uid);
            observed.sort();
            Ok(observed)
        })
    }

    fn changes(&self) -> BoxFuture<'_, Result<Changes>> {
        let receiver = self.changes.subscribe();
        Box::pin(async {
            let stream = futures_util::stream::unfold(receiver, |mut receiver| async {
                loop {
                    match receiver.recv().await {
                        Ok(uid) => return Some((uid, receiver)),
                        Err(broadcast::error::RecvError::Lagged(_)) => {}
                        Err(broadcast::error::RecvError::Closed) => return None,
                    }
                }
            });
            Ok(stream.boxed() as Changes)
        })
    }

    fn run_sandbox(
        &self,
        config: message::PodSandboxConfig,
        _handler: String,
    ) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move {
            let metadata = config.metadata.expect("metadata");
            let uid = metadata.uid.clone();
            let line = format!("run sandbox {} #{}", metadata.name, metadata.attempt);
            let id = self.call(line, |machine| {
                let id = machine.id("s");
                machine.names.insert(metadata.uid.clone(), (metadata.namespace, metadata.name));
                let sandbox = Sandbox {
                    id: id.clone(),
                    attempt: metadata.attempt,
                    ready: true,
                    created: SystemClock.now(),
                    ip: format!("10.0.0.{}", machine.next),
                    host_network: false,
                    grace_seconds: None,
                };
                machine.pods.entry(metadata.uid).or_default().sandboxes.push(sandbox);
                Ok(id)
            });
            let id = id.await?;
            self.changed(&uid);
            Ok(id)
        })
    }

    fn stop_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let uid = self.call(format!("stop sandbox {id}"), |machine| {
                let Ok((uid, pod)) = machine.of_sandbox(id) else { return Ok(None) };
                for it in pod.containers.iter_mut() {
                    if it.sandbox == id && it.state == State::Running {
                        it.state = State::Exited;
                        it.exit_code = 137;
                    }
                }
                let sandbox = pod.sandboxes.iter_mut().find(|it| it.id == id);
                sandbox.expect("found").ready = false;
                Ok(Some(uid))
            });
            if let Some(uid) = uid.await? {
                self.changed(&uid);
            }
            Ok(())
        })
    }

    fn remove_sandbox<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.call(format!("remove sandbox {id}"), |machine| {
                if let Ok((_, pod)) = machine.of_sandbox(id) {
                    pod.sandboxes.retain(|it| it.id != id);
                    pod.containers.retain(|it| it.sandbox != id);
                }
                Ok(())
            })
            .await
        })
    }

    fn image<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Image>>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            if std::mem::take(&mut self.machine().is_silent) {
                return Err(refused("too busy to tell"));
            }
            let here = self.machine().images.contains(reference);
            let image =
                Image { id: reference.to_owned(), bytes: 1, uid: None, username: String::new() };
            Ok(here.then_some(image))
        })
    }

    fn pull_image(&self, request: message::PullImageRequest) -> BoxFuture<'_, Result<PulledImage>> {
        Box::pin(async {
            let reference = request.image.expect("an image").image;
            let user = request.auth.map(|it| it.username).unwrap_or_default();
            match self.registry.lock().unwrap().get(&reference) {
                Some(owner) if *owner == user => {}
                Some(_) => return Err(refused("not without a login")),
                None => return Err(refused("no registry answers")),
            }
            let mut machine = self.machine();
            machine.images.insert(reference.clone());
            machine.is_silent = true;
            Ok(PulledImage { reference, imported_instead: None })
        })
    }

    fn remove_image<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<message::Image>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn create_container(
        &self,
        request: message::CreateContainerRequest,
    ) -> BoxFuture<'_, Result<String>> {
        Box::pin(async move {
            let config = request.config.expect("a config");
            for mount in &config.mounts {
                assert!(Path::new(&mount.host_path).exists(), "{} is mounted", mount.host_path);
            }
            let logs = request.sandbox_config.expect("a sandbox").log_directory;
            let log = Path::new(&logs).join(&config.log_path);
            std::fs::write(&log, "").expect("the directory of the log is there");
            let metadata = config.metadata.expect("metadata");
            let line = format!("create {} #{}", metadata.name, metadata.attempt);
            self.call(line, |machine| {
                let id = machine.id("c");
                let (_, pod) = machine.of_sandbox(&request.pod_sandbox_id)?;
                let twin = pod
                    .containers
                    .iter()
                    .any(|it| it.name == metadata.name && it.attempt == metadata.attempt);
                assert!(!twin, "{} #{} exists already", metadata.name, metadata.attempt);
                pod.containers.push(Container {
                    id: id.clone(),
                    sandbox: request.pod_sandbox_id.clone(),
                    name: metadata.name,
                    attempt: metadata.attempt,
                    image: "app:1".to_owned(),
                    image_ref: "sha256:1".to_owned(),
                    log_path: log.display().to_string(),
                    created: SystemClock.now(),
                    limits: config.linux.and_then(|it| it.resources).map(|it| limits(&it)),
                    ..Container::default()
                });
                Ok(id)
            })
            .await
        })
    }

    fn start_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let uid = self.call(format!("start {id}"), |machine| {
                let (uid, it) = machine.of_container(id)?;
                assert_eq!(it.state, State::Created, "{id} is started once");
                it.state = State::Running;
                it.started = SystemClock.now();
                Ok(uid)
            });
            let uid = uid.await?;
            self.changed(&uid);
            Ok(())
        })
    }

    fn stop_container<'a>(&'a self, id: &'a str, _: i64) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let held_by = self.held_by.lock().unwrap().clone();
            if let Some(volume) = held_by {
                volume.aborted.notified().await;
            }
            let uid = self.call(format!("stop {id}"), |machine| {
                let (uid, it) = machine.of_container(id)?;
                if it.state == State::Running {
                    it.state = State::Exited;
                    it.exit_code = 0;
                    it.finished = SystemClock.now();
                }
                Ok(uid)
            });
            let uid = uid.await?;
            self.changed(&uid);
            Ok(())
        })
    }

    fn remove_container<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.call(format!("remove {id}"), |machine| {
                for pod in machine.pods.values_mut() {
                    pod.containers.retain(|it| it.id != id);
                }
                Ok(())
            })
            .await
        })
    }

    fn limit_container<'a>(
        &'a self,
        id: &'a str,
        resources: message::LinuxContainerResources,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (quota, memory) = (resources.cpu_quota, resources.memory_limit_in_bytes);
            let line = format!("limit container {id} to {quota} us, {memory} bytes");
            let uid = self.call(line, |machine| {
                let (uid, container) = machine.of_container(id)?;
                container.limits = Some(limits(&resources));
                Ok(uid)
            });
            self.changed(&uid.await?);
            Ok(())
        })
    }

    fn limit_sandbox<'a>(
        &'a self,
        id: &'a str,
        resources: message::LinuxContainerResources,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (quota, memory) = (resources.cpu_quota, resources.memory_limit_in_bytes);
            let line = format!("limit sandbox {id} to {quota} us, {memory} bytes");
            self.call(line, |_| Ok(())).await
        })
    }

    fn reopen_log<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn execute<'a>(
        &'a self,
        id: &'a str,
        command: Vec<String>,
        _: i64,
    ) -> BoxFuture<'a, Result<(i32, Vec<u8>)>> {
        let mut changes = self.changes.subscribe();
        Box::pin(async move {
            // As long as the container runs.
            while command == ["sleep"] && self.machine().runs(id) {
                let _anything = changes.recv().await;
            }
            Ok((i32::from(command != ["true"]), b"no".to_vec()))
        })
    }

    fn exec(&self, _: message::ExecRequest) -> BoxFuture<'_, Result<String>> {
        let url = self.streams.lock().unwrap().clone();
        Box::pin(async { url.ok_or_else(|| refused("no streams here")) })
    }

    fn attach(&self, _: message::AttachRequest) -> BoxFuture<'_, Result<String>> {
        Box::pin(async { Err(refused("no streams here")) })
    }

    fn port_forward(&self, _: message::PortForwardRequest) -> BoxFuture<'_, Result<String>> {
        Box::pin(async { Err(refused("no streams here")) })
    }

    fn stats(&self) -> BoxFuture<'_, Result<Vec<message::PodSandboxStats>>> {
        Box::pin(async {
            let in_use = self.in_use.lock().unwrap();
            let machine = self.machine();
            let of_pod = |pod: &Observed| {
                let of_container = |it: &Container| {
                    Some(message::ContainerStats {
                        attributes: Some(message::ContainerAttributes {
                            id: it.id.clone(),
                            ..Default::default()
                        }),
                        memory: Some(memory(*in_use.get(&it.name)?)),
                        ..Default::default()
                    })
                };
                let whole = pod.containers.iter().filter_map(|it| in_use.get(&it.name)).sum();
                message::PodSandboxStats {
                    attributes: Some(message::PodSandboxAttributes {
                        id: pod.sandboxes[0].id.clone(),
                        ..Default::default()
                    }),
                    linux: Some(message::LinuxPodSandboxStats {
                        memory: Some(memory(whole)),
                        containers: pod.containers.iter().filter_map(of_container).collect(),
                        ..Default::default()
                    }),
                }
            };
            Ok(machine.pods.values().filter(|it| !it.sandboxes.is_empty()).map(of_pod).collect())
        })
    }
}

fn memory(bytes: u64) -> message::MemoryUsage {
    let usage_bytes = Some(message::UInt64Value { value: bytes });
    message::MemoryUsage { usage_bytes, ..Default::default() }
}

fn limits(it: &message::LinuxContainerResources) -> Limits {
    Limits { cpu_shares: it.cpu_shares, cpu_quota: it.cpu_quota, memory: it.memory_limit_in_bytes }
}

fn refused(message: &str) -> RuntimeError {
    RuntimeError::new("fake", message)
}
