//! Small entries by their ids, all in one array: an entry is where its hash says, or in one of the
//! next buckets. So what is looked up is one piece of memory, which can be fetched ahead.
//!
//! An entry takes its id and its value and nothing more: that a bucket holds none is said by one
//! of two ids that no entry of the table has. When an entry comes that has it, others are drawn.
//!
//! Each array places its entries by a factor of its own: entries that come in the order in which
//! another array has them would else gather in one place as this one grows.
//!
//! Who only changes values borrows the [`Places`]: of a fan-out's many tables they stay in the
//! processor's nearest cache, where the tables themselves would not.
//!
//! Invariant: an entry keeps its bucket until an insertion of which [`Slots::is_full_for`] says so,
//! or [`Slots::rebuild`]. At least a quarter of the buckets end a search. `counters` uses this.

use super::hashing::Hashing;
use crate::prefetch::prefetch;

/// The fewest buckets of a table that is not empty.
const BUCKETS_MIN: usize = 8;

/// An entry, or an empty bucket.
#[derive(Clone, Copy)]
pub(super) struct Slot<V> {
    pub(super) id: u32,
    pub(super) value: V,
}

/// The ids of buckets that hold no entry.
#[derive(Clone, Copy)]
struct Empty {
    /// The bucket never had one, so a search ends here.
    vacant: u32,
    /// It had one, so a search goes on.
    removed: u32,
}

impl Empty {
    const FIRST: Self = Self {
        vacant: u32::MAX,
        removed: u32::MAX - 1,
    };

    fn has(self, id: u32) -> bool {
        id == self.vacant || id == self.removed
    }

    /// Others, which nobody outside can foresee. An odd step comes to every id.
    fn next(self, hashing: &Hashing) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "any bits of a hash do")]
        let step = hashing.id(0) as u32 | 1;
        let vacant = self.vacant.wrapping_add(step);
        Self {
            vacant,
            removed: vacant ^ 1,
        }
    }
}

/// How an array places its entries.
#[derive(Clone, Copy)]
struct Placing {
    /// What hashes are multiplied by.
    factor: u32,
    empty: Empty,
}

impl Placing {
    /// The bucket, of so many, where a search begins.
    #[inline]
    fn home(self, hash: u64, buckets: usize) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the bits that are not the shard's"
        )]
        let place = (hash as u32).wrapping_mul(self.factor);
        ((u64::from(place) * buckets as u64) >> 32) as usize
    }

    /// The first bucket from home on whose id is wanted.
    #[inline]
    fn search<V>(
        self,
        buckets: &[Slot<V>],
        hash: u64,
        wanted: impl Fn(u32) -> bool,
    ) -> Option<usize> {
        let home = self.home(hash, buckets.len());
        let (first, rest) = buckets.split_at_checked(home)?;
        let is_wanted = |slot: &Slot<V>| wanted(slot.id);
        match rest.iter().position(is_wanted) {
            Some(at) => Some(home + at),
            None => first.iter().position(is_wanted),
        }
    }

    /// The bucket of an entry.
    #[inline]
    fn find<V>(self, buckets: &[Slot<V>], hash: u64, id: u32) -> Option<usize> {
        let Self { empty, .. } = self;
        let at = self.search(buckets, hash, |found| found == id || found == empty.vacant)?;
        let found = buckets.get(at)?.id;
        (found == id && !empty.has(id)).then_some(at)
    }

    #[inline]
    fn prefetch<V>(self, buckets: &[Slot<V>], hash: u64) {
        if let Some(slot) = buckets.get(self.home(hash, buckets.len())) {
            prefetch(slot, size_of_val(slot));
        }
    }
}

/// The values of a table, each to be changed where it is.
pub(super) struct Places<'s, V> {
    buckets: &'s mut [Slot<V>],
    placing: Placing,
}

impl<V> Places<'_, V> {
    /// As [`Slots::prefetch`].
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        self.placing.prefetch(self.buckets, hash);
    }

    /// As [`Slots::find`].
    #[inline]
    pub(super) fn find(&self, hash: u64, id: u32) -> Option<usize> {
        self.placing.find(self.buckets, hash, id)
    }

    /// The value of the entry in a bucket.
    #[inline]
    pub(super) fn value_mut(&mut self, bucket: usize) -> Option<&mut V> {
        self.buckets.get_mut(bucket).map(|slot| &mut slot.value)
    }
}

/// A table of entries.
pub(super) struct Slots<V> {
    buckets: Box<[Slot<V>]>,
    entries: usize,
    /// Buckets whose entry was removed and that no other has taken.
    removed: usize,
    placing: Placing,
}

impl<V: Copy + Default> Slots<V> {
    pub(super) fn new() -> Self {
        Self {
            buckets: Box::default(),
            entries: 0,
            removed: 0,
            placing: Placing {
                factor: 1,
                empty: Empty::FIRST,
            },
        }
    }

    /// A table with room for so many entries.
    pub(super) fn with_room(entries: usize) -> Self {
        let mut slots = Self::new();
        slots.lay_out(Self::buckets_for(entries));
        slots
    }

    pub(super) fn len(&self) -> usize {
        self.entries
    }

    /// What the array takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    pub(super) fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// How many entries it takes before it grows.
    pub(super) fn capacity(&self) -> usize {
        self.buckets.len() - self.buckets.len().div_ceil(4)
    }

    fn search(&self, hash: u64, wanted: impl Fn(u32) -> bool) -> Option<usize> {
        self.placing.search(&self.buckets, hash, wanted)
    }

    /// The bucket of an entry.
    #[inline]
    pub(super) fn find(&self, hash: u64, id: u32) -> Option<usize> {
        self.placing.find(&self.buckets, hash, id)
    }

    /// The entry in a bucket.
    #[inline]
    pub(super) fn at(&self, bucket: usize) -> Option<&Slot<V>> {
        let slot = self.buckets.get(bucket)?;
        (!self.placing.empty.has(slot.id)).then_some(slot)
    }

    /// The value of an entry.
    #[inline]
    pub(super) fn value_mut(&mut self, hash: u64, id: u32) -> Option<&mut V> {
        let at = self.find(hash, id)?;
        self.buckets.get_mut(at).map(|slot| &mut slot.value)
    }

    /// The values alone.
    pub(super) fn places(&mut self) -> Places<'_, V> {
        Places {
            buckets: &mut self.buckets,
            placing: self.placing,
        }
    }

    /// Every entry.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot<V>> {
        let entries = self.buckets.iter();
        entries.filter(|slot| !self.placing.empty.has(slot.id))
    }

    /// Has the processor fetch where an entry with this hash would be.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        self.placing.prefetch(&self.buckets, hash);
    }

    /// True if the insertion of this id will move the entries to other buckets.
    pub(super) fn is_full_for(&self, id: u32) -> bool {
        self.entries + self.removed >= self.capacity() || self.placing.empty.has(id)
    }

    /// Adds an entry whose id is not there; answers its bucket.
    pub(super) fn insert(
        &mut self,
        hashing: &Hashing,
        hash: u64,
        id: u32,
        value: V,
    ) -> Option<usize> {
        if self.is_full_for(id) {
            // Twice as large, two arrays that others have left are one in which the next fits.
            let times = if self.entries * 2 > self.buckets.len() {
                2
            } else {
                1
            };
            let buckets = (self.buckets.len() * times).max(BUCKETS_MIN);
            self.lay_out_as(self.empty_beside(hashing, id), buckets, hashing);
        }
        let bucket = self.search(hash, |found| self.placing.empty.has(found))?;
        let slot = self.buckets.get_mut(bucket)?;
        self.removed -= usize::from(slot.id == self.placing.empty.removed);
        self.entries += 1;
        *slot = Slot { id, value };
        Some(bucket)
    }

    /// Removes an entry; true if it was there.
    pub(super) fn remove(&mut self, hash: u64, id: u32) -> bool {
        let Some(at) = self.find(hash, id) else {
            return false;
        };
        let next = self.buckets.get(at + 1).or(self.buckets.first());
        let ends_here = next.is_some_and(|next| next.id == self.placing.empty.vacant);
        let Empty { vacant, removed } = self.placing.empty;
        if let Some(slot) = self.buckets.get_mut(at) {
            slot.id = if ends_here { vacant } else { removed };
        }
        self.removed += usize::from(!ends_here);
        self.entries -= 1;
        true
    }

    /// Ids for empty buckets that neither an entry nor the one that comes has.
    fn empty_beside(&self, hashing: &Hashing, id: u32) -> Empty {
        let is_taken = |mark| mark == id || self.find(hashing.id(mark), mark).is_some();
        let mut empty = self.placing.empty;
        while is_taken(empty.vacant) || is_taken(empty.removed) {
            empty = empty.next(hashing);
        }
        empty
    }

    /// Lays the entries out anew, so that half of the buckets are empty: after many have gone.
    pub(super) fn rebuild(&mut self, hashing: &Hashing) {
        self.lay_out_as(
            self.placing.empty,
            Self::buckets_for(self.entries + 1),
            hashing,
        );
    }

    fn lay_out_as(&mut self, empty: Empty, buckets: usize, hashing: &Hashing) {
        let was_empty = std::mem::replace(&mut self.placing.empty, empty);
        let old = std::mem::take(&mut self.buckets);
        self.lay_out(buckets);
        for slot in old.iter().filter(|slot| !was_empty.has(slot.id)) {
            let vacant = |found| found == empty.vacant;
            let bucket = self.search(hashing.id(slot.id), vacant);
            if let Some(bucket) = bucket.and_then(|at| self.buckets.get_mut(at)) {
                *bucket = *slot;
            }
        }
    }

    /// How many buckets are half empty with so many entries.
    fn buckets_for(entries: usize) -> usize {
        (entries * 2).max(BUCKETS_MIN)
    }

    /// An array of so many empty buckets.
    fn lay_out(&mut self, buckets: usize) {
        let vacant = Slot {
            id: self.placing.empty.vacant,
            value: V::default(),
        };
        self.buckets = vec![vacant; buckets].into();
        self.removed = 0;
        self.placing.factor = fastrand::u32(..) | 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Inserts, replaces or removes, and so does the model.
    fn change(slots: &mut Slots<u32>, model: &mut BTreeMap<u32, u32>, hashing: &Hashing, id: u32) {
        let hash = hashing.id(id);
        let value = fastrand::u32(..);
        if fastrand::u8(..) < 100 {
            assert_eq!(slots.remove(hash, id), model.remove(&id).is_some());
        } else if let Some(known) = slots.value_mut(hash, id) {
            *known = value;
            assert!(model.insert(id, value).is_some());
        } else {
            let bucket = slots.insert(hashing, hash, id, value).unwrap();
            assert_eq!(slots.at(bucket).map(|slot| slot.id), Some(id));
            assert_eq!(model.insert(id, value), None);
        }
    }

    #[test]
    fn a_table_holds_what_a_map_does() {
        for ids in [3, 40, 1000, 30_000] {
            let (hashing, mut slots) = (Hashing::default(), Slots::new());
            let mut model = BTreeMap::new();
            for _ in 0..ids * 10 {
                let id = fastrand::u32(..ids);
                change(&mut slots, &mut model, &hashing, id);
                assert_eq!(slots.len(), model.len());
            }
            let found: BTreeMap<_, _> = slots.iter().map(|slot| (slot.id, slot.value)).collect();
            assert_eq!(found, model);
            for id in 0..ids {
                let value = slots.value_mut(hashing.id(id), id).copied();
                assert_eq!(value, model.get(&id).copied());
            }
        }
    }

    #[test]
    fn the_ids_that_stand_for_none_are_ids_like_any_other() {
        let (hashing, mut slots) = (Hashing::default(), Slots::new());
        let mut model = BTreeMap::new();
        for id in 0..20 {
            change(&mut slots, &mut model, &hashing, id);
        }
        for round in 0..50 {
            let Empty { vacant, removed } = slots.placing.empty;
            let id = if round % 2 == 0 { vacant } else { removed };
            let hash = hashing.id(id);
            assert_eq!(slots.find(hash, id), None);
            assert!(!slots.remove(hash, id) && slots.is_full_for(id));
            slots.insert(&hashing, hash, id, 7);
            model.insert(id, 7);
            assert_eq!(slots.value_mut(hash, id), Some(&mut 7));
        }
        let found: BTreeMap<_, _> = slots.iter().map(|slot| (slot.id, slot.value)).collect();
        assert_eq!(found, model);
    }

    #[test]
    fn entries_keep_their_buckets_until_the_table_is_full() {
        let (hashing, mut slots) = (Hashing::default(), Slots::new());
        let buckets_of = |slots: &Slots<u32>, upto: u32| {
            let find = |id| slots.find(hashing.id(id), id);
            (0..upto).map(find).collect::<Vec<_>>()
        };
        for id in 0..5000 {
            let (was_full, before) = (slots.is_full_for(id), buckets_of(&slots, id.min(50)));
            slots.insert(&hashing, hashing.id(id), id, id);
            if !was_full {
                assert_eq!(buckets_of(&slots, id.min(50)), before);
            }
            // Three of four buckets at most are taken, and after a growth half as many.
            assert!(slots.len() * 4 <= slots.buckets() * 3);
            assert!(slots.len() < 8 || slots.buckets() * 3 <= slots.len() * 8);
        }
    }

    #[test]
    fn the_order_of_another_table_is_no_bad_one() {
        let (hashing, mut one, mut other) = (Hashing::default(), Slots::new(), Slots::new());
        for id in 0..20_000 {
            one.insert(&hashing, hashing.id(id), id, id);
        }
        // How far from its home a search ends, over all insertions.
        let mut searched = 0;
        for slot in one.iter() {
            let hash = hashing.id(slot.id);
            let bucket = other.insert(&hashing, hash, slot.id, slot.value).unwrap();
            let home = other.placing.home(hash, other.buckets());
            searched += (bucket + other.buckets() - home) % other.buckets();
        }
        assert!(searched < 20 * one.len(), "{searched}");
    }

    #[test]
    fn buckets_that_entries_left_are_used_again() {
        let (hashing, mut slots) = (Hashing::default(), Slots::new());
        for id in 0..100_000_u32 {
            slots.insert(&hashing, hashing.id(id), id, id);
            if let Some(old) = id.checked_sub(100) {
                assert!(slots.remove(hashing.id(old), old));
            }
        }
        assert_eq!(slots.len(), 100);
        assert!(slots.buckets() < 500, "{}", slots.buckets());
        assert_eq!(slots.bytes(), slots.buckets() * 8);
    }
}
