//! Messages and services of the interfaces that a node speaks, generated from `proto/`; nothing hand-written.
//!
//! A client works over any tower service, so two ends in one process need no socket:
//! `RuntimeServiceClient::new(RuntimeServiceServer::new(implementation))`.
#![forbid(unsafe_code)]

/// The Container Runtime Interface, v1.
pub mod cri {
    #![allow(clippy::all, unreachable_pub)]
    tonic::include_proto!("runtime.v1");
}

/// The health protocol of gRPC servers, v1.
pub mod health {
    #![allow(clippy::all, unreachable_pub)]
    tonic::include_proto!("grpc.health.v1");
}
