//! Several byte streams in one WebSocket: the first byte of a message says which.
//!
//! Upstream: staging/src/k8s.io/apimachinery/pkg/util/remotecommand/constants.go and
//! staging/src/k8s.io/streaming/pkg/httpstream/wsstream/conn.go.

use super::outcome::Outcome;
use base64::{Engine, engine::general_purpose::STANDARD};
use tokio_tungstenite::tungstenite::{Bytes, Message};

pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const RESIZE: u8 = 4;

/// In version 5, followed by the number of a channel on which nothing more will come.
const CLOSE: u8 = 255;

/// A subprotocol, by how it writes messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Binary, with a close signal for single channels.
    V5,
    V4,
    /// Text, for clients without binary messages.
    V4Base64,
    /// Tells at the end only what went wrong, in words. Also of clients that name no version.
    V1,
    V1Base64,
}

/// What a message means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    Data(u8, Bytes),
    Close(u8),
    /// Empty, or for a channel that nobody knows.
    Nothing,
    Violation,
}

impl Protocol {
    pub(super) const ALL: [(&'static str, Protocol); 6] = [
        ("v5.channel.k8s.io", Protocol::V5),
        ("v4.channel.k8s.io", Protocol::V4),
        ("v4.base64.channel.k8s.io", Protocol::V4Base64),
        ("channel.k8s.io", Protocol::V1),
        ("base64.channel.k8s.io", Protocol::V1Base64),
        ("", Protocol::V1),
    ];

    /// The client's first choice among ours; it writes them with commas.
    pub(super) fn choose(wanted: &str) -> Option<(&'static str, Protocol)> {
        let known = |name: &str| Protocol::ALL.into_iter().find(|(ours, _)| *ours == name.trim());
        wanted.split(',').find_map(known)
    }

    /// How the end is told to a client of this version; `None`: not at all.
    pub(super) fn farewell(self, outcome: Outcome) -> Option<String> {
        match self {
            Protocol::V5 | Protocol::V4 | Protocol::V4Base64 => Some(outcome.status),
            Protocol::V1 | Protocol::V1Base64 => outcome.failure,
        }
    }

    pub(super) fn outgoing(self, channel: u8, data: &[u8]) -> Message {
        match self {
            Protocol::V5 | Protocol::V4 | Protocol::V1 => {
                let mut message = Vec::with_capacity(data.len() + 1);
                message.push(channel);
                message.extend_from_slice(data);
                Message::binary(message)
            }
            Protocol::V4Base64 | Protocol::V1Base64 => {
                let mut message = char::from(b'0'.saturating_add(channel)).to_string();
                STANDARD.encode_string(data, &mut message);
                Message::text(message)
            }
        }
    }

    /// `last` is the highest channel that the session has.
    pub(super) fn incoming(self, message: Bytes, last: u8) -> Incoming {
        let Some(first) = message.first().copied() else { return Incoming::Nothing };
        let data = message.slice(1..);
        match self {
            Protocol::V5 if first == CLOSE => match data[..] {
                [channel] if channel <= last => Incoming::Close(channel),
                _ => Incoming::Violation,
            },
            Protocol::V5 | Protocol::V4 | Protocol::V1 if first <= last => {
                Incoming::Data(first, data)
            }
            Protocol::V5 | Protocol::V4 | Protocol::V1 => Incoming::Nothing,
            Protocol::V4Base64 | Protocol::V1Base64 => {
                match (first.wrapping_sub(b'0'), STANDARD.decode(data)) {
                    (channel, Ok(data)) if channel <= last => Incoming::Data(channel, data.into()),
                    _ => Incoming::Nothing,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_first_known_choice_wins() {
        let choose = |wanted| Protocol::choose(wanted).map(|(_, protocol)| protocol);
        assert_eq!(choose("v9, v5.channel.k8s.io,v4.channel.k8s.io"), Some(Protocol::V5));
        assert_eq!(choose("v4.base64.channel.k8s.io"), Some(Protocol::V4Base64));
        assert_eq!(choose("v3.channel.k8s.io"), None);
        assert_eq!(choose("channel.k8s.io"), Some(Protocol::V1));
        assert_eq!(choose(""), Some(Protocol::V1));
    }

    #[test]
    fn messages_come_back_as_they_were_sent() {
        for (_, protocol) in Protocol::ALL {
            let message = protocol.outgoing(STDERR, b"\0hello").into_data();
            assert_eq!(
                protocol.incoming(message, RESIZE),
                Incoming::Data(STDERR, Bytes::from("\0hello"))
            );
        }
    }

    #[test]
    fn only_version_5_closes_channels() {
        let check = |protocol: Protocol, message: &'static [u8], expected| {
            assert_eq!(protocol.incoming(Bytes::from_static(message), RESIZE), expected);
        };
        check(Protocol::V5, &[255, 0], Incoming::Close(STDIN));
        check(Protocol::V5, &[255, 9], Incoming::Violation);
        check(Protocol::V5, &[255], Incoming::Violation);
        check(Protocol::V4, &[255, 0], Incoming::Nothing);
        check(Protocol::V5, &[], Incoming::Nothing);
        check(Protocol::V5, &[9, 1], Incoming::Nothing);
        check(Protocol::V4Base64, b"0!", Incoming::Nothing);
    }
}
