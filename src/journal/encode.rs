//! Records as bytes, as the page of `record` says.
//!
//! Invariant: encoding a small record allocates nothing and takes no lock, since it is done
//! under the shard locks and the buffer's; what is large is prepared before ([`prepare`]) or
//! goes in by reference. Used within the journal only.

use super::record::{NAMED_PREFIX, tag};
use crate::clock::{Expiry, Time};
use crate::codec::{put_u8, put_u64, put_varint, put_zigzag};
use crate::command::change::{Change, Side};
use crate::key::{Key, TypedKey};
use crate::types::{CounterOptions, Keep, Kind, TypeDef, TypeTable, WhenFull};
use crate::value::{Blob, Entry, LONG_BYTES, Marks, Member, Value};

/// Values of at least this size go in by reference, other bytes as a piece of their own.
pub(super) const LARGE_BYTES: usize = LONG_BYTES;
/// As many members make a piece of their own.
const LARGE_MEMBERS: usize = 4 << 10;
/// A batch of more changes is encoded before the locks.
const LARGE_BATCH: usize = 64;

/// Encoded bytes, with large pieces kept aside.
#[derive(Debug, Default)]
pub(super) struct Payload {
    bytes: Vec<u8>,
    /// Each with its position in `bytes`, ascending.
    pieces: Vec<(usize, Piece)>,
    piece_bytes: usize,
    /// The values of typed keys are noted in `values`.
    pub(super) notes_values: bool,
    pub(super) values: Vec<Noted>,
}

/// Where in a payload the value of a DATA entry is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noted {
    pub(super) key: TypedKey,
    pub(super) at: usize,
    pub(super) len: usize,
}

/// The bytes that a record is to hold. Changes are made of requests, and a snapshot reads what
/// is away before it writes it; a record without its value must not be written.
fn bytes_of(blob: &Blob) -> &[u8] {
    blob.bytes().unwrap_or_else(|| {
        tracing::error!("a value that is not in memory is to be written: aborting");
        std::process::abort()
    })
}

#[derive(Debug)]
enum Piece {
    Shared(Blob),
    Owned(Vec<u8>),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(blob) => bytes_of(blob),
            Self::Owned(bytes) => bytes,
        }
    }
}

impl Payload {
    /// The length of it all.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() + self.piece_bytes
    }

    /// Forgets the content and keeps the memory, unless it is much.
    pub(super) fn clear(&mut self) {
        const KEPT_BYTES: usize = 4 << 20;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.pieces.clear();
        self.piece_bytes = 0;
        self.values.clear();
    }

    /// The bytes in order, in as few slices as there are.
    pub(super) fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self
            .pieces
            .iter()
            .map(|(at, _)| *at)
            .chain([self.bytes.len()]);
        let mut from = 0;
        let between = ends.map(move |to| {
            let slice = self.bytes.get(from..to).unwrap_or_default();
            from = to;
            slice
        });
        let pieces = self
            .pieces
            .iter()
            .map(|(_, piece)| piece.bytes())
            .chain([&[][..]]);
        between
            .zip(pieces)
            .flat_map(|(bytes, piece)| [bytes, piece])
            .filter(|slice| !slice.is_empty())
    }

    fn attach(&mut self, piece: Piece) {
        self.piece_bytes += piece.bytes().len();
        self.pieces.push((self.bytes.len(), piece));
    }

    /// Takes over what `other` holds.
    pub(super) fn append(&mut self, other: Self) {
        if self.notes_values {
            let before = self.len();
            let values = other.values.iter().map(|noted| Noted {
                at: before + noted.at,
                ..*noted
            });
            self.values.extend(values);
        }
        let mut from = 0;
        for (at, piece) in other.pieces {
            self.bytes
                .extend_from_slice(other.bytes.get(from..at).unwrap_or_default());
            self.attach(piece);
            from = at;
        }
        self.bytes
            .extend_from_slice(other.bytes.get(from..).unwrap_or_default());
    }
}

/// The body of a record that is better encoded before any lock is taken; `None` for others.
pub(super) fn prepare(change: &Change<'_>) -> Option<Payload> {
    is_large(change).then(|| {
        let mut body = Payload {
            notes_values: true,
            ..Payload::default()
        };
        put_body(&mut body, change);
        body
    })
}

fn is_large(change: &Change<'_>) -> bool {
    match change {
        Change::Put {
            value: Value::Index(index),
            ..
        } => index.len() >= LARGE_MEMBERS / 8,
        Change::Members { added, removed, .. } => added.len() + removed.len() >= LARGE_MEMBERS / 8,
        Change::Extend { bytes, .. } => bytes.len() >= LARGE_BYTES,
        Change::Batch(changes) => changes.len() >= LARGE_BATCH || changes.iter().any(is_large),
        Change::Put {
            value: Value::Number(_) | Value::Data(_),
            ..
        }
        | Change::Remove { .. }
        | Change::Expire { .. }
        | Change::Number { .. }
        | Change::Mark { .. }
        | Change::Unique { .. }
        | Change::FanOut { .. }
        | Change::Flush { .. }
        | Change::Types(_) => false,
    }
}

/// Appends a record: what [`prepare`] gave, or else the change.
#[inline]
pub(super) fn put_change(
    out: &mut Payload,
    base: Time,
    time: Time,
    change: &Change<'_>,
    prepared: Option<Payload>,
) {
    put_u8(&mut out.bytes, tag_of(change));
    put_zigzag(&mut out.bytes, time.0.wrapping_sub(base.0).cast_signed());
    match prepared {
        Some(body) => out.append(body),
        None => put_body(out, change),
    }
}

/// Appends the record of an entry of a snapshot.
pub(super) fn put_entry(out: &mut Payload, key: Key<'_>, entry: &Entry) {
    if entry.marks == Marks::NONE {
        put_u8(&mut out.bytes, tag::ENTRY);
        put_zigzag(&mut out.bytes, 0);
    } else {
        put_u8(&mut out.bytes, tag::MARKED);
        put_zigzag(&mut out.bytes, 0);
        put_u8(&mut out.bytes, entry.marks.bits());
    }
    put_key(&mut out.bytes, key);
    put_varint(&mut out.bytes, u64::from(entry.flags));
    put_expiry(&mut out.bytes, entry.expires);
    put_u64(&mut out.bytes, entry.cas);
    put_value(out, &entry.value);
}

fn tag_of(change: &Change<'_>) -> u8 {
    match change {
        Change::Put { .. } => tag::PUT,
        Change::Remove { .. } => tag::REMOVE,
        Change::Expire { .. } => tag::EXPIRE,
        Change::Number { .. } => tag::NUMBER,
        Change::Mark { .. } => tag::MARK,
        Change::Unique { .. } => tag::UNIQUE,
        Change::Extend {
            side: Side::Front, ..
        } => tag::EXTEND_FRONT,
        Change::Extend {
            side: Side::Back, ..
        } => tag::EXTEND_BACK,
        Change::Members { .. } => tag::MEMBERS,
        Change::FanOut { .. } => tag::FAN_OUT,
        Change::Flush { at: None } => tag::FLUSH_NOW,
        Change::Flush { at: Some(_) } => tag::FLUSH_AT,
        Change::Types(_) => tag::TYPES,
        Change::Batch(_) => tag::BATCH,
    }
}

#[inline]
fn put_body(out: &mut Payload, change: &Change<'_>) {
    match change {
        Change::Put {
            key,
            value,
            flags,
            expires,
        } => {
            put_key(&mut out.bytes, *key);
            put_varint(&mut out.bytes, u64::from(*flags));
            put_expiry(&mut out.bytes, *expires);
            put_value(out, value);
            note_value(out, *key, value);
        }
        Change::Remove { key } => put_key(&mut out.bytes, *key),
        Change::Expire { key, expires } => {
            put_key(&mut out.bytes, *key);
            put_expiry(&mut out.bytes, *expires);
        }
        Change::Number { key, number } => {
            put_key(&mut out.bytes, *key);
            put_varint(&mut out.bytes, *number);
        }
        Change::Mark { key, marks } => {
            put_key(&mut out.bytes, *key);
            put_u8(&mut out.bytes, marks.bits());
        }
        Change::Unique { key, unique } => put_unique(&mut out.bytes, *key, *unique),
        Change::Extend {
            key,
            side: _,
            bytes,
        } => {
            put_key(&mut out.bytes, *key);
            put_varint(&mut out.bytes, bytes.len() as u64);
            put_bytes(out, bytes);
        }
        Change::Members {
            key,
            create,
            added,
            removed,
        } => {
            put_typed(&mut out.bytes, *key);
            put_creation(&mut out.bytes, *create);
            put_members(out, added.len(), || added.iter().copied());
            put_column(out, removed.len(), |bytes| put_ids(bytes, removed));
        }
        Change::FanOut {
            index,
            target,
            delta,
        } => {
            put_typed(&mut out.bytes, *index);
            put_varint(&mut out.bytes, u64::from(*target));
            put_u8(&mut out.bytes, u8::from(delta.negative));
            put_varint(&mut out.bytes, delta.amount);
        }
        Change::Flush { at } => {
            if let Some(time) = at {
                put_varint(&mut out.bytes, time.0);
            }
        }
        Change::Types(types) => put_types(&mut out.bytes, types),
        Change::Batch(changes) => put_batch(out, changes),
    }
}

fn put_batch(out: &mut Payload, changes: &[Change<'_>]) {
    put_varint(&mut out.bytes, changes.len() as u64);
    for change in changes {
        put_u8(&mut out.bytes, tag_of(change));
        put_body(out, change);
    }
}

fn put_unique(out: &mut Vec<u8>, key: Key<'_>, unique: Option<u64>) {
    put_key(out, key);
    put_u8(out, u8::from(unique.is_some()));
    if let Some(unique) = unique {
        put_u64(out, unique);
    }
}

/// Notes where the value is that was just appended.
#[inline]
fn note_value(out: &mut Payload, key: Key<'_>, value: &Value) {
    if let (true, Key::Typed(key), Value::Data(blob)) = (out.notes_values, key, value) {
        let len = blob.len();
        let at = out.len() - len;
        out.values.push(Noted { key, at, len });
    }
}

#[inline]
fn put_key(out: &mut Vec<u8>, key: Key<'_>) {
    match key {
        Key::Typed(key) => put_typed(out, key),
        Key::Named(name) => {
            // The key has passed `KEY_BYTES_MAX`, which fits.
            let len = u8::try_from(name.len()).unwrap_or(u8::MAX);
            put_u8(out, 0);
            put_u8(out, len);
            out.extend_from_slice(name.get(..usize::from(len)).unwrap_or(name));
        }
    }
}

#[inline]
fn put_typed(out: &mut Vec<u8>, key: TypedKey) {
    put_varint(out, u64::from(key.prefix));
    put_varint(out, u64::from(key.id));
}

fn put_creation(out: &mut Vec<u8>, create: Option<(u32, Expiry)>) {
    put_u8(out, u8::from(create.is_some()));
    if let Some((flags, expires)) = create {
        put_varint(out, u64::from(flags));
        put_expiry(out, expires);
    }
}

fn put_expiry(out: &mut Vec<u8>, expires: Expiry) {
    put_varint(out, expires.time().map_or(0, |time| time.0));
}

#[inline]
fn put_value(out: &mut Payload, value: &Value) {
    match value {
        Value::Number(number) => {
            put_u8(&mut out.bytes, tag::VALUE_NUMBER);
            put_varint(&mut out.bytes, *number);
        }
        Value::Index(index) => {
            put_u8(&mut out.bytes, tag::VALUE_INDEX);
            put_members(out, index.len(), || index.iter());
        }
        Value::Data(blob) => {
            put_u8(&mut out.bytes, tag::VALUE_DATA);
            let bytes = bytes_of(blob);
            put_varint(&mut out.bytes, bytes.len() as u64);
            if bytes.len() >= LARGE_BYTES {
                out.attach(Piece::Shared(blob.clone()));
            } else {
                out.bytes.extend_from_slice(bytes);
            }
        }
    }
}

fn put_bytes(out: &mut Payload, bytes: &[u8]) {
    if bytes.len() >= LARGE_BYTES {
        out.attach(Piece::Owned(bytes.to_vec()));
    } else {
        out.bytes.extend_from_slice(bytes);
    }
}

/// Writes a row of `len` numbers: in place, or as a piece of its own if it is long.
fn put_column(out: &mut Payload, len: usize, write: impl FnOnce(&mut Vec<u8>)) {
    if len >= LARGE_MEMBERS {
        let mut column = Vec::with_capacity(len * 2);
        write(&mut column);
        out.attach(Piece::Owned(column));
    } else {
        write(&mut out.bytes);
    }
}

fn put_members<I: Iterator<Item = Member>>(out: &mut Payload, len: usize, members: impl Fn() -> I) {
    put_column(out, len, |bytes| {
        let with_attributes = members().any(|member| member.attribute != 0);
        put_varint(bytes, len as u64);
        put_u8(bytes, u8::from(with_attributes));
        let mut before = 0u32;
        for member in members() {
            put_varint(bytes, u64::from(member.id.wrapping_sub(before)));
            before = member.id;
        }
        if with_attributes {
            for member in members() {
                put_varint(bytes, u64::from(member.attribute));
            }
        }
    });
}

fn put_ids(out: &mut Vec<u8>, ids: &[u32]) {
    put_varint(out, ids.len() as u64);
    let mut before = 0u32;
    for id in ids {
        put_varint(out, u64::from(id.wrapping_sub(before)));
        before = *id;
    }
}

fn put_types(out: &mut Vec<u8>, types: &TypeTable) {
    let named = TypeDef {
        keep: types.named(),
        ..TypeDef::new(NAMED_PREFIX, Kind::Data)
    };
    let named = (named.keep != Keep::ALWAYS).then_some(named);
    let rows = named.into_iter().chain(types.declared());
    put_varint(out, rows.clone().count() as u64);
    for row in rows {
        put_varint(out, u64::from(row.prefix));
        put_u8(out, row.kind.tag());
        put_varint(out, u64::from(row.target.unwrap_or(0)));
        put_options(out, &row);
    }
}

/// The options that a type has, each by its tag and a number.
fn put_options(out: &mut Vec<u8>, row: &TypeDef) {
    let Keep { durable, when_full } = row.keep;
    let evicts = when_full == WhenFull::Evict;
    let CounterOptions {
        initial,
        min,
        max,
        overflow,
        ttl_s,
    } = row.counter;
    let options = [
        (
            tag::OPTION_KEEP_IN_MEMORY,
            row.keep_in_memory.map(u64::from),
        ),
        (tag::OPTION_DURABLE, (!durable).then_some(0)),
        (tag::OPTION_WHEN_FULL, evicts.then_some(1)),
        (tag::OPTION_INITIAL, initial),
        (tag::OPTION_MIN, min),
        (tag::OPTION_MAX, max),
        (tag::OPTION_OVERFLOW, overflow.map(|rule| rule.tag().into())),
        (tag::OPTION_TTL, ttl_s.map(u64::from)),
        (tag::OPTION_WEIGHTED, row.weighted.then_some(1)),
    ];
    let given = options
        .into_iter()
        .filter_map(|(tag, number)| Some((tag, number?)));
    put_varint(out, given.clone().count() as u64);
    for (tag, number) in given {
        put_u8(out, tag);
        put_varint(out, number);
    }
}
