//! SPDY/3.1, the server's side: several streams of bytes on one connection that HTTP/1.1 was upgraded to.
//!
//! kubectl before 1.31 speaks nothing else for exec, attach, cp and port-forward, and later ones carry it inside a
//! WebSocket for port-forward. It ends at this door: towards nodes there is one protocol, WebSocket.
//! What is served is what remote commands need: streams that the client opens, data both ways, half-closing, resets,
//! pings and the farewell. Nothing is pushed.

mod dictionary;
mod frame;
mod headers;
mod session;
mod stream;

pub(crate) use session::{Accepted, Session};
pub(crate) use stream::{Receiver, Sender};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

/// Reads frames and their headers until they end or are broken: how many there were.
pub(crate) async fn read_all(mut bytes: &[u8]) -> usize {
    let (mut unpacker, mut count) = (headers::Unpacker::new(), 0);
    while let Ok(Some(frame)) = frame::read(&mut bytes).await {
        count += 1;
        match frame {
            frame::Frame::Data { length, .. } => {
                bytes = bytes.get(length..).unwrap_or_default();
            }
            frame::Frame::SynStream { block, .. }
            | frame::Frame::SynReply { block, .. }
            | frame::Frame::Headers { block, .. } => {
                if unpacker.read(&block).is_err() {
                    break;
                }
            }
            frame::Frame::Reset { .. }
            | frame::Frame::Settings { .. }
            | frame::Frame::Ping { .. }
            | frame::Frame::GoAway
            | frame::Frame::WindowUpdate { .. }
            | frame::Frame::Unknown => {}
        }
    }
    count
}
