//! How a loop reaches the ledger: look at the latest world, follow it, and write to it.
//!
//! The door implements [`Client`] for loops in its own process; a node elsewhere speaks HTTP.
#![forbid(unsafe_code)]

pub mod calls;
mod follower;
pub mod http;
mod token;

pub use follower::{Feed, Follower, Tick, feed};
pub use token::{Bind, Token, TokenWish};

use api::Failure;
use std::sync::Arc;
use stdx::BoxFuture;
use world::{Change, Event, Row, World};

/// The only way for a loop to read or write objects.
pub trait Client: Send + Sync {
    /// The latest world that this process knows.
    fn world(&self) -> World;

    /// Every change from now on, in the order of revisions.
    fn follow(&self) -> Follower;

    /// Admits all changes and writes them in one commit, or none. Returns once the commit is durable
    /// **and** `world()` has it: the revision, and each written row (none where it is gone), in the
    /// order of the changes.
    fn write(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<Written, Failure>>;

    /// Tells a user something. Best effort: events never hold up work and are dropped when there are
    /// too many.
    fn record(&self, event: Event);

    /// A token for a service account: what nodes give to their pods.
    fn token(&self, wish: TokenWish) -> BoxFuture<'_, Result<Token, Failure>> {
        let why = format!("no tokens for {}/{} from here", wish.namespace, wish.account);
        Box::pin(async move { Err(Failure::unavailable(why)) })
    }
}

#[derive(Clone, Debug)]
pub struct Written {
    pub revision: u64,
    pub rows: Vec<Option<Arc<Row>>>,
}
