//! A store on a simulated disk with a clock of its own, what it held after each record, and what
//! it has promised.
//!
//! **The rule** of every simulation: a store that starts on what a crash has left holds exactly
//! what it held after some record, and not before the newest one that an answer which has left
//! acknowledged or showed. So nothing acknowledged or observed is lost, a fan-out is there
//! whole or not at all, and nothing is invented.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

use storage_server::clock::{SimClock, Time};
use storage_server::command::{Command, Exptime, Fetch, Hit, Mode, Put, Refusal, Reply};
use storage_server::engine::{Answer, Engine, Halt, OpenError, Settings, Turn};
use storage_server::journal::disk::{Disk, Name};
use storage_server::journal::sim::{Call, Crash, Fault, SimDisk};
use storage_server::journal::{Fsync, JournalError, Options};
use storage_server::types::{KeyRules, Kind, TypeDef, TypeTable};
use storage_server::value::{Content, Value};

use super::model::{Entry, Held, KEYS, State};
use super::workload::Words;
use crate::support::Random;

/// When simulations begin.
const START: Time = Time(1_700_000_000_000);

/// What a store has held, and what it has promised.
#[derive(Clone, Default)]
pub(super) struct Past {
    /// What it held after each record that changed something.
    states: Vec<(u64, State)>,
    /// The newest record that an answer which has left acknowledged or showed.
    pub(super) promised: u64,
    /// The newest record that had been written when a turn ended well.
    pub(super) flushed: u64,
}

static NOTHING: LazyLock<State> = LazyLock::new(State::default);

impl Past {
    /// What the store held after record `seq`.
    pub(super) fn at(&self, seq: u64) -> &State {
        let after = self.states.partition_point(|(other, _)| *other <= seq);
        self.states[..after]
            .last()
            .map_or(&NOTHING, |(_, state)| state)
    }

    fn now(&self) -> &State {
        self.at(u64::MAX)
    }

    /// A restart has given the records up to `seq`: what came after them never was, and now that
    /// they are shown, they are promised.
    fn restart(&mut self, seq: u64) {
        self.states.retain(|(other, _)| *other <= seq);
        (self.promised, self.flushed) = (seq, seq);
    }
}

/// An answer that has not left yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) seq: u64,
    pub(super) wrote: bool,
}

pub(super) struct World {
    pub(super) disk: SimDisk,
    pub(super) clock: SimClock,
    pub(super) engine: Arc<Engine>,
    pub(super) past: Arc<Mutex<Past>>,
    pub(super) waiting: Vec<Waiting>,
    turn: Turn,
}

/// What a world is made of, and what goes on when its store ends.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) disk: SimDisk,
    pub(super) clock: SimClock,
    pub(super) past: Arc<Mutex<Past>>,
    pub(super) fsync: Fsync,
}

impl Ground {
    pub(super) fn new(fsync: Fsync) -> Self {
        Self {
            disk: SimDisk::new(),
            clock: SimClock::new(START),
            past: Arc::default(),
            fsync,
        }
    }

    pub(super) fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap()
    }

    fn engine(&self, disk: &SimDisk) -> Result<Engine, OpenError> {
        let options = Options {
            background: false,
            fsync: self.fsync,
            allocate_bytes: 2048,
            // While a segment ends, workers wait for it: clients cannot act during that sync.
            segment_bytes: if self.fsync == Fsync::EverySec {
                1 << 30
            } else {
                6000
            },
            snapshot_batch_bytes: 100,
            clock: self.clock.source(),
            ..Options::default()
        };
        let settings = Settings {
            key_rules: KeyRules::default(),
            value_bytes_max: 1 << 20,
            members_max: 1 << 20,
            memory_limit: 0,
            snapshot_bytes_per_s: 0,
            cache_bytes: 0,
        };
        let to_counter64 = TypeDef {
            target: Some(4),
            ..TypeDef::new(3, Kind::Index)
        };
        let types = TypeTable::new([
            to_counter64,
            TypeDef::new(4, Kind::Counter64),
            // What is longer may leave memory, and most values are.
            TypeDef {
                keep_in_memory: Some(8),
                ..TypeDef::new(5, Kind::Data)
            },
        ]);
        let on: Arc<dyn Disk> = Arc::new(disk.clone());
        let opened = Engine::open(on, options, settings, &types.unwrap(), &mut |_| {
            ControlFlow::Continue(())
        });
        opened.map(|(engine, _)| engine)
    }

    /// Starts a store on what a crash has left, and holds it to the rule: at least the records
    /// up to `least` are there. Answers how many there are.
    pub(super) fn check(&self, left: &SimDisk, least: u64, what: &dyn Fn() -> String) -> u64 {
        let engine = match self.engine(left) {
            Err(OpenError::Journal(JournalError::Missing { .. })) if put_back(left) => {
                self.engine(left)
            }
            opened => opened,
        };
        let engine = engine.unwrap_or_else(|error| panic!("{}: {error}", what()));
        let found = engine.journal().written();
        assert!(found >= least, "{}: {found} of {least} records", what());
        compare((&engine, left), self.past().at(found), &|| {
            format!("{}, record {found}", what())
        });
        let names = left.names();
        let stale = names.iter().find(|name| Name::is_temporary(name));
        assert_eq!(stale, None, "{}", what());
        found
    }

    /// Has every change of the disk watched: `see` is called at that moment. Who does this ends
    /// it, too: until then the disk holds on to what `see` does.
    pub(super) fn watch_changes(&self, see: impl Fn(Call, &str) + Send + Sync + 'static) {
        self.disk.watch(Some(Arc::new(move |call, name| {
            let reads = [
                Call::List,
                Call::Open,
                Call::Identity,
                Call::Len,
                Call::Read,
            ];
            if !reads.contains(&call) {
                see(call, name);
            }
        })));
    }

    /// At every change of the disk from now on the power fails, in every way. Counts the states.
    pub(super) fn watch_power(&self, seed: u64, states: &Arc<AtomicU64>) {
        let (ground, states) = (self.clone(), Arc::clone(states));
        self.watch_changes(move |call, name| {
            ground.lose_power(seed, &states, &|| format!("{call:?} {name}"));
        });
    }

    /// The power fails now, in every way.
    pub(super) fn lose_power(&self, seed: u64, states: &AtomicU64, at: &dyn Fn() -> String) {
        let (promised, call) = (self.past().promised, self.disk.calls());
        for crash in Crash::ALL {
            let left = self.disk.crash(crash, seed ^ call << 8);
            let what = || format!("seed {seed}: {crash:?} at call {call} ({})", at());
            self.check(&left, promised, &what);
            states.fetch_add(1, Relaxed);
        }
    }
}

/// What an operator moved away comes back; false if there is none.
fn put_back(disk: &SimDisk) -> bool {
    let names = disk.names();
    let moved = names
        .iter()
        .filter_map(|name| Some((name, name.strip_prefix("old-")?)));
    moved.map(|(old, name)| disk.move_file(old, name)).count() > 0
}

thread_local! {
    /// How many values that were away this thread has read and compared.
    pub(super) static COLD_READS: Cell<u64> = const { Cell::new(0) };
}

/// A store shows what it should: every key, with flags and cas unique. Values that are away are
/// read from the disk, unless it fails.
fn compare((engine, disk): (&Engine, &SimDisk), state: &State, what: &dyn Fn() -> String) {
    let mut turn = engine.turn();
    let now = turn.now;
    let fetch = Fetch {
        keys: KEYS.into_iter().collect(),
        touch: None,
    };
    let answer = engine.execute(&mut turn, &Command::Fetch(fetch)).unwrap();
    let Reply::Hits(mut hits) = answer.reply else {
        panic!("{:?}", answer.reply);
    };
    let mut cold = answer.cold.iter();
    for hit in hits.iter_mut().flatten() {
        if matches!(&hit.value, Value::Data(blob) if blob.is_away()) {
            // One call may fail; all do only on a disk that fails for ever.
            let cold = cold.next().unwrap();
            COLD_READS.set(COLD_READS.get() + 1);
            let read = engine.read_cold(cold).or_else(|_| engine.read_cold(cold));
            match read {
                Ok(blob) => hit.value = Value::Data(blob),
                Err(error) => assert!(disk.may_fail(), "{}: {error}", what()),
            }
        }
    }
    for (key, hit) in KEYS.iter().zip(&hits) {
        let expected = state.get(key, now);
        let same = match (hit, expected) {
            (None, None) => true,
            (Some(hit), Some(entry)) => is_same(hit, entry),
            (Some(_), None) | (None, Some(_)) => false,
        };
        let key = key.escape_ascii();
        assert!(same, "{}: {key} is {hit:?}, not {expected:?}", what());
    }
    assert!(
        engine.store().entries() <= state.entries.len(),
        "{}",
        what()
    );
    assert_eq!(
        engine.store().pending_flush().time(),
        state.flush_at,
        "{}",
        what()
    );
}

fn is_same(hit: &Hit, entry: &Entry) -> bool {
    let same = match (&hit.value, &entry.held) {
        (Value::Number(number), Held::Number(held)) => {
            return number == held && hit.flags == entry.flags;
        }
        (Value::Index(index), Held::Members(held)) => {
            let members = index.iter().map(|member| (member.id, member.attribute));
            members.eq(held.iter().map(|(id, attribute)| (*id, *attribute)))
        }
        (Value::Data(blob), Held::Bytes(held)) => match blob.content() {
            Content::Here(value) => value == held,
            Content::Away(_) => blob.len() == held.len(),
        },
        _ => false,
    };
    same && hit.flags == entry.flags && hit.cas == entry.seq
}

impl World {
    /// Starts a store on the ground, which must hold at least the records up to `least`.
    pub(super) fn open(ground: &Ground, least: u64, what: &dyn Fn() -> String) -> Option<Self> {
        let engine = ground.engine(&ground.disk).ok()?;
        let found = engine.journal().written();
        assert!(found >= least, "{}: {found} of {least} records", what());
        compare((&engine, &ground.disk), ground.past().at(found), what);
        ground.past().restart(found);
        Some(Self {
            disk: ground.disk.clone(),
            clock: ground.clock.clone(),
            past: Arc::clone(&ground.past),
            turn: engine.turn(),
            engine: Arc::new(engine),
            waiting: Vec::new(),
        })
    }

    /// Another worker of the same store.
    pub(super) fn another(&self) -> Self {
        Self {
            disk: self.disk.clone(),
            clock: self.clock.clone(),
            engine: Arc::clone(&self.engine),
            past: Arc::clone(&self.past),
            turn: self.engine.turn(),
            waiting: Vec::new(),
        }
    }

    pub(super) fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap()
    }

    /// Holds the living store to what it should hold.
    pub(super) fn compare(&self, what: &dyn Fn() -> String) {
        compare((&self.engine, &self.disk), self.past().now(), what);
    }

    /// Begins a turn, in which a delayed `flush_all` may be due.
    pub(super) fn begin(&mut self) {
        let before = self.engine.journal().appended();
        self.engine.begin(&mut self.turn);
        let seq = self.engine.journal().appended();
        if seq > before {
            let mut past = self.past();
            let mut state = past.now().clone();
            state.flush();
            past.states.push((seq, state));
        }
    }

    /// Carries out what is asked for by chance.
    pub(super) fn execute(&mut self, words: &Words) -> Result<Waiting, Refusal> {
        self.command(&words.command())
    }

    /// Stores a value that leaves memory.
    pub(super) fn store_long(&mut self) -> Result<Waiting, Refusal> {
        self.command(&Command::Put(Put {
            key: b"5.1",
            mode: Mode::Set,
            flags: 0,
            exptime: Exptime(0),
            body: &[b'v'; 600],
        }))
    }

    /// A turn of these commands, to its end.
    pub(super) fn turn(&mut self, commands: &[Command<'_>]) {
        self.begin();
        for command in commands {
            self.command(command).unwrap();
        }
        self.end_turn();
        self.sync();
    }

    /// True if the store has an entry of that key.
    pub(super) fn holds(&mut self, key: &[u8]) -> bool {
        let fetch = Fetch {
            keys: [key].into_iter().collect(),
            touch: None,
        };
        let answer = self.engine.execute(&mut self.turn, &Command::Fetch(fetch));
        matches!(answer.unwrap().reply, Reply::Hits(hits) if hits[0].is_some())
    }

    /// Carries out a command; a value that it needs and that is away is read first.
    fn carry_out(&mut self, command: &Command<'_>) -> Result<Answer, Refusal> {
        loop {
            match self.engine.execute(&mut self.turn, command) {
                Ok(mut answer) => {
                    if let (Command::Meta(_), Some(cold)) = (command, answer.cold.first()) {
                        let blob = self.engine.read_cold(cold)?;
                        answer.complete(blob);
                    }
                    return Ok(answer);
                }
                Err(Halt::Cold(cold)) => self.engine.warm(&cold, self.engine.read_cold(&cold)?),
                Err(Halt::Refused(refusal)) => return Err(refusal),
            }
        }
    }

    /// Carries out a command, here and in the model. An error is a refusal of the storage.
    fn command(&mut self, command: &Command<'_>) -> Result<Waiting, Refusal> {
        let answer = match self.carry_out(command) {
            Ok(answer) => answer,
            Err(refusal) => {
                let storage = matches!(
                    refusal,
                    Refusal::DiskFull | Refusal::StorageFailed | Refusal::StorageStalled
                );
                let unreadable = matches!(refusal, Refusal::Unreadable { .. });
                let told = storage || (unreadable && self.disk.may_fail());
                assert!(told, "{command:?}: {refusal}");
                return Err(refusal);
            }
        };
        let now = self.turn.now;
        let mut past = self.past();
        let mut state = past.now().clone();
        let reply = state.apply(command, now, answer.seq);
        if !matches!(command, Command::Fetch(_)) {
            assert_eq!(answer.reply, reply, "{command:?}");
        }
        if answer.wrote {
            past.states.push((answer.seq, state));
        } else {
            for key in KEYS {
                assert_eq!(state.get(key, now), past.now().get(key, now), "{command:?}");
            }
        }
        drop(past);
        let waiting = Waiting {
            seq: answer.seq,
            wrote: answer.wrote,
        };
        self.waiting.push(waiting);
        Ok(waiting)
    }

    /// Ends a turn as a worker does: writes, then lets the answers go that need not wait.
    pub(super) fn end_turn(&mut self) -> Vec<Waiting> {
        let failed = self.engine.flush().is_err();
        if !failed {
            let appended = self.engine.journal().appended();
            self.past().flushed = appended;
        }
        self.settle(failed)
    }

    /// Does what the sync thread would do now, has values leave memory, and lets the answers go
    /// that waited for the sync.
    pub(super) fn sync(&mut self) -> Vec<Waiting> {
        self.engine.journal().run_due();
        self.engine.put_away();
        self.settle(self.engine.journal().failed().is_some())
    }

    /// Lets answers go. If the storage has failed, what became of them is not known.
    pub(super) fn settle(&mut self, failed: bool) -> Vec<Waiting> {
        let journal = self.engine.journal();
        let (left, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<Vec<_>, _>(|answer| {
                failed || !journal.must_wait(answer.seq, answer.wrote)
            });
        self.waiting = waiting;
        if failed {
            return Vec::new();
        }
        let newest = left.iter().map(|answer| answer.seq).max().unwrap_or(0);
        let mut past = self.past();
        past.promised = past.promised.max(newest);
        drop(past);
        left
    }

    /// An operator moves the data files away and has the store begin new ones.
    pub(super) fn move_files(&mut self) -> Result<(), JournalError> {
        for name in self.disk.names() {
            if matches!(
                Name::parse(&name),
                Some(Name::Segment(_) | Name::Snapshot(_))
            ) {
                self.disk.move_file(&name, &format!("old-{name}"));
            }
        }
        self.engine.snapshot(self.engine.journal().files_moved())?;
        for name in self.disk.names() {
            if name.starts_with("old-") {
                self.disk.unlink(&name);
            }
        }
        Ok(())
    }

    /// A turn of a few commands, and whatever else may happen in the life of a store.
    pub(super) fn live(&mut self, random: &mut Random) {
        self.clock.pass_us(random.below(900_000));
        self.begin();
        for _ in 0..=random.below(3) {
            let _ = self.execute(&Words::any(random));
        }
        self.end_turn();
        match random.below(16) {
            0 => drop(self.engine.snapshot(false)),
            1 => drop(self.move_files()),
            2 => drop(self.engine.journal().rotate()),
            3..11 => drop(self.sync()),
            _ => {}
        }
        if self.engine.journal().failed().is_some() && random.one_in(3) {
            self.disk.heal();
            drop(self.engine.snapshot(random.one_in(4)));
        }
        self.settle(self.engine.journal().failed().is_some());
    }
}

/// Makes some call fail, in some way, once or for ever; or none.
pub(super) fn some_fault(disk: &SimDisk, random: &mut Random, within: u64) {
    let fault = Fault::ALL[random.below(5) as usize];
    let forever = random.one_in(2);
    match random.below(4) {
        0 => disk.fail(disk.calls() + 1 + random.below(within), forever, fault),
        1 => {
            let only = Call::ALL[random.below(Call::ALL.len() as u64) as usize];
            disk.fail_only(only, 1 + random.below(within / 8), forever, fault);
        }
        _ => {}
    }
}
