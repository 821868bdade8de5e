//! One file per medium, and the choice between them.

mod embedded;
mod etcd;
mod memory;

pub use embedded::{Embedded, Examined, Hold, Medium};
pub use etcd::{Copied, CopyError, Etcd, EtcdTls, MemberStatus};
pub use memory::Memory;

use crate::{Store, StoreError};
use std::{path::Path, sync::Arc};
use stdx::Clock;

/// Opens the store that `url` names: `embedded` (files below `dir`, which is made if absent),
/// `etcd://HOST:PORT[,HOST:PORT…]`, `etcds://…` with what `tls` names, or `memory` (nothing survives).
pub fn open(
    url: &str,
    tls: &EtcdTls,
    dir: &Path,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Store>, StoreError> {
    match url {
        "embedded" => Ok(Arc::new(Embedded::open(dir, clock)?)),
        "memory" => Ok(Arc::new(Memory::new(clock))),
        url => Ok(Arc::new(Etcd::open(url, tls)?)),
    }
}
