//! What a session counts of its requests, and under which metric.

use crate::command::meta::{Act, Meta, MetaReply, Status};
use crate::command::refusal::Fault;
use crate::command::{Command, Hit, Mode, Refusal, Reply};
use crate::engine::{Answer, Turn};
use crate::key::NAMED_CLASS;
use crate::stats::{Metric, PerClass, Tally, Uses};

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
        // Counted by class: see [`count_no_memory`].
        Refusal::OutOfMemory
        | Refusal::Key(_)
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

/// Counts a command that was refused for want of memory, by the class of its first key.
pub(super) fn count_no_memory(tally: &Tally, turn: &Turn, command: &Command<'_>) {
    let key = match command {
        Command::PutMany(puts) => puts.first().map(|put| put.key),
        Command::Fetch(_)
        | Command::Put(_)
        | Command::Arith(_)
        | Command::Delete { .. }
        | Command::Touch { .. }
        | Command::FlushAll { .. }
        | Command::Meta(_) => command.key(),
    };
    let class = turn.class(key.unwrap_or_default());
    tally.add_in(class, PerClass::OutOfMemory);
}

/// Counts by the first part of keys, for `stats detail`: what memcached counts so, which are the
/// classic retrievals, storage commands and `delete`. Refused or not, a storage command counts.
pub(super) fn count_prefixes(
    tally: &Tally,
    turn: &Turn,
    command: &Command<'_>,
    reply: Option<&Reply>,
) {
    let one = Uses::default();
    match (command, reply) {
        (Command::Fetch(fetch), Some(Reply::Hits(hits))) => {
            for (key, hit) in fetch.keys.iter().zip(hits) {
                let hits = hit.is_some().into();
                add_prefix(
                    tally,
                    turn,
                    key,
                    Uses {
                        gets: 1,
                        hits,
                        ..one
                    },
                );
            }
        }
        (Command::Put(put), _) => add_prefix(tally, turn, put.key, Uses { sets: 1, ..one }),
        (Command::PutMany(puts), _) => {
            for put in puts {
                add_prefix(tally, turn, put.key, Uses { sets: 1, ..one });
            }
        }
        (Command::Delete { key }, _) => add_prefix(tally, turn, key, Uses { deletes: 1, ..one }),
        (
            Command::Fetch(_)
            | Command::Arith(_)
            | Command::Touch { .. }
            | Command::FlushAll { .. }
            | Command::Meta(_),
            _,
        ) => {}
    }
}

/// The first part of a named key is what is before its first colon, and one without has none. Of
/// a typed key it is the type.
fn add_prefix(tally: &Tally, turn: &Turn, key: &[u8], uses: Uses) {
    let end = if turn.class(key) == NAMED_CLASS {
        memchr::memchr(b':', key)
    } else {
        memchr::memchr(b'.', key)
    };
    if let Some((prefix, _)) = end.and_then(|end| key.split_at_checked(end)) {
        tally.prefixes().add(prefix, uses);
    }
}

/// Counts a command that was carried out.
pub(super) fn count(tally: &Tally, turn: &Turn, command: &Command<'_>, answer: &Answer) {
    let (missed, class) = (answer.reply == Reply::NotFound, answer.class);
    match command {
        Command::Fetch(fetch) => {
            if let Reply::Hits(hits) = &answer.reply {
                count_hits(tally, hits, fetch.touch.is_some());
                count_expired(tally, answer);
            }
        }
        Command::Put(put) => {
            tally.add_in(class, PerClass::CmdSet);
            let stored = answer.reply == Reply::Stored;
            tally.add(Metric::TotalItems, u64::from(stored));
            if matches!(put.mode, Mode::Cas(_)) {
                count_cas(tally, class, &answer.reply);
            }
        }
        Command::PutMany(puts) => {
            for put in puts {
                tally.add_in(turn.class(put.key), PerClass::CmdSet);
            }
            tally.add(Metric::TotalItems, puts.len() as u64);
        }
        Command::Arith(arith) => {
            match (arith.decr, missed) {
                (false, false) => tally.add_in(class, PerClass::IncrHits),
                (false, true) => tally.add(Metric::IncrMisses, 1),
                (true, false) => tally.add_in(class, PerClass::DecrHits),
                (true, true) => tally.add(Metric::DecrMisses, 1),
            }
            count_fan_out(tally, answer);
        }
        Command::Delete { .. } if missed => tally.add(Metric::DeleteMisses, 1),
        Command::Delete { .. } => tally.add_in(class, PerClass::DeleteHits),
        Command::Touch { .. } => {
            tally.add(Metric::CmdTouch, 1);
            if missed {
                tally.add(Metric::TouchMisses, 1);
            } else {
                tally.add_in(class, PerClass::TouchHits);
            }
        }
        Command::FlushAll { .. } => tally.add(Metric::CmdFlush, 1),
        Command::Meta(meta) => {
            if let Reply::Meta(reply) = &answer.reply {
                count_meta(tally, meta, reply, answer);
            }
        }
    }
}

fn count_hits(tally: &Tally, hits: &[Option<Hit>], touched: bool) {
    let (asked, mut found) = (hits.len() as u64, 0);
    let mut classes = hits.iter().flatten().map(|hit| hit.class).peekable();
    // Most keys of one retrieval are of one class.
    while let Some(class) = classes.next() {
        let mut run = 1;
        while classes.next_if_eq(&class).is_some() {
            run += 1;
        }
        found += run;
        tally.add_all_in(class, PerClass::GetHits, run);
        if touched {
            tally.add_all_in(class, PerClass::TouchHits, run);
        }
    }
    tally.add(Metric::CmdGet, asked);
    tally.add(Metric::GetMisses, asked - found);
    if touched {
        tally.add(Metric::CmdTouch, asked);
        tally.add(Metric::TouchMisses, asked - found);
    }
}

fn count_expired(tally: &Tally, answer: &Answer) {
    if answer.expired > 0 {
        tally.add(Metric::GetExpired, answer.expired.into());
    }
}

/// As the classic commands that do the same.
fn count_meta(tally: &Tally, meta: &Meta<'_>, reply: &MetaReply, answer: &Answer) {
    let class = answer.class;
    let hit_or_miss = |hit, miss| {
        if reply.status == Status::Done {
            tally.add_in(class, hit);
        } else {
            tally.add(miss, 1);
        }
    };
    match &meta.act {
        Act::Get(get) if get.touches() => {
            tally.add(Metric::CmdTouch, 1);
            hit_or_miss(PerClass::TouchHits, Metric::TouchMisses);
        }
        Act::Get(_) => {
            tally.add(Metric::CmdGet, 1);
            hit_or_miss(PerClass::GetHits, Metric::GetMisses);
            count_expired(tally, answer);
        }
        Act::Set(set) => {
            tally.add_in(class, PerClass::CmdSet);
            tally.add(Metric::TotalItems, u64::from(answer.wrote));
            match (set.compare, reply.status) {
                (Some(_), Status::Done) => tally.add_in(class, PerClass::CasHits),
                (Some(_), Status::Exists) => tally.add_in(class, PerClass::CasBadval),
                (Some(_), Status::NotFound) => tally.add(Metric::CasMisses, 1),
                (Some(_) | None, _) => {}
            }
        }
        Act::Delete(_) => hit_or_miss(PerClass::DeleteHits, Metric::DeleteMisses),
        Act::Arith(step) if step.decr => hit_or_miss(PerClass::DecrHits, Metric::DecrMisses),
        Act::Arith(_) => hit_or_miss(PerClass::IncrHits, Metric::IncrMisses),
        Act::Debug => tally.add(Metric::CmdMeta, 1),
    }
    count_fan_out(tally, answer);
}

fn count_fan_out(tally: &Tally, answer: &Answer) {
    if let Some(counters) = answer.fanned_out {
        tally.add(Metric::FanOuts, 1);
        tally.add(Metric::FanOutCounters, counters);
    }
}

fn count_cas(tally: &Tally, class: u32, reply: &Reply) {
    match reply {
        Reply::Exists => tally.add_in(class, PerClass::CasBadval),
        Reply::NotFound => tally.add(Metric::CasMisses, 1),
        Reply::Stored
        | Reply::NotStored
        | Reply::Deleted
        | Reply::Touched
        | Reply::Ok
        | Reply::Number(_)
        | Reply::Hits(_)
        | Reply::Meta(_) => tally.add_in(class, PerClass::CasHits),
    }
}
