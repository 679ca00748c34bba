//! What is counted for each class: a type, by its number, or the named keys.
//!
//! Invariant: counters have one writer, the worker whose they are, as all of a [`super::Tally`].
//! A class takes memory from the first time that something of it is counted.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::PerClass;

/// Classes are looked up in two steps, so that those that nobody uses take nothing: a group of so
/// many, and in there the class.
const GROUP: usize = 256;

/// How many groups there are: those of all types, and one for the named keys.
const GROUPS: usize = (1 << 16) / GROUP + 1;

/// The counters of one class. Those that commands step share one line of the processor's cache.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Row([AtomicU64; PerClass::ALL.len()]);

type Group = Box<[OnceLock<Box<Row>>]>;

/// One worker's counters of every class.
#[derive(Debug)]
pub(super) struct Classes(Box<[OnceLock<Group>]>);

/// What has been counted of one class, or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; PerClass::ALL.len()]);

impl Default for Classes {
    fn default() -> Self {
        Self(empty(GROUPS))
    }
}

fn empty<T>(length: usize) -> Box<[OnceLock<T>]> {
    std::iter::repeat_with(OnceLock::new).take(length).collect()
}

impl Classes {
    /// Counts. Only the worker whose they are may.
    pub(super) fn add(&self, class: u32, metric: PerClass, count: u64) {
        let cell = self.row(class).and_then(|row| row.0.get(metric as usize));
        if let Some(cell) = cell {
            cell.store(cell.load(Relaxed).wrapping_add(count), Relaxed);
        }
    }

    fn row(&self, class: u32) -> Option<&Row> {
        let class = class as usize;
        let group = self.0.get(class / GROUP)?.get_or_init(|| empty(GROUP));
        let row = group.get(class % GROUP)?;
        Some(row.get_or_init(Box::default))
    }

    /// What has been counted of each class of which something was.
    pub(super) fn counts(&self) -> impl Iterator<Item = (u32, Counts)> {
        (0u32..)
            .step_by(GROUP)
            .zip(self.0.iter().map(OnceLock::get))
            .filter_map(|(first, group)| Some((first..).zip(group?.iter().map(OnceLock::get))))
            .flatten()
            .filter_map(|(class, row)| Some((class, Counts::of(row?))))
    }
}

impl Counts {
    fn of(row: &Row) -> Self {
        let mut counts = Self::default();
        for (count, cell) in counts.0.iter_mut().zip(&row.0) {
            *count = cell.load(Relaxed);
        }
        counts
    }

    /// How often.
    pub fn get(&self, metric: PerClass) -> u64 {
        self.0.get(metric as usize).copied().unwrap_or_default()
    }

    /// True if nothing was counted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What has been counted since `before`.
    #[must_use]
    pub fn since(mut self, before: Self) -> Self {
        for (count, before) in self.0.iter_mut().zip(before.0) {
            *count = count.saturating_sub(before);
        }
        self
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        for (count, other) in self.0.iter_mut().zip(other.0) {
            *count += other;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_count_apart_from_the_first_to_the_last() {
        let classes = Classes::default();
        for class in [0, 1, 255, 256, 65535, 65536] {
            classes.add(class, PerClass::GetHits, u64::from(class) + 1);
            classes.add(class, PerClass::OutOfMemory, 1);
        }
        classes.add(70_000, PerClass::GetHits, 1);
        let counted: Vec<_> = classes
            .counts()
            .map(|(class, counts)| (class, counts.get(PerClass::GetHits)))
            .collect();
        let expected = [(0, 1), (1, 2), (255, 256), (256, 257)];
        assert_eq!(counted.get(..4).unwrap(), expected);
        assert_eq!(counted.get(4..).unwrap(), [(65535, 65536), (65536, 65537)]);
        let mut all = Counts::default();
        for (_, counts) in classes.counts() {
            assert_eq!(counts.get(PerClass::CmdSet), 0);
            all += counts;
        }
        assert_eq!(all.get(PerClass::OutOfMemory), 6);
        assert!(all.since(all).is_empty() && !all.is_empty());
    }
}
