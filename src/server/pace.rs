//! How fast a client reads its replies. While those of all clients take more memory than they
//! may, one that reads a byte now and then would keep what it holds for ever.

use std::cell::Cell;

use crate::limits::OUTPUT_BYTES_LOW;

/// Over how many seconds of waiting for the client a pace is judged.
const JUDGED_S: u32 = 10;

/// How much a client must read in that time.
const BYTES_LEAST: usize = JUDGED_S as usize * OUTPUT_BYTES_LOW;

/// The pace of one client.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// What it has read since it was last found fast enough.
    bytes: Cell<u32>,
    /// For how many seconds it was waited for since.
    waited_s: Cell<u32>,
}

impl Pace {
    /// The client has read so many bytes.
    pub(super) fn add(&self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.bytes.set(self.bytes.get().saturating_add(bytes));
    }

    /// Once a second: true if the client is too slow. Only what it `owes` to read counts, and
    /// only the seconds in which it was `awaited`.
    pub(super) fn is_slow(&self, owes: bool, awaited: bool) -> bool {
        if !owes || self.bytes.get() as usize >= BYTES_LEAST {
            self.bytes.set(0);
            self.waited_s.set(0);
        } else if awaited {
            self.waited_s.set(self.waited_s.get().saturating_add(1));
        }
        self.waited_s.get() > JUDGED_S
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_now_and_then_is_too_slow() {
        let pace = Pace::default();
        for _ in 0..JUDGED_S {
            pace.add(1);
            assert!(!pace.is_slow(true, true));
        }
        assert!(pace.is_slow(true, true));
        pace.add(BYTES_LEAST);
        assert!(!pace.is_slow(true, true), "it has caught up");
    }

    #[test]
    fn who_owes_nothing_or_waits_for_the_server_is_not_slow() {
        let pace = Pace::default();
        assert!((0..100).all(|_| !pace.is_slow(true, false)));
        assert!((0..100).all(|second| !pace.is_slow(second % 5 != 0, true)));
    }
}
