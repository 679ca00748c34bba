//! What the parts of a request take, without sockets: `cargo bench --bench micro [-- FILTER]`.
//!
//! Parsing; commands carried out on the store alone (types that are not durable); records put into
//! the journal; the fan-out, and a snapshot. A turn is 64 requests for keys in no order, as a
//! pipeline brings them; journals and snapshots are files, and not synced but where they must be.
//! To count instructions, see README.md.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a measurement that cannot go on says so and stops"
)]

mod support;

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use storage_server::clock::Expiry;
use storage_server::command::{Change, Command};
use storage_server::config::Config;
use storage_server::engine::Engine;
use storage_server::journal::disk::FileDisk;
use storage_server::journal::{Fsync, Options, room_bytes};
use storage_server::key::{Key, TypedKey};
use storage_server::protocol::memcached::Action;
use storage_server::protocol::memcached::parse::{Parser, Step};
use storage_server::server::shared::settings;
use storage_server::value::{Blob, Delta, Member, Value};
use support::server::scratch;
use support::wire::scrambled;
use tempfile::TempDir;

/// Requests of a turn.
const TURN: u32 = 64;
/// Entries of each type in a store.
const ENTRIES: u32 = 100_000;
const COUNTERS: u32 = 1_000_000;
const MEMBERS: u32 = 1000;
const VALUE_MAX: usize = 1 << 20;
const VALUE: &str = "0123456789abcdef0123456789abcdef";

fn main() {
    divan::main();
}

/// A request, `#` standing for an id; shown by its line.
struct Asked(&'static str);

impl fmt::Display for Asked {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0.lines().next().unwrap_or_default())
    }
}

/// Ids of entries, in no order.
fn ids(entries: u32) -> impl Iterator<Item = u32> {
    let id = move |at| (u64::from(scrambled(at)) * u64::from(entries)) >> 32;
    (0..).map(move |at| u32::try_from(id(at)).unwrap())
}

/// A storage request.
fn storage(verb: &str, key: &str, value: &str) -> String {
    format!("{verb} {key} 0 0 {}\r\n{value}\r\n", value.len())
}

/// A turn's requests.
fn turn(request: &str) -> Vec<u8> {
    let ids = ids(ENTRIES).take(TURN as usize);
    let requests = ids.map(|id| request.replace('#', &id.to_string()));
    requests.collect::<String>().into_bytes()
}

fn commands(mut input: &[u8]) -> Vec<Command<'_>> {
    let (mut parser, mut commands) = (Parser::default(), Vec::new());
    while !input.is_empty() {
        let (taken, step) = parser.next(input, VALUE_MAX);
        let Step::Request(request) = step else {
            panic!("{step:?}")
        };
        let Action::Data(command) = request.action else {
            panic!("{request:?}")
        };
        commands.push(command);
        input = input.get(taken..).unwrap();
    }
    commands
}

const PARSED: &[Asked] = &[
    Asked("get 2.#\r\n"),
    Asked("get key:#\r\n"),
    Asked("set 3.# 0 0 32\r\n0123456789abcdef0123456789abcdef\r\n"),
    Asked("incr 2.# 1\r\n"),
    Asked("mg 2.# v f t\r\n"),
    Asked("ms 3.# 32 T0\r\n0123456789abcdef0123456789abcdef\r\n"),
    Asked("ma 2.# v\r\n"),
];

#[divan::bench(args = PARSED)]
fn parse(bencher: Bencher<'_, '_>, request: &Asked) {
    let input = turn(request.0);
    bencher.counter(ItemsCount::new(TURN)).bench_local(|| {
        let (mut parser, mut at) = (Parser::default(), 0);
        while let (taken @ 1.., step) = parser.next(input.get(at..).unwrap(), VALUE_MAX) {
            divan::black_box(step);
            at += taken;
        }
        at
    });
}

/// An engine on files of its own.
struct Home {
    engine: Engine,
    _dir: TempDir,
}

impl Home {
    fn new(config: &str) -> Self {
        let dir = scratch();
        let config = Config::parse(config, "config.ini").unwrap();
        let options = Options {
            fsync: Fsync::Never,
            ..Options::default()
        };
        let disk = Arc::new(FileDisk::open(dir.path()).unwrap());
        let mut watch = |_: &_| ControlFlow::Continue(());
        let opened = Engine::open(disk, options, settings(&config), &config.types, &mut watch);
        let (engine, _) = opened.unwrap();
        Self { engine, _dir: dir }
    }

    /// As a worker carries out what has arrived.
    fn execute(&self, commands: &[Command<'_>]) {
        let mut turn = self.engine.turn();
        for command in commands {
            divan::black_box(self.engine.execute(&mut turn, command)).unwrap();
        }
        self.engine.flush().unwrap();
    }

    /// Carries out a request for each of these ids, `#` standing for it.
    fn fill(&self, ids: impl Iterator<Item = u32>, request: &str) {
        let requests = ids.map(|id| request.replace('#', &id.to_string()));
        let requests: Vec<_> = requests.collect();
        for some in requests.chunks(1000) {
            self.execute(&commands(some.concat().as_bytes()));
        }
    }
}

const VOLATILE: &str = "
[server]
named_keys_durable = false
[types]
3 = { kind = \"DATA\", durable = false }
4 = { kind = \"COUNTER\", durable = false }
5 = { kind = \"INDEX\", durable = false, target = 4 }
";

const STORED: &[Asked] = &[
    Asked("get 4.#\r\n"),
    Asked("set 4.# 0 0 1\r\n7\r\n"),
    Asked("incr 4.# 1\r\n"),
    Asked("get 3.#\r\n"),
    Asked("set 3.# 0 0 32\r\n0123456789abcdef0123456789abcdef\r\n"),
    Asked("get key:#\r\n"),
    Asked("set key:# 0 0 32\r\n0123456789abcdef0123456789abcdef\r\n"),
    Asked("append 5.# 0 0 2\r\n17\r\n"),
];

#[divan::bench(args = STORED)]
fn store(bencher: Bencher<'_, '_>, request: &Asked) {
    let home = Home::new(VOLATILE);
    home.fill(0..ENTRIES, &storage("set", "4.#", "1"));
    home.fill(0..ENTRIES, &storage("set", "3.#", VALUE));
    home.fill(0..ENTRIES, &storage("set", "key:#", VALUE));
    home.fill(0..ENTRIES, &storage("set", "5.#", "1\n20\n300"));
    let input = turn(request.0);
    let commands = commands(&input);
    let bencher = bencher.counter(ItemsCount::new(TURN));
    bencher.bench_local(|| home.execute(&commands));
}

#[divan::bench(args = ["number", "item of 32 bytes", "member", "fan-out"])]
fn journal(bencher: Bencher<'_, '_>, change: &str) {
    let home = Home::new("");
    let (journal, time) = (home.engine.journal(), home.engine.turn().now);
    let ids = ids(ENTRIES).take(TURN as usize);
    let changes: Vec<_> = ids.map(|id| record(change, id)).collect();
    let bencher = bencher.counter(ItemsCount::new(TURN));
    bencher.bench_local(|| {
        for change in &changes {
            let room = journal.reserve(room_bytes(1, 64)).unwrap();
            journal.append(time, change, room);
        }
        journal.flush().unwrap();
    });
}

fn record(change: &str, id: u32) -> Change<'static> {
    let key = |prefix| TypedKey { prefix, id };
    match change {
        "number" => Change::Number {
            key: Key::Typed(key(2)),
            number: u64::from(id),
        },
        "item of 32 bytes" => Change::Put {
            key: Key::Typed(key(3)),
            value: Value::Data(Blob::unnamed(VALUE.as_bytes())),
            flags: 0,
            expires: Expiry::NEVER,
        },
        "member" => Change::Members {
            key: key(1),
            create: None,
            added: vec![Member { id, attribute: 0 }].into(),
            removed: Vec::new().into(),
        },
        _ => Change::FanOut {
            index: key(1),
            target: 2,
            delta: Delta {
                negative: false,
                amount: 1,
            },
        },
    }
}

/// Over 1,000 of a million counters, with its record.
#[divan::bench]
fn fan_out(bencher: Bencher<'_, '_>) {
    let home = Home::new("");
    home.fill(0..COUNTERS, &storage("set", "2.#", "0"));
    let mut counters = ids(COUNTERS);
    let indexes = (1..=TURN).map(|index| {
        let ids = counters.by_ref().take(MEMBERS as usize);
        let body: Vec<_> = ids.map(|id| id.to_string()).collect();
        storage("set", &format!("1.{index}"), &body.join("\n"))
    });
    home.execute(&commands(indexes.collect::<String>().as_bytes()));
    let input = (1..=TURN).map(|index| format!("incr 1.{index} 1\r\n"));
    let input: Vec<_> = input.collect();
    let input = input.concat();
    let commands = commands(input.as_bytes());
    let bencher = bencher.counter(ItemsCount::new(TURN * MEMBERS));
    bencher.bench_local(|| home.execute(&commands));
}

/// Of a million counters, or as many items of 32 bytes as there are entries elsewhere.
#[divan::bench(args = ["counters", "items"], sample_count = 5, sample_size = 1)]
fn snapshot(bencher: Bencher<'_, '_>, what: &str) {
    let home = Home::new("[types]\n3 = \"DATA\"\n");
    let entries = if what == "counters" {
        home.fill(0..COUNTERS, &storage("set", "2.#", "7"));
        COUNTERS
    } else {
        home.fill(0..ENTRIES, &storage("set", "3.#", VALUE));
        ENTRIES
    };
    let bencher = bencher.counter(ItemsCount::new(entries));
    bencher.bench_local(|| home.engine.snapshot(false).unwrap());
}
