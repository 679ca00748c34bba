//! Small entries by their ids, all in one array: an entry is where its hash says, or in one of the
//! next buckets. So what is looked up is one piece of memory, which can be fetched ahead.
//!
//! An entry takes its id and its value and nothing more: that a bucket holds none is said by one
//! of two ids that no entry of the table has. When an entry comes that has it, others are drawn.
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

/// A table of entries.
pub(super) struct Slots<V> {
    buckets: Box<[Slot<V>]>,
    entries: usize,
    /// Buckets whose entry was removed and that no other has taken.
    removed: usize,
    empty: Empty,
}

impl<V: Copy + Default> Slots<V> {
    pub(super) fn new() -> Self {
        Self {
            buckets: Box::default(),
            entries: 0,
            removed: 0,
            empty: Empty::FIRST,
        }
    }

    /// A table with room for so many entries.
    pub(super) fn with_room(entries: usize) -> Self {
        let mut slots = Self::new();
        slots.lay_out(entries);
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

    /// The bucket where a search begins.
    fn home(&self, hash: u64) -> usize {
        let low = hash & u64::from(u32::MAX);
        ((low * self.buckets.len() as u64) >> 32) as usize
    }

    /// The first bucket from home on whose id is wanted.
    #[inline]
    fn search(&self, hash: u64, wanted: impl Fn(u32) -> bool) -> Option<usize> {
        let home = self.home(hash);
        let (first, rest) = self.buckets.split_at_checked(home)?;
        let is_wanted = |slot: &Slot<V>| wanted(slot.id);
        match rest.iter().position(is_wanted) {
            Some(at) => Some(home + at),
            None => first.iter().position(is_wanted),
        }
    }

    /// The bucket of an entry.
    #[inline]
    pub(super) fn find(&self, hash: u64, id: u32) -> Option<usize> {
        let vacant = self.empty.vacant;
        let at = self.search(hash, |found| found == id || found == vacant)?;
        self.at(at).filter(|slot| slot.id == id).map(|_| at)
    }

    /// The entry in a bucket.
    #[inline]
    pub(super) fn at(&self, bucket: usize) -> Option<&Slot<V>> {
        let slot = self.buckets.get(bucket)?;
        (!self.empty.has(slot.id)).then_some(slot)
    }

    /// The value of an entry.
    #[inline]
    pub(super) fn value_mut(&mut self, hash: u64, id: u32) -> Option<&mut V> {
        let at = self.find(hash, id)?;
        self.buckets.get_mut(at).map(|slot| &mut slot.value)
    }

    /// Every entry.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot<V>> {
        let entries = self.buckets.iter();
        entries.filter(|slot| !self.empty.has(slot.id))
    }

    /// Has the processor fetch where an entry with this hash would be.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        if let Some(slot) = self.buckets.get(self.home(hash)) {
            prefetch(slot, size_of_val(slot));
        }
    }

    /// True if the insertion of this id will move the entries to other buckets.
    pub(super) fn is_full_for(&self, id: u32) -> bool {
        self.entries + self.removed >= self.capacity() || self.empty.has(id)
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
            self.lay_out_as(self.empty_beside(hashing, id), hashing);
        }
        let bucket = self.search(hash, |found| self.empty.has(found))?;
        let slot = self.buckets.get_mut(bucket)?;
        self.removed -= usize::from(slot.id == self.empty.removed);
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
        let ends_here = next.is_some_and(|next| next.id == self.empty.vacant);
        let Empty { vacant, removed } = self.empty;
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
        let mut empty = self.empty;
        while is_taken(empty.vacant) || is_taken(empty.removed) {
            empty = empty.next(hashing);
        }
        empty
    }

    /// Lays the entries out anew, so that half of the buckets are empty and searches are short.
    pub(super) fn rebuild(&mut self, hashing: &Hashing) {
        self.lay_out_as(self.empty, hashing);
    }

    fn lay_out_as(&mut self, empty: Empty, hashing: &Hashing) {
        let was_empty = std::mem::replace(&mut self.empty, empty);
        let old = std::mem::take(&mut self.buckets);
        self.lay_out(self.entries + 1);
        for slot in old.iter().filter(|slot| !was_empty.has(slot.id)) {
            let vacant = |found| found == empty.vacant;
            let bucket = self.search(hashing.id(slot.id), vacant);
            if let Some(bucket) = bucket.and_then(|at| self.buckets.get_mut(at)) {
                *bucket = *slot;
            }
        }
    }

    /// An array of empty buckets, twice as many as entries are to come.
    fn lay_out(&mut self, entries: usize) {
        let vacant = Slot {
            id: self.empty.vacant,
            value: V::default(),
        };
        self.buckets = vec![vacant; (entries * 2).max(BUCKETS_MIN)].into();
        self.removed = 0;
    }
}
