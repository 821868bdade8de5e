//! The network as others see it: interfaces that the kernel made, Services' addresses, and DNS over real sockets.

mod dns;
mod interface;
mod namespaces;
mod peers;
mod service;
