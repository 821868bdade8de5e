//! What a session promises to a client on the wire.

use super::{
    frame::{self, Reset},
    session::{Accepted, Session},
    testing::Client,
};
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;

async fn accepted(session: &mut Session) -> Accepted {
    session.accept().await.expect("the client opens a stream")
}

fn settings(window: u32) -> Vec<u8> {
    let head = [0x80, 3, 0, 4, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 7];
    [&head[..], &window.to_be_bytes()].concat()
}

#[tokio::test]
async fn each_half_of_a_stream_closes_by_itself() {
    let (mut client, server) = Client::pair();
    let mut session = Session::start(server);
    let stream = client.open(&[("streamtype", "data"), ("port", "80")]).await;
    let Accepted { headers, mut receiver, sender, .. } = accepted(&mut session).await;
    assert_eq!((headers.one("streamType"), headers.one("port")), ("data", "80"));
    client.say(stream, b"question").await;
    client.finish(stream).await;
    assert_eq!(receiver.next().await, Some(Bytes::from("question")));
    assert_eq!(receiver.next().await, None);
    sender.send(Bytes::from("answer")).await.unwrap();
    sender.finish().await;
    client.until(|it| it.on(stream).finished).await;
    assert_eq!(client.on(stream).text(), "answer");
}

#[tokio::test]
async fn streams_do_not_mix() {
    let (mut client, server) = Client::pair();
    let mut session = Session::start(server);
    let mut open = Vec::new();
    for number in 0..20 {
        let stream = client.open(&[("streamtype", "data"), ("port", &number.to_string())]).await;
        open.push((stream, accepted(&mut session).await));
    }
    for (stream, _) in &open {
        client.say(*stream, format!("to {stream}").as_bytes()).await;
    }
    for (stream, accepted) in &mut open {
        assert_eq!(accepted.receiver.next().await, Some(Bytes::from(format!("to {stream}"))));
        accepted.sender.send(Bytes::from(format!("from {stream}"))).await.unwrap();
    }
    for (stream, _) in &open {
        client.until(|it| !it.on(*stream).data.is_empty()).await;
        assert_eq!(client.on(*stream).text(), format!("from {stream}"));
    }
}

#[tokio::test]
async fn a_ping_comes_back() {
    let (mut client, server) = Client::pair();
    let _session = Session::start(server);
    client.write(&frame::ping(7)).await;
    // One of ours that we never sent.
    client.write(&frame::ping(8)).await;
    client.write(&frame::ping(9)).await;
    client.until(|it| it.pings == [7, 9]).await;
}

#[tokio::test]
async fn a_client_that_names_a_window_is_sent_no_more_than_that() {
    let (mut client, server) = Client::pair();
    let mut session = Session::start(server);
    client.write(&settings(1000)).await;
    let stream = client.open(&[]).await;
    let Accepted { sender, .. } = accepted(&mut session).await;
    let sending = tokio::spawn(async move {
        sender.send(Bytes::from(vec![1; 5000])).await.unwrap();
        sender.finish().await;
    });
    client.until(|it| it.on(stream).data.len() == 1000).await;
    client.write(&frame::ping(1)).await;
    client.until(|it| it.pings == [1]).await;
    assert_eq!(client.on(stream).data.len(), 1000, "and then waits");
    client.write(&frame::window_update(stream, 1500)).await;
    client.until(|it| it.on(stream).data.len() == 2500).await;
    client.write(&frame::window_update(stream, 1 << 20)).await;
    client.until(|it| it.on(stream).finished).await;
    assert_eq!(client.on(stream).data.len(), 5000);
    sending.await.unwrap();
}

#[tokio::test]
async fn a_client_without_windows_is_sent_everything() {
    let (mut client, server) = Client::pair();
    let mut session = Session::start(server);
    let stream = client.open(&[]).await;
    let Accepted { sender, .. } = accepted(&mut session).await;
    tokio::spawn(async move {
        sender.send(Bytes::from(vec![1; 1 << 20])).await.unwrap();
        sender.finish().await;
    });
    client.until(|it| it.on(stream).finished).await;
    assert_eq!(client.on(stream).data.len(), 1 << 20);
}

#[tokio::test]
async fn what_was_read_may_be_sent_again() {
    let (mut client, server) = Client::pair();
    let mut session = Session::start(server);
    let stream = client.open(&[]).await;
    let Accepted { mut receiver, sender: _sender, .. } = accepted(&mut session).await;
    client.say(stream, &[0; 60_000]).await;
    let mut read = 0;
    while read < 60_000 {
        read += receiver.next().await.unwrap().len();
    }
    client.until(|it| it.allowed.len() == 2).await;
    assert!(client.allowed[&stream] >= 32 * 1024, "{:?}", client.allowed);
    // To a stream that nobody reads any more, too.
    drop(receiver);
    client.say(stream, &[0; 1000]).await;
    let before = client.allowed[&0];
    client.until(|it| it.allowed[&0] > before).await;
}

#[tokio::test]
async fn a_reader_who_does_not_read_stops_the_client_before_memory_grows() {
    let (mut client, server) = Client::pair();
    let mut session = Session::start(server);
    let stream = client.open(&[]).await;
    let Accepted { mut receiver, sender: _sender, .. } = accepted(&mut session).await;
    let piece = [&frame::data_head(stream, 0, 8192)[..], &[0; 8192]].concat();
    let mut written = 0;
    let mut still = 0;
    // Stopped when nothing moves however often the session gets its turn.
    while still < 1000 {
        match client.io.write(&piece[written % piece.len()..]).now_or_never() {
            Some(more) => {
                written += more.unwrap();
                still = 0;
            }
            None => {
                still += 1;
                tokio::task::yield_now().await;
            }
        }
        assert!(written < 4 << 20, "{written} bytes went somewhere");
    }
    // And goes on when the reader does.
    let mut read = 0;
    while read < written / 2 {
        read += receiver.next().await.unwrap().len();
    }
    assert!(client.io.write(&piece[written % piece.len()..]).await.unwrap() > 0);
}

#[tokio::test]
async fn a_reset_ends_both_halves() {
    let (mut client, server) = Client::pair();
    let mut session = Session::start(server);
    let stream = client.open(&[]).await;
    let Accepted { mut receiver, sender, .. } = accepted(&mut session).await;
    client.write(&frame::reset(stream, Reset::Cancel)).await;
    assert_eq!(receiver.next().await, None);
    sender.gone().await;
    assert!(sender.send(Bytes::from("late")).await.is_err());
    // Ours reaches the client after what was said before.
    let stream = client.open(&[]).await;
    let Accepted { sender, receiver: _receiver, .. } = accepted(&mut session).await;
    sender.send(Bytes::from("why")).await.unwrap();
    sender.reset().await;
    client.until(|it| it.on(stream).reset).await;
    assert_eq!(client.on(stream).text(), "why");
    // And a stream that is given up is reset as well.
    let stream = client.open(&[]).await;
    drop(accepted(&mut session).await);
    client.until(|it| it.on(stream).reset).await;
}

#[tokio::test]
async fn numbers_of_streams_only_rise() {
    let (mut client, server) = Client::pair();
    let mut session = Session::start(server);
    client.open_as(5, &[]).await;
    let _open = accepted(&mut session).await;
    client.open_as(3, &[]).await;
    client.until(|it| it.on(3).reset).await;
    client.say(99, b"to nobody").await;
    client.until(|it| it.on(99).reset).await;
    client.open_as(8, &[]).await;
    assert!(session.accept().await.is_none(), "only servers' numbers are even");
}

#[tokio::test]
async fn more_streams_than_the_limit_are_refused() {
    let (mut client, server) = Client::pair();
    let mut session = Session::start(server);
    let mut open = Vec::new();
    for _ in 0..2048 {
        let stream = client.open(&[]).await;
        open.push(accepted(&mut session).await);
        client.until(|it| it.on(stream).replied).await;
    }
    let refused = client.open(&[]).await;
    client.until(|it| it.on(refused).reset).await;
    open.clear();
    client.until(|it| it.heard.values().all(|it| it.reset)).await;
}

#[tokio::test]
async fn a_session_that_ends_says_farewell() {
    let (mut client, server) = Client::pair();
    let session = Session::start(server);
    let ended = tokio::spawn(session.end());
    client.io.shutdown().await.unwrap();
    while client.hear().await {}
    assert!(client.farewell);
    ended.await.unwrap();
}

#[tokio::test]
async fn garbage_ends_the_session() {
    for garbage in
        [&b"\x80\x02\0\x06\0\0\0\x04\0\0\0\x01"[..], b"\x80\x03\0\x01\0\0\0\x0a0123456789"]
    {
        let (mut client, server) = Client::pair();
        let mut session = Session::start(server);
        client.write(garbage).await;
        assert!(session.accept().await.is_none());
    }
}
