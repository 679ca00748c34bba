//! Zeros ahead of the records of a journal whose every write is synced. Where a file has space that
//! was never written, a sync of new records also has to make last that there are data now, which
//! takes about as long again; where there are zeros already it is a sync of the records alone.
//!
//! Invariant: no zeros are written where a record is: both are written under the file lock, and
//! records go from the front to the back. The sync thread calls this.

use std::io::IoSlice;
use std::sync::atomic::Ordering::Acquire;

use super::Failed;
use super::writer::{Shared, WELL};

/// Zeros that are written at once, while workers may wait for the file lock.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// There are to be at least so many bytes of zeros, for what comes until the next sync.
const AHEAD_BYTES: u64 = 128 << 10;

impl Shared {
    /// Writes the next zeros, if there are few left. They last with the sync that comes next.
    pub(super) fn zero_ahead(&self) -> Result<(), Failed> {
        let mut active = self.active.lock();
        if self.health.load(Acquire) != WELL {
            return Err(Failed);
        }
        let begin = active.zeroed.max(active.offset);
        let left = active.allocated.saturating_sub(begin);
        let zeros = ZEROS.get(..usize::try_from(left).unwrap_or(usize::MAX));
        let zeros = zeros.unwrap_or(&ZEROS);
        if zeros.is_empty() || begin - active.offset >= AHEAD_BYTES {
            return Ok(());
        }
        let written = active.file.write_all_at(begin, &mut [IoSlice::new(zeros)]);
        written.map_err(|error| self.fail_write(&mut active, &error))?;
        active.zeroed = begin + zeros.len() as u64;
        Ok(())
    }
}
