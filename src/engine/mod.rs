//! The choke point: every command passes here, every mutation is decided, journalled and applied
//! here, in one order. So every feature that watches or carries mutations hangs here.
//!
//! The order of a write: reserve room in the journal -> lock the shards -> decide -> put the
//! record into the journal's buffer -> apply -> unlock. The caller ends its turn with
//! [`Engine::flush`] before any reply leaves. Only the server calls this.

mod cold;
mod edit;
mod evict;
mod fan_out;
mod fetch;
mod meta;
mod rebuild;
mod replay;
mod snapshot;
mod upkeep;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;
use smallvec::SmallVec;

use crate::clock::{Clock, Tick, Time};
use crate::command::{Change, Command, Context, Outcome, Place, Refusal, Reply};
use crate::journal::{self, Journal, Refused, Room};
use crate::key::{Key, NAMED_CLASS};
use crate::limits::LOOK_AHEAD;
use crate::store::Store;
use crate::store::shard::{Misfit, Stamp, place};
use crate::types::{KeyRules, TypeTable};
use crate::value::{Blob, Value};
pub use cold::Cold;
pub use replay::{OpenError, Watch, read_state};
pub use upkeep::TypesError;

/// The store, its journal and the rules that the operator set.
pub struct Engine {
    store: Store,
    journal: Journal,
    clock: Clock,
    settings: RwLock<Arc<Settings>>,
    /// Counts the changes of the type table and of the settings.
    epoch: AtomicU64,
    /// Counts the shards that were looked at for what may go.
    evicting: AtomicUsize,
    /// The number of the last change that was not journalled.
    unjournalled: AtomicU64,
    hot: cold::Hot,
    /// Bytes of values that may leave memory but were added to: they stay until a snapshot.
    lingering: AtomicU64,
    /// Snapshots are given up: the server stops.
    closing: Arc<AtomicBool>,
}

/// What the operator set for commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What to do with keys that are not of a declared type.
    pub key_rules: KeyRules,
    /// The longest value, in bytes.
    pub value_bytes_max: usize,
    /// The most members of an INDEX.
    pub members_max: usize,
    /// The most that entries may take in memory, in bytes; 0 is no limit.
    pub memory_limit: u64,
    /// How much memory values may take that were read from files. What counts is the start's.
    pub cache_bytes: u64,
    /// How fast snapshots may be written; 0 is as fast as it goes.
    pub snapshot_bytes_per_s: u64,
}

/// What a worker knows at its turn: one reading of the clock, and the types and settings that
/// its commands are read by.
pub struct Turn {
    /// When the turn began.
    pub tick: Tick,
    /// The same, as the time of day.
    pub now: Time,
    epoch: u64,
    types: Arc<TypeTable>,
    settings: Arc<Settings>,
}

impl Turn {
    /// The settings of this turn.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// True if these are the types that this turn's commands are read by.
    fn is_current(&self, types: &Arc<TypeTable>) -> bool {
        Arc::ptr_eq(&self.types, types)
    }

    /// The class of a key as sent; that of the named keys if it is no key.
    pub fn class(&self, raw: &[u8]) -> u32 {
        let key = self.types.resolve(raw, self.settings.key_rules);
        key.map_or(NAMED_CLASS, Key::class)
    }

    fn place<'a>(&self, raw: &'a [u8]) -> Result<Place<'a>, Refusal> {
        let key = self.types.resolve(raw, self.settings.key_rules)?;
        place(&self.types, key).ok_or(Refusal::Internal("a resolved key has no type"))
    }
}

/// A reply, and what must be safe before it may leave.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The reply.
    pub reply: Reply,
    /// The newest record that the reply shows or acknowledges.
    pub seq: u64,
    /// The reply acknowledges a write that is in the journal.
    pub wrote: bool,
    /// The class of the key, if it is about one key: what figures are kept by.
    pub class: u32,
    /// Of a retrieval: how many keys were not found because they had expired.
    pub expired: u32,
    /// The sequence number of the change, journalled or not; 0 if there was none.
    pub stamp: u64,
    /// Of a fan-out: how many counters it changed.
    pub fanned_out: Option<u64>,
    /// Of a retrieval: the values that have to be read, in the order of the hits without them; of
    /// a meta command the one, for [`Self::complete`].
    pub cold: Vec<Cold>,
}

/// Why a command was not carried out.
#[derive(Clone, Debug)]
pub enum Halt {
    /// It was refused.
    Refused(Refusal),
    /// It needs a value that is not in memory: [`Engine::read_cold`] and [`Engine::warm`] it, and
    /// execute the command again.
    Cold(Box<Cold>),
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Answer {
    /// Puts in the value that the reply to a meta command lacks.
    pub fn complete(&mut self, blob: Blob) {
        self.cold.clear();
        if let Reply::Meta(reply) = &mut self.reply {
            reply.seen.value = Some(Value::Data(blob));
        }
    }

    fn read(reply: Reply, seq: u64) -> Self {
        Self {
            reply,
            seq,
            wrote: false,
            class: 0,
            expired: 0,
            stamp: 0,
            fanned_out: None,
            cold: Vec::new(),
        }
    }
}

/// Room in the journal for a record of `items` keys and `bytes` of request.
fn room_bytes(items: usize, bytes: usize) -> u64 {
    journal::room_bytes(items as u64, bytes as u64)
}

impl Engine {
    /// The journal: its positions, its figures, its health.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The store, to look at.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The clock of this engine.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// A turn that begins now.
    pub fn turn(&self) -> Turn {
        let (tick, now) = self.clock.tick();
        let epoch = self.epoch.load(Ordering::Acquire);
        let settings = Arc::clone(&self.settings.read());
        Turn {
            tick,
            now,
            epoch,
            types: self.store.types(),
            settings,
        }
    }

    /// Begins the next turn: reads the clock once for all that has arrived.
    pub fn begin(&self, turn: &mut Turn) {
        if self.epoch.load(Ordering::Acquire) == turn.epoch {
            (turn.tick, turn.now) = self.clock.tick();
        } else {
            *turn = self.turn();
        }
        self.journal.note_time(turn.tick);
        if self.store.pending_flush().is_past(turn.now) {
            self.flush_due();
        }
    }

    /// Carries out a command.
    pub fn execute(&self, turn: &mut Turn, command: &Command<'_>) -> Result<Answer, Halt> {
        Ok(match command {
            Command::Fetch(fetch) => match fetch.touch {
                None => self.fetch(turn, fetch)?,
                Some(exptime) => self.fetch_and_touch(turn, fetch, exptime)?,
            },
            Command::Put(put) => self.put(turn, put)?,
            Command::PutMany(puts) => self.put_many(turn, puts)?,
            Command::Arith(arith) => self.arith(turn, arith)?,
            Command::Delete { key } => self.delete(turn, key)?,
            Command::Touch { key, exptime } => self.touch(turn, key, *exptime)?,
            Command::FlushAll { delay } => self.flush_all(turn, *delay)?,
            Command::Meta(meta) => self.meta(turn, meta)?,
        })
    }

    /// Has the processor fetch what commands on these keys will look at, so that they need not
    /// wait for memory one after the other.
    pub fn look_ahead<'k>(&self, turn: &Turn, keys: impl Iterator<Item = &'k [u8]>) {
        let places: SmallVec<[(u64, Key<'k>); LOOK_AHEAD]> = keys
            .filter_map(|key| turn.types.resolve(key, turn.settings.key_rules).ok())
            .map(|key| (self.store.hashing().key(key), key))
            .inspect(|(hash, _)| self.store.prefetch(*hash))
            .collect();
        for (hash, key) in places {
            self.store.read(hash).prefetch(hash, key);
        }
    }

    /// Writes what the turns so far have put into the journal's buffer. Every turn ends with
    /// this, before any of its replies leaves.
    pub fn flush(&self) -> Result<(), journal::Failed> {
        self.journal.flush()
    }

    /// As [`Engine::flush`], but for waiting: false if another worker is writing just now.
    pub fn try_flush(&self) -> Result<bool, journal::Failed> {
        self.journal.try_flush()
    }

    /// What the rules may know, under the locks of what they decide about.
    fn context<'t>(&self, turn: &'t Turn) -> Context<'t> {
        Context {
            now: self.clock.latest(),
            types: &turn.types,
            value_bytes_max: turn.settings.value_bytes_max,
            members_max: turn.settings.members_max,
            memory_room: self.memory_room(&turn.settings),
        }
    }

    /// How many bytes are left to the memory limit.
    fn memory_room(&self, settings: &Settings) -> u64 {
        match settings.memory_limit {
            0 => u64::MAX,
            limit => limit.saturating_sub(self.store.memory_bytes()),
        }
    }

    /// Room for a record, if there will be one.
    fn reserve_if(&self, durable: bool, bytes: u64) -> Result<Option<Room>, Refusal> {
        durable.then(|| self.reserve(bytes)).transpose()
    }

    fn release(&self, room: Option<Room>) {
        if let Some(room) = room {
            self.journal.release(room);
        }
    }

    fn reserve(&self, bytes: u64) -> Result<Room, Refusal> {
        self.journal
            .reserve(bytes)
            .map_err(|refused| match refused {
                Refused::DiskFull => Refusal::DiskFull,
                Refused::Failed => Refusal::StorageFailed,
                Refused::Stalled => Refusal::StorageStalled,
                Refused::Closed => Refusal::StorageClosed,
            })
    }

    /// Ends a decision under `types` and its locks: journals what is durable of the change, if
    /// there is one, and applies it.
    fn commit<'a>(
        &self,
        decided: Result<Outcome<'a>, Refusal>,
        (room, time): (Option<Room>, Time),
        types: &TypeTable,
        apply: impl FnOnce(Change<'a>, Stamp) -> Result<(), Misfit>,
        seen: u64,
    ) -> Result<Answer, Refusal> {
        let outcome = match decided {
            Ok(outcome) => outcome,
            Err(refusal) => {
                self.release(room);
                return Err(refusal);
            }
        };
        let Some(change) = outcome.change else {
            self.release(room);
            return Ok(Answer::read(outcome.reply, seen));
        };
        let stamp = self.append(&change, room, (types, time))?;
        must_apply(apply(change, stamp));
        let answer = Answer {
            stamp: stamp.seq,
            ..Answer::read(outcome.reply, seen)
        };
        Ok(if stamp.is_journalled() {
            Answer {
                seq: stamp.seq,
                wrote: true,
                ..answer
            }
        } else {
            answer
        })
    }

    /// Puts what is durable of a change into the journal's buffer, and stamps it.
    fn append(
        &self,
        change: &Change<'_>,
        room: Option<Room>,
        (types, time): (&TypeTable, Time),
    ) -> Result<Stamp, Refusal> {
        let seq = match (change.durable_part(types), room) {
            (Some(part), Some(room)) => self.journal.append(time, &part, room),
            (Some(_), None) => return Err(Refusal::Internal("no room for a durable change")),
            (None, room) => {
                self.release(room);
                self.unjournalled.fetch_add(1, Ordering::Relaxed)
            }
        };
        Ok(Stamp { seq, time })
    }
}

/// Ends the process if a change that is in the buffer did not apply.
fn must_apply(applied: Result<(), Misfit>) {
    if let Err(misfit) = applied {
        // The memory has gone another way than the record, which must not reach the file, or
        // no start would get past it.
        tracing::error!(%misfit, "a decided change does not apply: aborting");
        std::process::abort();
    }
}
