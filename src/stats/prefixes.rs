//! `stats detail`: what is counted by the first part of keys, if the operator wants that.
//!
//! Invariant: a worker counts its own, so nobody waits for the lock but who lists them; and there
//! are never more than [`PREFIXES_MAX`], so that no client can fill memory with them.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;

use crate::limits::PREFIXES_MAX;

/// How often keys with a prefix were used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// Asked for.
    pub gets: u64,
    /// Found.
    pub hits: u64,
    /// Stored, or tried to.
    pub sets: u64,
    /// Deleted, or tried to.
    pub deletes: u64,
}

impl std::ops::AddAssign for Uses {
    fn add_assign(&mut self, other: Self) {
        self.gets += other.gets;
        self.hits += other.hits;
        self.sets += other.sets;
        self.deletes += other.deletes;
    }
}

/// One worker's.
#[derive(Debug, Default)]
pub struct Prefixes(Mutex<HashMap<Box<[u8]>, Uses>>);

impl Prefixes {
    /// Counts. Of what comes after the largest number of prefixes nothing is counted.
    pub fn add(&self, prefix: &[u8], uses: Uses) {
        let mut prefixes = self.0.lock();
        if let Some(so_far) = prefixes.get_mut(prefix) {
            *so_far += uses;
        } else if prefixes.len() < PREFIXES_MAX {
            prefixes.insert(prefix.into(), uses);
        }
    }

    /// Adds what has been counted to what others have.
    pub fn collect(&self, all: &mut BTreeMap<Box<[u8]>, Uses>) {
        for (prefix, uses) in &*self.0.lock() {
            *all.entry(prefix.clone()).or_default() += *uses;
        }
    }

    /// Counts from now on.
    pub fn clear(&self) {
        *self.0.lock() = HashMap::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_too_many_prefixes() {
        let prefixes = Prefixes::default();
        let get = Uses {
            gets: 1,
            ..Uses::default()
        };
        for number in (0..PREFIXES_MAX + 10).chain(0..3) {
            prefixes.add(number.to_string().as_bytes(), get);
        }
        let mut all = BTreeMap::new();
        prefixes.collect(&mut all);
        assert_eq!(all.len(), PREFIXES_MAX);
        assert_eq!(all.get(&b"2"[..]).map(|uses| uses.gets), Some(2));
        prefixes.collect(&mut all);
        assert_eq!(all.get(&b"2"[..]).map(|uses| uses.gets), Some(4));
        prefixes.clear();
        let mut none = BTreeMap::new();
        prefixes.collect(&mut none);
        assert!(none.is_empty());
    }
}
