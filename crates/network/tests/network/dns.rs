//! A server on loopback addresses, asked by plain sockets.

use api::core::v1;
use client::{Client, Feed, Follower, Written, feed};
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType, rdata::A},
};
use network::dns::{Config, Error, Server, Zone};
use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    sync::Arc,
    thread,
};
use stdx::{BoxFuture, Shutdown};
use tempfile::TempDir;
use world::{Change, Event, ObjectKey, World};

/// Looks at what the test publishes.
struct Onlooker(Arc<Feed>);

impl Client for Onlooker {
    fn world(&self) -> World {
        self.0.latest()
    }

    fn follow(&self) -> Follower {
        self.0.follow()
    }

    fn write(&self, _: Vec<Change>) -> BoxFuture<'_, Result<Written, api::Failure>> {
        unreachable!("names are only read")
    }

    fn record(&self, _: Event) {}
}

/// A server on a thread of its own, until dropped.
struct Running {
    at: SocketAddr,
    feed: Arc<Feed>,
    world: World,
    directory: TempDir,
    shutdown: Option<Shutdown>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Running {
    /// With a namespace, and a headless Service `nginx` of pods labelled `app: nginx`.
    fn new() -> Running {
        let mut running = Running::empty();
        let service = r#"{"kind":"Service","apiVersion":"v1","metadata":{"name":"nginx",
            "namespace":"default"},"spec":{"clusterIP":"None","selector":{"app":"nginx"}}}"#;
        running.put(api::kind_of::<v1::Service>(), service);
        running
    }

    fn empty() -> Running {
        let directory = tempfile::tempdir().unwrap();
        let feed = Arc::new(feed(8, World::default()));
        let (shutdown, signal) = Shutdown::new();
        let (says, said) = std::sync::mpsc::channel();
        let config = Config {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            zone: Zone::new("cluster.local", Vec::new(), Vec::new()).unwrap(),
            resolv_conf: directory.path().join("resolv.conf"),
        };
        let client = Arc::new(Onlooker(feed.clone()));
        let thread = thread::spawn(move || {
            runtime().block_on(async move {
                let server = Server::bind(config).await.unwrap();
                says.send(server.addresses()[0]).unwrap();
                server.serve(client, signal).await;
            });
        });
        let (at, world) = (said.recv().unwrap(), World::default());
        Running { at, feed, world, directory, shutdown: Some(shutdown), thread: Some(thread) }
    }

    fn put(&mut self, kind: &api::KindRef, json: &str) {
        let revision = self.world.revision + 1;
        let touched = self.world.put(kind, json.to_owned().into(), revision).unwrap();
        self.feed.publish(self.world.clone(), Arc::new([touched]));
    }

    fn put_pod(&mut self, name: &str, address: &str, ready: &str) {
        let json = format!(
            r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"{name}",
                "namespace":"default","labels":{{"app":"nginx"}}}},
                "spec":{{"containers":[],"hostname":"{name}","subdomain":"nginx"}},
                "status":{{"phase":"Running","podIP":"{address}",
                "conditions":[{{"type":"Ready","status":"{ready}"}}]}}}}"#
        );
        self.put(api::kind_of::<v1::Pod>(), &json);
    }

    fn remove_pod(&mut self, name: &str) {
        let (kind, revision) = (api::kind_of::<v1::Pod>(), self.world.revision + 1);
        let touched = self.world.remove(kind, &ObjectKey::new("default", name), revision);
        self.feed.publish(self.world.clone(), Arc::new([touched]));
    }

    fn ask(&self, message: &Message) -> Message {
        let bytes = self.send(&message.to_vec().unwrap());
        Message::from_vec(&bytes).unwrap()
    }

    fn send(&self, bytes: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.at).unwrap();
        socket.send(bytes).unwrap();
        let mut buffer = vec![0; 65535];
        let length = socket.recv(&mut buffer).unwrap();
        buffer.truncate(length);
        buffer
    }

    fn ask_over_tcp(&self, messages: &[Message]) -> Vec<Message> {
        let mut stream = TcpStream::connect(self.at).unwrap();
        let one = |message: &Message| {
            let bytes = message.to_vec().unwrap();
            let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
            stream.write_all(&[&length[..], &bytes].concat()).unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut bytes).unwrap();
            Message::from_vec(&bytes).unwrap()
        };
        messages.iter().map(one).collect()
    }

    fn resolve(&self, name: &str) -> (ResponseCode, Vec<String>) {
        let answer = self.ask(&question(name, RecordType::A));
        (answer.metadata.response_code, data(&answer))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.take();
        let _ended = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// Stands for a resolver of the host: knows `www.example.com`, and says so over UDP and TCP. None
/// where port 53 of a loopback address cannot be had.
fn resolver(last: u8) -> Option<IpAddr> {
    // Every process that runs these tests has loopback addresses of its own.
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let at = Ipv4Addr::new(127, 64 + last, high, low);
    let udp = match UdpSocket::bind((at, 53)) {
        Ok(socket) => socket,
        Err(error) => {
            let _lost = writeln!(std::io::stderr(), "skipped: no port 53 on {at}: {error}");
            return None;
        }
    };
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            let mut message = Message::from_vec(&buffer[..length]).unwrap();
            message.metadata.message_type = MessageType::Response;
            message.metadata.recursion_available = true;
            let name = message.queries[0].name().clone();
            if name.to_ascii() == "www.example.com." {
                let address = RData::A(A::new(192, 0, 2, 80));
                message.add_answer(Record::from_rdata(name, 60, address));
            } else {
                message.metadata.response_code = ResponseCode::NXDomain;
            }
            // Someone else's answer first: it must not be taken for this one.
            let mut stranger = message.clone();
            stranger.metadata.id = !message.metadata.id;
            stranger.answers.clear();
            udp.send_to(&stranger.to_vec().unwrap(), from).unwrap();
            udp.send_to(&message.to_vec().unwrap(), from).unwrap();
        }
    });
    Some(IpAddr::V4(at))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn question(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
    message
}

fn data(message: &Message) -> Vec<String> {
    let mut data: Vec<String> = message.answers.iter().map(|it| it.data.to_string()).collect();
    data.sort();
    data
}

#[test]
fn a_name_is_there_as_soon_as_the_world_says_ready_and_gone_with_the_pod() {
    let mut server = Running::new();
    let name = "web-1.nginx.default.svc.cluster.local.";
    server.put_pod("web-1", "10.244.0.5", "False");
    assert_eq!(server.resolve(name), (ResponseCode::NXDomain, vec![]));
    server.put_pod("web-1", "10.244.0.5", "True");
    assert_eq!(server.resolve(name), (ResponseCode::NoError, vec!["10.244.0.5".to_owned()]));
    server.remove_pod("web-1");
    assert_eq!(server.resolve(name), (ResponseCode::NXDomain, vec![]));
    server.put_pod("web-1", "10.244.0.6", "True");
    assert_eq!(server.resolve(name), (ResponseCode::NoError, vec!["10.244.0.6".to_owned()]));
}

#[test]
fn speaks_as_the_authority_and_repeats_the_question_as_it_was_asked() {
    let mut server = Running::new();
    server.put_pod("web-1", "10.244.0.5", "True");
    let asked = question("Web-1.Nginx.default.SVC.cluster.local.", RecordType::A);
    let answer = server.ask(&asked);
    assert_eq!(answer.metadata.id, asked.metadata.id);
    let flags = answer.metadata;
    assert!(flags.authoritative && flags.recursion_available && flags.recursion_desired);
    assert!(answer.queries[0].name().eq_case(asked.queries[0].name()));
    assert!(answer.answers[0].name.eq_case(asked.queries[0].name()));
    assert_eq!(answer.answers[0].ttl, 30);
    assert!(answer.edns.is_none());

    let mut asked = question("missing.default.svc.cluster.local.", RecordType::A);
    asked.set_edns(Edns::new());
    let answer = server.ask(&asked);
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
    assert_eq!(answer.authorities[0].name.to_ascii(), "cluster.local.");
    assert!(answer.edns.is_some());
}

#[test]
fn says_what_fits_and_sends_the_asker_to_tcp_for_all_of_it() {
    let mut server = Running::new();
    for number in 1..=200 {
        server.put_pod(&format!("web-{number}"), &format!("10.244.0.{number}"), "True");
    }
    let mut asked = question("nginx.default.svc.cluster.local.", RecordType::A);
    let short = server.send(&asked.to_vec().unwrap());
    assert!(short.len() <= 512 && short.len() > 480, "{}", short.len());
    assert!(Message::from_vec(&short).unwrap().metadata.truncation);

    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    asked.set_edns(edns);
    let longer = server.send(&asked.to_vec().unwrap());
    assert!(longer.len() <= 1232 && longer.len() > 1200, "{}", longer.len());

    let whole = server.ask_over_tcp(&[asked.clone(), asked]);
    for answer in &whole {
        assert!(!answer.metadata.truncation);
        assert_eq!(answer.answers.len(), 200);
    }
    assert_ne!(whole[0].answers, whole[1].answers, "each asker gets another order");
}

#[test]
fn asks_the_hosts_resolvers_for_what_is_not_the_clusters() {
    let Some(at) = resolver(1) else { return };
    let mut server = Running::new();
    let resolv_conf = server.directory.path().join("resolv.conf");
    // Nobody listens at the first one.
    let nobody = Ipv4Addr::new(127, 64, 0, 1);
    fs::write(resolv_conf, format!("nameserver {nobody}\nnameserver {at}\n")).unwrap();
    let asked = question("www.example.com.", RecordType::A);
    let answer = server.ask(&asked);
    assert_eq!(answer.metadata.id, asked.metadata.id);
    assert!(!answer.metadata.authoritative);
    assert_eq!(data(&answer), ["192.0.2.80"]);
    assert_eq!(server.resolve("other.example.com."), (ResponseCode::NXDomain, vec![]));

    let alias = r#"{"kind":"Service","apiVersion":"v1","metadata":{"name":"www",
        "namespace":"default"},"spec":{"type":"ExternalName","externalName":"www.example.com"}}"#;
    server.put(api::kind_of::<v1::Service>(), alias);
    let (code, data) = server.resolve("www.default.svc.cluster.local.");
    assert_eq!(code, ResponseCode::NoError);
    assert_eq!(data, ["192.0.2.80", "www.example.com."], "the alias and where it leads");
}

#[test]
fn follows_an_alias_within_the_cluster_and_ends_where_aliases_go_round() {
    let mut server = Running::new();
    server.put_pod("web-1", "10.244.0.5", "True");
    for (name, target) in [("a", "nginx"), ("b", "c"), ("c", "b")] {
        let alias = format!(
            r#"{{"kind":"Service","apiVersion":"v1","metadata":{{"name":"{name}",
                "namespace":"default"}},"spec":{{"type":"ExternalName",
                "externalName":"{target}.default.svc.cluster.local"}}}}"#
        );
        server.put(api::kind_of::<v1::Service>(), &alias);
    }
    let (_, data) = server.resolve("a.default.svc.cluster.local.");
    assert_eq!(data, ["10.244.0.5", "nginx.default.svc.cluster.local."]);
    let (code, data) = server.resolve("b.default.svc.cluster.local.");
    assert_eq!((code, data.len()), (ResponseCode::NoError, 9));
}

#[test]
fn a_pod_may_shorten_a_name_that_nobody_else_has() {
    let mut server = Running::new();
    server.put_pod("web-0", "10.244.0.5", "True");
    let (none, short) = (|| (ResponseCode::ServFail, vec![]), "web-0.nginx.");
    assert_eq!(server.resolve(short), none(), "the asker is no pod");
    let space = r#"{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"default"}}"#;
    server.put(api::kind_of::<v1::Namespace>(), space);
    server.put_pod("asker", "127.0.0.1", "False");
    let full = "web-0.nginx.default.svc.cluster.local.".to_owned();
    let found = || (ResponseCode::NoError, vec!["10.244.0.5".to_owned(), full.clone()]);
    for short in [short, "web-0.nginx.default.", "web-0.nginx.default.svc."] {
        assert_eq!(server.resolve(short), found(), "{short}");
    }
    let v6 = server.ask(&question(short, RecordType::AAAA));
    assert_eq!((v6.metadata.response_code, data(&v6)), (ResponseCode::NoError, vec![full.clone()]));
    assert_eq!(server.ask_over_tcp(&[question(short, RecordType::A)])[0].answers.len(), 2);
    assert_eq!(server.resolve("web-9.nginx."), none());
    assert_eq!(server.ask(&question(short, RecordType::TXT)).answers, []);

    let Some(at) = resolver(2) else { return };
    fs::write(server.directory.path().join("resolv.conf"), format!("nameserver {at}\n")).unwrap();
    assert_eq!(server.resolve(short), found(), "there is no such name elsewhere");
    let example = r#"{"kind":"Service","apiVersion":"v1","metadata":{"name":"example",
        "namespace":"com"},"spec":{"clusterIP":"None","selector":{"app":"www"}}}"#;
    server.put(api::kind_of::<v1::Service>(), example);
    let www = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"www","namespace":"com",
        "labels":{"app":"www"}},"spec":{"containers":[],"hostname":"www","subdomain":"example"},
        "status":{"phase":"Running","podIP":"10.244.0.6","conditions":[{"type":"Ready","status":"True"}]}}"#;
    server.put(api::kind_of::<v1::Pod>(), www);
    assert_eq!(server.resolve("www.example.com.svc.cluster.local.").1, ["10.244.0.6"]);
    assert_eq!(server.resolve("www.example.com.").1, ["192.0.2.80"], "what is there is not hidden");
}

#[test]
fn fails_where_nobody_knows_instead_of_saying_that_there_is_no_such_name() {
    let server = Running::empty();
    let before = server.resolve("nginx.default.svc.cluster.local.");
    assert_eq!(before, (ResponseCode::ServFail, vec![]), "the ledger was not read yet");
    let elsewhere = server.resolve("www.example.com.");
    assert_eq!(elsewhere, (ResponseCode::ServFail, vec![]), "there is no resolver to ask");
}

#[test]
fn refuses_what_is_not_a_question_it_can_answer() {
    let server = Running::new();
    let code = |message: &Message| server.ask(message).metadata.response_code;
    let good = question("nginx.default.svc.cluster.local.", RecordType::A);

    let mut other = good.clone();
    other.metadata.op_code = OpCode::Status;
    assert_eq!(code(&other), ResponseCode::NotImp);
    let mut other = good.clone();
    other.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&other), ResponseCode::Refused);
    let mut other = good.clone();
    other.set_edns(Edns::new()).edns.as_mut().unwrap().set_version(1);
    // 16 is BADVERS; with TSIG the same number has another name.
    assert_eq!(u16::from(code(&other)), 16);
    let mut other = good.clone();
    other.queries.clear();
    assert_eq!(code(&other), ResponseCode::FormErr);

    let mut torn = good.to_vec().unwrap();
    torn.truncate(20);
    let answer = Message::from_vec(&server.send(&torn)).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
    assert_eq!(answer.metadata.id, good.metadata.id);
}

#[test]
fn names_the_address_that_it_cannot_listen_on() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let config = Config {
        listen: vec![taken.local_addr().unwrap()],
        zone: Zone::new("cluster.local", Vec::new(), Vec::new()).unwrap(),
        resolv_conf: "/etc/resolv.conf".into(),
    };
    let error: Error = runtime().block_on(Server::bind(config)).unwrap_err();
    let expected = format!("listening for DNS on udp {}: ", taken.local_addr().unwrap());
    assert!(stdx::one_line(&error).starts_with(&expected), "{}", stdx::one_line(&error));
}
