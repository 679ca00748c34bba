//! Replies with values: as much as there is room for is written, the rest when the client has
//! read that.

use std::collections::VecDeque;

use super::super::buffers::Rest;
use super::super::output::Output;
use super::super::shared::Shared;
use super::{Flow, Session};
use crate::command::{Hit, Meta, Refusal, Reply};
use crate::engine::{Answer, Cold};
use crate::limits::OUTPUT_BYTES_HIGH;
use crate::protocol::memcached::encode;
use crate::protocol::memcached::meta::Echo;
use crate::protocol::memcached::meta_reply;
use crate::protocol::memcached::text::Away;
use crate::stats::Tally;
use crate::value::{Blob, Value};

/// How many bytes of values are read at once, if it is more than one.
const COLD_BYTES: usize = OUTPUT_BYTES_HIGH;

/// What an allocation takes beside what is in it, about.
const ALLOCATION_BYTES: usize = 16;

/// What a key takes of which something was found.
const HIT_BYTES: usize = size_of::<(Box<[u8]>, Hit)>() + ALLOCATION_BYTES;

/// What the entries of these keys take at the most while their reply is not written, without
/// their values.
pub(super) fn held_bytes(keys: &[&[u8]]) -> usize {
    keys.iter().map(|key| HIT_BYTES + key.len()).sum()
}

/// The rest of a reply: keys as sent, and their entries. A value is shared with the store for as
/// long as it is there; one that was replaced since is held by this alone.
#[derive(Debug)]
pub(super) struct Found {
    hits: std::vec::IntoIter<(Box<[u8]>, Hit)>,
    /// A hit whose value is still to come.
    next: Option<(Box<[u8]>, Hit)>,
    /// How far that value has been written.
    at: usize,
    /// Values to be read, in the order of the hits without them.
    cold: VecDeque<Cold>,
    /// The first of them, read.
    read: VecDeque<Result<Blob, Refusal>>,
    with_cas: bool,
    /// A line comes after the last hit.
    is_list: bool,
    /// What all of it took at first: it takes less and less, but no table is given back early.
    rest: Rest,
}

impl Found {
    /// What there is to be written, which may begin in the middle of a value.
    fn of(hits: Vec<(Box<[u8]>, Hit)>, at: usize, cold: Vec<Cold>, with_cas: bool) -> Self {
        let lens = || cold.iter().map(Cold::len);
        // Several values are read at once, or one that is larger.
        let thawed = lens().max().unwrap_or(0).max(COLD_BYTES.min(lens().sum()));
        let keys: usize = hits.iter().map(|(key, _)| key.len()).sum();
        let rest = Rest {
            own: hits.capacity() * HIT_BYTES + keys + cold.len() * size_of::<Cold>() + thawed,
            pinned: hits.iter().map(|(_, hit)| hit.value.part_bytes()).sum(),
        };
        Self {
            hits: hits.into_iter(),
            next: None,
            at,
            cold: cold.into(),
            read: VecDeque::new(),
            with_cas,
            is_list: true,
            rest,
        }
    }

    /// What it takes.
    pub(super) fn rest(&self) -> Rest {
        self.rest
    }

    /// The values to be read next: not more than a reply has room for.
    pub(super) fn cold(&mut self) -> Vec<Cold> {
        let mut bytes = 0;
        let mut taken = Vec::new();
        while let Some(cold) = self
            .cold
            .pop_front_if(|cold| bytes == 0 || bytes + cold.len() <= COLD_BYTES)
        {
            bytes += cold.len().max(1);
            taken.push(cold);
        }
        if taken.is_empty() {
            let defect = Refusal::Internal("a value is neither in memory nor in a file");
            self.read.push_back(Err(defect));
        }
        taken
    }

    /// Takes the values that [`Self::cold`] asked for.
    pub(super) fn thaw(&mut self, read: Vec<Result<Blob, Refusal>>) {
        self.read.extend(read);
    }
}

impl Session {
    /// Writes what an earlier request found, as far as there is room. True if a value has to be
    /// read first.
    pub(super) fn send_found(&mut self, shared: &Shared, tally: &Tally, out: &mut Output) -> bool {
        let Some(found) = &mut self.unsent else {
            return false;
        };
        while !out.is_full() {
            let Some((key, mut hit)) = found.next.take().or_else(|| found.hits.next()) else {
                if found.is_list {
                    encode::end(out.bytes());
                }
                self.unsent = None;
                return false;
            };
            let place = (&mut found.at, out.room());
            match encode::hit(&key, &hit, found.with_cas, place, out.bytes()) {
                Ok(true) => continue,
                Ok(false) => {
                    found.next = Some((key, hit));
                    continue;
                }
                Err(Away) => {}
            }
            match found.read.pop_front() {
                None => {
                    found.next = Some((key, hit));
                    return true;
                }
                Some(Ok(blob)) => {
                    hit.value = Value::Data(blob);
                    found.next = Some((key, hit));
                }
                Some(Err(refusal)) => {
                    self.unsent = None;
                    self.refuse(shared, tally, &refusal, false, out);
                    return false;
                }
            }
        }
        false
    }

    /// Writes a retrieval's reply; what there is no room for waits until the client has read.
    pub(super) fn show(
        &mut self,
        answer: Answer,
        keys: &[&[u8]],
        with_cas: bool,
        out: &mut Output,
    ) {
        let Reply::Hits(hits) = answer.reply else {
            return;
        };
        let found = keys
            .iter()
            .zip(hits)
            .filter_map(|(key, hit)| Some((*key, hit?)));
        let mut found = found.peekable();
        let (mut at, room) = (0, out.room());
        out.reply(answer.seq, answer.wrote, |bytes| {
            while bytes.len() < room
                && let Some((key, hit)) = found.peek()
                && encode::hit(key, hit, with_cas, (&mut at, room), bytes) == Ok(true)
            {
                found.next();
            }
            if found.peek().is_none() {
                encode::end(bytes);
            }
        });
        if found.peek().is_some() {
            let hits: Vec<_> = found.map(|(key, hit)| (key.into(), hit)).collect();
            let found = Found::of(hits, at, answer.cold, with_cas);
            self.leave(answer.wrote, out, found);
        }
    }

    /// Writes the reply to a meta command; what there is no room for of its value waits until
    /// the client has read.
    pub(super) fn show_meta(
        &mut self,
        shared: &Shared,
        tally: &Tally,
        asked: (&Meta<'_>, &Echo<'_>),
        answer: Answer,
        out: &mut Output,
    ) -> Flow {
        let Reply::Meta(reply) = answer.reply else {
            return Flow::Read;
        };
        let (mut at, room) = (0, out.room());
        let mut is_all = Ok(true);
        out.reply(answer.seq, answer.wrote, |bytes| {
            let shown = (&*reply, answer.stamp);
            is_all = meta_reply::reply(asked, shown, (&mut at, room), bytes);
        });
        match (is_all, reply.seen.value) {
            (Ok(false), Some(value)) => {
                let (flags, cas) = (reply.seen.flags, answer.stamp);
                let begun = Hit {
                    value,
                    class: answer.class,
                    flags,
                    cas,
                };
                let found = Found::of(vec![(Box::default(), begun)], at, Vec::new(), false);
                let found = Found {
                    is_list: false,
                    ..found
                };
                self.leave(answer.wrote, out, found);
                Flow::Read
            }
            (Err(Away), _) => {
                let defect = Refusal::Internal("a value that is shown is not in memory");
                self.refuse(shared, tally, &defect, false, out)
            }
            (Ok(_), _) => Flow::Read,
        }
    }

    /// Leaves the rest of a reply for later. That of a write cannot become another reply any
    /// more should the storage fail: a part of it may have been sent by then.
    fn leave(&mut self, wrote: bool, out: &mut Output, found: Found) {
        if wrote {
            out.tie();
        }
        self.unsent = Some(Box::new(found));
    }
}
