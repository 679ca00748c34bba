//! A walk over the entries while the store goes on changing: what lists keys to clients, who need
//! no cut of a snapshot.
//!
//! [`Store::walk`] visits a few buckets under each hold of one shard's lock. Every entry that is
//! there all the time is visited, one that comes, goes or changes meanwhile perhaps. A table that
//! moved its entries to other buckets is begun again, so some may be visited twice.

use super::Store;
use crate::clock::Time;
use crate::command::View;
use crate::key::Key;
use crate::limits::SHARDS;

/// How many buckets are visited under one hold of a lock. Few in tests, so that much happens
/// between two pieces.
pub(super) const PIECE_BUCKETS: usize = if cfg!(test) { 8 } else { 1024 };

/// How far a walk has come.
#[derive(Clone, Debug)]
pub struct Walk {
    /// The types to visit; `None` stands for the named keys.
    classes: Vec<Option<u16>>,
    shard: usize,
    class: usize,
    spot: Spot,
}

/// A place in one table.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spot {
    /// The buckets before this one have been visited.
    bucket: usize,
    /// What [`Layout`] the table had then.
    layout: Layout,
}

/// What changes when a table moves its entries: how often it may have, and how many buckets
/// it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) moves: u32,
    pub(super) buckets: usize,
}

impl Spot {
    /// The buckets to visit next in a table of this layout; `None` after the last.
    pub(super) fn next(&mut self, layout: Layout) -> Option<std::ops::Range<usize>> {
        if self.layout != layout {
            *self = Self { bucket: 0, layout };
        }
        let begin = self.bucket;
        let end = begin.saturating_add(PIECE_BUCKETS).min(layout.buckets);
        self.bucket = end;
        (begin < end).then_some(begin..end)
    }
}

impl Walk {
    /// A walk over the entries of these types, `None` being the named keys.
    pub fn over(classes: Vec<Option<u16>>) -> Self {
        let shard = if classes.is_empty() { SHARDS } else { 0 };
        Self {
            classes,
            shard,
            class: 0,
            spot: Spot::default(),
        }
    }

    fn next_table(&mut self) {
        self.spot = Spot::default();
        self.class += 1;
        if self.class >= self.classes.len() {
            self.class = 0;
            self.shard += 1;
        }
    }
}

impl Store {
    /// Visits the next few entries that are alive at `now`; false if there were no more.
    pub fn walk(
        &self,
        walk: &mut Walk,
        now: Time,
        visit: &mut dyn FnMut(Key<'_>, View<'_>),
    ) -> bool {
        while walk.shard < SHARDS {
            let class = walk.classes.get(walk.class).copied().flatten();
            let shard = self.read_nth(walk.shard);
            if shard.walk(class, &mut walk.spot, now, visit) {
                return true;
            }
            drop(shard);
            walk.next_table();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::clock::Expiry;
    use crate::command::Change;
    use crate::store::shard::Stamp;
    use crate::value::{Blob, Value};

    fn put(store: &Store, id: u32) {
        let name = format!("name{id}");
        let (value, key) = (
            Blob::named(name.as_bytes(), b"v"),
            Key::Named(name.as_bytes()),
        );
        let change = Change::Put {
            key,
            value: Value::Data(value),
            flags: 0,
            expires: Expiry::NEVER,
        };
        let hash = store.hashing().key(key);
        let stamp = Stamp {
            seq: u64::from(id) + 1,
            time: Time(1),
        };
        store.write(hash).apply(hash, change, stamp).unwrap();
    }

    #[test]
    fn what_stays_is_visited_however_the_tables_grow() {
        const STAY: u32 = 20_000;
        let store = Store::default();
        (0..STAY).for_each(|id| put(&store, id));
        let mut walk = Walk::over(vec![None]);
        let (mut seen, mut pieces) = (BTreeSet::new(), 0);
        let mut visit = |key: Key<'_>, _: View<'_>| {
            seen.insert(key.to_string());
        };
        while store.walk(&mut walk, Time(1), &mut visit) {
            pieces += 1;
            put(&store, STAY + pieces);
        }
        assert!(pieces > 2000, "{pieces}");
        let missing = (0..STAY).filter(|id| !seen.contains(&format!("name{id}")));
        assert_eq!(missing.count(), 0);
        assert!(seen.len() < (STAY + pieces) as usize + 1);
    }
}
