//! The network as others see it: interfaces that the kernel made, and DNS over real sockets.

mod dns;
mod interface;
