//! Changes: what a command does to the state, as small as the edit. The journal holds these and
//! nothing else, and applying them in order is the state; so everything here is data.

use std::borrow::Cow;
use std::sync::Arc;

use super::View;
use crate::clock::{Expiry, Time};
use crate::key::{Key, TypedKey};
use crate::types::TypeTable;
use crate::value::{Delta, Marks, Member, Value};

/// One edit of the state. A key, bytes or members may be borrowed from the request or from the
/// journal's bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Change<'a> {
    /// The entry is now this one.
    Put {
        /// The entry's key.
        key: Key<'a>,
        /// Its value, of the kind of the key's type.
        value: Value,
        /// Its flags.
        flags: u32,
        /// When it ends.
        expires: Expiry,
    },
    /// The entry is gone.
    Remove {
        /// The entry's key.
        key: Key<'a>,
    },
    /// The entry ends at another time; its value stays.
    Expire {
        /// The entry's key.
        key: Key<'a>,
        /// When it ends.
        expires: Expiry,
    },
    /// The number is now this one; flags and expiry stay. Creates a missing counter. A named
    /// value takes it in memcached's in-place form.
    Number {
        /// The counter's or the named key.
        key: Key<'a>,
        /// The new number.
        number: u64,
    },
    /// Bytes before or after those of a DATA or named value.
    Extend {
        /// The entry's key.
        key: Key<'a>,
        /// Where the bytes go.
        side: Side,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Members added to (or updated in) an INDEX and removed from it.
    Members {
        /// The index.
        key: TypedKey,
        /// Flags and expiry if this creates the index.
        create: Option<(u32, Expiry)>,
        /// Members to add, ascending by id.
        added: Cow<'a, [Member]>,
        /// Ids to remove, ascending.
        removed: Cow<'a, [u32]>,
    },
    /// A step of the counter `target.id` for every member `id` of an index.
    FanOut {
        /// The index.
        index: TypedKey,
        /// The prefix of the counters.
        target: u16,
        /// The step.
        delta: Delta,
    },
    /// The entry bears these marks and no others.
    Mark {
        /// The entry's key.
        key: Key<'a>,
        /// The marks.
        marks: Marks,
    },
    /// The entry has another cas unique.
    Unique {
        /// The entry's key.
        key: Key<'a>,
        /// Which; `None` is the sequence number of this record.
        unique: Option<u64>,
    },
    /// Everything is gone: now, or all that is there at that time.
    Flush {
        /// When; `None` is now.
        at: Option<Time>,
    },
    /// The type table is now this one.
    Types(Arc<TypeTable>),
    /// Several changes at once: all of them or none.
    Batch(Vec<Change<'a>>),
}

impl<'a> Change<'a> {
    /// The key of the one entry that it edits; `None` for what may concern several shards.
    pub fn key(&self) -> Option<Key<'a>> {
        match self {
            Self::Put { key, .. }
            | Self::Remove { key }
            | Self::Expire { key, .. }
            | Self::Number { key, .. }
            | Self::Mark { key, .. }
            | Self::Unique { key, .. }
            | Self::Extend { key, .. } => Some(*key),
            Self::Members { key, .. } => Some(Key::Typed(*key)),
            Self::FanOut { .. } | Self::Flush { .. } | Self::Types(_) | Self::Batch(_) => None,
        }
    }
}

/// About what an entry takes beside its value, and a member of an index, in bytes.
const ENTRY_BYTES: u64 = 16;
const MEMBER_BYTES: u64 = 8;

impl Change<'_> {
    /// How many bytes of memory it takes more than what it finds, about and at least. A fan-out
    /// takes what the counters take that are missing, which is not known here.
    pub fn growth<'s>(&self, old: &impl Fn(Key<'_>) -> Option<View<'s>>) -> u64 {
        let old_bytes = |key| old(key).map_or(0, |old| ENTRY_BYTES + old.value.memory_bytes());
        let entry = |key, bytes: u64| (ENTRY_BYTES + bytes).saturating_sub(old_bytes(key));
        match self {
            Self::Put { key, value, .. } => entry(*key, value.memory_bytes()),
            Self::Number { key, .. } => entry(*key, 0),
            Self::Extend { bytes, .. } => bytes.len() as u64,
            Self::Members { create, added, .. } => {
                let created = create.map_or(0, |_| ENTRY_BYTES);
                created + added.len() as u64 * MEMBER_BYTES
            }
            Self::Batch(changes) => changes.iter().map(|change| change.growth(old)).sum(),
            Self::Remove { .. }
            | Self::Expire { .. }
            | Self::Mark { .. }
            | Self::Unique { .. }
            | Self::FanOut { .. }
            | Self::Flush { .. }
            | Self::Types(_) => 0,
        }
    }

    /// What of it the journal holds: all but the changes of entries that are not durable.
    pub fn durable_part(&self, types: &TypeTable) -> Option<Cow<'_, Self>> {
        let durable = match self {
            Self::Batch(changes) => return durable_batch(self, changes, types),
            Self::FanOut { target, .. } => types.is_durable(*target),
            Self::Flush { .. } | Self::Types(_) => true,
            Self::Put { key, .. }
            | Self::Remove { key }
            | Self::Expire { key, .. }
            | Self::Number { key, .. }
            | Self::Mark { key, .. }
            | Self::Unique { key, .. }
            | Self::Extend { key, .. } => types.keep(*key).durable,
            Self::Members { key, .. } => types.is_durable(key.prefix),
        };
        durable.then_some(Cow::Borrowed(self))
    }
}

fn durable_batch<'c, 'a>(
    batch: &'c Change<'a>,
    changes: &'c [Change<'a>],
    types: &TypeTable,
) -> Option<Cow<'c, Change<'a>>> {
    let parts = changes
        .iter()
        .filter_map(|change| change.durable_part(types));
    let mut parts: Vec<_> = parts.collect();
    if parts.len() == changes.len() {
        return Some(Cow::Borrowed(batch));
    }
    if parts.len() < 2 {
        return parts.pop();
    }
    let parts = parts.into_iter().map(Cow::into_owned).collect();
    Some(Cow::Owned(Change::Batch(parts)))
}

/// An end of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Before the first byte.
    Front,
    /// After the last byte.
    Back,
}
