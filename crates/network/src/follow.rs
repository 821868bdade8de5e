//! Something of the kernel's that follows the World: what should be is brought about at each change that concerns it,
//! and again, with back-off, after a failure.

use crate::Error;
use client::Client;
use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};
use stdx::{Backoff, ShutdownSignal, one_line};
use world::{Touched, World};

pub(crate) trait Follows {
    /// Names in a warning what could not be brought about.
    const WHAT: &'static str;

    fn concerns(touched: &Touched) -> bool;

    fn bring(&mut self, world: &World) -> impl Future<Output = Result<(), Error>> + Send;
}

/// Until shutdown begins or the feed ends.
pub(crate) async fn serve<T: Follows>(
    mut it: T,
    client: Arc<dyn Client>,
    mut shutdown: ShutdownSignal,
) {
    let concerns =
        |touched: Option<&[Touched]>| touched.is_none_or(|all| all.iter().any(T::concerns));
    let mut follower = client.follow();
    // A moment, not a wait: a world that never rests would begin the wait anew with each of its ticks.
    let mut again: Option<Instant> = Some(Instant::now());
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(60));
    loop {
        let later = async {
            match again {
                Some(at) => stdx::sleep(at.saturating_duration_since(Instant::now())).await,
                None => std::future::pending().await,
            }
        };
        let mut look = tokio::select! {
            () = shutdown.wait() => return,
            () = later => true,
            tick = follower.next() => match tick {
                Some(tick) => concerns(tick.touched.as_deref()),
                None => return,
            },
        };
        while let Some(tick) = follower.next_ready() {
            look |= concerns(tick.touched.as_deref());
        }
        if !look {
            continue;
        }
        again = match it.bring(&follower.world()).await {
            Ok(()) => {
                backoff.succeeded();
                None
            }
            Err(error) => {
                tracing::warn!("{}: {}", T::WHAT, one_line(&error));
                Some(Instant::now() + backoff.failed())
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Failure;
    use client::{Feed, Follower, Written, feed};
    use stdx::{BoxFuture, Shutdown};
    use tokio::sync::mpsc;
    use world::{Change, Event};

    struct Busy(Feed);

    impl Client for Busy {
        fn world(&self) -> World {
            self.0.latest()
        }

        fn follow(&self) -> Follower {
            self.0.follow()
        }

        fn write(&self, _: Vec<Change>) -> BoxFuture<'_, Result<Written, Failure>> {
            unreachable!("nothing is written")
        }

        fn record(&self, _: Event) {}
    }

    /// Fails, and says each time that it was asked.
    struct Fails(mpsc::UnboundedSender<()>);

    impl Follows for Fails {
        const WHAT: &'static str = "nothing";

        fn concerns(_: &Touched) -> bool {
            false
        }

        async fn bring(&mut self, _: &World) -> Result<(), Error> {
            let _told = self.0.send(());
            Err(Error::Unreachable(1, "a test".to_owned()))
        }
    }

    /// Each heartbeat of a node is a tick: what had failed was not tried again for as long as others came in time.
    #[tokio::test]
    async fn what_failed_is_tried_again_in_a_world_that_never_rests() {
        let client = Arc::new(Busy(feed(16, World::default())));
        let (tell, mut told) = mpsc::unbounded_channel();
        let (_shutdown, signal) = Shutdown::new();
        let following = tokio::spawn(serve(Fails(tell), client.clone(), signal));
        let twice = async {
            for _ in 0..2 {
                while told.try_recv().is_err() {
                    client.0.publish(World::default(), Arc::from([]));
                    tokio::task::yield_now().await;
                }
            }
        };
        let twice = stdx::timeout(Duration::from_secs(60), twice).await;
        following.abort();
        twice.expect("it is tried a second time");
    }
}
