//! One shard: a table for each type and one for the named keys, and the one function through
//! which an entry changes. Its lock is held by the caller and never across an await.

use std::sync::Arc;

use super::counters::{Counters, Number};
use super::hashing::Hashing;
use super::items::Items;
use crate::clock::{Expiry, Time};
use crate::command::change::{Change, Side};
use crate::command::{Holds, Place, View};
use crate::key::{Key, TypedKey};
use crate::types::{Kind, TypeTable};
use crate::value::{Blob, Delta, Entry, Index, Member, Value, data};

/// The tables of one shard.
pub struct Shard {
    types: Arc<TypeTable>,
    /// One a row of `types`, in its order.
    tables: Vec<Table>,
    named: Items<Blob>,
    hashing: Hashing,
    /// The sequence number of the last change here, so that a reply can wait until what it
    /// shows is durable.
    last_seq: u64,
}

enum Table {
    Counter(Counters<u32>),
    Counter64(Counters<[u32; 2]>),
    Index(Items<Arc<Index>>),
    Data(Items<Blob>),
}

/// A record that does not fit the state it is applied to: the journal and the state have
/// parted, which only damage or a defect can bring about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {seq} does not fit the state: {what}")]
pub struct Misfit {
    /// The record's sequence number.
    pub seq: u64,
    /// What does not fit.
    pub what: String,
}

/// Who applies a change: its place in the one order.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// The record's sequence number.
    pub seq: u64,
    /// The time at which it was decided.
    pub time: Time,
}

impl Stamp {
    pub(super) fn misfit(self, what: &dyn std::fmt::Display) -> Misfit {
        Misfit {
            seq: self.seq,
            what: what.to_string(),
        }
    }
}

impl Table {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Counter => Self::Counter(Counters::new(kind)),
            Kind::Counter64 => Self::Counter64(Counters::new(kind)),
            Kind::Index => Self::Index(Items::new()),
            Kind::Data => Self::Data(Items::new()),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Counter(_) => Kind::Counter,
            Self::Counter64(_) => Kind::Counter64,
            Self::Index(_) => Kind::Index,
            Self::Data(_) => Kind::Data,
        }
    }

    fn sizes(&self) -> Sizes {
        let (entries, bytes) = match self {
            Self::Counter(table) => (table.len(), table.bytes()),
            Self::Counter64(table) => (table.len(), table.bytes()),
            Self::Index(table) => (table.len(), table.bytes()),
            Self::Data(table) => (table.len(), table.bytes()),
        };
        Sizes { entries, bytes }
    }

    fn view(&self, hash: u64, key: TypedKey, now: Time) -> Option<View<'_>> {
        match self {
            Self::Counter(table) => table.view(hash, key.id, now),
            Self::Counter64(table) => table.view(hash, key.id, now),
            Self::Index(table) => table.view(hash, Key::Typed(key), now),
            Self::Data(table) => table.view(hash, Key::Typed(key), now),
        }
    }

    fn purge(&mut self, hashing: &Hashing, now: Time) {
        match self {
            Self::Counter(table) if table.has_expiring() => table.purge(hashing, now),
            Self::Counter64(table) if table.has_expiring() => table.purge(hashing, now),
            Self::Index(table) if table.has_expiring() => table.purge(now),
            Self::Data(table) if table.has_expiring() => table.purge(now),
            Self::Counter(_) | Self::Counter64(_) | Self::Index(_) | Self::Data(_) => {}
        }
    }

    /// This table under a type of `kind`; only COUNTER to COUNTER64 changes anything.
    fn converted(self, kind: Kind, hashing: &Hashing) -> Self {
        match self {
            Self::Counter(table) if kind == Kind::Counter64 => {
                Self::Counter64(table.converted(kind, hashing))
            }
            table => table,
        }
    }
}

/// How much there is of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// The number of entries, some of which may have expired unnoticed.
    pub entries: usize,
    /// What they take in memory, about, in bytes.
    pub bytes: usize,
}

impl std::ops::AddAssign for Sizes {
    fn add_assign(&mut self, other: Self) {
        self.entries += other.entries;
        self.bytes += other.bytes;
    }
}

impl Shard {
    pub(super) fn new(types: Arc<TypeTable>, hashing: Hashing) -> Self {
        let tables = types
            .rows()
            .iter()
            .map(|row| Table::new(row.kind))
            .collect();
        Self {
            types,
            tables,
            named: Items::new(),
            hashing,
            last_seq: 0,
        }
    }

    /// The type table that the tables are laid out by.
    pub fn types(&self) -> &Arc<TypeTable> {
        &self.types
    }

    /// The sequence number of the last change in this shard.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    fn table(&self, prefix: u16) -> Option<&Table> {
        self.tables.get(self.types.position(prefix)?)
    }

    fn table_mut(&mut self, prefix: u16) -> Option<(&mut Table, &Hashing)> {
        let table = self.tables.get_mut(self.types.position(prefix)?)?;
        Some((table, &self.hashing))
    }

    /// The entry at a key, if it is there and alive at `now`.
    pub fn view(&self, hash: u64, key: Key<'_>, now: Time) -> Option<View<'_>> {
        match key {
            Key::Named(_) => self.named.view(hash, key, now),
            Key::Typed(typed) => self.table(typed.prefix)?.view(hash, typed, now),
        }
    }

    /// The table of a type, or with `None` that of the named keys.
    pub fn sizes(&self, prefix: Option<u16>) -> Sizes {
        match prefix {
            None => Sizes {
                entries: self.named.len(),
                bytes: self.named.bytes(),
            },
            Some(prefix) => self.table(prefix).map_or(Sizes::default(), Table::sizes),
        }
    }

    /// How many entries of a type are alive at `now`.
    pub fn count(&self, prefix: u16, now: Time) -> usize {
        match self.table(prefix) {
            Some(Table::Counter(table)) => table.iter(&self.hashing, now).count(),
            Some(Table::Counter64(table)) => table.iter(&self.hashing, now).count(),
            Some(Table::Index(table)) => table.iter(now).count(),
            Some(Table::Data(table)) => table.iter(now).count(),
            None => 0,
        }
    }

    /// What the shard holds in all, in bytes.
    pub fn bytes(&self) -> usize {
        self.tables
            .iter()
            .map(|table| table.sizes().bytes)
            .sum::<usize>()
            + self.named.bytes()
    }

    /// Drops what has expired. Not a change: nobody could see it any more.
    pub fn purge(&mut self, now: Time) {
        for table in &mut self.tables {
            table.purge(&self.hashing, now);
        }
        if self.named.has_expiring() {
            self.named.purge(now);
        }
    }

    /// Carries out a change of one entry of this shard. Several shards' changes (a fan-out, a
    /// batch, a flush, new types) are taken apart by [`super::locks::WriteSet::apply`].
    pub fn apply(&mut self, hash: u64, change: Change<'_>, stamp: Stamp) -> Result<(), Misfit> {
        self.last_seq = stamp.seq;
        match change {
            Change::Put {
                key,
                value,
                flags,
                expires,
            } => self.put(
                hash,
                key,
                Entry {
                    value,
                    flags,
                    expires,
                    cas: stamp.seq,
                },
                stamp,
            ),
            Change::Remove { key } => self.remove(hash, key, stamp),
            Change::Expire { key, expires } => self.expire(hash, key, expires, stamp),
            Change::Number { key, number } => self.number(hash, key, number, stamp),
            Change::Extend { key, side, bytes } => self.extend(hash, key, (side, bytes), stamp),
            Change::Members {
                key,
                create,
                added,
                removed,
            } => self.members(hash, key, create, (&added, &removed), stamp),
            Change::FanOut { .. } | Change::Flush { .. } | Change::Types(_) | Change::Batch(_) => {
                Err(stamp.misfit(&"it is not of one shard"))
            }
        }
    }

    /// Stores an entry, with the cas unique that it carries.
    pub fn put(
        &mut self,
        hash: u64,
        key: Key<'_>,
        entry: Entry,
        stamp: Stamp,
    ) -> Result<(), Misfit> {
        let Entry {
            value,
            flags,
            expires,
            cas,
        } = entry;
        let meta = (flags, expires, cas);
        let Key::Typed(typed) = key else {
            let Value::Data(blob) = value else {
                return Err(misplaced(key, stamp));
            };
            self.named.put(&self.hashing, (hash, key), blob, meta);
            return Ok(());
        };
        let Some((table, hashing)) = self.table_mut(typed.prefix) else {
            return Err(misplaced(key, stamp));
        };
        match (table, value) {
            (Table::Counter(table), Value::Number(number)) => {
                table.put(hashing, hash, typed.id, number, (flags, expires));
            }
            (Table::Counter64(table), Value::Number(number)) => {
                table.put(hashing, hash, typed.id, number, (flags, expires));
            }
            (Table::Index(table), Value::Index(index)) => {
                table.put(hashing, (hash, key), index, meta);
            }
            (Table::Data(table), Value::Data(blob)) => table.put(hashing, (hash, key), blob, meta),
            (_, Value::Number(_) | Value::Index(_) | Value::Data(_)) => {
                return Err(misplaced(key, stamp));
            }
        }
        Ok(())
    }

    fn remove(&mut self, hash: u64, key: Key<'_>, stamp: Stamp) -> Result<(), Misfit> {
        let removed = match key {
            Key::Named(_) => self.named.remove(hash, key),
            Key::Typed(typed) => match self.table_mut(typed.prefix) {
                Some((Table::Counter(table), _)) => table.remove(hash, typed.id),
                Some((Table::Counter64(table), _)) => table.remove(hash, typed.id),
                Some((Table::Index(table), _)) => table.remove(hash, key),
                Some((Table::Data(table), _)) => table.remove(hash, key),
                None => false,
            },
        };
        if removed {
            Ok(())
        } else {
            Err(missing(key, stamp))
        }
    }

    fn expire(
        &mut self,
        hash: u64,
        key: Key<'_>,
        expires: Expiry,
        stamp: Stamp,
    ) -> Result<(), Misfit> {
        let found = match key {
            Key::Named(_) => self.named.expire(hash, key, expires),
            Key::Typed(typed) => match self.table_mut(typed.prefix) {
                Some((Table::Counter(t), hashing)) => t.expire(hashing, hash, typed.id, expires),
                Some((Table::Counter64(t), hashing)) => t.expire(hashing, hash, typed.id, expires),
                Some((Table::Index(table), _)) => table.expire(hash, key, expires),
                Some((Table::Data(table), _)) => table.expire(hash, key, expires),
                None => false,
            },
        };
        if found {
            Ok(())
        } else {
            Err(missing(key, stamp))
        }
    }

    fn number(&mut self, hash: u64, key: Key<'_>, number: u64, stamp: Stamp) -> Result<(), Misfit> {
        let Key::Typed(typed) = key else {
            let edited = self.named.edit((hash, key), stamp.time, stamp.seq, |blob| {
                *blob = blob.with_value(&data::number_in_place(number, blob.value().len()));
            });
            return if edited {
                Ok(())
            } else {
                Err(missing(key, stamp))
            };
        };
        match self.table_mut(typed.prefix) {
            Some((Table::Counter(table), hashing)) => {
                table.number(hashing, hash, typed.id, number, stamp.time);
                Ok(())
            }
            Some((Table::Counter64(table), hashing)) => {
                table.number(hashing, hash, typed.id, number, stamp.time);
                Ok(())
            }
            Some((Table::Index(_) | Table::Data(_), _)) | None => Err(misplaced(key, stamp)),
        }
    }

    fn extend(
        &mut self,
        hash: u64,
        key: Key<'_>,
        (side, bytes): (Side, &[u8]),
        stamp: Stamp,
    ) -> Result<(), Misfit> {
        let edit = |blob: &mut Blob| {
            *blob = match side {
                Side::Front => blob.extended(bytes, &[]),
                Side::Back => blob.extended(&[], bytes),
            };
        };
        let table = match key {
            Key::Named(_) => Some(&mut self.named),
            Key::Typed(typed) => match self.table_mut(typed.prefix) {
                Some((Table::Data(table), _)) => Some(table),
                Some(_) | None => None,
            },
        };
        let Some(table) = table else {
            return Err(misplaced(key, stamp));
        };
        let edited = table.edit((hash, key), stamp.time, stamp.seq, edit);
        if edited {
            Ok(())
        } else {
            Err(missing(key, stamp))
        }
    }

    fn members(
        &mut self,
        hash: u64,
        key: TypedKey,
        create: Option<(u32, Expiry)>,
        (added, removed): (&[Member], &[u32]),
        stamp: Stamp,
    ) -> Result<(), Misfit> {
        let typed = Key::Typed(key);
        let Some((Table::Index(table), hashing)) = self.table_mut(key.prefix) else {
            return Err(misplaced(typed, stamp));
        };
        if let Some((flags, expires)) = create {
            let index = Arc::new(Index::from_members(added.to_vec()));
            table.put(hashing, (hash, typed), index, (flags, expires, stamp.seq));
            return Ok(());
        }
        let edited = table.edit((hash, typed), stamp.time, stamp.seq, |index| {
            let index = Arc::make_mut(index);
            index.insert(added);
            index.remove(removed.iter().copied());
        });
        if edited {
            Ok(())
        } else {
            Err(missing(typed, stamp))
        }
    }

    /// One step of a fan-out: the counter `target.id`.
    pub(super) fn step(
        &mut self,
        hash: u64,
        counter: TypedKey,
        delta: Delta,
        stamp: Stamp,
    ) -> Result<(), Misfit> {
        self.last_seq = stamp.seq;
        match self.table_mut(counter.prefix) {
            Some((Table::Counter(table), hashing)) => {
                table.step(hashing, (hash, counter.id), delta, stamp.time);
                Ok(())
            }
            Some((Table::Counter64(table), hashing)) => {
                table.step(hashing, (hash, counter.id), delta, stamp.time);
                Ok(())
            }
            Some((Table::Index(_) | Table::Data(_), _)) | None => {
                Err(misplaced(Key::Typed(counter), stamp))
            }
        }
    }

    /// Drops every entry.
    pub(super) fn clear(&mut self, seq: u64) {
        *self = Self::new(Arc::clone(&self.types), self.hashing.clone());
        self.last_seq = seq;
    }

    /// Lays the tables out by another type table. Types that are gone take their (empty) tables
    /// with them.
    pub(super) fn relay(&mut self, types: Arc<TypeTable>, seq: u64) {
        let old_types = std::mem::replace(&mut self.types, types);
        let mut old: Vec<Option<Table>> = std::mem::take(&mut self.tables)
            .into_iter()
            .map(Some)
            .collect();
        for row in self.types.rows() {
            let kept = old_types
                .position(row.prefix)
                .and_then(|at| old.get_mut(at)?.take());
            let table = match kept {
                Some(table) => table.converted(row.kind, &self.hashing),
                None => Table::new(row.kind),
            };
            // A kind that changed otherwise was empty: the rules see to it.
            let table = if table.kind() == row.kind {
                table
            } else {
                Table::new(row.kind)
            };
            self.tables.push(table);
        }
        self.last_seq = seq;
    }

    /// Calls `visit` with every entry that is alive at `now`, until it fails.
    pub fn for_each<E>(
        &self,
        now: Time,
        mut visit: impl FnMut(Key<'_>, View<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for (_, name, view) in self.named.iter(now) {
            visit(Key::Named(name), view)?;
        }
        for (row, table) in self.types.rows().iter().zip(&self.tables) {
            let key = |id| {
                Key::Typed(TypedKey {
                    prefix: row.prefix,
                    id,
                })
            };
            match table {
                Table::Counter(t) => visit_counters(t, &self.hashing, now, key, &mut visit)?,
                Table::Counter64(t) => visit_counters(t, &self.hashing, now, key, &mut visit)?,
                Table::Index(table) => {
                    table
                        .iter(now)
                        .try_for_each(|(id, _, view)| visit(key(id), view))?;
                }
                Table::Data(table) => {
                    table
                        .iter(now)
                        .try_for_each(|(id, _, view)| visit(key(id), view))?;
                }
            }
        }
        Ok(())
    }
}

fn visit_counters<'k, N: Number, E>(
    table: &Counters<N>,
    hashing: &Hashing,
    now: Time,
    key: impl Fn(u32) -> Key<'k>,
    visit: &mut impl FnMut(Key<'_>, View<'_>) -> Result<(), E>,
) -> Result<(), E> {
    table
        .iter(hashing, now)
        .try_for_each(|(id, view)| visit(key(id), view))
}

fn missing(key: Key<'_>, stamp: Stamp) -> Misfit {
    stamp.misfit(&format_args!("{key} is not there"))
}

fn misplaced(key: Key<'_>, stamp: Stamp) -> Misfit {
    stamp.misfit(&format_args!("{key} does not hold that"))
}

/// What a resolved key holds under `types`.
pub fn place<'a>(types: &TypeTable, key: Key<'a>) -> Option<Place<'a>> {
    let holds = match key {
        Key::Named(_) => Holds::Named,
        Key::Typed(TypedKey { prefix, .. }) => Holds::Kind(types.get(prefix)?.kind),
    };
    Some(Place { key, holds })
}
