//! By when a client must have done something, so that it does not keep others waiting for ever.

use std::cell::Cell;
use std::num::NonZeroU64;

/// A time, in seconds since the server's start, or none. Every idle client has some.
#[derive(Debug, Default)]
pub struct Due(Cell<Option<NonZeroU64>>);

impl Due {
    /// It is due then; or nothing is.
    pub fn set(&self, due_s: Option<u64>) {
        // The second after the start stands for the first, which has no form of its own.
        let due_s = due_s.map(|due_s| NonZeroU64::new(due_s).unwrap_or(NonZeroU64::MIN));
        self.0.set(due_s);
    }

    /// True if something is due.
    pub fn is_set(&self) -> bool {
        self.0.get().is_some()
    }

    /// True if it should have been done by now.
    pub fn is_over(&self, now_s: u64) -> bool {
        self.0.get().is_some_and(|due_s| now_s > due_s.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_is_over_a_second_later() {
        let due = Due::default();
        assert!(!due.is_set() && !due.is_over(u64::MAX));
        due.set(Some(7));
        assert!(due.is_set() && !due.is_over(7) && due.is_over(8));
        due.set(Some(0));
        assert!(due.is_set() && due.is_over(2));
        due.set(None);
        assert!(!due.is_over(8));
    }
}
