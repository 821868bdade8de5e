//! One controller's loop: wake, decide ahead, execute, look again.

use crate::{
    Hands,
    execute::{Done, Failed, execute},
    queue::Queue,
    wake,
};
use client::Tick;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};
use stdx::{ShutdownSignal, Timestamp};
use tokio::task::JoinSet;
use tracing::{debug, warn};
use world::{Change, Controller, ObjectKey, Touched, Verb, Watch, World};

/// Plans in flight per controller. Enough to fill a group commit; each one costs a little whenever the
/// world moves under it.
const IN_FLIGHT: usize = 64;

pub(crate) struct Turn {
    controller: Arc<dyn Controller>,
    hands: Hands,
    watches: Vec<Watch>,
    queue: Queue,
    in_flight: HashMap<ObjectKey, Flight>,
    /// Objects that plans in flight write: kind and key.
    busy: HashSet<(String, ObjectKey)>,
    /// Keys whose plan must wait for one in flight.
    parked: Vec<ObjectKey>,
    /// Keys that were woken while their own plan was in flight.
    again: HashSet<ObjectKey>,
    /// The world with the plans in flight on top, and the revision that it was built on.
    ahead: World,
    base: u64,
    tasks: JoinSet<(ObjectKey, Done)>,
}

/// A plan under way: each of its writes with what that did to the world ahead.
struct Flight {
    writes: Vec<(Change, Option<Touched>)>,
    /// Carried out in one commit: the world has all of it or nothing.
    is_single: bool,
}

impl Turn {
    pub(crate) fn new(controller: Arc<dyn Controller>, hands: Hands) -> Turn {
        let watches = controller.watches();
        Turn {
            controller,
            hands,
            watches,
            queue: Queue::default(),
            in_flight: HashMap::new(),
            busy: HashSet::new(),
            parked: Vec::new(),
            again: HashSet::new(),
            ahead: World::default(),
            base: 0,
            tasks: JoinSet::new(),
        }
    }

    pub(crate) async fn run(mut self, mut shutdown: ShutdownSignal) {
        let mut follower = self.hands.client.follow();
        for key in wake::everything(&self.watches, &follower.world()) {
            self.queue.push(key);
        }
        loop {
            self.decide();
            let due = self.queue.next_due();
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok((key, done)) => self.ended(key, done),
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                tick = follower.next() => match tick {
                    Some(tick) => self.tick(&tick),
                    None => return,
                },
                () = until(due), if due.is_some() => {}
            }
            // A group commit ends many plans at once: one look at the world serves them all.
            while let Some(ended) = self.tasks.try_join_next() {
                match ended {
                    Ok((key, done)) => self.ended(key, done),
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                }
            }
            while let Some(tick) = follower.next_ready() {
                self.tick(&tick);
            }
        }
    }

    fn tick(&mut self, tick: &Tick) {
        for key in wake::keys(&self.watches, tick) {
            self.wake(key);
        }
    }

    fn wake(&mut self, key: ObjectKey) {
        if self.in_flight.contains_key(&key) {
            self.again.insert(key);
        } else {
            self.queue.push(key);
        }
    }

    /// Decides keys until none is ready or enough plans are in flight.
    fn decide(&mut self) {
        while self.in_flight.len() < IN_FLIGHT {
            let Some(key) = self.queue.pop(Instant::now()) else { return };
            if self.in_flight.contains_key(&key) {
                self.again.insert(key);
                continue;
            }
            let now = self.hands.clock.now();
            self.look_ahead(now);
            let plan = self.controller.reconcile(&self.ahead, &key, now);
            if plan.changes().any(|it| self.busy.contains(&name(it))) {
                self.parked.push(key);
                continue;
            }
            if plan.is_empty() {
                self.queue.succeeded(&key);
                continue;
            }
            debug!(controller = self.controller.name(), %key, "{plan}");
            let mut writes = Vec::new();
            for change in plan.changes().filter(|it| it.is_write()) {
                self.busy.insert(name(change));
                writes.push((change.clone(), self.ahead.apply(change, now)));
            }
            let is_single = plan.steps.len() + usize::from(plan.status.is_some()) <= 1;
            let (controller, hands) = (self.controller.clone(), self.hands.clone());
            self.in_flight.insert(key.clone(), Flight { writes, is_single });
            self.tasks.spawn(async move {
                let done = execute(controller, key.clone(), plan, hands).await;
                (key, done)
            });
        }
    }

    /// Brings the world that decisions are made on up to date.
    fn look_ahead(&mut self, now: Timestamp) {
        let world = self.hands.client.world();
        if world.revision == self.base && self.base != 0 {
            return;
        }
        self.base = world.revision;
        self.ahead = world;
        for flight in self.in_flight.values_mut() {
            for (change, touched) in &mut flight.writes {
                if touched.as_ref().is_some_and(|it| self.ahead.reapply(it)) {
                    continue;
                }
                // The object is another one now. A commit of puts is written by now, or is in vain;
                // a deletion, or a plan that goes on, still counts.
                if !flight.is_single || matches!(change.verb, Verb::Delete { .. }) {
                    *touched = self.ahead.apply(change, now);
                }
            }
        }
    }

    fn ended(&mut self, key: ObjectKey, done: Done) {
        // What the plan assumed is now true or void: either way the world knows better.
        self.base = 0;
        if let Some(flight) = self.in_flight.remove(&key) {
            for (change, _) in &flight.writes {
                self.busy.remove(&name(change));
            }
        }
        for parked in self.parked.drain(..) {
            self.queue.push(parked);
        }
        let now = Instant::now();
        let (controller, again) = (self.controller.name(), self.again.remove(&key));
        match done.failure {
            None => {
                self.queue.succeeded(&key);
                if let Some(after) = done.requeue {
                    self.queue.push_at(key.clone(), now + after);
                }
            }
            Some(Failed::Stale) => {
                debug!(controller, %key, "the world had moved on");
                self.queue.failed(key.clone(), now);
            }
            Some(Failed::Refused(failure)) => {
                let wait = self.queue.failed(key.clone(), now);
                warn!(controller, %key, ?wait, "write refused: {failure}");
            }
            Some(Failed::Call(failure)) => {
                let wait = self.queue.call_failed(key.clone(), now);
                warn!(controller, %key, ?wait, "volume call failed: {}", failure.message);
            }
        }
        if again {
            self.queue.push(key);
        }
    }
}

fn name(change: &world::Change) -> (String, ObjectKey) {
    (change.kind.qualified(), change.key.clone())
}

async fn until(due: Option<Instant>) {
    let wait = due.map(|it| it.saturating_duration_since(Instant::now()));
    stdx::sleep(wait.unwrap_or(Duration::ZERO)).await;
}
