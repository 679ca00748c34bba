//! Starting: the state is made from the newest snapshot and the journal after it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use parking_lot::RwLock;

use super::cold::Hot;
use super::upkeep::check_types;
use super::{Engine, Settings, TypesError};
use crate::clock::{Clock, Time};
use crate::command::{Change, View, ViewValue};
use crate::journal::disk::Disk;
use crate::journal::{
    self, Files, Journal, JournalError, Options, Progress, Recovered, Replay, ReplayError,
};
use crate::key::Key;
use crate::store::Store;
use crate::store::locks::{ShardSet, WriteSet};
use crate::store::shard::Stamp;
use crate::types::TypeTable;
use crate::value::{Blob, Content, Entry};

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory does not give a state.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The configured types do not fit the data.
    #[error(transparent)]
    Types(#[from] TypesError),
    /// The server was told to stop in the meantime.
    #[error("stopped during the start; nothing was changed")]
    Stopped,
}

/// Hears how far the start is, and may end it.
pub type Watch<'p> = dyn FnMut(&Progress) -> ControlFlow<()> + 'p;

/// Hands recovered records to the store, under all its locks.
struct Rebuild<'s, 'p> {
    shards: WriteSet<'s>,
    /// The configured types, which must fit what was found; without them anything does.
    types: Option<&'p TypeTable>,
    /// Why the state is refused, if it is.
    refused: Option<OpenError>,
    /// The time of the start or of the newest record, whichever is later.
    now: Time,
    watch: &'p mut Watch<'p>,
    /// The files of values that were left where they are.
    files: Files,
}

impl Rebuild<'_, '_> {
    /// Reads the values that `change` adds bytes to, if they were left where they are.
    fn bring_here(&mut self, change: &Change<'_>, time: Time) -> Result<(), ReplayError> {
        match change {
            Change::Batch(changes) => changes
                .iter()
                .try_for_each(|change| self.bring_here(change, time)),
            Change::Extend {
                key: key @ Key::Typed(typed),
                ..
            } => {
                let Some(View {
                    value: ViewValue::Data(blob),
                    cas,
                    ..
                }) = self.shards.view(*key, time)
                else {
                    return Ok(());
                };
                let Content::Away(place) = blob.content() else {
                    return Ok(());
                };
                let bytes = self.files.locate(place).read();
                let bytes = bytes.map_err(|error| ReplayError(error.to_string()))?;
                self.shards.reform(*typed, cas, Blob::unnamed(&bytes));
                Ok(())
            }
            Change::Put { .. }
            | Change::Remove { .. }
            | Change::Expire { .. }
            | Change::Number { .. }
            | Change::Extend { .. }
            | Change::Members { .. }
            | Change::FanOut { .. }
            | Change::Flush { .. }
            | Change::Types(_) => Ok(()),
        }
    }
}

impl Replay for Rebuild<'_, '_> {
    fn entry(&mut self, key: Key<'_>, entry: Entry) -> Result<(), ReplayError> {
        let stamp = Stamp {
            seq: 0,
            time: Time(0),
        };
        self.shards
            .restore(key, entry, stamp)
            .map_err(|misfit| ReplayError(misfit.to_string()))
    }

    fn change(&mut self, seq: u64, time: Time, change: Change<'_>) -> Result<(), ReplayError> {
        self.bring_here(&change, time)?;
        let stamp = Stamp { seq, time };
        self.shards
            .apply(change, stamp)
            .map_err(|misfit| ReplayError(misfit.to_string()))
    }

    fn complete(&mut self) -> Result<(), ReplayError> {
        let Some(types) = self.types else {
            return Ok(());
        };
        let found = self.shards.types().map(Arc::clone).unwrap_or_default();
        check_types(&self.shards, &found, types, self.now).map_err(|error| {
            let text = error.to_string();
            self.refused = Some(error.into());
            ReplayError(text)
        })
    }

    fn progress(&mut self, progress: &Progress) -> Result<(), ReplayError> {
        if (self.watch)(progress).is_break() {
            self.refused = Some(OpenError::Stopped);
            return Err(ReplayError(OpenError::Stopped.to_string()));
        }
        Ok(())
    }
}

impl Engine {
    /// Recovers the state from `disk`, and declares `types`.
    pub fn open(
        disk: Arc<dyn Disk>,
        mut options: Options,
        settings: Settings,
        types: &TypeTable,
        watch: &mut Watch<'_>,
    ) -> Result<(Self, Recovered), OpenError> {
        let store = Store::default();
        let source = options.clock.clone();
        options.now = source.wall();
        options.leaving = Some(Arc::new(types.clone()));
        let (opened, refused) = {
            let shards = store.write_set(ShardSet::ALL);
            let mut rebuild = Rebuild {
                shards,
                types: Some(types),
                refused: None,
                now: options.now,
                watch,
                files: options.files.clone(),
            };
            (Journal::open(disk, options, &mut rebuild), rebuild.refused)
        };
        if let Some(refused) = refused {
            return Err(refused);
        }
        let (journal, recovered) = opened?;
        let engine = Self {
            store,
            journal,
            clock: Clock::starting_after(recovered.newest_time, source),
            hot: Hot::new(settings.cache_bytes),
            settings: RwLock::new(Arc::new(settings)),
            epoch: AtomicU64::new(0),
            memory_full: AtomicBool::new(false),
            closing: Arc::default(),
        };
        engine.declare_types(types)?;
        Ok((engine, recovered))
    }
}

/// The state that a start would make of `disk`, by the same reading and the same decisions;
/// nothing is changed.
pub fn read_state(disk: &dyn Disk, watch: &mut Watch<'_>) -> Result<(Store, Recovered), OpenError> {
    let store = Store::default();
    let (verified, refused) = {
        let mut rebuild = Rebuild {
            shards: store.write_set(ShardSet::ALL),
            types: None,
            refused: None,
            now: Time(0),
            watch,
            files: Files::default(),
        };
        (journal::verify(disk, &mut rebuild), rebuild.refused)
    };
    match refused {
        Some(refused) => Err(refused),
        None => Ok((store, verified?)),
    }
}
