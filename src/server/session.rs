//! One client's conversation without its socket: arrived bytes in, replies out. Everything that
//! has arrived is executed before anything is sent. Where a value has to be read from a file the
//! conversation stops, and goes on when it has been read: replies stay in order.

mod admin;
mod found;
mod login;

use super::budget::Budget;
use super::buffers::Rest;
use super::count::{count, count_fault, count_no_memory, count_prefixes, count_refusal};
use super::dump::{Dumping, Progress};
use super::entrance::Entrance;
pub use super::flow::Flow;
use super::output::Output;
use super::shared::{Peer, Shared};
use crate::command::refusal::Fault;
use crate::command::{Command, Refusal};
use crate::engine::{Answer, Cold, Halt, Turn};
use crate::protocol::memcached::batch::{Batch, Parsed};
use crate::protocol::memcached::encode;
use crate::protocol::memcached::error::Complaint;
use crate::protocol::memcached::parse::{Parser, Step};
use crate::protocol::memcached::{Action, Form, Request};
use crate::stats::{Metric, Tally};
use crate::value::Blob;
use found::Found;

/// A conversation. Every idle client has one, so what a conversation has only at times is boxed.
#[derive(Debug)]
pub struct Session {
    parser: Parser,
    peer: Peer,
    /// The client has not said who it is yet.
    entrance: Option<Box<Entrance>>,
    /// What a request found and there was no room for yet.
    unsent: Option<Box<Found>>,
    /// A dump that goes on.
    dumping: Option<Box<Dumping>>,
    /// The value without which the next request cannot be carried out.
    needed: Option<Box<Cold>>,
    /// The answer that shows that value; without one it is put back into memory.
    shown: Option<Box<Answer>>,
    /// Why that value could not be read: the reply to the request.
    unreadable: Option<Box<Refusal>>,
    /// The next request has been counted.
    again: bool,
    /// What the next request may find takes so many bytes, for which there was no room.
    room_needed: u32,
}

impl Session {
    /// A conversation that begins; with a login if it must.
    pub fn new(peer: Peer, must_log_in: bool) -> Self {
        Self {
            parser: Parser::default(),
            peer,
            entrance: must_log_in.then(Box::default),
            unsent: None,
            dumping: None,
            needed: None,
            shown: None,
            unreadable: None,
            again: false,
            room_needed: 0,
        }
    }

    /// What is between the client and the store; `None` once everything may be asked.
    pub fn entrance(&mut self) -> Option<&mut Entrance> {
        self.entrance.as_deref_mut()
    }

    /// How many bytes the request that is arriving takes at the least; 0 if that is unknown.
    pub fn needed(&self) -> usize {
        self.parser.needed()
    }

    /// What it has found and not written yet.
    pub fn rest(&self) -> Rest {
        self.unsent.as_deref().map(Found::rest).unwrap_or_default()
    }

    /// How much room the retrieval that waits for it needs.
    pub fn room_needed(&self) -> usize {
        self.room_needed as usize
    }

    /// The values to be read next: not more than a reply has room for.
    pub fn cold(&mut self) -> Vec<Cold> {
        if let Some(needed) = &self.needed {
            return vec![Cold::clone(needed)];
        }
        let found = self.unsent.as_deref_mut();
        found.map(Found::cold).unwrap_or_default()
    }

    /// Takes the values that [`Self::cold`] asked for.
    pub fn thaw(&mut self, shared: &Shared, tally: &Tally, read: Vec<Result<Blob, Refusal>>) {
        let errors = read.iter().filter(|read| read.is_err()).count();
        tally.add(Metric::ColdReads, read.len() as u64);
        tally.add(Metric::ColdReadErrors, errors as u64);
        match (self.needed.take(), &mut self.unsent) {
            (Some(needed), _) => match (read.into_iter().next(), &mut self.shown) {
                (Some(Ok(blob)), Some(answer)) => answer.complete(blob),
                (Some(Ok(blob)), None) => shared.engine().warm(&needed, blob),
                (Some(Err(refusal)), _) => {
                    self.shown = None;
                    self.unreadable = Some(Box::new(refusal));
                }
                (None, _) => {}
            },
            (None, Some(found)) => found.thaw(read),
            (None, None) => {}
        }
    }

    /// Executes the requests in `input` one after the other: how many bytes they took, and how
    /// it goes on.
    pub fn advance(
        &mut self,
        shared: &Shared,
        turn: &mut Turn,
        tally: &Tally,
        input: &[u8],
        out: &mut Output,
    ) -> (usize, Flow) {
        if self.entrance.is_some() {
            return self.knock(shared, tally, input, out);
        }
        let mut batch = Batch::default();
        let advanced = self.advance_batches(shared, turn, tally, (input, &mut batch), out);
        if batch.is_left() {
            self.parser = Parser::default();
        }
        advanced
    }

    /// Executes the requests in `input`, which are read into `batch` some at a time.
    fn advance_batches<'a>(
        &mut self,
        shared: &Shared,
        turn: &mut Turn,
        tally: &Tally,
        (input, batch): (&'a [u8], &mut Batch<'a>),
        out: &mut Output,
    ) -> (usize, Flow) {
        let (mut at, mut budget) = (0, Budget::default());
        loop {
            if self.send_found(shared, tally, out) {
                return (at, Flow::Cold);
            }
            if out.is_full() || budget.is_spent(turn.tick) {
                tally.add(Metric::ConnYields, 1);
                return (at, Flow::Later);
            }
            if let Some(dumping) = &mut self.dumping {
                budget.spend_piece();
                if dumping.go_on(shared, out) == Progress::Done {
                    self.dumping = None;
                }
                continue;
            }
            if !batch.is_left() {
                if at == input.len() {
                    return (at, Flow::Read);
                }
                let rest = input.get(at..).unwrap_or_default();
                batch.read(&mut self.parser, rest, turn.settings().value_bytes_max);
                shared.engine().look_ahead(turn, batch.keys());
            }
            let Some(parsed) = batch.take() else {
                return (at, Flow::Read);
            };
            let begin = at + parsed.passed_over;
            let line = input.get(begin..).unwrap_or_default();
            at += parsed.taken;
            match self.take_step(shared, turn, tally, (parsed, line, &mut budget), out) {
                Some(Flow::Read) => {}
                None => return (at, Flow::Read),
                Some(flow @ (Flow::Cold | Flow::Crowded)) => {
                    // The request comes again once its value has been read, or there is room.
                    self.again = true;
                    return (begin, flow);
                }
                Some(flow) => return (at, flow),
            }
        }
    }

    /// Executes one request, or complains; `None` if not all of it has arrived.
    fn take_step(
        &mut self,
        shared: &Shared,
        turn: &mut Turn,
        tally: &Tally,
        (parsed, line, budget): (&Parsed<'_>, &[u8], &mut Budget),
        out: &mut Output,
    ) -> Option<Flow> {
        Some(match &parsed.step {
            Step::Incomplete => return None,
            Step::Request(request) => {
                if !std::mem::take(&mut self.again) {
                    shared.print_command(line);
                    tally.add(Metric::Requests, 1);
                }
                let before = tally.get(Metric::FanOutCounters);
                let flow = self.request(shared, turn, tally, request, out);
                let changed = tally.get(Metric::FanOutCounters) - before;
                budget.spend(Some(request), parsed.taken, changed);
                flow
            }
            Step::Complaint { complaint, noreply } => {
                // By a new limit, what waited for its value may be no request any more.
                (self.again, self.shown, self.unreadable) = (false, None, None);
                shared.print_command(line);
                tally.add(Metric::Requests, 1);
                budget.spend(None, parsed.taken, 0);
                self.complain(shared, tally, *complaint, *noreply, out)
            }
        })
    }

    fn request(
        &mut self,
        shared: &Shared,
        turn: &mut Turn,
        tally: &Tally,
        request: &Request<'_>,
        out: &mut Output,
    ) -> Flow {
        match &request.action {
            Action::Admin(admin) => self.admin(shared, tally, *admin, request.noreply, out),
            Action::Data(Command::FlushAll { .. }) if !shared.config().allow_flush_all => {
                self.refuse(shared, tally, &Refusal::FlushAllOff, request.noreply, out)
            }
            Action::Data(_) if let Some(refusal) = self.unreadable.take() => {
                self.refuse(shared, tally, &refusal, request.noreply, out)
            }
            Action::Data(Command::Fetch(fetch)) if self.is_crowded_out(shared, &fetch.keys) => {
                Flow::Crowded
            }
            Action::Data(command) => match self.execute(shared, turn, command) {
                Ok(answer) => {
                    count(tally, turn, command, &answer);
                    if shared.has_detail() {
                        count_prefixes(tally, turn, command, Some(&answer.reply));
                    }
                    match (command, &request.form) {
                        (Command::Fetch(fetch), form) => {
                            self.show(answer, &fetch.keys, *form == Form::WithCas, out);
                            Flow::Read
                        }
                        (Command::Meta(meta), Form::Meta(echo)) => {
                            self.show_meta(shared, tally, (meta, echo), answer, out)
                        }
                        _ => {
                            out.reply(answer.seq, answer.wrote, |bytes| {
                                if !request.noreply {
                                    encode::reply(&answer.reply, bytes);
                                }
                            });
                            Flow::Read
                        }
                    }
                }
                Err(Halt::Refused(refusal)) => {
                    if refusal == Refusal::OutOfMemory {
                        count_no_memory(tally, turn, command);
                    }
                    if shared.has_detail() {
                        count_prefixes(tally, turn, command, None);
                    }
                    self.refuse(shared, tally, &refusal, request.noreply, out)
                }
                Err(Halt::Cold(cold)) => {
                    self.needed = Some(cold);
                    Flow::Cold
                }
            },
        }
    }

    /// True if a retrieval of so many keys must wait until others have read their replies.
    fn is_crowded_out(&mut self, shared: &Shared, keys: &[&[u8]]) -> bool {
        let needed = found::held_bytes(keys);
        self.room_needed = u32::try_from(needed).unwrap_or(u32::MAX);
        !shared.buffers().has_room(needed)
    }

    /// Carries a command out; a meta command that looks waits for the value that it shows.
    fn execute(
        &mut self,
        shared: &Shared,
        turn: &mut Turn,
        command: &Command<'_>,
    ) -> Result<Answer, Halt> {
        let answer = match self.shown.take() {
            Some(answer) => *answer,
            None => shared.engine().execute(turn, command)?,
        };
        match (command, answer.cold.first().cloned()) {
            (Command::Meta(_), Some(cold)) => {
                self.shown = Some(Box::new(answer));
                Err(Halt::Cold(Box::new(cold)))
            }
            _ => Ok(answer),
        }
    }

    fn refuse(
        &self,
        shared: &Shared,
        tally: &Tally,
        refusal: &Refusal,
        noreply: bool,
        out: &mut Output,
    ) -> Flow {
        count_refusal(tally, refusal);
        if refusal.is_storage() {
            shared.log_storage(refusal);
        } else {
            shared.log_refused(&self.peer, noreply, refusal.cause());
        }
        if !noreply {
            // A refusal shows the state, too: as a read it waits for what it may have seen.
            let seen = shared.engine().journal().appended();
            out.reply(seen, false, |bytes| encode::refusal(refusal, bytes));
            return Flow::Read;
        }
        tally.add(Metric::NoreplyErrors, 1);
        // Whoever asked for no reply believes that the write is safe: silence would be a lie.
        if refusal.is_storage() {
            Flow::Close
        } else {
            Flow::Read
        }
    }

    fn complain(
        &self,
        shared: &Shared,
        tally: &Tally,
        complaint: Complaint,
        noreply: bool,
        out: &mut Output,
    ) -> Flow {
        match complaint {
            Complaint::Unknown => tally.add(Metric::ErrorsUnknown, 1),
            Complaint::TooLarge => count_refusal(tally, &Refusal::TooLarge),
            Complaint::Foreign(_) => tally.add(Metric::ErrorsForeign, 1),
            Complaint::Malformed(_)
            | Complaint::KeyTooLong
            | Complaint::BadChunk
            | Complaint::BadLength
            | Complaint::LineTooLong(_) => count_fault(tally, Fault::Client),
        }
        shared.log_refused(&self.peer, noreply, complaint.cause());
        if noreply {
            tally.add(Metric::NoreplyErrors, 1);
        } else {
            encode::complaint(complaint, out.bytes());
        }
        if complaint.closes() {
            Flow::Close
        } else {
            Flow::Read
        }
    }
}
