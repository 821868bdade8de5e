//! Tokens that stand for an accepted request, once and for a minute.
//!
//! Upstream: staging/src/k8s.io/cri-streaming/pkg/streaming/request_cache.go.

use super::Order;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use stdx::{Clock, Entropy, Timestamp};
use tonic::Status;

/// A URL is used at once or never.
const LIFE: Duration = Duration::from_secs(60);

/// URLs that were handed out and not used yet.
const IN_FLIGHT_MAX: usize = 1000;

pub(super) struct Tokens {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// Oldest first.
    orders: Mutex<VecDeque<(Timestamp, String, Order)>>,
}

impl Tokens {
    pub(super) fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Tokens {
        Tokens { clock, entropy, orders: Mutex::default() }
    }

    pub(super) fn insert(&self, order: Order) -> Result<String, Status> {
        let now = self.clock.now();
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        while orders.front().is_some_and(|(made, ..)| now.since(*made) > LIFE) {
            orders.pop_front();
        }
        if orders.len() >= IN_FLIGHT_MAX {
            return Err(Status::resource_exhausted(
                "maximum number of in-flight requests exceeded",
            ));
        }
        let token = self.entropy.uuid();
        orders.push_back((now, token.clone(), order));
        Ok(token)
    }

    pub(super) fn take(&self, token: &str) -> Option<Order> {
        let now = self.clock.now();
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let place = orders.iter().position(|(_, known, _)| known == token)?;
        let (made, _, order) = orders.remove(place)?;
        (now.since(made) <= LIFE).then_some(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rpc::cri::ExecRequest;
    use std::sync::atomic::{AtomicI64, Ordering};
    use stdx::SystemEntropy;

    #[derive(Default)]
    struct Hand(AtomicI64);

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp::from_seconds(self.0.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn a_token_works_once_and_for_a_minute() {
        let hand = Arc::new(Hand::default());
        let tokens = Tokens::new(hand.clone(), Arc::new(SystemEntropy::default()));
        let order = || Order::Exec(ExecRequest::default());
        let token = tokens.insert(order()).unwrap();
        assert!(tokens.take(&token).is_some());
        assert!(tokens.take(&token).is_none(), "used");
        let token = tokens.insert(order()).unwrap();
        hand.0.store(61, Ordering::Relaxed);
        assert!(tokens.take(&token).is_none(), "too late");
        for _ in 0..IN_FLIGHT_MAX {
            tokens.insert(order()).unwrap();
        }
        assert_eq!(tokens.insert(order()).unwrap_err().code(), tonic::Code::ResourceExhausted);
        hand.0.store(200, Ordering::Relaxed);
        assert!(tokens.insert(order()).is_ok(), "old ones make room");
    }
}
