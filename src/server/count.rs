//! What a session counts of its requests, and under which metric.

use crate::command::meta::{Act, Meta, MetaReply, Status};
use crate::command::refusal::Fault;
use crate::command::{Command, Mode, Refusal, Reply};
use crate::engine::Answer;
use crate::stats::{Metric, Tally};

/// Counts an error by who is at fault.
pub(super) fn count_fault(tally: &Tally, fault: Fault) {
    let metric = match fault {
        Fault::Client => Metric::ErrorsClient,
        Fault::Server => Metric::ErrorsServer,
    };
    tally.add(metric, 1);
}

/// Counts a refused command.
pub(super) fn count_refusal(tally: &Tally, refusal: &Refusal) {
    count_fault(tally, refusal.fault());
    match refusal {
        Refusal::TooLarge | Refusal::TooManyMembers { .. } => tally.add(Metric::StoreTooLarge, 1),
        Refusal::OutOfMemory => tally.add(Metric::StoreNoMemory, 1),
        Refusal::Key(_)
        | Refusal::Unreadable { .. }
        | Refusal::NotANumber { .. }
        | Refusal::Member { .. }
        | Refusal::WrongKind { .. }
        | Refusal::BadDelta
        | Refusal::DeltaOutOfRange
        | Refusal::OutOfBounds { .. }
        | Refusal::NonNumeric
        | Refusal::NoTarget
        | Refusal::TargetNotCounter(_)
        | Refusal::TargetDurable { .. }
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
pub(super) fn count(tally: &Tally, command: &Command<'_>, answer: &Answer) {
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
            let stored = answer.reply == Reply::Stored;
            tally.add(Metric::TotalItems, u64::from(stored));
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
            count_fan_out(tally, answer);
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
        Command::Meta(meta) => {
            if let Reply::Meta(reply) = &answer.reply {
                count_meta(tally, meta, reply, answer);
            }
        }
    }
}

/// As the classic commands that do the same.
fn count_meta(tally: &Tally, meta: &Meta<'_>, reply: &MetaReply, answer: &Answer) {
    let done = reply.status == Status::Done;
    let hit_or_miss = |hit, miss| tally.add(if done { hit } else { miss }, 1);
    match &meta.act {
        Act::Get(get) if get.touches() => {
            tally.add(Metric::CmdTouch, 1);
            hit_or_miss(Metric::TouchHits, Metric::TouchMisses);
        }
        Act::Get(_) => {
            tally.add(Metric::CmdGet, 1);
            hit_or_miss(Metric::GetHits, Metric::GetMisses);
        }
        Act::Set(set) => {
            tally.add(Metric::CmdSet, 1);
            tally.add(Metric::TotalItems, u64::from(answer.wrote));
            match (set.compare, reply.status) {
                (Some(_), Status::Done) => tally.add(Metric::CasHits, 1),
                (Some(_), Status::Exists) => tally.add(Metric::CasBadval, 1),
                (Some(_), Status::NotFound) => tally.add(Metric::CasMisses, 1),
                (Some(_) | None, _) => {}
            }
        }
        Act::Delete(_) => hit_or_miss(Metric::DeleteHits, Metric::DeleteMisses),
        Act::Arith(step) if step.decr => hit_or_miss(Metric::DecrHits, Metric::DecrMisses),
        Act::Arith(_) => hit_or_miss(Metric::IncrHits, Metric::IncrMisses),
        Act::Debug => {}
    }
    count_fan_out(tally, answer);
}

fn count_fan_out(tally: &Tally, answer: &Answer) {
    if let Some(counters) = answer.fanned_out {
        tally.add(Metric::FanOuts, 1);
        tally.add(Metric::FanOutCounters, counters);
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
        | Reply::Hits(_)
        | Reply::Meta(_) => Metric::CasHits,
    }
}
