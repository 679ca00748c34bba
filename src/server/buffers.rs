//! The memory that the buffers of all clients share.
//!
//! Invariant: a connection may always hold [`INPUT_BYTES_LOW`] of requests and
//! [`OUTPUT_BYTES_LOW`] of replies. What it holds beyond that comes out of `client_memory`: one
//! half is for requests that are arriving - each gets room for all of itself or waits, so that
//! what has begun can end - and one for replies that are not read yet, of which there are fewer
//! at a time once it is used up. What a retrieval has found and not written yet counts as its
//! reply; one of many keys waits if there is no room for that.
//!
//! The values among it are the store's for as long as they are there, so they take nothing of
//! `client_memory`. But whoever does not read keeps them from going when they are replaced: once
//! those of all clients are as many bytes, clients must read as if the memory were used up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{BUFFER_BYTES_FREE, INPUT_BYTES_LOW, OUTPUT_BYTES_HIGH, OUTPUT_BYTES_LOW};

/// What one permit stands for.
const PERMIT_BYTES: usize = 1 << 10;

/// The buffers of all clients.
#[derive(Debug)]
pub struct Buffers {
    inputs: Arc<Semaphore>,
    /// The permits that there are.
    permits: usize,
    replies: Arc<Replies>,
    outputs_max: usize,
    /// Retrievals that wait for room.
    waiting: AtomicUsize,
}

/// What all connections' replies hold, in bytes.
#[derive(Debug, Default)]
struct Replies {
    /// Themselves, beyond what they always may.
    outputs: AtomicUsize,
    /// Of values that unwritten ones may keep alive.
    pinned: AtomicUsize,
}

/// What a retrieval has found and not written yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// What it takes itself, in bytes.
    pub own: usize,
    /// Bytes of values that it may come to be the last to have.
    pub pinned: usize,
}

impl Buffers {
    /// Buffers of `bytes` in all.
    pub fn new(bytes: u64) -> Self {
        let half = usize::try_from(bytes / 2).unwrap_or(usize::MAX);
        let permits = (half / PERMIT_BYTES).min(Semaphore::MAX_PERMITS);
        Self {
            inputs: Arc::new(Semaphore::new(permits)),
            permits,
            replies: Arc::default(),
            outputs_max: half,
            waiting: AtomicUsize::new(0),
        }
    }

    /// How many bytes of unsent replies a connection may have now.
    pub fn output_room(&self) -> usize {
        if self.output_bytes().saturating_add(OUTPUT_BYTES_HIGH) <= self.outputs_max {
            OUTPUT_BYTES_HIGH
        } else {
            OUTPUT_BYTES_LOW
        }
    }

    /// How many bytes of replies all connections hold, beyond what they always may.
    pub fn output_bytes(&self) -> usize {
        self.replies.outputs.load(Relaxed)
    }

    /// How many bytes arriving requests have been given room for.
    pub fn input_bytes(&self) -> usize {
        (self.permits - self.inputs.available_permits().min(self.permits)) * PERMIT_BYTES
    }

    /// The share of a connection's replies, which is nothing yet.
    pub fn share(&self) -> Share {
        Share {
            replies: Arc::clone(&self.replies),
            bytes: 0,
            rest: Rest::default(),
        }
    }

    /// True if a retrieval may find so much now. One that is very large needs half of the room:
    /// it would wait for ever for all of it.
    pub fn has_room(&self, bytes: usize) -> bool {
        let needed = bytes.min(self.outputs_max / 2);
        charged(bytes) == 0 || self.output_bytes().saturating_add(needed) <= self.outputs_max
    }

    /// A retrieval begins to wait for room, or ends.
    pub fn set_waiting(&self, waits: bool) {
        if waits {
            self.waiting.fetch_add(1, Relaxed);
        } else {
            self.waiting.fetch_sub(1, Relaxed);
        }
    }

    /// True if who does not read its replies is in the way of others.
    pub fn must_be_read(&self) -> bool {
        self.output_room() == OUTPUT_BYTES_LOW
            || self.waiting.load(Relaxed) > 0
            || self.replies.pinned.load(Relaxed) > self.outputs_max
    }

    /// How much of requests a connection may hold now without asking for room.
    pub fn input_free(&self) -> usize {
        if self.is_crowded() {
            INPUT_BYTES_LOW
        } else {
            BUFFER_BYTES_FREE
        }
    }

    /// True if requests wait for room, or replies for being read.
    pub fn is_crowded(&self) -> bool {
        self.inputs.available_permits() == 0 || self.output_room() == OUTPUT_BYTES_LOW
    }

    /// Room for a request of this length, if there is enough.
    pub fn try_admit(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let inputs = Arc::clone(&self.inputs);
        inputs.try_acquire_many_owned(self.permits_for(bytes)).ok()
    }

    /// Room for a request of this length, when there is enough: first come, first served.
    pub async fn admit(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let inputs = Arc::clone(&self.inputs);
        inputs
            .acquire_many_owned(self.permits_for(bytes))
            .await
            .ok()
    }

    /// One that is larger than all there is gets all there is.
    fn permits_for(&self, bytes: usize) -> u32 {
        let permits = bytes.div_ceil(PERMIT_BYTES).clamp(1, self.permits.max(1));
        u32::try_from(permits).unwrap_or(u32::MAX)
    }
}

/// What one connection's replies take of the memory. It goes back when this is dropped.
#[derive(Debug)]
pub struct Share {
    replies: Arc<Replies>,
    /// What has been counted, whatever became of the buffer since.
    bytes: usize,
    /// What is still to be written.
    rest: Rest,
}

impl Share {
    /// Takes note that the replies hold `capacity` bytes now.
    pub fn set(&mut self, capacity: usize) {
        let now = charged(capacity + self.rest.own);
        recount(&self.replies.outputs, &mut self.bytes, now);
    }

    /// The same, and of what is still to be written.
    pub fn set_all(&mut self, capacity: usize, rest: Rest) {
        self.rest.own = rest.own;
        recount(&self.replies.pinned, &mut self.rest.pinned, rest.pinned);
        self.set(capacity);
    }

    /// True if it has any of what all clients share.
    pub fn takes_some(&self) -> bool {
        self.bytes > 0 || self.rest != Rest::default()
    }
}

/// Has a share of `all` become `now`.
fn recount(all: &AtomicUsize, share: &mut usize, now: usize) {
    let before = std::mem::replace(share, now);
    if before < now {
        all.fetch_add(now - before, Relaxed);
    } else if now < before {
        all.fetch_sub(before - now, Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set_all(0, Rest::default());
    }
}

/// What counts of a buffer.
fn charged(bytes: usize) -> usize {
    if bytes > BUFFER_BYTES_FREE { bytes } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_get_less_room_when_many_are_not_read() {
        let buffers = Buffers::new(4 << 20);
        let mut shares = Vec::new();
        while buffers.output_room() == OUTPUT_BYTES_HIGH {
            let mut share = buffers.share();
            share.set(OUTPUT_BYTES_HIGH);
            shares.push(share);
        }
        assert_eq!(shares.len(), (2 << 20) / OUTPUT_BYTES_HIGH);
        assert!(buffers.is_crowded());
        shares[0].set(BUFFER_BYTES_FREE);
        assert_eq!(buffers.output_room(), OUTPUT_BYTES_HIGH);
        assert!(!buffers.is_crowded());
        drop(shares);
        assert_eq!(buffers.output_bytes(), 0);
    }

    #[test]
    fn what_a_retrieval_has_found_counts_as_its_reply() {
        let buffers = Buffers::new(4 << 20);
        let mut share = buffers.share();
        let rest = |own, pinned| Rest { own, pinned };
        share.set_all(BUFFER_BYTES_FREE, rest(1 << 20, 1 << 20));
        assert_eq!(buffers.output_bytes(), (1 << 20) + BUFFER_BYTES_FREE);
        assert!(!buffers.has_room(10 << 20) && buffers.has_room(1 << 19));
        assert!(!buffers.must_be_read());
        buffers.set_waiting(true);
        assert!(buffers.must_be_read());
        buffers.set_waiting(false);
        // However little it takes itself.
        share.set_all(0, rest(0, (2 << 20) + 1));
        assert!(buffers.must_be_read() && buffers.has_room(10 << 20));
        assert!(!buffers.is_crowded());
        drop(share);
        assert!(!buffers.must_be_read());
    }

    #[test]
    fn a_request_has_room_for_all_of_itself_or_none() {
        let buffers = Buffers::new(4 << 20);
        let first = buffers.try_admit(1 << 20).unwrap();
        let second = buffers.try_admit(1 << 20).unwrap();
        assert_eq!(buffers.input_bytes(), 2 << 20);
        assert!(buffers.is_crowded() && buffers.try_admit(1).is_none());
        drop((first, second));
        // However large it says it is.
        assert!(buffers.try_admit(usize::MAX).is_some());
        assert_eq!(buffers.input_bytes(), 0);
    }
}
