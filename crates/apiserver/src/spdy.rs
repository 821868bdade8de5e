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
