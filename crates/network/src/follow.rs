//! Something of the kernel's that follows the World: what should be is brought about at each change that concerns it,
//! and again, with back-off, after a failure.

use crate::Error;
use client::Client;
use std::{future::Future, sync::Arc, time::Duration};
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
    let mut again: Option<Duration> = Some(Duration::ZERO);
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(60));
    loop {
        let later = async {
            match again {
                Some(wait) => stdx::sleep(wait).await,
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
                Some(backoff.failed())
            }
        };
    }
}
