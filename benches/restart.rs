//! How long a start takes that loads a snapshot or replays a journal, beside Redis (if it is
//! installed) with its RDB and its AOF: `cargo bench --bench restart [-- COUNTERS ITEMS]`.
//!
//! Both hold the same keys, written by the same commands: counters `2.N`, every second one by
//! `set` and the others by `incr`, and items `3.N` of 32 bytes. Redis writes its AOF without a
//! preamble and without a rewrite, and its RDB with SAVE. What is measured is the time from
//! starting the program until it answers, the files being in the page cache; each figure is the
//! median of three runs that take turns. To see one core: `taskset -c 0 cargo bench ...`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that cannot go on says so and stops"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::figures::median;
use support::server::{Config, Cores, Program, Server, scratch};
use support::wire::Dialect;

const COUNTERS: u64 = 10_000_000;
const ITEMS: u64 = 1_000_000;
const RUNS: usize = 3;

const OURS: Program<'_> = Program::Ours(Config {
    server: "",
    data: "compact_min = \"100g\"",
    types: "3 = \"DATA\"",
});
const REDIS_RDB: Program<'_> = Program::Redis("--appendonly no");
const REDIS_AOF: Program<'_> =
    Program::Redis("--appendonly yes --aof-use-rdb-preamble no --auto-aof-rewrite-percentage 0");

fn start(program: Program<'_>, dir: &Path) -> Server {
    Server::start_in("a server", program, Cores::All, dir)
}

fn entries(server: &Server) -> u64 {
    match server.dialect {
        Dialect::Memcached => server.stat("curr_items").unwrap(),
        Dialect::Redis => {
            let mut client = server.connect();
            let reply = client.ask("DBSIZE\r\n");
            reply.trim_start_matches(':').parse().unwrap()
        }
    }
}

/// Counters, every second one made by `incr`, and items.
fn fill(server: &Server, counters: u64, items: u64) {
    let (mut client, dialect) = (server.connect(), server.dialect);
    client.fill(counters, |id, out| {
        let key = format!("2.{id}");
        if id % 2 == 1 {
            dialect.incr(out, &key);
        } else {
            dialect.set(out, &key, &id.to_string());
        }
    });
    client.fill(items, |id, out| {
        dialect.set(out, &format!("3.{id}"), &format!("{id:032}"));
    });
    assert_eq!(entries(server), counters + items);
}

/// A journal and no snapshot but the empty one that a store begins with.
fn prepare_journal(dir: &Path, counters: u64, items: u64) {
    let server = start(OURS, dir);
    fill(&server, counters, items);
    server.shut_down();
    assert!(
        dir.join("data/snapshot-0000000001").exists(),
        "a snapshot was made"
    );
}

/// The same state as a snapshot: the files are moved away, and `reopen` makes new ones.
fn prepare_snapshot(journal: &Path, dir: &Path) {
    let (data, old) = (dir.join("data"), dir.join("old"));
    fs::create_dir_all(&data).unwrap();
    fs::create_dir_all(&old).unwrap();
    for entry in fs::read_dir(journal.join("data")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), data.join(entry.file_name())).unwrap();
    }
    let server = start(OURS, dir);
    for entry in fs::read_dir(&data).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if name.to_string_lossy().contains('-') {
            fs::rename(entry.path(), old.join(name)).unwrap();
        }
    }
    assert_eq!(server.connect().ask("reopen\r\n"), "OK");
    server.shut_down();
    fs::remove_dir_all(old).unwrap();
}

fn prepare_redis(dir: &Path, counters: u64, items: u64) {
    let server = start(REDIS_AOF, dir);
    fill(&server, counters, items);
    assert_eq!(server.connect().ask("SAVE\r\n"), "+OK");
    server.shut_down();
}

fn bytes_of(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                bytes_of(&entry.path())
            } else {
                entry.metadata().unwrap().len()
            }
        })
        .sum()
}

struct Row {
    name: &'static str,
    program: Program<'static>,
    dir: PathBuf,
    /// What is read, below `dir`.
    files: &'static str,
    seconds: Vec<f64>,
    /// Resident at its height and when it answered.
    memory: (u64, u64),
}

impl Row {
    fn run(&mut self, expected: u64) {
        let server = start(self.program, &self.dir);
        let mib = |name| server.process().status_bytes(name) >> 20;
        self.memory = (mib("VmHWM:"), mib("VmRSS:"));
        assert_eq!(entries(&server), expected);
        self.seconds.push(server.took.as_secs_f64());
        if server.dialect == Dialect::Memcached {
            server.shut_down();
        }
    }

    fn median(&self) -> f64 {
        median(self.seconds.clone())
    }
}

fn main() {
    let numbers = std::env::args().filter_map(|word| word.parse().ok());
    let numbers: Vec<u64> = numbers.collect();
    let counters = numbers.first().copied().unwrap_or(COUNTERS);
    let items = numbers.get(1).copied().unwrap_or(ITEMS);
    let home = scratch();
    let dir = |name: &str| home.path().join(name);
    let row = |name, program, dir, files| Row {
        name,
        program,
        dir,
        files,
        seconds: Vec::new(),
        memory: (0, 0),
    };
    for name in ["journal", "snapshot", "redis"] {
        fs::create_dir(dir(name)).unwrap();
    }
    prepare_journal(&dir("journal"), counters, items);
    prepare_snapshot(&dir("journal"), &dir("snapshot"));
    let mut rows = vec![
        row("snapshot", OURS, dir("snapshot"), "data"),
        row("journal", OURS, dir("journal"), "data"),
    ];
    if REDIS_AOF.is_installed() {
        prepare_redis(&dir("redis"), counters, items);
        rows.push(row("Redis RDB", REDIS_RDB, dir("redis"), "dump.rdb"));
        rows.push(row("Redis AOF", REDIS_AOF, dir("redis"), "appendonlydir"));
    }
    for _ in 0..RUNS {
        for row in &mut rows {
            row.run(counters + items);
        }
    }
    print_table(&rows, counters, items);
}

fn print_table(rows: &[Row], counters: u64, items: u64) {
    let cores = std::thread::available_parallelism().unwrap();
    println!("{counters} counters, {items} items of 32 bytes, {cores} cores, {RUNS} runs");
    println!("| start from | MB on disk | seconds until it answers | resident MiB at most, then |");
    println!("|---|---|---|---|");
    for row in rows {
        let path = row.dir.join(row.files);
        let bytes = if path.is_dir() {
            bytes_of(&path)
        } else {
            fs::metadata(&path).unwrap().len()
        };
        let runs: Vec<_> = row
            .seconds
            .iter()
            .map(|time| format!("{time:.2}"))
            .collect();
        println!(
            "| {} | {} | **{:.2}** ({}) | {}, {} |",
            row.name,
            bytes / 1_000_000,
            row.median(),
            runs.join(", "),
            row.memory.0,
            row.memory.1
        );
    }
    if let [snapshot, journal, rdb, aof] = rows {
        println!(
            "as fast as Redis: snapshot {:.1} times, journal {:.1} times",
            rdb.median() / snapshot.median(),
            aof.median() / journal.median()
        );
    }
}
