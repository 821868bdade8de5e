//! What is asked of a pod: start, signal, exec, attach, connect; and the children that end.

use crate::{
    Failure, Result,
    container::{Attached, Container, Output, replace_file},
    launch::{Heard, Launch, Launching},
    log::Log,
    process::{self, Launched, PidNamespace, Place, Streams},
    sys::{self, failure},
    user_namespace::UserNamespace,
};
use shim::{
    protocol::{
        Attach, ContainerState, Exec, Exit, Setup, Signal, SignalExec, Start, Started, State,
    },
    wire::Wire,
};
use std::{
    collections::BTreeMap,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::PathBuf,
};

/// A connection to a server, by number.
pub(crate) type Caller = u64;

pub(crate) struct Pod {
    pub(crate) setup: Setup,
    /// First process of the shared pid namespace.
    pub(crate) reaper: Option<libc::pid_t>,
    users: Option<UserNamespace>,
    pub(crate) containers: BTreeMap<String, Container>,
    pub(crate) launches: Vec<Launch>,
    execs: BTreeMap<libc::pid_t, RunningExec>,
}

struct RunningExec {
    caller: Caller,
    exec: u64,
}

/// Something to tell the server.
pub(crate) enum News {
    Started { caller: Caller, number: u64, started: Started, terminal: Option<OwnedFd> },
    Failed { caller: Caller, number: u64, why: Failure },
    Exited { container: String, exit: Exit },
    ExecExited { caller: Caller, exec: u64, code: i32 },
}

impl Pod {
    pub(crate) fn new(
        setup: Setup,
        reaper: Option<libc::pid_t>,
        users: Option<UserNamespace>,
    ) -> Pod {
        Pod {
            setup,
            reaper,
            users,
            containers: BTreeMap::new(),
            launches: Vec::new(),
            execs: BTreeMap::new(),
        }
    }

    pub(crate) fn state(&self) -> State {
        let state = |(name, container): (&String, &Container)| ContainerState {
            container: name.clone(),
            // Nobody, at no time: what is not its program yet has not started.
            started: match self.is_launching(name) {
                true => Started::default(),
                false => container.started.clone(),
            },
            exit: container.exit.clone(),
        };
        State {
            pid: std::process::id() as i32,
            containers: self.containers.iter().map(state).collect(),
        }
    }

    /// Answered when the program runs, or could not.
    pub(crate) fn start(
        &mut self,
        caller: Caller,
        number: u64,
        start: Start,
        sources: &[OwnedFd],
    ) -> Result<()> {
        let name = start.container.clone();
        if self.containers.contains_key(&name) {
            return Err(Failure(format!("container {name} was started before")));
        }
        let mut container = Container {
            directory: PathBuf::from(&start.directory),
            cgroup: start.cgroup.clone(),
            oom_score_adjust: start.oom_score_adjust,
            own_pid_namespace: false,
            started: Started::default(),
            exit: None,
            log: Log::open(&start.log)
                .map_err(|error| failure(format_args!("open the log {}", start.log), &error))?,
            outputs: Vec::new(),
            input: None,
            input_once: start.stdin_once,
            terminal: start.process.terminal,
            attached: Vec::new(),
            cut: Vec::new(),
        };
        let launched = self.launch(&start, sources, &mut container);
        match launched {
            Ok(launched) => {
                container.started.pid = launched.pid;
                container.started.started_at = sys::now();
                let what = Launching::Container(name.clone());
                self.launches.push(Launch::new(launched, caller, number, what));
                self.containers.insert(name, container);
                Ok(())
            }
            Err(why) => {
                container.failed_to_start(&why.0);
                self.containers.insert(name, container);
                Err(why)
            }
        }
    }

    fn launch(
        &mut self,
        start: &Start,
        sources: &[OwnedFd],
        container: &mut Container,
    ) -> Result<Launched> {
        let wanted = &start.pid_namespace;
        let pid_namespace = if wanted.host {
            PidNamespace::Own
        } else if !wanted.container.is_empty() {
            let pid = self.living(&wanted.container)?.started.pid;
            PidNamespace::Of(sys::pidfd(pid)?)
        } else if wanted.pod {
            let reaper = self
                .reaper
                .ok_or_else(|| Failure("this pod has no shared pid namespace".into()))?;
            PidNamespace::Of(sys::pidfd(reaper)?)
        } else {
            PidNamespace::New
        };
        container.own_pid_namespace = matches!(pid_namespace, PidNamespace::New);
        let streams = if start.process.terminal {
            Streams::Terminal
        } else {
            let (stdin, input) = if start.stdin {
                let (read, write) = sys::pipe()?;
                (read, Some(write))
            } else {
                (sys::open("/dev/null", libc::O_RDONLY, 0)?, None)
            };
            let (out, stdout) = sys::pipe()?;
            let (err, stderr) = sys::pipe()?;
            container.input = input;
            container.outputs = vec![Output::new(out, false)?, Output::new(err, true)?];
            Streams::Given([stdin, stdout, stderr])
        };
        process::start(start, &self.setup, self.users.as_ref(), pid_namespace, sources, streams)
    }

    pub(crate) fn exec(
        &mut self,
        caller: Caller,
        number: u64,
        exec: Exec,
        streams: Vec<OwnedFd>,
    ) -> Result<()> {
        let container = self.living(&exec.container)?;
        let streams = if exec.process.terminal {
            Streams::Terminal
        } else {
            let streams = <[OwnedFd; 3]>::try_from(streams);
            Streams::Given(
                streams.map_err(|_| Failure("exec needs stdin, stdout and stderr".into()))?,
            )
        };
        let identity = container.started.user.clone();
        let (procs, adjust) = (container.cgroup.procs.clone(), container.oom_score_adjust);
        let launched = process::exec(
            container.started.pid,
            &exec.process,
            &identity,
            self.users.as_ref(),
            Place { cgroup_procs: &procs, oom_score_adjust: adjust },
            streams,
        )?;
        let launch = Launch::new(launched, caller, number, Launching::Exec(exec.exec));
        self.launches.push(Launch { identity, ..launch });
        Ok(())
    }

    /// Between clone and execve: it has the host's files around it, or half of its own.
    fn is_launching(&self, name: &str) -> bool {
        let is = |it: &Launch| matches!(&it.what, Launching::Container(known) if known == name);
        self.launches.iter().any(is)
    }

    fn living(&self, name: &str) -> Result<&Container> {
        match self.containers.get(name) {
            Some(_) if self.is_launching(name) => {
                Err(Failure(format!("container {name} is still being started")))
            }
            Some(container) if container.exit.is_none() => Ok(container),
            Some(_) => Err(Failure(format!("container {name} is not running"))),
            None => Err(Failure(format!("container {name} was never started"))),
        }
    }

    /// Hears what starting processes have to say.
    pub(crate) fn advance_launches(&mut self, news: &mut Vec<News>) {
        let mut index = 0;
        while index < self.launches.len() {
            match self.launches[index].hear() {
                Heard::NotYet => index += 1,
                Heard::Running => {
                    let launch = self.launches.swap_remove(index);
                    news.push(self.launched(launch));
                }
                Heard::Failed(why) => {
                    let launch = self.launches.swap_remove(index);
                    match &launch.what {
                        // As if it had never been asked for.
                        Launching::Container(name) if launch.abandoned => {
                            self.containers.remove(name);
                        }
                        Launching::Container(name) => {
                            if let Some(container) = self.containers.get_mut(name) {
                                container.failed_to_start(&why.0);
                            }
                        }
                        Launching::Exec(_) => {}
                    }
                    news.push(News::Failed { caller: launch.caller, number: launch.number, why });
                }
            }
        }
    }

    fn launched(&mut self, launch: Launch) -> News {
        let Launch { pid, caller, number, what, identity, mut terminal, .. } = launch;
        let mut started = Started { pid, started_at: sys::now(), user: identity };
        match what {
            Launching::Exec(exec) => {
                self.execs.insert(pid, RunningExec { caller, exec });
            }
            Launching::Container(name) => {
                if let Some(container) = self.containers.get_mut(&name) {
                    started.started_at = container.started.started_at;
                    container.started = started.clone();
                    let _told_by_reply =
                        replace_file(&container.directory, "started", &started.to_bytes());
                    if let Some(master) = terminal.take()
                        && let Err(why) = take_terminal(container, master)
                    {
                        container.kill_all();
                        return News::Failed { caller, number, why };
                    }
                }
            }
        }
        News::Started { caller, number, started, terminal }
    }

    /// Collects every child that has ended.
    pub(crate) fn reap(&mut self, news: &mut Vec<News>) {
        // A program that ends at once was started first.
        self.advance_launches(news);
        loop {
            let mut status = 0;
            // SAFETY: waitpid writes one int.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            if pid <= 0 {
                return;
            }
            self.advance_launches(news);
            if let Some(RunningExec { caller, exec }) = self.execs.remove(&pid) {
                news.push(News::ExecExited { caller, exec, code: exit_code(status) });
                continue;
            }
            let ended = |(_, container): &(&String, &mut Container)| {
                container.started.pid == pid && container.exit.is_none()
            };
            if let Some((name, container)) = self.containers.iter_mut().find(ended) {
                container.ended(status);
                let exit = container.exit.clone().expect("ended records it");
                news.push(News::Exited { container: name.clone(), exit });
            }
        }
    }

    pub(crate) fn signal(&self, signal: &Signal) -> Result<()> {
        let Some(container) = self.containers.get(&signal.container) else {
            return Err(Failure(format!("container {} was never started", signal.container)));
        };
        if container.exit.is_some() {
            return Ok(());
        }
        if signal.all {
            container.signal_all(signal.signal);
        }
        match sys::kill(container.started.pid, signal.signal) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                Err(failure(format_args!("signal container {}", signal.container), &error))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn signal_exec(&self, signal: &SignalExec) {
        for (pid, running) in &self.execs {
            if running.exec == signal.exec {
                // The process leads a session and a group; what it started is in it, unless it left.
                let _gone_already = sys::kill(-pid, signal.signal);
            }
        }
    }

    /// Nobody can learn any more how these begin or end. What has begun stays.
    pub(crate) fn caller_gone(&mut self, caller: Caller) {
        for launch in self.launches.iter_mut().filter(|it| it.caller == caller) {
            launch.abandoned = true;
            let _gone_already = sys::kill(launch.pid, libc::SIGKILL);
        }
        for (pid, running) in &self.execs {
            if running.caller == caller {
                let _gone_already = sys::kill(-pid, libc::SIGKILL);
            }
        }
    }

    /// Returns the way to the container's stdin, or its terminal.
    pub(crate) fn attach(
        &mut self,
        caller: Caller,
        attach: &Attach,
        mut streams: Vec<OwnedFd>,
    ) -> Result<Option<OwnedFd>> {
        self.living(&attach.container)?;
        let container = self.containers.get_mut(&attach.container).expect("it lives");
        for stream in &streams {
            sys::set_nonblocking(stream)?;
        }
        if !streams.is_empty() {
            let stderr = (streams.len() > 1).then(|| streams.remove(1));
            let stdout = Some(streams.remove(0));
            let number = attach.attach;
            container.attached.push(Attached { stdout, stderr, caller, number });
        }
        match &container.input {
            _ if !attach.stdin && !container.terminal => Ok(None),
            None => Ok(None),
            // Its end of input is when this one client leaves.
            Some(_) if container.input_once && !container.terminal => Ok(container.input.take()),
            Some(input) => {
                let copy =
                    input.try_clone().map_err(|error| failure("copy the way to stdin", &error))?;
                Ok(Some(copy))
            }
        }
    }

    /// Clients whose copy of the output has ended before the output.
    pub(crate) fn take_cut(&mut self) -> Vec<(Caller, u64)> {
        self.containers.values_mut().flat_map(|it| std::mem::take(&mut it.cut)).collect()
    }

    pub(crate) fn reopen_log(&mut self, name: &str) -> Result<()> {
        let Some(container) = self.containers.get_mut(name) else {
            return Err(Failure(format!("container {name} was never started")));
        };
        container
            .log
            .reopen()
            .map_err(|error| failure(format_args!("reopen the log of container {name}"), &error))
    }

    pub(crate) fn forget(&mut self, name: &str) -> Result<()> {
        match self.containers.get(name) {
            Some(container) if container.exit.is_none() => {
                Err(Failure(format!("container {name} is running")))
            }
            _ => {
                self.containers.remove(name);
                Ok(())
            }
        }
    }

    pub(crate) fn kill_everything(&mut self) {
        for container in self.containers.values().filter(|container| container.exit.is_none()) {
            container.kill_all();
            let _gone_already = sys::kill(container.started.pid, libc::SIGKILL);
        }
    }

    pub(crate) fn all_ended(&self) -> bool {
        self.containers.values().all(|container| container.exit.is_some())
    }
}

fn take_terminal(container: &mut Container, master: OwnedFd) -> Result<()> {
    let input = master.try_clone().map_err(|error| failure("copy the terminal", &error))?;
    container.input = Some(input);
    container.outputs = vec![Output::new(master, false)?];
    Ok(())
}

fn exit_code(status: libc::c_int) -> i32 {
    if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

/// A socket inside the pod that connects to one of its ports. The caller waits for it.
pub(crate) fn connect(port: u16) -> Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(std::net::Ipv4Addr::LOCALHOST).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: the address has the stated length and outlives the call; the descriptor is new.
    unsafe {
        let socket = sys::check("make a socket", libc::socket(libc::AF_INET, kind, 0))?;
        let socket = OwnedFd::from_raw_fd(socket);
        let length = size_of_val(&address) as libc::socklen_t;
        let result = libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length);
        if result < 0 {
            let error = std::io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EINPROGRESS) {
                return Err(failure(format_args!("connect to port {port} of the pod"), &error));
            }
        }
        Ok(socket)
    }
}
