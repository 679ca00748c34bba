//! The table of an INDEX or DATA type, or of the named keys, in one shard.

use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;

use super::cut::PIECE_BUCKETS;
use super::hashing::Hashing;
use super::shard::Away;
use crate::clock::{Expiry, Time};
use crate::command::{View, ViewValue};
use crate::key::{Key, TypedKey};
use crate::value::{Blob, Index};

/// An entry as a table keeps it.
#[derive(Clone)]
pub(super) struct Item<V> {
    pub(super) value: V,
    cas: u64,
    expires: Expiry,
    flags: u32,
    /// The id of a typed key; 0 for a named one, whose key is in the value.
    id: u32,
}

/// A value that a table of items can hold.
pub(super) trait Stored: Clone {
    /// What the value takes on the heap, in bytes.
    fn heap_bytes(&self) -> usize;
    /// The value as the rules see it.
    fn view(&self) -> ViewValue<'_>;
    /// The named key that the value carries, if it carries one.
    fn name(&self) -> &[u8];
    /// How much of the value is in a data file and not in memory.
    fn away(&self) -> Away {
        Away::default()
    }
}

impl Stored for Blob {
    fn heap_bytes(&self) -> usize {
        self.heap_bytes()
    }
    fn view(&self) -> ViewValue<'_> {
        ViewValue::Data(self)
    }
    fn name(&self) -> &[u8] {
        self.key()
    }
    fn away(&self) -> Away {
        if self.is_away() {
            Away {
                values: 1,
                bytes: self.len() as u64,
            }
        } else {
            Away::default()
        }
    }
}

impl Stored for Arc<Index> {
    fn heap_bytes(&self) -> usize {
        Index::heap_bytes(self)
    }
    fn view(&self) -> ViewValue<'_> {
        ViewValue::Index(self)
    }
    fn name(&self) -> &[u8] {
        &[]
    }
}

impl<V: Stored> Item<V> {
    fn is(&self, key: Key<'_>) -> bool {
        match key {
            Key::Typed(typed) => self.id == typed.id,
            Key::Named(name) => self.value.name() == name,
        }
    }

    fn hash(&self, hashing: &Hashing) -> u64 {
        match self.value.name() {
            [] => hashing.id(self.id),
            name => hashing.name(name),
        }
    }

    fn bytes(&self) -> usize {
        Self::SLOT_BYTES + self.value.heap_bytes()
    }

    /// A slot, its control byte and its share of empty slots.
    const SLOT_BYTES: usize = (size_of::<Self>() + 1) * 3 / 2;
}

/// The entries of one type in one shard.
pub(super) struct Items<V> {
    slots: HashTable<Item<V>>,
    /// What the items take together, in bytes.
    bytes: usize,
    /// How many items have an expiry.
    expiring: usize,
    /// What is not in memory.
    away: Away,
    /// What a snapshot in the making still needs.
    cut: Option<Box<Cut<V>>>,
}

/// The items as they were at the cut of a snapshot, as far as that is not in the table.
struct Cut<V> {
    /// The sequence number of the cut: an item with this cas unique or a later one has changed.
    seq: u64,
    /// Those that have changed since.
    before: Items<V>,
    /// The buckets before this one have been taken.
    next: usize,
}

impl<V: Stored> Cut<V> {
    /// True if the item, which is in the table, is not what it was at the cut.
    fn knows(&self, hash: u64, item: &Item<V>) -> bool {
        item.cas >= self.seq || !self.before.slots.is_empty() && self.before.has(hash, item)
    }
}

impl<V: Stored> Items<V> {
    pub(super) fn new() -> Self {
        Self {
            slots: HashTable::new(),
            bytes: 0,
            expiring: 0,
            away: Away::default(),
            cut: None,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.cut.as_ref().map_or(0, |cut| cut.before.bytes())
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn away(&self) -> Away {
        self.away
    }

    fn find(&self, hash: u64, key: Key<'_>, now: Time) -> Option<&Item<V>> {
        self.slots
            .find(hash, |item| item.is(key))
            .filter(|item| !item.expires.is_past(now))
    }

    pub(super) fn view(&self, hash: u64, key: Key<'_>, now: Time) -> Option<View<'_>> {
        self.find(hash, key, now).map(Item::view)
    }

    /// Stores a value with its flags, expiry and cas unique.
    pub(super) fn put(
        &mut self,
        hashing: &Hashing,
        (hash, key): (u64, Key<'_>),
        value: V,
        (flags, expires, cas): (u32, Expiry, u64),
    ) {
        let id = match key {
            Key::Typed(TypedKey { id, .. }) => id,
            Key::Named(_) => 0,
        };
        let item = Item {
            value,
            cas,
            expires,
            flags,
            id,
        };
        self.keep(hashing, hash, key);
        self.keep_if_full(hashing);
        self.count(&item, true);
        let replaced = match self
            .slots
            .entry(hash, |item| item.is(key), |item| item.hash(hashing))
        {
            Slot::Occupied(mut slot) => Some(std::mem::replace(slot.get_mut(), item)),
            Slot::Vacant(slot) => {
                slot.insert(item);
                None
            }
        };
        if let Some(old) = replaced {
            self.count(&old, false);
        }
    }

    fn count(&mut self, item: &Item<V>, added: bool) {
        let (bytes, expiring) = (item.bytes(), usize::from(item.expires != Expiry::NEVER));
        if added {
            self.bytes += bytes;
            self.expiring += expiring;
            self.away += item.value.away();
        } else {
            self.bytes -= bytes;
            self.expiring -= expiring;
            self.away -= item.value.away();
        }
    }

    /// Edits the value of an entry that is alive and gives it a new cas unique. False if there
    /// is none.
    pub(super) fn edit(
        &mut self,
        hashing: &Hashing,
        (hash, key): (u64, Key<'_>),
        (now, cas): (Time, u64),
        edit: impl FnOnce(&mut V),
    ) -> bool {
        self.keep(hashing, hash, key);
        let found = self.slots.find_mut(hash, |item| item.is(key));
        let Some(item) = found.filter(|item| !item.expires.is_past(now)) else {
            return false;
        };
        self.bytes -= item.bytes();
        self.away -= item.value.away();
        edit(&mut item.value);
        item.cas = cas;
        self.bytes += item.bytes();
        self.away += item.value.away();
        true
    }

    /// The value of an entry, if its cas unique is this one.
    pub(super) fn value(&self, hash: u64, key: Key<'_>, cas: u64) -> Option<&V> {
        let item = self.slots.find(hash, |item| item.is(key))?;
        (item.cas == cas).then_some(&item.value)
    }

    /// Puts another form of the same value in its place, if the cas unique is still this one.
    /// Not a change: nobody sees a difference, a snapshot included.
    pub(super) fn reform(&mut self, hash: u64, key: Key<'_>, cas: u64, form: V) -> bool {
        let found = self.slots.find_mut(hash, |item| item.is(key));
        let Some(item) = found.filter(|item| item.cas == cas) else {
            return false;
        };
        self.bytes -= item.bytes();
        self.away -= item.value.away();
        item.value = form;
        self.bytes += item.bytes();
        self.away += item.value.away();
        true
    }

    /// Sets the expiry; true if the entry is there.
    pub(super) fn expire(
        &mut self,
        hashing: &Hashing,
        (hash, key): (u64, Key<'_>),
        expires: Expiry,
    ) -> bool {
        self.keep(hashing, hash, key);
        let Some(item) = self.slots.find_mut(hash, |item| item.is(key)) else {
            return false;
        };
        self.expiring -= usize::from(item.expires != Expiry::NEVER);
        item.expires = expires;
        self.expiring += usize::from(expires != Expiry::NEVER);
        true
    }

    pub(super) fn remove(&mut self, hashing: &Hashing, hash: u64, key: Key<'_>) -> bool {
        self.keep(hashing, hash, key);
        let Ok(slot) = self.slots.find_entry(hash, |item| item.is(key)) else {
            return false;
        };
        let (item, _) = slot.remove();
        self.count(&item, false);
        true
    }

    /// Drops what has expired.
    pub(super) fn purge(&mut self, now: Time) {
        if self.expiring == 0 {
            return;
        }
        let (mut bytes, mut expiring, mut away) = (0, 0, Away::default());
        self.slots.retain(|item| {
            let gone = item.expires.is_past(now);
            if gone {
                away += item.value.away();
                bytes += item.bytes();
                expiring += 1;
            }
            !gone
        });
        self.bytes -= bytes;
        self.expiring -= expiring;
        self.away -= away;
    }

    /// Every entry that is alive, with its id and its named key.
    pub(super) fn iter(&self, now: Time) -> impl Iterator<Item = (u32, &[u8], View<'_>)> {
        let alive = self
            .slots
            .iter()
            .filter(move |item| !item.expires.is_past(now));
        alive.map(|item| (item.id, item.value.name(), item.view()))
    }
}

impl<V: Stored> Item<V> {
    fn view(&self) -> View<'_> {
        let Self {
            value,
            cas,
            expires,
            flags,
            ..
        } = self;
        View {
            value: value.view(),
            flags: *flags,
            expires: *expires,
            cas: *cas,
        }
    }
}

/// What a snapshot takes while the items change; see [`super::cut`].
impl<V: Stored> Items<V> {
    /// From now on the table knows what it held at this moment, before record `seq`.
    pub(super) fn begin_cut(&mut self, seq: u64) {
        self.cut = Some(Box::new(Cut {
            seq,
            before: Self::new(),
            next: 0,
        }));
    }

    pub(super) fn has_cut(&self) -> bool {
        self.cut.is_some()
    }

    pub(super) fn drop_cut(&mut self) {
        self.cut = None;
    }

    fn has(&self, hash: u64, other: &Item<V>) -> bool {
        let name = other.value.name();
        let same = |item: &Item<V>| item.id == other.id && item.value.name() == name;
        self.slots.find(hash, same).is_some()
    }

    /// Keeps the item aside as it is, if a snapshot still needs it: called before each change.
    #[inline]
    fn keep(&mut self, hashing: &Hashing, hash: u64, key: Key<'_>) {
        let Some(cut) = &mut self.cut else {
            return;
        };
        if let Some(at) = self.slots.find_bucket_index(hash, |item| item.is(key))
            && at >= cut.next
            && let Some(item) = self.slots.get_bucket(at)
        {
            cut.keep(hashing, hash, item);
        }
    }

    /// Called before an insertion, which may move every item to another bucket.
    #[inline]
    fn keep_if_full(&mut self, hashing: &Hashing) {
        let Some(cut) = &mut self.cut else {
            return;
        };
        if self.slots.len() < self.slots.capacity() {
            return;
        }
        for at in cut.next..self.slots.num_buckets() {
            if let Some(item) = self.slots.get_bucket(at) {
                cut.keep(hashing, item.hash(hashing), item);
            }
        }
        cut.next = usize::MAX;
    }

    /// Calls `take` with the next items of the cut that are alive at `now`; true if there are
    /// more of them here.
    pub(super) fn take_piece(
        &mut self,
        hashing: &Hashing,
        now: Time,
        mut take: impl FnMut(u32, View<'_>),
    ) -> bool {
        let Some(cut) = &mut self.cut else {
            return false;
        };
        let all = self.slots.num_buckets();
        let end = cut.next.saturating_add(PIECE_BUCKETS).min(all);
        for at in cut.next.min(end)..end {
            if let Some(item) = self.slots.get_bucket(at)
                && !item.expires.is_past(now)
                && !cut.knows(item.hash(hashing), item)
            {
                take(item.id, item.view());
            }
        }
        cut.next = cut.next.max(end);
        end < all
    }

    /// Ends the cut and hands over what was kept aside.
    pub(super) fn end_cut(&mut self) -> Option<Self> {
        self.cut.take().map(|cut| cut.before)
    }
}

impl<V: Stored> Cut<V> {
    fn keep(&mut self, hashing: &Hashing, hash: u64, item: &Item<V>) {
        if !self.knows(hash, item) {
            self.before.count(item, true);
            let rehash = |item: &Item<V>| item.hash(hashing);
            self.before.slots.insert_unique(hash, item.clone(), rehash);
        }
    }
}
