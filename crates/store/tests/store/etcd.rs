//! The same promises on a real etcd, and what happens when it goes away and comes back.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};
use store::{Batch, Expect, Key, KeyRange, ReadError, Revision, Store, backend::Etcd, conformance};

/// An etcd of one's own, below a directory that outlives it.
struct Server {
    child: Child,
    port: u16,
    peer: u16,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Where etcd is: `STANCHION_ETCD`, or on the PATH.
fn program() -> Option<String> {
    let name = std::env::var("STANCHION_ETCD").unwrap_or_else(|_| "etcd".into());
    let there = Command::new(&name).arg("--version").stdout(Stdio::null()).status();
    if there.is_ok_and(|it| it.success()) {
        return Some(name);
    }
    println!("skipped: no etcd on the PATH or in STANCHION_ETCD (Debian: etcd-server)");
    None
}

impl Server {
    fn start(program: &str, dir: &Path) -> Server {
        Server::at(program, dir, free_port(), free_port())
    }

    fn at(program: &str, dir: &Path, port: u16, peer: u16) -> Server {
        let (client, peers) =
            (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
        let mut command = Command::new(program);
        command.arg("--data-dir").arg(dir).args(["--listen-client-urls", &client]);
        command.args(["--advertise-client-urls", &client, "--listen-peer-urls", &peers]);
        command.args(["--initial-advertise-peer-urls", &peers]);
        command.args(["--initial-cluster", &format!("default={peers}")]);
        // Batches of our largest values; the bytes need not survive a power cut here.
        command.args(["--max-request-bytes", "16777216", "--logger", "zap"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("etcd starts");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let says =
            |line: &String| line.contains("client requests") || line.contains("client traffic");
        let ready = lines.by_ref().map_while(Result::ok).find(says);
        assert!(ready.is_some(), "etcd ended before it served");
        // Who does not read on stops etcd when the pipe is full.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Server { child, port, peer }
    }

    fn url(&self) -> String {
        format!("etcd://127.0.0.1:{}", self.port)
    }

    fn kill(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn open(server: &Server) -> Arc<dyn Store> {
    Arc::new(Etcd::open(&server.url()).expect("etcd answers"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_keeps_every_promise() {
    let Some(program) = program() else { return };
    let directories = tempfile::tempdir().unwrap();
    let servers = std::cell::RefCell::new(Vec::new());
    conformance::run(|| {
        let mut servers = servers.borrow_mut();
        let dir = directories.path().join(servers.len().to_string());
        servers.iter_mut().for_each(Server::kill);
        let server = Server::start(&program, &dir);
        let store = open(&server);
        servers.push(server);
        store
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_when_etcd_comes_back() {
    let Some(program) = program() else { return };
    let directories = tempfile::tempdir().unwrap();
    let dir = directories.path().join("etcd");
    let mut server = Server::start(&program, &dir);
    let store = open(&server);
    let put = |number: u64| Batch::new().put(format!("/k/{number}"), Expect::Absent, "x");
    let first = store.commit(put(1)).await.unwrap();
    let mut watch = store.watch(KeyRange::all(), first).unwrap();
    server.kill();
    let refused = store.commit(put(2)).await.unwrap_err();
    assert!(stdx::one_line(&refused).starts_with("ask etcd://127.0.0.1:"), "{refused:?}");
    let server = Server::at(&program, &dir, server.port, server.peer);
    // Somebody else writes before this client is back.
    let other = open(&server);
    other.commit(put(3)).await.unwrap();
    let told = watch.next().await.unwrap();
    assert_eq!(told[0].key.as_str(), "/k/3");
    assert_eq!(store.latest().await.unwrap(), other.latest().await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_away_over_a_compaction_is_told_to_look_again() {
    let Some(program) = program() else { return };
    let directories = tempfile::tempdir().unwrap();
    let dir = directories.path().join("etcd");
    let server = Server::start(&program, &dir);
    let (here, other) = (open(&server), open(&server));
    let put = || Batch::new().put("/k", Expect::Whatever, "x");
    let first = here.commit(put()).await.unwrap();
    for _ in 0..20 {
        other.commit(put()).await.unwrap();
    }
    let latest = other.latest().await.unwrap();
    other.compact(latest).await.unwrap();
    here.latest().await.unwrap();
    let refused = here.snapshot_at(first).await.err();
    assert!(matches!(refused, Some(ReadError::Compacted { .. })), "{refused:?}");
    // From its own ring, or from etcd: all of it, or the word that it is gone.
    let late = open(&server);
    let told = match late.watch(KeyRange::all(), first) {
        Ok(mut watch) => watch.next().await.err(),
        Err(error) => Some(error),
    };
    assert!(matches!(told, Some(ReadError::Compacted { .. })), "{told:?}");
    let seen = late.snapshot().await.unwrap();
    assert_eq!(seen.get(&Key::from("/k")).unwrap().unwrap().modified, latest);
    assert_eq!(seen.count(&KeyRange::all()).unwrap(), 1);
    assert!(latest > Revision(20));
}

#[test]
fn nobody_at_the_other_end_is_said_clearly() {
    let url = format!("etcd://127.0.0.1:{}", free_port());
    let error = Etcd::open(&url).err().expect("nobody listens");
    let said = stdx::one_line(&error);
    assert!(said.starts_with(&format!("ask {url}: ")) && said.contains("refused"), "{said}");
    for wrong in ["etcds://x", "etcd://not a host"] {
        let said = Etcd::open(wrong).err().expect("no such address").to_string();
        assert!(said.contains("is not supported"), "{said}");
    }
}
