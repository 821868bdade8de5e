//! Keys that wait to be decided: each at most once, in order of arrival, failed ones with back-off.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};
use stdx::Backoff;
use world::ObjectKey;

/// The first wait after a failure, and the longest: upstream's rate limiter for controllers.
const FIRST: Duration = Duration::from_millis(5);
const MOST: Duration = Duration::from_secs(1000);
/// The same after a call that failed: it reached outside, and others react to the failure at once.
const FIRST_CALL: Duration = Duration::from_millis(500);
const MOST_CALL: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Queue {
    ready: VecDeque<ObjectKey>,
    is_ready: HashSet<ObjectKey>,
    later: BTreeMap<Instant, BTreeSet<ObjectKey>>,
    due: HashMap<ObjectKey, Instant>,
    failures: HashMap<ObjectKey, Backoff>,
    /// Not before then, whoever wakes them.
    held: HashMap<ObjectKey, Instant>,
}

impl Queue {
    /// Now, whatever was planned for later, unless a call failed a moment ago.
    pub(crate) fn push(&mut self, key: ObjectKey) {
        if let Some(until) = self.held.get(&key).copied() {
            return self.push_at(key, until);
        }
        self.forget_due(&key);
        if self.is_ready.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    /// At `at`, or sooner if it was planned sooner.
    pub(crate) fn push_at(&mut self, key: ObjectKey, at: Instant) {
        if self.is_ready.contains(&key) || self.due.get(&key).is_some_and(|due| *due <= at) {
            return;
        }
        self.forget_due(&key);
        self.later.entry(at).or_default().insert(key.clone());
        self.due.insert(key, at);
    }

    pub(crate) fn failed(&mut self, key: ObjectKey, now: Instant) -> Duration {
        let backoff = self.failures.entry(key.clone()).or_insert(Backoff::new(FIRST, MOST));
        let wait = backoff.failed();
        self.push_at(key, now + wait);
        wait
    }

    /// Waits even if it is woken: what failed outside would fail again, and a key that is woken by
    /// what follows from its own failure would never rest.
    pub(crate) fn call_failed(&mut self, key: ObjectKey, now: Instant) -> Duration {
        let backoff = Backoff::new(FIRST_CALL, MOST_CALL);
        let wait = self.failures.entry(key.clone()).or_insert(backoff).failed();
        self.held.insert(key.clone(), now + wait);
        self.push_at(key, now + wait);
        wait
    }

    pub(crate) fn succeeded(&mut self, key: &ObjectKey) {
        self.failures.remove(key);
    }

    pub(crate) fn pop(&mut self, now: Instant) -> Option<ObjectKey> {
        while let Some(entry) = self.later.first_entry().filter(|it| *it.key() <= now) {
            for key in entry.remove() {
                self.due.remove(&key);
                self.held.remove(&key);
                if self.is_ready.insert(key.clone()) {
                    self.ready.push_back(key);
                }
            }
        }
        let key = self.ready.pop_front()?;
        self.is_ready.remove(&key);
        Some(key)
    }

    /// When the next key is due, if none is ready.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.later.keys().next().copied()
    }

    fn forget_due(&mut self, key: &ObjectKey) {
        let Some(at) = self.due.remove(key) else { return };
        if let Some(keys) = self.later.get_mut(&at) {
            keys.remove(key);
            if keys.is_empty() {
                self.later.remove(&at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("default", name)
    }

    #[test]
    fn a_key_waits_once_however_often_it_is_woken() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(key("a"));
        queue.push(key("b"));
        queue.push(key("a"));
        assert_eq!(queue.pop(now), Some(key("a")));
        assert_eq!(queue.pop(now), Some(key("b")));
        assert_eq!(queue.pop(now), None);
    }

    #[test]
    fn failed_keys_come_back_later_and_a_wake_up_brings_them_back_at_once() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        assert_eq!(queue.failed(key("a"), now), FIRST);
        assert_eq!(queue.pop(now), None);
        assert_eq!(queue.next_due(), Some(now + FIRST));
        assert_eq!(queue.pop(now + FIRST), Some(key("a")));
        assert_eq!(queue.failed(key("a"), now), FIRST * 2);
        queue.push(key("a"));
        assert_eq!(queue.pop(now), Some(key("a")));
        assert_eq!(queue.pop(now + MOST), None, "one wake-up, one decision");
        queue.succeeded(&key("a"));
        assert_eq!(queue.failed(key("a"), now), FIRST);
    }

    #[test]
    fn a_failed_call_is_not_repeated_by_waking_its_key() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        assert_eq!(queue.call_failed(key("a"), now), FIRST_CALL);
        queue.push(key("a"));
        assert_eq!(queue.pop(now), None);
        assert_eq!(queue.pop(now + FIRST_CALL), Some(key("a")));
        assert_eq!(queue.call_failed(key("a"), now), FIRST_CALL * 2);
        assert_eq!(queue.pop(now + FIRST_CALL * 2), Some(key("a")));
        queue.push(key("a"));
        assert_eq!(queue.pop(now), Some(key("a")), "held once only");
    }

    #[test]
    fn the_sooner_of_two_times_holds() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let second = Duration::from_secs(1);
        queue.push_at(key("a"), now + second * 2);
        queue.push_at(key("a"), now + second);
        queue.push_at(key("a"), now + second * 3);
        assert_eq!(queue.pop(now + second), Some(key("a")));
        assert_eq!(queue.next_due(), None);
    }
}
