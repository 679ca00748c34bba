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
    outputs: AtomicUsize,
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
            outputs: AtomicUsize::new(0),
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

    /// Takes note that a connection's replies held `before` bytes and hold `now`.
    pub fn count_output(&self, before: usize, now: usize) {
        match (charged(before), charged(now)) {
            (before, now) if before == now => {}
            (before, now) if before < now => {
                self.outputs.fetch_add(now - before, Relaxed);
            }
            (before, now) => {
                self.outputs.fetch_sub(before - now, Relaxed);
            }
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
        let mut given = 0;
        while buffers.output_room() == OUTPUT_BYTES_HIGH {
            buffers.count_output(0, OUTPUT_BYTES_HIGH);
            given += 1;
        }
        assert_eq!(given, (2 << 20) / OUTPUT_BYTES_HIGH);
        assert!(buffers.is_crowded());
        buffers.count_output(OUTPUT_BYTES_HIGH, BUFFER_BYTES_FREE);
        assert_eq!(buffers.output_room(), OUTPUT_BYTES_HIGH);
        assert!(!buffers.is_crowded());
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
