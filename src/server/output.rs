//! Replies on their way out: the bytes, and what must be safe before they may leave.

use std::ops::Range;

use crate::limits::{BUFFER_BYTES_FREE, OUTPUT_BYTES_HIGH};

/// What a client hears in place of a reply when nobody knows whether its write is on disk.
const OUTCOME_UNKNOWN: &[u8] = b"SERVER_ERROR storage failed, outcome unknown\r\n";

/// One connection's unsent replies.
#[derive(Debug)]
pub struct Output {
    /// With so many bytes unsent the connection's requests wait.
    room: usize,
    bytes: Vec<u8>,
    /// How many of them have been sent.
    sent: usize,
    /// Where in `bytes` the replies of writes are; empty ranges for `noreply`.
    writes: Vec<Range<usize>>,
    /// The newest record that the replies show or acknowledge.
    seq: u64,
}

impl Default for Output {
    fn default() -> Self {
        Self {
            room: OUTPUT_BYTES_HIGH,
            bytes: Vec::new(),
            sent: 0,
            writes: Vec::new(),
            seq: 0,
        }
    }
}

impl Output {
    /// How many bytes may be unsent.
    pub fn room(&self) -> usize {
        self.room
    }

    /// Changes how many bytes may be unsent.
    pub fn set_room(&mut self, room: usize) {
        self.room = room;
    }

    /// The memory that it holds.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Where replies are written.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Adds a reply, written by `encode`, which shows the state up to record `seq`.
    pub fn reply(&mut self, seq: u64, wrote: bool, encode: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        encode(&mut self.bytes);
        if wrote {
            self.writes.push(start..self.bytes.len());
        }
        self.seq = self.seq.max(seq);
    }

    /// The unsent bytes.
    pub fn unsent(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    /// True if so much is unsent that the connection's requests must wait.
    pub fn is_full(&self) -> bool {
        self.unsent().len() >= self.room
    }

    /// True if nothing is to be sent or waited for.
    pub fn is_settled(&self) -> bool {
        self.unsent().is_empty() && self.writes.is_empty()
    }

    /// The newest record that the replies depend on.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// True if a reply acknowledges a write.
    pub fn acknowledges(&self) -> bool {
        !self.writes.is_empty()
    }

    /// The replies may leave: nothing has to be waited for any more.
    pub fn release(&mut self) {
        self.writes.clear();
        self.seq = 0;
    }

    /// Should the storage fail, the connection must close: a part of a write's reply may have
    /// been sent by then.
    pub fn tie(&mut self) {
        let end = self.bytes.len();
        self.writes.push(end..end);
    }

    /// The storage failed: replies of reads stay, those of writes become "outcome unknown".
    /// False if a write without a reply was among them: its client cannot be told, so its
    /// connection must close.
    pub fn fail_writes(&mut self) -> bool {
        let mut failed = Vec::with_capacity(self.bytes.len());
        let mut kept_from = 0;
        let mut all_told = true;
        for write in self.writes.drain(..) {
            failed.extend_from_slice(self.bytes.get(kept_from..write.start).unwrap_or_default());
            if write.is_empty() {
                all_told = false;
            } else {
                failed.extend_from_slice(OUTCOME_UNKNOWN);
            }
            kept_from = write.end;
        }
        failed.extend_from_slice(self.bytes.get(kept_from..).unwrap_or_default());
        self.bytes = failed;
        self.seq = 0;
        all_told
    }

    /// Takes note of what has been sent; gives back a buffer that has grown large.
    pub fn mark_sent(&mut self, count: usize) {
        self.sent += count;
        if self.sent >= self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(BUFFER_BYTES_FREE);
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_storage_fails_reads_stay_and_writes_are_unknown() {
        let mut output = Output::default();
        output.reply(1, false, |out| out.extend_from_slice(b"END\r\n"));
        output.reply(3, true, |out| out.extend_from_slice(b"STORED\r\n"));
        output.reply(2, false, |out| out.extend_from_slice(b"VALUE..\r\n"));
        assert_eq!(output.seq(), 3);
        assert!(output.fail_writes());
        let expected = b"END\r\nSERVER_ERROR storage failed, outcome unknown\r\nVALUE..\r\n";
        assert_eq!(output.unsent(), expected);
        assert!(!output.acknowledges());
    }

    #[test]
    fn a_noreply_write_cannot_be_told_of_the_failure() {
        let mut output = Output::default();
        output.reply(1, true, |_| {});
        assert!(!output.is_settled());
        assert!(!output.fail_writes());
        assert!(output.is_settled());
    }
}
