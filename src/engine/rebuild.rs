//! From batches to the state, on all cores.
//!
//! A window of batches is taken in two steps: the threads decode the batches, each record into
//! the bucket of its shard; then they carry out the buckets, each shard's records in their order
//! by one thread. What concerns more shards than one (a fan-out, a flush, new types) or the disk
//! is carried out alone, after all before it and before all after it. So every entry sees the
//! same changes in the same order as it would one record after the other, and the state is the
//! same.
//!
//! Taking a shard's records together is worth it with one thread, too: its tables are in the
//! processor's cache then.
//!
//! Of several errors the first one in the order of the records counts: what is after a record
//! that fails never keeps one before it from failing.

use parking_lot::Mutex;

use crate::clock::Time;
use crate::command::Change;
use crate::journal::{Batch, JournalError, Loaded, Record, ReplayError, Taken};
use crate::key::Key;
use crate::limits::SHARDS;
use crate::store::hashing::{Hashing, shard_of};
use crate::store::locks::WriteSet;
use crate::store::shard::{Misfit, Shard, Stamp};
use crate::value::Entry;

/// A thread decodes about so many bytes at a time.
const PART_BYTES: usize = 256 << 10;
/// Fewer operations are carried out as they come: dividing them costs more.
const FEW: usize = 1024;

/// As many operations of a part are in a bucket if records are small.
const BUCKET: usize = 64;

/// Where a record is in a window: the batch, and the record's position.
type Order = (usize, u64);

/// One edit of one entry; or one of more, which is carried out alone.
struct Op<'b> {
    hash: u64,
    stamp: Stamp,
    order: Order,
    what: What<'b>,
}

enum What<'b> {
    Restore(Key<'b>, Entry),
    Apply(Change<'b>),
}

impl Op<'_> {
    fn apply(self, shard: &mut Shard) -> Result<(), Failure> {
        let (hash, stamp) = (self.hash, self.stamp);
        let applied = match self.what {
            What::Restore(key, entry) => shard.restore(hash, key, entry, stamp),
            What::Apply(change) => shard.apply(hash, change, stamp),
        };
        applied.map_err(|misfit| Failure::misfit(self.order, &misfit))
    }
}

/// A record that cannot be taken.
enum Failure {
    Refused(Order, ReplayError),
    Unread(JournalError),
}

impl Failure {
    fn misfit(order: Order, misfit: &Misfit) -> Self {
        Self::Refused(order, ReplayError(misfit.to_string()))
    }

    fn into_error(self, batches: &[Batch]) -> JournalError {
        match self {
            Self::Unread(error) => error,
            Self::Refused((batch, position), source) => match batches.get(batch) {
                Some(batch) => batch.refused(position, source),
                None => JournalError::Rejected(source),
            },
        }
    }
}

/// Edits of single entries that follow each other: in their order while there are few, then by
/// shard.
#[derive(Default)]
struct Ops<'b> {
    few: Vec<Op<'b>>,
    buckets: Vec<Vec<Op<'b>>>,
}

impl<'b> Ops<'b> {
    fn push(&mut self, op: Op<'b>) {
        if self.buckets.is_empty() && self.few.len() < FEW {
            self.few.push(op);
        } else {
            self.divide();
            self.put(op);
        }
    }

    fn put(&mut self, op: Op<'b>) {
        if let Some(bucket) = self.buckets.get_mut(shard_of(op.hash)) {
            bucket.push(op);
        }
    }

    /// Sorts by shard what is not yet.
    fn divide(&mut self) {
        if self.buckets.is_empty() {
            let bucket = || Vec::with_capacity(BUCKET);
            self.buckets.resize_with(SHARDS, bucket);
        }
        for op in std::mem::take(&mut self.few) {
            self.put(op);
        }
    }
}

/// Edits of single entries, and what comes alone after them.
#[derive(Default)]
struct Stretch<'b> {
    ops: Ops<'b>,
    alone: Option<Op<'b>>,
}

/// Some batches of a window, and what they say.
struct Part<'b> {
    first: usize,
    batches: &'b [Batch],
    stretches: Vec<Stretch<'b>>,
    taken: Taken,
    failure: Option<Failure>,
}

impl Part<'_> {
    fn decode(&mut self, hashing: &Hashing) {
        let mut stretch = Stretch::default();
        for (number, batch) in (self.first..).zip(self.batches) {
            let read = batch.for_each(|loaded| {
                self.taken.count(batch, &loaded);
                let Loaded {
                    position,
                    seq,
                    time,
                    record,
                } = loaded;
                let mut place = Place {
                    stretch: &mut stretch,
                    done: &mut self.stretches,
                    hashing,
                    stamp: Stamp { seq, time },
                    order: (number, position),
                    batch,
                };
                match record {
                    Record::Entry(key, entry) => place.entry(key, entry),
                    Record::Change(change) => place.change(change),
                }
                Ok(())
            });
            if let Err(error) = read {
                self.failure = Some(Failure::Unread(error));
                break;
            }
        }
        self.stretches.push(stretch);
    }
}

/// Puts what one record says in its place.
struct Place<'p, 'b> {
    stretch: &'p mut Stretch<'b>,
    done: &'p mut Vec<Stretch<'b>>,
    hashing: &'p Hashing,
    stamp: Stamp,
    order: Order,
    batch: &'b Batch,
}

impl<'b> Place<'_, 'b> {
    fn op(&self, hash: u64, what: What<'b>) -> Op<'b> {
        Op {
            hash,
            stamp: self.stamp,
            order: self.order,
            what,
        }
    }

    fn entry(&mut self, key: Key<'b>, entry: Entry) {
        let hash = self.hashing.key(key);
        self.stamp = Stamp {
            seq: 0,
            time: Time(0),
        };
        let op = self.op(hash, What::Restore(key, entry));
        self.stretch.ops.push(op);
    }

    /// True for bytes that are added to a value that may not be in memory.
    fn needs_disk(&self, change: &Change<'_>) -> bool {
        match change {
            Change::Extend {
                key: Key::Typed(key),
                ..
            } => self.batch.leaves_values_of(key.prefix),
            _ => false,
        }
    }

    fn change(&mut self, change: Change<'b>) {
        if let Some(key) = change.key()
            && !self.needs_disk(&change)
        {
            let op = self.op(self.hashing.key(key), What::Apply(change));
            self.stretch.ops.push(op);
        } else if let Change::Batch(changes) = change {
            for change in changes {
                self.change(change);
            }
        } else {
            self.stretch.alone = Some(self.op(0, What::Apply(change)));
            self.done.push(std::mem::take(self.stretch));
        }
    }
}

/// What it takes to carry out a record alone.
type Before<'a> = dyn FnMut(&mut WriteSet<'_>, &Change<'_>, Time) -> Result<(), ReplayError> + 'a;

/// What is done around each record that is carried out alone.
pub(super) struct Around<'a> {
    /// Before it.
    pub(super) before: &'a mut Before<'a>,
    /// After it, because it may have taken long: an error ends the start.
    pub(super) after: &'a mut dyn FnMut() -> Result<(), JournalError>,
}

/// Takes a window.
pub(super) fn take(
    (shards, hashing): (&mut WriteSet<'_>, &Hashing),
    threads: usize,
    batches: &[Batch],
    around: &mut Around<'_>,
) -> Result<Taken, JournalError> {
    let mut parts = divide(batches);
    on_threads(threads, parts.iter_mut().collect(), |part| {
        part.decode(hashing);
    });
    let mut taken = Taken::default();
    let mut waiting = Vec::new();
    let failed = |failure: Failure| failure.into_error(batches);
    for part in parts {
        taken += part.taken;
        for Stretch { ops, alone } in part.stretches {
            waiting.push(ops);
            if let Some(Op {
                stamp,
                order,
                what: What::Apply(change),
                ..
            }) = alone
            {
                carry_out(shards, threads, std::mem::take(&mut waiting)).map_err(failed)?;
                (around.before)(shards, &change, stamp.time)
                    .map_err(|error| failed(Failure::Refused(order, error)))?;
                let applied = shards.replay(change, stamp);
                applied.map_err(|misfit| failed(Failure::misfit(order, &misfit)))?;
                (around.after)()?;
            }
        }
        if let Some(failure) = part.failure {
            carry_out(shards, threads, waiting).map_err(failed)?;
            return Err(failed(failure));
        }
    }
    carry_out(shards, threads, waiting).map_err(failed)?;
    Ok(taken)
}

/// The parts that are decoded at a time.
fn divide(batches: &[Batch]) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let (mut first, mut bytes) = (0, 0);
    for (number, batch) in batches.iter().enumerate() {
        bytes += batch.bytes();
        if bytes >= PART_BYTES || number + 1 == batches.len() {
            parts.push(Part {
                first,
                batches: batches.get(first..=number).unwrap_or_default(),
                stretches: Vec::new(),
                taken: Taken::default(),
                failure: None,
            });
            (first, bytes) = (number + 1, 0);
        }
    }
    parts
}

fn carry_out<'b>(
    shards: &mut WriteSet<'_>,
    threads: usize,
    mut all: Vec<Ops<'b>>,
) -> Result<(), Failure> {
    let few: usize = all.iter().map(|ops| ops.few.len()).sum();
    if few < FEW && all.iter().all(|ops| ops.buckets.is_empty()) {
        for op in all.into_iter().flat_map(|ops| ops.few) {
            match shards.shard_mut(op.hash, op.stamp) {
                Ok(shard) => op.apply(shard)?,
                Err(misfit) => return Err(Failure::misfit(op.order, &misfit)),
            }
        }
        return Ok(());
    }
    for ops in &mut all {
        ops.divide();
    }
    let jobs = shards.shards_mut().enumerate().map(|(at, shard)| {
        let buckets = all.iter_mut().filter_map(|ops| ops.buckets.get_mut(at));
        let buckets: Vec<_> = buckets.map(std::mem::take).collect();
        (shard, buckets)
    });
    let first = Mutex::new(None);
    on_threads(
        threads,
        jobs.collect(),
        |(shard, buckets): (&mut Shard, Vec<Vec<Op<'b>>>)| {
            let applied = buckets
                .into_iter()
                .flatten()
                .try_for_each(|op| op.apply(shard));
            if let Err(failure) = applied {
                note(&mut first.lock(), failure);
            }
        },
    );
    first.into_inner().map_or(Ok(()), Err)
}

/// Keeps the failure that comes first in the order of the records.
fn note(first: &mut Option<Failure>, failure: Failure) {
    let order = |failure: &Failure| match failure {
        Failure::Refused(order, _) => Some(*order),
        Failure::Unread(_) => None,
    };
    if first
        .as_ref()
        .is_none_or(|first| order(&failure) < order(first))
    {
        *first = Some(failure);
    }
}

/// Does each job once, on this thread and others.
fn on_threads<J: Send>(threads: usize, jobs: Vec<J>, work: impl Fn(J) + Sync) {
    let helpers = threads.min(jobs.len()).saturating_sub(1);
    let jobs = Mutex::new(jobs.into_iter());
    let next = || jobs.lock().next();
    let run = || {
        while let Some(job) = next() {
            work(job);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..helpers {
            let builder = std::thread::Builder::new().name("start".into());
            // Without it the others do all.
            if let Err(error) = builder.spawn_scoped(scope, run) {
                tracing::warn!("cannot start a thread: {error}");
            }
        }
        run();
    });
}
