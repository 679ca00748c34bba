//! A small seeded generator (`SplitMix64`), so that a failed run can be run again by its seed.

use std::time::{SystemTime, UNIX_EPOCH};

/// A row of numbers that its seed decides.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The row of one piece of the work that a seed decides.
    pub(crate) fn of_piece(seed: u64, piece: u64) -> Self {
        Self::new(seed.wrapping_add(piece << 32))
    }

    /// The seed of this run: `STORAGE_SERVER_SEED`, or one of the clock. Prints it.
    pub(crate) fn seed(what: &str) -> u64 {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let seed = super::setting("STORAGE_SERVER_SEED", clock.as_secs() ^ 0x5eed_0000);
        println!("{what}: STORAGE_SERVER_SEED={seed}");
        seed
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// One of several.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    /// True once in `times`.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}
