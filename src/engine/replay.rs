//! Starting: the state is made from the newest snapshot and the journal after it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use parking_lot::RwLock;

use super::cold::Hot;
use super::rebuild::{self, Around};
use super::upkeep::check_types;
use super::{Engine, Settings, TypesError};
use crate::clock::{Clock, Time};
use crate::command::{Change, View, ViewValue};
use crate::journal::disk::Disk;
use crate::journal::{
    self, Batch, Files, Journal, JournalError, Options, Progress, Recovered, ReplayError,
    TakeBatches, Taken,
};
use crate::key::Key;
use crate::store::Store;
use crate::store::locks::{ShardSet, WriteSet};
use crate::store::shard::UNJOURNALLED_FROM;
use crate::types::TypeTable;
use crate::value::{Blob, Content};

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
    store: &'s Store,
    shards: WriteSet<'s>,
    threads: usize,
    /// The configured types, which must fit what was found; without them anything does.
    types: Option<&'p TypeTable>,
    /// Why the state is refused, if it is.
    refused: Option<OpenError>,
    /// The time of the start or of the newest record, whichever is later.
    now: Time,
    /// How far it is.
    progress: Progress,
    watch: &'p mut Watch<'p>,
    /// The files of values that were left where they are.
    files: Files,
    /// The members that replayed fan-outs touched.
    work: u64,
}

/// How many counters `change` steps, as [`Journal::add_work`] counts them.
fn members(shards: &WriteSet<'_>, change: &Change<'_>, time: Time) -> u64 {
    match change {
        Change::FanOut { index, .. } => shards
            .index(*index, time)
            .map_or(0, |members| members.len() as u64),
        _ => 0,
    }
}

/// Reads the value that `change` adds bytes to, if it was left where it is.
fn bring_here(
    files: &Files,
    shards: &mut WriteSet<'_>,
    change: &Change<'_>,
    time: Time,
) -> Result<(), ReplayError> {
    let Change::Extend {
        key: key @ Key::Typed(typed),
        ..
    } = change
    else {
        return Ok(());
    };
    let Some(View {
        value: ViewValue::Data(blob),
        cas,
        ..
    }) = shards.view(*key, time)
    else {
        return Ok(());
    };
    let Content::Away(place) = blob.content() else {
        return Ok(());
    };
    let bytes = files.locate(place).read();
    let bytes = bytes.map_err(|error| ReplayError(error.to_string()))?;
    shards.reform(*typed, cas, Blob::unnamed(&bytes));
    Ok(())
}

fn look(
    watch: &mut Watch<'_>,
    progress: &Progress,
    refused: &mut Option<OpenError>,
) -> Result<(), ReplayError> {
    if watch(progress).is_break() {
        *refused = Some(OpenError::Stopped);
        return Err(ReplayError(OpenError::Stopped.to_string()));
    }
    Ok(())
}

impl TakeBatches for Rebuild<'_, '_> {
    fn batches(&mut self, batches: &[Batch]) -> Result<Taken, JournalError> {
        let Self {
            store,
            shards,
            progress,
            watch,
            refused,
            files,
            work,
            ..
        } = self;
        let mut watch = || look(watch, progress, refused).map_err(JournalError::Rejected);
        let mut around = Around {
            before: &mut |shards, change, time| {
                *work += members(shards, change, time);
                bring_here(files, shards, change, time)
            },
            after: &mut watch,
        };
        rebuild::take(
            (shards, store.hashing()),
            self.threads,
            batches,
            &mut around,
        )
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
        self.progress = *progress;
        look(self.watch, progress, &mut self.refused)
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
        let (opened, refused, work) = {
            let mut rebuild = Rebuild {
                store: &store,
                shards: store.write_set(ShardSet::ALL),
                threads: options.threads,
                types: Some(types),
                refused: None,
                now: options.now,
                progress: Progress::default(),
                watch,
                files: options.files.clone(),
                work: 0,
            };
            let opened = Journal::open(disk, options, &mut rebuild);
            (opened, rebuild.refused, rebuild.work)
        };
        if let Some(refused) = refused {
            return Err(refused);
        }
        let (journal, recovered) = opened?;
        // The next start would have it to do again.
        journal.add_work(work);
        let clock = Clock::starting_after(recovered.newest_time, source);
        let engine = Self {
            store,
            journal,
            evicting: AtomicUsize::new(0),
            unjournalled: AtomicU64::new(first_unjournalled(clock.latest())),
            clock,
            lingering: AtomicU64::new(0),
            hot: Hot::new(settings.cache_bytes),
            settings: RwLock::new(Arc::new(settings)),
            epoch: AtomicU64::new(0),
            closing: Arc::default(),
        };
        // From the first write on: a journal that has taken a small disk leaves a snapshot no room.
        engine.journal.keep_free(|| engine.store.snapshot_bytes());
        engine.declare_types(types)?;
        Ok((engine, recovered))
    }
}

/// Where the numbers of changes begin that are not journalled: each start has a million of them
/// for each millisecond until the next, so that the cas uniques made of them do not come again.
fn first_unjournalled(start: Time) -> u64 {
    UNJOURNALLED_FROM + (start.0 << 20 & (UNJOURNALLED_FROM - 1))
}

/// The state that a start would make of `disk`, by the same reading and the same decisions;
/// nothing is changed.
pub fn read_state(disk: &dyn Disk, watch: &mut Watch<'_>) -> Result<(Store, Recovered), OpenError> {
    let store = Store::default();
    let Options { threads, .. } = Options::default();
    let (verified, refused) = {
        let mut rebuild = Rebuild {
            store: &store,
            shards: store.write_set(ShardSet::ALL),
            threads,
            types: None,
            refused: None,
            now: Time(0),
            progress: Progress::default(),
            watch,
            files: Files::default(),
            work: 0,
        };
        (journal::verify(disk, &mut rebuild), rebuild.refused)
    };
    match refused {
        Some(refused) => Err(refused),
        None => Ok((store, verified?)),
    }
}
