//! How long locks are held: by whatever takes several shards, or one for more than one entry.
//! Single entries are not measured: reading the clock twice would cost as much as they do.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::Tick;

/// The longest hold of all.
#[derive(Debug, Default)]
pub struct Holds {
    max_us: AtomicU64,
}

impl Holds {
    /// A hold begins now, or waiting for it; it ends when the answer is dropped.
    pub(super) fn begin(&self) -> Hold<'_> {
        Hold {
            holds: self,
            begun: Tick::now(),
        }
    }

    /// The longest hold since the start or the last [`Holds::reset`].
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max_us.load(Relaxed))
    }

    /// Forgets what was measured.
    pub fn reset(&self) {
        self.max_us.store(0, Relaxed);
    }
}

/// A lock is being held.
#[derive(Debug)]
pub(super) struct Hold<'h> {
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
