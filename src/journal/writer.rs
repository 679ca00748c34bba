//! The journal as the engine calls it. First cut: the whole surface, in memory only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::disk::Disk;
use super::{Failed, JournalError, Options, Recovered, Refused, Replay, Room, Stats};
use crate::clock::Time;
use crate::command::change::Change;
use crate::key::Key;
use crate::types::TypeTable;
use crate::value::Entry;

/// The journal of one data directory.
#[derive(Debug, Default)]
pub struct Journal {
    appended: AtomicU64,
}

/// Called by the sync thread after each sync and when the storage fails.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// What a record of `items` keys and `bytes` of request (keys, values, members) takes at most.
pub const fn room_bytes(items: u64, bytes: u64) -> u64 {
    items * 64 + bytes
}

impl Journal {
    /// Recovers what the directory holds into `sink` and opens a new segment.
    pub fn open(
        _disk: Arc<dyn Disk>,
        _options: Options,
        _sink: &mut dyn Replay,
    ) -> Result<(Self, Recovered), JournalError> {
        Ok((Self::default(), Recovered::default()))
    }

    /// Makes sure that a record of at most `bytes` (see [`room_bytes`]) has its place.
    pub fn reserve(&self, bytes: u64) -> Result<Room, Refused> {
        Ok(Room { bytes })
    }

    /// Gives room back that was not used.
    pub fn release(&self, _room: Room) {}

    /// Puts a change into the buffer and answers its sequence number.
    pub fn append(&self, _time: Time, _change: &Change<'_>, _room: Room) -> u64 {
        self.appended.fetch_add(1, Relaxed) + 1
    }

    /// The last sequence number given out.
    pub fn appended(&self) -> u64 {
        self.appended.load(Relaxed)
    }

    /// The last sequence number in the file.
    pub fn written(&self) -> u64 {
        self.appended()
    }

    /// The last sequence number that survives a power loss.
    pub fn synced(&self) -> u64 {
        self.appended()
    }

    /// Writes everything that is in the buffer.
    pub fn flush(&self) -> Result<(), Failed> {
        Ok(())
    }

    /// Replies of writes must wait until their record is synced.
    pub fn holds_writes(&self) -> bool {
        false
    }

    /// Replies of reads must wait until what they show is synced.
    pub fn holds_reads(&self) -> bool {
        false
    }

    /// Calls `waker` after each sync and when the storage fails.
    pub fn subscribe(&self, _waker: Waker) {}

    /// Writes and syncs everything that is in the buffer, now.
    pub fn sync_now(&self) -> Result<(), Failed> {
        Ok(())
    }

    /// Closes the segment and begins the next one.
    pub fn rotate(&self) -> Result<(), JournalError> {
        Ok(())
    }

    /// Begins a snapshot.
    pub fn begin_snapshot(&self, _new_generation: bool) -> Result<SnapshotWriter, JournalError> {
        Ok(SnapshotWriter {})
    }

    /// True if a file that a restart needs is not at its path any more.
    pub fn files_moved(&self) -> bool {
        false
    }

    /// Replay work of a change beyond its bytes: the members that it touched.
    pub fn add_work(&self, _units: u64) {}

    /// True if a snapshot is due: bytes, work, or the storage has failed.
    pub fn needs_snapshot(&self) -> bool {
        false
    }

    /// The reason while the storage has failed.
    pub fn failed(&self) -> Option<String> {
        None
    }

    /// The figures.
    pub fn stats(&self) -> Stats {
        Stats::default()
    }

    /// Writes, syncs and closes the segment and ends the sync thread.
    pub fn close(&self) -> Result<(), JournalError> {
        Ok(())
    }
}

/// A snapshot in the making.
#[derive(Debug)]
pub struct SnapshotWriter {}

impl SnapshotWriter {
    /// Fixes the first sequence number that is not in the snapshot: call it under all shard
    /// locks. Does no I/O.
    pub fn cut(&mut self, _time: Time) -> Result<u64, JournalError> {
        Ok(0)
    }

    /// The type table.
    pub fn types(&mut self, _types: &Arc<TypeTable>) -> Result<(), JournalError> {
        Ok(())
    }

    /// A flush that is still to come.
    pub fn pending_flush(&mut self, _at: Option<Time>) -> Result<(), JournalError> {
        Ok(())
    }

    /// An entry.
    pub fn entry(&mut self, _key: Key<'_>, _entry: &Entry) -> Result<(), JournalError> {
        Ok(())
    }

    /// Completes it: from now on a restart begins here.
    pub fn finish(self) -> Result<(), JournalError> {
        Ok(())
    }
}
