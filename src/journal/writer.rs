//! The journal as the engine calls it: room, the buffer, writes once a turn (or, where each is
//! synced, once a sync), poison.
//!
//! Invariant: `appended` and the buffer change under the buffer lock, all of [`Active`] under
//! the file lock. Room is exact: what is allocated and not written is room, or was promised to
//! a record that is not written yet, or is kept for the End batch.

use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU8, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex, MutexGuard};
use smallvec::SmallVec;

use super::buffer::{Buffer, Part};
use super::disk::{Disk, DiskFile, Name};
use super::encode;
use super::places::{Places, Wish};
use super::record::{BATCH_HEADER_BYTES, BatchHeader, BatchKind, FILE_HEADER_BYTES, LogId};
use super::segment::{Kept, is_in_place};
use super::space::Space;
use super::sync::Signal;
use super::{Failed, Fsync, JournalError, Options, Recovered, Refused, Room, Stats, TakeBatches};
use crate::clock::{Tick, Time};
use crate::command::change::Change;
use crate::holds::Holds;
use crate::types::TypeTable;
use crate::waits::Waits;

/// Called by the sync thread after each sync and when the storage fails.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// The journal of one data directory.
pub struct Journal {
    pub(super) shared: Arc<Shared>,
    pub(super) thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the workers, the sync thread and a snapshot share.
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) options: Options,
    pub(super) log_id: LogId,
    /// The sync lock: one sync at a time, so that no other one hides its failure.
    pub(super) sync: Mutex<()>,
    /// A sync is under way.
    pub(super) is_syncing: AtomicBool,
    /// The file lock.
    pub(super) active: Mutex<Active>,
    pub(super) buffer: Mutex<Buffer>,
    pub(super) room: AtomicI64,
    pub(super) appended: AtomicU64,
    pub(super) written: AtomicU64,
    pub(super) synced: AtomicU64,
    /// When the oldest unsynced write was, as [`Shared::now_ms`]; 0 is none.
    pub(super) oldest_ms: AtomicU64,
    /// The latest moment that [`Journal::note_time`] was told.
    pub(super) noted_ms: AtomicU64,
    pub(super) health: AtomicU8,
    pub(super) start: Tick,
    pub(super) signal: Mutex<Signal>,
    pub(super) wake: Condvar,
    pub(super) wakers: Mutex<Vec<Waker>>,
    /// Called as well if values wait to be put away.
    pub(super) leaving: Mutex<Option<Waker>>,
    pub(super) work: AtomicU64,
    pub(super) snapshot_running: AtomicBool,
    pub(super) places: Places,
    pub(super) space: Space,
    pub(super) syncs: AtomicU64,
    pub(super) errors: AtomicU64,
    /// How long the file lock was held to begin segments.
    pub(super) holds: Holds,
    /// How long writers have waited for the buffer and the file.
    pub(super) waits: Waits,
}

/// [`Shared::health`]: all is well.
pub(super) const WELL: u8 = 0;
/// [`Shared::health`]: the storage has failed.
pub(super) const FAILED: u8 = 1;
/// [`Shared::health`]: the journal is closed.
pub(super) const CLOSED: u8 = 2;

/// The segment that is written, and all else that the file lock guards.
pub(super) struct Active {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) number: u64,
    pub(super) generation: u64,
    pub(super) seed: u32,
    pub(super) offset: u64,
    pub(super) allocated: u64,
    /// Zeros have been written up to here, see `zeros`.
    pub(super) zeroed: u64,
    pub(super) step_bytes: u64,
    pub(super) prev_crc: u32,
    pub(super) newest: Time,
    pub(super) spare: Part,
    pub(super) header: Vec<u8>,
    /// When the first write was that no sync covers yet; 0 is none.
    pub(super) unsynced_ms: u64,
    /// The same of the writes that a sync under way covers.
    pub(super) syncing_ms: u64,
    pub(super) failed: Option<String>,
    /// What values that wait for a sync to leave memory want of it.
    pub(super) wish: Wish,
    /// The highest number that any file has.
    pub(super) last_number: u64,
    /// The generation in `STORE`.
    pub(super) store_generation: u64,
    /// The highest generation that `STORE` may say: writing it may have failed half-way.
    pub(super) tried_generation: u64,
    /// The files beside this segment: the snapshot, the segments since, older ones.
    pub(super) kept: Vec<Kept>,
    pub(super) snapshot: SnapshotInfo,
}

/// The last complete snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SnapshotInfo {
    pub(super) number: u64,
    pub(super) bytes: u64,
    pub(super) time: Time,
    /// The first sequence number that is not in it.
    pub(super) seq: u64,
}

/// Kept free at the end of a segment for its End batch.
const END_ROOM: u64 = BATCH_HEADER_BYTES as u64;

/// What a record of `items` keys and `bytes` of request (keys, values, members) takes at most.
pub const fn room_bytes(items: u64, bytes: u64) -> u64 {
    items.saturating_mul(64).saturating_add(bytes)
}

impl Active {
    /// The bytes that records may still take, promised or not.
    pub(super) fn capacity(&self) -> i64 {
        self.allocated
            .saturating_sub(self.offset)
            .cast_signed()
            .saturating_sub(END_ROOM.cast_signed())
    }

    /// True if nothing is in this segment, no complete snapshot has its number, and it was not
    /// moved away.
    pub(super) fn is_unused(&self, generation: u64, disk: &dyn Disk) -> bool {
        self.offset == FILE_HEADER_BYTES as u64
            && self.snapshot.number != self.number
            && self.generation == generation
            && is_in_place(disk, self.name(), &*self.file)
    }

    pub(super) fn name(&self) -> Name {
        Name::Segment(self.number)
    }
}

impl Shared {
    /// Milliseconds since the journal was opened, never 0.
    pub(super) fn now_ms(&self) -> u64 {
        self.ms_at(self.options.clock.tick())
    }

    /// The same for another moment than now.
    pub(super) fn ms_at(&self, tick: Tick) -> u64 {
        let elapsed = tick.since(self.start);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    pub(super) fn check_health(&self) -> Result<(), Refused> {
        match self.health.load(Acquire) {
            WELL => Ok(()),
            CLOSED => Err(Refused::Closed),
            _ => Err(Refused::Failed),
        }
    }

    /// True if everything that has been appended is written.
    fn is_written(&self) -> bool {
        self.written.load(Acquire) >= self.appended.load(Acquire)
    }

    pub(super) fn flush(&self) -> Result<(), Failed> {
        self.flush_by(|| Some(self.waits.lock(&self.active)))
            .map(|_| ())
    }

    /// True once everything that had been appended is written, or waits for a sync; false if the
    /// file lock, which `lock` takes, cannot be had.
    fn flush_by<'s>(
        &'s self,
        lock: impl FnOnce() -> Option<MutexGuard<'s, Active>>,
    ) -> Result<bool, Failed> {
        if self.health.load(Acquire) == FAILED {
            return Err(Failed);
        }
        if self.is_written() {
            return Ok(true);
        }
        if self.options.fsync == Fsync::Always && self.is_syncing.load(Acquire) {
            // Every reply waits for the next sync, and who begins that writes for all.
            self.signal_work();
            return Ok(true);
        }
        let target = self.appended.load(Acquire);
        let Some(mut active) = lock() else {
            return Ok(false);
        };
        if self.written.load(Acquire) < target {
            self.write_out(&mut active)?;
        }
        Ok(true)
    }

    /// Writes what is in the buffer.
    pub(super) fn write_out(&self, active: &mut MutexGuard<'_, Active>) -> Result<(), Failed> {
        if self.health.load(Acquire) != WELL {
            return Err(Failed);
        }
        let mut last = std::mem::take(&mut active.spare);
        let full = self.waits.lock(&self.buffer).take(&mut last);
        let mut result = Ok(());
        let mut wrote = false;
        for part in full.iter().chain([&last]) {
            if result.is_ok() && part.count > 0 {
                result = self.write_part(active, part);
                wrote = true;
            }
            if result.is_err() {
                self.room.fetch_add(part.charged().cast_signed(), Relaxed);
            }
        }
        last.clear();
        active.spare = last;
        if result.is_ok() && wrote {
            self.note_write(active);
        }
        result
    }

    fn write_part(&self, active: &mut Active, part: &Part) -> Result<(), Failed> {
        let crc = part.payload.slices().fold(0, crc32c::crc32c_append);
        let header = BatchHeader {
            kind: BatchKind::Records,
            len: u32::try_from(part.payload.len()).unwrap_or(u32::MAX),
            count: part.count,
            first_seq: part.first_seq,
            synced_upto: self.synced.load(Acquire),
            time: part.base,
            prev_crc: active.prev_crc,
            payload_crc: crc,
        };
        let header_crc = header.encode(active.seed, &mut active.header);
        let mut slices: SmallVec<[IoSlice<'_>; 16]> = SmallVec::new();
        slices.push(IoSlice::new(&active.header));
        slices.extend(part.payload.slices().map(IoSlice::new));
        let result = active.file.write_all_at(active.offset, &mut slices);
        drop(slices);
        result.map_err(|error| self.fail_write(active, &error))?;
        if !part.leaving.is_empty() {
            let start = active.offset + BATCH_HEADER_BYTES as u64;
            let synced = self.synced.load(Acquire);
            let wish = self
                .places
                .wrote((active.name(), start), &part.leaving, synced);
            active.wish = active.wish.max(wish);
        }
        active.offset += (BATCH_HEADER_BYTES + part.payload.len()) as u64;
        active.prev_crc = header_crc;
        active.newest = active.newest.max(part.newest);
        let headers_saved = u64::from(part.count - 1) * BATCH_HEADER_BYTES as u64;
        self.room.fetch_add(headers_saved.cast_signed(), Relaxed);
        self.written.store(header.next_seq() - 1, Release);
        Ok(())
    }

    /// The active segment could not be written.
    pub(super) fn fail_write(&self, active: &mut Active, error: &io::Error) -> Failed {
        self.fail(active, format!("writing {}: {error}", active.name()));
        Failed
    }

    /// Nothing is written to or synced in the active segment any more; what is in the buffer is
    /// in memory only, and so is what comes.
    pub(super) fn fail(&self, active: &mut Active, reason: String) {
        self.errors.fetch_add(1, Relaxed);
        tracing::error!("storage failed, read-only: {reason}");
        active.failed.get_or_insert(reason);
        self.places.keep_all();
        active.unsynced_ms = 0;
        active.syncing_ms = 0;
        self.oldest_ms.store(0, Release);
        let charged = {
            let mut buffer = self.buffer.lock();
            self.health.store(FAILED, Release);
            buffer.drop_all()
        };
        self.room.fetch_add(charged.cast_signed(), Relaxed);
        self.signal_failure();
    }
}

impl Journal {
    /// Recovers what the directory holds into `sink` and opens a new segment.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        sink: &mut dyn TakeBatches,
    ) -> Result<(Self, Recovered), JournalError> {
        super::recover::open(disk, options, sink)
    }

    /// Makes sure that a record of at most `bytes` (see [`room_bytes`]) has its place. Call it
    /// before any shard lock: it may have to allocate space.
    pub fn reserve(&self, bytes: u64) -> Result<Room, Refused> {
        let shared = &*self.shared;
        shared.check_health()?;
        if shared.options.fsync == Fsync::EverySec
            && self.oldest_age_ms() >= shared.options.refuse_after_ms
        {
            return Err(Refused::Stalled);
        }
        let bytes = bytes.saturating_add(BATCH_HEADER_BYTES as u64);
        let wanted = i64::try_from(bytes).unwrap_or(i64::MAX);
        if !shared.try_take(wanted) {
            shared.grow(wanted)?;
        }
        Ok(Room { bytes })
    }

    /// Gives room back that was not used.
    pub fn release(&self, room: Room) {
        self.shared
            .room
            .fetch_add(room.into_bytes().cast_signed(), Relaxed);
    }

    /// Puts a change into the buffer and answers its sequence number. Call it under the shard
    /// locks, before applying the change: it does no I/O.
    pub fn append(&self, time: Time, change: &Change<'_>, room: Room) -> u64 {
        let shared = &*self.shared;
        let prepared = encode::prepare(change);
        let mut buffer = shared.waits.lock(&shared.buffer);
        let (seq, charged) = buffer.put(time, change, prepared);
        shared.appended.store(seq, Release);
        drop(buffer);
        let bytes = room.into_bytes();
        if bytes != charged {
            let unused = bytes.cast_signed().wrapping_sub(charged.cast_signed());
            shared.room.fetch_add(unused, Relaxed);
        }
        seq
    }

    /// Which values may leave memory is what these types say from now on. Call it under all
    /// shard locks.
    pub fn set_types(&self, types: Arc<TypeTable>) {
        self.shared.buffer.lock().set_types(types);
    }

    /// The last sequence number given out.
    pub fn appended(&self) -> u64 {
        self.shared.appended.load(Acquire)
    }

    /// The last sequence number in the file.
    pub fn written(&self) -> u64 {
        self.shared.written.load(Acquire)
    }

    /// The last sequence number that survives a power loss.
    pub fn synced(&self) -> u64 {
        self.shared.synced.load(Acquire)
    }

    /// Writes everything that is in the buffer. After `Ok` all that had been appended when this
    /// was called is in the file, or (only with [`Fsync::Always`], where no reply leaves before its
    /// sync) will be written before the next sync. While the storage has failed this fails, also
    /// for turns that only read: reads are answered all the same.
    pub fn flush(&self) -> Result<(), Failed> {
        self.shared.flush()
    }

    /// As [`Journal::flush`], but for waiting: false if somebody else is writing just now.
    pub fn try_flush(&self) -> Result<bool, Failed> {
        let shared = &*self.shared;
        shared.flush_by(|| shared.active.try_lock())
    }

    /// Replay work of a change beyond its bytes: the members that it touched.
    pub fn add_work(&self, units: u64) {
        self.shared.work.fetch_add(units, Relaxed);
    }

    /// True if a snapshot is due: by journal bytes (`min_bytes`, and at least `ratio` times the
    /// last snapshot's size), by work, because the disk is full of what a snapshot replaces, or
    /// because the storage has failed and only a snapshot heals it. Callers wait a while after a
    /// failed one.
    pub fn needs_snapshot(&self, min_bytes: u64, ratio: u64) -> bool {
        let stats = self.stats();
        let due_bytes = stats.snapshot_bytes.saturating_mul(ratio).max(min_bytes);
        stats.failed.is_some()
            || stats.bytes_since_snapshot >= due_bytes
            || self.shared.is_short_of_space(&stats)
            || self.shared.work.load(Relaxed) >= self.shared.options.snapshot_work
    }

    /// How long the file lock was held to begin segments.
    pub fn holds(&self) -> &Holds {
        &self.shared.holds
    }

    /// How long threads have waited for the buffer and the file.
    pub fn waits(&self) -> &Waits {
        &self.shared.waits
    }

    /// The reason while the storage has failed.
    pub fn failed(&self) -> Option<String> {
        if self.shared.health.load(Acquire) == WELL {
            return None;
        }
        self.shared.active.lock().failed.clone()
    }

    /// The figures.
    pub fn stats(&self) -> Stats {
        let shared = &*self.shared;
        let active = shared.active.lock();
        let since: Vec<&Kept> = active
            .kept
            .iter()
            .filter(|kept| kept.is_segment() && kept.number >= active.snapshot.number)
            .collect();
        let journal_bytes = active.offset + since.iter().map(|kept| kept.bytes).sum::<u64>();
        let written = self.written();
        Stats {
            journal_bytes,
            segments: since.len() as u64 + 1,
            snapshot_running: shared.snapshot_running.load(Relaxed),
            snapshot: active.snapshot.number,
            snapshot_bytes: active.snapshot.bytes,
            snapshot_time: active.snapshot.time,
            generation: active.store_generation,
            appended: self.appended(),
            written,
            synced: self.synced(),
            syncs: shared.syncs.load(Relaxed),
            errors: shared.errors.load(Relaxed),
            failed: active.failed.clone(),
            records_since_snapshot: (written + 1).saturating_sub(active.snapshot.seq),
            bytes_since_snapshot: journal_bytes,
        }
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("appended", &self.appended())
            .field("written", &self.written())
            .field("synced", &self.synced())
            .finish_non_exhaustive()
    }
}
