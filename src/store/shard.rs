//! One shard: a table for each type and one for the named keys, and the one function through
//! which an entry changes. Its lock is held by the caller and never across an await.

use std::fmt::Display;
use std::sync::Arc;

use super::books::Books;
use super::cut::ShardCut;
use super::hashing::Hashing;
use super::items::Items;
use super::table::{Table, Unfit, extend, found};
use super::walk::Spot;
use crate::clock::{Expiry, Time};
use crate::command::change::{Change, Side};
use crate::command::{Holds, Place, View};
use crate::key::{Key, TypedKey};
use crate::types::TypeTable;
use crate::value::{Attributes, Blob, Entry, Marks, Value, data};

/// The tables of one shard.
pub struct Shard {
    pub(super) types: Arc<TypeTable>,
    /// One a row of `types`, in its order.
    pub(super) tables: Vec<Table>,
    pub(super) named: Items<Blob>,
    pub(super) hashing: Hashing,
    /// The sequence number of the last change here, so that a reply can wait until what it
    /// shows is durable.
    pub(super) last_seq: u64,
    /// What a snapshot in the making still needs of this shard.
    pub(super) cut: Option<ShardCut>,
    pub(super) books: Books,
    /// The table that a sweep is at, the first one being that of the named keys.
    pub(super) sweeping: usize,
    /// Which table is drawn next to evict from.
    pub(super) draw: u32,
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

/// A change's place in the one order.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// The record's sequence number; of a change that is not journalled a number from
    /// [`UNJOURNALLED_FROM`] on. It becomes the cas unique.
    pub seq: u64,
    /// The time at which it was decided.
    pub time: Time,
}

/// No journal has so many records: from here on numbers are of changes that it does not hold.
pub const UNJOURNALLED_FROM: u64 = 1 << 60;

impl Stamp {
    /// True if a restart finds the change in the journal.
    pub fn is_journalled(self) -> bool {
        self.seq < UNJOURNALLED_FROM
    }

    /// Makes this the last change of a shard, if a restart finds it.
    #[inline]
    pub(super) fn note_in(self, last_seq: &mut u64) {
        if self.is_journalled() {
            *last_seq = self.seq;
        }
    }

    pub(super) fn misfit(self, what: &dyn Display) -> Misfit {
        Misfit {
            seq: self.seq,
            what: what.to_string(),
        }
    }
}

impl Shard {
    pub(super) fn new(types: Arc<TypeTable>, hashing: Hashing, books: Books) -> Self {
        let tables = types
            .rows()
            .iter()
            .map(|row| Table::new(row.kind))
            .collect();
        let mut shard = Self {
            types,
            tables,
            named: Items::new(),
            hashing,
            last_seq: 0,
            cut: None,
            books,
            sweeping: 0,
            draw: 0,
        };
        shard.set_evicts();
        shard
    }

    /// The type table that the tables are laid out by.
    pub fn types(&self) -> &Arc<TypeTable> {
        &self.types
    }

    /// The sequence number of the last change in this shard.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    fn note(&mut self, stamp: Stamp) {
        stamp.note_in(&mut self.last_seq);
    }

    pub(super) fn table(&self, prefix: u16) -> Option<&Table> {
        self.tables.get(self.types.position(prefix)?)
    }

    fn table_mut(&mut self, prefix: u16) -> Result<(&mut Table, &Hashing), Unfit> {
        let at = self.types.position(prefix).ok_or(Unfit::Misplaced)?;
        let table = self.tables.get_mut(at).ok_or(Unfit::Misplaced)?;
        Ok((table, &self.hashing))
    }

    /// Has the processor fetch the entry at a key.
    pub fn prefetch(&self, hash: u64, key: Key<'_>) {
        match key {
            Key::Named(_) => self.named.prefetch(hash),
            Key::Typed(typed) => {
                if let Some(table) = self.table(typed.prefix) {
                    table.prefetch(hash);
                }
            }
        }
    }

    /// The entry at a key, if it is there and alive at `now`.
    pub fn view(&self, hash: u64, key: Key<'_>, now: Time) -> Option<View<'_>> {
        match key {
            Key::Named(_) => self.named.view(hash, key, now),
            Key::Typed(typed) => self.table(typed.prefix)?.view(hash, typed, now),
        }
    }

    /// True if the entry at a key has ended and is only still there: why there is none. For
    /// figures alone: what a sweep is on its way to may not be known.
    pub fn has_expired(&self, hash: u64, key: Key<'_>, now: Time) -> bool {
        // Mostly nothing has ended, and a miss costs no second look.
        if self.books.soonest() > now {
            return false;
        }
        match key {
            Key::Named(_) => self.named.has_expired(hash, key, now),
            Key::Typed(typed) => {
                let table = self.table(typed.prefix);
                table.is_some_and(|table| table.has_expired(hash, typed, now))
            }
        }
    }

    /// The value of a DATA entry, if its cas unique is this one.
    pub fn data(&self, hash: u64, key: TypedKey, cas: u64) -> Option<&Blob> {
        let table = self.table(key.prefix)?.data()?;
        table.get(hash, Key::Typed(key), cas)
    }

    /// Puts the bytes of a DATA value in the place of where they are, or the other way round, if
    /// its cas unique is still this one. Not a change: nobody sees a difference.
    pub fn reform(&mut self, hash: u64, key: TypedKey, cas: u64, form: Blob) -> bool {
        let table = self.table_mut(key.prefix).ok();
        let data = table.and_then(|(table, _)| table.data_mut());
        let reformed = data.is_some_and(|data| {
            data.reform((hash, Key::Typed(key), cas), |blob| {
                let mut form = form;
                form.become_form_of(blob);
                *blob = form;
            })
        });
        self.settle(Some(key.prefix));
        reformed
    }

    /// Visits the next entries of a walk over a type, or with `None` over the named keys; false
    /// if there are no more.
    pub(super) fn walk(
        &self,
        prefix: Option<u16>,
        spot: &mut Spot,
        now: Time,
        visit: &mut dyn FnMut(Key<'_>, View<'_>),
    ) -> bool {
        let Some(prefix) = prefix else {
            let visit = &mut |_, name: &[u8], view: View<'_>| visit(Key::Named(name), view);
            return self.named.walk(spot, now, visit);
        };
        let mut visit = |id, view: View<'_>| visit(Key::Typed(TypedKey { prefix, id }), view);
        self.table(prefix)
            .is_some_and(|table| table.walk(&self.hashing, spot, now, &mut visit))
    }

    /// True if an entry of a type, or with `None` of the named keys, is alive at `now`.
    pub fn has_live(&self, prefix: Option<u16>, now: Time) -> bool {
        let Some(prefix) = prefix else {
            return self.named.iter(now).next().is_some();
        };
        let mut first = |_, _: View<'_>| Err(());
        let table = self.table(prefix);
        table.is_some_and(|table| table.for_each(&self.hashing, now, &mut first).is_err())
    }

    /// Carries out a change, or a batch, of one entry of this shard. Several shards' changes (a
    /// fan-out, a batch, a flush, new types) are taken apart by [`super::locks::WriteSet::apply`].
    pub fn apply(&mut self, hash: u64, change: Change<'_>, stamp: Stamp) -> Result<(), Misfit> {
        self.note(stamp);
        let (key, fits) = match change {
            Change::Put {
                key,
                value,
                flags,
                expires,
            } => {
                if let Value::Data(blob) = &value {
                    blob.head().note_access(stamp.time);
                }
                let entry = Entry {
                    value,
                    flags,
                    expires,
                    cas: stamp.seq,
                    marks: Marks::NONE,
                };
                (key, self.put(hash, key, entry))
            }
            Change::Remove { key } => (key, self.remove(hash, key)),
            Change::Expire { key, expires } => (key, self.expire(hash, key, expires)),
            Change::Mark { key, marks } => (key, self.mark(hash, key, (Some(marks), None))),
            Change::Unique { key, unique } => {
                let unique = Some(unique.unwrap_or(stamp.seq));
                (key, self.mark(hash, key, (None, unique)))
            }
            Change::Number { key, number } => (key, self.number(hash, key, number, stamp)),
            Change::Extend { key, side, bytes } => {
                (key, self.extend(hash, key, (side, bytes), stamp))
            }
            Change::Members {
                key,
                create,
                added,
                removed,
            } => {
                self.books
                    .expect(create.map_or(Expiry::NEVER, |(_, expires)| expires));
                let edit = (create, &*added, &*removed);
                let fits = self
                    .table_mut(key.prefix)
                    .and_then(|(table, hashing)| table.members(hashing, (hash, key), edit, stamp));
                (Key::Typed(key), fits)
            }
            Change::Batch(changes) => {
                let mut changes = changes.into_iter();
                return changes.try_for_each(|change| self.apply(hash, change, stamp));
            }
            Change::FanOut { .. } | Change::Flush { .. } | Change::Types(_) => {
                return Err(stamp.misfit(&"it is not of one shard"));
            }
        };
        self.settle(prefix(key));
        fits.map_err(|unfit| stamp.misfit(&format_args!("{key} {unfit}")))
    }

    /// Takes an entry from a snapshot.
    pub fn restore(
        &mut self,
        hash: u64,
        key: Key<'_>,
        entry: Entry,
        stamp: Stamp,
    ) -> Result<(), Misfit> {
        let fits = self.put(hash, key, entry);
        self.settle(prefix(key));
        fits.map_err(|unfit| stamp.misfit(&format_args!("{key} {unfit}")))
    }

    fn put(&mut self, hash: u64, key: Key<'_>, entry: Entry) -> Result<(), Unfit> {
        self.books.expect(entry.expires);
        match (key, entry) {
            (Key::Typed(typed), entry) => {
                let (table, hashing) = self.table_mut(typed.prefix)?;
                table.put(hashing, (hash, typed), entry)
            }
            (
                Key::Named(_),
                Entry {
                    value: Value::Data(mut blob),
                    flags,
                    expires,
                    cas,
                    marks,
                },
            ) => {
                let attributes = Attributes {
                    flags,
                    expires,
                    cas,
                };
                blob.become_item(0, attributes, marks);
                self.named.put(&self.hashing, (hash, key), blob);
                Ok(())
            }
            (
                Key::Named(_),
                Entry {
                    value: Value::Number(_) | Value::Index(_),
                    ..
                },
            ) => Err(Unfit::Misplaced),
        }
    }

    fn remove(&mut self, hash: u64, key: Key<'_>) -> Result<(), Unfit> {
        match key {
            Key::Named(_) => found(self.named.remove(&self.hashing, hash, key)),
            Key::Typed(typed) => {
                let (table, hashing) = self.table_mut(typed.prefix)?;
                table.remove(hashing, (hash, typed))
            }
        }
    }

    fn expire(&mut self, hash: u64, key: Key<'_>, expires: Expiry) -> Result<(), Unfit> {
        self.books.expect(expires);
        match key {
            Key::Named(_) => found(self.named.expire((hash, key), expires)),
            Key::Typed(typed) => {
                let (table, hashing) = self.table_mut(typed.prefix)?;
                table.expire(hashing, (hash, typed), expires)
            }
        }
    }

    fn mark(
        &mut self,
        hash: u64,
        key: Key<'_>,
        what: (Option<Marks>, Option<u64>),
    ) -> Result<(), Unfit> {
        match key {
            Key::Named(_) => found(self.named.mark((hash, key), what)),
            Key::Typed(typed) => self.table_mut(typed.prefix)?.0.mark((hash, typed), what),
        }
    }

    fn number(&mut self, hash: u64, key: Key<'_>, number: u64, stamp: Stamp) -> Result<(), Unfit> {
        match key {
            Key::Named(_) => {
                let when = (stamp.time, stamp.seq);
                found(self.named.edit((hash, key), when, |blob| {
                    *blob = blob.with_value(&data::number_in_place(number, blob.len()));
                }))
            }
            Key::Typed(typed) => {
                let (table, hashing) = self.table_mut(typed.prefix)?;
                table.number(hashing, (hash, typed.id), number, stamp.time)
            }
        }
    }

    fn extend(
        &mut self,
        hash: u64,
        key: Key<'_>,
        addition: (Side, &[u8]),
        stamp: Stamp,
    ) -> Result<(), Unfit> {
        match key {
            Key::Named(_) => extend(&mut self.named, (hash, key), addition, stamp),
            Key::Typed(typed) => {
                let (table, _) = self.table_mut(typed.prefix)?;
                table.extend((hash, typed), addition, stamp)
            }
        }
    }

    /// Drops every entry. What a snapshot in the making still needs stays aside, as it is: what is
    /// durable.
    pub(super) fn clear(&mut self, seq: u64) {
        let empty = Self::new(
            Arc::clone(&self.types),
            self.hashing.clone(),
            self.books.fresh(),
        );
        let mut old = std::mem::replace(self, empty);
        self.last_seq = seq;
        self.cut = match old.cut.take() {
            Some(ShardCut::Live(progress)) => {
                old.cut = Some(ShardCut::Live(progress));
                old.forget_volatile();
                Some(ShardCut::Flushed(Box::new(old)))
            }
            flushed => flushed,
        };
    }

    /// Lays the tables out by another type table. Types that are gone take their (empty) tables
    /// with them. A snapshot in the making has to begin again.
    pub(super) fn relay(&mut self, types: Arc<TypeTable>, seq: u64) {
        self.drop_cut();
        let old_types = std::mem::replace(&mut self.types, types);
        let mut moved = vec![Some(0)];
        let mut old: Vec<Option<Table>> = std::mem::take(&mut self.tables)
            .into_iter()
            .map(Some)
            .collect();
        for row in self.types.rows() {
            let at = old_types.position(row.prefix);
            moved.push(at.map(|at| at + 1));
            let kept = at.and_then(|at| old.get_mut(at)?.take());
            let table = kept.unwrap_or_else(|| Table::new(row.kind));
            self.tables.push(table.converted(row.kind, &self.hashing));
        }
        self.last_seq = seq;
        self.sweeping = 0;
        self.set_evicts();
        self.books.rearrange(&moved);
        self.settle_all();
    }

    /// Drops the entries that no journal holds: a restart would not find them.
    pub(super) fn forget_volatile(&mut self) {
        for (row, table) in self.types.rows().iter().zip(&mut self.tables) {
            if !row.keep.durable {
                *table = Table::new(row.kind);
            }
        }
        if !self.types.named().durable {
            self.named = Items::new();
        }
        self.set_evicts();
        self.settle_all();
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
            let mut visit_id = |id, view: View<'_>| {
                visit(
                    Key::Typed(TypedKey {
                        prefix: row.prefix,
                        id,
                    }),
                    view,
                )
            };
            table.for_each(&self.hashing, now, &mut visit_id)?;
        }
        Ok(())
    }
}

/// What a resolved key holds under `types`.
pub fn place<'a>(types: &TypeTable, key: Key<'a>) -> Option<Place<'a>> {
    let holds = match key {
        Key::Named(_) => Holds::Named,
        Key::Typed(TypedKey { prefix, .. }) => Holds::Kind(types.get(prefix)?.kind),
    };
    Some(Place { key, holds })
}

/// The type of a typed key.
fn prefix(key: Key<'_>) -> Option<u16> {
    match key {
        Key::Named(_) => None,
        Key::Typed(key) => Some(key.prefix),
    }
}
