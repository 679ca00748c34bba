//! How long locks are held that others may wait for: of shards, by whatever takes several of them
//! or one for more than one entry (reading the clock twice would cost as much as a single entry
//! does); and the journal's file lock, while the next segment begins.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::clock::Tick;

/// The longest hold of all.
#[derive(Debug, Default)]
pub struct Holds {
    max_us: AtomicU64,
}

impl Holds {
    /// A hold begins now, of the first of several locks; it ends when the answer is dropped.
    pub fn begin(&self) -> Hold<'_> {
        Hold {
            holds: self,
            begun: Tick::now(),
        }
    }

    /// The longest hold since the start or the last [`Holds::reset`], in microseconds.
    pub fn max_us(&self) -> u64 {
        self.max_us.load(Relaxed)
    }

    /// Forgets what was measured.
    pub fn reset(&self) {
        self.max_us.store(0, Relaxed);
    }
}

/// A lock is being held.
#[derive(Debug)]
pub struct Hold<'h> {
    holds: &'h Holds,
    begun: Tick,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let us = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        if us > self.holds.max_us.load(Relaxed) {
            self.holds.max_us.fetch_max(us, Relaxed);
        }
    }
}
