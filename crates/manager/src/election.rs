//! Which of several servers turns the loops: the one that holds a Lease and renews it.
//!
//! Clocks of others are not believed: who waits counts from the moment at which it saw the lease written last. What the
//! holder's loops still have under way when another one takes over is not this file's affair: the door refuses it.
//!
//! Upstream: `client-go/tools/leaderelection/leaderelection.go`.

use api::{
    Failure,
    coordination::v1::{Lease, LeaseSpec},
    meta::{self, ObjectMeta},
};
use client::Client;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use stdx::{Backoff, Clock};
use tracing::{debug, warn};
use world::{Change, Expected, ObjectKey, World};

/// Upstream's `--leader-elect-lease-duration`, `-renew-deadline` and `-retry-period`.
const DURATION: Duration = Duration::from_secs(15);
const DEADLINE: Duration = Duration::from_secs(10);
const PERIOD: Duration = Duration::from_secs(2);

/// One that would lead.
pub struct Candidate {
    client: Arc<dyn Client>,
    clock: Arc<dyn Clock>,
    lease: ObjectKey,
    identity: String,
    /// The revision of the lease as it was last seen, and since when it is that one.
    seen: Option<(u64, Instant)>,
}

impl Candidate {
    /// `identity`: nobody else's, not even that of an earlier process on this machine.
    pub fn new(
        client: Arc<dyn Client>,
        clock: Arc<dyn Clock>,
        lease: ObjectKey,
        identity: String,
    ) -> Candidate {
        Candidate { client, clock, lease, identity, seen: None }
    }

    /// Waits until this one leads: the revision of the lease that says so.
    pub async fn win(&mut self) -> u64 {
        let mut follower = self.client.follow();
        let mut backoff = Backoff::new(Duration::from_millis(100), PERIOD);
        loop {
            let world = self.client.world();
            let wait = match self.free_in(&world) {
                Some(left) if left > Duration::ZERO => left,
                Some(_) | None => match self.write(&world, &self.identity).await {
                    Ok(revision) => return revision,
                    Err(failure) => {
                        debug!("taking the lease {}: {failure}", self.lease);
                        backoff.failed()
                    }
                },
            };
            let seen = revision(&world, &self.lease);
            let moved =
                follower.until(|world| (revision(world, &self.lease) != seen).then_some(()));
            stdx::timeout(wait, moved).await;
        }
    }

    /// How long somebody else still holds it; `None`: nobody does.
    fn free_in(&mut self, world: &World) -> Option<Duration> {
        let lease = world.get::<Lease>(&self.lease)?;
        let holder = lease.spec.as_ref().and_then(|it| it.holder_identity.as_deref());
        if matches!(holder, None | Some("")) || holder == Some(&self.identity) {
            return None;
        }
        let revision = revision(world, &self.lease);
        let since = match self.seen {
            Some((seen, since)) if Some(seen) == revision => since,
            Some(_) | None => {
                let now = Instant::now();
                self.seen = revision.map(|it| (it, now));
                now
            }
        };
        let seconds = lease.spec.as_ref().and_then(|it| it.lease_duration_seconds);
        let seconds = seconds.and_then(|it| u64::try_from(it).ok());
        Some(seconds.map_or(DURATION, Duration::from_secs).saturating_sub(since.elapsed()))
    }

    /// Renews the lease, and returns when it is another one's, or could not be renewed in time.
    pub async fn hold(&mut self) {
        let mut renewed = Instant::now();
        loop {
            stdx::sleep(PERIOD).await;
            let left = DEADLINE.saturating_sub(renewed.elapsed());
            let begun = Instant::now();
            let world = self.client.world();
            if !self.is_holder(&world) {
                return;
            }
            match stdx::timeout(left, self.write(&world, &self.identity)).await {
                Some(Ok(_)) => renewed = begun,
                Some(Err(failure)) => {
                    warn!("renewing the lease {}: {failure}", self.lease);
                    if renewed.elapsed() >= DEADLINE {
                        return;
                    }
                }
                None => return,
            }
        }
    }

    fn is_holder(&self, world: &World) -> bool {
        let lease = world.get::<Lease>(&self.lease);
        let holder = lease.and_then(|it| it.spec.as_ref()?.holder_identity.clone());
        holder.as_deref() == Some(&*self.identity)
    }

    /// Lets the next one lead at once.
    pub async fn resign(&mut self) {
        let world = self.client.world();
        if self.is_holder(&world)
            && let Some(Err(failure)) = stdx::timeout(PERIOD, self.write(&world, "")).await
        {
            debug!("giving the lease {} back: {failure}", self.lease);
        }
    }

    async fn write(&self, world: &World, holder: &str) -> Result<u64, Failure> {
        let now = Some(meta::micro_time(self.clock.now()));
        let there = world.get::<Lease>(&self.lease);
        let old = there.as_ref().and_then(|it| it.spec.clone()).unwrap_or_default();
        let is_new = old.holder_identity.as_deref() != Some(holder);
        let changes = there.is_some() && is_new && !holder.is_empty();
        let spec = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if is_new { now.clone() } else { old.acquire_time },
            renew_time: now,
            lease_transitions: Some(old.lease_transitions.unwrap_or(0) + i32::from(changes)),
            ..LeaseSpec::default()
        };
        let change = match revision(world, &self.lease) {
            None => Change::create(Lease {
                metadata: ObjectMeta {
                    name: Some(self.lease.name.to_string()),
                    namespace: Some(self.lease.namespace.to_string()),
                    ..ObjectMeta::default()
                },
                spec: Some(spec),
            }),
            Some(revision) => {
                let mut lease = there.map(|it| it.to_owned()).unwrap_or_default();
                lease.spec = Some(spec);
                Change { expected: Expected::Revision(revision), ..Change::update(lease) }
            }
        };
        Ok(self.client.write(vec![change]).await?.revision)
    }
}

fn revision(world: &World, lease: &ObjectKey) -> Option<u64> {
    world.row_of::<Lease>(lease).map(|it| it.revision)
}
