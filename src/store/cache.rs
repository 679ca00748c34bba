//! Which items of a table go first when memory is full: the idea of S3-FIFO, without its queues.
//!
//! New items are on probation. As long as a tenth of all is, one of those goes that nobody has
//! used since, and who has been used stays for good: so a scan drives out nothing but itself. Else
//! one of the others goes that has not been used for as many rounds as it had been used before.
//! An item that comes back soon after it went from probation stays at once: a short memory of
//! hashes, two bytes for a bucket, knows it.
//!
//! In place of queues two hands go round the buckets, whose order is that of a seeded hash: an item
//! costs three bits in its header. Measured on Zipf traces this keeps as much as S3-FIFO's queues
//! do (`cargo bench --bench evict` tells how much that is).

use super::hashing::Hashing;
use super::item::{Item, hash_of, is_past};
use super::items::Items;
use crate::clock::Time;
use crate::value::Marks;

/// One item of so many may be on probation.
const PROBATION_SHARE: usize = 10;

/// The hashes of a set of [`Ghosts`].
const WAYS: usize = 4;

/// What a table knows of which items to evict.
#[derive(Default)]
pub(super) struct Cache {
    /// The buckets that the hands are at: among the items that stay, and among those on probation.
    hands: [usize; 2],
    ghosts: Ghosts,
}

/// A short memory of the items that went from probation.
#[derive(Default)]
struct Ghosts(Vec<[u16; WAYS]>);

impl Ghosts {
    /// The set of a hash, and what stands for the hash in it.
    fn place(&mut self, hash: u64) -> Option<(&mut [u16; WAYS], u16)> {
        // Neither the bits that choose the shard nor those that a table keeps.
        let set = (hash >> 8) as usize & self.0.len().wrapping_sub(1);
        let print = u16::try_from(hash >> 48).unwrap_or(u16::MAX) | 1;
        Some((self.0.get_mut(set)?, print))
    }

    fn remember(&mut self, hash: u64, buckets: usize) {
        let sets = buckets.div_ceil(WAYS).next_power_of_two();
        if self.0.len() != sets {
            // The table has another size now; what is forgotten is learnt again.
            self.0 = vec![[0; WAYS]; sets];
        }
        if let Some((set, print)) = self.place(hash) {
            set.rotate_right(1);
            if let Some(first) = set.first_mut() {
                *first = print;
            }
        }
    }

    /// True if the item went not long ago; it is forgotten by this.
    fn recall(&mut self, hash: u64) -> bool {
        let Some((set, print)) = self.place(hash) else {
            return false;
        };
        let found = set.iter_mut().find(|known| **known == print);
        found.map(|known| *known = 0).is_some()
    }

    fn bytes(&self) -> usize {
        size_of_val(self.0.as_slice())
    }
}

impl Cache {
    pub(super) fn bytes(&self) -> usize {
        self.ghosts.bytes()
    }

    /// Which mark a new item bears.
    pub(super) fn mark_of_new(&mut self, hash: u64) -> Marks {
        if self.ghosts.recall(hash) {
            Marks::NONE
        } else {
            Marks::PROBATION
        }
    }
}

impl<I: Item> Items<I> {
    /// The bucket of the item that goes next; `None` if `steps` did not find one.
    pub(super) fn victim(
        &mut self,
        hashing: &Hashing,
        now: Time,
        steps: &mut usize,
    ) -> Option<usize> {
        let cache = self.cache.as_mut()?;
        let buckets = self.slots.num_buckets();
        while *steps > 0 {
            *steps -= 1;
            let on_probation = self.totals.probation * PROBATION_SHARE >= self.slots.len();
            let hand = cache.hands.get_mut(usize::from(on_probation))?;
            *hand = if *hand + 1 < buckets { *hand + 1 } else { 0 };
            let Some(item) = self.slots.get_bucket(*hand) else {
                continue;
            };
            let head = item.head();
            if head.marks().has(Marks::PROBATION) != on_probation {
                continue;
            }
            let was_used = head.uses() > 0 && !is_past(item, now);
            match (was_used, on_probation) {
                (true, true) => {
                    head.unmark(Marks::PROBATION.and(Marks::USED).and(Marks::USED_OFTEN));
                    self.totals.probation -= 1;
                }
                (true, false) => head.forget_use(),
                (false, _) => {
                    if on_probation {
                        cache.ghosts.remember(hash_of(item, hashing), buckets);
                    }
                    return Some(*hand);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ghosts_are_recalled_once_and_forgotten_by_and_by() {
        let mut ghosts = Ghosts::default();
        let hash = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        assert!(!ghosts.recall(hash(1)));
        for n in 0..64 {
            ghosts.remember(hash(n), 1024);
        }
        let recalled = (0..64).filter(|n| ghosts.recall(hash(*n))).count();
        assert!(recalled > 60, "{recalled}");
        assert!((0..64).all(|n| !ghosts.recall(hash(n))));
        for n in 0..100_000 {
            ghosts.remember(hash(n), 1024);
        }
        let recalled = (0..1000).filter(|n| ghosts.recall(hash(*n))).count();
        assert!(recalled < 100, "{recalled}");
        assert_eq!(ghosts.bytes(), 2048);
    }
}
