//! Records from bytes, as the page of `record` says.
//!
//! Invariant: total. Any bytes give records or an error; nothing is allocated by a length that
//! the bytes do not bear out. Used within the journal only.

use std::borrow::Cow;
use std::sync::Arc;

use super::record::{NAMED_PREFIX, tag};
use crate::clock::{Expiry, Time};
use crate::codec::{CodecError, Reader};
use crate::command::change::{Change, Side};
use crate::key::{Key, TypedKey};
use crate::types::{Keep, Kind, Overflow, TypeDef, TypeError, TypeTable, WhenFull};
use crate::value::{Blob, Delta, Entry, Index, Marks, Member, Place, Value};

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DecodeError {
    /// A field is cut short or out of its range.
    #[error("a record cannot be read: {0}")]
    Codec(#[from] CodecError),
    /// A tag of no record, value or kind: a later release may have one.
    #[error("a {0} {1}")]
    Unknown(&'static str, u8),
    /// What is neither 0 nor 1.
    #[error("{0} is neither yes nor no")]
    Flag(u8),
    /// A type table that is none.
    #[error("a type table cannot be read: {0}")]
    Types(#[from] TypeError),
    /// A Batch within a Batch.
    #[error("a batch within a batch")]
    Nested,
}

/// What must be known to read a record, beside its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'f> {
    /// The version of the file.
    pub(super) version: u32,
    /// What times are relative to.
    pub(super) base: Time,
    /// Where the bytes are from, if values may be left there.
    pub(super) source: Option<Source<'f>>,
}

/// Where a payload is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'f> {
    /// The values that these types let go are left there; without types all of typed keys.
    pub(super) types: Option<&'f TypeTable>,
    /// The file's number in a [`Place`].
    pub(super) file: u64,
    /// Where the payload ends in the file.
    pub(super) end: u64,
}

impl Source<'_> {
    /// The value with these bytes, `after` of which there are more in the payload.
    fn value(&self, key: TypedKey, bytes: &[u8], after: usize) -> Blob {
        if let Some(types) = self.types
            && !types.may_leave(key.prefix, bytes.len())
        {
            return Blob::unnamed(bytes);
        }
        Blob::away(Place {
            file: self.file,
            offset: self.end.saturating_sub((after + bytes.len()) as u64),
            len: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            crc: crc32c::crc32c(bytes),
        })
    }
}

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub enum Record<'a> {
    /// A change.
    Change(Change<'a>),
    /// An entry of a snapshot.
    Entry(Key<'a>, Entry),
}

/// Reads the next record and its time.
pub(super) fn record<'a>(
    reader: &mut Reader<'a>,
    frame: &Frame<'_>,
) -> Result<(Time, Record<'a>), DecodeError> {
    let tag = reader.u8()?;
    let time = Time(frame.base.0.wrapping_add(reader.zigzag()?.cast_unsigned()));
    let record = match tag {
        tag::ENTRY => entry(reader, frame, Marks::NONE)?,
        tag::MARKED => {
            let marks = marks(reader)?;
            entry(reader, frame, marks)?
        }
        tag::BATCH => {
            let count = reader.count()?;
            let mut changes = Vec::new();
            for _ in 0..count {
                let tag = reader.u8()?;
                changes.push(change(reader, tag, frame)?);
            }
            Record::Change(Change::Batch(changes))
        }
        tag => Record::Change(change(reader, tag, frame)?),
    };
    Ok((time, record))
}

fn entry<'a>(
    reader: &mut Reader<'a>,
    frame: &Frame<'_>,
    marks: Marks,
) -> Result<Record<'a>, DecodeError> {
    let key = key(reader)?;
    let flags = reader.varint_as()?;
    let expires = expiry(reader)?;
    let cas = reader.u64()?;
    let value = value(reader, key, frame)?;
    let entry = Entry {
        value,
        flags,
        expires,
        cas,
        marks,
    };
    Ok(Record::Entry(key, entry))
}

fn change<'a>(reader: &mut Reader<'a>, tag: u8, frame: &Frame) -> Result<Change<'a>, DecodeError> {
    Ok(match tag {
        tag::PUT => {
            let key = key(reader)?;
            let flags = reader.varint_as()?;
            let expires = expiry(reader)?;
            let value = value(reader, key, frame)?;
            Change::Put {
                key,
                value,
                flags,
                expires,
            }
        }
        tag::REMOVE => Change::Remove { key: key(reader)? },
        tag::EXPIRE => Change::Expire {
            key: key(reader)?,
            expires: expiry(reader)?,
        },
        tag::NUMBER => Change::Number {
            key: key(reader)?,
            number: reader.varint()?,
        },
        tag::MARK => Change::Mark {
            key: key(reader)?,
            marks: marks(reader)?,
        },
        tag::UNIQUE => Change::Unique {
            key: key(reader)?,
            unique: unique(reader)?,
        },
        tag::EXTEND_FRONT => extend(reader, Side::Front)?,
        tag::EXTEND_BACK => extend(reader, Side::Back)?,
        tag::MEMBERS => {
            let key = typed_key(reader)?;
            let create = if flag(reader)? {
                Some((reader.varint_as()?, expiry(reader)?))
            } else {
                None
            };
            let added = Cow::Owned(members(reader)?);
            let count = reader.count()?;
            let removed = Cow::Owned(ids(reader, count)?);
            Change::Members {
                key,
                create,
                added,
                removed,
            }
        }
        tag::FAN_OUT => Change::FanOut {
            index: typed_key(reader)?,
            target: reader.varint_as()?,
            delta: Delta {
                negative: flag(reader)?,
                amount: reader.varint()?,
            },
        },
        tag::FLUSH_NOW => Change::Flush { at: None },
        tag::FLUSH_AT => Change::Flush {
            at: Some(Time(reader.varint()?)),
        },
        tag::TYPES => Change::Types(Arc::new(types(reader, frame.version)?)),
        tag::BATCH => return Err(DecodeError::Nested),
        tag => return Err(DecodeError::Unknown("record with the tag", tag)),
    })
}

fn unique(reader: &mut Reader<'_>) -> Result<Option<u64>, DecodeError> {
    Ok(if flag(reader)? {
        Some(reader.u64()?)
    } else {
        None
    })
}

fn marks(reader: &mut Reader<'_>) -> Result<Marks, DecodeError> {
    let bits = reader.u8()?;
    Marks::from_bits(bits).ok_or(DecodeError::Unknown("set of marks", bits))
}

fn extend<'a>(reader: &mut Reader<'a>, side: Side) -> Result<Change<'a>, DecodeError> {
    Ok(Change::Extend {
        key: key(reader)?,
        side,
        bytes: bytes(reader)?,
    })
}

fn key<'a>(reader: &mut Reader<'a>) -> Result<Key<'a>, DecodeError> {
    Ok(match reader.varint_as()? {
        0 => {
            let len = reader.u8()?;
            Key::Named(reader.take(usize::from(len))?)
        }
        prefix => Key::Typed(TypedKey {
            prefix,
            id: reader.varint_as()?,
        }),
    })
}

fn typed_key(reader: &mut Reader<'_>) -> Result<TypedKey, DecodeError> {
    Ok(TypedKey {
        prefix: reader.varint_as()?,
        id: reader.varint_as()?,
    })
}

fn expiry(reader: &mut Reader<'_>) -> Result<Expiry, DecodeError> {
    Ok(match reader.varint()? {
        0 => Expiry::NEVER,
        ms => Expiry::at(Time(ms)),
    })
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        flag => Err(DecodeError::Flag(flag)),
    }
}

fn bytes<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let len = reader.varint_as()?;
    Ok(reader.take(len)?)
}

fn value(reader: &mut Reader<'_>, key: Key<'_>, frame: &Frame<'_>) -> Result<Value, DecodeError> {
    Ok(match reader.u8()? {
        tag::VALUE_NUMBER => Value::Number(reader.varint()?),
        tag::VALUE_INDEX => Value::Index(Arc::new(Index::from_members(members(reader)?))),
        tag::VALUE_DATA => {
            let bytes = bytes(reader)?;
            Value::Data(match key {
                Key::Named(name) => Blob::named(name, bytes),
                Key::Typed(key) => match &frame.source {
                    Some(source) => source.value(key, bytes, reader.remaining()),
                    None => Blob::unnamed(bytes),
                },
            })
        }
        tag => return Err(DecodeError::Unknown("value with the tag", tag)),
    })
}

fn members(reader: &mut Reader<'_>) -> Result<Vec<Member>, DecodeError> {
    let count: usize = reader.varint_as()?;
    let with_attributes = flag(reader)?;
    if count > reader.remaining() {
        return Err(CodecError::Short.into());
    }
    let ids = ids(reader, count)?;
    let mut members = Vec::with_capacity(count);
    for id in ids {
        let attribute = if with_attributes {
            reader.varint_as()?
        } else {
            0
        };
        members.push(Member { id, attribute });
    }
    Ok(members)
}

fn ids(reader: &mut Reader<'_>, count: usize) -> Result<Vec<u32>, DecodeError> {
    let mut ids = Vec::with_capacity(count);
    let mut id = 0u32;
    for _ in 0..count {
        id = id.wrapping_add(reader.varint_as()?);
        ids.push(id);
    }
    Ok(ids)
}

fn types(reader: &mut Reader<'_>, version: u32) -> Result<TypeTable, DecodeError> {
    let mut declared = Vec::new();
    let mut named = Keep::ALWAYS;
    for _ in 0..reader.count()? {
        let prefix = reader.varint_as()?;
        let kind = reader.u8()?;
        let kind = Kind::from_tag(kind).ok_or(DecodeError::Unknown("type of the kind", kind))?;
        let target = Some(reader.varint_as()?).filter(|target| *target != 0);
        let mut row = TypeDef {
            target,
            ..TypeDef::new(prefix, kind)
        };
        if version >= 2 {
            options(reader, &mut row)?;
        }
        if prefix == NAMED_PREFIX {
            named = row.keep;
        } else {
            declared.push(row);
        }
    }
    Ok(TypeTable::new(declared)?.with_named(named))
}

fn options(reader: &mut Reader<'_>, row: &mut TypeDef) -> Result<(), DecodeError> {
    for _ in 0..reader.count()? {
        let counter = &mut row.counter;
        match reader.u8()? {
            tag::OPTION_KEEP_IN_MEMORY => row.keep_in_memory = Some(reader.varint_as()?),
            tag::OPTION_DURABLE => row.keep.durable = reader.varint()? != 0,
            tag::OPTION_WHEN_FULL => {
                row.keep.when_full = match reader.varint()? {
                    0 => WhenFull::Reject,
                    1 => WhenFull::Evict,
                    _ => return Err(CodecError::Range.into()),
                }
            }
            tag::OPTION_INITIAL => counter.initial = Some(reader.varint()?),
            tag::OPTION_MIN => counter.min = Some(reader.varint()?),
            tag::OPTION_MAX => counter.max = Some(reader.varint()?),
            tag::OPTION_OVERFLOW => counter.overflow = Some(overflow(reader.varint_as()?)?),
            tag::OPTION_TTL => counter.ttl_s = Some(reader.varint_as()?),
            tag::OPTION_WEIGHTED => row.weighted = flag(reader)?,
            tag => return Err(DecodeError::Unknown("type with the option", tag)),
        }
    }
    Ok(())
}

fn overflow(tag: u8) -> Result<Overflow, DecodeError> {
    Overflow::from_tag(tag).ok_or(DecodeError::Unknown("overflow rule with the tag", tag))
}
