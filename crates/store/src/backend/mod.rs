//! One file per medium, and the choice between them.

mod embedded;
mod etcd;
mod memory;

pub use embedded::{Embedded, Examined, Hold, Medium};
pub use etcd::Etcd;
pub use memory::Memory;

use crate::{Store, StoreError};
use std::{path::Path, sync::Arc};
use stdx::Clock;

/// Opens the store that `url` names: `embedded` (files below `dir`, which is made if absent),
/// `etcd://HOST:PORT[,HOST:PORT…]`, or `memory` (nothing survives).
pub fn open(url: &str, dir: &Path, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, StoreError> {
    match url {
        "embedded" => Ok(Arc::new(Embedded::open(dir, clock)?)),
        url if url.starts_with("etcd://") => Ok(Arc::new(Etcd::open(url)?)),
        "memory" => Ok(Arc::new(Memory::new(clock))),
        url => Err(StoreError::NotSupported { url: url.to_owned() }),
    }
}
