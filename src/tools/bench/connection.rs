//! One connection under load: requests on their way out, and those whose replies are awaited.
//!
//! Invariant: replies are matched to requests in order, and neither sending nor receiving waits.
//! Its buffers are made once; those of requests grow to what one turn sends.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};

use fastrand::Rng;

use super::super::client::Stream;
use super::replies::Replies;
use super::tally::Tally;
use super::workload::{Kind, Workload};

const INPUT_BYTES: usize = 32 << 10;

/// A connection.
pub(super) struct Connection {
    /// The socket.
    pub(super) stream: Stream,
    /// Whoever waits for the socket waits until it takes more, too.
    pub(super) waits_to_write: bool,
    output: Vec<u8>,
    written: usize,
    input: Box<[u8]>,
    filled: usize,
    replies: Replies,
    /// What was asked, and the moment that counts for it.
    waiting: VecDeque<(Kind, u64)>,
    depth: usize,
}

impl Connection {
    /// With up to `depth` requests on their way.
    pub(super) fn new(stream: Stream, depth: usize) -> Self {
        Self {
            stream,
            waits_to_write: false,
            output: Vec::new(),
            written: 0,
            input: vec![0; INPUT_BYTES].into(),
            filled: 0,
            replies: Replies::default(),
            waiting: VecDeque::with_capacity(depth),
            depth,
        }
    }

    /// How many replies are awaited.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// True if another request can be on its way.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < self.depth
    }

    /// True if there is something left to write.
    pub(super) fn has_output(&self) -> bool {
        self.written < self.output.len()
    }

    /// Puts down a request that counts from `since_ns`.
    pub(super) fn ask(
        &mut self,
        workload: &Workload,
        rng: &mut Rng,
        since_ns: u64,
        tally: &mut Tally,
    ) {
        let kind = workload.next(rng, &mut self.output);
        self.waiting.push_back((kind, since_ns));
        tally.sent(kind);
    }

    /// Writes what the socket takes.
    pub(super) fn send(&mut self) -> io::Result<()> {
        while let Some(rest) = self.output.get(self.written..)
            && !rest.is_empty()
        {
            match self.stream.write(rest) {
                Ok(written) => self.written += written,
                Err(error) if is_later(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads once, and takes every reply that is complete.
    pub(super) fn receive(
        &mut self,
        workload: &Workload,
        now_ns: impl FnOnce() -> u64,
        tally: &mut Tally,
    ) -> io::Result<()> {
        let free = self.input.get_mut(self.filled..).unwrap_or_default();
        match self.stream.read(free) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => self.filled += read,
            Err(error) if is_later(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
        let now_ns = now_ns();
        let received = self.input.get(..self.filled).unwrap_or_default();
        let mut rest = received;
        while let Some(&(kind, since_ns)) = self.waiting.front()
            && let Some(reply) = self.replies.take(&mut rest, kind)
        {
            self.waiting.pop_front();
            tally.replied((kind, workload.asked(kind), since_ns), &reply, now_ns);
        }
        let left = rest.len();
        if left == self.input.len() || (left > 0 && self.waiting.is_empty()) {
            let what = "the server sent something that is no reply to what was asked";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        self.input.copy_within(self.filled - left..self.filled, 0);
        self.filled = left;
        Ok(())
    }
}

/// True if the call may succeed when it is made again.
fn is_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
