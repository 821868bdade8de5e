//! Clients that are slow, endless or many: each is told so or let go, and others are served meanwhile.

use crate::house::Door;
use apiserver::Patience;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::{body::Bytes, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Long enough for nobody here.
const SHORT: Duration = Duration::from_millis(200);

async fn still_serves(door: &Door) {
    door.get(MAPS).await.is(200);
    assert_eq!(door.get("/readyz").await.text, "ok");
}

/// Everything up to the end of the connection, broken off or not.
async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let (mut all, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        all.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// The head of an answer.
async fn head(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 1024];
    while !all.windows(4).any(|it| it == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(read @ 1..) => all.extend_from_slice(&buffer[..read]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn a_body_without_end_is_too_large() {
    let door = Door::open().await;
    let mut stream = door.tls().await;
    let request = format!(
        "POST {MAPS} HTTP/1.1\r\nhost: door\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = tokio::io::split(stream);
    let endless = tokio::spawn(async move {
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        // Until the door closes.
        while writing.write_all(chunk.as_bytes()).await.is_ok() {}
    });
    let said = head(&mut reading).await;
    assert!(said.starts_with("HTTP/1.1 413 "), "{said}");
    rest(&mut reading).await;
    drop(reading);
    endless.await.unwrap();
    still_serves(&door).await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let door = Door::open_impatient(Patience { body: SHORT, ..Patience::default() }).await;
    let mut stream = door.tls().await;
    let request = format!(
        "POST {MAPS} HTTP/1.1\r\nhost: door\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{{\"meta"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let said = head(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 504 "), "{said}");
    // A connection in the middle of a body is of no more use.
    rest(&mut stream).await;
    still_serves(&door).await;
}

#[tokio::test]
async fn a_body_shorter_than_it_said_changes_nothing() {
    let door = Door::open().await;
    let mut stream = door.tls().await;
    let request = format!(
        "POST {MAPS} HTTP/1.1\r\nhost: door\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{{\"metadata\":{{\"name\":\"m\"}}}}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let said = rest(&mut stream).await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 400 "), "{said}");
    door.get(&format!("{MAPS}/m")).await.is(404);
    still_serves(&door).await;
}

#[tokio::test]
async fn headers_and_handshakes_that_do_not_end_are_let_go() {
    let patience = Patience { headers: SHORT, handshake: SHORT, ..Patience::default() };
    let door = Door::open_impatient(patience).await;
    let mut silent = door.tcp().await;
    let mut half = door.tcp().await;
    // The first bytes of a TLS record, and no more.
    half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.unwrap();
    assert_eq!(rest(&mut silent).await, "");
    rest(&mut half).await;
    let mut noise = door.tcp().await;
    noise.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    rest(&mut noise).await;
    let mut slow = door.tls().await;
    slow.write_all(b"GET /readyz HTTP/1.1\r\nhost: do").await.unwrap();
    let said = rest(&mut slow).await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408 "), "{said}");
    still_serves(&door).await;
}

#[tokio::test]
async fn a_full_house_still_says_that_it_lives() {
    let door =
        Door::open_impatient(Patience { connections: 3, spare: 2, ..Patience::default() }).await;
    let mut sitting = Vec::new();
    for _ in 0..3 {
        let mut stream = door.tls().await;
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: door\r\n\r\n").await.unwrap();
        head(&mut stream).await;
        sitting.push(stream);
    }
    for _ in 0..5 {
        assert_eq!(door.get("/readyz").await.text, "ok");
        let refused = door.get(MAPS).await.is(503);
        assert_eq!(refused.body["reason"], "ServiceUnavailable");
        assert_eq!(refused.headers["retry-after"], "1");
        let why = "the server has 3 connections and takes no more for now";
        assert_eq!(refused.message(), why);
    }
    drop(sitting);
    // Places are free as soon as the server has seen them go.
    while door.get(MAPS).await.code == 503 {
        tokio::task::yield_now().await;
    }
    still_serves(&door).await;
}

#[tokio::test]
async fn what_is_asked_for_has_a_length() {
    let door = Door::open().await;
    let long = "x".repeat(64 * 1024);
    for (request, code) in [
        (format!("GET {MAPS}?labelSelector={long} HTTP/1.1\r\nhost: door\r\n\r\n"), "414"),
        (format!("GET /{long} HTTP/1.1\r\nhost: door\r\n\r\n"), "414"),
        (format!("GET {MAPS} HTTP/1.1\r\nhost: door\r\nx: {}\r\n\r\n", long.repeat(16)), "431"),
        (format!("GET {MAPS} HTTP/1.1\r\nhost: door\r\n{}\r\n", "x: y\r\n".repeat(200)), "431"),
        ("NONSENSE\r\n\r\n".to_owned(), "400"),
        ("GET /api\0 HTTP/1.1\r\nhost: door\r\n\r\n".to_owned(), "400"),
        (format!("POST {MAPS} HTTP/1.1\r\nhost: door\r\ncontent-length: -1\r\n\r\n"), "400"),
        (
            format!(
                "POST {MAPS} HTTP/1.1\r\nhost: door\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"
            ),
            "400",
        ),
    ] {
        let mut stream = door.tls().await;
        // A refusal may come before the last byte is sent.
        let _sent = stream.write_all(request.as_bytes()).await;
        let said = head(&mut stream).await;
        let shown: String = request.chars().take(60).collect();
        assert!(said.starts_with(&format!("HTTP/1.1 {code} ")), "{shown:?}: {said:?}");
    }
    let terms: Vec<String> = (0..10_000).map(|it| format!("a{it}")).collect();
    let found = door.get(&format!("{MAPS}?labelSelector={}", terms.join(","))).await.is(200);
    assert_eq!(found.body["items"], serde_json::json!([]));
    still_serves(&door).await;
}

/// A connection of HTTP/2.
async fn second(door: &Door) -> http2::SendRequest<Empty<Bytes>> {
    let io = TokioIo::new(door.tls().await);
    let (sender, connection) =
        http2::Builder::new(TokioExecutor::new()).handshake(io).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

fn ask(path: &str) -> Request<Empty<Bytes>> {
    let uri = format!("https://door{path}");
    Request::builder().uri(uri).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn many_streams_of_one_connection_take_turns() {
    let door = Door::open().await;
    let sender = second(&door).await;
    let asked = (0..300).map(|_| {
        let mut sender = sender.clone();
        async move {
            sender.ready().await.unwrap();
            let answer = sender.send_request(ask(MAPS)).await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.into_body().collect().await.unwrap();
        }
    });
    futures_util::future::join_all(asked).await;
}

#[tokio::test]
async fn streams_that_are_opened_only_to_be_reset_end_their_connection_at_most() {
    let door = Door::open().await;
    let mut sender = second(&door).await;
    for _ in 0..5_000 {
        if sender.ready().await.is_err() {
            break;
        }
        // Dropped before its answer: the stream is reset.
        drop(sender.send_request(ask(MAPS)));
        tokio::task::yield_now().await;
    }
    still_serves(&door).await;
    let mut other = second(&door).await;
    assert_eq!(other.send_request(ask(MAPS)).await.unwrap().status(), 200);
}

#[tokio::test]
async fn headers_of_a_stream_have_a_length_too() {
    let door = Door::open().await;
    let mut sender = second(&door).await;
    let mut request = ask(MAPS);
    for n in 0..80 {
        let name = http::HeaderName::try_from(format!("x-{n}")).unwrap();
        request.headers_mut().insert(name, "y".repeat(16 * 1024).parse().unwrap());
    }
    match sender.send_request(request).await {
        Ok(answer) => assert_eq!(answer.status(), 431),
        Err(error) => assert!(error.to_string().contains("http2 error"), "{error}"),
    }
    still_serves(&door).await;
}
