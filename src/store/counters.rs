//! The table of a counter type in one shard: an id and a number each, and nothing more unless
//! flags or an expiry were given.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::counter_cut::{CounterCut, Whole};
use super::cut::PIECE_BUCKETS;
use super::hashing::Hashing;
use super::is_sparse;
use super::line::{Line, Packed, Slot};
use super::pre_images::PreImages;
use super::slots::{Places, Slots};
use super::step::Step;
use super::sweep::Swept;
use super::walk::{Layout, Spot};
use crate::clock::{Expiry, Time};
use crate::command::View;
use crate::pages::Pages;

/// A number as a table keeps it.
pub(super) trait Number: Copy + Default {
    type Line: Line<Value = Self>;

    fn pack(number: u64) -> Self;
    fn unpack(self) -> u64;
}

impl Number for u32 {
    type Line = Packed<Self, 8>;

    fn pack(number: u64) -> Self {
        Self::try_from(number).unwrap_or(Self::MAX)
    }
    fn unpack(self) -> u64 {
        self.into()
    }
}

/// 64 bits that need only 4-byte alignment, so that five with their ids are in a line.
impl Number for [u32; 2] {
    type Line = Packed<Self, 5>;

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves of the number"
    )]
    fn pack(number: u64) -> Self {
        [number as u32, (number >> 32) as u32]
    }
    fn unpack(self) -> u64 {
        let [low, high] = self;
        u64::from(low) | u64::from(high) << 32
    }
}

/// What only some counters have.
pub(super) struct Extra {
    id: u32,
    pub(super) flags: u32,
    pub(super) expires: Expiry,
}

/// The counters of one type in one shard.
pub(super) struct Counters<N: Number> {
    numbers: Slots<N::Line>,
    extras: HashTable<Extra, Pages>,
    /// The bucket of `extras` that a sweep is at.
    swept: usize,
    /// How often the counters may have moved to other buckets.
    moves: u32,
    /// What a snapshot in the making still needs.
    cut: Option<Box<CounterCut<N>>>,
}

/// About what a record of a snapshot takes: tag, key, cas unique and number,
const RECORD_BYTES: usize = 24;
/// and what flags and an expiry add to it.
const EXTRA_BYTES: usize = 12;

/// What a step of a counter that is there needs of its table.
pub(super) struct InPlace<'s, N: Number> {
    numbers: Places<'s, N::Line>,
    cut: Option<&'s mut PreImages<Slot<N>>>,
}

impl<N: Number> InPlace<'_, N> {
    /// Has the processor fetch the counter with this hash, if there is one.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        self.numbers.prefetch(hash);
    }

    /// The number of a counter, which is about to change.
    #[inline]
    pub(super) fn number_mut(&mut self, hash: u64, id: u32) -> Option<&mut N> {
        let (bucket, number) = self.numbers.find_mut(hash, id)?;
        if let Some(cut) = &mut self.cut
            && cut.settle(bucket)
        {
            let counter = Slot { id, value: *number };
            cut.keep(Some(counter));
        }
        Some(number)
    }

    /// True if what changes is kept aside, which takes memory.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.is_some()
    }
}

impl<N: Number> Counters<N> {
    pub(super) fn new() -> Self {
        Self {
            numbers: Slots::new(),
            extras: HashTable::new_in(Pages),
            swept: 0,
            moves: 0,
            cut: None,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let own = self.numbers.bytes() + self.extras.allocation_size();
        own + self.cut.as_ref().map_or(0, |cut| cut.bytes())
    }

    /// What they take in a snapshot, about.
    pub(super) fn file_bytes(&self) -> u64 {
        (self.numbers.len() * RECORD_BYTES + self.extras.len() * EXTRA_BYTES) as u64
    }

    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    fn extra(&self, hash: u64, id: u32) -> Option<&Extra> {
        if self.extras.is_empty() {
            return None;
        }
        self.extras.find(hash, |extra| extra.id == id)
    }

    /// True if the counter has ended and is only still there.
    pub(super) fn has_expired(&self, hash: u64, id: u32, now: Time) -> bool {
        self.extra(hash, id)
            .is_some_and(|extra| extra.expires.is_past(now))
    }

    pub(super) fn view(&self, hash: u64, id: u32, now: Time) -> Option<View<'_>> {
        let counter = self.numbers.at(self.numbers.find(hash, id)?)?;
        Whole::new(counter, self.extra(hash, id)).view(now)
    }

    /// Stores a number with its flags and expiry.
    pub(super) fn put(
        &mut self,
        hashing: &Hashing,
        hash: u64,
        id: u32,
        number: u64,
        (flags, expires): (u32, Expiry),
    ) {
        self.keep(hashing, hash, id);
        self.set_number(hashing, hash, id, number);
        self.set_extra(hashing, hash, id, flags, expires);
    }

    fn set_number(&mut self, hashing: &Hashing, hash: u64, id: u32, number: u64) {
        let number = N::pack(number);
        match self.numbers.value_mut(hash, id) {
            Some(old) => *old = number,
            None => self.insert(hashing, hash, id, number),
        }
    }

    /// Adds a counter that is not there.
    fn insert(&mut self, hashing: &Hashing, hash: u64, id: u32, number: N) {
        self.keep_if_full(hashing, id);
        let bucket = self.numbers.insert(hashing, hash, id, number);
        if let (Some(cut), Some(bucket)) = (&mut self.cut, bucket) {
            cut.numbers.settle(bucket);
        }
    }

    fn set_extra(&mut self, hashing: &Hashing, hash: u64, id: u32, flags: u32, expires: Expiry) {
        if flags == 0 && expires == Expiry::NEVER {
            self.remove_extra(hash, id);
            return;
        }
        let extra = Extra { id, flags, expires };
        if self.extras.len() == self.extras.capacity() {
            self.swept = 0;
        }
        match self
            .extras
            .entry(hash, |extra| extra.id == id, |extra| hashing.id(extra.id))
        {
            Entry::Occupied(mut slot) => *slot.get_mut() = extra,
            Entry::Vacant(slot) => {
                slot.insert(extra);
            }
        }
    }

    fn remove_extra(&mut self, hash: u64, id: u32) {
        if let Ok(slot) = self.extras.find_entry(hash, |extra| extra.id == id) {
            slot.remove();
        }
    }

    /// Changes the number alone; an expired counter ends here and a new one begins.
    pub(super) fn number(&mut self, hashing: &Hashing, hash: u64, id: u32, number: u64, now: Time) {
        self.keep(hashing, hash, id);
        self.end_if_expired(hash, id, now);
        self.set_number(hashing, hash, id, number);
    }

    /// Has the processor fetch the counter with this hash, if there is one.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        self.numbers.prefetch(hash);
    }

    /// The counters as a fan-out steps them, if numbers are all that they have.
    #[inline]
    pub(super) fn in_place(&mut self) -> Option<InPlace<'_, N>> {
        self.extras.is_empty().then(|| InPlace {
            numbers: self.numbers.places(),
            cut: self.cut.as_deref_mut().map(|cut| &mut cut.numbers),
        })
    }

    /// One step of a fan-out; a missing counter is created. `None` if the step is refused.
    pub(super) fn step(
        &mut self,
        hashing: &Hashing,
        (hash, id): (u64, u32),
        step: impl Step,
        now: Time,
    ) -> Option<()> {
        self.keep(hashing, hash, id);
        self.end_if_expired(hash, id, now);
        if let Some(number) = self.numbers.value_mut(hash, id) {
            *number = N::pack(step.after(number.unpack())?);
        } else {
            let number = N::pack(step.after(step.initial())?);
            self.insert(hashing, hash, id, number);
            let ends = step.ends(now);
            if ends != Expiry::NEVER {
                self.set_extra(hashing, hash, id, 0, ends);
            }
        }
        Some(())
    }

    fn end_if_expired(&mut self, hash: u64, id: u32, now: Time) {
        if self.has_expired(hash, id, now) {
            self.take_out(hash, id);
        }
    }

    /// Sets the expiry; true if the counter is there.
    pub(super) fn expire(
        &mut self,
        hashing: &Hashing,
        hash: u64,
        id: u32,
        expires: Expiry,
    ) -> bool {
        if self.numbers.find(hash, id).is_none() {
            return false;
        }
        self.keep(hashing, hash, id);
        let flags = self.extra(hash, id).map_or(0, |extra| extra.flags);
        self.set_extra(hashing, hash, id, flags, expires);
        true
    }

    pub(super) fn remove(&mut self, hashing: &Hashing, hash: u64, id: u32) -> bool {
        self.keep(hashing, hash, id);
        let found = self.take_out(hash, id);
        self.give_back(hashing);
        found
    }

    fn take_out(&mut self, hash: u64, id: u32) -> bool {
        self.remove_extra(hash, id);
        self.numbers.remove(hash, id)
    }

    /// Gives memory back once most buckets are empty and no snapshot counts on them.
    fn give_back(&mut self, hashing: &Hashing) {
        if self.cut.is_none() && is_sparse(self.numbers.len(), self.numbers.capacity()) {
            self.numbers.rebuild(hashing);
        }
        if is_sparse(self.extras.len(), self.extras.capacity()) {
            let room = self.extras.len() * 2;
            self.extras.shrink_to(room, |extra| hashing.id(extra.id));
            self.swept = 0;
        }
    }

    /// Drops the next of what has expired.
    pub(super) fn sweep(&mut self, hashing: &Hashing, now: Time) -> Swept {
        let mut swept = Swept::default();
        let all = self.extras.num_buckets();
        let end = (self.swept + PIECE_BUCKETS).min(all);
        for at in self.swept..end {
            let Some(&Extra { id, expires, .. }) = self.extras.get_bucket(at) else {
                continue;
            };
            if expires.is_past(now) {
                self.take_out(hashing.id(id), id);
                swept.dropped(None);
            } else {
                swept.stays(expires);
            }
        }
        swept.more = end < all;
        self.swept = if swept.more { end } else { 0 };
        self.give_back(hashing);
        swept
    }

    /// Every counter that is alive.
    pub(super) fn iter(
        &self,
        hashing: &Hashing,
        now: Time,
    ) -> impl Iterator<Item = (u32, View<'_>)> {
        self.numbers.iter().filter_map(move |counter| {
            self.view(hashing.id(counter.id), counter.id, now)
                .map(|view| (counter.id, view))
        })
    }

    /// Visits the next counters of a walk that are alive; false if there are no more.
    pub(super) fn walk(
        &self,
        hashing: &Hashing,
        spot: &mut Spot,
        now: Time,
        visit: &mut dyn FnMut(u32, View<'_>),
    ) -> bool {
        let layout = Layout {
            moves: self.moves,
            buckets: self.numbers.buckets(),
        };
        let Some(buckets) = spot.next(layout) else {
            return false;
        };
        for counter in buckets.filter_map(|bucket| self.numbers.at(bucket)) {
            if let Some(view) = self.view(hashing.id(counter.id), counter.id, now) {
                visit(counter.id, view);
            }
        }
        true
    }

    /// The same counters at another width.
    pub(super) fn converted<M: Number>(&self, hashing: &Hashing) -> Counters<M> {
        let mut numbers = Slots::with_room(self.numbers.len());
        for counter in self.numbers.iter() {
            let number = M::pack(counter.value.unpack());
            numbers.insert(hashing, hashing.id(counter.id), counter.id, number);
        }
        let mut extras = HashTable::with_capacity_in(self.extras.len(), Pages);
        for &Extra { id, flags, expires } in &self.extras {
            let extra = Extra { id, flags, expires };
            extras.insert_unique(hashing.id(id), extra, |extra| hashing.id(extra.id));
        }
        Counters {
            numbers,
            extras,
            swept: 0,
            moves: 0,
            cut: None,
        }
    }
}

/// What a snapshot takes while the counters change; see [`super::cut`].
impl<N: Number> Counters<N> {
    /// From now on the table knows what it held at this moment.
    pub(super) fn begin_cut(&mut self) {
        self.cut = Some(Box::new(CounterCut::new(self.numbers.buckets())));
    }

    pub(super) fn drop_cut(&mut self) {
        self.cut = None;
    }

    /// Keeps the counter aside as it is, if a snapshot still needs it: called before each change.
    #[inline]
    fn keep(&mut self, hashing: &Hashing, hash: u64, id: u32) {
        if let Some(mut cut) = self.cut.take() {
            if let Some(bucket) = self.numbers.find(hash, id)
                && cut.numbers.settle(bucket)
            {
                cut.keep(self.whole(hashing, bucket));
            }
            self.cut = Some(cut);
        }
    }

    /// Called before an insertion, which may move every counter to another bucket.
    fn keep_if_full(&mut self, hashing: &Hashing, id: u32) {
        if !self.numbers.is_full_for(id) {
            return;
        }
        self.moves = self.moves.wrapping_add(1);
        let Some(mut cut) = self.cut.take() else {
            return;
        };
        for bucket in cut.numbers.settle_all() {
            cut.keep(self.whole(hashing, bucket));
        }
        self.cut = Some(cut);
    }

    fn whole(&self, hashing: &Hashing, bucket: usize) -> Option<Whole<N>> {
        let counter = self.numbers.at(bucket)?;
        let extra = self.extra(hashing.id(counter.id), counter.id);
        Some(Whole::new(counter, extra))
    }

    /// Calls `take` with the next counters of the cut that are alive at `now`; true if there may
    /// be more of them here. The cut ends with the last one.
    pub(super) fn take_piece(
        &mut self,
        hashing: &Hashing,
        now: Time,
        mut take: impl FnMut(u32, View<'_>),
    ) -> bool {
        let Some(mut cut) = self.cut.take() else {
            return false;
        };
        let take = |whole: Whole<N>| {
            if let Some(view) = whole.view(now) {
                take(whole.counter.id, view);
            }
        };
        if let Some(buckets) = cut.numbers.next_piece() {
            let counters = buckets.into_iter().filter_map(|at| self.whole(hashing, at));
            counters.for_each(take);
        } else if let Some(kept) = cut.next_kept() {
            kept.into_iter().for_each(take);
        } else {
            return false;
        }
        self.cut = Some(cut);
        true
    }
}
