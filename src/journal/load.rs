//! Batches on their way from the files to the state.
//!
//! One reader goes through the files in order and checks every byte before it hands anything on;
//! what it hands on are windows of several batches. While a window is being taken the next one is
//! read, if the start may use more than one thread. The reader alone touches the disk, always
//! in the same order, and what it finds wrong counts only after all before it was taken: so a
//! start gives the same state or the same refusal with any number of threads.

use std::sync::{Arc, mpsc};

use super::decode::{self, DecodeError, Frame, Record, Source};
use super::disk::Name;
use super::found::Opened;
use super::places;
use super::record::{BATCH_HEADER_BYTES, BatchHeader, FileKind};
use super::scan::Span;
use super::segment::failed;
use super::{JournalError, ReplayError, TakeBatches};
use crate::clock::Time;
use crate::codec::Reader;
use crate::key::Key;
use crate::types::TypeTable;
use crate::value::Value;

/// About how many bytes a window has. Up to three are in memory: one that is read, one that
/// waits, one that is taken.
const WINDOW_BYTES: usize = 4 << 20;

/// Some records, as they are in a file: checked, not decoded.
pub struct Batch {
    name: Name,
    kind: FileKind,
    version: u32,
    offset: u64,
    header: BatchHeader,
    payload: Span,
    /// Values that may leave memory by these types are not loaded.
    leaving: Option<Arc<TypeTable>>,
    /// Records of the journal before this one are in the snapshot.
    from: u64,
    /// The first sequence number that is not in the snapshot.
    base_seq: u64,
}

/// A record, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded<'a> {
    /// Its sequence number; in a snapshot its position.
    pub position: u64,
    /// Its sequence number; 0 in a snapshot.
    pub seq: u64,
    /// When it was decided.
    pub time: Time,
    /// What it says.
    pub record: Record<'a>,
}

/// How much was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Entries of a snapshot.
    pub entries: u64,
    /// Records of the journal.
    pub records: u64,
    /// The latest time of a record.
    pub newest_time: Time,
}

impl Taken {
    /// Counts a record.
    pub fn count(&mut self, batch: &Batch, loaded: &Loaded<'_>) {
        self.newest_time = self.newest_time.max(loaded.time);
        match loaded.record {
            Record::Entry(..) => self.entries += 1,
            Record::Change(_) if batch.is_of_snapshot() => {}
            Record::Change(_) => self.records += 1,
        }
    }
}

impl std::ops::AddAssign for Taken {
    fn add_assign(&mut self, other: Self) {
        self.entries += other.entries;
        self.records += other.records;
        self.newest_time = self.newest_time.max(other.newest_time);
    }
}

/// How far a start is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that were taken.
    pub done_bytes: u64,
    /// Bytes that there are.
    pub total_bytes: u64,
    /// What was in them.
    pub taken: Taken,
}

impl Batch {
    pub(super) fn new(
        file: &Opened,
        offset: u64,
        header: BatchHeader,
        payload: Span,
        from: u64,
    ) -> Self {
        Self {
            name: file.name,
            kind: file.header.kind,
            version: file.header.version,
            offset,
            header,
            payload,
            leaving: None,
            from,
            base_seq: file.header.base_seq,
        }
    }

    /// The length of its records.
    pub fn bytes(&self) -> usize {
        self.payload.bytes().len()
    }

    /// True for a batch of a snapshot.
    pub fn is_of_snapshot(&self) -> bool {
        self.kind == FileKind::Snapshot
    }

    /// True if values of this type may have been left in the files.
    pub fn leaves_values_of(&self, prefix: u16) -> bool {
        self.leaving
            .as_ref()
            .is_some_and(|types| types.may_leave(prefix, usize::MAX))
    }

    /// Calls `see` with every record that belongs to the state, in order, until it fails.
    pub fn for_each<'a>(
        &'a self,
        mut see: impl FnMut(Loaded<'a>) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let mut reader = Reader::new(self.payload.bytes());
        let frame = Frame {
            version: self.version,
            base: self.header.time,
            source: self.leaving.as_ref().map(|types| Source {
                types: Some(types),
                file: places::number_of(self.name),
                end: self.offset + (BATCH_HEADER_BYTES + self.bytes()) as u64,
            }),
        };
        for position in (self.header.first_seq..).take(self.header.count as usize) {
            let (time, record) =
                decode::record(&mut reader, &frame).map_err(|error| self.unread(error))?;
            let is_change = matches!(record, Record::Change(_));
            if !is_change && !self.is_of_snapshot() {
                return Err(self.misplaced());
            }
            // A named key may have a cas unique that a client gave it.
            if let Record::Entry(Key::Typed(_), entry) = &record
                && !matches!(entry.value, Value::Number(_))
                && entry.cas >= self.base_seq
            {
                return Err(self.damaged("an entry is newer than its snapshot".to_owned()));
            }
            if is_change && !self.is_of_snapshot() && position < self.from {
                continue;
            }
            see(Loaded {
                position,
                seq: if self.is_of_snapshot() { 0 } else { position },
                time,
                record,
            })?;
        }
        if reader.is_empty() {
            Ok(())
        } else {
            Err(self.misplaced())
        }
    }

    fn unread(&self, error: DecodeError) -> JournalError {
        match error {
            DecodeError::Unknown(..) => JournalError::Unknown {
                name: self.name.to_string(),
                what: error.to_string(),
            },
            error => self.damaged(error.to_string()),
        }
    }

    fn misplaced(&self) -> JournalError {
        self.damaged("a record that cannot be here".to_owned())
    }

    fn damaged(&self, what: String) -> JournalError {
        JournalError::Damaged {
            name: self.name.to_string(),
            offset: self.offset,
            seq: 0,
            what,
        }
    }

    /// The error of a record that the state did not take.
    pub fn refused(&self, position: u64, source: ReplayError) -> JournalError {
        JournalError::Replay {
            name: self.name.to_string(),
            seq: position,
            source,
        }
    }
}

/// Batches that follow each other.
struct Window {
    batches: Vec<Batch>,
    payload_bytes: usize,
    /// Their bytes in the file.
    file_bytes: u64,
}

impl Window {
    const EMPTY: Self = Self {
        batches: Vec::new(),
        payload_bytes: 0,
        file_bytes: 0,
    };
}

/// Takes a window; the reader ends at an error.
type Deliver<'d> = dyn FnMut(Window) -> Result<(), JournalError> + 'd;

/// What the reader fills.
pub(super) struct Feed<'d> {
    window: Window,
    leaving: Option<Arc<TypeTable>>,
    deliver: &'d mut Deliver<'d>,
}

impl Feed<'_> {
    /// Which values are not loaded.
    pub(super) fn leave(&mut self, types: Option<&Arc<TypeTable>>) {
        self.leaving = types.cloned();
    }

    /// Hands a batch on that takes so many bytes of its file.
    pub(super) fn push(&mut self, batch: Batch, file_bytes: u64) -> Result<(), JournalError> {
        let leaving = self.leaving.clone();
        let batch = Batch { leaving, ..batch };
        self.window.payload_bytes += batch.bytes();
        self.window.file_bytes += file_bytes;
        self.window.batches.push(batch);
        if self.window.payload_bytes < WINDOW_BYTES {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), JournalError> {
        let window = std::mem::replace(&mut self.window, Window::EMPTY);
        if window.batches.is_empty() {
            return Ok(());
        }
        (self.deliver)(window)
    }
}

/// Reads with `read`, and gives what it hands on to `sink`. `threads` may be used; with one
/// everything happens on the caller's, and so it does with a small store.
pub(super) fn load<T: Send>(
    (threads, total_bytes): (usize, u64),
    sink: &mut dyn TakeBatches,
    read: impl FnOnce(&mut Feed<'_>) -> Result<T, JournalError> + Send,
) -> Result<(T, Progress), JournalError> {
    let mut progress = Progress {
        total_bytes,
        ..Progress::default()
    };
    sink.progress(&progress).map_err(JournalError::Rejected)?;
    let mut take = |window: Window| {
        progress.taken += sink.batches(&window.batches)?;
        progress.done_bytes += window.file_bytes;
        sink.progress(&progress).map_err(JournalError::Rejected)
    };
    let read = if threads < 2 || total_bytes <= WINDOW_BYTES as u64 {
        read_through(read, &mut take)
    } else {
        ahead(read, &mut take)
    };
    Ok((read?, progress))
}

/// What was read before an error counts before the error.
fn read_through<T>(
    read: impl FnOnce(&mut Feed<'_>) -> Result<T, JournalError>,
    deliver: &mut Deliver<'_>,
) -> Result<T, JournalError> {
    let mut feed = Feed {
        window: Window::EMPTY,
        leaving: None,
        deliver,
    };
    let read = read(&mut feed);
    feed.flush()?;
    read
}

fn ahead<T: Send>(
    read: impl FnOnce(&mut Feed<'_>) -> Result<T, JournalError> + Send,
    take: &mut Deliver<'_>,
) -> Result<T, JournalError> {
    let (sender, windows) = mpsc::sync_channel(1);
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new()
            .name("reader".into())
            .spawn_scoped(scope, move || {
                // An error that nobody hears: who took the windows has given up, and says why.
                let mut send = |window| sender.send(window).map_err(|_| JournalError::Closed);
                read_through(read, &mut send)
            })
            .map_err(failed("start a thread to read", "the data directory"))?;
        let taken = windows.iter().try_for_each(take);
        drop(windows);
        match reader.join() {
            Ok(read) => taken.and(read),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
