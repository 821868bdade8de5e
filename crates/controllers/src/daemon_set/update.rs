//! From an old template to a new one, a few nodes at a time: the old pod goes first, or the new one
//! comes first.
//!
//! Upstream: `pkg/controller/daemon/update.go` (1.36), rollingUpdate.

use super::Look;
use api::{
    Object,
    core::v1::Pod,
    meta::int_or_percent::{Round, scaled},
};

/// How many nodes may be without an available pod, and how many may have two.
pub(super) struct Limits {
    unavailable: usize,
    pub(super) surge: usize,
}

pub(super) fn limits(look: &Look<'_>) -> Limits {
    let wanted = look.nodes.values().filter(|it| it.runs).count();
    let total = i32::try_from(wanted).unwrap_or(i32::MAX);
    let rolling = look.spec.update_strategy.as_ref().and_then(|it| it.rolling_update.as_ref());
    let unavailable = rolling.and_then(|it| it.max_unavailable.as_ref());
    let surge = rolling.and_then(|it| it.max_surge.as_ref());
    let of = |it| usize::try_from(scaled(it, total, Round::Up)).unwrap_or(0);
    let (unavailable, surge) = (of(unavailable), of(surge));
    // Nothing would ever move.
    let stuck = unavailable + surge == 0 && wanted > 0;
    Limits { unavailable: if stuck { 1 } else { unavailable }, surge }
}

impl Look<'_> {
    pub(super) fn update(&mut self) {
        let limits = limits(self);
        if limits.surge == 0 {
            self.replace(limits.unavailable);
        } else {
            self.surge(limits.surge);
        }
    }

    /// The new pod of a node, and its old one; pods that are on their way out count as none.
    fn pair(&self, node: &str) -> (Option<Pod>, Option<Pod>) {
        let pods = self.pods.get(node).map(Vec::as_slice).unwrap_or_default();
        let mut stay = pods.iter().filter(|it| !it.is_deleting());
        let new = stay.clone().find(|it| self.is_new(it)).cloned();
        (new, stay.find(|it| !self.is_new(it)).cloned())
    }

    fn running_nodes(&self) -> Vec<String> {
        let nodes = self.nodes.iter().filter(|(_, it)| it.runs);
        nodes.map(|(name, _)| name.clone()).collect()
    }

    fn replace(&mut self, most_unavailable: usize) {
        let (mut unavailable, mut useless, mut candidates) = (0, Vec::new(), Vec::new());
        for node in self.running_nodes() {
            match self.pair(&node) {
                (None, None) | (Some(_), Some(_)) => unavailable += 1,
                (Some(new), None) => unavailable += usize::from(!self.is_available(&new)),
                (None, Some(old)) if !self.is_available(&old) => {
                    unavailable += 1;
                    useless.push(old);
                }
                (None, Some(old)) => candidates.push(old),
            }
        }
        candidates.truncate(most_unavailable.saturating_sub(unavailable));
        for old in useless.iter().chain(&candidates) {
            self.delete(old);
        }
    }

    fn surge(&mut self, most: usize) {
        let (mut surging, mut at_once, mut candidates) = (0, Vec::new(), Vec::new());
        for node in self.running_nodes() {
            match self.pair(&node) {
                (Some(new), Some(old)) if self.is_available(&new) => self.delete(&old),
                (Some(_), Some(_)) => surging += 1,
                (None, Some(old)) if !self.is_available(&old) => at_once.push(node),
                (None, Some(_)) => candidates.push(node),
                (_, None) => {}
            }
        }
        candidates.truncate(most.saturating_sub(surging));
        for node in at_once.iter().chain(&candidates) {
            self.create(node);
        }
    }
}
