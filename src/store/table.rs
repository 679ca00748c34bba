//! The entries of one type in one shard, whatever it holds: the one place where what a change
//! does is told apart by kind.

use std::sync::Arc;

use super::counters::{Counters, Number};
use super::hashing::Hashing;
use super::item::IndexItem;
use super::items::Items;
use super::shard::Stamp;
use super::sizes::Sizes;
use super::sweep::Swept;
use super::walk::Spot;
use crate::clock::{Expiry, Time};
use crate::command::View;
use crate::command::change::Side;
use crate::key::{Key, TypedKey};
use crate::types::Kind;
use crate::value::{Attributes, Blob, Entry, Head, Index, Marks, Member, Value};

/// The entries of one type in one shard.
pub(super) enum Table {
    Counter(Counters<u32>),
    Counter64(Counters<[u32; 2]>),
    Index(Items<IndexItem>),
    Data(Items<Blob>),
}

/// A width of counters.
pub(super) trait Width: Number {
    /// The counters of a table that has them so wide.
    fn counters(table: &mut Table) -> Option<&mut Counters<Self>>;
}

impl Width for u32 {
    #[inline]
    fn counters(table: &mut Table) -> Option<&mut Counters<Self>> {
        match table {
            Table::Counter(counters) => Some(counters),
            Table::Counter64(_) | Table::Index(_) | Table::Data(_) => None,
        }
    }
}

impl Width for [u32; 2] {
    #[inline]
    fn counters(table: &mut Table) -> Option<&mut Counters<Self>> {
        match table {
            Table::Counter64(counters) => Some(counters),
            Table::Counter(_) | Table::Index(_) | Table::Data(_) => None,
        }
    }
}

/// Why a change does not fit a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error("is not there")]
    Missing,
    #[error("does not hold that")]
    Misplaced,
    #[error("is not in memory")]
    Away,
    #[error("does not take that step")]
    OutOfBounds,
}

/// `Ok` if the entry was there.
pub(super) fn found(found: bool) -> Result<(), Unfit> {
    if found { Ok(()) } else { Err(Unfit::Missing) }
}

/// What a change of members brings: flags and expiry if it creates the index, what is added and
/// what is removed.
pub(super) type Edit<'c> = (Option<(u32, Expiry)>, &'c [Member], &'c [u32]);

impl Table {
    pub(super) fn new(kind: Kind) -> Self {
        match kind {
            Kind::Counter => Self::Counter(Counters::new()),
            Kind::Counter64 => Self::Counter64(Counters::new()),
            Kind::Index => Self::Index(Items::new()),
            Kind::Data => Self::Data(Items::new()),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Counter(_) => Kind::Counter,
            Self::Counter64(_) => Kind::Counter64,
            Self::Index(_) => Kind::Index,
            Self::Data(_) => Kind::Data,
        }
    }

    pub(super) fn sizes(&self) -> Sizes {
        let (entries, bytes, file_bytes) = match self {
            Self::Counter(table) => (table.len(), table.bytes(), table.file_bytes()),
            Self::Counter64(table) => (table.len(), table.bytes(), table.file_bytes()),
            Self::Index(table) => return table.sizes(),
            Self::Data(table) => return table.sizes(),
        };
        Sizes {
            entries,
            bytes,
            file_bytes,
            ..Sizes::default()
        }
    }

    /// The values of a DATA type.
    pub(super) fn data(&self) -> Option<&Items<Blob>> {
        match self {
            Self::Data(table) => Some(table),
            Self::Counter(_) | Self::Counter64(_) | Self::Index(_) => None,
        }
    }

    /// The same, to be changed.
    pub(super) fn data_mut(&mut self) -> Option<&mut Items<Blob>> {
        match self {
            Self::Data(table) => Some(table),
            Self::Counter(_) | Self::Counter64(_) | Self::Index(_) => None,
        }
    }

    /// Has the processor fetch the entry with this hash, if there is one.
    pub(super) fn prefetch(&self, hash: u64) {
        match self {
            Self::Counter(table) => table.prefetch(hash),
            Self::Counter64(table) => table.prefetch(hash),
            Self::Index(table) => table.prefetch(hash),
            Self::Data(table) => table.prefetch(hash),
        }
    }

    pub(super) fn view(&self, hash: u64, key: TypedKey, now: Time) -> Option<View<'_>> {
        match self {
            Self::Counter(table) => table.view(hash, key.id, now),
            Self::Counter64(table) => table.view(hash, key.id, now),
            Self::Index(table) => table.view(hash, Key::Typed(key), now),
            Self::Data(table) => table.view(hash, Key::Typed(key), now),
        }
    }

    pub(super) fn has_expired(&self, hash: u64, key: TypedKey, now: Time) -> bool {
        match self {
            Self::Counter(table) => table.has_expired(hash, key.id, now),
            Self::Counter64(table) => table.has_expired(hash, key.id, now),
            Self::Index(table) => table.has_expired(hash, Key::Typed(key), now),
            Self::Data(table) => table.has_expired(hash, Key::Typed(key), now),
        }
    }

    pub(super) fn put(
        &mut self,
        hashing: &Hashing,
        (hash, key): (u64, TypedKey),
        entry: Entry,
    ) -> Result<(), Unfit> {
        let Entry {
            value,
            flags,
            expires,
            cas,
            marks,
        } = entry;
        let (id, place) = (key.id, (hash, Key::Typed(key)));
        let attributes = Attributes {
            flags,
            expires,
            cas,
        };
        match (self, value) {
            (Self::Counter(table), Value::Number(number)) => {
                table.put(hashing, hash, id, number, (flags, expires));
            }
            (Self::Counter64(table), Value::Number(number)) => {
                table.put(hashing, hash, id, number, (flags, expires));
            }
            (Self::Index(table), Value::Index(index)) => {
                table.put(hashing, place, IndexItem::new(index, id, attributes, marks));
            }
            (Self::Data(table), Value::Data(mut blob)) => {
                blob.become_item(id, attributes, marks);
                table.put(hashing, place, blob);
            }
            (_, Value::Number(_) | Value::Index(_) | Value::Data(_)) => {
                return Err(Unfit::Misplaced);
            }
        }
        Ok(())
    }

    pub(super) fn remove(
        &mut self,
        hashing: &Hashing,
        (hash, key): (u64, TypedKey),
    ) -> Result<(), Unfit> {
        found(match self {
            Self::Counter(table) => table.remove(hashing, hash, key.id),
            Self::Counter64(table) => table.remove(hashing, hash, key.id),
            Self::Index(table) => table.remove(hashing, hash, Key::Typed(key)),
            Self::Data(table) => table.remove(hashing, hash, Key::Typed(key)),
        })
    }

    pub(super) fn expire(
        &mut self,
        hashing: &Hashing,
        (hash, key): (u64, TypedKey),
        expires: Expiry,
    ) -> Result<(), Unfit> {
        found(match self {
            Self::Counter(table) => table.expire(hashing, hash, key.id, expires),
            Self::Counter64(table) => table.expire(hashing, hash, key.id, expires),
            Self::Index(table) => table.expire((hash, Key::Typed(key)), expires),
            Self::Data(table) => table.expire((hash, Key::Typed(key)), expires),
        })
    }

    /// Sets marks or cas unique, for which a counter has no room.
    pub(super) fn mark(
        &mut self,
        (hash, key): (u64, TypedKey),
        what: (Option<Marks>, Option<u64>),
    ) -> Result<(), Unfit> {
        let place = (hash, Key::Typed(key));
        match self {
            Self::Index(table) => found(table.mark(place, what)),
            Self::Data(table) => found(table.mark(place, what)),
            Self::Counter(_) | Self::Counter64(_) => Err(Unfit::Misplaced),
        }
    }

    pub(super) fn number(
        &mut self,
        hashing: &Hashing,
        (hash, id): (u64, u32),
        number: u64,
        now: Time,
    ) -> Result<(), Unfit> {
        match self {
            Self::Counter(table) => table.number(hashing, hash, id, number, now),
            Self::Counter64(table) => table.number(hashing, hash, id, number, now),
            Self::Index(_) | Self::Data(_) => return Err(Unfit::Misplaced),
        }
        Ok(())
    }

    pub(super) fn extend(
        &mut self,
        (hash, key): (u64, TypedKey),
        addition: (Side, &[u8]),
        stamp: Stamp,
    ) -> Result<(), Unfit> {
        match self {
            Self::Data(table) => extend(table, (hash, Key::Typed(key)), addition, stamp),
            Self::Counter(_) | Self::Counter64(_) | Self::Index(_) => Err(Unfit::Misplaced),
        }
    }

    pub(super) fn members(
        &mut self,
        hashing: &Hashing,
        (hash, key): (u64, TypedKey),
        (create, added, removed): Edit<'_>,
        stamp: Stamp,
    ) -> Result<(), Unfit> {
        let Self::Index(table) = self else {
            return Err(Unfit::Misplaced);
        };
        let place = (hash, Key::Typed(key));
        if let Some((flags, expires)) = create {
            let index = Arc::new(Index::from_members(added.to_vec()));
            let attributes = Attributes {
                flags,
                expires,
                cas: stamp.seq,
            };
            let item = IndexItem::new(index, key.id, attributes, Marks::NONE);
            table.put(hashing, place, item);
            return Ok(());
        }
        found(table.edit(place, (stamp.time, stamp.seq), |item| {
            let index = Arc::make_mut(&mut item.index);
            index.insert(added);
            index.remove(removed);
            item.become_anew();
        }))
    }

    /// Drops the next of what has expired.
    pub(super) fn sweep(&mut self, hashing: &Hashing, now: Time) -> Swept {
        match self {
            Self::Counter(table) => table.sweep(hashing, now),
            Self::Counter64(table) => table.sweep(hashing, now),
            // A fan-out after the cut of a snapshot may have read an index that it did not
            // change and that has expired since: a restart has to find it.
            Self::Index(table) if table.has_cut() => Swept {
                soonest: Expiry::at(now),
                ..Swept::default()
            },
            Self::Index(table) => table.sweep(hashing, now),
            Self::Data(table) => table.sweep(hashing, now),
        }
    }

    /// From now on the table knows which items to evict, or needs not to.
    pub(super) fn set_evicts(&mut self, evicts: bool) {
        match self {
            Self::Counter(_) | Self::Counter64(_) => {}
            Self::Index(table) => table.set_evicts(evicts),
            Self::Data(table) => table.set_evicts(evicts),
        }
    }

    /// True if its items may be evicted.
    pub(super) fn evicts(&self) -> bool {
        match self {
            Self::Counter(_) | Self::Counter64(_) => false,
            Self::Index(table) => table.cache.is_some(),
            Self::Data(table) => table.cache.is_some(),
        }
    }

    /// The bucket of the item that goes next when memory is full.
    pub(super) fn victim(
        &mut self,
        hashing: &Hashing,
        now: Time,
        steps: &mut usize,
    ) -> Option<usize> {
        match self {
            Self::Counter(_) | Self::Counter64(_) => None,
            Self::Index(table) => table.victim(hashing, now, steps),
            Self::Data(table) => table.victim(hashing, now, steps),
        }
    }

    /// The header of the item in a bucket, and what the item takes.
    pub(super) fn item_at(&self, bucket: usize) -> Option<(&Head, Expiry, usize)> {
        match self {
            Self::Counter(_) | Self::Counter64(_) => None,
            Self::Index(table) => table.item_at(bucket),
            Self::Data(table) => table.item_at(bucket),
        }
    }

    /// From now on the table knows what it held at this moment.
    pub(super) fn begin_cut(&mut self) {
        match self {
            Self::Counter(table) => table.begin_cut(),
            Self::Counter64(table) => table.begin_cut(),
            Self::Index(table) => table.begin_cut(),
            Self::Data(table) => table.begin_cut(),
        }
    }

    pub(super) fn drop_cut(&mut self) {
        match self {
            Self::Counter(table) => table.drop_cut(),
            Self::Counter64(table) => table.drop_cut(),
            Self::Index(table) => table.drop_cut(),
            Self::Data(table) => table.drop_cut(),
        }
    }

    /// Calls `take` with the next entries of the cut that are alive at `now`; true if there may
    /// be more of them here. The cut ends with the last one.
    pub(super) fn take_piece(
        &mut self,
        hashing: &Hashing,
        now: Time,
        take: impl FnMut(u32, View<'_>),
    ) -> bool {
        match self {
            Self::Counter(table) => table.take_piece(hashing, now, take),
            Self::Counter64(table) => table.take_piece(hashing, now, take),
            Self::Index(table) => table.take_piece(now, take),
            Self::Data(table) => table.take_piece(now, take),
        }
    }

    /// This table under a type of `kind`: a COUNTER becomes a COUNTER64, and any other change
    /// of kind finds the table empty, because the rules see to it.
    pub(super) fn converted(self, kind: Kind, hashing: &Hashing) -> Self {
        match self {
            Self::Counter(table) if kind == Kind::Counter64 => {
                Self::Counter64(table.converted(hashing))
            }
            table if table.kind() == kind => table,
            Self::Counter(_) | Self::Counter64(_) | Self::Index(_) | Self::Data(_) => {
                Self::new(kind)
            }
        }
    }

    /// Visits the next entries of a walk; false if there are no more.
    pub(super) fn walk(
        &self,
        hashing: &Hashing,
        spot: &mut Spot,
        now: Time,
        visit: &mut dyn FnMut(u32, View<'_>),
    ) -> bool {
        match self {
            Self::Counter(table) => table.walk(hashing, spot, now, visit),
            Self::Counter64(table) => table.walk(hashing, spot, now, visit),
            Self::Index(table) => table.walk(spot, now, &mut |id, _, view| visit(id, view)),
            Self::Data(table) => table.walk(spot, now, &mut |id, _, view| visit(id, view)),
        }
    }

    /// Calls `visit` with the id of every entry that is alive at `now`, until it fails.
    pub(super) fn for_each<E>(
        &self,
        hashing: &Hashing,
        now: Time,
        visit: &mut dyn FnMut(u32, View<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Self::Counter(table) => visit_counters(table, hashing, now, visit),
            Self::Counter64(table) => visit_counters(table, hashing, now, visit),
            Self::Index(table) => table
                .iter(now)
                .try_for_each(|(id, _, view)| visit(id, view)),
            Self::Data(table) => table
                .iter(now)
                .try_for_each(|(id, _, view)| visit(id, view)),
        }
    }
}

fn visit_counters<N: Number, E>(
    table: &Counters<N>,
    hashing: &Hashing,
    now: Time,
    visit: &mut dyn FnMut(u32, View<'_>) -> Result<(), E>,
) -> Result<(), E> {
    table
        .iter(hashing, now)
        .try_for_each(|(id, view)| visit(id, view))
}

/// Adds bytes to a value that is alive.
pub(super) fn extend(
    table: &mut Items<Blob>,
    place: (u64, Key<'_>),
    (side, bytes): (Side, &[u8]),
    stamp: Stamp,
) -> Result<(), Unfit> {
    let mut is_away = false;
    found(table.edit(place, (stamp.time, stamp.seq), |blob| {
        let extended = match side {
            Side::Front => blob.extended(bytes, &[]),
            Side::Back => blob.extended(&[], bytes),
        };
        is_away = extended.is_none();
        if let Some(extended) = extended {
            *blob = extended;
        }
    }))?;
    if is_away { Err(Unfit::Away) } else { Ok(()) }
}
