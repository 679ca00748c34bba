//! An item of a table: a value with its header, in a slot or kept aside for a snapshot.

use std::sync::Arc;

use super::hashing::Hashing;
use super::sizes::Away;
use crate::clock::{Expiry, Time};
use crate::command::{View, ViewValue};
use crate::key::{Key, TypedKey};
use crate::prefetch::prefetch;
use crate::value::{Attributes, Blob, Head, Index, Marks};

/// An item: a value and its header, as a slot of a table keeps it.
pub(super) trait Item: Clone {
    /// What the item takes on the heap, in bytes.
    fn heap_bytes(&self) -> usize;
    /// What of it others share, in bytes.
    fn shared_bytes(&self) -> usize;
    /// True if others share it; what is left shared of an index that was copied does not count.
    fn is_shared(&self) -> bool {
        self.shared_bytes() > 0
    }
    /// The value as the rules see it.
    fn value(&self) -> ViewValue<'_>;
    /// The named key that the item carries, if it carries one.
    fn name(&self) -> &[u8];
    /// The header.
    fn head(&self) -> &Head;
    /// The header, to be changed.
    fn head_mut(&mut self) -> &mut Head;
    /// Has the processor fetch what is behind the slot.
    fn prefetch(&self);
    /// When the item ends.
    fn expires(&self) -> Expiry;
    /// Sets when the item ends.
    fn set_expires(&mut self, expires: Expiry);
    /// How much of the value is in a data file and not in memory.
    fn away(&self) -> Away {
        Away::default()
    }
}

/// The value carries its header.
impl Item for Blob {
    fn heap_bytes(&self) -> usize {
        self.heap_bytes()
    }
    fn shared_bytes(&self) -> usize {
        self.shared_bytes()
    }
    fn value(&self) -> ViewValue<'_> {
        ViewValue::Data(self)
    }
    fn name(&self) -> &[u8] {
        self.key()
    }
    fn head(&self) -> &Head {
        self.head()
    }
    fn head_mut(&mut self) -> &mut Head {
        self.head_mut()
    }
    fn prefetch(&self) {
        self.prefetch();
    }
    fn expires(&self) -> Expiry {
        self.expires()
    }
    fn set_expires(&mut self, expires: Expiry) {
        self.set_expires(expires);
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

/// An index and its header, which are apart because a fan-out shares the index alone.
#[derive(Clone)]
pub(super) struct IndexItem {
    pub(super) index: Arc<Index>,
    expires: Expiry,
    head: Head,
}

impl IndexItem {
    pub(super) fn new(index: Arc<Index>, id: u32, attributes: Attributes, marks: Marks) -> Self {
        let mut head = Head::of(id);
        head.set_attributes(attributes);
        head.set_kept(marks);
        let expires = attributes.expires;
        Self {
            index,
            expires,
            head,
        }
    }

    /// The index has other members: its marks were those of the old ones.
    pub(super) fn become_anew(&mut self) {
        self.head = self.head.anew();
    }
}

impl Item for IndexItem {
    fn heap_bytes(&self) -> usize {
        self.index.heap_bytes()
    }
    fn shared_bytes(&self) -> usize {
        if self.is_shared() {
            self.index.heap_bytes()
        } else {
            self.index.shared_bytes()
        }
    }
    fn is_shared(&self) -> bool {
        Arc::strong_count(&self.index) > 1
    }
    fn value(&self) -> ViewValue<'_> {
        ViewValue::Index(&self.index)
    }
    fn name(&self) -> &[u8] {
        &[]
    }
    fn head(&self) -> &Head {
        &self.head
    }
    fn head_mut(&mut self) -> &mut Head {
        &mut self.head
    }
    fn prefetch(&self) {
        prefetch(Arc::as_ptr(&self.index), size_of::<Index>());
    }
    fn expires(&self) -> Expiry {
        self.expires
    }
    fn set_expires(&mut self, expires: Expiry) {
        self.expires = expires;
    }
}

pub(super) fn is<I: Item>(item: &I, key: Key<'_>) -> bool {
    match key {
        Key::Typed(TypedKey { id, .. }) => item.head().id() == id,
        Key::Named(name) => item.name() == name,
    }
}

pub(super) fn hash_of<I: Item>(item: &I, hashing: &Hashing) -> u64 {
    match item.name() {
        [] => hashing.id(item.head().id()),
        name => hashing.name(name),
    }
}

pub(super) fn is_past<I: Item>(item: &I, now: Time) -> bool {
    item.expires().is_past(now)
}

pub(super) fn view<I: Item>(item: &I) -> View<'_> {
    let head = item.head();
    View {
        value: item.value(),
        flags: head.flags(),
        expires: item.expires(),
        cas: head.cas(),
        head: Some(head),
    }
}
