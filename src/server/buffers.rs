//! The memory that the buffers of all clients share.
//!
//! Invariant: a connection may always hold [`INPUT_BYTES_LOW`] of requests and
//! [`OUTPUT_BYTES_LOW`] of replies. What it holds beyond that comes out of `client_memory`: one
//! half is for requests that are arriving - each gets room for all of itself or waits, so that
//! what has begun can end - and one for replies that are not read yet, of which there are fewer
//! at a time once it is used up.

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
    outputs: Arc<AtomicUsize>,
    outputs_max: usize,
}

impl Buffers {
    /// Buffers of `bytes` in all.
    pub fn new(bytes: u64) -> Self {
        let half = usize::try_from(bytes / 2).unwrap_or(usize::MAX);
        let permits = (half / PERMIT_BYTES).min(Semaphore::MAX_PERMITS);
        Self {
            inputs: Arc::new(Semaphore::new(permits)),
            permits,
            outputs: Arc::default(),
            outputs_max: half,
        }
    }

    /// How many bytes of unsent replies a connection may have now.
    pub fn output_room(&self) -> usize {
        if self.outputs.load(Relaxed).saturating_add(OUTPUT_BYTES_HIGH) <= self.outputs_max {
            OUTPUT_BYTES_HIGH
        } else {
            OUTPUT_BYTES_LOW
        }
    }

    /// How many bytes of replies all connections hold, beyond what they always may.
    pub fn output_bytes(&self) -> usize {
        self.outputs.load(Relaxed)
    }

    /// How many bytes arriving requests have been given room for.
    pub fn input_bytes(&self) -> usize {
        (self.permits - self.inputs.available_permits().min(self.permits)) * PERMIT_BYTES
    }

    /// The share of a connection's replies, which is nothing yet.
    pub fn share(&self) -> Share {
        Share {
            outputs: Arc::clone(&self.outputs),
            bytes: 0,
        }
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
    outputs: Arc<AtomicUsize>,
    /// What has been counted, whatever became of the buffer since.
    bytes: usize,
}

impl Share {
    /// Takes note that the replies hold `capacity` bytes now.
    pub fn set(&mut self, capacity: usize) {
        let now = charged(capacity);
        let before = std::mem::replace(&mut self.bytes, now);
        if before < now {
            self.outputs.fetch_add(now - before, Relaxed);
        } else if now < before {
            self.outputs.fetch_sub(before - now, Relaxed);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
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
