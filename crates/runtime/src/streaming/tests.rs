//! Sessions from end to end over the real socket, with processes of this machine in place of containers.

use super::*;
use futures_util::{SinkExt, StreamExt};
use std::{
    os::fd::{AsRawFd, FromRawFd},
    process::Stdio,
};
use stdx::{Shutdown, SystemClock, SystemEntropy};
use tokio::net::UnixStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};

/// Runs commands as they are; the container is only a name.
struct Local;

impl Processes for Local {
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<Process, Status>> {
        Box::pin(async move {
            let [program, arguments @ ..] = &request.cmd[..] else {
                return Err(Status::invalid_argument("no command"));
            };
            let mut command = tokio::process::Command::new(program);
            command.args(arguments);
            let pipe = |wanted: bool| if wanted { Stdio::piped() } else { Stdio::null() };
            let mut terminal = None;
            if request.tty {
                let (master, slave) = terminal_pair();
                let end = || Stdio::from(slave.try_clone().unwrap());
                command.stdin(end()).stdout(end()).stderr(end());
                terminal = Some(master);
            } else {
                command.stdin(pipe(request.stdin));
                command.stdout(pipe(request.stdout)).stderr(pipe(request.stderr));
            }
            let mut child = command.spawn().map_err(|error| Status::unknown(error.to_string()))?;
            drop(command);
            let streams = match terminal {
                Some(master) => Streams::Terminal(master),
                None => Streams::Pipes {
                    stdin: child.stdin.take().map(|end| end.into_owned_fd().unwrap()),
                    stdout: child.stdout.take().map(|end| end.into_owned_fd().unwrap()),
                    stderr: child.stderr.take().map(|end| end.into_owned_fd().unwrap()),
                },
            };
            let exit = Box::pin(async move {
                let status =
                    child.wait().await.map_err(|error| Status::unknown(error.to_string()))?;
                let signal = std::os::unix::process::ExitStatusExt::signal(&status);
                Ok(status.code().or(signal.map(|signal| 128 + signal)).unwrap_or(-1))
            });
            Ok(Process { streams, exit })
        })
    }

    fn attach(&self, request: AttachRequest) -> BoxFuture<'_, Result<Process, Status>> {
        let cmd = ["sh", "-c", "echo attached; exit 3"].map(str::to_owned).to_vec();
        let AttachRequest { container_id, stdin, tty, stdout, stderr } = request;
        self.exec(ExecRequest { container_id, cmd, tty, stdin, stdout, stderr })
    }

    fn connect<'a>(&'a self, _: &'a str, port: u16) -> BoxFuture<'a, Result<TcpStream, Status>> {
        Box::pin(async move {
            let connected = TcpStream::connect(("127.0.0.1", port)).await;
            connected.map_err(|error| Status::unavailable(error.kind().to_string()))
        })
    }
}

fn terminal_pair() -> (OwnedFd, OwnedFd) {
    let (mut master, mut slave) = (-1, -1);
    // SAFETY: two places for descriptors; the rest may be null.
    let answer = unsafe {
        libc::openpty(
            &raw mut master,
            &raw mut slave,
            std::ptr::null_mut(),
            std::ptr::null(),
            std::ptr::null(),
        )
    };
    assert_eq!(answer, 0, "open a terminal");
    // SAFETY: both are new and nobody else's.
    let pair = unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
    for end in [&pair.0, &pair.1] {
        // SAFETY: the descriptor is open. Other tests start processes meanwhile.
        unsafe { libc::fcntl(end.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    pair
}

struct Server {
    streaming: Streaming,
    _directory: tempfile::TempDir,
    _shutdown: Shutdown,
}

impl Server {
    fn start() -> Server {
        let directory = tempfile::tempdir().unwrap();
        let streaming = Streaming::new(
            directory.path().join("streaming.sock"),
            Arc::new(Local),
            Arc::new(SystemClock),
            Arc::new(SystemEntropy::default()),
        );
        let (shutdown, signal) = Shutdown::new();
        let listener = streaming.bind().unwrap();
        let serving = streaming.clone();
        tokio::spawn(async move { serving.serve(listener, signal).await });
        Server { streaming, _directory: directory, _shutdown: shutdown }
    }

    async fn exec(&self, protocol: &str, tty: bool, stdin: bool, cmd: &[&str]) -> Client {
        let url = self.streaming.exec(request(tty, stdin, cmd)).unwrap();
        Client::open(&url, protocol).await.unwrap()
    }
}

fn request(tty: bool, stdin: bool, cmd: &[&str]) -> ExecRequest {
    ExecRequest {
        container_id: "c1".to_owned(),
        cmd: cmd.iter().map(|word| (*word).to_owned()).collect(),
        tty,
        stdin,
        stdout: true,
        stderr: !tty,
    }
}

const V5: &str = "v5.channel.k8s.io";

struct Client(WebSocketStream<UnixStream>);

impl Client {
    async fn open(url: &str, protocol: &str) -> Result<Client, tungstenite::Error> {
        let (socket, path) = split_url(url).unwrap();
        let stream = UnixStream::connect(socket).await.unwrap();
        let mut request = format!("ws://localhost{path}").into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
        let (socket, answer) = client_async(request, stream).await?;
        assert_eq!(answer.headers()["Sec-WebSocket-Protocol"], protocol);
        Ok(Client(socket))
    }

    async fn send(&mut self, message: &[u8]) {
        self.0.send(Message::binary(message.to_vec())).await.unwrap();
    }

    /// What came until the end on channels 1, 2 and 3.
    async fn finish(mut self) -> (String, String, serde_json::Value) {
        let mut channels = [const { Vec::new() }; 4];
        let mut first = true;
        while let Some(message) = self.0.next().await {
            match message.unwrap() {
                Message::Binary(data) => {
                    assert!(!first || *data == [1], "the first message says that we are connected");
                    first = false;
                    channels[usize::from(data[0])].extend_from_slice(&data[1..]);
                }
                Message::Close(frame) => assert_eq!(u16::from(frame.unwrap().code), 1000),
                other => panic!("{other:?}"),
            }
        }
        let [_, out, err, status] = channels.map(|bytes| String::from_utf8(bytes).unwrap());
        (out, err, serde_json::from_str(&status).unwrap())
    }

    async fn wait_for(&mut self, text: &str) {
        let mut seen = String::new();
        while !seen.contains(text) {
            let data = self.0.next().await.unwrap().unwrap().into_data();
            seen.push_str(std::str::from_utf8(&data[1..]).unwrap());
        }
    }
}

fn exit_code(code: &str) -> serde_json::Value {
    serde_json::json!({
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": format!(
            "command terminated with non-zero exit code: command terminated with exit code {code}"
        ),
        "details": { "causes": [{ "reason": "ExitCode", "message": code }] },
    })
}

fn success() -> serde_json::Value {
    serde_json::json!({ "metadata": {}, "status": "Success" })
}

#[tokio::test]
async fn output_errors_and_the_exit_code_arrive() {
    let server = Server::start();
    for protocol in [V5, "v4.channel.k8s.io"] {
        let cmd = ["sh", "-c", "echo out; echo err >&2; exit 7"];
        let ended = server.exec(protocol, false, false, &cmd).await.finish().await;
        assert_eq!(ended, ("out\n".into(), "err\n".into(), exit_code("7")));
    }
    let ended = server.exec(V5, false, false, &["true"]).await.finish().await;
    assert_eq!(ended, (String::new(), String::new(), success()));
    let ended = server.exec(V5, false, false, &["sh", "-c", "kill -9 $$"]).await.finish().await;
    assert_eq!(ended.2, exit_code("137"));
}

#[tokio::test]
async fn a_closed_input_ends_it_while_output_goes_on() {
    let server = Server::start();
    let mut client = server.exec(V5, false, true, &["sh", "-c", "cat; echo end"]).await;
    client.send(b"\0hello ").await;
    client.send(b"\0you\n").await;
    client.send(&[255, 0]).await;
    assert_eq!(client.finish().await, ("hello you\nend\n".into(), String::new(), success()));
}

#[tokio::test]
async fn nothing_of_a_big_stream_is_lost_either_way() {
    let server = Server::start();
    let client = server.exec(V5, false, true, &["cat"]).await;
    let (mut sink, mut source) = client.0.split();
    let piece: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    let (sent, copy) = (200, piece.clone());
    let sending = tokio::spawn(async move {
        for _ in 0..sent {
            sink.send(Message::binary([&[0][..], &copy].concat())).await.unwrap();
        }
        sink.send(Message::binary(vec![255, 0])).await.unwrap();
        sink
    });
    let mut received = Vec::new();
    while let Some(Ok(message)) = source.next().await {
        let data = message.into_data();
        if data.first() == Some(&1) {
            received.extend_from_slice(&data[1..]);
        }
    }
    drop(sending.await.unwrap());
    assert_eq!(received.len(), piece.len() * sent);
    assert!(received.chunks(piece.len()).all(|chunk| chunk == piece));
}

#[tokio::test]
async fn input_that_nobody_reads_does_not_stop_the_end() {
    let server = Server::start();
    let mut client = server.exec(V5, false, true, &["sh", "-c", "exec <&-; exit 4"]).await;
    for _ in 0..50 {
        if client.0.send(Message::binary(vec![0; 60_000])).await.is_err() {
            break;
        }
    }
    assert_eq!(client.finish().await.2, exit_code("4"));
}

#[tokio::test]
async fn a_terminal_has_the_size_it_is_told() {
    let server = Server::start();
    let cmd = ["sh", "-c", "stty -echo; echo ready; read line; stty size; echo $line"];
    let mut client = server.exec(V5, true, true, &cmd).await;
    client.wait_for("ready").await;
    client.send(b"\x04{\"Width\":123,\"Height\":45}").await;
    client.send(b"\0typed\n").await;
    let (out, _, status) = {
        // The first message is long gone: collect the rest by hand.
        let mut out = String::new();
        let mut status = String::new();
        while let Some(Ok(message)) = client.0.next().await {
            let data = message.into_data();
            match data.first() {
                Some(1) => out.push_str(std::str::from_utf8(&data[1..]).unwrap()),
                Some(3) => status.push_str(std::str::from_utf8(&data[1..]).unwrap()),
                _ => {}
            }
        }
        (out, (), serde_json::from_str::<serde_json::Value>(&status).unwrap())
    };
    assert!(out.contains("45 123\r\ntyped\r\n"), "{out:?}");
    assert_eq!(status, success());
}

#[tokio::test]
async fn a_client_that_leaves_takes_only_the_streams_with_it() {
    let server = Server::start();
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("told");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    // Its input ends, so cat ends, and the process lives on to tell us what it read.
    let script = format!("text=$(cat); trap '' PIPE; echo \"$text\" > {}", fifo.display());
    let mut client = server.exec(V5, false, true, &["sh", "-c", &script]).await;
    client.send(b"\0last words").await;
    client.0.close(None).await.unwrap();
    drop(client);
    let told = tokio::task::spawn_blocking(move || fs::read_to_string(fifo).unwrap());
    assert_eq!(told.await.unwrap(), "last words\n");
}

#[tokio::test]
async fn a_command_that_cannot_start_says_why() {
    let server = Server::start();
    let (_, _, status) = server.exec(V5, false, false, &["/nope"]).await.finish().await;
    assert_eq!(status["reason"], "InternalError");
    assert_eq!(
        status["message"],
        "Internal error occurred: error executing command in container: No such file or directory (os error 2)"
    );
}

#[tokio::test]
async fn an_attached_container_ends_the_session_with_success() {
    let server = Server::start();
    let request = AttachRequest {
        container_id: "c1".to_owned(),
        stdout: true,
        stderr: true,
        ..AttachRequest::default()
    };
    let url = server.streaming.attach(request).unwrap();
    let ended = Client::open(&url, V5).await.unwrap().finish().await;
    assert_eq!(ended, ("attached\n".into(), String::new(), success()));
}

#[tokio::test]
async fn the_base64_form_is_text() {
    let server = Server::start();
    let protocol = "v4.base64.channel.k8s.io";
    let mut client = server.exec(protocol, false, false, &["echo", "foo"]).await;
    let mut messages = Vec::new();
    while let Some(Ok(Message::Text(text))) = client.0.next().await {
        messages.push(text.to_string());
    }
    assert_eq!(messages[..2], ["1", "1Zm9vCg=="]);
}

/// Old clients read words, and take silence for success.
#[tokio::test]
async fn the_first_version_tells_only_what_went_wrong() {
    let server = Server::start();
    let protocol = "channel.k8s.io";
    for (command, last) in [("true", ""), ("false", "exit code 1")] {
        let mut client = server.exec(protocol, false, false, &[command]).await;
        let mut error = Vec::new();
        while let Some(Ok(Message::Binary(message))) = client.0.next().await {
            if message[0] == 3 {
                error.extend_from_slice(&message[1..]);
            }
        }
        let error = String::from_utf8(error).unwrap();
        assert!(error.ends_with(last) && error.is_empty() == last.is_empty(), "{error}");
    }
}

#[tokio::test]
async fn a_url_works_once_and_only_as_what_it_is() {
    let server = Server::start();
    let new = || server.streaming.exec(request(false, false, &["true"])).unwrap();
    let status = |opened: Result<Client, tungstenite::Error>| match opened {
        Err(tungstenite::Error::Http(answer)) => answer.status().as_u16(),
        Err(other) => panic!("{other}"),
        Ok(_) => 101,
    };
    let url = new();
    assert_eq!(status(Client::open(&url, V5).await), 101);
    assert_eq!(status(Client::open(&url, V5).await), 404);
    assert_eq!(status(Client::open(&new().replace("/exec/", "/attach/"), V5).await), 404);
    assert_eq!(status(Client::open(&new(), "v3.channel.k8s.io").await), 403);
    let socket = split_url(&url).unwrap().0;
    assert_eq!(fs::metadata(socket).unwrap().permissions().mode() & 0o777, 0o600);

    let no_streams = ExecRequest { container_id: "c".into(), ..ExecRequest::default() };
    assert_eq!(server.streaming.exec(no_streams).unwrap_err().code(), tonic::Code::InvalidArgument);
    for port in [vec![], vec![0], vec![65536], vec![80; 65]] {
        let request = PortForwardRequest { pod_sandbox_id: "s".into(), port };
        let refused = server.streaming.port_forward(request).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }
}

/// Collects what comes by each channel until the session ends.
async fn channels(mut client: Client) -> std::collections::BTreeMap<u8, Vec<u8>> {
    let mut all = std::collections::BTreeMap::<u8, Vec<u8>>::new();
    while let Some(Ok(message)) = client.0.next().await {
        let data = message.into_data();
        if let [channel, data @ ..] = &data[..] {
            all.entry(*channel).or_default().extend_from_slice(data);
        }
    }
    all
}

#[tokio::test]
async fn a_port_that_answers_and_one_that_does_not_leave_each_other_alone() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = Server::start();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap().port();
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let port = vec![i32::from(closed), i32::from(open)];
    let request = PortForwardRequest { pod_sandbox_id: "s1".to_owned(), port };
    let url = server.streaming.port_forward(request).unwrap();
    let mut client = Client::open(&url, V5).await.unwrap();
    client.send(b"\x02question").await;
    client.send(&[255, 2]).await;
    let pod = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = String::new();
        // Ends because the client closed its half.
        stream.read_to_string(&mut asked).await.unwrap();
        stream.write_all(b"answer to ").await.unwrap();
        stream.write_all(asked.as_bytes()).await.unwrap();
    };
    let (all, ()) = tokio::join!(channels(client), pod);
    let port = |port: u16| port.to_le_bytes().to_vec();
    let why = format!("error forwarding port {closed} to pod s1, uid : connection refused");
    assert_eq!(all[&0], port(closed));
    assert_eq!(all[&1], [port(closed), why.into_bytes()].concat());
    assert_eq!(all[&2], [port(open), b"answer to question".to_vec()].concat());
    assert_eq!(all[&3], port(open));
}

#[test]
fn a_url_is_a_socket_and_a_path() {
    let split = split_url("unix:///var/lib/a b/streaming.sock/exec/123");
    assert_eq!(split, Some((Path::new("/var/lib/a b/streaming.sock"), "/exec/123")));
    assert_eq!(split_url("http://x/exec/1"), None);
    assert_eq!(split_url("unix:///exec/1"), None);
}
