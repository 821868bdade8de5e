//! Exec and attach for the streaming half: the descriptors that a request wants, and how the process ended.

use crate::{
    Embedded, Stdio,
    embedded::Inner,
    error::{Attempt, Error},
    streaming::{Process, Processes, Streams},
};
use rpc::cri::{AttachRequest, ExecRequest};
use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::OwnedFd,
    sync::Weak,
};
use stdx::BoxFuture;
use tokio::net::TcpStream;
use tonic::Status;

/// The runtime as the streaming half sees it. Weak: the runtime itself owns the streaming half.
pub(crate) struct Own(pub(crate) Weak<Inner>);

impl Own {
    fn runtime(&self) -> Result<Embedded, Status> {
        let inner =
            self.0.upgrade().ok_or_else(|| Status::unavailable("the runtime is shutting down"))?;
        Ok(Embedded { inner })
    }
}

impl Processes for Own {
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<Process, Status>> {
        Box::pin(async move { self.runtime()?.exec_for(request).await })
    }

    fn attach(&self, request: AttachRequest) -> BoxFuture<'_, Result<Process, Status>> {
        Box::pin(async move { self.runtime()?.attach_for(request).await })
    }

    fn connect<'a>(
        &'a self,
        sandbox: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<TcpStream, Status>> {
        Box::pin(async move {
            let connected = self.runtime()?.connect(sandbox, port).await;
            connected.map_err(|error| {
                let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), words);
                Status::unavailable(format!(
                    "failed to connect to localhost:{port} inside the pod: dial tcp 127.0.0.1:{port}: {why}"
                ))
            })
        })
    }
}

/// Go's words for what people look for.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    match error.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => "connect: connection refused".to_owned(),
        _ => error.to_string(),
    }
}

impl Embedded {
    async fn exec_for(&self, request: ExecRequest) -> Result<Process, Status> {
        let ExecRequest { container_id, cmd, tty, stdin, stdout, stderr } = request;
        if tty {
            let mut running = self.exec(&container_id, cmd, Stdio::Terminal).await?;
            let terminal = running.terminal.take();
            let master =
                terminal.ok_or_else(|| Status::internal("the shim passed no terminal"))?.master;
            let exit = Box::pin(async move { running.wait().await.map_err(Status::from) });
            return Ok(Process { streams: Streams::Terminal(master), exit });
        }
        let (theirs_in, ours_in) = input(stdin)?;
        let (ours_out, theirs_out) = output(stdout)?;
        let (ours_err, theirs_err) = output(stderr)?;
        let stdio = Stdio::Given { stdin: theirs_in, stdout: theirs_out, stderr: theirs_err };
        let mut running = self.exec(&container_id, cmd, stdio).await?;
        let exit = Box::pin(async move { running.wait().await.map_err(Status::from) });
        Ok(Process {
            streams: Streams::Pipes { stdin: ours_in, stdout: ours_out, stderr: ours_err },
            exit,
        })
    }

    async fn attach_for(&self, request: AttachRequest) -> Result<Process, Status> {
        let container = self.container(&request.container_id)?;
        let attached = self.attach(&request.container_id, request.stdin).await?;
        let streams = match attached.terminal {
            Some(terminal) => {
                Streams::SharedTerminal { master: terminal.master, output: attached.stdout }
            }
            None => Streams::Pipes {
                stdin: attached.stdin,
                stdout: request.stdout.then_some(attached.stdout),
                stderr: request.stderr.then_some(attached.stderr),
            },
        };
        let mut cut = attached.cut;
        let exit = Box::pin(async move {
            tokio::select! {
                biased;
                () = cut.wait() => Err(Status::data_loss(
                    "its output came faster than it was taken; all of it is in the log",
                )),
                exit = container.wait_for_exit() => Ok(exit.code),
            }
        });
        Ok(Process { streams, exit })
    }
}

/// The process's end and ours.
fn input(wanted: bool) -> Result<(OwnedFd, Option<OwnedFd>), Error> {
    let attempted = || "make the input of an exec".to_owned();
    if wanted {
        let (theirs, ours) = io::pipe().attempt(attempted)?;
        Ok((theirs.into(), Some(ours.into())))
    } else {
        Ok((File::open("/dev/null").attempt(attempted)?.into(), None))
    }
}

/// Ours and the process's end.
fn output(wanted: bool) -> Result<(Option<OwnedFd>, OwnedFd), Error> {
    let attempted = || "make the output of an exec".to_owned();
    if wanted {
        let (ours, theirs) = io::pipe().attempt(attempted)?;
        Ok((Some(ours.into()), theirs.into()))
    } else {
        Ok((None, OpenOptions::new().write(true).open("/dev/null").attempt(attempted)?.into()))
    }
}
