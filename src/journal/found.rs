//! What is in the data directory before recovery reads it: which files, whose they are, and
//! which of them make up the state.
//!
//! Invariant: every file here has a valid header, of this store, with the number that its name
//! says. Recovery alone uses this.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::JournalError;
use super::disk::{Disk, DiskFile, Name};
use super::record::{BadHeader, FILE_HEADER_BYTES, FileHeader, FileKind};
use super::scan::{BatchReader, Step};
use super::segment::{Kept, failed};

/// No file has a larger number: those that follow it, and a place in it, are counted from it.
const NUMBER_MAX: u64 = u64::MAX / 4;

/// A file with a valid header.
pub(super) struct Opened {
    pub(super) name: Name,
    pub(super) header: FileHeader,
    pub(super) len: u64,
    pub(super) file: Arc<dyn DiskFile>,
}

impl Opened {
    fn read(disk: &dyn Disk, name: Name, kind: FileKind) -> Result<Self, JournalError> {
        let file = disk.open(&name.to_string()).map_err(failed("open", name))?;
        let len = file.len().map_err(failed("read", name))?;
        let mut bytes = [0; FILE_HEADER_BYTES];
        let read = usize::try_from(len).map_or(FILE_HEADER_BYTES, |len| len.min(FILE_HEADER_BYTES));
        let bytes = bytes.get_mut(..read).unwrap_or_default();
        file.read_exact_at(0, bytes).map_err(failed("read", name))?;
        let header = FileHeader::decode(kind, bytes).map_err(|bad| bad_header(name, bad))?;
        let opened = Self {
            name,
            header,
            len,
            file: Arc::from(file),
        };
        match name {
            Name::Segment(number) | Name::Snapshot(number) if number != header.number => {
                Err(opened.damaged(0, 0, "the number in the file is not that of its name"))
            }
            Name::Segment(number) | Name::Snapshot(number) if number > NUMBER_MAX => {
                Err(opened.damaged(0, 0, "no store has come to a file of this number"))
            }
            Name::Segment(_) | Name::Snapshot(_) | Name::Store | Name::Lock => Ok(opened),
        }
    }

    /// The error of a damage in this file.
    pub(super) fn damaged(&self, offset: u64, seq: u64, what: &str) -> JournalError {
        JournalError::Damaged {
            name: self.name.to_string(),
            offset,
            seq,
            what: what.to_owned(),
        }
    }

    /// The error of what a later release has written in this file.
    pub(super) fn unknown(&self, what: String) -> JournalError {
        JournalError::Unknown {
            name: self.name.to_string(),
            what,
        }
    }

    /// The error of records that are missing between this segment and `follower`.
    pub(super) fn gap(&self, follower: &Self, next_seq: u64) -> JournalError {
        if follower.header.fresh {
            return JournalError::Missing {
                missing: Name::Snapshot(follower.header.number).to_string(),
            };
        }
        if follower.header.number > self.header.number + 1 {
            return JournalError::Missing {
                missing: Name::Segment(self.header.number + 1).to_string(),
            };
        }
        let what = format!("{} does not begin where {} ends", follower.name, self.name);
        follower.damaged(0, next_seq, &what)
    }

    /// True for a segment that begins at a snapshot and has no batch.
    fn is_fresh_and_empty(&self) -> Result<bool, JournalError> {
        let mut reader = BatchReader::new(&*self.file, &self.header, self.len);
        let step = reader.step().map_err(failed("read", self.name))?;
        Ok(self.header.fresh && step == Step::Clean)
    }
}

fn bad_header(name: Name, bad: BadHeader) -> JournalError {
    let what = match bad {
        BadHeader::Damaged(what) => {
            return JournalError::Damaged {
                name: name.to_string(),
                offset: 0,
                seq: 0,
                what: what.to_owned(),
            };
        }
        BadHeader::Version(version) => format!("format version {version}"),
        BadHeader::Features(features) => format!("unknown features {features:#x}"),
    };
    JournalError::Unknown {
        name: name.to_string(),
        what,
    }
}

/// All files of the directory that are ours.
pub(super) struct Found {
    store: Option<Opened>,
    snapshots: BTreeMap<u64, Opened>,
    segments: BTreeMap<u64, Opened>,
    /// Segments of a snapshot that never got its name: they have no batch.
    orphans: BTreeMap<u64, Opened>,
    pub(super) temporaries: Vec<String>,
}

impl Found {
    /// Reads the directory and the files' headers.
    pub(super) fn read(disk: &dyn Disk) -> Result<Self, JournalError> {
        let mut found = Self {
            store: None,
            snapshots: BTreeMap::new(),
            segments: BTreeMap::new(),
            orphans: BTreeMap::new(),
            temporaries: Vec::new(),
        };
        for text in disk.list().map_err(failed("list", "the data directory"))? {
            match Name::parse(&text) {
                Some(name @ Name::Segment(number)) => {
                    let segment = Opened::read(disk, name, FileKind::Segment)?;
                    found.segments.insert(number, segment);
                }
                Some(name @ Name::Snapshot(number)) => {
                    let snapshot = Opened::read(disk, name, FileKind::Snapshot)?;
                    found.snapshots.insert(number, snapshot);
                }
                Some(name @ Name::Store) => {
                    found.store = Some(Opened::read(disk, name, FileKind::Store)?);
                }
                None if Name::is_temporary(&text) => found.temporaries.push(text),
                Some(Name::Lock) | None => {}
            }
        }
        found.check_log_ids()?;
        found.set_orphans_apart()?;
        Ok(found)
    }

    fn check_log_ids(&self) -> Result<(), JournalError> {
        let mut files = self
            .store
            .iter()
            .chain(self.snapshots.values())
            .chain(self.segments.values());
        let Some(first) = files.next() else {
            return Ok(());
        };
        match files.find(|file| file.header.log_id != first.header.log_id) {
            Some(file) => Err(JournalError::ForeignLog {
                name: file.name.to_string(),
                other: first.name.to_string(),
            }),
            None => Ok(()),
        }
    }

    fn set_orphans_apart(&mut self) -> Result<(), JournalError> {
        let mut orphans = Vec::new();
        for (number, segment) in &self.segments {
            if !self.snapshots.contains_key(number) && segment.is_fresh_and_empty()? {
                orphans.push(*number);
            }
        }
        for number in orphans {
            if let Some(orphan) = self.segments.remove(&number) {
                self.orphans.insert(number, orphan);
            }
        }
        Ok(())
    }

    /// True if there is no store here yet, or one whose making was cut short.
    pub(super) fn is_new(&self) -> bool {
        self.store.is_none() && self.snapshots.is_empty() && self.segments.is_empty()
    }

    /// Removes what a making that was cut short has left.
    pub(super) fn remove_all(&self, disk: &dyn Disk) -> Result<(), JournalError> {
        for orphan in self.orphans() {
            disk.remove(&orphan.name.to_string())
                .map_err(failed("remove", orphan.name))?;
        }
        for name in &self.temporaries {
            disk.remove(name).map_err(failed("remove", name))?;
        }
        disk.sync_dir()
            .map_err(failed("sync", "the data directory"))
    }

    /// Segments that no start needs, wherever it begins: no record and no snapshot is there.
    pub(super) fn orphans(&self) -> impl Iterator<Item = &Opened> {
        self.orphans.values()
    }

    /// The generation in `STORE`; 0 without one.
    pub(super) fn store_generation(&self) -> u64 {
        self.store
            .as_ref()
            .map_or(0, |store| store.header.generation)
    }

    /// The highest number that any file has.
    pub(super) fn last_number(&self) -> u64 {
        let files = [&self.snapshots, &self.segments, &self.orphans];
        let last = files
            .into_iter()
            .filter_map(|files| files.keys().next_back());
        last.copied().max().unwrap_or(0)
    }

    /// The snapshot to begin with and the segments from it on.
    pub(super) fn choose(&self) -> Result<(&Opened, Vec<&Opened>), JournalError> {
        let generation = self.store_generation();
        let snapshot = self
            .snapshots
            .values()
            .rev()
            .find(|snapshot| snapshot.header.generation >= generation);
        let Some(snapshot) = snapshot else {
            let segments = self.segments.keys().chain(self.orphans.keys());
            let first = Name::Snapshot(segments.min().copied().unwrap_or(1));
            return Err(JournalError::Missing {
                missing: format!("a snapshot of generation {generation} (such as {first})"),
            });
        };
        let number = snapshot.header.number;
        let segments: Vec<_> = self
            .segments
            .range(number..)
            .map(|(_, opened)| opened)
            .collect();
        match segments.first() {
            Some(first) if first.header.number == number => Ok((snapshot, segments)),
            Some(_) | None => Err(JournalError::Missing {
                missing: Name::Segment(number).to_string(),
            }),
        }
    }

    /// All files that this store may remove one day: those of the generation or a later one.
    pub(super) fn kept(&self, generation: u64) -> BTreeMap<Name, Kept> {
        self.snapshots
            .values()
            .chain(self.segments.values())
            .filter(|file| file.header.generation >= generation)
            .map(|opened| {
                let kept = Kept {
                    name: opened.name,
                    number: opened.header.number,
                    generation: opened.header.generation,
                    bytes: opened.len,
                    file: Arc::clone(&opened.file),
                };
                (opened.name, kept)
            })
            .collect()
    }
}
