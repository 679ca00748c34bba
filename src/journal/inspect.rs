//! Looking at a directory: which files there are, and what can be read of each, damaged or not.
//!
//! Invariant: nothing is made or changed, and no damage ends the looking. What a start would do
//! with the directory is not decided here but by [`super::verify`], which is the start's own
//! reading. The tools use this.

use std::ops::Range;
use std::sync::Arc;

use super::JournalError;
use super::disk::{Disk, DiskFile, Name};
use super::lossy::LossyFile;
use super::record::{BadHeader, FILE_HEADER_BYTES, FileHeader, FileKind, LogId, VERSION};
use super::segment::failed;
use crate::clock::Time;
use crate::command::change::Change;
use crate::key::Key;
use crate::value::Entry;

/// What a directory holds.
pub struct Catalog {
    /// `STORE`, the snapshots and the segments, by kind and number.
    pub files: Vec<Item>,
    /// All else.
    pub others: Vec<(String, Other)>,
    /// The store that the files are of.
    pub log_id: Option<LogId>,
}

/// A file that is no part of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// The lock.
    Lock,
    /// A file whose making was cut short; a start removes it.
    Temporary,
    /// A torn tail that a start has put aside.
    Quarantined,
    /// Not one of ours.
    Stray,
}

/// A file of the store.
pub struct Item {
    /// Its name.
    pub name: Name,
    /// Its length in bytes.
    pub len: u64,
    /// Its header, or what is wrong with it.
    pub header: Result<FileHeader, String>,
    /// It is of a later release, or of another store: it cannot be read.
    pub foreign: bool,
    file: Option<Arc<dyn DiskFile>>,
}

/// Bytes that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Where they begin.
    pub offset: u64,
    /// How many they are; 0 if whole batches are missing without a trace.
    pub bytes: u64,
    /// The sequence numbers (in a snapshot the positions) that were there, if that is known.
    pub lost: Option<Range<u64>>,
    /// What is wrong.
    pub what: String,
}

/// What reading a file has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Whole batches.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// The sequence numbers (in a snapshot the positions) of these, ascending.
    pub spans: Vec<Range<u64>>,
    /// The latest time of a record.
    pub newest: Time,
    /// It has been closed.
    pub closed: bool,
    /// What cannot be read.
    pub holes: Vec<Hole>,
    /// What follows the last whole batch had been synced, or the file closed after it.
    pub promised: bool,
    /// Where the last whole batch ends.
    pub end: u64,
    /// The sequence number that comes next.
    pub next_seq: u64,
    /// What the next segment names as what is before it.
    pub prev_crc: u32,
}

/// What takes the records of a file.
pub trait Sink {
    /// An entry of a snapshot.
    fn entry(&mut self, key: Key<'_>, entry: Entry);
    /// A change; those of a snapshot come with `seq` 0.
    fn change(&mut self, seq: u64, time: Time, change: Change<'_>);
    /// So many bytes more have been read.
    fn progress(&mut self, bytes: u64);
}

impl Catalog {
    /// Lists the directory and reads the headers.
    pub fn read(disk: &dyn Disk) -> Result<Self, JournalError> {
        let mut catalog = Self {
            files: Vec::new(),
            others: Vec::new(),
            log_id: None,
        };
        for text in disk.list().map_err(failed("list", "the directory"))? {
            let name = match Name::parse(&text) {
                Some(name @ (Name::Store | Name::Snapshot(_) | Name::Segment(_))) => name,
                Some(Name::Lock) => {
                    catalog.others.push((text, Other::Lock));
                    continue;
                }
                None => {
                    let other = match () {
                        () if Name::is_temporary(&text) => Other::Temporary,
                        () if Name::is_torn(&text) => Other::Quarantined,
                        () => Other::Stray,
                    };
                    catalog.others.push((text, other));
                    continue;
                }
            };
            catalog.files.push(Item::read(disk, name));
        }
        catalog.files.sort_by_key(Item::order);
        catalog.log_id = catalog.own_log_id();
        for item in &mut catalog.files {
            let of_another = |header: &FileHeader| Some(header.log_id) != catalog.log_id;
            item.foreign |= item.header.as_ref().is_ok_and(of_another);
        }
        Ok(catalog)
    }

    /// The store that most files are of; of equals, `STORE`'s.
    fn own_log_id(&self) -> Option<LogId> {
        let ids = || {
            self.files
                .iter()
                .rev()
                .filter_map(|item| Some(item.header.as_ref().ok()?.log_id))
        };
        ids().max_by_key(|id| ids().filter(|other| other == id).count())
    }

    /// The snapshots, ascending.
    pub fn snapshots(&self) -> impl DoubleEndedIterator<Item = &Item> {
        let is_snapshot = |item: &&Item| matches!(item.name, Name::Snapshot(_));
        self.files.iter().filter(is_snapshot)
    }

    /// The segments, ascending.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &Item> {
        let is_segment = |item: &&Item| matches!(item.name, Name::Segment(_));
        self.files.iter().filter(is_segment)
    }
}

impl Item {
    fn read(disk: &dyn Disk, name: Name) -> Self {
        let mut item = Self {
            name,
            len: 0,
            header: Err(String::new()),
            foreign: false,
            file: None,
        };
        let opened = disk.open(&name.to_string()).and_then(|file| {
            item.len = file.len()?;
            let mut bytes = vec![
                0;
                usize::try_from(item.len)
                    .unwrap_or(usize::MAX)
                    .min(FILE_HEADER_BYTES)
            ];
            item.file = Some(Arc::from(file));
            if let Some(file) = &item.file {
                file.read_exact_at(0, &mut bytes)?;
            }
            Ok(bytes)
        });
        item.header = match opened {
            Err(error) => Err(format!("it cannot be read: {error}")),
            Ok(bytes) => match FileHeader::decode(item.kind(), &bytes) {
                Ok(header) if item.number().is_none_or(|number| number == header.number) => {
                    Ok(header)
                }
                Ok(_) => Err("the number in the file is not that of its name".to_owned()),
                Err(BadHeader::Damaged(what)) => Err(what.to_owned()),
                Err(BadHeader::Version(version)) => {
                    item.foreign = true;
                    Err(format!(
                        "format version {version} is that of a later release"
                    ))
                }
                Err(BadHeader::Features(_)) => {
                    item.foreign = true;
                    Err("it has features of a later release".to_owned())
                }
            },
        };
        item
    }

    fn order(&self) -> (u8, u64) {
        let kind = match self.name {
            Name::Store => 0,
            Name::Snapshot(_) => 1,
            Name::Segment(_) | Name::Lock => 2,
        };
        (kind, self.number().unwrap_or(0))
    }

    const fn kind(&self) -> FileKind {
        match self.name {
            Name::Snapshot(_) => FileKind::Snapshot,
            Name::Segment(_) => FileKind::Segment,
            Name::Store | Name::Lock => FileKind::Store,
        }
    }

    /// The number in its name.
    pub const fn number(&self) -> Option<u64> {
        match self.name {
            Name::Snapshot(number) | Name::Segment(number) => Some(number),
            Name::Store | Name::Lock => None,
        }
    }

    /// True if a start that begins with the snapshot `base` reads this file.
    pub fn is_from(&self, base: Name) -> bool {
        match (self.name, base) {
            (Name::Segment(number), Name::Snapshot(base)) => number >= base,
            (name, base) => name == base || name == Name::Store,
        }
    }

    /// Reads the file; what can be read goes to `sink`. A file without a header of its own is
    /// read as one of the store `log_id`. `None` if it is foreign or cannot be opened.
    pub fn scan(&self, log_id: Option<LogId>, sink: &mut dyn Sink) -> Option<Scan> {
        let file = self.file.as_deref().filter(|_| !self.foreign)?;
        if self.name == Name::Store {
            return None;
        }
        let made_up = || {
            Some(FileHeader {
                kind: self.kind(),
                version: VERSION,
                log_id: log_id?,
                generation: 0,
                number: self.number()?,
                base_seq: 0,
                time: Time(0),
                chain: 0,
                fresh: false,
            })
        };
        let lossy = LossyFile {
            file,
            header: self.header.as_ref().ok().copied().or_else(made_up)?,
            bad_header: self.header.as_ref().err().map(String::as_str),
            len: self.len,
        };
        Some(lossy.read(sink))
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::cast_possible_truncation,
        clippy::single_range_in_vec_init,
        reason = "small numbers of tests; a row of one range is meant"
    )]

    use super::super::record::BATCH_HEADER_BYTES;
    use super::super::sim::SimDisk;
    use super::super::{Journal, Options, Progress, Replay, ReplayError, room_bytes};
    use super::*;
    use crate::value::{Blob, Value};

    struct Nothing;

    impl Replay for Nothing {
        fn entry(&mut self, _: Key<'_>, _: Entry) -> Result<(), ReplayError> {
            Ok(())
        }
        fn change(&mut self, _: u64, _: Time, _: Change<'_>) -> Result<(), ReplayError> {
            Ok(())
        }
        fn progress(&mut self, _: &Progress) -> Result<(), ReplayError> {
            Ok(())
        }
    }

    #[derive(Default)]
    struct Seen(Vec<u64>);

    impl Sink for Seen {
        fn entry(&mut self, _: Key<'_>, entry: Entry) {
            self.0.push(entry.cas);
        }
        fn change(&mut self, seq: u64, _: Time, _: Change<'_>) {
            self.0.push(seq);
        }
        fn progress(&mut self, _: u64) {}
    }

    fn put(value: &[u8]) -> Change<'_> {
        Change::Put {
            key: Key::Named(b"name"),
            value: Value::Data(Blob::named(b"name", value)),
            flags: 0,
            expires: crate::clock::Expiry::NEVER,
        }
    }

    /// A closed store of six records, each a batch of its own, and where the batches begin.
    fn store() -> (SimDisk, Vec<u64>) {
        let disk = SimDisk::new();
        let options = Options {
            background: false,
            ..Options::default()
        };
        let (journal, _) = Journal::open(Arc::new(disk.clone()), options, &mut Nothing).unwrap();
        let mut begins = vec![FILE_HEADER_BYTES as u64];
        for length in [3, 0, 40, 11, 5, 1] {
            let value = vec![b'v'; length];
            let room = journal.reserve(room_bytes(1, 100)).unwrap();
            journal.append(Time(1000), &put(&value), room);
            journal.flush().unwrap();
            begins.push(journal.stats().journal_bytes - FILE_HEADER_BYTES as u64);
        }
        journal.close().unwrap();
        (disk, begins)
    }

    fn scan(disk: &SimDisk) -> (Option<Scan>, Vec<u64>) {
        let catalog = Catalog::read(disk).unwrap();
        let last = catalog.segments().next_back().unwrap();
        let mut seen = Seen::default();
        let scan = last.scan(catalog.log_id, &mut seen);
        (scan, seen.0)
    }

    /// Any one byte may be wrong: exactly the records of its batch are lost, and they are named.
    #[test]
    fn a_flipped_byte_costs_its_own_batch_and_no_other() {
        let (disk, begins) = store();
        let name = Name::Segment(2).to_string();
        let whole = disk.read(&name).unwrap();
        assert_eq!(begins[6] + BATCH_HEADER_BYTES as u64, whole.len() as u64);
        let all: Vec<u64> = (1..=6).collect();
        let (undamaged, seen) = scan(&disk);
        let undamaged = undamaged.unwrap();
        assert!(undamaged.holes.is_empty() && undamaged.closed && seen == all);
        assert_eq!(undamaged.spans, [1..7]);
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            disk.put(&name, &bytes);
            let (found, seen) = scan(&disk);
            if (8..12).contains(&at) {
                assert_eq!(found, None, "a later version is not read: {at}");
                continue;
            }
            let found = found.unwrap();
            let batch = begins.iter().filter(|begin| **begin <= at as u64).count() as u64;
            let left: Vec<u64> = all.iter().copied().filter(|seq| *seq != batch).collect();
            assert_eq!(seen, left, "byte {at}");
            let [hole] = &found.holes[..] else {
                panic!("byte {at}: {:?}", found.holes);
            };
            let lost = (1..=6).contains(&batch).then(|| batch..batch + 1);
            let named = hole.lost.clone().filter(|lost| !lost.is_empty());
            assert_eq!(named, lost, "byte {at}");
            let begin = begins.get((batch as usize).wrapping_sub(1)).copied();
            assert_eq!(hole.offset, begin.unwrap_or(0), "byte {at}");
            assert_eq!(found.closed, batch != 7, "byte {at}");
        }
    }

    #[test]
    fn what_is_missing_or_comes_again_is_named() {
        let (disk, begins) = store();
        let name = Name::Segment(2).to_string();
        let whole = disk.read(&name).unwrap();
        let part = |batch: usize| &whole[begins[batch - 1] as usize..begins[batch] as usize];
        // The third batch is gone without a trace.
        let without = [&whole[..begins[2] as usize], &whole[begins[3] as usize..]].concat();
        disk.put(&name, &without);
        let (found, seen) = scan(&disk);
        assert_eq!(seen, [1, 2, 4, 5, 6]);
        let hole = &found.unwrap().holes[0];
        assert_eq!((hole.bytes, hole.lost.clone()), (0, Some(3..4)));
        // The second batch comes a second time.
        let twice = [
            &whole[..begins[3] as usize],
            part(2),
            &whole[begins[3] as usize..],
        ]
        .concat();
        disk.put(&name, &twice);
        let (found, seen) = scan(&disk);
        assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
        let hole = &found.unwrap().holes[0];
        assert_eq!(
            (hole.bytes, hole.lost.clone()),
            (part(2).len() as u64, Some(4..4))
        );
        // Cut in the middle of a batch.
        disk.put(&name, &whole[..begins[4] as usize + 9]);
        let (found, seen) = scan(&disk);
        assert_eq!(seen, [1, 2, 3, 4]);
        let found = found.unwrap();
        assert_eq!((found.holes[0].offset, found.promised), (begins[4], false));
        assert_eq!(found.holes[0].bytes, 9);
    }

    #[test]
    fn verifying_reads_as_a_start_does_and_changes_nothing() {
        let (disk, begins) = store();
        let before: Vec<_> = disk.list().unwrap();
        let recovered = super::super::verify(&disk, &mut Nothing).unwrap();
        assert_eq!((recovered.records, recovered.torn_bytes), (6, 0));
        let name = Name::Segment(2).to_string();
        let torn = disk.read(&name).unwrap()[..begins[5] as usize + 9].to_vec();
        disk.put(&name, &torn);
        let recovered = super::super::verify(&disk, &mut Nothing).unwrap();
        assert_eq!((recovered.records, recovered.torn_bytes), (5, 9));
        assert_eq!(disk.list().unwrap(), before);
        assert_eq!(disk.read(&name).unwrap(), torn);
        let empty = super::super::verify(&SimDisk::new(), &mut Nothing);
        assert!(matches!(empty, Err(JournalError::Missing { .. })));
    }
}
