//! Locking several shards: in ascending order, each once, so that no two commands can wait for
//! each other; and the changes that take more than one shard.

use std::sync::Arc;

use parking_lot::{RwLockReadGuard, RwLockWriteGuard};

use super::Store;
use super::hashing::shard_of;
use super::shard::{Misfit, Shard, Stamp};
use crate::clock::Time;
use crate::command::change::Change;
use crate::command::{View, ViewValue};
use crate::holds::Hold;
use crate::key::{Key, TypedKey};
use crate::limits::SHARDS;
use crate::types::TypeTable;
use crate::value::{Blob, Entry, Index};

const WORDS: usize = SHARDS / 64;

/// A set of shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSet([u64; WORDS]);

impl ShardSet {
    /// Every shard.
    pub const ALL: Self = Self([u64::MAX; WORDS]);

    /// Adds the shard of a hash.
    pub fn insert(&mut self, hash: u64) {
        let shard = shard_of(hash);
        if let Some(word) = self.0.get_mut(shard / 64) {
            *word |= 1 << (shard % 64);
        }
    }

    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(at, mut left)| {
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros() as usize;
                left &= left.checked_sub(1)?;
                Some(at * 64 + bit)
            })
        })
    }

    /// How many shards of the set come before this one: its place among the guards.
    pub(super) fn rank(self, shard: usize) -> usize {
        let (at, bit) = (shard / 64, shard % 64);
        let before: u32 = self.0.iter().take(at).map(|word| word.count_ones()).sum();
        let within = self
            .0
            .get(at)
            .map_or(0, |word| (word & ((1 << bit) - 1)).count_ones());
        (before + within) as usize
    }
}

/// Shards locked for reading.
pub struct ReadSet<'s> {
    set: ShardSet,
    guards: Vec<RwLockReadGuard<'s, Shard>>,
    // The last field, so that it is dropped after the guards.
    _held: Hold<'s>,
}

impl<'s> ReadSet<'s> {
    pub(super) fn lock(store: &'s Store, set: ShardSet) -> Self {
        let mut shards = set.iter().map(|at| store.read_nth(at));
        let first = shards.next();
        let held = store.holds().begin();
        Self {
            guards: first.into_iter().chain(shards).collect(),
            set,
            _held: held,
        }
    }

    /// The shard of a hash, if it is in the set.
    pub fn shard(&self, hash: u64) -> Option<&Shard> {
        self.guards
            .get(self.set.rank(shard_of(hash)))
            .map(|guard| &**guard)
    }

    /// Every locked shard.
    pub fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.guards.iter().map(|guard| &**guard)
    }
}

/// Shards locked for writing.
pub struct WriteSet<'s> {
    pub(super) store: &'s Store,
    pub(super) set: ShardSet,
    pub(super) guards: Vec<RwLockWriteGuard<'s, Shard>>,
    // The last field, so that it is dropped after the guards.
    _held: Hold<'s>,
}

impl<'s> WriteSet<'s> {
    pub(super) fn lock(store: &'s Store, set: ShardSet) -> Self {
        let mut shards = set.iter().map(|at| store.write_nth(at));
        let first = shards.next();
        let held = store.holds().begin();
        Self {
            guards: first.into_iter().chain(shards).collect(),
            store,
            set,
            _held: held,
        }
    }

    /// Every locked shard.
    pub fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.guards.iter().map(|guard| &**guard)
    }

    /// The sequence number of the last change in these shards.
    pub fn last_seq(&self) -> u64 {
        self.guards
            .iter()
            .map(|shard| shard.last_seq())
            .max()
            .unwrap_or_default()
    }

    /// The type table, the same in every shard.
    pub fn types(&self) -> Option<&Arc<TypeTable>> {
        self.guards.first().map(|shard| shard.types())
    }

    /// The entry at a key of a locked shard.
    pub fn view(&self, key: Key<'_>, now: Time) -> Option<View<'_>> {
        let hash = self.store.hashing().key(key);
        self.guards
            .get(self.set.rank(shard_of(hash)))?
            .view(hash, key, now)
    }

    /// True if the entry at a key of a locked shard has ended and is only still there.
    pub fn has_expired(&self, key: Key<'_>, now: Time) -> bool {
        let hash = self.store.hashing().key(key);
        let shard = self.guards.get(self.set.rank(shard_of(hash)));
        shard.is_some_and(|shard| shard.has_expired(hash, key, now))
    }

    /// The index at a key of a locked shard.
    pub fn index(&self, key: TypedKey, now: Time) -> Option<&Arc<Index>> {
        match self.view(Key::Typed(key), now)?.value {
            ViewValue::Index(index) => Some(index),
            ViewValue::Number(_) | ViewValue::Data(_) => None,
        }
    }

    /// Every locked shard, in ascending order.
    pub fn shards_mut(&mut self) -> impl Iterator<Item = &mut Shard> {
        self.guards.iter_mut().map(|guard| &mut **guard)
    }

    /// The shard of a hash, which must be locked.
    pub fn shard_mut(&mut self, hash: u64, stamp: Stamp) -> Result<&mut Shard, Misfit> {
        let rank = self.set.rank(shard_of(hash));
        let guard = self.guards.get_mut(rank);
        guard
            .map(|guard| &mut **guard)
            .ok_or_else(|| stamp.misfit(&"its shard is not locked"))
    }

    /// Carries out any change whose shards are locked.
    pub fn apply(&mut self, change: Change<'_>, stamp: Stamp) -> Result<(), Misfit> {
        match change {
            Change::Put { key, .. }
            | Change::Remove { key }
            | Change::Expire { key, .. }
            | Change::Number { key, .. }
            | Change::Mark { key, .. }
            | Change::Unique { key, .. }
            | Change::Extend { key, .. } => self.apply_one(key, change, stamp),
            Change::Members { key, .. } => self.apply_one(Key::Typed(key), change, stamp),
            Change::FanOut {
                index,
                target,
                delta,
            } => self.fan_out(index, target, delta, stamp),
            Change::Flush { at } => {
                self.flush(at, stamp);
                Ok(())
            }
            Change::Types(types) => {
                for shard in &mut self.guards {
                    shard.relay(Arc::clone(&types), stamp.seq);
                }
                self.store.publish_types(types);
                Ok(())
            }
            Change::Batch(changes) => changes
                .into_iter()
                .try_for_each(|change| self.apply(change, stamp)),
        }
    }

    fn apply_one(&mut self, key: Key<'_>, change: Change<'_>, stamp: Stamp) -> Result<(), Misfit> {
        let hash = self.store.hashing().key(key);
        self.shard_mut(hash, stamp)?.apply(hash, change, stamp)
    }

    /// Carries out a change that the journal holds, as a restart does: what new types keep in
    /// memory only was gone when the process ended, so it is not for later records to find.
    pub fn replay(&mut self, change: Change<'_>, stamp: Stamp) -> Result<(), Misfit> {
        let are_types = matches!(change, Change::Types(_));
        self.apply(change, stamp)?;
        if are_types {
            self.shards_mut().for_each(Shard::forget_volatile);
        }
        Ok(())
    }

    /// As [`Shard::reform`], in a locked shard.
    pub fn reform(&mut self, key: TypedKey, cas: u64, form: Blob) -> bool {
        let hash = self.store.hashing().id(key.id);
        let shard = self.guards.get_mut(self.set.rank(shard_of(hash)));
        shard.is_some_and(|shard| shard.reform(hash, key, cas, form))
    }

    /// Takes an entry from a snapshot.
    pub fn restore(&mut self, key: Key<'_>, entry: Entry, stamp: Stamp) -> Result<(), Misfit> {
        let hash = self.store.hashing().key(key);
        self.shard_mut(hash, stamp)?
            .restore(hash, key, entry, stamp)
    }

    fn flush(&mut self, at: Option<Time>, stamp: Stamp) {
        self.store.set_pending_flush(at);
        if at.is_none() {
            for shard in &mut self.guards {
                shard.clear(stamp.seq);
            }
        }
    }
}
