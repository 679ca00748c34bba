//! What a fan-out does to one counter, by the options of the counter's type.

use crate::clock::{Expiry, Time};
use crate::types::{Counting, Kind};
use crate::value::Delta;

/// What a fan-out does to one counter.
pub(super) trait Step: Copy {
    /// What a missing counter starts from.
    fn initial(self) -> u64;
    /// The number after the step; `None` if it is refused.
    fn after(self, number: u64) -> Option<u64>;
    /// When a counter ends that the step creates.
    fn ends(self, now: Time) -> Expiry;
}

/// A step of a type without options.
#[derive(Clone, Copy)]
pub(super) struct Plain {
    pub(super) delta: Delta,
    pub(super) kind: Kind,
}

impl Step for Plain {
    fn initial(self) -> u64 {
        0
    }
    fn after(self, number: u64) -> Option<u64> {
        Some(self.delta.apply(number, self.kind))
    }
    fn ends(self, _: Time) -> Expiry {
        Expiry::NEVER
    }
}

/// A step, or several at once, of a type that counts by its options.
#[derive(Clone, Copy)]
pub(super) struct Ruled {
    pub(super) delta: Delta,
    pub(super) times: u32,
    pub(super) counting: Counting,
}

impl Step for Ruled {
    fn initial(self) -> u64 {
        self.counting.initial
    }
    fn after(self, number: u64) -> Option<u64> {
        self.delta.apply_within(number, self.times, &self.counting)
    }
    fn ends(self, now: Time) -> Expiry {
        self.counting.ends(now)
    }
}
