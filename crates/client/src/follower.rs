//! Following the world: a bounded feed of ticks, and a fresh start for whoever falls behind.

use std::sync::Arc;
use tokio::sync::{broadcast, watch};
use world::{Touched, World};

/// One step of the world.
#[derive(Clone)]
pub struct Tick {
    pub world: World,
    /// What changed since the tick before. `None`: ticks were missed, look at everything again.
    pub touched: Option<Arc<[Touched]>>,
}

/// The side that publishes.
pub struct Feed {
    ticks: broadcast::Sender<Tick>,
    latest: watch::Sender<World>,
}

/// The side that reads. Each follower sees every tick after its start.
pub struct Follower {
    ticks: broadcast::Receiver<Tick>,
    latest: watch::Receiver<World>,
}

/// A feed that keeps `backlog` ticks for slow followers.
pub fn feed(backlog: usize, world: World) -> Feed {
    Feed { ticks: broadcast::channel(backlog).0, latest: watch::channel(world).0 }
}

impl Feed {
    pub fn publish(&self, world: World, touched: Arc<[Touched]>) {
        self.latest.send_replace(world.clone());
        // Nobody follows: nobody misses it.
        let _receivers = self.ticks.send(Tick { world, touched: Some(touched) });
    }

    pub fn latest(&self) -> World {
        self.latest.borrow().clone()
    }

    pub fn follow(&self) -> Follower {
        Follower { ticks: self.ticks.subscribe(), latest: self.latest.subscribe() }
    }

    /// Waits until the world has reached a revision.
    pub async fn reached(&self, revision: u64) -> World {
        let mut latest = self.latest.subscribe();
        match latest.wait_for(|it| it.revision >= revision).await {
            Ok(world) => world.clone(),
            Err(_) => self.latest(),
        }
    }
}

impl Follower {
    /// The latest world, without waiting.
    pub fn world(&self) -> World {
        self.latest.borrow().clone()
    }

    /// The next step; `None` when the feed has ended.
    pub async fn next(&mut self) -> Option<Tick> {
        match self.ticks.recv().await {
            Ok(tick) => Some(tick),
            Err(broadcast::error::RecvError::Lagged(_)) => {
                Some(Tick { world: self.world(), touched: None })
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// The next step if it is there already.
    pub fn next_ready(&mut self) -> Option<Tick> {
        match self.ticks.try_recv() {
            Ok(tick) => Some(tick),
            Err(broadcast::error::TryRecvError::Lagged(_)) => {
                Some(Tick { world: self.world(), touched: None })
            }
            Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => {
                None
            }
        }
    }

    /// The first world from now on in which `found` finds something.
    pub async fn until<T>(&mut self, mut found: impl FnMut(&World) -> Option<T>) -> Option<T> {
        let mut answer = None;
        self.latest
            .wait_for(|world| {
                answer = found(world);
                answer.is_some()
            })
            .await
            .ok()?;
        answer
    }
}
