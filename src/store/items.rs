//! The table of an INDEX or DATA type, or of the named keys, in one shard.

use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;

use super::hashing::Hashing;
use super::pre_images::PreImages;
use super::sizes::Away;
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
    cut: Option<Box<PreImages<Item<V>>>>,
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
        self.bytes + self.cut.as_ref().map_or(0, |cut| cut.bytes())
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
        self.keep(hash, key);
        self.keep_if_full();
        self.count(&item, true);
        let rehash = |item: &Item<V>| item.hash(hashing);
        let replaced = match self.slots.entry(hash, |item| item.is(key), rehash) {
            Slot::Occupied(mut slot) => Some(std::mem::replace(slot.get_mut(), item)),
            Slot::Vacant(slot) => {
                let bucket = slot.insert(item).bucket_index();
                if let Some(cut) = &mut self.cut {
                    cut.settle(bucket);
                }
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
        (hash, key): (u64, Key<'_>),
        (now, cas): (Time, u64),
        edit: impl FnOnce(&mut V),
    ) -> bool {
        self.keep(hash, key);
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
    pub(super) fn expire(&mut self, (hash, key): (u64, Key<'_>), expires: Expiry) -> bool {
        self.keep(hash, key);
        let Some(item) = self.slots.find_mut(hash, |item| item.is(key)) else {
            return false;
        };
        self.expiring -= usize::from(item.expires != Expiry::NEVER);
        item.expires = expires;
        self.expiring += usize::from(expires != Expiry::NEVER);
        true
    }

    pub(super) fn remove(&mut self, hash: u64, key: Key<'_>) -> bool {
        self.keep(hash, key);
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
    /// From now on the table knows what it held at this moment.
    pub(super) fn begin_cut(&mut self) {
        self.cut = Some(Box::new(PreImages::new(self.slots.num_buckets())));
    }

    pub(super) fn has_cut(&self) -> bool {
        self.cut.is_some()
    }

    pub(super) fn drop_cut(&mut self) {
        self.cut = None;
    }

    /// Keeps the item aside as it is, if a snapshot still needs it: called before each change.
    #[inline]
    fn keep(&mut self, hash: u64, key: Key<'_>) {
        if let Some(cut) = &mut self.cut
            && let Some(bucket) = self.slots.find_bucket_index(hash, |item| item.is(key))
            && cut.settle(bucket)
        {
            cut.keep(self.slots.get_bucket(bucket).cloned());
        }
    }

    /// Called before an insertion, which may move every item to another bucket.
    #[inline]
    fn keep_if_full(&mut self) {
        if self.slots.len() < self.slots.capacity() {
            return;
        }
        let Some(cut) = &mut self.cut else {
            return;
        };
        for bucket in cut.settle_all() {
            cut.keep(self.slots.get_bucket(bucket).cloned());
        }
    }

    /// Calls `take` with the next items of the cut that are alive at `now`; true if there may be
    /// more of them here. The cut ends with the last one.
    pub(super) fn take_piece(&mut self, now: Time, mut take: impl FnMut(u32, View<'_>)) -> bool {
        let Some(cut) = &mut self.cut else {
            return false;
        };
        let take = |item: &Item<V>| {
            if !item.expires.is_past(now) {
                take(item.id, item.view());
            }
        };
        if let Some(buckets) = cut.next_piece() {
            let items = buckets
                .into_iter()
                .filter_map(|at| self.slots.get_bucket(at));
            items.for_each(take);
        } else if let Some(kept) = cut.next_kept() {
            kept.iter().for_each(take);
        } else {
            self.cut = None;
        }
        self.cut.is_some()
    }
}
