//! Turns the loops: wakes keys, lets a controller decide, carries its plan out.
//!
//! One task a controller. A key is decided on the latest world plus the loop's own plans in flight,
//! so a thousand equal claims pick a thousand different volumes without waiting for a thousand
//! commits. This takes the place of informers, assume caches and expectations.
#![forbid(unsafe_code)]

mod execute;
mod queue;
mod turn;
mod wake;

pub use execute::Volumes;

use client::Client;
use std::sync::Arc;
use stdx::{Clock, ShutdownSignal};
use world::Controller;

/// What every loop needs.
#[derive(Clone)]
pub struct Hands {
    pub client: Arc<dyn Client>,
    pub volumes: Arc<dyn Volumes>,
    pub clock: Arc<dyn Clock>,
}

/// Starts one task a controller. Each has looked at the whole world once before this returns; all of
/// them end when shutdown begins.
pub async fn start(
    controllers: Vec<Arc<dyn Controller>>,
    hands: Hands,
    shutdown: ShutdownSignal,
) -> Vec<tokio::task::JoinHandle<()>> {
    let mut tasks = Vec::new();
    for controller in controllers {
        let turn = turn::Turn::new(controller, hands.clone());
        tasks.push(tokio::spawn(turn.run(shutdown.clone())));
    }
    tasks
}
