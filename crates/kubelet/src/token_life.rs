//! When a pod's token is made anew: after four fifths of its life, each day, and when the clock was set back to before
//! it was made, for then nobody takes it.
//!
//! Upstream: `pkg/kubelet/token/token_manager.go`, requiresRefresh (1.36). There is no jitter: tokens of different pods
//! are made at different times anyway.

use client::Token;
use std::time::Duration;
use stdx::Timestamp;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Clocks of one cluster may differ by so much; who checks tokens allows for it.
const SKEW: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenLife {
    issued: Timestamp,
    pub(crate) renew_at: Timestamp,
}

impl TokenLife {
    pub(crate) fn of(token: &Token) -> TokenLife {
        let life = token.expires.since(token.issued);
        let renew_at = token.issued.plus((life * 4 / 5).min(DAY));
        TokenLife { issued: token.issued, renew_at }
    }

    /// Of two tokens in one volume.
    pub(crate) fn together(self, other: TokenLife) -> TokenLife {
        TokenLife {
            issued: self.issued.max(other.issued),
            renew_at: self.renew_at.min(other.renew_at),
        }
    }

    pub(crate) fn is_fresh(&self, now: Timestamp) -> bool {
        self.issued <= now.plus(SKEW) && now < self.renew_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(issued: i64, seconds: i64) -> TokenLife {
        let at = Timestamp::from_seconds;
        let (issued, expires) = (at(issued), at(issued + seconds));
        TokenLife::of(&Token { token: String::new(), issued, expires })
    }

    /// From when to when the token is left as it is, in seconds.
    #[track_caller]
    fn check(life: TokenLife, first: i64, last: i64) {
        let fresh = |seconds: i64| life.is_fresh(Timestamp::from_seconds(seconds));
        assert!(fresh(first) && fresh(last), "{life:?}");
        assert!(!fresh(first - 1) && !fresh(last + 1), "{life:?}");
    }

    #[test]
    fn a_token_is_made_anew_after_four_fifths_of_its_life_and_each_day() {
        check(life(10_000, 1000), 9_940, 10_799);
        check(life(10_000, 10 * 24 * 3600), 9_940, 10_000 + 24 * 3600 - 1);
    }

    #[test]
    fn a_clock_that_jumps_in_either_direction_makes_it_anew() {
        let token = life(1_000_000, 3600);
        let fresh = |seconds: i64| token.is_fresh(Timestamp::from_seconds(seconds));
        assert!(fresh(1_000_000), "just made");
        assert!(!fresh(1_000_000 + 30 * 24 * 3600), "a month ahead: it is expired");
        assert!(!fresh(1_000_000 - 24 * 3600), "a day back: it is not valid yet");
        assert!(fresh(1_000_000 - 30), "a little back, as when the time is corrected");
    }

    #[test]
    fn a_volume_follows_the_token_that_ends_first() {
        check(life(1000, 1000).together(life(1100, 600)), 1040, 1579);
    }
}
