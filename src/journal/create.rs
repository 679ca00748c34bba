//! A new store: the files of a directory that has none, with everything in one snapshot.
//!
//! Invariant: it counts only when it is complete. The segment comes first, then the snapshot gets
//! its name, then `STORE`; what a crash leaves before the snapshot has its name is taken for
//! nothing by the next start and by [`super::Journal::open`], which begins an empty store here.

use std::sync::Arc;

use super::JournalError;
use super::disk::Disk;
use super::encode::{self, Payload};
use super::pace::Pace;
use super::record::{FileHeader, FileKind, LogId, VERSION};
use super::segment::{NewSegment, failed, write_store};
use super::snapshot::{BATCH_BYTES, SnapshotFile};
use crate::clock::Time;
use crate::command::change::Change;
use crate::key::Key;
use crate::types::TypeTable;
use crate::value::Entry;

/// A store in the making.
pub struct NewStore<'d> {
    disk: &'d dyn Disk,
    header: FileHeader,
    snapshot: SnapshotFile,
    typed: bool,
}

impl<'d> NewStore<'d> {
    /// Begins a store whose first record will have the number `seq`; `now` is the moment that
    /// the entries are of.
    pub fn begin(disk: &'d dyn Disk, seq: u64, now: Time) -> Result<Self, JournalError> {
        let header = FileHeader {
            kind: FileKind::Segment,
            version: VERSION,
            log_id: new_log_id()?,
            generation: 1,
            number: 1,
            base_seq: seq,
            time: now,
            chain: 0,
            fresh: true,
        };
        NewSegment::create(disk, header, 0, 0)?.publish(disk)?;
        let header = FileHeader {
            kind: FileKind::Snapshot,
            fresh: false,
            ..header
        };
        let mut snapshot = SnapshotFile::create(disk, header, Pace::unbounded())?;
        snapshot.begin(seq, now);
        Ok(Self {
            disk,
            header,
            snapshot,
            typed: false,
        })
    }

    fn change(&mut self, change: &Change<'_>) -> Result<(), JournalError> {
        let time = self.header.time;
        self.put(|payload| encode::put_change(payload, time, time, change, None))
    }

    fn put(&mut self, write: impl FnOnce(&mut Payload)) -> Result<(), JournalError> {
        self.snapshot.put(write);
        if self.snapshot.waiting_bytes() >= BATCH_BYTES {
            self.snapshot.write_records()?;
        }
        Ok(())
    }

    /// The type table, before the first entry.
    pub fn types(&mut self, types: &Arc<TypeTable>) -> Result<(), JournalError> {
        self.typed = true;
        self.change(&Change::Types(Arc::clone(types)))
    }

    /// A flush that is still to come.
    pub fn pending_flush(&mut self, at: Time) -> Result<(), JournalError> {
        self.change(&Change::Flush { at: Some(at) })
    }

    /// An entry.
    pub fn entry(&mut self, key: Key<'_>, entry: &Entry) -> Result<(), JournalError> {
        self.put(|payload| encode::put_entry(payload, key, entry))
    }

    /// Makes it count: it is synced, read back and named. Without a type table it has the
    /// built-in types.
    pub fn finish(mut self) -> Result<(), JournalError> {
        if !self.typed {
            self.types(&Arc::default())?;
        }
        self.snapshot.complete(None)?;
        self.snapshot.publish(self.disk)?;
        write_store(self.disk, &self.header)
    }
}

fn new_log_id() -> Result<LogId, JournalError> {
    let mut id = LogId::default();
    let filled = rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| failed("draw", "the log id")(error.into()))?;
    if filled == id.len() {
        Ok(id)
    } else {
        Err(failed("draw", "the log id")(
            std::io::ErrorKind::UnexpectedEof.into(),
        ))
    }
}
