//! Chance from a seed: a failed story can be told again.

/// A splitmix64 sequence.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// From STANCHION_TEST_SEED, or 1; and printed.
    pub fn of(story: &str) -> Chance {
        let seed =
            std::env::var("STANCHION_TEST_SEED").ok().and_then(|it| it.parse().ok()).unwrap_or(1);
        println!("{story}: seed {seed}");
        Chance(seed)
    }

    /// A number from 0 to below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % end
    }
}
