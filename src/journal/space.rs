//! Space: what records may still take of their file, and what the journal may still take of the
//! disk.
//!
//! Invariant: the journal alone never fills the disk so far that a snapshot, which lets the
//! journal go, does not fit any more: writes are refused before. So a disk that is full of
//! journal frees itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::disk::is_full;
use super::writer::{Active, Shared};
use super::{Journal, Refused, Stats};

/// The largest step of allocating ahead.
const STEP_BYTES_MAX: u64 = 64 << 20;

/// What is known of the disk's free space.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// A snapshot would have taken so much when it was last reckoned,
    snapshot: AtomicU64,
    /// and so much is kept free for it, which has margins,
    kept_free: AtomicU64,
    /// and by so much the journal, and so what a snapshot takes, may grow or have grown since.
    grown: AtomicU64,
    /// So much of it the one that is being written has taken.
    taken: AtomicU64,
    /// A write was refused for want of space, and there was no snapshot since.
    is_short: AtomicBool,
}

impl Space {
    /// So much was allocated.
    pub(super) fn has_grown(&self, bytes: u64) {
        self.grown.fetch_add(bytes, Relaxed);
    }

    /// A snapshot has grown to so many bytes.
    pub(super) fn snapshot_has(&self, bytes: u64) {
        self.taken.store(bytes, Relaxed);
    }

    /// No snapshot is being written any more; `complete` if there is a new one.
    pub(super) fn snapshot_ended(&self, complete: bool) {
        self.taken.store(0, Relaxed);
        if complete {
            self.is_short.store(false, Relaxed);
        }
    }
}

/// What a snapshot of about so many bytes leaves free beside itself: a step of the journal, or
/// less where everything is small, so that a small disk can be used also.
pub(super) fn margin(snapshot_bytes: u64, step_bytes: u64) -> u64 {
    const LEAST: u64 = 16 << 10;
    step_bytes.min(snapshot_bytes / 4 + LEAST)
}

impl Journal {
    /// Keeps room on the disk for a snapshot of about as many bytes as `reckon` says. One call at
    /// a time.
    pub fn keep_free(&self, reckon: impl FnOnce() -> u64) {
        let shared = &*self.shared;
        // What was allocated and is still free may become part of the next snapshot. Whatever has
        // been taken of it by now, `reckon` finds, or else it would be in neither.
        let (grown, room) = {
            // Nothing is allocated between the one figure and the other.
            let _active = shared.active.lock();
            (shared.space.grown.load(Relaxed), shared.room.load(Relaxed))
        };
        let snapshot_bytes = reckon();
        // A margin for the snapshot, one for the segment that it begins, one for what is unknown.
        let margins = 3 * margin(snapshot_bytes, shared.options.allocate_bytes);
        let kept = snapshot_bytes.saturating_add(margins);
        shared.space.snapshot.store(snapshot_bytes, Relaxed);
        shared.space.kept_free.store(kept, Relaxed);
        // What was allocated meanwhile has grown all the same.
        let room = u64::try_from(room).unwrap_or(0);
        shared.space.has_grown(room);
        shared.space.grown.fetch_sub(grown, Relaxed);
    }
}

impl Shared {
    /// How much of `wanted` bytes the journal may take of the disk: a third of what is to spare at
    /// most, because what is written there may make the snapshot and its margins larger by nearly
    /// twice as much.
    pub(super) fn affordable(&self, wanted: u64) -> u64 {
        let kept = self.space.kept_free.load(Relaxed);
        if kept == 0 {
            return wanted;
        }
        let kept = kept.saturating_add(self.space.grown.load(Relaxed));
        let kept = kept.saturating_sub(self.space.taken.load(Relaxed));
        match self.disk.free_bytes() {
            Ok(free) => wanted.min(free.saturating_sub(kept) / 3),
            // The allocation will tell.
            Err(_) => wanted,
        }
    }

    /// True if writes were refused for want of space and a snapshot would free some: one margin at
    /// least, or it would be written for the sake of a few writes.
    pub(super) fn is_short_of_space(&self, stats: &Stats) -> bool {
        let replaced = stats.journal_bytes.saturating_add(stats.snapshot_bytes);
        let snapshot = self.space.snapshot.load(Relaxed);
        let needed = snapshot.saturating_add(margin(snapshot, self.options.allocate_bytes));
        self.space.is_short.load(Relaxed) && replaced > needed
    }

    pub(super) fn try_take(&self, bytes: i64) -> bool {
        self.room
            .fetch_update(Relaxed, Relaxed, |room| {
                (room >= bytes).then_some(room - bytes)
            })
            .is_ok()
    }

    #[cold]
    pub(super) fn grow(&self, bytes: i64) -> Result<(), Refused> {
        let mut active = self.active.lock();
        while !self.try_take(bytes) {
            self.check_health()?;
            let short = bytes.saturating_sub(self.room.load(Relaxed));
            let Ok(short) = u64::try_from(short) else {
                continue;
            };
            self.allocate(&mut active, short.max(1))?;
        }
        Ok(())
    }

    /// Allocates a step ahead, at least `needed` bytes.
    fn allocate(&self, active: &mut Active, needed: u64) -> Result<(), Refused> {
        let mut bytes = self.affordable(active.step_bytes.max(needed)).max(needed);
        if self.affordable(needed) < needed {
            self.space.is_short.store(true, Relaxed);
            return Err(Refused::DiskFull);
        }
        loop {
            match active.file.allocate(active.allocated, bytes) {
                Ok(()) => {
                    active.allocated += bytes;
                    self.space.has_grown(bytes);
                    active.step_bytes = (active.step_bytes * 2).min(STEP_BYTES_MAX);
                    self.room.fetch_add(bytes.cast_signed(), Relaxed);
                    return Ok(());
                }
                Err(error) if is_full(&error) => {
                    active.step_bytes = self.options.allocate_bytes;
                    if bytes == needed {
                        self.space.is_short.store(true, Relaxed);
                        return Err(Refused::DiskFull);
                    }
                    bytes = (bytes / 2).max(needed);
                }
                Err(error) => {
                    self.fail(active, format!("allocating {}: {error}", active.name()));
                    return Err(Refused::Failed);
                }
            }
        }
    }
}
