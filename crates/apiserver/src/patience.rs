//! How much of one client the door puts up with: who fills it, or is slow, keeps nobody else out.

use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Patience {
    /// Connections at once. Each costs a TLS state and buffers; a cluster of the size meant here has some
    /// hundreds.
    pub connections: usize,
    /// Connections beyond that, which last as long as a handshake may: there, questions after the
    /// server's health are answered, and everything else is told to come back.
    pub spare: usize,
    /// A client that takes longer to say who it is is none.
    pub handshake: Duration,
    /// From the first byte of a request to the last of its headers, and between two requests of HTTP/1.
    pub headers: Duration,
    /// For a whole body: upstream's `--request-timeout`. A client that sends slower sends nothing.
    pub body: Duration,
    /// How often an HTTP/2 client that is silent is asked whether it is still there; as long, again, for
    /// its answer.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            connections: 4096,
            spare: 64,
            handshake: Duration::from_secs(10),
            headers: Duration::from_secs(32),
            body: Duration::from_secs(60),
            silence: Duration::from_secs(30),
        }
    }
}
