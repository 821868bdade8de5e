//! How long history is kept when nobody compacts.

use std::time::Duration;

/// As upstream's apiserver, which compacts etcd every five minutes: a watch may resume that late.
pub const HISTORY_AGE: Duration = Duration::from_secs(300);

/// Never less, whatever the size: a client that lists slowly, or whose watch broke and backs off,
/// comes back within this time.
pub const HISTORY_AGE_MIN: Duration = Duration::from_secs(75);

/// Beyond this the history goes as early as [`HISTORY_AGE_MIN`] allows, so that churn does not
/// fill the disk.
pub const HISTORY_BYTES_MAX: u64 = 64 << 20;

/// The age that history may have now.
pub(crate) fn age_allowed(history_bytes: u64) -> Duration {
    if history_bytes > HISTORY_BYTES_MAX { HISTORY_AGE_MIN } else { HISTORY_AGE }
}
