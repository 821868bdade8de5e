//! Carries a plan out: step after step, the first failure ends it. No choices are left here.

use crate::Hands;
use api::Failure;
use std::{collections::HashMap, sync::Arc, time::Duration};
use stdx::BoxFuture;
use world::{
    CallFailure, Change, Controller, Event, Expected, ObjectKey, Outcome, Place, Plan, Row, Step,
    VolumeCall,
};

/// Whoever can carry out volume calls, at any place.
pub trait Volumes: Send + Sync {
    fn call<'a>(
        &'a self,
        place: &'a Place,
        call: &'a VolumeCall,
    ) -> BoxFuture<'a, Result<Outcome, CallFailure>>;
}

/// How a plan ended.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Decide the key again only on a world that has this revision.
    pub(crate) revision: u64,
    pub(crate) requeue: Option<Duration>,
    pub(crate) failure: Option<Failed>,
}

#[derive(Debug)]
pub(crate) enum Failed {
    /// The world had moved on: look again.
    Stale,
    Refused(Failure),
    Call(CallFailure),
}

/// Carries out one plan of one controller for one key.
pub(crate) async fn execute(
    controller: Arc<dyn Controller>,
    key: ObjectKey,
    plan: Plan,
    hands: Hands,
) -> Done {
    let mut done = Done { requeue: plan.requeue, ..Done::default() };
    let mut written = HashMap::new();
    // What a commit makes true is told once it is true; everything else at once.
    let writes = plan.status.is_some() || plan.steps.iter().any(|it| matches!(it, Step::Write(_)));
    let (now, after) = if writes { (Vec::new(), plan.events) } else { (plan.events, Vec::new()) };
    let tell = |events: Vec<Event>| {
        for event in events {
            hands.client.record(Event { reporter: controller.reporter(), ..event });
        }
    };
    tell(now);
    for step in plan.steps {
        let failed = match step {
            Step::Write(changes) => {
                let judged = changes.clone();
                let failed = write(&hands, changes, &mut written, &mut done).await;
                if let Some(Failed::Refused(failure)) = &failed {
                    let (world, now) = (hands.client.world(), hands.clock.now());
                    let next = controller.refused(&world, &key, &judged, failure, now);
                    // Whatever comes of telling: what failed is the commit.
                    let told = execute(controller.clone(), key.clone(), next, hands.clone());
                    let told: Done = Box::pin(told).await;
                    done.revision = done.revision.max(told.revision);
                }
                failed
            }
            Step::Call(place, call) => {
                let result = hands.volumes.call(&place, &call).await;
                let (world, now) = (hands.client.world(), hands.clock.now());
                let next = controller.returned(&world, &key, &call, &result, now);
                let inner = execute(controller.clone(), key.clone(), next, hands.clone());
                let inner: Done = Box::pin(inner).await;
                done.revision = done.revision.max(inner.revision);
                done.requeue = done.requeue.or(inner.requeue);
                match (result, inner.failure) {
                    (_, Some(failure)) => Some(failure),
                    (Err(failure), None) => Some(Failed::Call(failure)),
                    (Ok(_), None) => None,
                }
            }
        };
        if failed.is_some() {
            return Done { failure: failed, ..done };
        }
    }
    if let Some(status) = plan.status {
        done.failure = write(&hands, vec![status], &mut written, &mut done).await;
    }
    if done.failure.is_none() {
        tell(after);
    }
    done
}

type Seen = HashMap<(String, ObjectKey), Arc<Row>>;

/// One commit. An object that an earlier step wrote is expected at the version that step left.
async fn write(
    hands: &Hands,
    mut changes: Vec<Change>,
    seen: &mut Seen,
    done: &mut Done,
) -> Option<Failed> {
    let name = |it: &Change| (it.kind.qualified(), it.key.clone());
    for change in &mut changes {
        if let (Expected::Revision(_), Some(row)) = (&change.expected, seen.get(&name(change))) {
            change.expected = Expected::Revision(row.revision);
        }
    }
    let names: Vec<_> = changes.iter().map(name).collect();
    match hands.client.write(changes).await {
        Ok(written) => {
            done.revision = done.revision.max(written.revision);
            let rows = names.into_iter().zip(written.rows);
            seen.extend(rows.filter_map(|(name, row)| Some((name, row?))));
            None
        }
        Err(failure) if failure.is_conflict() || failure.is_already_exists() => Some(Failed::Stale),
        // Deleted meanwhile: the next look will see it.
        Err(failure) if failure.is_not_found() => Some(Failed::Stale),
        Err(failure) => Some(Failed::Refused(failure)),
    }
}
