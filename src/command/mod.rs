//! Commands: what a client may ask of the store, by family, and the rules of each.
//!
//! Invariant: the rules are pure. They see the old entry, the time and the limits, and return a
//! reply and a [`Change`]; they read no clock, lock nothing and do no I/O. A write cannot be
//! forgotten by the journal because the change *is* what a rule returns.

pub mod arith;
pub mod change;
pub mod fetch;
pub mod meta;
pub mod put;
pub mod refusal;
pub mod remove;

use std::sync::Arc;

use smallvec::SmallVec;

use crate::clock::{Expiry, Time};
use crate::key::Key;
use crate::limits::RELATIVE_EXPIRY_MAX_S;
use crate::types::{Counting, Kind, TypeDef, TypeTable};
use crate::value::{Blob, Entry, Head, Index, Marks, Value};
pub use arith::Arith;
pub use change::Change;
pub use fetch::Fetch;
pub use meta::{Meta, MetaReply};
pub use put::{Mode, Put};
pub use refusal::Refusal;

/// A command on the store's entries. Keys and bodies are as they came from the wire.
#[derive(Clone, Debug, PartialEq)]
pub enum Command<'a> {
    /// `get gets gat gats`
    Fetch(Fetch<'a>),
    /// `set add replace append prepend cas`
    Put(Put<'a>),
    /// `mset`: all or none; of a key named twice the last wins.
    PutMany(Vec<Put<'a>>),
    /// `incr decr`
    Arith(Arith<'a>),
    /// `delete`
    Delete {
        /// The key as sent.
        key: &'a [u8],
    },
    /// `touch`
    Touch {
        /// The key as sent.
        key: &'a [u8],
        /// The new expiry.
        exptime: Exptime,
    },
    /// `flush_all`
    FlushAll {
        /// From when on; 0 is now.
        delay: Exptime,
    },
    /// `mg ms md ma me`
    Meta(Box<Meta<'a>>),
}

impl Command<'_> {
    /// The key that it is about, if it is one.
    pub fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Fetch(fetch) => match fetch.keys.as_slice() {
                [key] => Some(key),
                _ => None,
            },
            Self::Put(put) => Some(put.key),
            Self::Arith(arith) => Some(arith.key),
            Self::Delete { key } | Self::Touch { key, .. } => Some(key),
            Self::Meta(meta) => Some(meta.key.bytes()),
            Self::PutMany(_) | Self::FlushAll { .. } => None,
        }
    }
}

/// What a command answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The value was stored.
    Stored,
    /// The condition of the command was not met.
    NotStored,
    /// The entry has changed since the cas unique was read.
    Exists,
    /// There is no such entry.
    NotFound,
    /// The entry was removed.
    Deleted,
    /// The expiry was changed.
    Touched,
    /// Done.
    Ok,
    /// The new number, or of a fan-out how many counters it changed.
    Number(u64),
    /// One answer for each key, in the order of the request.
    Hits(SmallVec<[Option<Hit>; 1]>),
    /// To a meta command.
    Meta(Box<MetaReply>),
}

/// A found entry, as a reply carries it. Large values are shared, not copied.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The value.
    pub value: Value,
    /// The class of its key: what figures are kept by.
    pub class: u32,
    /// The client's flags.
    pub flags: u32,
    /// The cas unique.
    pub cas: u64,
}

/// What a rule returns: the reply, and the edit that makes it true.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome<'a> {
    /// What the client hears.
    pub reply: Reply,
    /// What is done; `None` if nothing changes.
    pub change: Option<Change<'a>>,
}

impl<'a> Outcome<'a> {
    fn keep(reply: Reply) -> Self {
        Self {
            reply,
            change: None,
        }
    }

    fn with(reply: Reply, change: Change<'a>) -> Self {
        Self {
            reply,
            change: Some(change),
        }
    }
}

/// What a key of the store holds: an entry of a type, or a named value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// An entry of a declared type.
    Kind(Kind),
    /// Bytes with memcached's exact behaviour.
    Named,
}

/// A resolved key and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The key.
    pub key: Key<'a>,
    /// What its type says.
    pub holds: Holds,
}

/// An entry as it is in the store, borrowed under the lock of its shard.
#[derive(Clone, Copy, Debug)]
pub struct View<'s> {
    /// The value.
    pub value: ViewValue<'s>,
    /// The client's flags.
    pub flags: u32,
    /// When the entry ends; not before the time of the command that sees this.
    pub expires: Expiry,
    /// The cas unique.
    pub cas: u64,
    /// The header, with marks and the time of access; a counter has none.
    pub head: Option<&'s Head>,
}

/// The value of a [`View`].
#[derive(Clone, Copy, Debug)]
pub enum ViewValue<'s> {
    /// What a counter holds.
    Number(u64),
    /// What an INDEX holds.
    Index(&'s Arc<Index>),
    /// What a DATA or named key holds.
    Data(&'s Blob),
}

impl ViewValue<'_> {
    /// True if the bytes are not in memory.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Data(blob) if blob.is_away())
    }
}

impl View<'_> {
    /// The entry on its own.
    pub fn to_entry(&self) -> Entry {
        Entry {
            value: self.value.to_value(),
            flags: self.flags,
            expires: self.expires,
            cas: self.cas,
            marks: self.marks(),
        }
    }

    /// The marks that changes make.
    pub fn marks(&self) -> Marks {
        self.head.map_or(Marks::NONE, |head| head.marks().kept())
    }
}

impl<'s> ViewValue<'s> {
    /// About what the value takes in memory, in bytes.
    pub fn memory_bytes(self) -> u64 {
        let bytes = match self {
            Self::Number(_) => size_of::<u64>(),
            Self::Index(index) => index.heap_bytes(),
            Self::Data(blob) => blob.heap_bytes(),
        };
        bytes as u64
    }

    /// A value as the rules see it.
    pub fn of(value: &'s Value) -> Self {
        match value {
            Value::Number(number) => Self::Number(*number),
            Value::Index(index) => Self::Index(index),
            Value::Data(blob) => Self::Data(blob),
        }
    }

    /// The value on its own.
    pub fn to_value(self) -> Value {
        match self {
            Self::Number(number) => Value::Number(number),
            Self::Index(index) => Value::Index(Arc::clone(index)),
            Self::Data(blob) => Value::Data(blob.clone()),
        }
    }
}

/// What a rule may know beside the old entry.
#[derive(Clone, Copy, Debug)]
pub struct Context<'t> {
    /// The time of the decision.
    pub now: Time,
    /// The declared types.
    pub types: &'t TypeTable,
    /// The longest value, in bytes.
    pub value_bytes_max: usize,
    /// The most members of an index.
    pub members_max: usize,
    /// How many bytes entries may grow by until the memory limit is reached.
    pub memory_room: u64,
}

impl Context<'_> {
    /// How the counters of a type of `kind` count.
    fn counting(&self, prefix: u16, kind: Kind) -> Counting {
        let declared = self.types.get(prefix).map(TypeDef::counting);
        declared.unwrap_or_else(|| Counting::plain(kind))
    }

    /// How many bytes of memory a change lacks, where `old` is what it finds.
    pub fn lacks<'s>(&self, change: &Change<'_>, old: impl Fn(Key<'_>) -> Option<View<'s>>) -> u64 {
        if self.memory_room == u64::MAX {
            return 0;
        }
        let growth = change.growth(&old);
        growth.saturating_sub(self.memory_room)
    }
}

/// An expiry as the wire gives it: 0 never, negative at once, up to 30 days relative, larger a
/// Unix time; in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exptime(pub i64);

impl Exptime {
    /// The moment that this means for a command decided at `now`.
    pub fn resolve(self, now: Time) -> Expiry {
        match u64::try_from(self.0) {
            Ok(0) => Expiry::NEVER,
            Ok(seconds) if self.0 <= RELATIVE_EXPIRY_MAX_S => {
                Expiry::at(now.plus_ms(seconds.saturating_mul(1000)))
            }
            Ok(seconds) => Expiry::at(Time(seconds.saturating_mul(1000))),
            Err(_) => Expiry::at(Time(0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_is_never_at_once_relative_or_absolute() {
        let now = Time(1_000_000_000_000);
        let resolved = |seconds| Exptime(seconds).resolve(now);
        assert_eq!(resolved(0), Expiry::NEVER);
        assert!(resolved(-1).is_past(now));
        assert_eq!(resolved(1), Expiry::at(Time(now.0 + 1000)));
        assert_eq!(resolved(2_592_000), Expiry::at(Time(now.0 + 2_592_000_000)));
        assert!(resolved(2_592_001).is_past(now), "a Unix time in 1970");
        assert_eq!(resolved(1_000_000_001), Expiry::at(Time(1_000_000_001_000)));
    }
}
