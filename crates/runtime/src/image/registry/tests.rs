//! Pulls from a registry of a few lines that misbehaves on command.

use super::*;
use crate::image::{
    Digest, ImageError, ImageStore,
    testing::{config, docker_archive, layer},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Mutex, MutexGuard},
};

/// What is served, and what goes wrong.
#[derive(Default)]
struct Served {
    /// Path → media type and body.
    documents: HashMap<String, (String, Vec<u8>)>,
    /// Only with this value of Authorization; what the challenge says otherwise.
    demands: Option<(String, String)>,
    /// Path → after so many bytes the connection breaks, once.
    breaks: HashMap<String, usize>,
    /// Each request: method, path, and the first byte asked for.
    asked: Vec<String>,
}

struct Fake {
    address: String,
    served: Arc<Mutex<Served>>,
}

impl Fake {
    fn start() -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = Arc::new(Mutex::new(Served::default()));
        let shared = Arc::clone(&served);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let served = Arc::clone(&shared);
                std::thread::spawn(move || answer(&stream.unwrap(), &served));
            }
        });
        Fake { address, served }
    }

    fn served(&self) -> MutexGuard<'_, Served> {
        self.served.lock().unwrap()
    }

    fn reference(&self, rest: &str) -> Reference {
        Reference::parse(&format!("{}/{rest}", self.address)).unwrap()
    }

    fn blob(&self, bytes: Vec<u8>) -> serde_json::Value {
        let digest = Digest::of(&bytes);
        let size = bytes.len();
        let path = format!("/v2/team/web/blobs/{digest}");
        self.served().documents.insert(path, ("application/octet-stream".to_owned(), bytes));
        serde_json::json!({ "digest": digest.to_string(), "size": size })
    }

    fn manifest(&self, name: &str, media_type: &str, document: &serde_json::Value) -> Digest {
        let bytes = document.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        for name in [name, &digest.to_string()] {
            let path = format!("/v2/team/web/manifests/{name}");
            self.served().documents.insert(path, (media_type.to_owned(), bytes.clone()));
        }
        digest
    }

    /// An image of these layers, each packed another way, below an index of two platforms.
    fn image(&self, tag: &str, layers: &[Vec<u8>]) -> Digest {
        let packed = layers.iter().enumerate().map(|(n, layer)| match n % 3 {
            0 => gzip(layer),
            1 => zstd::encode_all(&layer[..], 0).unwrap(),
            _ => layer.clone(),
        });
        let packed: Vec<_> = packed.map(|layer| self.blob(layer)).collect();
        let mut config = self.blob(config(layers));
        config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
        let manifest = serde_json::json!({ "config": config, "layers": packed });
        let ours = self.manifest("ours", "application/vnd.oci.image.manifest.v1+json", &manifest);
        let index = serde_json::json!({ "manifests": [
            { "digest": Digest::of(b"no").to_string(), "platform": { "os": "plan9", "architecture": "amd64" } },
            { "digest": ours.to_string(), "platform": { "os": "linux" } },
        ]});
        self.manifest(tag, "application/vnd.oci.image.index.v1+json", &index)
    }

    fn blobs_asked(&self) -> Vec<String> {
        let asked = std::mem::take(&mut self.served().asked);
        asked.into_iter().filter(|it| it.contains("/blobs/")).collect()
    }
}

fn answer(stream: &TcpStream, served: &Mutex<Served>) {
    let mut lines = BufReader::new(stream).lines().map_while(std::io::Result::ok);
    let Some(first) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let header = |name: &str| {
        let found = headers.iter().filter_map(|it| it.split_once(": "));
        found.filter(|it| it.0.eq_ignore_ascii_case(name)).map(|it| it.1.to_owned()).next()
    };
    let from =
        header("range").and_then(|it| it.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let from: usize = from.unwrap_or(0);
    let mut served = served.lock().unwrap();
    served.asked.push(format!("{path} {from}"));
    let mut stream = stream;
    let mut say = |status: &str, extra: &str, length: usize, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 {status}\r\n{extra}content-length: {length}\r\nconnection: close\r\n\r\n"
        );
        let _gone = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    };
    if let Some((demanded, challenge)) = &served.demands
        && header("authorization").as_ref() != Some(demanded)
        && !path.starts_with("/token")
    {
        let extra = format!("www-authenticate: {challenge}\r\n");
        return say("401 Unauthorized", &extra, 0, b"");
    }
    if path.starts_with("/token") && header("authorization").is_none_or(|it| it != basic("u", "p"))
    {
        return say("401 Unauthorized", "", 0, b"");
    }
    let broken = served.breaks.remove(&path);
    let Some((media_type, body)) = served.documents.get(&path) else {
        let said = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        return say("404 Not Found", "", said.len(), said);
    };
    let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
    let rest = &body[from..];
    let sent = &rest[..broken.unwrap_or(rest.len()).min(rest.len())];
    say(status, &format!("content-type: {media_type}\r\n"), rest.len(), sent);
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn store() -> (tempfile::TempDir, ImageStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = ImageStore::open(directory.path().join("images")).unwrap();
    (directory, store)
}

async fn pull(
    store: &ImageStore,
    reference: &Reference,
    auth: &Auth,
) -> Result<crate::image::Image, ImageError> {
    let report: Report = Arc::new(|_| {});
    Registries::default().pull(store, reference, auth, &report).await
}

async fn refused(store: &ImageStore, reference: &Reference, auth: &Auth) -> String {
    let error = pull(store, reference, auth).await.unwrap_err();
    stdx::one_line(&error)
}

fn layers() -> Vec<Vec<u8>> {
    let noise: Vec<u8> =
        (0..100_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    vec![layer(&[("a", b"a")]), layer(&[("b", b"b")]), layer(&[("noise", &noise)])]
}

fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: {test} needs root");
    }
    root
}

#[tokio::test]
async fn takes_the_image_for_this_machine_and_fetches_each_layer_once() {
    if !is_root("unpacking") {
        return;
    }
    let (_directory, store) = store();
    let fake = Fake::start();
    let layers = layers();
    let index = fake.image("1", &layers[..2]);
    let reference = fake.reference("team/web:1");
    let seen = Arc::new(Mutex::new(Progress::default()));
    let report: Report = {
        let seen = Arc::clone(&seen);
        Arc::new(move |now| *seen.lock().unwrap() = now)
    };
    let image =
        Registries::default().pull(&store, &reference, &Auth::default(), &report).await.unwrap();
    assert_eq!(image.references, [reference.to_string()]);
    assert_eq!(image.digests, [format!("{}@{index}", reference.repository())]);
    assert!(image.is_pulled(&reference));
    assert_eq!(std::fs::read(image.layers[1].join("b")).unwrap(), b"b");
    let progress = *seen.lock().unwrap();
    assert_eq!((progress.layers, progress.layers_done), (2, 2));
    assert_eq!(progress.bytes, progress.bytes_done);
    assert_eq!(fake.blobs_asked().len(), 3, "two layers and a config");

    assert_eq!(pull(&store, &reference, &Auth::default()).await.unwrap(), image);
    assert_eq!(fake.blobs_asked(), Vec::<String>::new(), "the tag leads where it led");
    fake.image("1", &layers);
    let newer = pull(&store, &reference, &Auth::default()).await.unwrap();
    assert_eq!(fake.blobs_asked().len(), 2, "the third layer and a config");
    assert_eq!(newer.layers.len(), 3);
    let older = store.resolve(&image.id).unwrap();
    assert_eq!((&older.references[..], &older.pulled.len()), (&[][..], &1), "the tag has moved on");
    let by_digest = Reference::parse(&format!("{}@{index}", reference.repository())).unwrap();
    assert_eq!(pull(&store, &by_digest, &Auth::default()).await.unwrap().id, image.id);
    assert_eq!(std::fs::read_dir(store.downloads().unwrap()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_broke() {
    if !is_root("unpacking") {
        return;
    }
    let (_directory, store) = store();
    let fake = Fake::start();
    let noise = layers().pop().unwrap();
    fake.image("1", std::slice::from_ref(&noise));
    let blob = Digest::of(&gzip(&noise));
    let path = format!("/v2/team/web/blobs/{blob}");
    fake.served().breaks.insert(path.clone(), 70_000);
    pull(&store, &fake.reference("team/web:1"), &Auth::default()).await.unwrap();
    let asked: Vec<String> =
        fake.blobs_asked().into_iter().filter(|it| it.starts_with(&path)).collect();
    assert_eq!(asked, [format!("{path} 0"), format!("{path} 70000")]);
}

#[tokio::test]
async fn what_is_not_what_its_digest_says_is_not_taken() {
    let (_directory, store) = store();
    let fake = Fake::start();
    let layers = layers();
    fake.image("1", &layers[..1]);
    let path = format!("/v2/team/web/blobs/{}", Digest::of(&gzip(&layers[0])));
    let reference = fake.reference("team/web:1");
    let body = fake.served().documents[&path].1.clone();
    let mut wrong = body.clone();
    wrong[20] ^= 1;
    fake.served().documents.get_mut(&path).unwrap().1 = wrong;
    let error = refused(&store, &reference, &Auth::default()).await;
    assert!(error.contains("arrived damaged"), "{error}");
    fake.served().documents.get_mut(&path).unwrap().1 = [&body[..], b"more"].concat();
    let error = refused(&store, &reference, &Auth::default()).await;
    assert!(error.contains("is longer than said"), "{error}");
    let digest = Digest::of(b"something else");
    {
        let documents = &mut fake.served().documents;
        let ours = documents["/v2/team/web/manifests/1"].clone();
        documents.insert(format!("/v2/team/web/manifests/{digest}"), ours);
    }
    let by_digest = format!("{}@{digest}", reference.repository());
    let by_digest = Reference::parse(&by_digest).unwrap();
    let error = refused(&store, &by_digest, &Auth::default()).await;
    assert!(error.contains("should have digest"), "{error}");
    assert_eq!(store.list().unwrap(), []);
}

#[tokio::test]
async fn shows_a_password_or_a_token_only_where_it_is_asked_for() {
    if !is_root("unpacking") {
        return;
    }
    let (_directory, store) = store();
    let fake = Fake::start();
    fake.image("1", &layers()[..1]);
    let reference = fake.reference("team/web:1");
    let auth = |username: &str, password: &str| Auth {
        username: username.to_owned(),
        password: password.to_owned(),
        ..Auth::default()
    };
    fake.served().demands = Some((basic("u", "p"), r#"Basic realm="r""#.to_owned()));
    let error = refused(&store, &reference, &Auth::default()).await;
    assert_eq!(
        error,
        format!(
            "pull image {reference}: authorization failed: {} asks for a user and a password, and none is known for it",
            fake.address
        )
    );
    let error = refused(&store, &reference, &auth("u", "wrong")).await;
    assert!(error.contains("authorization failed: "), "{error}");
    assert!(error.ends_with("answers 401 Unauthorized"), "{error}");
    pull(&store, &reference, &auth("u", "p")).await.unwrap();

    let challenge = format!(r#"Bearer realm="http://{}/token",service="s""#, fake.address);
    fake.served().demands = Some(("Bearer t0k".to_owned(), challenge));
    let token = br#"{"token": "t0k"}"#.to_vec();
    let path = "/token?scope=repository%3Ateam%2Fweb%3Apull&service=s".to_owned();
    fake.served().documents.insert(path, (String::new(), token));
    let error = refused(&store, &reference, &auth("u", "wrong")).await;
    assert!(error.contains("authorization failed"), "{error}");
    pull(&store, &reference, &auth("u", "p")).await.unwrap();
}

#[tokio::test]
async fn says_in_one_line_what_is_not_there_and_what_is_no_image() {
    let (_directory, store) = store();
    let fake = Fake::start();
    let reference = fake.reference("team/web:none");
    assert_eq!(
        refused(&store, &reference, &Auth::default()).await,
        format!("pull image {reference}: not found in the registry: manifest unknown")
    );
    let chart = serde_json::json!({ "layers": [], "config": {
        "mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": Digest::of(b"").to_string()
    }});
    fake.manifest("chart", "application/vnd.oci.image.manifest.v1+json", &chart);
    let error = refused(&store, &fake.reference("team/web:chart"), &Auth::default()).await;
    assert!(
        error.ends_with(
            "it is no image, but something of type \"application/vnd.cncf.helm.config.v1+json\""
        ),
        "{error}"
    );
    let other = serde_json::json!({ "manifests": [
        { "digest": Digest::of(b"no").to_string(), "platform": { "os": "plan9", "architecture": "vax" } },
    ]});
    fake.manifest("other", "application/vnd.oci.image.index.v1+json", &other);
    let error = refused(&store, &fake.reference("team/web:other"), &Auth::default()).await;
    assert!(error.ends_with("the registry has plan9/vax"), "{error}");
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_an_import_of_the_same_layers_is_used() {
    if !is_root("unpacking") {
        return;
    }
    let (_directory, store) = store();
    let fake = Fake::start();
    let layers = layers();
    fake.image("1", &layers);
    store.import_bytes(docker_archive("other:1", &layers[..2])).unwrap();
    let registry =
        Registry { mirrors: vec![format!("http://{}", fake.address)], ..Registry::default() };
    let registries = Registries::new(BTreeMap::from([("registry.invalid".to_owned(), registry)]));
    let plain: Vec<(String, _)> = fake.served().documents.drain().collect();
    let named = plain.into_iter().map(|(path, it)| (format!("{path}?ns=registry.invalid"), it));
    fake.served().documents.extend(named.collect::<Vec<_>>());
    let reference = Reference::parse("registry.invalid/team/web:1").unwrap();
    let report: Report = Arc::new(|_| {});
    let image = registries.pull(&store, &reference, &Auth::default(), &report).await.unwrap();
    assert_eq!(image.layers.len(), 3);
    assert_eq!(fake.blobs_asked().len(), 2, "a config and the third layer");
}

#[tokio::test]
async fn two_who_want_one_layer_share_its_download() {
    if !is_root("unpacking") {
        return;
    }
    let (_directory, store) = store();
    let fake = Fake::start();
    fake.image("1", &layers());
    let reference = fake.reference("team/web:1");
    let auth = Auth::default();
    let pulls = (0..4).map(|_| pull(&store, &reference, &auth));
    for pulled in futures_util::future::join_all(pulls).await {
        assert_eq!(pulled.unwrap().layers.len(), 3);
    }
    let layers: Vec<String> = fake.blobs_asked();
    let noise = Digest::of(&self::layers()[2]).to_string();
    assert_eq!(layers.iter().filter(|it| it.contains(&noise)).count(), 1, "{layers:?}");
}
