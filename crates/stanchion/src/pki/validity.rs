//! From when to when a certificate holds, and when it is due for another one.

use anyhow::{Context, Result, anyhow};
use rcgen::{CertificateParams, date_time_ymd};
use std::time::Duration;
use stdx::Timestamp;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// As kubeadm's: an authority for ten years, its leaves for one.
pub(super) const AUTHORITY_DAYS: Duration = DAY.saturating_mul(3650);
pub(crate) const LEAF_DAYS: Duration = DAY.saturating_mul(365);

/// A machine whose clock was ahead when the authority was made, and is set right later.
pub(super) const BACKDATED: Duration = DAY.saturating_mul(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
}

impl Validity {
    /// Of the first certificate in a PEM text.
    pub(crate) fn of(pem: &str) -> Result<Validity> {
        let attempt = "read a certificate";
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes())
            .map_err(|error| anyhow!("{attempt}: {error}"))?;
        let certificate = block.parse_x509().context(attempt)?;
        let validity = certificate.validity();
        Ok(Validity {
            from: Timestamp::from_seconds(validity.not_before.timestamp()),
            until: Timestamp::from_seconds(validity.not_after.timestamp()),
        })
    }

    /// The last third of a leaf's life has begun: time enough to find out why it cannot be renewed.
    pub(crate) fn is_due(self, now: Timestamp) -> bool {
        self.until.since(now) < LEAF_DAYS / 3
    }
}

/// Sets from when to when a certificate is to hold: whole days.
pub(super) fn set(params: &mut CertificateParams, from: Timestamp, until: Timestamp) {
    let date = |at: Timestamp| {
        let text = at.rfc3339();
        let number = |from: usize, to: usize| text.get(from..to)?.parse::<u16>().ok();
        // A year beyond the fourth digit has another shape, and is taken for the last that has not.
        let (year, month, day) = match (number(0, 4), number(5, 7), number(8, 10)) {
            (Some(year), Some(month), Some(day)) => (year, month, day),
            _ => (9999, 12, 31),
        };
        date_time_ymd(i32::from(year), month as u8, day as u8)
    };
    params.not_before = date(from);
    params.not_after = date(until);
}
