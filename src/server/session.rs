//! One client's conversation without its socket: arrived bytes in, replies out. Everything that
//! has arrived is executed before anything is sent.

use super::budget::Budget;
use super::output::Output;
use super::report;
use super::shared::Shared;
use crate::command::refusal::Fault;
use crate::command::{Command, Hit, Mode, Refusal, Reply};
use crate::engine::{Answer, Turn};
use crate::limits::OUTPUT_BYTES_HIGH;
use crate::protocol::memcached::encode;
use crate::protocol::memcached::error::Complaint;
use crate::protocol::memcached::parse::{Parser, Step};
use crate::protocol::memcached::{Action, Admin, Request};
use crate::stats::{Metric, Tally};

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address, for logs and `stats conns`.
    pub name: String,
    /// A loopback address or a unix socket.
    pub local: bool,
}

/// A conversation.
#[derive(Debug)]
pub struct Session {
    parser: Parser,
    peer: Peer,
    /// What a retrieval found and there was no room for yet.
    unsent: Option<Found>,
}

/// The rest of a retrieval's reply: keys as sent, and their entries. Values are shared, so it
/// takes little however large they are.
#[derive(Debug)]
struct Found {
    hits: std::vec::IntoIter<(Box<[u8]>, Hit)>,
    with_cas: bool,
}

/// What the connection does after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Everything that has arrived is done: read on.
    Read,
    /// There are too many unsent replies, or the others have waited for long enough: send, then
    /// go on with the rest of the input.
    Later,
    /// Send the replies and close.
    Close,
    /// As HUP; answer, then go on with the rest of the input.
    Reopen,
    /// Write a snapshot; answer, then go on with the rest of the input.
    Snapshot,
    /// As TERM; answer.
    Terminate,
}

impl Session {
    /// A conversation that begins.
    pub fn new(peer: Peer) -> Self {
        Self {
            parser: Parser::default(),
            peer,
            unsent: None,
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
        let (mut at, mut budget) = (0, Budget::default());
        loop {
            self.send_found(out);
            if out.is_full() || budget.is_spent(turn.tick) {
                tally.add(Metric::ConnYields, 1);
                return (at, Flow::Later);
            }
            let rest = input.get(at..).unwrap_or_default();
            let (taken, step) = self.parser.next(rest, turn.settings().value_bytes_max);
            let line = rest.get(self.parser.passed_over()..).unwrap_or_default();
            at += taken;
            let flow = match step {
                Step::Incomplete => return (at, Flow::Read),
                Step::Request(request) => {
                    shared.print_command(line);
                    tally.add(Metric::Requests, 1);
                    let before = tally.get(Metric::FanOutCounters);
                    let flow = self.request(shared, turn, tally, &request, out);
                    let changed = tally.get(Metric::FanOutCounters) - before;
                    budget.spend(Some(&request), taken, changed);
                    flow
                }
                Step::Complaint { complaint, noreply } => {
                    shared.print_command(line);
                    tally.add(Metric::Requests, 1);
                    budget.spend(None, taken, 0);
                    self.complain(shared, tally, complaint, noreply, out)
                }
            };
            if flow != Flow::Read {
                return (at, flow);
            }
        }
    }

    /// Writes what an earlier retrieval found, as far as there is room.
    fn send_found(&mut self, out: &mut Output) {
        let Some(found) = &mut self.unsent else {
            return;
        };
        while !out.is_full() {
            let Some((key, hit)) = found.hits.next() else {
                encode::end(out.bytes());
                self.unsent = None;
                return;
            };
            encode::hit(&key, &hit, found.with_cas, out.bytes());
        }
    }

    /// Writes a retrieval's reply; what there is no room for waits until the client has read.
    fn show(&mut self, answer: Answer, keys: &[&[u8]], with_cas: bool, out: &mut Output) {
        let Reply::Hits(hits) = answer.reply else {
            return;
        };
        let found = keys
            .iter()
            .zip(hits)
            .filter_map(|(key, hit)| Some((*key, hit?)));
        let mut found = found.peekable();
        out.reply(answer.seq, answer.wrote, |bytes| {
            while bytes.len() < OUTPUT_BYTES_HIGH
                && let Some((key, hit)) = found.next()
            {
                encode::hit(key, &hit, with_cas, bytes);
            }
            if found.peek().is_none() {
                encode::end(bytes);
            }
        });
        if found.peek().is_some() {
            if answer.wrote {
                out.tie();
            }
            let hits: Vec<_> = found.map(|(key, hit)| (key.into(), hit)).collect();
            self.unsent = Some(Found {
                hits: hits.into_iter(),
                with_cas,
            });
        }
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
            Action::Data(command) => match shared.engine().execute(turn, command) {
                Ok(answer) => {
                    count(tally, command, &answer);
                    if let Command::Fetch(fetch) = command {
                        self.show(answer, &fetch.keys, request.with_cas, out);
                    } else {
                        out.reply(answer.seq, answer.wrote, |bytes| {
                            if !request.noreply {
                                encode::reply(&answer.reply, bytes);
                            }
                        });
                    }
                    Flow::Read
                }
                Err(refusal) => self.refuse(shared, tally, &refusal, request.noreply, out),
            },
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

    fn admin(
        &self,
        shared: &Shared,
        tally: &Tally,
        admin: Admin<'_>,
        noreply: bool,
        out: &mut Output,
    ) -> Flow {
        let bytes = out.bytes();
        match admin {
            Admin::Stats(topic) => {
                if !report::stats(shared, topic, bytes) {
                    return self.complain(shared, tally, Complaint::Unknown, noreply, out);
                }
            }
            Admin::ShowTypes => {
                for row in shared.engine().store().types().rows() {
                    let (prefix, kind) = (row.prefix, row.kind.name());
                    encode::write_line(format_args!("{prefix} {kind}"), bytes);
                }
                encode::end(bytes);
            }
            Admin::Version => {
                encode::write_line(format_args!("VERSION {}", env!("CARGO_PKG_VERSION")), bytes);
            }
            Admin::Verbosity if noreply => {}
            Admin::Verbosity => bytes.extend_from_slice(b"OK\r\n"),
            Admin::Quit => return Flow::Close,
            Admin::Reopen => return Flow::Reopen,
            Admin::Snapshot => return Flow::Snapshot,
            Admin::Terminate => {
                if let Some(refusal) = shared.forbids_term(&self.peer) {
                    return self.refuse(shared, tally, &refusal, noreply, out);
                }
                return Flow::Terminate;
            }
        }
        Flow::Read
    }
}

fn count_fault(tally: &Tally, fault: Fault) {
    let metric = match fault {
        Fault::Client => Metric::ErrorsClient,
        Fault::Server => Metric::ErrorsServer,
    };
    tally.add(metric, 1);
}

fn count_refusal(tally: &Tally, refusal: &Refusal) {
    count_fault(tally, refusal.fault());
    match refusal {
        Refusal::TooLarge | Refusal::TooManyMembers { .. } => tally.add(Metric::StoreTooLarge, 1),
        Refusal::OutOfMemory => tally.add(Metric::StoreNoMemory, 1),
        Refusal::Key(_)
        | Refusal::NotANumber { .. }
        | Refusal::Member { .. }
        | Refusal::WrongKind { .. }
        | Refusal::BadDelta
        | Refusal::DeltaOutOfRange
        | Refusal::NonNumeric
        | Refusal::NoTarget
        | Refusal::TargetNotCounter(_)
        | Refusal::DiskFull
        | Refusal::StorageFailed
        | Refusal::StorageStalled
        | Refusal::StorageClosed
        | Refusal::FlushAllOff
        | Refusal::TermOff
        | Refusal::TermFromAfar
        | Refusal::Internal(_) => {}
    }
}

/// Counts a command that was carried out.
fn count(tally: &Tally, command: &Command<'_>, answer: &Answer) {
    let missed = answer.reply == Reply::NotFound;
    match command {
        Command::Fetch(fetch) => {
            let Reply::Hits(hits) = &answer.reply else {
                return;
            };
            let found = hits.iter().flatten().count() as u64;
            let asked = hits.len() as u64;
            tally.add(Metric::CmdGet, asked);
            tally.add(Metric::GetHits, found);
            tally.add(Metric::GetMisses, asked - found);
            if fetch.touch.is_some() {
                tally.add(Metric::CmdTouch, asked);
                tally.add(Metric::TouchHits, found);
                tally.add(Metric::TouchMisses, asked - found);
            }
        }
        Command::Put(put) => {
            tally.add(Metric::CmdSet, 1);
            tally.add(Metric::TotalItems, u64::from(answer.wrote));
            if matches!(put.mode, Mode::Cas(_)) {
                tally.add(cas_metric(&answer.reply), 1);
            }
        }
        Command::PutMany(puts) => {
            tally.add(Metric::CmdSet, puts.len() as u64);
            tally.add(Metric::TotalItems, puts.len() as u64);
        }
        Command::Arith(arith) => {
            let metric = match (arith.decr, missed) {
                (false, false) => Metric::IncrHits,
                (false, true) => Metric::IncrMisses,
                (true, false) => Metric::DecrHits,
                (true, true) => Metric::DecrMisses,
            };
            tally.add(metric, 1);
            if let Some(counters) = answer.fanned_out {
                tally.add(Metric::FanOuts, 1);
                tally.add(Metric::FanOutCounters, counters);
            }
        }
        Command::Delete { .. } => {
            tally.add(
                if missed {
                    Metric::DeleteMisses
                } else {
                    Metric::DeleteHits
                },
                1,
            );
        }
        Command::Touch { .. } => {
            tally.add(Metric::CmdTouch, 1);
            tally.add(
                if missed {
                    Metric::TouchMisses
                } else {
                    Metric::TouchHits
                },
                1,
            );
        }
        Command::FlushAll { .. } => tally.add(Metric::CmdFlush, 1),
    }
}

fn cas_metric(reply: &Reply) -> Metric {
    match reply {
        Reply::Exists => Metric::CasBadval,
        Reply::NotFound => Metric::CasMisses,
        Reply::Stored
        | Reply::NotStored
        | Reply::Deleted
        | Reply::Touched
        | Reply::Ok
        | Reply::Number(_)
        | Reply::Hits(_) => Metric::CasHits,
    }
}
