//! One file read batch by batch, as it is: nothing here decides and nothing edits.
//!
//! Invariant: a batch is shown only if its header, its place in the chain, its sequence number
//! and its payload are those that were written. Recovery reads with this, and a snapshot that
//! was just written is read back with it.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::disk::DiskFile;
use super::record::{
    BATCH_HEADER_BYTES, BATCH_MAGIC, BatchHeader, BatchKind, FILE_HEADER_BYTES, FileHeader,
    FileKind, batch_seed,
};
use crate::limits::BATCH_BYTES_MAX;

/// What is next in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A batch of records; its payload is [`BatchReader::payload`].
    Batch(BatchHeader),
    /// The End batch, and nothing but zeros after it.
    End,
    /// The end of what was written: of the file, or zeros from here on.
    Clean,
    /// Bytes that are not the next batch.
    Damaged(&'static str),
    /// The next batch, of a kind that a later release writes.
    Unknown(u32),
}

/// The payload of a batch, in the piece of the file that it was read with.
#[derive(Clone, Default)]
pub(super) struct Span {
    piece: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Span {
    pub(super) fn bytes(&self) -> &[u8] {
        self.piece.get(self.range.clone()).unwrap_or_default()
    }
}

/// A file and how far it has been read.
pub(super) struct BatchReader<'a> {
    file: &'a dyn DiskFile,
    kind: BatchKind,
    seed: u32,
    len: u64,
    offset: u64,
    prev_crc: u32,
    next_seq: u64,
    /// Bytes of the file from `piece_at` on: many batches are read at once.
    piece: Arc<Vec<u8>>,
    piece_at: u64,
    payload: Span,
}

/// The first piece of a file is this long, and each one twice the one before, up to
/// [`CHUNK_BYTES`]: most of what is opened is small, or is not read to its end.
const FIRST_PIECE_BYTES: usize = 16 << 10;

impl<'a> BatchReader<'a> {
    /// Reads what follows `header` in a file of `len` bytes.
    pub(super) fn new(file: &'a dyn DiskFile, header: &FileHeader, len: u64) -> Self {
        let (kind, next_seq) = match header.kind {
            FileKind::Segment | FileKind::Store => (BatchKind::Records, header.base_seq),
            FileKind::Snapshot => (BatchKind::Snapshot, 0),
        };
        Self {
            file,
            kind,
            seed: batch_seed(&header.log_id, header.number),
            len,
            offset: FILE_HEADER_BYTES as u64,
            prev_crc: header.crc(),
            next_seq,
            piece: Arc::default(),
            piece_at: FILE_HEADER_BYTES as u64,
            payload: Span::default(),
        }
    }

    /// Where the next batch begins.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The header CRC of the last batch, or of the file header.
    pub(super) fn prev_crc(&self) -> u32 {
        self.prev_crc
    }

    /// The sequence number that comes next.
    pub(super) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The payload of the last [`Step::Batch`].
    pub(super) fn payload(&self) -> &Span {
        &self.payload
    }

    /// Where the bytes from `self.offset + from` on are in the piece: `len` of them, which the
    /// file has.
    fn load(&mut self, from: usize, len: usize) -> io::Result<Range<usize>> {
        let at = |piece_at: u64| usize::try_from(self.offset - piece_at).unwrap_or(usize::MAX);
        let begin = at(self.piece_at).saturating_add(from);
        let end = begin.saturating_add(len);
        if end <= self.piece.len() {
            return Ok(begin..end);
        }
        let kept = at(self.piece_at).min(self.piece.len());
        let rest = self.piece.len() - kept;
        let whole = usize::try_from(self.len - self.offset).unwrap_or(usize::MAX);
        let ahead = (self.piece.len() * 2).clamp(FIRST_PIECE_BYTES, CHUNK_BYTES);
        let wanted = (rest + ahead).max(from + len).min(whole);
        // Whoever keeps a batch keeps its piece; otherwise the memory is used again.
        self.payload = Span::default();
        if let Some(piece) = Arc::get_mut(&mut self.piece) {
            piece.copy_within(kept.., 0);
            piece.resize(wanted, 0);
        } else {
            let mut piece = Vec::with_capacity(wanted);
            piece.extend_from_slice(self.piece.get(kept..).unwrap_or_default());
            piece.resize(wanted, 0);
            self.piece = Arc::new(piece);
        }
        self.piece_at = self.offset;
        let unread = Arc::get_mut(&mut self.piece).and_then(|piece| piece.get_mut(rest..));
        self.file
            .read_exact_at(self.offset + rest as u64, unread.unwrap_or_default())?;
        Ok(from..from + len)
    }

    /// Reads on. After anything but [`Step::Batch`] the answer stays.
    pub(super) fn step(&mut self) -> io::Result<Step> {
        let left = self.len.saturating_sub(self.offset);
        let mut bytes = [0; BATCH_HEADER_BYTES];
        let header_bytes = BATCH_HEADER_BYTES as u64;
        if left >= header_bytes {
            let range = self.load(0, BATCH_HEADER_BYTES)?;
            bytes.copy_from_slice(self.piece.get(range).unwrap_or(&[0; BATCH_HEADER_BYTES]));
        }
        let Some((header, crc)) = BatchHeader::decode(&bytes, self.seed) else {
            let rest = last_byte(self.file, self.offset, self.len)?;
            return Ok(match rest {
                None => Step::Clean,
                Some(_) if left < header_bytes => Step::Damaged("a batch header is cut short"),
                Some(_) => Step::Damaged("a batch header is missing or its checksum is wrong"),
            });
        };
        if header.prev_crc != self.prev_crc || header.first_seq != self.next_seq {
            return Ok(Step::Damaged("a batch does not follow the one before it"));
        }
        if header.kind == BatchKind::End {
            let after = last_byte(self.file, self.offset + header_bytes, self.len)?;
            if after.is_some() {
                return Ok(Step::Damaged("the file goes on after its end"));
            }
            self.prev_crc = crc;
            return Ok(Step::End);
        }
        if let BatchKind::Unknown(kind) = header.kind {
            return Ok(Step::Unknown(kind));
        }
        let payload_bytes = u64::from(header.len);
        if header.kind != self.kind || payload_bytes > BATCH_BYTES_MAX as u64 {
            return Ok(Step::Damaged(
                "a batch of a kind or size that cannot be here",
            ));
        }
        if payload_bytes > left - header_bytes {
            return Ok(Step::Damaged("a batch is cut short"));
        }
        let range = self.load(BATCH_HEADER_BYTES, header.len as usize)?;
        self.payload = Span {
            piece: Arc::clone(&self.piece),
            range,
        };
        if crc32c::crc32c(self.payload.bytes()) != header.payload_crc {
            return Ok(Step::Damaged("the checksum of a batch's records is wrong"));
        }
        self.offset += header_bytes + payload_bytes;
        self.prev_crc = crc;
        self.next_seq = header.next_seq();
        Ok(Step::Batch(header))
    }

    /// Goes on with the batch of this header at `offset`, whatever is before it.
    pub(super) fn resume(&mut self, offset: u64, header: &BatchHeader) {
        self.offset = offset;
        self.prev_crc = header.prev_crc;
        self.next_seq = header.first_seq;
    }

    /// Takes the next sequence number as not known.
    pub(super) fn forget_seq(&mut self) {
        self.next_seq = 0;
    }

    /// What the rest of the file, from the first damage on, attests.
    pub(super) fn attested(&self) -> io::Result<Attested> {
        attested(self.file, self.seed, self.offset, self.len)
    }

    /// Where the bytes end that are not zeros.
    pub(super) fn rest_end(&self) -> io::Result<u64> {
        Ok(last_byte(self.file, self.offset, self.len)?.map_or(self.offset, |last| last + 1))
    }
}

/// What valid batch headers after a damage say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attested {
    /// Every record up to this one had been synced.
    pub(super) upto: u64,
    /// The file had been closed.
    pub(super) ended: bool,
}

const CHUNK_BYTES: usize = 1 << 20;

/// Calls `see` with the file's bytes of this range and where they are, a chunk at a time, each
/// with up to `overlap` bytes of the next one. An error of reading is `unread`'s.
pub(super) fn for_each_chunk<E>(
    file: &dyn DiskFile,
    range: Range<u64>,
    overlap: usize,
    unread: impl FnOnce(io::Error) -> E,
    mut see: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut chunk = Vec::new();
    let mut from = range.start;
    while from < range.end {
        let left = usize::try_from(range.end - from).unwrap_or(usize::MAX);
        chunk.resize(left.min(CHUNK_BYTES + overlap), 0);
        if let Err(error) = file.read_exact_at(from, &mut chunk) {
            return Err(unread(error));
        }
        see(from, &chunk)?;
        from += CHUNK_BYTES as u64;
    }
    Ok(())
}

/// The position of the last byte that is not zero, looked for from the end.
fn last_byte(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<Option<u64>> {
    let mut chunk = Vec::new();
    let mut end = to;
    while end > from {
        let begin = end.saturating_sub(CHUNK_BYTES as u64).max(from);
        chunk.resize(usize::try_from(end - begin).unwrap_or(usize::MAX), 0);
        file.read_exact_at(begin, &mut chunk)?;
        if let Some(position) = chunk.iter().rposition(|byte| *byte != 0) {
            return Ok(Some(begin + position as u64));
        }
        end = begin;
    }
    Ok(None)
}

fn attested(file: &dyn DiskFile, seed: u32, from: u64, to: u64) -> io::Result<Attested> {
    let mut attested = Attested::default();
    let see = |_, chunk: &[u8]| {
        for at in memchr::memmem::find_iter(chunk, &BATCH_MAGIC) {
            let bytes = chunk.get(at..).unwrap_or_default();
            let Some((header, _)) = BatchHeader::decode(bytes, seed) else {
                continue;
            };
            let upto = match header.kind {
                BatchKind::End => header.first_seq.saturating_sub(1),
                BatchKind::Records | BatchKind::Snapshot | BatchKind::Unknown(_) => {
                    header.synced_upto
                }
            };
            attested.ended |= header.kind == BatchKind::End;
            attested.upto = attested.upto.max(upto);
        }
        Ok(())
    };
    for_each_chunk(file, from..to, BATCH_HEADER_BYTES, |error| error, see)?;
    Ok(attested)
}
