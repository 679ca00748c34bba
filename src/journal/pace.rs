//! How fast a snapshot is written and read back: in pieces that are synced one by one, at a
//! bounded rate, never into the last free space, and no further once it is given up. A sync of
//! the journal waits for what the disk has been given before it, so an unbounded writer beside it
//! would make each wait for tens of milliseconds. Nor does the system keep more than a piece in
//! memory: it would put out what is read often, and where a virtual machine gives free memory back
//! to its host, a whole snapshot that is dropped at once slows every access down for a while.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::JournalError;
use super::disk::{Disk, DiskFile};
use super::segment::failed;
use crate::clock::Tick;

/// A piece is at most this large.
const PIECE_BYTES: usize = 1 << 20;

/// A rate that is kept from a moment on.
pub(super) struct Pace {
    /// Bytes a second; 0 is as fast as it goes.
    bytes_per_s: u64,
    /// So much space stays free for the journal.
    reserve: u64,
    /// Set when the server stops.
    given_up: Arc<AtomicBool>,
    /// When the first byte could have been spent, had there been no pause since.
    begun: Tick,
    spent: u64,
}

/// What a slow stretch leaves unspent is made up for later, but no more than this time's worth: a
/// burst is what the rate is to prevent.
const CREDIT_MAX: Duration = Duration::from_millis(100);

/// How long a breath is,
const BREATH: Duration = Duration::from_micros(200);
/// and after how many bytes of records it comes at the soonest, a fraction of a millisecond's work.
const BREATH_BYTES: u64 = 16 << 10;
/// A second has so many breaths at the most, so that they do not keep the rate down.
const BREATHS_PER_S: u64 = 2000;

/// How long a wait goes on before it is looked whether it is still worth it.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Pace {
    pub(super) fn new(bytes_per_s: u64, reserve: u64, given_up: Arc<AtomicBool>) -> Self {
        Self {
            bytes_per_s,
            reserve,
            given_up,
            begun: Tick::now(),
            spent: 0,
        }
    }

    /// As fast as it goes, to the end.
    pub(super) fn unbounded() -> Self {
        Self::new(0, 0, Arc::default())
    }

    /// The same rate, from now on.
    pub(super) fn anew(&self) -> Self {
        Self::new(self.bytes_per_s, self.reserve, Arc::clone(&self.given_up))
    }

    /// Fails once the snapshot is given up.
    pub(super) fn check(&self) -> Result<(), JournalError> {
        if self.given_up.load(Relaxed) {
            return Err(JournalError::Closed);
        }
        Ok(())
    }

    /// Fails if `bytes` and the reserve do not fit the disk.
    pub(super) fn check_space(&self, disk: &dyn Disk, bytes: u64) -> Result<(), JournalError> {
        let free = disk
            .free_bytes()
            .map_err(failed("find the free space of", "the data directory"))?;
        let needed = bytes.saturating_add(self.reserve);
        if free < needed {
            return Err(JournalError::NoSpace { needed, free });
        }
        Ok(())
    }

    /// Writes the slices one after the other at `offset` of the file of that name; answers where
    /// they end.
    pub(super) fn write<'a>(
        &mut self,
        (name, file): (&str, &dyn DiskFile),
        mut offset: u64,
        slices: impl Iterator<Item = &'a [u8]>,
    ) -> Result<u64, JournalError> {
        let mut piece = Vec::new();
        let mut bytes = 0;
        for chunk in slices.flat_map(|slice| slice.chunks(PIECE_BYTES)) {
            if bytes + chunk.len() > PIECE_BYTES && bytes > 0 {
                offset = self.write_piece((name, file), offset, &mut piece)?;
                bytes = 0;
            }
            bytes += chunk.len();
            piece.push(IoSlice::new(chunk));
        }
        self.write_piece((name, file), offset, &mut piece)
    }

    fn write_piece(
        &mut self,
        (name, file): (&str, &dyn DiskFile),
        offset: u64,
        piece: &mut Vec<IoSlice<'_>>,
    ) -> Result<u64, JournalError> {
        let bytes: u64 = piece.iter().map(|slice| slice.len() as u64).sum();
        let mut write = || -> io::Result<()> {
            file.write_all_at(offset, piece)?;
            file.sync_data()?;
            file.drop_cached(offset..offset + bytes);
            Ok(())
        };
        write().map_err(failed("write", name))?;
        piece.clear();
        self.spend(bytes)?;
        Ok(offset + bytes)
    }

    /// Lets others have the processor, if there is a rate at all: where all cores are busy, who
    /// runs for milliseconds without a pause has those wait that serve, unimportant as it may be.
    pub(super) fn breathe(&self) {
        if self.bytes_per_s > 0 {
            std::thread::sleep(BREATH);
        }
    }

    /// After how many bytes it is time to breathe.
    pub(super) fn breath_bytes(&self) -> usize {
        let bytes = BREATH_BYTES.max(self.bytes_per_s / BREATHS_PER_S);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Waits until so much more is within the rate.
    pub(super) fn spend(&mut self, bytes: u64) -> Result<(), JournalError> {
        self.spent += bytes;
        self.check()?;
        while let wait = self.wait(Tick::now())
            && !wait.is_zero()
        {
            std::thread::sleep(wait.min(LOOK_EVERY));
            self.check()?;
        }
        Ok(())
    }

    /// How long from `now` on what was spent is beyond the rate.
    fn wait(&mut self, now: Tick) -> Duration {
        let Some(whole_s) = self.spent.checked_div(self.bytes_per_s) else {
            return Duration::ZERO;
        };
        let rest_us = self.spent % self.bytes_per_s * 1_000_000 / self.bytes_per_s;
        let due = Duration::from_secs(whole_s) + Duration::from_micros(rest_us);
        let elapsed = now.since(self.begun);
        let credit = elapsed.saturating_sub(due);
        self.begun = self.begun.plus(credit.saturating_sub(CREDIT_MAX));
        due.saturating_sub(elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 1000;

    #[test]
    fn a_slow_stretch_is_made_up_for_by_a_moment_at_most() {
        let mut pace = Pace::new(RATE, 0, Arc::default());
        let begun = pace.begun;
        let at = |ms| begun.plus(Duration::from_millis(ms));
        pace.spent += 2 * RATE;
        assert_eq!(pace.wait(at(0)), Duration::from_secs(2));
        assert_eq!(pace.wait(at(2000)), Duration::ZERO);
        // A twentieth of a second behind is made up for; of 98 seconds a tenth of one is.
        pace.spent += RATE / 20;
        assert_eq!(pace.wait(at(2100)), Duration::ZERO);
        pace.spent += RATE;
        assert_eq!(pace.wait(at(2100)), Duration::from_millis(950));
        assert_eq!(pace.wait(at(100_000)), Duration::ZERO);
        pace.spent += RATE / 10;
        assert_eq!(pace.wait(at(100_000)), Duration::ZERO);
        pace.spent += RATE;
        assert_eq!(pace.wait(at(100_000)), Duration::from_secs(1));
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let mut pace = Pace::unbounded();
        pace.spent = u64::MAX / 2;
        assert_eq!(pace.wait(pace.begun), Duration::ZERO);
    }
}
