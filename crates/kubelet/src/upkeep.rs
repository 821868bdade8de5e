//! What a node does for itself, over and over: logs are rotated, pods that take too much go, images that nobody uses
//! go when the disk fills.

pub(crate) mod images;
mod logs;
mod pressure;

pub use images::ImageLimits;
pub use logs::LogLimits;
pub(crate) use pressure::Pressure;

use crate::{
    kubelet::Kubelet,
    plan::{
        Verdict,
        eviction::{Past, Policy},
    },
};
use std::time::Duration;

/// Upstream: the eviction manager, the log manager and housekeeping each look every 10 s.
const LOOK: Duration = Duration::from_secs(10);

/// Upstream: `ImageGCPeriod`. In looks.
const LOOKS_PER_IMAGE_GC: u32 = 30;

/// How much a node may be used up.
#[derive(Clone, Debug)]
pub struct Upkeep {
    pub logs: LogLimits,
    pub images: ImageLimits,
    pub eviction: Policy,
    /// So long the node calls itself short after it was.
    pub pressure_transition: Duration,
}

impl Default for Upkeep {
    fn default() -> Upkeep {
        Upkeep {
            logs: LogLimits::default(),
            images: ImageLimits::default(),
            eviction: Policy::usual(),
            // Upstream: `evictionPressureTransitionPeriod`.
            pressure_transition: Duration::from_secs(300),
        }
    }
}

impl Kubelet {
    pub(crate) async fn keep_up(&self) {
        let upkeep = &self.config.upkeep;
        let mut past = Past::default();
        let mut images = images::Collector::new(upkeep.images);
        images.look(&self.shared).await;
        for round in 1u32.. {
            stdx::sleep(LOOK).await;
            logs::rotate(&self.shared, upkeep.logs).await;
            let figures = crate::figures::measure(&self.shared).await;
            let (mut evictions, disk) =
                pressure::look(&self.shared, &upkeep.eviction, &mut past, &figures);
            if disk || round % LOOKS_PER_IMAGE_GC == 0 {
                images.collect(&self.shared, &figures, disk).await;
            } else {
                images.look(&self.shared).await;
            }
            if disk {
                // Images go before pods, and that may have been enough.
                let figures = crate::figures::measure(&self.shared).await;
                (evictions, _) =
                    pressure::look(&self.shared, &upkeep.eviction, &mut past, &figures);
            }
            for eviction in evictions {
                tracing::warn!(pod = eviction.uid, message = eviction.message, "evict");
                let verdict = Verdict {
                    reason: "Evicted",
                    message: eviction.message,
                    rejected: false,
                    // At once: what takes too much does not get more time for it.
                    grace_seconds: Some(eviction.grace_seconds.unwrap_or(1)),
                    disrupts: eviction.starved.is_some(),
                };
                self.evict(&eviction.uid, verdict);
            }
        }
    }
}
