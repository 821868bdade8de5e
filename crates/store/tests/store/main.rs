//! The promises, on every backend, and what only the embedded one promises.

mod backup;
mod disk;
mod embedded;
mod etcd;
mod full;
mod kill;
mod memory;
mod model;
mod power;
