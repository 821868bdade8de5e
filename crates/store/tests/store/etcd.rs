//! The same promises on a real etcd, and what happens when it goes away and comes back.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};
use store::{
    Batch, CommitError, Entry, Expect, Key, KeyRange, Page, ReadError, Recorded, Revision,
    Snapshot, Store, StoreError,
    backend::{CopyError, Etcd, EtcdTls, Memory},
    conformance,
};

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
        let all = format!("default=http://127.0.0.1:{peer}");
        Server::member(program, dir, port, peer, "default", &all, &[])
    }

    /// As etcd is unless it is told otherwise, but for what is told.
    fn usual(program: &str, dir: &Path, more: &[&str]) -> Server {
        let (port, peer) = (free_port(), free_port());
        let all = format!("default=http://127.0.0.1:{peer}");
        let more = [&["--max-request-bytes", "1572864"], more].concat();
        Server::member(program, dir, port, peer, "default", &all, &more)
    }

    fn member(
        program: &str,
        dir: &Path,
        port: u16,
        peer: u16,
        name: &str,
        all: &str,
        more: &[&str],
    ) -> Server {
        let (client, peers) =
            (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
        let mut command = Command::new(program);
        command.arg("--data-dir").arg(dir).args(["--listen-client-urls", &client]);
        command.args(["--advertise-client-urls", &client, "--listen-peer-urls", &peers]);
        command.args(["--initial-advertise-peer-urls", &peers]);
        command.args(["--name", name, "--initial-cluster", all]);
        // Batches of our largest values; the bytes need not survive a power cut here.
        command.args(["--max-request-bytes", "16777216", "--logger", "zap"]);
        command.args(more);
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

    /// Three that know of each other. None is ready before two are there.
    fn cluster(program: &str, dir: &Path) -> Vec<Server> {
        let ports: Vec<(u16, u16)> = (0..3).map(|_| (free_port(), free_port())).collect();
        let peers: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(n, it)| format!("m{n}=http://127.0.0.1:{}", it.1))
            .collect();
        let starting = ports.iter().enumerate().map(|(n, (port, peer))| {
            let (dir, peers) = (dir.join(n.to_string()), peers.join(","));
            let (program, port, peer) = (program.to_owned(), *port, *peer);
            std::thread::spawn(move || {
                Server::member(&program, &dir, port, peer, &format!("m{n}"), &peers, &[])
            })
        });
        let starting: Vec<_> = starting.collect();
        starting.into_iter().map(|it| it.join().unwrap()).collect()
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
    Arc::new(Etcd::open(&server.url(), &EtcdTls::default()).expect("etcd answers"))
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
    match &refused {
        // The connection was found broken before anything was sent, or after.
        CommitError::Store(StoreError::Unavailable { .. }) | CommitError::Unknown(_) => {}
        other => panic!("{other:?}"),
    }
    assert!(stdx::one_line(&refused).contains("ask etcd://127.0.0.1:"), "{refused:?}");
    let server = Server::at(&program, &dir, server.port, server.peer);
    // Somebody else writes before this client is back.
    let other = open(&server);
    other.commit(put(3)).await.unwrap();
    let told = watch.next().await.unwrap();
    assert_eq!(told[0].key.as_str(), "/k/3");
    assert_eq!(store.latest().await.unwrap(), other.latest().await.unwrap());
}

/// Numbers are put one after the other while etcd is killed and started again and again. What was acknowledged is
/// there once; what was refused is not; of what is unknown, anything may be true.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_of_a_commit_is_true_whenever_etcd_dies() {
    let Some(program) = program() else { return };
    let directories = tempfile::tempdir().unwrap();
    let dir = directories.path().join("etcd");
    let mut server = Server::start(&program, &dir);
    let store = open(&server);
    let begin = store.latest().await.unwrap();
    let mut watch = store.watch(KeyRange::prefix("/k/"), begin).unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (store, stop) = (store.clone(), stop.clone());
            tokio::spawn(async move {
                let (mut done, mut refused, mut number) = (Vec::new(), Vec::new(), 0);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    number += 1;
                    let key = format!("/k/{writer}/{number}");
                    match store.commit(Batch::new().put(&*key, Expect::Absent, key.clone())).await {
                        Ok(revision) => done.push((key, revision)),
                        Err(CommitError::Unknown(_)) => {}
                        Err(CommitError::Store(StoreError::Unavailable { .. })) => {
                            refused.push(key);
                            stdx::sleep(std::time::Duration::from_millis(20)).await;
                        }
                        Err(other) => panic!("{other:?}"),
                    }
                }
                (done, refused)
            })
        })
        .collect();
    for _ in 0..3 {
        let before = server_revision(&store).await;
        // Under load.
        while server_revision(&store).await.0 < before.0 + 50 {
            tokio::task::yield_now().await;
        }
        server.kill();
        server = Server::at(&program, &dir, server.port, server.peer);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let (mut done, mut refused) = (Vec::new(), Vec::new());
    for writer in writers {
        let (these, those) = writer.await.unwrap();
        done.extend(these);
        refused.extend(those);
    }
    let snapshot = store.snapshot().await.unwrap();
    for (key, revision) in &done {
        let entry = snapshot.get(&Key::from(&**key)).unwrap();
        assert_eq!(entry.map(|it| it.modified), Some(*revision), "{key} was acknowledged");
    }
    for key in &refused {
        assert!(snapshot.get(&Key::from(&**key)).unwrap().is_none(), "{key} was refused");
    }
    let count = snapshot.count(&KeyRange::prefix("/k/")).unwrap() as usize;
    let mut told = Vec::new();
    while told.len() < count {
        told.extend(watch.next().await.unwrap().iter().map(|it| it.revision));
    }
    assert!(told.is_sorted_by(|one, other| one < other), "each is told once, in order");
    assert!(count >= done.len() && done.len() > 100, "{count} {}", done.len());
}

async fn server_revision(store: &Arc<dyn Store>) -> Revision {
    loop {
        match store.latest().await {
            Ok(revision) => return revision,
            Err(StoreError::Unavailable { .. }) => tokio::task::yield_now().await,
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_is_copied_with_its_revisions() {
    let Some(program) = program() else { return };
    let directories = tempfile::tempdir().unwrap();
    let server = Server::start(&program, &directories.path().join("etcd"));
    let source: Arc<dyn Store> = Arc::new(Memory::new(Arc::new(stdx::SystemClock)));
    let lease = source.grant(std::time::Duration::from_secs(3600)).await.unwrap();
    for number in 0..1500 {
        let key = format!("/registry/k/{}", number % 7);
        source.commit(Batch::new().put(key, Expect::Whatever, number.to_string())).await.unwrap();
    }
    let mut leased = Batch::new().put("/registry/e/1", Expect::Absent, "event");
    if let store::Change::Put { lease: on, .. } = &mut leased.writes[0].change {
        *on = Some(lease);
    }
    source.commit(leased).await.unwrap();
    source.commit(Batch::new().delete("/registry/k/3", Expect::Present)).await.unwrap();
    let from = source.snapshot().await.unwrap();
    let leases = source.leases().await.unwrap();
    let copy = || {
        let (url, mut told) = (server.url(), Vec::new());
        let from = from.clone();
        let copied =
            Etcd::receive(&url, &EtcdTls::default(), &*from, &leases, &mut |at, _| told.push(at));
        copied.map(|it| (it, told))
    };
    let (copied, told) = copy().unwrap();
    assert_eq!((copied.entries, copied.leases, copied.moved), (7, 1, 0));
    assert!(told.is_sorted() && told.last() == Some(&from.revision()));
    assert_eq!(copied.revision, from.revision().next());

    let store = open(&server);
    let there = store.snapshot().await.unwrap();
    assert_eq!(there.revision(), copied.revision, "never back");
    let all = |it: &dyn store::Snapshot| {
        let page = it.range(&KeyRange::all(), usize::MAX, None).unwrap();
        page.entries.into_iter().map(|e| (e.key, e.value, e.modified, e.lease)).collect::<Vec<_>>()
    };
    assert_eq!(all(&*there), all(&*from));
    let old = store.watch(KeyRange::all(), Revision(1000)).unwrap().next().await;
    assert!(matches!(old, Err(ReadError::Compacted { .. })), "no made-up history: {old:?}");
    let next = Batch::new().put("/registry/k/0", Expect::At(Revision(1499)), "on");
    assert_eq!(store.commit(next).await.unwrap(), copied.revision.next());
    let again = copy().map(|(copied, _)| copied);
    assert!(matches!(again, Err(CopyError::NotEmpty { keys: 7, .. })), "{again:?}");
}

/// A view that breaks off after so many looks at it: whoever copies it ends there.
struct Cut(Arc<dyn Snapshot>, AtomicUsize);

impl Cut {
    fn look(&self) -> Result<&dyn Snapshot, ReadError> {
        let left = self.1.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        left.map(|_| &*self.0).map_err(|_| ReadError::Store(StoreError::Closed))
    }
}

impl Snapshot for Cut {
    fn revision(&self) -> Revision {
        self.0.revision()
    }

    fn get(&self, key: &Key) -> Result<Option<Entry>, ReadError> {
        self.look()?.get(key)
    }

    fn range(
        &self,
        range: &KeyRange,
        limit: usize,
        after: Option<&Key>,
    ) -> Result<Page, ReadError> {
        self.look()?.range(range, limit, after)
    }

    fn count(&self, range: &KeyRange) -> Result<u64, ReadError> {
        self.look()?.count(range)
    }
}

/// Wherever a copy breaks off: no server takes what is there for the whole, and no second copy mixes with the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_broke_off_serves_nobody() {
    let Some(program) = program() else { return };
    let directories = tempfile::tempdir().unwrap();
    let source: Arc<dyn Store> = Arc::new(Memory::new(Arc::new(stdx::SystemClock)));
    let lease = source.grant(std::time::Duration::from_secs(3600)).await.unwrap();
    for key in ["/a", "/b", "/b", "/c"] {
        source.commit(Batch::new().put(key, Expect::Whatever, "x")).await.unwrap();
    }
    let (from, leases) = (source.snapshot().await.unwrap(), source.leases().await.unwrap());
    let copy = |server: &Server, looks| {
        let from = Cut(from.clone(), AtomicUsize::new(looks));
        Etcd::receive(&server.url(), &EtcdTls::default(), &from, &leases, &mut |_, _| {})
    };
    let mut looks = 0;
    loop {
        let server = Server::start(&program, &directories.path().join(looks.to_string()));
        let copied = copy(&server, looks);
        let opened = Etcd::open(&server.url(), &EtcdTls::default());
        if copied.is_ok() {
            assert_eq!(
                opened.unwrap().snapshot().await.unwrap().count(&KeyRange::all()).unwrap(),
                3
            );
            break;
        }
        match (opened, copy(&server, usize::MAX)) {
            // Nothing was written yet, so it may begin again; a lease may be there already.
            (Ok(_), Ok(copied)) => assert!(looks < 2 && copied.entries == 3, "{looks}"),
            (Err(refused), Err(CopyError::NotEmpty { .. })) => {
                let said = stdx::one_line(&refused);
                assert!(
                    looks >= 2 && said.contains("has not ended: start over"),
                    "{looks}: {said}"
                );
            }
            (opened, again) => panic!("{looks}: {:?} {again:?}", opened.err()),
        }
        looks += 1;
    }
    assert!(looks > 4, "{looks}: it breaks off while it lists, reads and compares");
    source.keep_alive(lease).await.unwrap();
}

/// Three members on loopback; the one that is asked goes away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_member_serves_when_one_is_gone() {
    let Some(program) = program() else { return };
    let directories = tempfile::tempdir().unwrap();
    let mut members = Server::cluster(&program, directories.path());
    let url = members.iter().map(|it| format!("127.0.0.1:{}", it.port)).collect::<Vec<_>>();
    let store: Arc<dyn Store> =
        Arc::new(Etcd::open(&format!("etcd://{}", url.join(",")), &EtcdTls::default()).unwrap());
    let put = |number: u64| Batch::new().put(format!("/k/{number}"), Expect::Absent, "x");
    let first = store.commit(put(0)).await.unwrap();
    let mut watch = store.watch(KeyRange::all(), first).unwrap();
    members[0].kill();
    // An election may pass meanwhile; a clear answer is asked for, and one that is true.
    let (mut number, mut done) = (0, 0);
    while done < 3 {
        number += 1;
        match store.commit(put(number)).await {
            Ok(_) => done += 1,
            Err(CommitError::Unknown(_) | CommitError::Store(StoreError::Unavailable { .. })) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(watch.next().await.unwrap()[0].revision > first);
    // Without a majority nothing is written, and nothing is read that somebody may have changed.
    members[1].kill();
    let refused = store.commit(put(number + 1)).await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(store.latest().await.is_err());
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

/// Two servers forget together: by turns, and only what each of them saw a whole age before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_forgotten_by_one_of_several_servers_and_not_too_early() {
    const TURNS: usize = 5;
    let Some(program) = program() else { return };
    let directories = tempfile::tempdir().unwrap();
    let server = Server::start(&program, &directories.path().join("etcd"));
    let tls = EtcdTls::default();
    let age = std::time::Duration::from_millis(200);
    let forgetting = || Arc::new(Etcd::open_forgetting(&server.url(), &tls, age).unwrap());
    let stores: [Arc<Etcd>; 2] = [forgetting(), forgetting()];
    let witness = open(&server);
    let put = || Batch::new().put("/k", Expect::Whatever, "x");
    let first = witness.commit(put()).await.unwrap();
    let mut watch = witness.watch(KeyRange::all(), first).unwrap();
    // Upstream's key: where history begins, written by who forgets next.
    let mut turns: Vec<(Revision, Revision)> = Vec::new();
    while turns.len() < TURNS {
        witness.commit(put()).await.unwrap();
        for record in watch.next().await.unwrap().iter() {
            let Recorded::Put { value, .. } = &record.change else { continue };
            if record.key.as_str() == "compact_rev_key" {
                let upto = std::str::from_utf8(value).unwrap().parse().unwrap();
                turns.push((record.revision, Revision(upto)));
            }
        }
    }
    assert_eq!(turns[0].1, Revision(0), "nothing is forgotten at the first turn: {turns:?}");
    for pair in turns.windows(2).skip(1) {
        let ([(before, last), (_, upto)], why) = (pair, format!("{turns:?}")) else { panic!() };
        // What was seen at the turn before, by its winner or by who lost it a moment later.
        assert!(upto >= last && *upto <= pair[1].0, "{why}");
        assert!(*upto >= *before || upto == last, "{why}");
    }
    drop(stores);
    let upto = turns[TURNS - 2].1;
    assert!(upto > first, "{turns:?}");
    let refused = witness.snapshot_at(first).await.err();
    assert!(matches!(refused, Some(ReadError::Compacted { .. })), "{refused:?}");
    let there = witness.snapshot().await.unwrap().get(&Key::from("/k")).unwrap();
    assert!(there.is_some(), "the present stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_usual_etcd_does_not_take_is_refused_by_name_and_written_in_no_part() {
    let Some(program) = program() else { return };
    let directories = tempfile::tempdir().unwrap();
    let server = Server::usual(&program, &directories.path().join("etcd"), &[]);
    let store = open(&server);
    let before = store.latest().await.unwrap();
    // Its limit is of the request, ours of the value: together with its key this is too large.
    for bytes in [store::VALUE_BYTES_MAX, store::VALUE_BYTES_MAX - 16] {
        let refused = store.commit(Batch::new().put("/k", Expect::Absent, vec![b'x'; bytes])).await;
        assert!(matches!(refused, Err(CommitError::TooLarge { .. })), "{refused:?}");
    }
    let half = vec![b'x'; store::VALUE_BYTES_MAX / 2];
    let both = Batch::new().put("/a", Expect::Absent, half.clone()).put("/b", Expect::Absent, half);
    let refused = store.commit(both).await.unwrap_err();
    assert!(stdx::one_line(&refused).contains("--max-request-bytes"), "{refused}");
    // As many operations as a batch may have are as many as it takes.
    let many = (0..store::OPERATIONS_MAX)
        .fold(Batch::new(), |batch, n| batch.put(format!("/k/{n}"), Expect::Absent, "x"));
    assert_eq!(store.commit(many.clone()).await.unwrap(), before.next());
    let refused = store.commit(many).await;
    assert!(matches!(refused, Err(CommitError::Conflict { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_etcd_refuses_writes_until_there_is_room_and_reads_go_on() {
    let Some(program) = program() else { return };
    let control = |server: &Server, arguments: &[&str]| {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints=127.0.0.1:{}", server.port));
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|it| it.success())
    };
    let directories = tempfile::tempdir().unwrap();
    let quota = ["--quota-backend-bytes", "4194304"];
    let server = Server::usual(&program, &directories.path().join("etcd"), &quota);
    if !control(&server, &["endpoint", "status"]) {
        println!("skipped: no etcdctl on the PATH (Debian: etcd-client)");
        return;
    }
    let store = open(&server);
    let large = || Batch::new().put("/large", Expect::Whatever, vec![b'x'; 1 << 20]);
    let refused = loop {
        match store.commit(large()).await {
            Ok(_) => {}
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, CommitError::Store(StoreError::Full { .. })), "{refused:?}");
    let said = stdx::one_line(&refused);
    assert!(said.contains("etcd's quota is used up (etcdctl alarm list, defrag)"), "{said}");
    let snapshot = store.snapshot().await.unwrap();
    assert!(snapshot.get(&Key::from("/large")).unwrap().is_some(), "reads go on");
    let small = || Batch::new().put("/small", Expect::Whatever, "x");
    assert!(store.commit(small()).await.is_err(), "its alarm holds for all");
    // What it keeps is forgotten, and deleting needs no room.
    store.commit(Batch::new().delete("/large", Expect::Present)).await.unwrap();
    let latest = store.latest().await.unwrap();
    store.compact(latest).await.unwrap();
    assert!(control(&server, &["defrag"]) && control(&server, &["alarm", "disarm"]));
    store.commit(small()).await.unwrap();
}

/// Pages are of one revision, whoever answers them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_goes_on_when_the_member_that_answers_dies() {
    let Some(program) = program() else { return };
    let directories = tempfile::tempdir().unwrap();
    let mut members = Server::cluster(&program, directories.path());
    let url = members.iter().map(|it| format!("127.0.0.1:{}", it.port)).collect::<Vec<_>>();
    let store = Etcd::open(&format!("etcd://{}", url.join(",")), &EtcdTls::default()).unwrap();
    for page in 0..10 {
        let keys = (0..100).map(|n| format!("/k/{:04}", page * 100 + n));
        let batch = keys.fold(Batch::new(), |batch, key| batch.put(key, Expect::Absent, "x"));
        store.commit(batch).await.unwrap();
    }
    let snapshot = store.snapshot().await.unwrap();
    let range = KeyRange::prefix("/k/");
    let mut seen = snapshot.range(&range, 300, None).unwrap().entries;
    members[0].kill();
    // Whatever is written meanwhile is not in it. An election may pass first.
    while store.commit(Batch::new().put("/k/0999x", Expect::Whatever, "late")).await.is_err() {}
    while let Some(after) = seen.last().map(|it| it.key.clone()) {
        let page = loop {
            match snapshot.range(&range, 300, Some(&after)) {
                Ok(page) => break page,
                Err(ReadError::Store(StoreError::Unavailable { .. })) => {}
                Err(other) => panic!("{other:?}"),
            }
        };
        seen.extend(page.entries);
        if !page.more {
            break;
        }
    }
    let keys: Vec<&str> = seen.iter().map(|it| it.key.as_str()).collect();
    let all: Vec<String> = (0..1000).map(|n| format!("/k/{n:04}")).collect();
    assert_eq!(keys, all);
}

#[test]
fn nobody_at_the_other_end_is_said_clearly() {
    let url = format!("etcd://127.0.0.1:{}", free_port());
    let error = Etcd::open(&url, &EtcdTls::default()).err().expect("nobody listens");
    let said = stdx::one_line(&error);
    assert!(said.starts_with(&format!("ask {url}: ")) && said.contains("refused"), "{said}");
    for (wrong, why) in [
        ("redis://x", "store \"redis://x\": embedded, etcd://HOST:PORT or etcds://HOST:PORT"),
        ("etcd://not a host", "store \"etcd://not a host\": members are HOST:PORT"),
        ("etcd://127.0.0.1", "store \"etcd://127.0.0.1\": members are HOST:PORT"),
        ("etcds://127.0.0.1:1", "connect to etcd with TLS: --etcd-cafile is missing"),
    ] {
        let error = Etcd::open(wrong, &EtcdTls::default()).err().expect("no such address");
        assert_eq!(stdx::one_line(&error), why);
    }
}
