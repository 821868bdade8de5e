//! Turns the loops: wakes keys, lets a controller decide, carries its plan out.
//!
//! One task a controller. A key is decided on the latest world plus the loop's own plans in flight,
//! so a thousand equal claims pick a thousand different volumes without waiting for a thousand
//! commits. This takes the place of informers, assume caches and expectations.
#![forbid(unsafe_code)]

mod election;
mod execute;
mod queue;
mod turn;
mod wake;

pub use election::Candidate;
pub use execute::Volumes;

use client::Client;
use std::sync::Arc;
use stdx::{Clock, ShutdownSignal};
use world::Controller;

/// What one loop needs.
#[derive(Clone)]
pub(crate) struct Hands {
    pub(crate) client: Arc<dyn Client>,
    pub(crate) volumes: Arc<dyn Volumes>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Starts one task a controller; all of them end when shutdown begins. `connect` gives each a client of
/// its own, by its name: it writes and speaks in events as itself.
pub fn start(
    controllers: Vec<Arc<dyn Controller>>,
    connect: impl Fn(&str) -> Arc<dyn Client>,
    volumes: Arc<dyn Volumes>,
    clock: Arc<dyn Clock>,
    shutdown: ShutdownSignal,
) -> Vec<tokio::task::JoinHandle<()>> {
    let task = |controller: Arc<dyn Controller>| {
        let client = connect(controller.name());
        let hands = Hands { client, volumes: volumes.clone(), clock: clock.clone() };
        tokio::spawn(turn::Turn::new(controller, hands).run(shutdown.clone()))
    };
    controllers.into_iter().map(task).collect()
}
