//! Further processes in a container, attaching to its first one, and sockets into a pod.
//!
//! Data never passes through the shim: it hands over descriptors, and tells how a process ended.

use crate::{
    Embedded,
    container::Container,
    embedded::ask,
    error::{Attempt, Error, Result},
    link::Link,
    spec,
};
use shim::protocol::{Attach, Connect, Exec, Request, SignalExec};
use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};
use tokio::{
    net::{TcpStream, unix::pipe},
    sync::oneshot,
};

/// What an exec reads from and writes to.
#[derive(Debug)]
pub enum Stdio {
    /// Its own ends: usually of pipes whose other ends the caller keeps.
    Given { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
    /// A terminal, which [`ExecHandle::terminal`] then holds.
    Terminal,
}

/// A running exec. Dropping it leaves the process alone.
#[derive(Debug)]
pub struct ExecHandle {
    /// As the host sees it.
    pub pid: i32,
    /// With [`Stdio::Terminal`]: to read from, write to and resize.
    pub terminal: Option<Terminal>,
    exec: u64,
    link: Link,
    exit: oneshot::Receiver<i32>,
}

impl ExecHandle {
    /// Its exit code; 128 + signal when a signal ended it. Fails when the shim is gone.
    pub async fn wait(&mut self) -> Result<i32> {
        (&mut self.exit).await.map_err(|_| self.link.gone())
    }

    /// Kills it with what it started.
    pub async fn kill(&self) -> Result<()> {
        let request = Request::SignalExec(SignalExec { exec: self.exec, signal: libc::SIGKILL });
        ask(&self.link, request, || format!("kill exec process {}", self.pid)).await.map(drop)
    }
}

impl Drop for ExecHandle {
    fn drop(&mut self) {
        self.link.forget_exec(self.exec);
    }
}

/// The master of a terminal.
#[derive(Debug)]
pub struct Terminal {
    pub master: OwnedFd,
}

impl Terminal {
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let size = libc::winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptor is open and the ioctl reads one winsize.
        let result =
            unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        if result < 0 {
            Err(io::Error::last_os_error()).attempt(|| "resize a terminal".to_owned())
        } else {
            Ok(())
        }
    }

    /// A second descriptor of the same terminal, to read and write independently.
    pub fn try_clone(&self) -> Result<Terminal> {
        let master = self.master.try_clone().attempt(|| "copy a terminal".to_owned())?;
        Ok(Terminal { master })
    }
}

/// A connection to a container's first process.
#[derive(Debug)]
pub struct Attached {
    /// The way to its stdin, if it was asked for and the container has one.
    pub stdin: Option<OwnedFd>,
    /// A copy of its output from now on; ends with the container. A reader that falls behind by more than the pipe
    /// holds is cut off, and told so by `cut`. With a terminal everything comes by `stdout`.
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    /// Set when the container has a terminal: `stdin` is it, and this resizes it.
    pub terminal: Option<Terminal>,
    pub cut: Cut,
}

/// Whether the copy of the output ended before the output.
#[derive(Debug)]
pub struct Cut {
    link: Link,
    attach: u64,
    told: oneshot::Receiver<i32>,
}

impl Cut {
    /// Returns when the reader was cut off; never, if it is not.
    pub async fn wait(&mut self) {
        if (&mut self.told).await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.link.forget_exec(self.attach);
    }
}

/// Room for a burst of output while the reader is busy.
const ATTACH_BUFFER: usize = 1 << 20;

impl Embedded {
    /// Runs `command` in a running container, as its user, with its limits.
    pub async fn exec(
        &self,
        container: &str,
        command: Vec<String>,
        stdio: Stdio,
    ) -> Result<ExecHandle> {
        let container = self.container(container)?;
        container.running()?;
        if command.is_empty() {
            return Err(Error::Invalid("exec: no command specified".into()));
        }
        let link = container.sandbox.link()?;
        let (streams, terminal) = match stdio {
            Stdio::Given { stdin, stdout, stderr } => (vec![stdin, stdout, stderr], false),
            Stdio::Terminal => (Vec::new(), true),
        };
        let process = spec::process(&container, command, terminal, self.seccomp(&container)?)?;
        let (exec, exit) = link.expect_exec();
        let request = Request::Exec(Exec { container: container.id.clone(), exec, process });
        let (reply, mut passed) = link.request(request, streams).await?;
        let pid = match reply.started {
            Some(started) if reply.error.is_empty() => started.pid,
            _ => {
                link.forget_exec(exec);
                let attempted = format!("exec in container {}", container.id);
                return Err(Error::Shim { attempted, why: reply.error });
            }
        };
        let terminal = passed.pop().map(|master| Terminal { master });
        Ok(ExecHandle { pid, terminal, exec, link, exit })
    }

    /// Runs `command` and collects what it writes; `None` when it was killed because `timeout` was over.
    pub(crate) async fn exec_to_end(
        &self,
        container: &str,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<Option<(i32, Vec<u8>, Vec<u8>)>> {
        let attempted = || format!("make pipes for an exec in container {container}");
        let nothing = File::open("/dev/null").attempt(attempted)?;
        let (out, stdout) = io::pipe().attempt(attempted)?;
        let (err, stderr) = io::pipe().attempt(attempted)?;
        let stdio =
            Stdio::Given { stdin: nothing.into(), stdout: stdout.into(), stderr: stderr.into() };
        let (mut out, mut err) = (Collector::new(out.into())?, Collector::new(err.into())?);
        let mut running = self.exec(container, command, stdio).await?;
        let deadline = async {
            match timeout {
                Some(timeout) => stdx::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(deadline);
        let (mut out_open, mut err_open) = (true, true);
        let code = loop {
            tokio::select! {
                code = running.wait() => break code?,
                more = out.read(), if out_open => out_open = more?,
                more = err.read(), if err_open => err_open = more?,
                () = &mut deadline => {
                    running.kill().await?;
                    return Ok(None);
                }
            }
        };
        // What it left running may keep the pipes open; what it wrote itself is there by now.
        Ok(Some((code, out.drain()?, err.drain()?)))
    }

    /// Connects to the first process of a running container.
    pub async fn attach(&self, container: &str, stdin: bool) -> Result<Attached> {
        let container = self.container(container)?;
        container.running()?;
        let attempted = || format!("attach to container {}", container.id);
        let (stdout, to_stdout) = io::pipe().attempt(attempted)?;
        let (stderr, to_stderr) = io::pipe().attempt(attempted)?;
        for pipe in [&to_stdout, &to_stderr] {
            // A smaller pipe only means less patience with a slow reader.
            let _kept_small = rustix::pipe::fcntl_setpipe_size(pipe, ATTACH_BUFFER);
        }
        let link = container.sandbox.link()?;
        let (attach, told) = link.expect_exec();
        let cut = Cut { link: link.clone(), attach, told };
        let request = Request::Attach(Attach { container: container.id.clone(), stdin, attach });
        let streams = vec![to_stdout.into(), to_stderr.into()];
        let (reply, mut passed) = link.request(request, streams).await?;
        if !reply.error.is_empty() {
            return Err(Error::Shim { attempted: attempted(), why: reply.error });
        }
        let input = passed.pop();
        let (stdin, terminal) = split_input(&container, input, stdin)?;
        Ok(Attached { stdin, stdout: stdout.into(), stderr: stderr.into(), terminal, cut })
    }

    /// A connection to `port` on the loopback interface of a pod.
    pub async fn connect(&self, sandbox: &str, port: u16) -> Result<TcpStream> {
        let sandbox = self.sandbox(sandbox)?;
        let attempted = || format!("connect to port {port} of sandbox {}", sandbox.id);
        let (reply, mut passed) =
            sandbox.link()?.request(Request::Connect(Connect { port }), Vec::new()).await?;
        if !reply.error.is_empty() {
            return Err(Error::Shim { attempted: attempted(), why: reply.error });
        }
        let socket = passed
            .pop()
            .ok_or_else(|| io::Error::other("the shim passed no socket"))
            .attempt(attempted)?;
        let stream = TcpStream::from_std(socket.into()).attempt(attempted)?;
        stream.writable().await.attempt(attempted)?;
        match stream.take_error().attempt(attempted)? {
            Some(error) => Err(error).attempt(attempted),
            None => Ok(stream),
        }
    }
}

fn split_input(
    container: &Container,
    input: Option<OwnedFd>,
    stdin: bool,
) -> Result<(Option<OwnedFd>, Option<Terminal>)> {
    let Some(input) = input else { return Ok((None, None)) };
    if !container.config.tty {
        return Ok((Some(input), None));
    }
    let terminal = Terminal { master: input };
    let stdin = if stdin { Some(terminal.try_clone()?.master) } else { None };
    Ok((stdin, Some(terminal)))
}

/// How much of an exec's output is kept of each stream: both go into one message, which nodes take up to 16 MiB.
const COLLECTED_MAX: usize = (8 << 20) - (1 << 10);

/// As many reads as empty the largest pipe (1 MiB); what is written meanwhile comes from others.
const READS_AT_EXIT_MAX: usize = 64;

struct Collector {
    source: pipe::Receiver,
    bytes: Vec<u8>,
}

impl Collector {
    fn new(source: OwnedFd) -> Result<Collector> {
        let source = pipe::Receiver::from_owned_fd(source)
            .attempt(|| "read the output of an exec".to_owned())?;
        Ok(Collector { source, bytes: Vec::new() })
    }

    /// Takes what is there. `false` at the end.
    async fn read(&mut self) -> Result<bool> {
        let attempted = || "read the output of an exec".to_owned();
        self.source.readable().await.attempt(attempted)?;
        let mut buffer = [0u8; 16 << 10];
        match self.source.try_read(&mut buffer) {
            Ok(count) => {
                self.keep(&buffer[..count]);
                Ok(count > 0)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error).attempt(attempted),
        }
    }

    /// Takes what is there now. Asked of the pipe itself: readiness may not have been noticed yet.
    fn drain(self) -> Result<Vec<u8>> {
        let attempted = || "read the output of an exec".to_owned();
        let Collector { source, mut bytes } = self;
        let mut source = File::from(source.into_nonblocking_fd().attempt(attempted)?);
        let mut buffer = [0u8; 16 << 10];
        for _ in 0..READS_AT_EXIT_MAX {
            match source.read(&mut buffer) {
                Ok(count @ 1..) => keep(&mut bytes, &buffer[..count]),
                Ok(0) | Err(_) => break,
            }
        }
        Ok(bytes)
    }

    fn keep(&mut self, more: &[u8]) {
        keep(&mut self.bytes, more);
    }
}

fn keep(bytes: &mut Vec<u8>, more: &[u8]) {
    let room = COLLECTED_MAX - bytes.len();
    bytes.extend_from_slice(&more[..more.len().min(room)]);
}
