//! Making room at the memory limit: entries that may be evicted go, those of durable types by a
//! record.

use std::sync::atomic::Ordering::Relaxed;

use super::{Engine, must_apply, room_bytes};
use crate::command::{Change, Refusal};
use crate::limits::{KEY_BYTES_MAX, SHARDS};
use crate::store::upkeep::VICTIMS_MAX;
use crate::types::{Keep, WhenFull};

/// How often a command makes room and is decided again: others may take the room first.
const TRIES: usize = 8;

/// So often all shards are looked at for something that may go.
const ROUNDS: usize = 4;

/// Room is made ahead, this part of the limit, so that not every command has to: at least and at
/// most so many bytes.
const AHEAD_SHARE: u64 = 1024;
const AHEAD_BYTES: std::ops::RangeInclusive<u64> = 4 << 10..=256 << 10;

/// A command's tries to find room.
#[derive(Default)]
pub(super) struct Tries(usize);

impl Tries {
    /// Makes room for so many bytes more than there is; the refusal if there is none to be made.
    /// Call it without any lock.
    pub(super) fn make_room(&mut self, engine: &Engine, bytes: u64) -> Result<(), Refusal> {
        self.0 += 1;
        if self.0 <= TRIES && engine.make_room(bytes) {
            Ok(())
        } else {
            Err(Refusal::OutOfMemory)
        }
    }
}

impl Engine {
    /// Evicts until `bytes` less are taken than are now, or than the limit; true if that was done.
    pub(super) fn make_room(&self, bytes: u64) -> bool {
        if !self.store.types().evicts() {
            return false;
        }
        let limit = self.settings.read().memory_limit;
        let start = self.store.memory_bytes().min(limit);
        let enough = start.saturating_sub(bytes);
        let ahead = (limit / AHEAD_SHARE).clamp(*AHEAD_BYTES.start(), *AHEAD_BYTES.end());
        let aim = enough.saturating_sub(ahead);
        for _ in 0..SHARDS * ROUNDS {
            let excess = self.store.memory_bytes().saturating_sub(aim);
            if excess == 0 {
                break;
            }
            // A little from each shard, so that all of them are treated alike.
            let at = self.evicting.fetch_add(1, Relaxed) % SHARDS;
            if self.evict_from(at, (excess / 32).max(1)).is_err() {
                break;
            }
        }
        self.store.memory_bytes() <= enough
    }

    /// Evicts so many bytes from one shard, or as many as one hold of its lock allows.
    fn evict_from(&self, at: usize, bytes: u64) -> Result<(), Refusal> {
        let types = self.store.types();
        let is_journalled = |keep: Keep| keep.durable && keep.when_full == WhenFull::Evict;
        let mut keeps = types
            .rows()
            .iter()
            .map(|row| row.keep)
            .chain([types.named()]);
        let record = room_bytes(VICTIMS_MAX, VICTIMS_MAX * KEY_BYTES_MAX);
        let room = self.reserve_if(keeps.any(is_journalled), record)?;
        let mut shard = self.store.write_nth(at);
        let now = self.clock.latest();
        let same_types = *types == **shard.types();
        let victims = if same_types {
            shard.victims(now, bytes)
        } else {
            Vec::new()
        };
        let removals: Vec<_> = victims
            .iter()
            .map(|it| Change::Remove { key: it.key() })
            .collect();
        if removals.is_empty() {
            self.release(room);
            return Ok(());
        }
        let stamp = self.append(&Change::Batch(removals.clone()), room, (&types, now))?;
        for removal in removals {
            let hash = removal.key().map(|key| self.store.hashing().key(key));
            must_apply(shard.apply(hash.unwrap_or_default(), removal, stamp));
        }
        shard.tell();
        Ok(())
    }

    /// Evicts until the limit is kept, should it be lower than it was.
    pub(super) fn keep_limit(&self) {
        let limit = self.settings.read().memory_limit;
        if limit > 0 && self.store.memory_bytes() > limit {
            self.make_room(0);
        }
    }
}
