//! The loop: requests come in by sockets, children end, output flows.

use crate::{
    Failure, Result, namespaces,
    pod::{self, Caller, News, Pod},
    sys::{self, check, failure},
};
use shim::{
    frame::{self, Inbox},
    protocol::{Envelope, ExecExited, Exited, Message, Reply, Request, Setup, VERSION},
    wire::Wire,
};
use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::net::UnixListener,
    },
};

/// How long a server may leave a full socket unread before its connection is cut; everything is kept for the next.
const STALLED_MS_MAX: libc::c_int = 2_000;

pub(crate) fn serve(socket: OwnedFd) -> Result<()> {
    let mut inbox = Inbox::default();
    let (number, setup) = first_request(&socket, &mut inbox)?;
    let pod = match prepare(setup) {
        Ok(pod) => pod,
        Err(why) => {
            let reply = Reply { number, error: why.0.clone(), ..Reply::default() };
            let _server_gone = send(socket.as_fd(), &Message::Reply(reply), &[]);
            return Err(why);
        }
    };
    let mut server = Server::new(pod, socket, inbox)?;
    let state = Some(server.pod.state());
    server.say(0, &Message::Reply(Reply { number, state, ..Reply::default() }), &[]);
    server.run()
}

fn first_request(socket: &OwnedFd, inbox: &mut Inbox) -> Result<(u64, Setup)> {
    loop {
        if let Some((body, _)) =
            inbox.take().map_err(|error| failure("read the first request", &error))?
        {
            let envelope =
                Envelope::from_bytes(&body).ok_or_else(|| Failure("no request".into()))?;
            return match Request::from_bytes(&envelope.request) {
                Some(Request::Setup(setup)) => Ok((envelope.number, setup)),
                _ => Err(Failure("the first request is not a setup".into())),
            };
        }
        let more = inbox
            .receive(socket.as_fd())
            .map_err(|error| failure("read the first request", &error))?;
        if !more {
            return Err(Failure("the server went away".into()));
        }
    }
}

fn prepare(setup: Setup) -> Result<Pod> {
    if setup.version != VERSION {
        return Err(Failure(format!(
            "the server speaks version {}, this shim {VERSION}",
            setup.version
        )));
    }
    let users = namespaces::enter(&setup)?;
    let reaper = if setup.share_pid { Some(namespaces::start_reaper()?) } else { None };
    Ok(Pod::new(setup, reaper, users))
}

struct Connection {
    socket: OwnedFd,
    inbox: Inbox,
}

struct Server {
    pod: Pod,
    children: OwnedFd,
    listener: UnixListener,
    connections: BTreeMap<Caller, Connection>,
    next_caller: Caller,
    shutdown: Option<(Caller, u64)>,
}

/// What a polled descriptor belongs to.
enum Source {
    Children,
    Listener,
    Connection(Caller),
    Launch,
    Output(String, usize),
}

impl Server {
    fn new(pod: Pod, socket: OwnedFd, inbox: Inbox) -> Result<Server> {
        let set = sys::child_signal_set();
        // SAFETY: an initialised set; the descriptor is new.
        let children = unsafe {
            check(
                "block SIGCHLD",
                libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()),
            )?;
            let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
            OwnedFd::from_raw_fd(check(
                "watch children",
                libc::signalfd(-1, &raw const set, flags),
            )?)
        };
        let listener = listen(&pod.setup.directory)?;
        sys::set_nonblocking(&socket)?;
        let connections = BTreeMap::from([(0, Connection { socket, inbox })]);
        Ok(Server { pod, children, listener, connections, next_caller: 1, shutdown: None })
    }

    fn run(&mut self) -> Result<()> {
        loop {
            let mut news = Vec::new();
            for source in self.wait() {
                match source {
                    Source::Output(name, index) => self.pump(&name, index),
                    Source::Launch => self.pod.advance_launches(&mut news),
                    Source::Children => {
                        self.empty_children();
                        self.pod.reap(&mut news);
                    }
                    Source::Connection(caller) => self.read(caller),
                    Source::Listener => self.accept(),
                }
            }
            // Before an exit is told: who hears of that has had all of the output, or knows that they have not.
            for (caller, exec) in self.pod.take_cut() {
                self.say(caller, &Message::ExecExited(ExecExited { exec, code: -1 }), &[]);
            }
            for piece in news {
                self.tell(piece);
            }
            if let Some((caller, number)) = self.shutdown
                && self.pod.all_ended()
            {
                self.say(caller, &Message::Reply(Reply { number, ..Reply::default() }), &[]);
                return Ok(());
            }
        }
    }

    /// Ready sources: output first, so that a log is complete before an exit is told; requests last.
    fn wait(&self) -> Vec<Source> {
        let mut sources = Vec::new();
        for (name, container) in &self.pod.containers {
            let outputs = container.outputs.iter().enumerate();
            sources.extend(
                outputs.map(|(index, out)| {
                    (Source::Output(name.clone(), index), out.source.as_raw_fd())
                }),
            );
        }
        // From the last to the first, so that removing one leaves the indices of those still to come.
        sources.reverse();
        sources.extend(
            self.pod.launches.iter().map(|launch| (Source::Launch, launch.channel.as_raw_fd())),
        );
        sources.push((Source::Children, self.children.as_raw_fd()));
        let connections = self.connections.iter();
        sources.extend(
            connections
                .map(|(caller, known)| (Source::Connection(*caller), known.socket.as_raw_fd())),
        );
        sources.push((Source::Listener, self.listener.as_raw_fd()));
        let entry =
            |(_, fd): &(Source, i32)| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 };
        let mut polled: Vec<libc::pollfd> = sources.iter().map(entry).collect();
        // SAFETY: pointer and length of one vector.
        let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, -1) };
        if ready <= 0 {
            return Vec::new();
        }
        let both = sources.into_iter().zip(polled);
        both.filter(|(_, polled)| polled.revents != 0).map(|((source, _), _)| source).collect()
    }

    fn pump(&mut self, name: &str, index: usize) {
        if let Some(container) = self.pod.containers.get_mut(name)
            && index < container.outputs.len()
            && !container.pump(index)
        {
            container.outputs.remove(index);
        }
    }

    fn empty_children(&self) {
        let mut buffer = [0u8; 1024];
        while sys::read(self.children.as_fd(), &mut buffer).is_ok_and(|count| count > 0) {}
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        let socket = OwnedFd::from(stream);
        if sys::set_nonblocking(&socket).is_ok() {
            self.connections
                .insert(self.next_caller, Connection { socket, inbox: Inbox::default() });
            self.next_caller += 1;
        }
    }

    fn read(&mut self, caller: Caller) {
        let Some(connection) = self.connections.get_mut(&caller) else { return };
        match connection.inbox.receive(connection.socket.as_fd()) {
            Ok(true) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                return;
            }
            Ok(false) | Err(_) => return self.cut(caller),
        }
        loop {
            let Some(connection) = self.connections.get_mut(&caller) else { return };
            match connection.inbox.take() {
                Ok(Some((body, descriptors))) => self.answer(caller, &body, descriptors),
                Ok(None) => return,
                Err(_) => return self.cut(caller),
            }
        }
    }

    fn cut(&mut self, caller: Caller) {
        self.connections.remove(&caller);
        self.pod.caller_gone(caller);
    }

    fn answer(&mut self, caller: Caller, body: &[u8], descriptors: Vec<OwnedFd>) {
        let Some(Envelope { number, request }) = Envelope::from_bytes(body) else {
            return self.cut(caller);
        };
        let mut reply = Reply { number, ..Reply::default() };
        match self.act(caller, number, &request, descriptors) {
            Ok(Answer::Later) => return,
            Ok(Answer::Done(passed)) => {
                let passed: Vec<BorrowedFd<'_>> = passed.iter().map(AsFd::as_fd).collect();
                return self.say(caller, &Message::Reply(reply), &passed);
            }
            Ok(Answer::State) => reply.state = Some(self.pod.state()),
            Err(why) => reply.error = why.0,
        }
        self.say(caller, &Message::Reply(reply), &[]);
    }

    fn act(
        &mut self,
        caller: Caller,
        number: u64,
        request: &[u8],
        descriptors: Vec<OwnedFd>,
    ) -> Result<Answer> {
        let done = |()| Answer::Done(None);
        match Request::from_bytes(request) {
            Some(Request::State(_)) => Ok(Answer::State),
            Some(Request::Start(start)) => {
                self.pod.start(caller, number, start, &descriptors).map(|()| Answer::Later)
            }
            Some(Request::Exec(exec)) => {
                self.pod.exec(caller, number, exec, descriptors).map(|()| Answer::Later)
            }
            Some(Request::Signal(signal)) => self.pod.signal(&signal).map(done),
            Some(Request::SignalExec(signal)) => {
                self.pod.signal_exec(&signal);
                Ok(Answer::Done(None))
            }
            Some(Request::Attach(attach)) => {
                self.pod.attach(caller, &attach, descriptors).map(Answer::Done)
            }
            Some(Request::Connect(connect)) => {
                pod::connect(connect.port).map(|socket| Answer::Done(Some(socket)))
            }
            Some(Request::Reopen(named)) => self.pod.reopen_log(&named.container).map(done),
            Some(Request::Forget(named)) => self.pod.forget(&named.container).map(done),
            Some(Request::Shutdown(_)) => {
                self.shutdown = Some((caller, number));
                self.pod.kill_everything();
                Ok(Answer::Later)
            }
            Some(Request::Setup(_)) => Err(Failure("this pod is set up already".into())),
            None => Err(Failure("this shim does not know the request".into())),
        }
    }

    fn tell(&mut self, news: News) {
        match news {
            News::Started { caller, number, started, terminal } => {
                let reply = Reply { number, started: Some(started), ..Reply::default() };
                let passed: Vec<BorrowedFd<'_>> = terminal.iter().map(AsFd::as_fd).collect();
                self.say(caller, &Message::Reply(reply), &passed);
            }
            News::Failed { caller, number, why } => {
                self.say(
                    caller,
                    &Message::Reply(Reply { number, error: why.0, ..Reply::default() }),
                    &[],
                );
            }
            News::ExecExited { caller, exec, code } => {
                self.say(caller, &Message::ExecExited(ExecExited { exec, code }), &[]);
            }
            News::Exited { container, exit } => {
                let message = Message::Exited(Exited { container, exit });
                let callers: Vec<Caller> = self.connections.keys().copied().collect();
                callers.into_iter().for_each(|caller| self.say(caller, &message, &[]));
            }
        }
    }

    fn say(&mut self, caller: Caller, message: &Message, descriptors: &[BorrowedFd<'_>]) {
        if let Some(connection) = self.connections.get(&caller)
            && send(connection.socket.as_fd(), message, descriptors).is_err()
        {
            self.cut(caller);
        }
    }
}

enum Answer {
    Done(Option<OwnedFd>),
    State,
    /// When it has happened.
    Later,
}

fn send(
    socket: BorrowedFd<'_>,
    message: &Message,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut passed: Vec<i32> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let bytes = frame::encode(&message.to_bytes(), passed.len());
    let mut sent = 0;
    while sent < bytes.len() {
        match frame::send(socket, &bytes[sent..], &passed) {
            Ok(count) => {
                sent += count;
                passed.clear();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_writable(socket)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait_writable(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut wanted = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one initialised pollfd.
    match unsafe { libc::poll(&raw mut wanted, 1, STALLED_MS_MAX) } {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

/// The socket in the pod's directory. Reached through a descriptor, since a socket's path has at most 107 bytes.
fn listen(directory: &str) -> Result<UnixListener> {
    let opened = sys::open(directory, libc::O_PATH | libc::O_DIRECTORY, 0)?;
    let path = format!("/proc/self/fd/{}/shim.sock", opened.as_raw_fd());
    let attempted = || format!("listen on {directory}/shim.sock");
    let listener = UnixListener::bind(path).map_err(|error| failure(attempted(), &error))?;
    listener.set_nonblocking(true).map_err(|error| failure(attempted(), &error))?;
    Ok(listener)
}
