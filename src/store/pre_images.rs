//! What one table held at the cut of a snapshot and has changed since, kept aside until the
//! snapshot takes it; see [`super::cut`].
//!
//! Invariant: an entry of the cut is either in its bucket, which is owed, or in a list of what was
//! kept (a table of counters has two). A bucket is owed until it has been taken, kept aside, or
//! given to another entry: one bit a bucket says so. Lists are made of chunks that never move: all
//! tables fill alike, and if each had to be copied whenever it doubles, one fan-out would pay for
//! all of them at once.

use std::ops::Range;

use super::cut::PIECE_BUCKETS;

/// Entries of a list that are allocated together.
const CHUNK_ENTRIES: usize = 128;

/// A list of what was kept aside.
pub(super) struct Kept<T> {
    chunks: Vec<Vec<T>>,
}

impl<T> Kept<T> {
    pub(super) fn new() -> Self {
        Self { chunks: Vec::new() }
    }

    pub(super) fn bytes(&self) -> usize {
        let entries = self.chunks.len() * CHUNK_ENTRIES * size_of::<T>();
        entries + self.chunks.capacity() * size_of::<Vec<T>>()
    }

    pub(super) fn push(&mut self, entry: T) {
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK_ENTRIES => chunk.push(entry),
            Some(_) | None => {
                let mut chunk = Vec::with_capacity(CHUNK_ENTRIES);
                chunk.push(entry);
                self.chunks.push(chunk);
            }
        }
    }

    /// Hands over some of the entries; `None` once all were.
    pub(super) fn pop_some(&mut self) -> Option<Vec<T>> {
        self.chunks.pop()
    }
}

/// The entries kept aside of a table whose entries at the cut are made of `T`s.
pub(super) struct PreImages<T> {
    /// The buckets that may be owed still.
    left: Range<usize>,
    /// A set bit: the bucket is not.
    settled: Vec<u64>,
    kept: Kept<T>,
    /// What the values that were kept have on the heap and the table's own no longer share.
    heap_bytes: usize,
}

impl<T> PreImages<T> {
    /// All of a table's buckets are owed.
    pub(super) fn new(buckets: usize) -> Self {
        Self {
            left: 0..buckets,
            settled: vec![0; buckets.div_ceil(64)],
            kept: Kept::new(),
            heap_bytes: 0,
        }
    }

    /// What this takes, in bytes, beside what the table itself shares with it.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.settled.as_slice()) + self.kept.bytes() + self.heap_bytes
    }

    /// The table has given up so many bytes that it shared with what was kept. Who else shares
    /// them for a moment, a reply on its way, makes this somewhat more than there is.
    pub(super) fn inherit(&mut self, bytes: usize) {
        self.heap_bytes += bytes;
    }

    /// So many of those bytes are taken and go.
    pub(super) fn release(&mut self, bytes: usize) {
        self.heap_bytes = self.heap_bytes.saturating_sub(bytes);
    }

    /// Settles a bucket, whose entry is about to change or to come; true if it was owed.
    pub(super) fn settle(&mut self, bucket: usize) -> bool {
        let Some(word) = self.settled.get_mut(bucket / 64) else {
            return false;
        };
        let bit = 1 << (bucket % 64);
        let owed = self.left.contains(&bucket) && *word & bit == 0;
        *word |= bit;
        owed
    }

    /// Keeps aside what is in a bucket that was owed, if anything.
    pub(super) fn keep(&mut self, entry: Option<T>) {
        if let Some(entry) = entry {
            self.kept.push(entry);
        }
    }

    /// The buckets that are still owed, which the caller takes or keeps aside.
    pub(super) fn settle_all(&mut self) -> Vec<usize> {
        self.settle_first(usize::MAX)
    }

    /// The next of the buckets that are still owed, which the caller takes; `None` once all were.
    pub(super) fn next_piece(&mut self) -> Option<Vec<usize>> {
        (!self.left.is_empty()).then(|| self.settle_first(PIECE_BUCKETS))
    }

    fn settle_first(&mut self, count: usize) -> Vec<usize> {
        let Range { start, end } = self.left;
        let middle = start.saturating_add(count).min(end);
        self.left = middle..end;
        let is_owed = |bucket: &usize| {
            let word = self.settled.get(bucket / 64);
            word.is_some_and(|word| word >> (bucket % 64) & 1 == 0)
        };
        (start..middle).filter(is_owed).collect()
    }

    /// Hands over some of the entries that were kept; `None` once all were.
    pub(super) fn next_kept(&mut self) -> Option<Vec<T>> {
        self.kept.pop_some()
    }
}
