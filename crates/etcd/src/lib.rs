//! What etcd's server is asked and answers: generated, nothing hand-written.
#![forbid(unsafe_code)]
#![allow(clippy::all, missing_docs, unreachable_pub, rust_2018_idioms, reason = "generated")]

tonic::include_proto!("etcdserverpb");
