//! The world of a node that asks nobody: empty, and nothing is written to it. Enough to take down what runs.

use api::Failure;
use client::{Client, Feed, Follower, Written};
use stdx::BoxFuture;
use world::{Change, Event, World};

pub(crate) struct Offline {
    feed: Feed,
}

impl Default for Offline {
    fn default() -> Offline {
        Offline { feed: client::feed(1, World::default()) }
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
        tracing::debug!(reason = event.reason, message = event.message, "told to nobody");
    }
}
