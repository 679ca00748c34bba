//! Recovery: from the files to the state, and to a journal that goes on.
//!
//! Invariant: scan, decide, then edit once. Nothing on disk is changed before everything has
//! been read and taken; a refusal leaves the directory as it was, and a crash at any point
//! leaves one that recovers to the same state. [`Journal::open`] is the only caller.
//!
//! What is at the end of a segment is torn by a crash, or damaged: see [`decide`].

use std::collections::VecDeque;
use std::sync::Arc;

use super::create::NewStore;
use super::disk::{Disk, Name};
use super::found::{Found, Opened};
use super::load::{Batch, Feed, load};
use super::record::BatchHeader;
use super::repair::{edit, go_on};
use super::scan::{BatchReader, Step};
use super::segment::failed;
use super::{Journal, JournalError, Options, Recovered, TakeBatches};
use crate::clock::Tick;

/// What is known of the end of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// There are bytes that are not the next batch.
    pub(super) damaged: bool,
    /// There is an End batch, in its place or after the damage.
    pub(super) ended: bool,
    /// A batch after the damage says that the record where it begins had been synced.
    pub(super) attested: bool,
    /// What comes after this segment.
    pub(super) next: Next,
}

/// What comes after a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: it was written last.
    Nothing,
    /// A segment that begins where this one ends.
    Continues,
    /// A segment that begins elsewhere.
    Gap,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// All is well.
    Accept,
    /// A crash: what begins with the damage was never promised; put it aside and go on.
    CutTail,
    /// What was promised is damaged.
    RefuseDamage,
    /// Records are missing between this segment and the next.
    RefuseGap,
}

/// The table. A crash can only damage what was not synced, in the segment that was written last;
/// anything else is damage and is refused, because going on would lose what was promised.
pub(super) const fn decide(tail: Tail) -> Decision {
    let promised = tail.ended || tail.attested;
    match (tail.damaged, promised, tail.next) {
        (true, true, _) | (true, _, Next::Continues | Next::Gap) => Decision::RefuseDamage,
        (true, false, Next::Nothing) => Decision::CutTail,
        (false, _, Next::Gap) => Decision::RefuseGap,
        (false, _, Next::Nothing | Next::Continues) => Decision::Accept,
    }
}

/// What was read, and where it ends.
pub(super) struct Scanned {
    pub(super) next_seq: u64,
    pub(super) prev_crc: u32,
    /// Where the last whole batch of the last segment ends, or its End batch.
    pub(super) end: u64,
    /// Where the torn bytes after it end; the same if there are none.
    pub(super) torn_end: u64,
    /// From here on nothing in the file says that it lasts.
    pub(super) unsynced_from: u64,
}

pub(super) fn open(
    disk: Arc<dyn Disk>,
    options: Options,
    sink: &mut dyn TakeBatches,
) -> Result<(Journal, Recovered), JournalError> {
    let started = Tick::now();
    let mut found = Found::read(&*disk)?;
    let created = found.is_new();
    if created {
        found.remove_all(&*disk)?;
        NewStore::begin(&*disk, 1, options.now)?.finish()?;
        found = Found::read(&*disk)?;
    }
    let read = read(&found, &options, sink)?;
    let mut recovered = Recovered {
        created,
        ..read.recovered
    };
    edit(&*disk, &found, read.last, &read.end, &mut recovered)?;
    let files = (read.snapshot, read.last);
    let journal = go_on(disk, options, &found, files, &read.end, &recovered)?;
    recovered.duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok((journal, recovered))
}

/// Reads what the directory holds into `sink` and decides as a start does, and changes nothing:
/// a torn tail that a start would put aside is only counted.
pub fn verify(disk: &dyn Disk, sink: &mut dyn TakeBatches) -> Result<Recovered, JournalError> {
    let started = Tick::now();
    let found = Found::read(disk)?;
    if found.is_new() {
        let missing = "a store (a snapshot and its journal files)".to_owned();
        return Err(JournalError::Missing { missing });
    }
    let Read {
        end, mut recovered, ..
    } = read(&found, &Options::default(), sink)?;
    recovered.torn_bytes = end.torn_end - end.end;
    recovered.duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(recovered)
}

/// What was read, and from what.
struct Read<'f> {
    snapshot: &'f Opened,
    last: &'f Opened,
    end: Scanned,
    recovered: Recovered,
}

/// The reading and deciding, without any edit.
fn read<'f>(
    found: &'f Found,
    options: &Options,
    sink: &mut dyn TakeBatches,
) -> Result<Read<'f>, JournalError> {
    let (snapshot, rest) = found.choose()?;
    let total = snapshot.len + rest.iter().map(|segment| segment.len).sum::<u64>();
    for file in [snapshot].into_iter().chain(rest.iter().copied()) {
        options.files.insert(file.name, &file.file);
    }
    let read = |feed: &mut Feed<'_>| {
        feed.leave(options.leaving.as_ref());
        read_snapshot(snapshot, feed)?;
        read_segments(&rest, snapshot.header.base_seq, feed)
    };
    let (end, progress) = load((options.threads, total), sink, read)?;
    let taken = progress.taken;
    sink.complete().map_err(JournalError::Rejected)?;
    tracing::info!("{}: {} entries", snapshot.name, taken.entries);
    tracing::info!("{} segments: {} records", rest.len(), taken.records);
    let recovered = Recovered {
        entries: taken.entries,
        records: taken.records,
        bytes: progress.done_bytes,
        snapshot: snapshot.header.number,
        generation: snapshot.header.generation,
        next_seq: end.next_seq,
        newest_time: snapshot.header.time.max(options.now).max(taken.newest_time),
        ..Recovered::default()
    };
    let Some(last) = rest.last() else {
        return Err(JournalError::Missing {
            missing: Name::Segment(snapshot.header.number).to_string(),
        });
    };
    Ok(Read {
        snapshot,
        last,
        end,
        recovered,
    })
}

fn read_snapshot(snapshot: &Opened, feed: &mut Feed<'_>) -> Result<(), JournalError> {
    let mut reader = BatchReader::new(&*snapshot.file, &snapshot.header, snapshot.len);
    loop {
        let begin = reader.offset();
        match reader.step().map_err(failed("read", snapshot.name))? {
            Step::Batch(header) => {
                let batch = Batch::new(snapshot, begin, header, reader.payload().clone(), 0);
                feed.push(batch, reader.offset() - begin)?;
            }
            Step::End => return Ok(()),
            Step::Clean => {
                return Err(snapshot.damaged(begin, reader.next_seq(), "it ends early"));
            }
            Step::Damaged(what) => {
                return Err(snapshot.damaged(begin, reader.next_seq(), what));
            }
            Step::Unknown(kind) => return Err(unknown_batch(snapshot, kind)),
        }
    }
}

fn read_segments(
    segments: &[&Opened],
    from: u64,
    feed: &mut Feed<'_>,
) -> Result<Scanned, JournalError> {
    let mut scanned = None;
    let mut followers = segments.iter().skip(1);
    for segment in segments {
        scanned = Some(read_segment(
            (segment, followers.next().copied()),
            from,
            feed,
        )?);
    }
    let (Some(scanned), Some(last)) = (scanned, segments.last()) else {
        return Err(JournalError::Missing {
            missing: "every journal file".to_owned(),
        });
    };
    if scanned.next_seq < from {
        let what = "records before the snapshot are missing";
        return Err(last.damaged(scanned.end, scanned.next_seq, what));
    }
    Ok(scanned)
}

/// Reads a segment, whose records count from sequence number `from` on.
fn read_segment(
    (segment, follower): (&Opened, Option<&Opened>),
    from: u64,
    feed: &mut Feed<'_>,
) -> Result<Scanned, JournalError> {
    let read = || failed("read", segment.name);
    let mut reader = BatchReader::new(&*segment.file, &segment.header, segment.len);
    let mut unsynced = Unsynced::new(reader.offset());
    let (damage, ended) = loop {
        let begin = reader.offset();
        match reader.step().map_err(read())? {
            Step::Batch(header) => {
                unsynced.see(&header, reader.offset());
                let batch = Batch::new(segment, begin, header, reader.payload().clone(), from);
                feed.push(batch, reader.offset() - begin)?;
            }
            Step::End => {
                unsynced.from = begin;
                break (None, true);
            }
            Step::Clean => break (None, false),
            Step::Damaged(what) => break (Some(what), false),
            Step::Unknown(kind) => return Err(unknown_batch(segment, kind)),
        }
    };
    let next_seq = reader.next_seq();
    let attested = match damage {
        Some(_) => reader.attested().map_err(read())?,
        None => super::scan::Attested::default(),
    };
    let decision = decide(Tail {
        damaged: damage.is_some(),
        ended: ended || attested.ended,
        attested: attested.upto >= next_seq,
        next: match follower.map(|follower| follower.header) {
            None => Next::Nothing,
            Some(next) if next.fresh => Next::Gap,
            Some(next) if next.base_seq != next_seq => Next::Gap,
            Some(next) if next.chain != reader.prev_crc() => Next::Gap,
            Some(_) => Next::Continues,
        },
    });
    let what = damage.unwrap_or_default();
    match (decision, follower) {
        (Decision::RefuseDamage, _) => {
            return Err(segment.damaged(reader.offset(), next_seq, what));
        }
        (Decision::RefuseGap, Some(follower)) => return Err(segment.gap(follower, next_seq)),
        (Decision::RefuseGap | Decision::Accept | Decision::CutTail, _) => {}
    }
    let end = reader.offset();
    Ok(Scanned {
        next_seq,
        prev_crc: reader.prev_crc(),
        unsynced_from: unsynced.from,
        end: if ended { segment.len } else { end },
        torn_end: if ended {
            segment.len
        } else {
            reader.rest_end().map_err(read())?
        },
    })
}

fn unknown_batch(file: &Opened, kind: u32) -> JournalError {
    file.unknown(format!("a batch of kind {kind}"))
}

/// Finds where in a segment the batches begin that nothing says were synced.
struct Unsynced {
    from: u64,
    /// The last record and the end of each batch after that.
    batches: VecDeque<(u64, u64)>,
}

impl Unsynced {
    const fn new(from: u64) -> Self {
        let batches = VecDeque::new();
        Self { from, batches }
    }

    fn see(&mut self, batch: &BatchHeader, end: u64) {
        while let Some((last_seq, end)) = self.batches.front().copied()
            && last_seq <= batch.synced_upto
        {
            self.from = end;
            self.batches.pop_front();
        }
        self.batches.push_back((batch.next_seq() - 1, end));
    }
}
