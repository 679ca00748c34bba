//! The table of an INDEX or DATA type, or of the named keys, in one shard.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;

use super::cache::Cache;
use super::cut::PIECE_BUCKETS;
use super::hashing::Hashing;
use super::is_sparse;
use super::item::{Item, hash_of, is, is_past, view};
use super::pre_images::PreImages;
use super::sizes::{Away, Sizes};
use super::sweep::Swept;
use super::walk::{Layout, Spot};
use crate::clock::{Expiry, Time};
use crate::command::View;
use crate::key::Key;
use crate::pages::Pages;
use crate::value::{Head, Marks};

/// What the items of a table are together.
#[derive(Default)]
pub(super) struct Totals {
    /// What they take beside their slots, in bytes.
    bytes: usize,
    /// How many have an expiry.
    expiring: usize,
    /// How many are on probation.
    pub(super) probation: usize,
    /// What is not in memory.
    away: Away,
}

impl Totals {
    fn add<I: Item>(&mut self, item: &I) {
        self.bytes += item.heap_bytes();
        self.expiring += usize::from(item.expires() != Expiry::NEVER);
        self.probation += usize::from(item.head().marks().has(Marks::PROBATION));
        self.away += item.away();
    }

    fn sub<I: Item>(&mut self, item: &I) {
        self.bytes -= item.heap_bytes();
        self.expiring -= usize::from(item.expires() != Expiry::NEVER);
        self.probation -= usize::from(item.head().marks().has(Marks::PROBATION));
        self.away -= item.away();
    }

    /// Changes an item. What a snapshot shared with it and no longer does is the snapshot's alone.
    fn change<I: Item>(
        &mut self,
        item: &mut I,
        cut: Option<&mut PreImages<I>>,
        change: impl FnOnce(&mut I),
    ) {
        let shared = match cut {
            Some(cut) if item.is_shared() => Some((cut, item.shared_bytes())),
            Some(_) | None => None,
        };
        self.sub(item);
        change(item);
        self.add(item);
        if let Some((cut, before)) = shared {
            cut.inherit(before.saturating_sub(item.shared_bytes()));
        }
    }
}

/// The entries of one type in one shard.
pub(super) struct Items<I> {
    pub(super) slots: HashTable<I, Pages>,
    pub(super) totals: Totals,
    /// Which items to evict, if that is what the operator wants.
    pub(super) cache: Option<Box<Cache>>,
    /// The bucket that a sweep is at.
    swept: usize,
    /// How often the items may have moved to other buckets.
    moves: u32,
    /// What a snapshot in the making still needs.
    cut: Option<Box<PreImages<I>>>,
}

impl<I: Item> Items<I> {
    pub(super) fn new() -> Self {
        Self {
            slots: HashTable::new_in(Pages),
            totals: Totals::default(),
            cache: None,
            swept: 0,
            moves: 0,
            cut: None,
        }
    }

    pub(super) fn sizes(&self) -> Sizes {
        let cut_bytes = self.cut.as_ref().map_or(0, |cut| cut.bytes());
        let cache_bytes = self.cache.as_ref().map_or(0, |cache| cache.bytes());
        Sizes {
            entries: self.slots.len(),
            bytes: self.totals.bytes + self.slots.allocation_size() + cut_bytes + cache_bytes,
            // An item's header is about what is before the value in a record.
            file_bytes: self.totals.bytes as u64 + self.totals.away.bytes,
            away: self.totals.away,
            ..Sizes::default()
        }
    }

    fn find(&self, hash: u64, key: Key<'_>, now: Time) -> Option<&I> {
        self.slots
            .find(hash, |item| is(item, key))
            .filter(|item| !is_past(*item, now))
    }

    pub(super) fn view(&self, hash: u64, key: Key<'_>, now: Time) -> Option<View<'_>> {
        self.find(hash, key, now).map(view)
    }

    /// True if the item at a key has ended and is only still there.
    pub(super) fn has_expired(&self, hash: u64, key: Key<'_>, now: Time) -> bool {
        let item = self.slots.find(hash, |item| is(item, key));
        item.is_some_and(|item| is_past(item, now))
    }

    /// Has the processor fetch the item with this hash, if there is one.
    pub(super) fn prefetch(&self, hash: u64) {
        self.slots.find(hash, |item| {
            item.prefetch();
            false
        });
    }

    /// Stores an item.
    pub(super) fn put(&mut self, hashing: &Hashing, (hash, key): (u64, Key<'_>), item: I) {
        self.keep(hash, key);
        self.keep_if_full();
        let rehash = |item: &I| hash_of(item, hashing);
        let replaced = match self.slots.entry(hash, |item| is(item, key), rehash) {
            Slot::Occupied(mut slot) => {
                item.head().follow(slot.get().head());
                self.totals.add(&item);
                Some(std::mem::replace(slot.get_mut(), item))
            }
            Slot::Vacant(slot) => {
                if let Some(cache) = &mut self.cache {
                    item.head().mark(cache.mark_of_new(hash));
                }
                self.totals.add(&item);
                let bucket = slot.insert(item).bucket_index();
                if let Some(cut) = &mut self.cut {
                    cut.settle(bucket);
                }
                None
            }
        };
        if let Some(old) = replaced {
            self.part_with(&old);
        }
    }

    /// Edits an item that is alive and gives it a new cas unique. False if there is none.
    pub(super) fn edit(
        &mut self,
        (hash, key): (u64, Key<'_>),
        (now, cas): (Time, u64),
        edit: impl FnOnce(&mut I),
    ) -> bool {
        self.keep(hash, key);
        let found = self.slots.find_mut(hash, |item| is(item, key));
        let Some(item) = found.filter(|item| !is_past(*item, now)) else {
            return false;
        };
        let change = |item: &mut I| {
            edit(item);
            item.head_mut().set_cas(cas);
        };
        self.totals.change(item, self.cut.as_deref_mut(), change);
        true
    }

    /// Sets marks or cas unique; true if the entry is there.
    pub(super) fn mark(
        &mut self,
        (hash, key): (u64, Key<'_>),
        (marks, cas): (Option<Marks>, Option<u64>),
    ) -> bool {
        self.keep(hash, key);
        let Some(item) = self.slots.find_mut(hash, |item| is(item, key)) else {
            return false;
        };
        self.totals.change(item, self.cut.as_deref_mut(), |item| {
            let head = item.head_mut();
            if let Some(marks) = marks {
                head.set_kept(marks);
            }
            if let Some(cas) = cas {
                head.set_cas(cas);
            }
        });
        true
    }

    /// The item at a key, if its cas unique is this one.
    pub(super) fn get(&self, hash: u64, key: Key<'_>, cas: u64) -> Option<&I> {
        let item = self.slots.find(hash, |item| is(item, key))?;
        (item.head().cas() == cas).then_some(item)
    }

    /// Gives an item another form, if its cas unique is still this one. Not a change: nobody sees
    /// a difference, a snapshot included.
    pub(super) fn reform(
        &mut self,
        (hash, key, cas): (u64, Key<'_>, u64),
        reform: impl FnOnce(&mut I),
    ) -> bool {
        let found = self.slots.find_mut(hash, |item| is(item, key));
        let Some(item) = found.filter(|item| item.head().cas() == cas) else {
            return false;
        };
        self.totals.change(item, self.cut.as_deref_mut(), reform);
        true
    }

    /// Sets the expiry; true if the entry is there.
    pub(super) fn expire(&mut self, (hash, key): (u64, Key<'_>), expires: Expiry) -> bool {
        self.keep(hash, key);
        let Some(item) = self.slots.find_mut(hash, |item| is(item, key)) else {
            return false;
        };
        let change = |item: &mut I| item.set_expires(expires);
        self.totals.change(item, self.cut.as_deref_mut(), change);
        true
    }

    pub(super) fn remove(&mut self, hashing: &Hashing, hash: u64, key: Key<'_>) -> bool {
        self.keep(hash, key);
        let Ok(slot) = self.slots.find_entry(hash, |item| is(item, key)) else {
            return false;
        };
        let (item, _) = slot.remove();
        self.part_with(&item);
        self.give_back(hashing);
        true
    }

    /// An item leaves the table. What a snapshot shares with it is the snapshot's alone now.
    fn part_with(&mut self, old: &I) {
        self.totals.sub(old);
        if let Some(cut) = &mut self.cut {
            cut.inherit(old.shared_bytes());
        }
    }

    /// Of the item in a bucket its header, when it ends, and what it takes on the heap, in bytes.
    pub(super) fn item_at(&self, bucket: usize) -> Option<(&Head, Expiry, usize)> {
        let item = self.slots.get_bucket(bucket)?;
        Some((item.head(), item.expires(), item.heap_bytes()))
    }

    /// From now on the table knows which items to evict, or needs not to.
    pub(super) fn set_evicts(&mut self, evicts: bool) {
        if evicts != self.cache.is_some() {
            self.cache = evicts.then(Box::default);
        }
    }

    /// Gives memory back once most of the buckets are empty, but not while a snapshot counts on
    /// where the items are.
    fn give_back(&mut self, hashing: &Hashing) {
        if self.cut.is_none() && is_sparse(self.slots.len(), self.slots.capacity()) {
            let room = self.slots.len() * 2;
            self.slots.shrink_to(room, |item| hash_of(item, hashing));
            self.swept = 0;
            self.moves = self.moves.wrapping_add(1);
        }
    }

    /// Drops the next of what has expired.
    pub(super) fn sweep(&mut self, hashing: &Hashing, now: Time) -> Swept {
        let mut swept = Swept::default();
        if self.totals.expiring == 0 {
            self.swept = 0;
            return swept;
        }
        let all = self.slots.num_buckets();
        let end = (self.swept + PIECE_BUCKETS).min(all);
        for at in self.swept..end {
            match self.slots.get_bucket(at).map(Item::expires) {
                Some(expires) if expires.is_past(now) => {
                    if let Ok(slot) = self.slots.get_bucket_entry(at) {
                        let (item, _) = slot.remove();
                        self.part_with(&item);
                        swept.dropped(Some(item.head()));
                    }
                }
                Some(expires) => swept.stays(expires),
                None => {}
            }
        }
        swept.more = end < all;
        self.swept = if swept.more { end } else { 0 };
        self.give_back(hashing);
        swept
    }

    /// Visits the next entries of a walk that are alive; false if there are no more.
    pub(super) fn walk(
        &self,
        spot: &mut Spot,
        now: Time,
        visit: &mut dyn FnMut(u32, &[u8], View<'_>),
    ) -> bool {
        let layout = Layout {
            moves: self.moves,
            buckets: self.slots.num_buckets(),
        };
        let Some(buckets) = spot.next(layout) else {
            return false;
        };
        let items = buckets.filter_map(|bucket| self.slots.get_bucket(bucket));
        for item in items.filter(|item| !is_past(*item, now)) {
            visit(item.head().id(), item.name(), view(item));
        }
        true
    }

    /// Every entry that is alive, with its id and its named key.
    pub(super) fn iter(&self, now: Time) -> impl Iterator<Item = (u32, &[u8], View<'_>)> {
        let alive = self.slots.iter().filter(move |item| !is_past(*item, now));
        alive.map(|item| (item.head().id(), item.name(), view(item)))
    }
}

/// What a snapshot takes while the items change; see [`super::cut`].
impl<I: Item> Items<I> {
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
            && let Some(bucket) = self.slots.find_bucket_index(hash, |item| is(item, key))
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
        self.swept = 0;
        self.moves = self.moves.wrapping_add(1);
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
        let take = |item: &I| {
            if !is_past(item, now) {
                take(item.head().id(), view(item));
            }
        };
        if let Some(buckets) = cut.next_piece() {
            let items = buckets
                .into_iter()
                .filter_map(|at| self.slots.get_bucket(at));
            items.for_each(take);
        } else if let Some(kept) = cut.next_kept() {
            let alone = |item: &I| item.heap_bytes().saturating_sub(item.shared_bytes());
            cut.release(kept.iter().map(alone).sum());
            kept.iter().for_each(take);
        } else {
            self.cut = None;
        }
        self.cut.is_some()
    }
}
