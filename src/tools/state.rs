//! A state made of records that may not all be there: each is applied as a start applies it, and
//! one that does not fit is left out and counted, whole.

use std::sync::Arc;

use crate::clock::Time;
use crate::command::change::Change;
use crate::journal::disk::Name;
use crate::journal::inspect::Sink;
use crate::key::{Key, TypedKey};
use crate::store::Store;
use crate::store::locks::{ShardSet, WriteSet};
use crate::store::shard::Stamp;
use crate::types::TypeTable;
use crate::value::Entry;

use super::plan::Plan;
use super::progress::Progress;
use super::survey::Survey;

/// Of the records that do not fit so many are told one by one.
const TOLD_MAX: usize = 20;

/// What applying a plan gave.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Entries of the snapshot.
    pub(super) entries: u64,
    /// Records after it.
    pub(super) records: u64,
    /// Entries and records that did not fit.
    pub(super) misfits: u64,
    /// The first of them.
    pub(super) told: Vec<String>,
    /// The moment that the state is of.
    pub(super) time: Time,
}

struct Lenient<'s, 'p> {
    shards: WriteSet<'s>,
    plan: &'p Plan,
    outcome: Outcome,
    progress: &'p mut Progress,
}

impl Sink for Lenient<'_, '_> {
    fn entry(&mut self, key: Key<'_>, entry: Entry) {
        match self.shards.restore(key, entry, START) {
            Ok(()) => self.outcome.entries += 1,
            Err(misfit) => self.misfit(misfit.to_string()),
        }
    }

    fn change(&mut self, seq: u64, time: Time, change: Change<'_>) {
        let in_snapshot = seq == 0;
        if !in_snapshot && (seq < self.plan.from || self.plan.upto.is_some_and(|upto| seq >= upto))
        {
            return;
        }
        self.outcome.time = self.outcome.time.max(time);
        let stamp = Stamp { seq, time };
        // A batch can fit in part, and so can a fan-out.
        let (fits, before) = match &change {
            Change::Batch(changes) => (Ok(()), self.images(changes)),
            Change::FanOut {
                index,
                target,
                delta,
            } => {
                let fits = self.shards.check_fan_out((*index, *target), *delta, stamp);
                (fits, Vec::new())
            }
            _ => (Ok(()), Vec::new()),
        };
        match fits.and_then(|()| self.shards.replay(change, stamp)) {
            Ok(()) => self.outcome.records += u64::from(!in_snapshot),
            Err(misfit) => {
                self.put_back(before);
                self.misfit(misfit.to_string());
            }
        }
    }

    fn progress(&mut self, bytes: u64) {
        self.progress.advance(bytes);
    }
}

const START: Stamp = Stamp {
    seq: 0,
    time: Time(0),
};

/// A key, and the entry that it had.
struct Image {
    key: OwnKey,
    entry: Option<Entry>,
}

enum OwnKey {
    Typed(TypedKey),
    Named(Vec<u8>),
}

impl OwnKey {
    fn of(key: Key<'_>) -> Self {
        match key {
            Key::Typed(typed) => Self::Typed(typed),
            Key::Named(name) => Self::Named(name.to_vec()),
        }
    }

    fn key(&self) -> Key<'_> {
        match self {
            Self::Typed(typed) => Key::Typed(*typed),
            Self::Named(name) => Key::Named(name),
        }
    }
}

impl Lenient<'_, '_> {
    fn misfit(&mut self, what: String) {
        self.outcome.misfits += 1;
        if self.outcome.told.len() < TOLD_MAX {
            self.outcome.told.push(what);
        }
    }

    /// The entries that a batch changes, as they are before it.
    fn images(&self, changes: &[Change<'_>]) -> Vec<Image> {
        let keys = changes.iter().filter_map(|change| match change {
            Change::Put { key, .. }
            | Change::Remove { key }
            | Change::Expire { key, .. }
            | Change::Number { key, .. }
            | Change::Mark { key, .. }
            | Change::Unique { key, .. }
            | Change::Extend { key, .. } => Some(*key),
            Change::Members { key, .. } => Some(Key::Typed(*key)),
            Change::FanOut { .. } | Change::Flush { .. } | Change::Types(_) | Change::Batch(_) => {
                None
            }
        });
        keys.map(|key| Image {
            key: OwnKey::of(key),
            entry: self.shards.view(key, Time(0)).map(|view| view.to_entry()),
        })
        .collect()
    }

    fn put_back(&mut self, images: Vec<Image>) {
        for image in images.into_iter().rev() {
            let key = image.key.key();
            // What was there before fits, and what was not there is not missed.
            let _ = match image.entry {
                Some(entry) => self.shards.restore(key, entry, START),
                None => self.shards.apply(Change::Remove { key }, START),
            };
        }
    }
}

/// Makes the state of a plan. `types` are those to begin with, should the files not tell.
pub(super) fn make(
    survey: &Survey,
    plan: &Plan,
    types: Option<&TypeTable>,
    quiet: bool,
) -> (Store, Outcome) {
    let store = Store::default();
    let used = || {
        survey
            .files()
            .filter(|(item, scan)| scan.is_some_and(|scan| plan.uses(item, scan)))
    };
    let total = used().map(|(item, _)| item.len).sum();
    let mut progress = Progress::bytes("reading what can be read", total, quiet);
    let mut lenient = Lenient {
        shards: store.write_set(ShardSet::ALL),
        plan,
        outcome: Outcome::default(),
        progress: &mut progress,
    };
    if let Some(types) = types {
        let types = Change::Types(Arc::new(types.clone()));
        // A table fits an empty state.
        let _ = lenient.shards.apply(types, START);
    }
    for (item, _) in used() {
        item.scan(survey.catalog.log_id, &mut lenient);
        if let (Name::Snapshot(_), Ok(header)) = (item.name, &item.header) {
            lenient.outcome.time = lenient.outcome.time.max(header.time);
        }
    }
    let outcome = std::mem::take(&mut lenient.outcome);
    drop(lenient);
    (store, outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Expiry;
    use crate::types::{Kind, Overflow, TypeDef};
    use crate::value::{Blob, Delta, Member, Value};

    fn put<'a>(name: &'a [u8], value: &[u8]) -> Change<'a> {
        Change::Put {
            key: Key::Named(name),
            value: Value::Data(Blob::named(name, value)),
            flags: 0,
            expires: Expiry::NEVER,
        }
    }

    /// Calls `test` with an empty state.
    fn with_lenient(test: impl FnOnce(Lenient<'_, '_>)) {
        let store = Store::default();
        let plan = Plan::default();
        let mut progress = Progress::bytes("testing", 0, true);
        test(Lenient {
            shards: store.write_set(ShardSet::ALL),
            plan: &plan,
            outcome: Outcome::default(),
            progress: &mut progress,
        });
    }

    fn types(rows: Vec<TypeDef>) -> Change<'static> {
        Change::Types(Arc::new(TypeTable::new(rows).unwrap()))
    }

    #[test]
    fn a_fan_out_that_does_not_fit_is_left_out_whole() {
        with_lenient(|mut lenient| {
            let mut index = TypeDef::new(3, Kind::Index);
            index.target = Some(4);
            let mut counters = TypeDef::new(4, Kind::Counter);
            counters.counter.max = Some(5);
            counters.counter.overflow = Some(Overflow::Error);
            lenient.change(1, Time(1), types(vec![index, counters]));
            let typed = |prefix, id| TypedKey { prefix, id };
            let (ids, last) = (1..200, 199);
            let member = |id| Member { id, attribute: 0 };
            let added: Vec<_> = ids.clone().map(member).collect();
            let members = Change::Members {
                key: typed(3, 1),
                create: Some((0, Expiry::NEVER)),
                added: added.into(),
                removed: Vec::new().into(),
            };
            lenient.change(2, Time(1), members);
            let full = Change::Number {
                key: Key::Typed(typed(4, last)),
                number: 5,
            };
            lenient.change(3, Time(1), full);
            let (negative, amount) = (false, 1);
            let fan_out = Change::FanOut {
                index: typed(3, 1),
                target: 4,
                delta: Delta { negative, amount },
            };
            lenient.change(4, Time(1), fan_out);
            let outcome = &lenient.outcome;
            assert_eq!((outcome.records, outcome.misfits), (3, 1));
            for id in ids {
                let found = lenient.shards.view(Key::Typed(typed(4, id)), Time(1));
                assert_eq!(found.is_some(), id == last, "{id}");
            }
        });
    }

    #[test]
    fn new_types_end_what_was_in_memory_only_as_a_start_does() {
        with_lenient(|mut lenient| {
            let mut row = TypeDef::new(3, Kind::Data);
            lenient.change(1, Time(1), types(vec![row]));
            let key = Key::Typed(TypedKey { prefix: 3, id: 1 });
            let value = Value::Data(Blob::unnamed(b"x"));
            let (flags, expires) = (0, Expiry::NEVER);
            let put = Change::Put {
                key,
                value,
                flags,
                expires,
            };
            lenient.change(2, Time(1), put);
            assert!(lenient.shards.view(key, Time(1)).is_some());
            row.keep.durable = false;
            lenient.change(3, Time(1), types(vec![row]));
            assert!(lenient.shards.view(key, Time(1)).is_none());
        });
    }

    #[test]
    fn a_batch_that_does_not_fit_is_left_out_whole() {
        with_lenient(|mut lenient| {
            let missing = Change::Remove {
                key: Key::Named(b"missing"),
            };
            lenient.change(1, Time(1), put(b"old", b"before"));
            let batch = vec![put(b"old", b"after"), put(b"new", b"x"), missing.clone()];
            lenient.change(2, Time(2), Change::Batch(batch));
            lenient.change(3, Time(3), missing);
            lenient.change(4, Time(4), put(b"last", b"y"));
            let outcome = &lenient.outcome;
            assert_eq!((outcome.records, outcome.misfits), (2, 2));
            assert_eq!(outcome.told.len(), 2);
            let entry = |name| {
                let view = lenient.shards.view(Key::Named(name), Time(5));
                view.map(|view| view.to_entry())
            };
            let Value::Data(old) = entry(b"old").unwrap().value else {
                panic!("it is no longer bytes");
            };
            assert_eq!(old.bytes(), Some(&b"before"[..]));
            assert_eq!(entry(b"new"), None);
            assert!(entry(b"last").is_some());
        });
    }
}
