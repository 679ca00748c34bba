//! A start gives the state that was left, with any number of threads: the same entries, cas
//! uniques included, as one record after the other gives; and the same refusal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::sync::Arc;

use storage_server::clock::{Expiry, Time};
use storage_server::command::Change;
use storage_server::config;
use storage_server::engine::{Engine, OpenError};
use storage_server::journal::disk::Disk;
use storage_server::journal::sim::SimDisk;
use storage_server::journal::{
    self, Fsync, Journal, Options, Progress, Replay, ReplayError, room_bytes,
};
use storage_server::key::{Key, TypedKey};
use storage_server::server::shared::settings;
use storage_server::store::Store;
use storage_server::store::locks::{ShardSet, WriteSet};
use storage_server::store::shard::{Shard, Stamp};
use storage_server::value::{Delta, Entry, Index, Member, Value};

use crate::support::memory::MemoryServer;
use crate::support::{Config, Random, setting};

/// All that a store holds, whatever its hashing is.
#[derive(Debug, PartialEq)]
struct State {
    entries: BTreeMap<String, String>,
    last_seq: u64,
    pending_flush: String,
}

fn state(store: &Store) -> State {
    let shards = store.read_set(ShardSet::ALL);
    let mut entries = BTreeMap::new();
    for shard in shards.shards() {
        let Ok(()) = shard.for_each(Time(0), |key, view| {
            // Without what is in memory only: when it was used, and how often.
            let old = entries.insert(key.to_string(), format!("{:?}", view.to_entry()));
            assert_eq!(old, None, "{key} twice");
            Ok::<_, std::convert::Infallible>(())
        });
    }
    let last_seq = shards.shards().map(Shard::last_seq).max();
    State {
        entries,
        last_seq: last_seq.unwrap(),
        pending_flush: format!("{:?}", store.pending_flush()),
    }
}

/// The plainest replay: each record when it comes.
struct OneByOne<'s> {
    store: &'s Store,
    shards: WriteSet<'s>,
}

impl Replay for OneByOne<'_> {
    fn entry(&mut self, key: Key<'_>, entry: Entry) -> Result<(), ReplayError> {
        let (seq, time) = (0, Time(0));
        let hash = self.store.hashing().key(key);
        self.shards
            .shard_mut(hash, Stamp { seq, time })
            .and_then(|shard| shard.restore(hash, key, entry, Stamp { seq, time }))
            .map_err(|misfit| ReplayError(misfit.to_string()))
    }

    fn change(&mut self, seq: u64, time: Time, change: Change<'_>) -> Result<(), ReplayError> {
        self.shards
            .apply(change, Stamp { seq, time })
            .map_err(|misfit| ReplayError(misfit.to_string()))
    }

    fn progress(&mut self, _progress: &Progress) -> Result<(), ReplayError> {
        Ok(())
    }
}

fn one_by_one(disk: &SimDisk) -> Result<State, String> {
    let store = Store::default();
    let mut replay = OneByOne {
        store: &store,
        shards: store.write_set(ShardSet::ALL),
    };
    journal::verify(disk, &mut replay).map_err(|error| error.to_string())?;
    drop(replay);
    Ok(state(&store))
}

fn open(disk: &SimDisk, options: Options) -> Result<Engine, OpenError> {
    let config = config::Config::parse(&Config::standard().text(), "config.ini").unwrap();
    let options = Options {
        background: false,
        fsync: Fsync::Never,
        ..options
    };
    let on: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut watch = |_: &Progress| ControlFlow::Continue(());
    Engine::open(on, options, settings(&config), &config.types, &mut watch).map(|opened| opened.0)
}

fn started(disk: &SimDisk, threads: usize) -> Result<State, String> {
    let options = Options {
        threads,
        ..Options::default()
    };
    open(disk, options)
        .map(|engine| state(engine.store()))
        .map_err(|error| error.to_string())
}

/// A key of some type, or a named one; half of the indexes and entries are there.
fn some_key(random: &mut Random) -> String {
    let id = random.below(2000);
    match random.below(8) {
        0 => format!("name{id}"),
        prefix @ (1 | 5 | 7) => format!("{prefix}.{}", id % 40),
        prefix => format!("{prefix}.{id}"),
    }
}

/// A meta command with what the classic ones do not have: marks, cas uniques of the client's own,
/// entries that a look or a step creates, members by `ms` and fan-outs by `ma`.
fn meta_command(random: &mut Random) -> String {
    let (key, id) = (some_key(random), random.below(2000));
    let expiry = [0, 1000, 2_000_000_000][random.below(3) as usize];
    let (number, index) = (random.below(1 << 31), random.below(40));
    match random.below(14) {
        0 => format!("md {key} I T{expiry}"),
        1 => format!("md {key} I\r\nmg {key} v"),
        2 => format!("md name{id} I E{number}\r\nms name{id} 1 I C{id}\r\n5"),
        3 => format!("md {key} x"),
        4 => format!("md name{id} x I F{} E{number}", id % 5),
        5 => format!("mg {key} N{expiry} v t"),
        6 => format!("mg {key} T{expiry} R3000 k"),
        7 => format!("ms name{id} 2 E{number} F3 T{expiry}\r\n42"),
        8 => format!("ms {key} 1 MA N{expiry} F{}\r\n7", id % 3),
        9 => format!("ms {key} 1 MP\r\n7"),
        10 => format!("ma {key} N{expiry} J{number} D7 T{expiry} v"),
        11 => format!("ma name{id} MD D{} E{number}", id % 9),
        12 => format!("ma {}.{index} D{}", [1, 5, 7][id as usize % 3], id % 9),
        _ => format!("ms bmFtZTE= 1 b E{number} c\r\n7"),
    }
}

/// Adds a command. With `alone` many are such as concern several shards.
fn add_command(text: &mut String, random: &mut Random, alone: bool) {
    if random.below(5) == 0 {
        write!(text, "{}\r\n", meta_command(random)).unwrap();
        return;
    }
    let id = random.below(2000);
    let number = random.below(1 << 32);
    let expiry = [0, 0, 0, 2_000_000_000][random.below(4) as usize];
    let flags = random.below(3);
    let bytes = "x".repeat(random.below(400) as usize);
    let length = bytes.len();
    let index = random.below(20);
    let members: Vec<_> = (0..random.below(30))
        .map(|_| format!("{} {}", random.below(3000), random.below(2)))
        .collect();
    let members = members.join("\n");
    let body = members.len();
    let digits = number.to_string().len();
    let set = |key: &str, value: &str| format!("{key} {flags} {expiry} {}\r\n{value}", value.len());
    let line = match random.below(if alone { 20 } else { 14 }) {
        0 | 1 => format!("set 2.{id} {flags} {expiry} {digits}\r\n{number}"),
        2 | 3 => format!("incr 2.{id} {}", number % 1000),
        4 => format!("decr 6.{id} {}", number % 1000),
        5 => format!("set 6.{id} {flags} {expiry} {digits}\r\n{number}"),
        6 => format!("set 3.{id} {flags} {expiry} {length}\r\n{bytes}"),
        7 => format!("append 3.{id} 0 0 {length}\r\n{bytes}"),
        8 => format!("set name{id} {flags} {expiry} {digits}\r\n{number}"),
        9 => format!("incr name{id} {}", number % 1000),
        10 => format!("prepend name{id} 0 0 1\r\n1"),
        11 => format!("delete {}.{id}", 2 + number % 2),
        12 => format!("touch {}.{id} {expiry}", 2 + number % 2),
        13 => format!("append 1.{index} 0 0 {body}\r\n{members}"),
        14 => format!("prepend 1.{index} 0 0 {body}\r\n{members}"),
        15 => format!("set 1.{index} {flags} {expiry} {body}\r\n{members}"),
        16 | 17 => format!("incr 1.{index} {}", number % 100),
        18 => format!("mset 2.{id} 0 0 1 3.{id} 0 0 2 name{id} 0 0 1\r\n1\r\n22\r\n3"),
        _ if number.is_multiple_of(400) => "flush_all".to_owned(),
        _ if number % 400 == 1 => "flush_all 100000".to_owned(),
        _ => format!("set {}", set(&format!("2.{id}"), "5")),
    };
    write!(text, "{line}\r\n").unwrap();
}

/// Not all that is asked for by meta commands suits the type of its key; all else is carried out.
fn is_fit(reply: &str) -> bool {
    let suits = [" does not apply to ", "non-numeric value"];
    !reply.contains("ERROR") || suits.iter().any(|why| reply.contains(why))
}

/// A disk with the journal of so many rounds of commands, and what the store was then.
fn history(seed: u64, rounds: u64, snapshot: bool) -> (SimDisk, State) {
    let server = MemoryServer::start(&Config::standard().text(), SimDisk::new());
    let mut wire = server.connect();
    let mut random = Random::new(seed);
    for round in 0..rounds {
        let alone = random.below(2) == 0;
        for _ in 0..random.below(60) {
            let mut text = String::new();
            for _ in 0..100 {
                add_command(&mut text, &mut random, alone);
            }
            let replies = wire.ask(text.as_bytes());
            let replies = String::from_utf8_lossy(&replies);
            let refused = replies.lines().find(|line| !is_fit(line));
            assert_eq!(refused, None);
        }
        if snapshot && round == rounds / 2 {
            assert_eq!(wire.ask(b"reopen\r\n"), b"OK\r\n");
        }
    }
    (server.disk.kill(), state(server.engine().store()))
}

#[test]
fn any_number_of_threads_gives_the_state_that_was_left() {
    let seed = Random::seed("replay");
    for round in 0..setting("STORAGE_SERVER_REPLAYS", 2) {
        let (disk, left) = history(seed + round, 40, round % 2 == 1);
        let plain = one_by_one(&disk).unwrap();
        assert!(plain == left, "one by one, seed {}", seed + round);
        for threads in [1, 2, 5] {
            let state = started(&disk.kill(), threads).unwrap();
            assert!(state == left, "{threads} threads, seed {}", seed + round);
        }
    }
}

#[test]
fn the_work_of_fan_outs_since_the_snapshot_is_known_after_a_start() {
    let server = MemoryServer::start(&Config::standard().text(), SimDisk::new());
    let mut wire = server.connect();
    let mut fan_out = |times| {
        for _ in 0..times {
            assert_eq!(wire.ask(b"incr 1.1 1\r\n"), b"3\r\n");
        }
        // One that is missing costs nothing.
        assert_eq!(wire.ask(b"incr 1.2 1\r\n"), b"NOT_FOUND\r\n");
    };
    let set = b"set 1.1 0 0 5\r\n5\n6\n7\r\n";
    assert_eq!(server.connect().ask(set), b"STORED\r\n");
    let is_due = |snapshot_work| {
        let options = Options {
            snapshot_work,
            ..Options::default()
        };
        let engine = open(&server.disk.kill(), options).unwrap();
        engine.journal().needs_snapshot(u64::MAX, 1)
    };
    fan_out(7);
    assert!(is_due(7 * 3) && !is_due(7 * 3 + 1));
    server.engine().snapshot(false).unwrap();
    assert!(!is_due(1));
    fan_out(4);
    assert!(is_due(4 * 3) && !is_due(4 * 3 + 1));
}

/// A journal of edits that fit, some of which concern several shards, and of these that do not
/// fit: each at its position. Answers where they are.
fn with_misfits(random: &mut Random, disk: &SimDisk) -> Vec<u64> {
    let store = Store::default();
    let mut replay = OneByOne {
        store: &store,
        shards: store.write_set(ShardSet::ALL),
    };
    let options = Options {
        background: false,
        fsync: Fsync::Never,
        ..Options::default()
    };
    let on: Arc<dyn Disk> = Arc::new(disk.clone());
    let (journal, _) = Journal::open(on, options, &mut replay).unwrap();
    let misfits: Vec<u64> = (0..random.below(4))
        .map(|_| random.below(RECORDS) + 1)
        .collect();
    let index = TypedKey { prefix: 1, id: 1 };
    let missing = TypedKey { prefix: 1, id: 2 };
    let ids = (0..50).map(|id| Member { id, attribute: 0 });
    let members = Value::Index(Arc::new(Index::from_members(ids.collect())));
    for seq in 1..=RECORDS {
        let typed = |prefix| TypedKey {
            prefix,
            id: (seq % 5000) as u32,
        };
        let fan_out = |index| Change::FanOut {
            index,
            target: 2,
            delta: Delta {
                negative: false,
                amount: 1,
            },
        };
        let put = |key, value| Change::Put {
            key: Key::Typed(key),
            value,
            flags: 0,
            expires: Expiry::NEVER,
        };
        let change = match (seq, random.below(3000)) {
            (1, _) => put(index, members.clone()),
            (_, 0) if misfits.contains(&seq) => fan_out(missing),
            _ if misfits.contains(&seq) => Change::Remove {
                key: Key::Typed(missing),
            },
            (_, 1) => fan_out(index),
            _ => put(typed(2), Value::Number(seq)),
        };
        let room = journal.reserve(room_bytes(1, 1000)).unwrap();
        assert_eq!(journal.append(Time(seq), &change, room), seq);
        if seq % 1000 == 0 {
            journal.flush().unwrap();
        }
    }
    journal.flush().unwrap();
    misfits
}

/// Enough for several windows.
const RECORDS: u64 = 800_000;

#[test]
fn any_number_of_threads_gives_the_same_refusal() {
    let seed = Random::seed("refusals");
    let mut random = Random::new(seed);
    for _ in 0..setting("STORAGE_SERVER_REFUSALS", 3) {
        let disk = SimDisk::new();
        let misfits = with_misfits(&mut random, &disk);
        let name = "journal-0000000002";
        let mut bytes = disk.read(name).unwrap();
        let damaged = random.below(2) == 0;
        if damaged {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1;
            disk.put(name, &bytes);
        }
        // Types that the journal does not have are declared by a start: a record more.
        let plain = one_by_one(&disk).map(|state| state.entries);
        assert!(plain.is_err() || misfits.is_empty() || damaged, "{seed}");
        for threads in [1, 2, 5] {
            let copy = disk.kill();
            let state = started(&copy, threads).map(|state| state.entries);
            assert!(
                state == plain,
                "{threads} threads, seed {seed}: {:?} instead of {:?}",
                state.err(),
                plain.err()
            );
            if state.is_err() {
                assert_eq!(copy.read(name).unwrap(), bytes, "it was changed");
            }
        }
    }
}
