//! Where values are that memory does not keep: the files that places point into, and the values
//! that have been written and may leave memory once they last.
//!
//! Invariant: a place that an entry has is of a file in [`Files`], so whoever finds one under the
//! lock of its shard can read it, also after a snapshot has moved the value. A number there is of
//! one file for ever. A value is handed to [`Journal::put_away`] only once its record has been
//! synced. The locks here come after all others and no I/O happens under them; `moving` alone is
//! taken before shards.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::Journal;
use super::disk::{DiskFile, Name};
use crate::key::TypedKey;
use crate::value::Place;

/// With so many bytes waiting to leave memory, a sync does not wait for its time.
const PRESSING_BYTES: u64 = 8 << 20;

/// What values that wait to leave memory want of the next sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wish {
    /// No more than what is known already.
    #[default]
    None,
    /// That there is one: these are the first that wait.
    Some,
    /// That it does not wait for its time.
    Soon,
}

/// The number of a file in a [`Place`]; 0 is none.
pub(super) fn number_of(name: Name) -> u64 {
    match name {
        Name::Segment(number) => number * 2,
        Name::Snapshot(number) => number * 2 + 1,
        Name::Store | Name::Lock => 0,
    }
}

fn name_of(file: u64) -> Name {
    match file % 2 {
        0 => Name::Segment(file / 2),
        _ => Name::Snapshot(file / 2),
    }
}

/// The files that places point into.
#[derive(Clone, Default)]
pub struct Files(Arc<RwLock<HashMap<u64, Arc<dyn DiskFile>>>>);

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.read().keys()).finish()
    }
}

impl Files {
    pub(super) fn insert(&self, name: Name, file: &Arc<dyn DiskFile>) {
        self.0.write().insert(number_of(name), Arc::clone(file));
    }

    pub(super) fn contains(&self, name: Name) -> bool {
        self.0.read().contains_key(&number_of(name))
    }

    /// Forgets the files before this number.
    fn forget_before(&self, number: u64) {
        self.0.write().retain(|file, _| file / 2 >= number);
    }

    /// What reads the value at `place`.
    pub fn locate(&self, place: Place) -> Located {
        Located {
            file: self.0.read().get(&place.file).cloned(),
            place,
        }
    }
}

/// A value in a file that stays readable as long as this lives.
#[derive(Clone)]
pub struct Located {
    file: Option<Arc<dyn DiskFile>>,
    place: Place,
}

/// Why a value cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The system refused.
    #[error("reading {name} at {offset}: {source}")]
    Io {
        /// The file.
        name: String,
        /// Where.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes are not those that were written.
    #[error("{name} is damaged at {offset}")]
    Damaged {
        /// The file.
        name: String,
        /// Where.
        offset: u64,
    },
}

impl Located {
    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.place.len as usize
    }

    /// True for a value of no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the bytes and checks them. May take as long as the disk takes: call it without any
    /// lock and not from a thread that serves.
    pub fn read(&self) -> Result<Vec<u8>, Unreadable> {
        let Place {
            file, offset, crc, ..
        } = self.place;
        let failed = |source| Unreadable::Io {
            name: name_of(file).to_string(),
            offset,
            source,
        };
        let opened = self.file.as_ref();
        let opened = opened.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let mut bytes = vec![0; self.len()];
        opened.read_exact_at(offset, &mut bytes).map_err(failed)?;
        if crc32c::crc32c(&bytes) == crc {
            Ok(bytes)
        } else {
            Err(Unreadable::Damaged {
                name: name_of(file).to_string(),
                offset,
            })
        }
    }
}

impl std::fmt::Debug for Located {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.place.fmt(f)
    }
}

/// A value in the journal that does not have to stay in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// Its entry.
    pub key: TypedKey,
    /// The record that made it, which is the entry's cas unique as long as it is the same.
    pub seq: u64,
    /// Its file, as in a [`Place`].
    pub file: u64,
    /// Where it begins: in its payload first, and once that is written in the file.
    pub offset: u64,
    /// How many bytes it has.
    pub len: u32,
}

impl Leaving {
    /// Where the value is, whose bytes are these.
    pub fn at(&self, bytes: &[u8]) -> Place {
        Place {
            file: self.file,
            offset: self.offset,
            len: self.len,
            crc: crc32c::crc32c(bytes),
        }
    }
}

/// The files and the values on their way out.
pub(super) struct Places {
    pub(super) files: Files,
    written: Mutex<Written>,
    /// Held while values leave, so that none leaves for a file that is about to go.
    moving: Mutex<()>,
}

/// In the order of their records.
#[derive(Default)]
struct Written {
    values: VecDeque<Leaving>,
    bytes: u64,
    /// Older ones, which a snapshot in the making moves, or which wait on if it fails.
    aside: VecDeque<Leaving>,
}

impl Written {
    fn count(&mut self) {
        let bytes = self.values.iter().map(|value| u64::from(value.len));
        self.bytes = bytes.sum();
    }
}

impl Places {
    pub(super) fn new(files: Files) -> Self {
        Self {
            files,
            written: Mutex::default(),
            moving: Mutex::default(),
        }
    }

    /// Values that have been written to a file, in a payload that begins there; what was written
    /// before is synced up to `synced`.
    pub(super) fn wrote(
        &self,
        (file, start): (Name, u64),
        values: &[Leaving],
        synced: u64,
    ) -> Wish {
        let mut written = self.written.lock();
        let first = written.values.back().is_none_or(|last| last.seq <= synced);
        for value in values {
            written.bytes += u64::from(value.len);
            written.values.push_back(Leaving {
                file: number_of(file),
                offset: start + value.offset,
                ..*value
            });
        }
        match first {
            _ if written.bytes >= PRESSING_BYTES => Wish::Soon,
            true => Wish::Some,
            false => Wish::None,
        }
    }

    /// True if values wait for a sync, where everything up to `synced` is synced.
    pub(super) fn wait_for_sync(&self, synced: u64) -> bool {
        let written = self.written.lock();
        written.values.back().is_some_and(|last| last.seq > synced)
    }

    /// Nothing that waits leaves: the file has failed.
    pub(super) fn keep_all(&self) {
        *self.written.lock() = Written::default();
    }

    /// From now on, until [`Self::snapshot_ended`], no value leaves for a file before this number.
    pub(super) fn keep_before(&self, number: u64) {
        let _moving = self.moving.lock();
        let mut written = self.written.lock();
        let older = written
            .values
            .partition_point(|value| value.file / 2 < number);
        let newer = written.values.split_off(older);
        written.aside = std::mem::replace(&mut written.values, newer);
        written.count();
    }

    /// A snapshot is complete, and has what waited before it, or has failed: then that waits on.
    pub(super) fn snapshot_ended(&self, complete: bool) {
        let mut written = self.written.lock();
        let mut aside = std::mem::take(&mut written.aside);
        if !complete && !aside.is_empty() {
            aside.append(&mut written.values);
            written.values = aside;
            written.count();
        }
    }

    /// No place points into a file before this number any more.
    pub(super) fn forget_before(&self, number: u64) {
        self.files.forget_before(number);
    }

    /// True if values wait to leave memory, synced or not.
    pub(super) fn is_waiting(&self) -> bool {
        !self.written.lock().values.is_empty()
    }

    fn next(&self, upto: u64) -> Option<Leaving> {
        let mut written = self.written.lock();
        let value = written.values.pop_front_if(|value| value.seq <= upto)?;
        written.bytes -= u64::from(value.len);
        Some(value)
    }
}

impl Journal {
    /// The files that places point into.
    pub fn files(&self) -> &Files {
        &self.shared.places.files
    }

    /// Calls `leave` with each value that does not have to stay in memory and that lasts, also
    /// where the journal promises less: after a failure memory is the truth. Call it without any
    /// lock.
    pub fn put_away(&self, mut leave: impl FnMut(&Leaving)) {
        let shared = &*self.shared;
        let _moving = shared.places.moving.lock();
        let upto = self.synced();
        while let Some(value) = shared.places.next(upto) {
            leave(&value);
        }
    }
}
