//! What the shards hold, counted as it changes: nobody has to look at all of them to know how much
//! there is, or that nothing has expired.
//!
//! Invariant: the totals are what the shards' books have told them. A shard tells of memory once
//! that makes a difference of `GRAIN_BYTES`, so the total is off by less than that for each shard;
//! and no entry ends before the soonest expiry, unless a sweep is on its way to it. What a snapshot
//! would take each shard tells to the byte, in a place of its own that can be read without its
//! lock: on a small disk every byte of it counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::sizes::Gone;
use crate::clock::{Expiry, Time};

/// With 128 shards the total is off by less than 128 KiB.
const GRAIN_BYTES: u64 = 1 << 10;

/// What something takes, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    /// In memory.
    pub(super) memory: u64,
    /// In a snapshot.
    pub(super) file: u64,
}

/// What a shard would take in a snapshot, on a line of the processor's cache of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct FileBytes(AtomicU64);

impl FileBytes {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn change(&self, old: u64, new: u64) {
        if old != new {
            self.0.fetch_add(new.wrapping_sub(old), Relaxed);
        }
    }
}

/// What all shards hold together.
#[derive(Debug)]
pub(super) struct Totals {
    memory: AtomicU64,
    /// When the first entry ends, in ms since the epoch.
    soonest_ms: AtomicU64,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            memory: AtomicU64::new(0),
            soonest_ms: AtomicU64::new(u64::MAX),
        }
    }
}

impl Totals {
    /// In bytes.
    pub(super) fn memory(&self) -> u64 {
        self.memory.load(Relaxed)
    }

    /// No entry that a sweep is not on its way to ends before this.
    pub(super) fn soonest(&self) -> Time {
        Time(self.soonest_ms.load(Relaxed))
    }

    /// A sweep begins, which finds out anew.
    pub(super) fn forget_soonest(&self) {
        self.soonest_ms.store(u64::MAX, Relaxed);
    }

    fn note_soonest(&self, time: Time) {
        self.soonest_ms.fetch_min(time.0, Relaxed);
    }
}

/// What the books say of one table.
#[derive(Clone, Copy, Debug, Default)]
struct Page {
    taken: Taken,
    gone: Gone,
}

/// The books of one shard: a page for each of its tables.
#[derive(Debug)]
pub(super) struct Books {
    totals: Arc<Totals>,
    /// Of this shard, and of what a flush has left of it to a snapshot.
    file: Arc<FileBytes>,
    pages: Vec<Page>,
    sum: Taken,
    /// Of the memory.
    told: u64,
    soonest: Time,
}

impl Books {
    pub(super) fn new(totals: Arc<Totals>, file: Arc<FileBytes>) -> Self {
        Self {
            totals,
            file,
            pages: Vec::new(),
            sum: Taken::default(),
            told: 0,
            soonest: Time(u64::MAX),
        }
    }

    /// Books of an empty shard that takes the place of this one.
    pub(super) fn fresh(&self) -> Self {
        let pages = self.pages.iter().map(|page| Page {
            taken: Taken::default(),
            gone: page.gone,
        });
        let mut fresh = Self::new(Arc::clone(&self.totals), Arc::clone(&self.file));
        fresh.pages = pages.collect();
        fresh
    }

    /// The tables are others now, `moved` saying where each page's table was before.
    pub(super) fn rearrange(&mut self, moved: &[Option<usize>]) {
        let old = |page: &Option<usize>| page.and_then(|page| self.pages.get(page).copied());
        self.pages = moved
            .iter()
            .map(|page| old(page).unwrap_or_default())
            .collect();
        let taken = self.pages.iter().map(|page| page.taken);
        let sum = taken.fold(Taken::default(), |sum, taken| Taken {
            memory: sum.memory + taken.memory,
            file: sum.file + taken.file,
        });
        self.file.change(self.sum.file, sum.file);
        self.sum = sum;
    }

    fn page_mut(&mut self, page: usize) -> Option<&mut Page> {
        if page >= self.pages.len() {
            self.pages.resize(page + 1, Page::default());
        }
        self.pages.get_mut(page)
    }

    /// Takes down what the table of a page takes now.
    #[inline]
    pub(super) fn set(&mut self, page: usize, now: Taken) {
        let Some(page) = self.page_mut(page) else {
            return;
        };
        let old = std::mem::replace(&mut page.taken, now);
        self.sum.memory = self.sum.memory + now.memory - old.memory;
        self.sum.file = self.sum.file + now.file - old.file;
        self.file.change(old.file, now.file);
        if self.sum.memory.abs_diff(self.told) >= GRAIN_BYTES {
            self.tell(self.sum.memory);
        }
    }

    /// Takes down what went from the table of a page.
    pub(super) fn note_gone(&mut self, page: usize, gone: Gone) {
        if let Some(page) = self.page_mut(page) {
            page.gone += gone;
        }
    }

    /// What went from the table of a page since the start, or since that was
    /// forgotten.
    pub(super) fn gone(&self, page: usize) -> Gone {
        self.pages
            .get(page)
            .map_or(Gone::default(), |page| page.gone)
    }

    /// Counts what goes from now on.
    pub(super) fn forget_gone(&mut self) {
        for page in &mut self.pages {
            page.gone = Gone::default();
        }
    }

    /// What all of the shard's tables take.
    pub(super) fn sum(&self) -> Taken {
        self.sum
    }

    /// Tells the totals what memory the shard takes, however little has changed.
    pub(super) fn tell_all(&mut self) {
        self.tell(self.sum.memory);
    }

    fn tell(&mut self, memory: u64) {
        let more = memory.wrapping_sub(self.told);
        self.totals.memory.fetch_add(more, Relaxed);
        self.told = memory;
    }

    /// An entry ends then.
    #[inline]
    pub(super) fn expect(&mut self, expires: Expiry) {
        if let Some(time) = expires.time()
            && time < self.soonest
        {
            self.soonest = time;
            self.totals.note_soonest(time);
        }
    }

    pub(super) fn soonest(&self) -> Time {
        self.soonest
    }

    /// A sweep begins here, which finds out anew.
    pub(super) fn forget_soonest(&mut self) {
        self.soonest = Time(u64::MAX);
    }

    /// Tells again when the first entry ends: the totals may have forgotten it.
    pub(super) fn tell_soonest(&self) {
        self.totals.note_soonest(self.soonest);
    }
}

impl Drop for Books {
    fn drop(&mut self) {
        self.tell(0);
        self.file.change(self.sum.file, 0);
    }
}
