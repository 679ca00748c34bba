//! What the engine does beside commands: new types and settings, and dropping what has expired.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Engine, Settings, room_bytes};
use crate::clock::Time;
use crate::command::{Change, Outcome, Refusal, Reply};
use crate::store::locks::{ShardSet, WriteSet};
use crate::store::shard::Shard;
use crate::types::{Kind, TypeDef, TypeTable};

/// Why types cannot be declared. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypesError {
    /// A type with entries is not declared any more.
    #[error(
        "type {prefix} ({}) has {entries} entries but is not declared: declare it in [types], or \
         delete its entries first", .kind.name()
    )]
    Removed {
        /// The type.
        prefix: u16,
        /// What it holds.
        kind: Kind,
        /// How many entries it has, with those that have expired unnoticed.
        entries: usize,
    },
    /// A type with entries is declared as another kind.
    #[error(
        "type {prefix} is {} and has {entries} entries: it cannot become {}; declare it as {}, \
         or delete its entries first", .old.name(), .new.name(), .old.name()
    )]
    Changed {
        /// The type.
        prefix: u16,
        /// What it holds.
        old: Kind,
        /// What it was declared as.
        new: Kind,
        /// How many entries it has, with those that have expired unnoticed.
        entries: usize,
    },
    /// A type with entries that are in no file is declared as durable.
    #[error(
        "{what} cannot become durable: the {entries} entries that are there are in no file; delete \
         them first, or restart the server without them"
    )]
    Volatile {
        /// The type, or the named keys.
        what: String,
        /// How many entries there are, with those that have expired unnoticed.
        entries: usize,
    },
    /// A type with values in data files is declared as not durable.
    #[error(
        "type {prefix} has {values} values in the data files only and cannot become volatile: \
         delete them first"
    )]
    Away {
        /// The type.
        prefix: u16,
        /// How many values there are.
        values: usize,
    },
    /// The journal did not take the new table.
    #[error("the new types cannot be journalled: {0}")]
    Journal(#[from] Refusal),
}

impl Engine {
    /// Makes `types` the type table, if what is stored allows it. A table that is already the
    /// current one is not journalled again.
    pub fn declare_types(&self, types: &TypeTable) -> Result<(), TypesError> {
        let room = self.reserve(room_bytes(types.rows().len(), 0))?;
        let mut shards = self.store.write_set(ShardSet::ALL);
        let now = self.clock.latest();
        let decided = check_types(&shards, &self.store.types(), types, now).map(|()| {
            let same = *self.store.types() == *types;
            let change = (!same).then(|| Change::Types(Arc::new(types.clone())));
            Outcome {
                reply: Reply::Ok,
                change,
            }
        });
        let outcome = match decided {
            Ok(outcome) => outcome,
            Err(error) => {
                self.journal.release(room);
                return Err(error);
            }
        };
        self.journal.set_types(Arc::new(types.clone()));
        let apply = |change: Change<'_>, stamp| shards.apply(change, stamp);
        self.commit(Ok(outcome), (Some(room), now), types, apply, 0)?;
        self.epoch.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Takes on other settings.
    pub fn set_settings(&self, settings: Settings) {
        *self.settings.write() = Arc::new(settings);
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// What has to be done from time to time: drops what has expired, for `most` at a time, lets
    /// values leave memory, and keeps room on the disk for a snapshot. At rest it costs next to
    /// nothing.
    pub fn tidy(&self, most: Duration) {
        let (began, now) = self.clock.tick();
        if self.store.pending_flush().is_past(now) {
            self.flush_due();
        }
        let go_on = || self.clock.tick().0.since(began) < most;
        self.store.sweep(now, go_on);
        self.keep_limit();
        self.put_away();
        self.journal.keep_free(|| self.store.snapshot_bytes());
    }
}

/// What is stored must still have a type that fits.
pub(super) fn check_types(
    shards: &WriteSet<'_>,
    old: &TypeTable,
    new: &TypeTable,
    now: Time,
) -> Result<(), TypesError> {
    if new.named().durable && !old.named().durable {
        no_entries(entries(shards, None, now), || "the named keys".to_owned())?;
    }
    for row in old.rows() {
        let (prefix, kind) = (row.prefix, row.kind);
        check_durable(shards, row, new, now)?;
        let declared = new.get(prefix).map(|row| row.kind);
        let widened = kind == Kind::Counter && declared == Some(Kind::Counter64);
        if declared == Some(kind) || widened {
            continue;
        }
        let entries = entries(shards, Some(prefix), now);
        match declared {
            _ if entries == 0 => {}
            None => {
                return Err(TypesError::Removed {
                    prefix,
                    kind,
                    entries,
                });
            }
            Some(new) => {
                return Err(TypesError::Changed {
                    prefix,
                    old: kind,
                    new,
                    entries,
                });
            }
        }
    }
    Ok(())
}

/// Entries cannot come into the journal, nor leave the data files, by another declaration.
fn check_durable(
    shards: &WriteSet<'_>,
    old: &TypeDef,
    new: &TypeTable,
    now: Time,
) -> Result<(), TypesError> {
    let prefix = old.prefix;
    let Some(row) = new
        .get(prefix)
        .filter(|row| row.keep.durable != old.keep.durable)
    else {
        return Ok(());
    };
    if row.keep.durable {
        return no_entries(entries(shards, Some(prefix), now), || {
            format!("type {prefix}")
        });
    }
    let away = |shard: &Shard| shard.sizes(Some(prefix)).away.values;
    match shards.shards().map(away).sum() {
        0 => Ok(()),
        values => Err(TypesError::Away { prefix, values }),
    }
}

/// How many entries of a type, or with `None` of the named keys, there are, if one is alive. All
/// shards are locked, so they are not counted one by one: some may have expired unnoticed.
fn entries(shards: &WriteSet<'_>, prefix: Option<u16>, now: Time) -> usize {
    if !shards.shards().any(|shard| shard.has_live(prefix, now)) {
        return 0;
    }
    let all = shards.shards().map(|shard| shard.sizes(prefix).entries);
    all.sum()
}

fn no_entries(entries: usize, what: impl FnOnce() -> String) -> Result<(), TypesError> {
    match entries {
        0 => Ok(()),
        entries => Err(TypesError::Volatile {
            what: what(),
            entries,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Expiry;
    use crate::key::{Key, TypedKey};
    use crate::store::Store;
    use crate::store::shard::Stamp;
    use crate::value::{Blob, Value};

    #[test]
    fn a_type_can_go_once_nothing_of_it_is_alive() {
        let store = Store::default();
        let types = TypeTable::new(vec![TypeDef::new(3, Kind::Data)]).unwrap();
        let mut shards = store.write_set(ShardSet::ALL);
        let (seq, time) = (1, Time(1));
        let stamp = Stamp { seq, time };
        let change = Change::Types(Arc::new(types.clone()));
        shards.apply(change, stamp).unwrap();
        for (id, ends) in [(1, 10), (2, 20)] {
            let put = Change::Put {
                key: Key::Typed(TypedKey { prefix: 3, id }),
                value: Value::Data(Blob::unnamed(b"x")),
                flags: 0,
                expires: Expiry::at(Time(ends)),
            };
            shards.apply(put, stamp).unwrap();
        }
        let at = |now| check_types(&shards, &types, &TypeTable::default(), Time(now));
        let (prefix, kind) = (3, Kind::Data);
        // What has expired and was not swept is not told apart from what is alive.
        let entries = 2;
        let removed = TypesError::Removed {
            prefix,
            kind,
            entries,
        };
        assert_eq!((at(5), at(15)), (Err(removed.clone()), Err(removed)));
        assert_eq!(at(25), Ok(()));
    }
}
