//! The journal: every change of the state, in one order, on disk; the state is their fold.
//!
//! The engine alone uses it, in this order for each write: [`Journal::reserve`] room (no lock
//! held), lock the shards, decide, [`Journal::append`] (no I/O), apply, unlock; and once a turn
//! of its worker, before any reply leaves, [`Journal::flush`].
//!
//! **Invariants.** Sequence numbers go up by one a record. `synced <= written <= appended`
//! (a failed storage aside). What `flush` answered `Ok` for survives the end of the process -
//! with `always` once it is synced, which all replies wait for -; what is `synced` survives a power
//! loss. Recovery gives a prefix of what was written, of whole batches, that includes all that was
//! synced; or it refuses, and says why.
//!
//! **Lock order**: shards, then the buffer. The sync lock comes before the file lock, the file
//! lock before the buffer; neither is ever taken under a shard lock.
//!
//! **Poison.** After a failed write or sync of a segment nothing is written to it or synced
//! again, because the kernel may have dropped the pages and said so only once. Memory is then
//! the truth; writes are refused until a complete snapshot on a new file has been read back.
//! What happened to the failed batch is not known before that.
//!
//! **What is assumed of the medium**: a sync that returned has made the data last; a rename is
//! atomic; writing beside bytes that last, or writing them again as they are, does not change
//! them; bytes that were never written and read as allocated are zeros.
//!
//! Files: `record` has the format, [`disk`] the directory and its names, `recover` the
//! decision between a torn tail and damage.

mod buffer;
mod create;
mod decode;
pub mod disk;
mod encode;
mod found;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod inspect;
mod load;
mod lossy;
mod pace;
mod places;
mod read_back;
pub mod record;
mod recover;
mod repair;
mod scan;
mod segment;
pub mod sim;
mod snapshot;
mod space;
mod sync;
mod writer;
mod zeros;

use std::io;
use std::sync::Arc;

use crate::clock::{Source, Time};
use crate::command::change::Change;
pub use crate::config::Fsync;
use crate::key::Key;
use crate::types::TypeTable;
use crate::value::Entry;

pub use create::NewStore;
pub use decode::Record;
pub use load::{Batch, Loaded, Progress, Taken};
pub use places::{Files, Leaving, Located, Unreadable};
pub use read_back::Moved;
pub use recover::verify;
pub use snapshot::{SnapshotPlan, SnapshotWriter};
pub use writer::{Journal, Waker, room_bytes};

/// How a journal works. `Default` is what the daemon uses unless it is configured.
#[derive(Clone, Debug)]
pub struct Options {
    /// When written records are synced.
    pub fsync: Fsync,
    /// A segment larger than this is followed by a new one.
    pub segment_bytes: u64,
    /// Space is allocated ahead in steps of this size, each twice the one before, up to 64 MiB.
    pub allocate_bytes: u64,
    /// Entries of a snapshot are written in batches of about this size.
    pub snapshot_batch_bytes: usize,
    /// A snapshot is due after so much replay work, see [`Journal::add_work`].
    pub snapshot_work: u64,
    /// `EverySec`: a sync starts when the oldest unsynced write is this old.
    pub sync_after_ms: u64,
    /// `EverySec`: replies of writes wait when the oldest unsynced write is this old.
    pub hold_after_ms: u64,
    /// `EverySec`: writes are refused when the oldest unsynced write is this old.
    pub refuse_after_ms: u64,
    /// The sync thread runs. Without it nothing is synced or rotated unless the caller calls
    /// [`Journal::run_due`], [`Journal::sync_now`] or [`Journal::rotate`]: deterministic
    /// simulations do.
    pub background: bool,
    /// Where time comes from.
    pub clock: Source,
    /// The time for file headers when a directory is new.
    pub now: Time,
    /// Values that may leave memory by these types are left where they are by a start; `None`
    /// loads all.
    pub leaving: Option<Arc<TypeTable>>,
    /// The files that places of values point into.
    pub files: Files,
    /// How many threads a start may use. With one everything happens on the caller's.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            fsync: Fsync::EverySec,
            segment_bytes: 1 << 30,
            allocate_bytes: 1 << 20,
            snapshot_batch_bytes: snapshot::BATCH_BYTES,
            snapshot_work: 200_000_000,
            sync_after_ms: 400,
            hold_after_ms: 1000,
            refuse_after_ms: 5000,
            background: true,
            clock: Source::default(),
            now: Time(0),
            leaving: None,
            files: Files::default(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Room in the file for one record, from [`Journal::reserve`]: give it to [`Journal::append`]
/// or back with [`Journal::release`].
#[derive(Debug)]
#[must_use = "room that is neither used nor released is lost until the next segment"]
pub struct Room {
    bytes: u64,
}

impl Room {
    fn into_bytes(self) -> u64 {
        self.bytes
    }
}

/// Why there is no room for a write. The texts are those of the replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The disk is full; the next write tries again.
    #[error("out of disk space")]
    DiskFull,
    /// A write or sync failed; a snapshot on a new file heals it.
    #[error("storage failed, read-only")]
    Failed,
    /// The disk has not finished a sync for seconds; writes go on when it has.
    #[error("storage stalled: a sync has been waiting for seconds, try again")]
    Stalled,
    /// The journal is closed: the server is stopping.
    #[error("storage is closed: the server is stopping")]
    Closed,
}

/// The storage has failed: what of the last writes is on disk is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("storage failed, outcome unknown")]
pub struct Failed;

/// Why the state could not take a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReplayError(pub String);

/// What recovery gives the records to. After an error of [`Journal::open`] its state means
/// nothing: throw it away.
pub trait TakeBatches {
    /// Batches, in order, as many at a time as are worth several threads. Whoever takes them in
    /// another way than one record after the other gives the same state, and of all errors the
    /// first one in the order of the records.
    fn batches(&mut self, batches: &[Batch]) -> Result<Taken, JournalError>;
    /// Everything has been given. An error leaves the directory as it was found.
    fn complete(&mut self) -> Result<(), ReplayError>;
    /// How far it is, now and then. An error ends the recovery; nothing has been changed.
    fn progress(&mut self, progress: &Progress) -> Result<(), ReplayError>;
}

/// [`TakeBatches`], one record after the other.
pub trait Replay {
    /// An entry of the snapshot.
    fn entry(&mut self, key: Key<'_>, entry: Entry) -> Result<(), ReplayError>;
    /// A change, in order. The type table and a pending flush of the snapshot come with `seq` 0.
    fn change(&mut self, seq: u64, time: Time, change: Change<'_>) -> Result<(), ReplayError>;
    /// As [`TakeBatches::complete`].
    fn complete(&mut self) -> Result<(), ReplayError> {
        Ok(())
    }
    /// As [`TakeBatches::progress`].
    fn progress(&mut self, progress: &Progress) -> Result<(), ReplayError>;
}

impl<R: Replay> TakeBatches for R {
    fn batches(&mut self, batches: &[Batch]) -> Result<Taken, JournalError> {
        let mut taken = Taken::default();
        for batch in batches {
            batch.for_each(|loaded| {
                taken.count(batch, &loaded);
                let seen = match loaded.record {
                    Record::Entry(key, entry) => self.entry(key, entry),
                    Record::Change(change) => self.change(loaded.seq, loaded.time, change),
                };
                seen.map_err(|source| batch.refused(loaded.position, source))
            })?;
        }
        Ok(taken)
    }

    fn complete(&mut self) -> Result<(), ReplayError> {
        Replay::complete(self)
    }

    fn progress(&mut self, progress: &Progress) -> Result<(), ReplayError> {
        Replay::progress(self, progress)
    }
}

/// What recovery found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Entries of the snapshot.
    pub entries: u64,
    /// Records after the snapshot.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Bytes of a torn tail that were put aside.
    pub torn_bytes: u64,
    /// The latest time of a record or file: the clock must not start before it.
    pub newest_time: Time,
    /// The directory was new.
    pub created: bool,
    /// The snapshot's number.
    pub snapshot: u64,
    /// The generation.
    pub generation: u64,
    /// The sequence number that comes next.
    pub next_seq: u64,
}

/// The journal's figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of the segments that a restart would read.
    pub journal_bytes: u64,
    /// How many segments these are.
    pub segments: u64,
    /// A snapshot is being written.
    pub snapshot_running: bool,
    /// The number of the last complete snapshot.
    pub snapshot: u64,
    /// Its size in bytes.
    pub snapshot_bytes: u64,
    /// When it was cut.
    pub snapshot_time: Time,
    /// The generation.
    pub generation: u64,
    /// The last sequence number given out.
    pub appended: u64,
    /// The last one in the file.
    pub written: u64,
    /// The last one that survives a power loss.
    pub synced: u64,
    /// Syncs done.
    pub syncs: u64,
    /// Writes and syncs that failed.
    pub errors: u64,
    /// Why the storage failed, while it is so.
    pub failed: Option<String>,
    /// Records since the last snapshot.
    pub records_since_snapshot: u64,
    /// Journal bytes since the last snapshot.
    pub bytes_since_snapshot: u64,
}

/// Why the journal cannot be opened, cut, moved or closed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refused an operation.
    #[error("cannot {doing} {name}: {source}; check the disk, its space and the permissions")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file of a format that this release does not know.
    #[error("{name} has {what}: it was written by a later release; start that one")]
    Unknown {
        /// The file.
        name: String,
        /// What is not known.
        what: String,
    },
    /// Bytes that were on disk for certain are not what was written.
    #[error(
        "{name} is damaged at offset {offset}, record {seq}: {what}; restore the data directory \
         from a backup, or see `storage_server check` and `salvage`"
    )]
    Damaged {
        /// The file.
        name: String,
        /// Where the damage begins.
        offset: u64,
        /// The first record that cannot be read.
        seq: u64,
        /// What is wrong there.
        what: String,
    },
    /// A file of another store.
    #[error("{name} belongs to another store than {other}: move one of them away")]
    ForeignLog {
        /// The file.
        name: String,
        /// A file of the store that it does not belong to.
        other: String,
    },
    /// Files that must be there are not.
    #[error(
        "{missing} is missing in the data directory: put the files that were moved away back, or \
         remove STORE and all journal and snapshot files to begin with an empty store"
    )]
    Missing {
        /// What is missing.
        missing: String,
    },
    /// The state did not take a record.
    #[error("record {seq} of {name} cannot be applied: {source}; please report this")]
    Replay {
        /// The file.
        name: String,
        /// The record.
        seq: u64,
        /// What the state said.
        source: ReplayError,
    },
    /// The state as a whole is not what the caller wants to go on with.
    #[error("{0}")]
    Rejected(ReplayError),
    /// A value that is not in memory cannot be copied.
    #[error(
        "the value of {key} cannot be read: {source}; restore it with salvage or from a backup, \
         set it again, or delete it"
    )]
    Value {
        /// Its entry.
        key: String,
        /// Why.
        source: Unreadable,
    },
    /// The storage has failed; a snapshot heals it.
    #[error("storage failed: {reason}; free or replace the disk, then make a snapshot (reopen)")]
    Failed {
        /// Why.
        reason: String,
    },
    /// There is no room for a snapshot.
    #[error(
        "a snapshot needs {needed} bytes of disk space and {free} are free: free some; the journal \
         grows until there is a snapshot"
    )]
    NoSpace {
        /// What it takes, and what is left to the journal.
        needed: u64,
        /// What there is.
        free: u64,
    },
    /// Another snapshot is being written.
    #[error("a snapshot is being written: try again when it is done")]
    Busy,
    /// The snapshot was not cut before it was finished, or cut twice.
    #[error("the snapshot was written out of order: please report this")]
    OutOfOrder,
    /// The journal is closed.
    #[error("the journal is closed: the server is stopping")]
    Closed,
}

#[cfg(test)]
mod tests;
