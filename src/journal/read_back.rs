//! Reading a snapshot back that has just been written: it counts only if it is what was meant,
//! and values that are not in memory are found in it from then on. Snapshots alone use this.

use super::JournalError;
use super::decode::{self, DecodeError, Frame, Record, Source};
use super::disk::{DiskFile, Name};
use super::pace::Pace;
use super::places;
use super::record::{BatchHeader, FILE_HEADER_BYTES, FileHeader, FileKind};
use super::scan::{BatchReader, Step};
use super::segment::failed;
use crate::codec::Reader;
use crate::key::{Key, TypedKey};
use crate::value::{Blob, Value};

/// Hears where the value of a DATA entry is now, once it has been read back there: its key, its
/// cas unique and its form away from memory. Called without a lock.
pub type Moved<'m> = dyn FnMut(TypedKey, u64, Blob) + 'm;

/// A snapshot file as it should be.
pub(super) struct Written<'w> {
    pub(super) file: &'w dyn DiskFile,
    /// What it is called now.
    pub(super) name: &'w str,
    pub(super) header: &'w FileHeader,
    pub(super) len: u64,
    pub(super) records: u64,
}

/// Reads the file, which has been synced, from the medium and compares it with what it should be,
/// no faster than at the rate of `pace`; tells `moved` of each DATA value.
pub(super) fn read_back(
    written: &Written<'_>,
    pace: &Pace,
    mut moved: Option<&mut Moved<'_>>,
) -> Result<(), JournalError> {
    let read = failed("read back", written.name);
    let damaged = |offset, what: &str| JournalError::Damaged {
        name: written.name.to_owned(),
        offset,
        seq: written.header.base_seq,
        what: what.to_owned(),
    };
    written.file.drop_cached(0..written.len);
    let mut pace = pace.anew();
    let mut bytes = [0; FILE_HEADER_BYTES];
    let mut begin = || {
        let len = written.file.len()?;
        written.file.read_exact_at(0, &mut bytes)?;
        Ok(len)
    };
    let len = begin().map_err(read)?;
    let header = FileHeader::decode(FileKind::Snapshot, &bytes);
    if header.as_ref() != Ok(written.header) || len != written.len {
        return Err(damaged(0, "it was not read back as it was written"));
    }
    let mut reader = BatchReader::new(written.file, written.header, len);
    loop {
        let before = reader.offset();
        match reader.step().map_err(failed("read back", written.name))? {
            Step::Batch(batch) => {
                written.file.drop_cached(before..reader.offset());
                pace.breathe();
                pace.spend(reader.offset() - before)?;
                if let Some(moved) = &mut moved {
                    tell(written.header, &batch, &reader, moved)
                        .map_err(|error| damaged(reader.offset(), &error.to_string()))?;
                }
            }
            Step::End if reader.next_seq() == written.records => return Ok(()),
            Step::End | Step::Clean => {
                return Err(damaged(
                    reader.offset(),
                    "it ends early when it is read back",
                ));
            }
            Step::Damaged(what) => return Err(damaged(reader.offset(), what)),
            Step::Unknown(_) => {
                return Err(damaged(reader.offset(), "a batch of an unknown kind"));
            }
        }
    }
}

fn tell(
    header: &FileHeader,
    batch: &BatchHeader,
    from: &BatchReader<'_>,
    moved: &mut Moved<'_>,
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(from.payload().bytes());
    let frame = Frame {
        version: header.version,
        base: batch.time,
        source: Some(Source {
            types: None,
            file: places::number_of(Name::Snapshot(header.number)),
            end: from.offset(),
        }),
    };
    for _ in 0..batch.count {
        let (_, record) = decode::record(&mut reader, &frame)?;
        if let Record::Entry(Key::Typed(key), entry) = record
            && let Value::Data(blob) = entry.value
            && blob.is_away()
        {
            moved(key, entry.cas, blob);
        }
    }
    Ok(())
}
