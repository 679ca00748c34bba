//! THE format of the files. Everything that is on disk is described here, and only here;
//! `encode` and `decode` beside it do what this page says. Used within the journal only.
//!
//! Invariant: what is written by a release is read by every later one. Numbers are
//! little-endian; a varint is LEB128; a CRC is CRC-32C over the raw bytes, checked before they
//! are decoded. Reading is total: any bytes give records or an error.
//!
//! # Version history
//!
//! - 1: the first one.
//! - 2: the types of a Types record have options; entries have marks, and cas uniques that a
//!   client gave. Version 1 is read, too.
//!
//! # A file
//!
//! A file header, batches one after the other, and in a file that was closed an End batch.
//! Nothing but zeros (space allocated ahead) may follow. `STORE` is a file header alone.
//!
//! ```text
//! file header                                    batch header
//!  0  8  magic: STORJRNL, STORSNAP, STORHEAD      0  4  magic: "STBA"
//!  8  4  version                                  4  4  kind: 1 Records, 2 End, 3 Snapshot
//! 12  4  incompatible features: 0                 8  4  payload length
//! 16 16  log id                                  12  4  number of records
//! 32  8  generation                              16  8  first sequence number
//! 40  8  file number                             24  8  synced up to this sequence number
//! 48  8  base sequence number                    32  8  base time, ms since 1970
//! 56  8  time, ms since 1970                     40  4  header CRC of what is before it
//! 64  4  header CRC of what is before it         44  4  payload CRC
//! 68  4  attributes: 1 = begins at a snapshot    48  4  CRC of log id, file number, 0..48
//! 72  4  CRC of 0..72                            52     the payload
//! 76     batches
//! ```
//!
//! - What is before a batch is the batch before it, or the file header. What is before a segment
//!   is the last batch of the segment before it; 0 if it begins at a snapshot (attribute 1): after
//!   a failure, and in a new store.
//! - Base: a segment's first sequence number. In a snapshot the first one that is not in it; the
//!   records from there on are in the segment of the snapshot's own number and in later ones.
//! - Records: one write of the journal. The sequence number of a record is the batch's first one
//!   and its position. "Synced up to": every record up to it lasted when the header was made, so
//!   damage at or before it is not the work of a power loss.
//! - End: no payload; its first sequence number is the one that would come next, and all before
//!   it was synced or is in the file before it. In a snapshot: the number of its records.
//! - Snapshot: records of a snapshot; the first sequence number is the position in the snapshot.
//!
//! # A record
//!
//! ```text
//! record   tag u8, time (zigzag varint, ms after the batch's base time), body
//! 1 Put         key, flags varint, expiry, value
//! 2 Remove      key
//! 3 Expire      key, expiry
//! 4 Number      key, number varint
//! 5, 6 Extend   (5 in front, 6 at the back) key, bytes
//! 7 Members     typed key, u8 1 if it may create: flags varint, expiry; members, ids
//! 8 `FanOut`    typed key, target varint, u8 1 if negative, amount varint
//! 9 Flush       nothing: now
//! 10 Flush      time varint, ms since 1970
//! 11 Types      count varint; of each declared type: prefix varint, kind u8, target varint or 0,
//!               and from version 2 on options: count varint, of each: option u8, number varint
//! 12 Batch      count varint; of each change: tag u8, body; no Batch in a Batch
//! 13 Entry      (snapshots only) key, flags varint, expiry, cas u64, value
//! 14 Mark       key, marks u8
//! 15 Unique     key, u8 1 if it is not the record's own sequence number: cas u64
//! 16 Marked     (snapshots only) marks u8, and an Entry
//!
//! key      named: 0, length u8, bytes; typed: prefix varint, id varint
//! expiry   varint, ms since 1970; 0 is never
//! value    1: number varint; 3: members; 4: bytes
//! bytes    length varint, bytes
//! members  count varint, u8 1 if attributes follow, of each id its varint difference to the
//!          one before (modulo 2^32), then of each the attribute varint
//! ids      count varint, differences as above
//! marks    1 stale, 2 won, 4 the key is shown as base64
//! option   1: keep_in_memory, bytes; 2: durable, 0 for no; 3: when_full, 1 for evict; of counters
//!          4: initial, 5: min, 6: max, 7: overflow, 1 wrap, 2 saturate, 3 error, 8: ttl,
//!          seconds; of an index 9: weighted, 1 for yes. Prefix 0 (DATA) is the named keys, which
//!          are there only if they have options
//! ```

use crate::clock::Time;
use crate::codec::{CodecError, Reader, put_u32, put_u64};

/// The version that this release writes. It reads all up to this one.
pub const VERSION: u32 = 2;

/// The length of a file header.
pub const FILE_HEADER_BYTES: usize = 76;
/// The length of a batch header.
pub const BATCH_HEADER_BYTES: usize = 52;
/// The first bytes of a batch.
pub const BATCH_MAGIC: [u8; 4] = *b"STBA";

/// The prefix of the named keys in a Types record.
pub(super) const NAMED_PREFIX: u16 = 0;

/// The tags of records.
pub(super) mod tag {
    pub(in crate::journal) const PUT: u8 = 1;
    pub(in crate::journal) const REMOVE: u8 = 2;
    pub(in crate::journal) const EXPIRE: u8 = 3;
    pub(in crate::journal) const NUMBER: u8 = 4;
    pub(in crate::journal) const EXTEND_FRONT: u8 = 5;
    pub(in crate::journal) const EXTEND_BACK: u8 = 6;
    pub(in crate::journal) const MEMBERS: u8 = 7;
    pub(in crate::journal) const FAN_OUT: u8 = 8;
    pub(in crate::journal) const FLUSH_NOW: u8 = 9;
    pub(in crate::journal) const FLUSH_AT: u8 = 10;
    pub(in crate::journal) const TYPES: u8 = 11;
    pub(in crate::journal) const BATCH: u8 = 12;
    pub(in crate::journal) const ENTRY: u8 = 13;
    pub(in crate::journal) const MARK: u8 = 14;
    pub(in crate::journal) const UNIQUE: u8 = 15;
    pub(in crate::journal) const MARKED: u8 = 16;

    pub(in crate::journal) const VALUE_NUMBER: u8 = 1;
    pub(in crate::journal) const VALUE_INDEX: u8 = 3;
    pub(in crate::journal) const VALUE_DATA: u8 = 4;

    pub(in crate::journal) const OPTION_KEEP_IN_MEMORY: u8 = 1;
    pub(in crate::journal) const OPTION_DURABLE: u8 = 2;
    pub(in crate::journal) const OPTION_WHEN_FULL: u8 = 3;
    pub(in crate::journal) const OPTION_INITIAL: u8 = 4;
    pub(in crate::journal) const OPTION_MIN: u8 = 5;
    pub(in crate::journal) const OPTION_MAX: u8 = 6;
    pub(in crate::journal) const OPTION_OVERFLOW: u8 = 7;
    pub(in crate::journal) const OPTION_TTL: u8 = 8;
    pub(in crate::journal) const OPTION_WEIGHTED: u8 = 9;
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A segment of the journal.
    Segment,
    /// A snapshot.
    Snapshot,
    /// `STORE`.
    Store,
}

impl FileKind {
    const fn magic(self) -> [u8; 8] {
        match self {
            Self::Segment => *b"STORJRNL",
            Self::Snapshot => *b"STORSNAP",
            Self::Store => *b"STORHEAD",
        }
    }
}

/// The 16 random bytes that all files of one store share.
pub type LogId = [u8; 16];

/// The head of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// What the file is.
    pub kind: FileKind,
    /// The version of its format.
    pub version: u32,
    /// The store.
    pub log_id: LogId,
    /// The generation.
    pub generation: u64,
    /// The file's number.
    pub number: u64,
    /// See the module.
    pub base_seq: u64,
    /// When it was made.
    pub time: Time,
    /// The header CRC of what is before it.
    pub chain: u32,
    /// A segment that begins at the snapshot of its number, not at the segment before it.
    pub fresh: bool,
}

/// Why bytes are not a file header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// Not one of ours, or damaged.
    Damaged(&'static str),
    /// A version that this release does not know.
    Version(u32),
    /// Features that this release does not know.
    Features(u32),
}

impl From<CodecError> for BadHeader {
    fn from(_: CodecError) -> Self {
        Self::Damaged("the file is shorter than its header")
    }
}

const ATTRIBUTE_FRESH: u32 = 1;

impl FileHeader {
    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FILE_HEADER_BYTES);
        out.extend_from_slice(&self.kind.magic());
        put_u32(&mut out, self.version);
        put_u32(&mut out, 0);
        out.extend_from_slice(&self.log_id);
        put_u64(&mut out, self.generation);
        put_u64(&mut out, self.number);
        put_u64(&mut out, self.base_seq);
        put_u64(&mut out, self.time.0);
        put_u32(&mut out, self.chain);
        put_u32(&mut out, if self.fresh { ATTRIBUTE_FRESH } else { 0 });
        let crc = crc32c::crc32c(&out);
        put_u32(&mut out, crc);
        out
    }

    /// The CRC of the bytes: what the first batch calls the CRC before it.
    pub fn crc(&self) -> u32 {
        let bytes = self.encode();
        crc32c::crc32c(bytes.get(..FILE_HEADER_BYTES - 4).unwrap_or(&bytes))
    }

    /// Reads the header of a file of that kind.
    pub fn decode(kind: FileKind, bytes: &[u8]) -> Result<Self, BadHeader> {
        let mut reader = Reader::new(bytes);
        if reader.array()? != kind.magic() {
            return Err(BadHeader::Damaged("the file does not begin as one of ours"));
        }
        let version = reader.u32()?;
        if !(1..=VERSION).contains(&version) {
            return Err(BadHeader::Version(version));
        }
        let features = reader.u32()?;
        let log_id = reader.array()?;
        let (generation, number, base_seq) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let time = Time(reader.u64()?);
        let (chain, attributes) = (reader.u32()?, reader.u32()?);
        let covered = bytes.get(..FILE_HEADER_BYTES - 4).unwrap_or(bytes);
        if reader.u32()? != crc32c::crc32c(covered) {
            return Err(BadHeader::Damaged("the file header's checksum is wrong"));
        }
        if features != 0 || attributes & !ATTRIBUTE_FRESH != 0 {
            return Err(BadHeader::Features(features | attributes));
        }
        Ok(Self {
            kind,
            version,
            log_id,
            generation,
            number,
            base_seq,
            time,
            chain,
            fresh: attributes & ATTRIBUTE_FRESH != 0,
        })
    }
}

/// What a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchKind {
    /// Records of the journal.
    Records,
    /// The end of a file that was closed.
    End,
    /// Records of a snapshot.
    Snapshot,
    /// What a later release may write, by its tag.
    Unknown(u32),
}

impl BatchKind {
    const fn tag(self) -> u32 {
        match self {
            Self::Records => 1,
            Self::End => 2,
            Self::Snapshot => 3,
            Self::Unknown(tag) => tag,
        }
    }

    const fn from_tag(tag: u32) -> Self {
        match tag {
            1 => Self::Records,
            2 => Self::End,
            3 => Self::Snapshot,
            tag => Self::Unknown(tag),
        }
    }
}

/// The head of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// What the batch is.
    pub kind: BatchKind,
    /// The payload's length.
    pub len: u32,
    /// How many records there are.
    pub count: u32,
    /// The first one's sequence number.
    pub first_seq: u64,
    /// What lasted when this was made.
    pub synced_upto: u64,
    /// What the records' times are relative to.
    pub time: Time,
    /// The header CRC of what is before it.
    pub prev_crc: u32,
    /// The payload's CRC.
    pub payload_crc: u32,
}

/// The CRC over log id and file number with which those of the batches of a file begin, so that
/// no batch of another file or store is taken for one of this.
pub fn batch_seed(log_id: &LogId, number: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(log_id), &number.to_le_bytes())
}

impl BatchHeader {
    /// The header that closes a file.
    pub const fn end(next_seq: u64, synced_upto: u64, time: Time, prev_crc: u32) -> Self {
        Self {
            kind: BatchKind::End,
            len: 0,
            count: 0,
            first_seq: next_seq,
            synced_upto,
            time,
            prev_crc,
            payload_crc: 0,
        }
    }

    /// Puts the bytes in `out`, whose old content goes, and answers their CRC. `seed` is from
    /// [`batch_seed`].
    pub fn encode(&self, seed: u32, out: &mut Vec<u8>) -> u32 {
        out.clear();
        out.extend_from_slice(&BATCH_MAGIC);
        put_u32(out, self.kind.tag());
        put_u32(out, self.len);
        put_u32(out, self.count);
        put_u64(out, self.first_seq);
        put_u64(out, self.synced_upto);
        put_u64(out, self.time.0);
        put_u32(out, self.prev_crc);
        put_u32(out, self.payload_crc);
        let crc = crc32c::crc32c_append(seed, out);
        put_u32(out, crc);
        crc
    }

    /// Reads a header and its CRC; `None` if the bytes are not a header of this file.
    pub fn decode(bytes: &[u8], seed: u32) -> Option<(Self, u32)> {
        let (covered, crc) = bytes.get(..BATCH_HEADER_BYTES)?.split_last_chunk::<4>()?;
        let crc = u32::from_le_bytes(*crc);
        if !covered.starts_with(&BATCH_MAGIC) || crc != crc32c::crc32c_append(seed, covered) {
            return None;
        }
        Self::fields(covered).ok().map(|header| (header, crc))
    }

    fn fields(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        reader.take(BATCH_MAGIC.len())?;
        Ok(Self {
            kind: BatchKind::from_tag(reader.u32()?),
            len: reader.u32()?,
            count: reader.u32()?,
            first_seq: reader.u64()?,
            synced_upto: reader.u64()?,
            time: Time(reader.u64()?),
            prev_crc: reader.u32()?,
            payload_crc: reader.u32()?,
        })
    }

    /// The sequence number after the last record of this batch.
    pub fn next_seq(&self) -> u64 {
        self.first_seq.saturating_add(u64::from(self.count))
    }
}
