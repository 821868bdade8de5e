//! The world of a node that asks nobody: what was written down of it, and nothing is written to it. Enough to take down
//! what runs.

use api::Failure;
use client::{Client, Feed, Follower, Written};
use stdx::BoxFuture;
use world::{Change, Event, Note, World};

pub(crate) struct Offline {
    feed: Feed,
}

impl Offline {
    pub(crate) fn new(world: World) -> Offline {
        Offline { feed: client::feed(1, world) }
    }
}

impl Client for Offline {
    fn world(&self) -> World {
        self.feed.latest()
    }

    fn follow(&self) -> Follower {
        self.feed.follow()
    }

    fn write(&self, _changes: Vec<Change>) -> BoxFuture<'_, Result<Written, Failure>> {
        Box::pin(async { Err(Failure::unavailable("no server is asked from here")) })
    }

    fn record(&self, event: Event) {
        // Nobody reads events of a node that ends; what went wrong is for who takes it down.
        match event.note {
            Note::Warning => tracing::warn!(reason = event.reason, "{}", event.message),
            Note::Normal => tracing::debug!(reason = event.reason, "{}", event.message),
        }
    }
}
