//! Frames: eight bytes that say what follows, and how much of it.
//!
//! Upstream: SPDY Protocol, Draft 3.1, sections 2.2 and 2.6.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// A control frame is read whole; the largest sensible one is a header block.
const CONTROL_BYTES_MAX: usize = 32 * 1024;

pub(super) const FIN: u8 = 1;
pub(super) const UNIDIRECTIONAL: u8 = 2;

/// The setting that says how much one stream may send before it is asked for more.
pub(super) const INITIAL_WINDOW: u32 = 7;

/// What a peer did that no SPDY speaker does. The session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Broken(pub(super) &'static str);

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, broken)
    }
}

/// Why a stream was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    Protocol = 1,
    InvalidStream = 2,
    Refused = 3,
    Cancel = 5,
    InUse = 8,
}

/// A frame as it was read. A header block is still packed; of data only the length is known, the bytes come next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Data {
        stream: u32,
        flags: u8,
        length: usize,
    },
    SynStream {
        stream: u32,
        flags: u8,
        block: Vec<u8>,
    },
    SynReply {
        stream: u32,
        flags: u8,
        block: Vec<u8>,
    },
    Reset {
        stream: u32,
    },
    Settings {
        pairs: Vec<(u32, u32)>,
    },
    Ping {
        id: u32,
    },
    GoAway,
    Headers {
        stream: u32,
        flags: u8,
        block: Vec<u8>,
    },
    WindowUpdate {
        stream: u32,
        more: u32,
    },
    /// Of a type that nobody knows, which is to be passed over.
    Unknown,
}

/// `None`: the peer has ended the connection between two frames.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
    let mut head = [0; 8];
    if from.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut head[1..]).await?;
    let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    let flags = head[4];
    let length = u32::from_be_bytes([0, head[5], head[6], head[7]]);
    let length = usize::try_from(length).map_err(|_| Broken("a frame is too large"))?;
    if first >> 31 == 0 {
        return Ok(Some(Frame::Data { stream: first, flags, length }));
    }
    if length > CONTROL_BYTES_MAX {
        return Err(Broken("a control frame is too large").into());
    }
    if first >> 16 & 0x7fff != 3 {
        return Err(Broken("a frame is of another version than 3").into());
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    Ok(Some(control(first & 0xffff, flags, &body)?))
}

fn control(kind: u32, flags: u8, body: &[u8]) -> Result<Frame, Broken> {
    let short = Broken("a control frame is shorter than its kind");
    let word = |at: usize| {
        let four = body.get(at..at + 4).and_then(|it| it.first_chunk::<4>());
        four.map(|it| u32::from_be_bytes(*it)).ok_or(short)
    };
    let stream = || word(0).map(|it| it & 0x7fff_ffff);
    let block = |at: usize| body.get(at..).map(<[u8]>::to_vec).ok_or(short);
    Ok(match kind {
        1 => Frame::SynStream { stream: stream()?, flags, block: block(10)? },
        2 => Frame::SynReply { stream: stream()?, flags, block: block(4)? },
        3 => {
            word(4)?;
            Frame::Reset { stream: stream()? }
        }
        4 => {
            let pairs = body.get(4..).ok_or(short)?.chunks_exact(8);
            let number = |it: &[u8]| it.iter().fold(0, |all, it| all << 8 | u32::from(*it));
            Frame::Settings {
                pairs: pairs.map(|it| (number(&it[1..4]), number(&it[4..]))).collect(),
            }
        }
        6 => Frame::Ping { id: word(0)? },
        7 => Frame::GoAway,
        8 => Frame::Headers { stream: stream()?, flags, block: block(4)? },
        9 => Frame::WindowUpdate { stream: stream()?, more: word(4)? & 0x7fff_ffff },
        _ => Frame::Unknown,
    })
}

fn written(kind: u16, flags: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|it| it.len()).sum();
    let mut frame = Vec::with_capacity(8 + length);
    frame.extend_from_slice(&0x8003u16.to_be_bytes());
    frame.extend_from_slice(&kind.to_be_bytes());
    let length = u32::try_from(length).unwrap_or(u32::MAX) & 0xff_ffff;
    frame.extend_from_slice(&(u32::from(flags) << 24 | length).to_be_bytes());
    parts.iter().for_each(|it| frame.extend_from_slice(it));
    frame
}

pub(super) fn syn_reply(stream: u32, block: &[u8]) -> Vec<u8> {
    written(2, 0, &[&stream.to_be_bytes(), block])
}

pub(super) fn reset(stream: u32, why: Reset) -> Vec<u8> {
    written(3, 0, &[&stream.to_be_bytes(), &(why as u32).to_be_bytes()])
}

pub(super) fn ping(id: u32) -> Vec<u8> {
    written(6, 0, &[&id.to_be_bytes()])
}

pub(super) fn go_away(last: u32) -> Vec<u8> {
    written(7, 0, &[&last.to_be_bytes(), &[0; 4]])
}

pub(super) fn window_update(stream: u32, more: u32) -> Vec<u8> {
    written(9, 0, &[&stream.to_be_bytes(), &more.to_be_bytes()])
}

/// The head of a data frame; `length` bytes, less than 16 MiB, are to follow.
pub(super) fn data_head(stream: u32, flags: u8, length: usize) -> [u8; 8] {
    let length = u32::try_from(length).unwrap_or(u32::MAX) & 0xff_ffff;
    let mut head = [0; 8];
    head[..4].copy_from_slice(&stream.to_be_bytes());
    head[4..].copy_from_slice(&(u32::from(flags) << 24 | length).to_be_bytes());
    head
}

/// What only clients write.
#[cfg(test)]
pub(super) fn syn_stream(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    written(1, flags, &[&stream.to_be_bytes(), &[0; 6], block])
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(mut bytes: &[u8]) -> io::Result<Option<Frame>> {
        read(&mut bytes).await
    }

    #[tokio::test]
    async fn frames_come_back_as_they_were_written() {
        let check = |bytes: Vec<u8>, expected: Frame| async move {
            assert_eq!(read_all(&bytes).await.unwrap(), Some(expected));
        };
        check(syn_reply(3, b"x"), Frame::SynReply { stream: 3, flags: 0, block: b"x".to_vec() })
            .await;
        let open = Frame::SynStream { stream: 5, flags: FIN, block: b"yz".to_vec() };
        check(syn_stream(5, FIN, b"yz"), open).await;
        check(reset(7, Reset::Cancel), Frame::Reset { stream: 7 }).await;
        check(ping(9), Frame::Ping { id: 9 }).await;
        check(go_away(1), Frame::GoAway).await;
        check(window_update(3, 70_000), Frame::WindowUpdate { stream: 3, more: 70_000 }).await;
        let data = Frame::Data { stream: 3, flags: FIN, length: 300 };
        check(data_head(3, FIN, 300).to_vec(), data).await;
        let settings = written(4, 0, &[&[0, 0, 0, 1], &[0, 0, 0, 7], &[0, 1, 0, 0]]);
        check(settings, Frame::Settings { pairs: vec![(INITIAL_WINDOW, 65536)] }).await;
        check(written(77, 0, &[b"?"]), Frame::Unknown).await;
    }

    #[tokio::test]
    async fn what_is_no_frame_is_refused() {
        assert_eq!(read_all(b"").await.unwrap(), None);
        assert!(read_all(&ping(1)[..7]).await.is_err());
        assert!(read_all(&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]).await.is_err(), "version 2");
        assert!(read_all(&[0x80, 3, 0, 1, 0, 255, 255, 255]).await.is_err(), "16 MiB of headers");
        assert!(read_all(&written(3, 0, &[&[0; 4]])).await.is_err(), "half a reset");
        assert!(read_all(b"GET / HTTP/1.1\r\n\r\n").await.is_ok(), "data of a stream nobody has");
    }
}
