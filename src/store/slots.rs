//! Small entries by their ids, all in one array of [`Line`]s: an entry is in the line that its hash
//! says, or if that was full in one of the next. So what is looked up is nearly always one line of
//! the processor's cache, which can be fetched ahead. A bucket is one place in one line.
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
//! or [`Slots::rebuild`]. A line that has been full has no vacant bucket from then on, and at least
//! a quarter of all are vacant: so a search ends, at a line where one is. `counters` uses this.

use allocator_api2::vec::Vec;

use super::hashing::Hashing;
use super::line::{Line, Slot};
use crate::pages::Pages;
use crate::prefetch::prefetch;

/// The ids of buckets that hold no entry.
#[derive(Clone, Copy)]
struct Empty {
    /// There is room in the line and always was, so a search ends here.
    vacant: u32,
    /// The line has been full, so a search goes on.
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
    /// The line, of so many, where a search begins.
    #[inline]
    fn home(self, hash: u64, lines: usize) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the bits that are not the shard's"
        )]
        let place = (hash as u32).wrapping_mul(self.factor);
        ((u64::from(place) * lines as u64) >> 32) as usize
    }

    /// The bucket that is wanted of the first line from home on that has one.
    fn search<L>(
        self,
        lines: &[L],
        hash: u64,
        wanted: impl Fn(&L) -> Option<usize>,
    ) -> Option<Bucket> {
        let home = self.home(hash, lines.len());
        let (first, rest) = lines.split_at_checked(home)?;
        let mut from_home = (home..).zip(rest).chain((0..).zip(first));
        from_home.find_map(|(at, line)| wanted(line).map(|place| Bucket { line: at, place }))
    }

    /// The bucket of an entry.
    #[inline]
    fn find<L: Line>(self, lines: &[L], hash: u64, id: u32) -> Option<Bucket> {
        if self.empty.has(id) {
            return None;
        }
        let line = self.home(hash, lines.len());
        match lines.get(line)?.place_of(id) {
            Some(place) => Some(Bucket { line, place }),
            None => self.find_from_home(lines, hash, id),
        }
    }

    /// As [`Placing::find`], for the few that may be in another line. Apart from it, because else
    /// the compiler would look at the ids of the home line one by one, too.
    #[inline(never)]
    fn find_from_home<L: Line>(self, lines: &[L], hash: u64, id: u32) -> Option<Bucket> {
        let ends = |line: &L| {
            line.place_of(id)
                .or_else(|| line.place_of(self.empty.vacant))
        };
        let bucket = self.search(lines, hash, ends)?;
        (bucket.slot(lines)?.id == id).then_some(bucket)
    }

    #[inline]
    fn prefetch<L>(self, lines: &[L], hash: u64) {
        if let Some(line) = lines.get(self.home(hash, lines.len())) {
            // The first byte brings all of a line.
            prefetch(line, 1);
        }
    }
}

/// A place in one of a table's lines.
#[derive(Clone, Copy)]
struct Bucket {
    line: usize,
    place: usize,
}

impl Bucket {
    /// The bucket that has a number in a table of such lines.
    fn nth<L: Line>(number: usize) -> Self {
        Self {
            line: number / L::PLACES,
            place: number % L::PLACES,
        }
    }

    #[inline]
    fn number<L: Line>(self) -> usize {
        self.line * L::PLACES + self.place
    }

    fn slot<L: Line>(self, lines: &[L]) -> Option<Slot<L::Value>> {
        lines.get(self.line)?.slot(self.place)
    }

    fn put<L: Line>(self, lines: &mut [L], slot: Slot<L::Value>) {
        if let Some(line) = lines.get_mut(self.line) {
            line.put(self.place, slot);
        }
    }

    #[inline]
    fn value_mut<L: Line>(self, lines: &mut [L]) -> Option<&mut L::Value> {
        lines.get_mut(self.line)?.value_mut(self.place)
    }
}

/// The values of a table, each to be changed where it is.
pub(super) struct Places<'s, L> {
    lines: &'s mut [L],
    placing: Placing,
}

impl<L: Line> Places<'_, L> {
    /// As [`Slots::prefetch`].
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        self.placing.prefetch(self.lines, hash);
    }

    /// The bucket of an entry, and its value.
    #[inline]
    pub(super) fn find_mut(&mut self, hash: u64, id: u32) -> Option<(usize, &mut L::Value)> {
        let bucket = self.placing.find(self.lines, hash, id)?;
        let value = bucket.value_mut(self.lines)?;
        Some((bucket.number::<L>(), value))
    }
}

/// A table of entries.
pub(super) struct Slots<L> {
    lines: Vec<L, Pages>,
    entries: usize,
    /// Buckets whose entry was removed and that no other has taken.
    removed: usize,
    placing: Placing,
}

impl<L: Line> Slots<L> {
    pub(super) fn new() -> Self {
        Self {
            lines: Vec::new_in(Pages),
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
        slots.lay_out(Self::lines_for(entries));
        slots
    }

    pub(super) fn len(&self) -> usize {
        self.entries
    }

    /// What the array takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.lines.as_slice())
    }

    pub(super) fn buckets(&self) -> usize {
        self.lines.len() * L::PLACES
    }

    /// How many entries it takes before it grows.
    pub(super) fn capacity(&self) -> usize {
        self.buckets() - self.buckets().div_ceil(4)
    }

    /// The bucket of an entry.
    #[inline]
    pub(super) fn find(&self, hash: u64, id: u32) -> Option<usize> {
        let bucket = self.placing.find(&self.lines, hash, id)?;
        Some(bucket.number::<L>())
    }

    /// The entry in a bucket.
    #[inline]
    pub(super) fn at(&self, bucket: usize) -> Option<Slot<L::Value>> {
        let slot = Bucket::nth::<L>(bucket).slot(&self.lines)?;
        (!self.placing.empty.has(slot.id)).then_some(slot)
    }

    /// The value of an entry.
    #[inline]
    pub(super) fn value_mut(&mut self, hash: u64, id: u32) -> Option<&mut L::Value> {
        let bucket = self.placing.find(&self.lines, hash, id)?;
        bucket.value_mut(&mut self.lines)
    }

    /// The values alone.
    pub(super) fn places(&mut self) -> Places<'_, L> {
        Places {
            lines: &mut self.lines,
            placing: self.placing,
        }
    }

    /// Every entry.
    pub(super) fn iter(&self) -> impl Iterator<Item = Slot<L::Value>> {
        let empty = self.placing.empty;
        slots_of(&self.lines).filter(move |slot| !empty.has(slot.id))
    }

    /// Has the processor fetch where an entry with this hash would be.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        self.placing.prefetch(&self.lines, hash);
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
        value: L::Value,
    ) -> Option<usize> {
        if self.is_full_for(id) {
            let times = if self.entries * 2 > self.buckets() {
                2
            } else {
                1
            };
            let lines = (self.lines.len() * times).max(1);
            self.lay_out_as(self.empty_beside(hashing, id), lines, hashing);
        }
        let Empty { vacant, removed } = self.placing.empty;
        let empty = |line: &L| line.place_of(vacant).or_else(|| line.place_of(removed));
        let bucket = self.placing.search(&self.lines, hash, empty)?;
        self.removed -= usize::from(bucket.slot(&self.lines)?.id == removed);
        self.entries += 1;
        bucket.put(&mut self.lines, Slot { id, value });
        Some(bucket.number::<L>())
    }

    /// Removes an entry; true if it was there.
    pub(super) fn remove(&mut self, hash: u64, id: u32) -> bool {
        let Some(bucket) = self.placing.find(&self.lines, hash, id) else {
            return false;
        };
        let Empty { vacant, removed } = self.placing.empty;
        let line = self.lines.get(bucket.line);
        let ends_here = line.is_some_and(|line| line.place_of(vacant).is_some());
        let slot = Slot {
            id: if ends_here { vacant } else { removed },
            value: L::Value::default(),
        };
        bucket.put(&mut self.lines, slot);
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
            Self::lines_for(self.entries + 1),
            hashing,
        );
    }

    fn lay_out_as(&mut self, empty: Empty, lines: usize, hashing: &Hashing) {
        let was_empty = std::mem::replace(&mut self.placing.empty, empty);
        let old = std::mem::replace(&mut self.lines, Vec::new_in(Pages));
        self.lay_out(lines);
        for slot in slots_of(&old).filter(|slot| !was_empty.has(slot.id)) {
            let vacant = |line: &L| line.place_of(empty.vacant);
            let bucket = self
                .placing
                .search(&self.lines, hashing.id(slot.id), vacant);
            if let Some(bucket) = bucket {
                bucket.put(&mut self.lines, slot);
            }
        }
    }

    /// How many lines are half empty with so many entries.
    fn lines_for(entries: usize) -> usize {
        (entries * 2).div_ceil(L::PLACES).max(1)
    }

    /// An array of so many lines with empty buckets.
    fn lay_out(&mut self, lines: usize) {
        self.lines = Vec::with_capacity_in(lines, Pages);
        self.lines.resize(lines, L::of(self.placing.empty.vacant));
        self.removed = 0;
        self.placing.factor = fastrand::u32(..) | 1;
    }
}

/// What is in every bucket.
fn slots_of<L: Line>(lines: &[L]) -> impl Iterator<Item = Slot<L::Value>> {
    let places = lines
        .iter()
        .flat_map(|line| (0..L::PLACES).map(move |at| line.slot(at)));
    places.flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::store::counters::Number;

    type Small = Slots<<u32 as Number>::Line>;

    /// Inserts, replaces or removes, and so does the model.
    fn change<L: Line>(
        slots: &mut Slots<L>,
        model: &mut BTreeMap<u32, L::Value>,
        hashing: &Hashing,
        id: u32,
    ) where
        L::Value: Number + PartialEq + std::fmt::Debug,
    {
        let hash = hashing.id(id);
        let value = L::Value::pack(fastrand::u64(..));
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

    fn compare<L: Line>(ids: u32)
    where
        L::Value: Number + PartialEq + std::fmt::Debug,
    {
        let (hashing, mut slots) = (Hashing::default(), Slots::<L>::new());
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

    #[test]
    fn a_table_holds_what_a_map_does() {
        for ids in [3, 40, 1000, 30_000] {
            compare::<<u32 as Number>::Line>(ids);
            compare::<<[u32; 2] as Number>::Line>(ids);
        }
    }

    #[test]
    fn the_ids_that_stand_for_none_are_ids_like_any_other() {
        let (hashing, mut slots) = (Hashing::default(), Small::new());
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
        let (hashing, mut slots) = (Hashing::default(), Small::new());
        let buckets_of = |slots: &Small, upto: u32| {
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
        let (hashing, mut one, mut other) = (Hashing::default(), Small::new(), Small::new());
        for id in 0..20_000 {
            one.insert(&hashing, hashing.id(id), id, id);
        }
        // How many lines from its home a search ends, over all insertions.
        let mut searched = 0;
        for slot in one.iter() {
            let hash = hashing.id(slot.id);
            let bucket = other.insert(&hashing, hash, slot.id, slot.value).unwrap();
            let (line, lines) = (
                Bucket::nth::<<u32 as Number>::Line>(bucket).line,
                other.lines.len(),
            );
            searched += (line + lines - other.placing.home(hash, lines)) % lines;
        }
        assert!(searched < one.len(), "{searched}");
    }

    #[test]
    fn buckets_that_entries_left_are_used_again() {
        let (hashing, mut slots) = (Hashing::default(), Small::new());
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
