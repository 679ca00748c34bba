//! The table of an INDEX or DATA type, or of the named keys, in one shard.

use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;

use super::hashing::Hashing;
use crate::clock::{Expiry, Time};
use crate::command::{View, ViewValue};
use crate::key::{Key, TypedKey};
use crate::value::{Blob, Index};

/// An entry as a table keeps it.
pub(super) struct Item<V> {
    pub(super) value: V,
    cas: u64,
    expires: Expiry,
    flags: u32,
    /// The id of a typed key; 0 for a named one, whose key is in the value.
    id: u32,
}

/// A value that a table of items can hold.
pub(super) trait Stored {
    /// What the value takes on the heap, in bytes.
    fn heap_bytes(&self) -> usize;
    /// The value as the rules see it.
    fn view(&self) -> ViewValue<'_>;
    /// The named key that the value carries, if it carries one.
    fn name(&self) -> &[u8];
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
}

impl<V: Stored> Items<V> {
    pub(super) fn new() -> Self {
        Self {
            slots: HashTable::new(),
            bytes: 0,
            expiring: 0,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
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
        } else {
            self.bytes -= bytes;
            self.expiring -= expiring;
        }
    }

    /// Edits the value of an entry that is alive and gives it a new cas unique. False if there
    /// is none.
    pub(super) fn edit(
        &mut self,
        (hash, key): (u64, Key<'_>),
        now: Time,
        cas: u64,
        edit: impl FnOnce(&mut V),
    ) -> bool {
        let found = self.slots.find_mut(hash, |item| item.is(key));
        let Some(item) = found.filter(|item| !item.expires.is_past(now)) else {
            return false;
        };
        self.bytes -= item.bytes();
        edit(&mut item.value);
        item.cas = cas;
        self.bytes += item.bytes();
        true
    }

    /// Sets the expiry; true if the entry is there.
    pub(super) fn expire(&mut self, hash: u64, key: Key<'_>, expires: Expiry) -> bool {
        let Some(item) = self.slots.find_mut(hash, |item| item.is(key)) else {
            return false;
        };
        self.expiring -= usize::from(item.expires != Expiry::NEVER);
        item.expires = expires;
        self.expiring += usize::from(expires != Expiry::NEVER);
        true
    }

    pub(super) fn remove(&mut self, hash: u64, key: Key<'_>) -> bool {
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
        let (mut bytes, mut expiring) = (0, 0);
        self.slots.retain(|item| {
            let gone = item.expires.is_past(now);
            if gone {
                bytes += item.bytes();
                expiring += 1;
            }
            !gone
        });
        self.bytes -= bytes;
        self.expiring -= expiring;
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
