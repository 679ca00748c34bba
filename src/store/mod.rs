//! The store: one array of shards, each a lock around a table a type and one for the named keys.
//!
//! Invariants: locks are taken in ascending order of shard and never across an await; every
//! change comes through [`locks::WriteSet::apply`] or [`shard::Shard::apply`], live and at
//! restart alike; applying depends on nothing but the change, its stamp and the state. Only the
//! engine calls this.

mod books;
mod cache;
mod counter_cut;
mod counters;
pub mod cut;
mod fan_out;
pub mod hashing;
mod item;
mod items;
mod line;
pub mod locks;
mod pre_images;
pub mod shard;
pub mod sizes;
mod slots;
mod step;
mod sweep;
mod table;
pub mod upkeep;
pub mod walk;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::clock::{Expiry, Time};
use crate::holds::Holds;
use crate::limits::SHARDS;
use crate::prefetch::prefetch;
use crate::types::TypeTable;
use crate::waits::Waits;
use books::{Books, FileBytes, Totals};
use hashing::{Hashing, shard_of};
use locks::{ReadSet, ShardSet, WriteSet};
use shard::Shard;
use sizes::Sizes;
use sweep::Pass;

/// Shards are on cache lines of their own, so that two cores' locks do not share one.
#[repr(align(128))]
struct Padded(RwLock<Shard>);

/// All entries.
pub struct Store {
    hashing: Hashing,
    shards: Box<[Padded; SHARDS]>,
    types: RwLock<Arc<TypeTable>>,
    /// When a delayed `flush_all` is due, in ms since the epoch; 0 is never.
    pending_flush_ms: AtomicU64,
    holds: Holds,
    waits: Waits,
    totals: Arc<Totals>,
    /// Of each shard.
    file_bytes: [Arc<FileBytes>; SHARDS],
    pass: Mutex<Pass>,
}

impl Default for Store {
    fn default() -> Self {
        let (hashing, types) = (Hashing::default(), Arc::new(TypeTable::default()));
        let totals = Arc::<Totals>::default();
        let file_bytes: [Arc<FileBytes>; SHARDS] = std::array::from_fn(|_| Arc::default());
        let shard = |at: usize| {
            let file = file_bytes.get(at).map(Arc::clone).unwrap_or_default();
            let books = Books::new(Arc::clone(&totals), file);
            Padded(RwLock::new(Shard::new(
                Arc::clone(&types),
                hashing.clone(),
                books,
            )))
        };
        Self {
            shards: Box::new(std::array::from_fn(shard)),
            file_bytes,
            hashing,
            types: RwLock::new(types),
            pending_flush_ms: AtomicU64::new(0),
            holds: Holds::default(),
            waits: Waits::default(),
            totals,
            pass: Mutex::default(),
        }
    }
}

impl Store {
    /// The hashing of this store.
    pub fn hashing(&self) -> &Hashing {
        &self.hashing
    }

    /// How long locks have been held.
    pub fn holds(&self) -> &Holds {
        &self.holds
    }

    /// How long threads have waited for shards.
    pub fn waits(&self) -> &Waits {
        &self.waits
    }

    /// The shard with this number, which is less than [`SHARDS`].
    fn shard(&self, at: usize) -> &RwLock<Shard> {
        #[expect(
            clippy::indexing_slicing,
            reason = "the array has a power of two of shards"
        )]
        &self.shards[at & (SHARDS - 1)].0
    }

    /// Locks the shard of a hash for reading.
    pub fn read(&self, hash: u64) -> RwLockReadGuard<'_, Shard> {
        self.waits.read(self.shard(shard_of(hash)))
    }

    /// Has the processor fetch the shard of a hash.
    pub fn prefetch(&self, hash: u64) {
        let shard = self.shard(shard_of(hash));
        prefetch(shard, size_of_val(shard));
    }

    /// Locks the shard of a hash for writing.
    pub fn write(&self, hash: u64) -> RwLockWriteGuard<'_, Shard> {
        self.waits.write(self.shard(shard_of(hash)))
    }

    /// Locks the shard with this number for reading.
    fn read_nth(&self, at: usize) -> RwLockReadGuard<'_, Shard> {
        self.waits.read(self.shard(at))
    }

    /// Locks the shard with this number for writing.
    pub fn write_nth(&self, at: usize) -> RwLockWriteGuard<'_, Shard> {
        self.waits.write(self.shard(at))
    }

    /// Locks several shards for reading.
    pub fn read_set(&self, set: ShardSet) -> ReadSet<'_> {
        ReadSet::lock(self, set)
    }

    /// Locks several shards for writing.
    pub fn write_set(&self, set: ShardSet) -> WriteSet<'_> {
        WriteSet::lock(self, set)
    }

    /// The declared types. What counts under a shard's lock is the shard's own copy.
    pub fn types(&self) -> Arc<TypeTable> {
        Arc::clone(&self.types.read())
    }

    fn publish_types(&self, types: Arc<TypeTable>) {
        *self.types.write() = types;
    }

    /// When a delayed flush is due.
    pub fn pending_flush(&self) -> Expiry {
        match self.pending_flush_ms.load(Relaxed) {
            0 => Expiry::NEVER,
            ms => Expiry::at(Time(ms)),
        }
    }

    fn set_pending_flush(&self, at: Option<Time>) {
        self.pending_flush_ms
            .store(at.map_or(0, |time| time.0), Relaxed);
    }

    /// How many entries there are, some of which may have expired unnoticed.
    pub fn entries(&self) -> usize {
        let (types, named) = self.sizes();
        types.iter().map(|(_, sizes)| sizes.entries).sum::<usize>() + named.entries
    }

    /// Counts what expires and is evicted from now on.
    pub fn forget_gone(&self) {
        for at in 0..SHARDS {
            self.write_nth(at).books.forget_gone();
        }
    }

    /// The sizes of each type, and of the named keys.
    pub fn sizes(&self) -> (Vec<(u16, Sizes)>, Sizes) {
        let types = self.types();
        let mut rows: Vec<_> = types
            .rows()
            .iter()
            .map(|row| (row.prefix, Sizes::default()))
            .collect();
        let mut named = Sizes::default();
        for Padded(shard) in self.shards.iter() {
            let shard = shard.read();
            for (prefix, sizes) in &mut rows {
                *sizes += shard.sizes(Some(*prefix));
            }
            named += shard.sizes(None);
        }
        (rows, named)
    }
}

/// True if so few entries are left in a table that a smaller one should take its place: the work
/// is small beside that of the removals before.
fn is_sparse(entries: usize, capacity: usize) -> bool {
    const SMALL: usize = 64;
    capacity > SMALL && entries * 8 < capacity
}
