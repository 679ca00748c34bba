//! How fast a snapshot is written: in pieces that are synced one by one, at a bounded rate, and
//! never into the last free space. A sync of the journal waits for what the disk has been given
//! before it, so an unbounded writer beside it would make each wait for tens of milliseconds.

use std::io::IoSlice;
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
    begun: Tick,
    spent: u64,
}

impl Pace {
    pub(super) fn new(bytes_per_s: u64, reserve: u64) -> Self {
        Self {
            bytes_per_s,
            reserve,
            begun: Tick::now(),
            spent: 0,
        }
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

    /// Writes the slices one after the other at `offset`; answers where they end.
    pub(super) fn write<'a>(
        &mut self,
        file: &dyn DiskFile,
        mut offset: u64,
        slices: impl Iterator<Item = &'a [u8]>,
    ) -> std::io::Result<u64> {
        let mut piece = Vec::new();
        let mut bytes = 0;
        for chunk in slices.flat_map(|slice| slice.chunks(PIECE_BYTES)) {
            if bytes + chunk.len() > PIECE_BYTES && bytes > 0 {
                offset = self.write_piece(file, offset, &mut piece)?;
                bytes = 0;
            }
            bytes += chunk.len();
            piece.push(IoSlice::new(chunk));
        }
        self.write_piece(file, offset, &mut piece)
    }

    fn write_piece(
        &mut self,
        file: &dyn DiskFile,
        offset: u64,
        piece: &mut Vec<IoSlice<'_>>,
    ) -> std::io::Result<u64> {
        let bytes: u64 = piece.iter().map(|slice| slice.len() as u64).sum();
        file.write_all_at(offset, piece)?;
        piece.clear();
        file.sync_data()?;
        self.spend(bytes);
        Ok(offset + bytes)
    }

    /// Waits until so much more is within the rate.
    fn spend(&mut self, bytes: u64) {
        self.spent += bytes;
        let Some(whole_s) = self.spent.checked_div(self.bytes_per_s) else {
            return;
        };
        let rest_us = self.spent % self.bytes_per_s * 1_000_000 / self.bytes_per_s;
        let due = Duration::from_secs(whole_s) + Duration::from_micros(rest_us);
        std::thread::sleep(due.saturating_sub(self.begun.elapsed()));
    }
}
