//! One file read as far as it can be: damage is noted, skipped, and reading goes on behind it.
//!
//! Invariant: a record is shown only if its batch is one that was written to this file, whole;
//! what lies between is a [`Hole`], and nothing is guessed. Sequence numbers only go up. What
//! cannot be read from the disk is damage like any other. Only [`super::inspect`] uses this; a
//! start reads with [`super::scan`] alone and stops at the first damage.

use std::io;
use std::ops::Range;

use parking_lot::Mutex;

use super::decode::{self, Frame, Record};
use super::disk::{DiskFile, Identity};
use super::inspect::{Hole, Scan, Sink};
use super::record::{
    BATCH_HEADER_BYTES, BATCH_MAGIC, BatchHeader, BatchKind, FileHeader, FileKind,
};
use super::record::{FILE_HEADER_BYTES, batch_seed};
use super::scan::{Attested, BatchReader, Step};
use crate::codec::Reader;
use crate::limits::BATCH_BYTES_MAX;

/// A file to be read.
pub(super) struct LossyFile<'f> {
    pub(super) file: &'f dyn DiskFile,
    pub(super) header: FileHeader,
    /// Why the header is not the file's own but made up from the files beside it.
    pub(super) bad_header: Option<&'f str>,
    pub(super) len: u64,
}

impl LossyFile<'_> {
    /// Reads it all; what can be read goes to `sink`.
    pub(super) fn read(&self, sink: &mut dyn Sink) -> Scan {
        let file = Tolerant {
            file: self.file,
            len: self.len,
            unread: Mutex::new(None),
        };
        let mut reader = BatchReader::new(&file, &self.header, self.len);
        let mut scan = Scan::default();
        if let Some(what) = self.bad_header {
            reader.forget_seq();
            scan.holes.push(Hole {
                offset: 0,
                bytes: self.len.min(FILE_HEADER_BYTES as u64),
                lost: None,
                what: what.to_owned(),
            });
        }
        loop {
            let begin = reader.offset();
            let what = match reader.step() {
                Ok(Step::Batch(batch)) => {
                    let payload = reader.payload().clone();
                    self.records(&batch, begin, payload.bytes(), &mut scan, sink);
                    sink.progress(reader.offset() - begin);
                    continue;
                }
                Ok(Step::End) => {
                    scan.closed = true;
                    break;
                }
                Ok(Step::Clean) => match file.unread_from(begin) {
                    None => break,
                    Some(what) => what,
                },
                Ok(Step::Damaged(what)) => {
                    file.unread_from(begin).unwrap_or_else(|| what.to_owned())
                }
                Ok(Step::Unknown(kind)) => format!("a batch of kind {kind}, of a later release"),
                Err(error) => error.to_string(),
            };
            let Some((at, header)) = self.find(&file, begin, reader.next_seq()) else {
                self.tail(&reader, what, &mut scan);
                break;
            };
            // The first batch after a header that was made up is where it should be.
            if self.bad_header.is_none() || at > begin || scan.batches > 0 {
                scan.holes.push(Hole {
                    offset: begin,
                    bytes: at - begin,
                    lost: Some(reader.next_seq()..header.first_seq),
                    what,
                });
            }
            sink.progress(at - begin);
            reader.resume(at, &header);
        }
        scan.end = reader.offset();
        scan.next_seq = reader.next_seq();
        scan.prev_crc = reader.prev_crc();
        scan
    }

    /// What is behind the last batch that can be read.
    fn tail(&self, reader: &BatchReader<'_>, what: String, scan: &mut Scan) {
        let end = reader.rest_end().unwrap_or(self.len);
        let attested = reader.attested().unwrap_or(Attested {
            upto: u64::MAX,
            ended: true,
        });
        scan.promised = attested.ended || attested.upto >= reader.next_seq();
        let upto = attested.upto.max(reader.next_seq().saturating_sub(1));
        let known = attested.upto != u64::MAX && self.header.kind == FileKind::Segment;
        scan.holes.push(Hole {
            offset: reader.offset(),
            bytes: end.saturating_sub(reader.offset()),
            lost: known.then(|| reader.next_seq()..upto.saturating_add(1)),
            what,
        });
    }

    /// Shows the records of a batch.
    fn records(
        &self,
        batch: &BatchHeader,
        offset: u64,
        payload: &[u8],
        scan: &mut Scan,
        sink: &mut dyn Sink,
    ) {
        scan.batches += 1;
        scan.newest = scan.newest.max(batch.time);
        let mut reader = Reader::new(payload);
        let frame = Frame {
            version: self.header.version,
            base: batch.time,
            source: None,
        };
        let mut unread = None;
        let mut seq = batch.first_seq;
        while seq < batch.next_seq() {
            let (time, record) = match decode::record(&mut reader, &frame) {
                Ok(read) => read,
                Err(error) => {
                    unread = Some(error.to_string());
                    break;
                }
            };
            scan.newest = scan.newest.max(time);
            match record {
                Record::Entry(key, entry) if self.header.kind == FileKind::Snapshot => {
                    sink.entry(key, entry);
                }
                Record::Change(change) if self.header.kind == FileKind::Snapshot => {
                    sink.change(0, time, change);
                }
                Record::Change(change) => sink.change(seq, time, change),
                Record::Entry(..) => {
                    unread = Some("a record that cannot be here".to_owned());
                    break;
                }
            }
            scan.records += 1;
            seq += 1;
        }
        scan.add_span(batch.first_seq..seq);
        if let Some(what) = unread {
            scan.holes.push(Hole {
                offset,
                bytes: (BATCH_HEADER_BYTES + payload.len()) as u64,
                lost: Some(seq..batch.next_seq()),
                what,
            });
        }
    }

    /// The next whole batch of this file from `from` on whose records come after those that have
    /// been seen. An older one may be a copy of this very file that somebody stored as a value.
    fn find(&self, file: &Tolerant<'_>, from: u64, next_seq: u64) -> Option<(u64, BatchHeader)> {
        const CHUNK_BYTES: u64 = 1 << 20;
        let mut chunk = Vec::new();
        let mut at = from;
        while at < self.len {
            let bytes = (self.len - at).min(CHUNK_BYTES + BATCH_HEADER_BYTES as u64);
            chunk.resize(usize::try_from(bytes).ok()?, 0);
            file.read_exact_at(at, &mut chunk).ok()?;
            let found = memchr::memmem::find_iter(&chunk, &BATCH_MAGIC).find_map(|position| {
                let header = self.whole(file, at + position as u64, chunk.get(position..)?)?;
                (header.first_seq >= next_seq).then_some((at + position as u64, header))
            });
            if found.is_some() {
                return found;
            }
            at += CHUNK_BYTES;
        }
        None
    }

    /// The header of a batch at `offset` that is whole.
    fn whole(&self, file: &Tolerant<'_>, offset: u64, bytes: &[u8]) -> Option<BatchHeader> {
        let seed = batch_seed(&self.header.log_id, self.header.number);
        let (header, _) = BatchHeader::decode(bytes, seed)?;
        let begin = offset + BATCH_HEADER_BYTES as u64;
        let expected = match self.header.kind {
            FileKind::Snapshot => BatchKind::Snapshot,
            FileKind::Segment | FileKind::Store => BatchKind::Records,
        };
        let fits = u64::from(header.len) <= self.len.saturating_sub(begin)
            && header.len as usize <= BATCH_BYTES_MAX;
        match header.kind {
            BatchKind::End => return Some(header),
            kind if kind != expected || !fits => return None,
            BatchKind::Records | BatchKind::Snapshot | BatchKind::Unknown(_) => {}
        }
        let mut payload = vec![0; header.len as usize];
        let read = file.read_exact_at(begin, &mut payload);
        (read.is_ok() && crc32c::crc32c(&payload) == header.payload_crc).then_some(header)
    }
}

/// A file whose reading never fails: what the disk does not give is zeros, which no checksum
/// fits, and is noted.
struct Tolerant<'f> {
    file: &'f dyn DiskFile,
    len: u64,
    /// The last block that could not be read, and why.
    unread: Mutex<Option<(u64, String)>>,
}

impl Tolerant<'_> {
    /// Why something from `offset` on could not be read.
    fn unread_from(&self, offset: u64) -> Option<String> {
        let unread = self.unread.lock();
        let (at, why) = unread.as_ref()?;
        (*at + BLOCK_BYTES as u64 > offset).then(|| format!("it cannot be read: {why}"))
    }
}

const BLOCK_BYTES: usize = 4096;

impl DiskFile for Tolerant<'_> {
    fn identity(&self) -> io::Result<Identity> {
        self.file.identity()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_exact_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        if self.file.read_exact_at(offset, bytes).is_ok() {
            return Ok(());
        }
        let blocks = bytes.chunks_mut(BLOCK_BYTES);
        for (at, block) in (offset..).step_by(BLOCK_BYTES).zip(blocks) {
            if let Err(error) = self.file.read_exact_at(at, block) {
                block.fill(0);
                let mut unread = self.unread.lock();
                if unread.as_ref().is_none_or(|(last, _)| *last < at) {
                    *unread = Some((at, error.to_string()));
                }
            }
        }
        Ok(())
    }

    fn write_all_at(&self, _: u64, _: &mut [io::IoSlice<'_>]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn allocate(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_all(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

impl Scan {
    fn add_span(&mut self, span: Range<u64>) {
        if span.is_empty() {
            return;
        }
        match self.spans.last_mut() {
            Some(last) if last.end == span.start => last.end = span.end,
            Some(_) | None => self.spans.push(span),
        }
    }
}
