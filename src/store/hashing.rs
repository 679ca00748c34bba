//! Seeded hashing: which shard a key is in, and where in its table. Clients choose keys, so the
//! seed is drawn anew at every start and nothing that lasts may depend on it.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;

use crate::key::Key;
use crate::limits::SHARDS;

/// A seed.
#[derive(Clone, Debug, Default)]
pub struct Hashing(RandomState);

impl Hashing {
    /// The hash of a key. A typed key hashes by its id alone: the entries of one id, whatever
    /// their types, share a shard.
    pub fn key(&self, key: Key<'_>) -> u64 {
        match key {
            Key::Typed(typed) => self.id(typed.id),
            Key::Named(name) => self.name(name),
        }
    }

    /// The hash of a typed key with this id.
    pub fn id(&self, id: u32) -> u64 {
        self.0.hash_one(id)
    }

    /// The hash of a named key.
    pub fn name(&self, name: &[u8]) -> u64 {
        self.0.hash_one(name)
    }
}

/// The shard of a hash. Tables use the lowest and the top seven bits, so these are others.
pub fn shard_of(hash: u64) -> usize {
    (hash >> 40) as usize & (SHARDS - 1)
}
