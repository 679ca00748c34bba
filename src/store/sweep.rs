//! Dropping what has expired, without being asked for it: a pass over all shards, a piece of a
//! table under each hold of a lock.
//!
//! Invariant: a pass begins only once an entry has expired, so a store in which nothing expires
//! costs one load. Dropping is not a change: nobody could see the entry any more.

use super::Store;
use super::sizes::Gone;
use crate::clock::{Expiry, Time};
use crate::limits::SHARDS;
use crate::value::{Head, Marks};

/// A pass begins at least so long after the one before.
const BETWEEN_PASSES_MS: u64 = 1000;

/// How far a pass is.
#[derive(Debug)]
pub(super) struct Pass {
    began: Time,
    /// The shard that is next; [`SHARDS`] between passes.
    next: usize,
}

impl Default for Pass {
    fn default() -> Self {
        Self {
            began: Time(0),
            next: SHARDS,
        }
    }
}

/// What sweeping a piece of a table gave.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Swept {
    /// There is more of the table.
    pub(super) more: bool,
    /// When the first of those ends that stay in the piece.
    pub(super) soonest: Expiry,
    /// What was dropped.
    pub(super) gone: Gone,
}

impl Swept {
    /// One has been dropped.
    pub(super) fn dropped(&mut self, head: Option<&Head>) {
        let unfetched = head.is_some_and(|head| !head.marks().has(Marks::FETCHED));
        self.gone.reclaimed += 1;
        self.gone.expired_unfetched += u64::from(unfetched);
    }

    /// One stays that ends then.
    pub(super) fn stays(&mut self, expires: Expiry) {
        let times = [self.soonest, expires].into_iter().filter_map(Expiry::time);
        self.soonest = times.min().map_or(Expiry::NEVER, Expiry::at);
    }
}

impl Store {
    /// Drops what has expired at `now`, piece by piece while `go_on` says so; the next call goes
    /// on from there.
    pub fn sweep(&self, now: Time, mut go_on: impl FnMut() -> bool) {
        let mut pass = self.pass.lock();
        if pass.next >= SHARDS {
            let too_soon = now.0 < pass.began.0.saturating_add(BETWEEN_PASSES_MS);
            if self.totals.soonest() > now || too_soon {
                return;
            }
            self.totals.forget_soonest();
            *pass = Pass {
                began: now,
                next: 0,
            };
        }
        while pass.next < SHARDS {
            let more = {
                let mut shard = self.write_nth(pass.next);
                let _held = self.holds.begin();
                shard.sweep(now)
            };
            pass.next += usize::from(!more);
            if !go_on() {
                return;
            }
        }
    }

    /// What all entries take in memory, to a few hundred KiB; costs nothing.
    pub fn memory_bytes(&self) -> u64 {
        self.totals.memory()
    }

    /// About how large a snapshot would be now; whatever was applied before this call counts. Takes
    /// no lock.
    pub fn snapshot_bytes(&self) -> u64 {
        self.file_bytes.iter().map(|bytes| bytes.get()).sum()
    }
}
