//! How long a start takes that loads a snapshot or replays a journal, beside Redis (if it is
//! installed) with its RDB and its AOF: `cargo bench --bench restart [-- COUNTERS ITEMS]`.
//!
//! Both hold the same keys, written by the same commands: counters `2.N`, every second one by
//! `set` and the others by `incr`, and items `3.N` of 32 bytes. Redis writes its AOF without a
//! preamble and without a rewrite, and its RDB with SAVE. What is measured is the time from
//! starting the program until it answers, the files being in the page cache; each figure is the
//! median of three runs that take turns. To see one core: `taskset -c 0 cargo bench ...`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a measurement that cannot go on says so and stops"
)]

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const COUNTERS: usize = 10_000_000;
const ITEMS: usize = 1_000_000;
const RUNS: usize = 3;
/// How many requests are sent before their replies are read.
const PIPELINE: usize = 1000;
/// A start that takes longer is given up.
const LONGEST: Duration = Duration::from_mins(5);

#[derive(Clone, Copy, PartialEq)]
enum Program {
    Ours,
    RedisRdb,
    RedisAof,
}

/// A running server; ended when dropped.
struct Server {
    child: Child,
    port: u16,
    program: Program,
    /// How long it took until it answered.
    took: Duration,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn command(program: Program, dir: &Path, port: u16) -> Command {
    if program == Program::Ours {
        let config = dir.join("config.ini");
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:{port}\"\n[log]\nfile = \"{0}/log\"\n\
             [types]\n3 = \"DATA\"\n[data]\ndir = \"{0}/data\"\ncompact_min = \"100g\"\n",
            dir.display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_storage_server"));
        command.arg("-c").arg(config);
        return command;
    }
    let log = if program == Program::RedisAof {
        "yes"
    } else {
        "no"
    };
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
    command.args(["--save", "", "--appendonly", log]);
    command.args(["--aof-use-rdb-preamble", "no"]);
    command.args(["--auto-aof-rewrite-percentage", "0", "--dir"]);
    command.arg(dir);
    command
}

impl Server {
    fn start(program: Program, dir: &Path) -> Self {
        let port = free_port();
        let begun = Instant::now();
        let child = command(program, dir, port)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self {
            child,
            port,
            program,
            took: Duration::ZERO,
        };
        while !server.answers() {
            assert!(begun.elapsed() < LONGEST, "{}: no answer", dir.display());
            assert!(server.child.try_wait().unwrap().is_none(), "it has ended");
            std::thread::sleep(Duration::from_millis(2));
        }
        server.took = begun.elapsed();
        server
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LONGEST))?;
        Ok(stream)
    }

    /// Sends a line and reads one.
    fn ask(&self, line: &str) -> std::io::Result<String> {
        let mut stream = self.connect()?;
        stream.write_all(format!("{line}\r\n").as_bytes())?;
        let mut reply = String::new();
        BufReader::new(stream).read_line(&mut reply)?;
        Ok(reply)
    }

    fn answers(&self) -> bool {
        let (question, answer) = match self.program {
            Program::Ours => ("version", "VERSION"),
            Program::RedisRdb | Program::RedisAof => ("PING", "+PONG"),
        };
        self.ask(question)
            .is_ok_and(|reply| reply.starts_with(answer))
    }

    fn entries(&self) -> usize {
        if self.program != Program::Ours {
            let reply = self.ask("DBSIZE").unwrap();
            return reply.trim_start_matches(':').trim().parse().unwrap();
        }
        let mut stream = self.connect().unwrap();
        stream.write_all(b"stats\r\nquit\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("STAT curr_items "));
        line.unwrap().parse().unwrap()
    }

    /// A figure of `/proc/PID/status`, in MiB.
    fn memory(&self, name: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1024
    }

    /// Ends it by its own command, which makes everything durable.
    fn shut_down(mut self) {
        let line = match self.program {
            Program::Ours => "shutdown",
            Program::RedisRdb | Program::RedisAof => "SHUTDOWN NOSAVE",
        };
        let _ = self.ask(line);
        assert!(self.child.wait().unwrap().success());
    }

    fn fill(&self, counters: usize, items: usize) {
        let mut stream = self.connect().unwrap();
        let mut replies = BufReader::with_capacity(1 << 20, stream.try_clone().unwrap());
        let (mut text, mut reply) = (String::new(), Vec::new());
        let keys = (0..counters)
            .map(|id| (2, id))
            .chain((0..items).map(|id| (3, id)));
        let keys: Vec<_> = keys.collect();
        for keys in keys.chunks(PIPELINE) {
            text.clear();
            for (prefix, id) in keys {
                self.write(&mut text, *prefix, *id);
            }
            stream.write_all(text.as_bytes()).unwrap();
            for _ in keys {
                reply.clear();
                replies.read_until(b'\n', &mut reply).unwrap();
                assert!(
                    matches!(reply.first(), Some(b'S' | b'0'..=b'9' | b'+' | b':')),
                    "{}",
                    reply.escape_ascii()
                );
            }
        }
        assert_eq!(self.entries(), counters + items);
    }

    /// Adds the request that makes an entry.
    fn write(&self, text: &mut String, prefix: u16, id: usize) {
        let ours = self.program == Program::Ours;
        let value = match prefix {
            2 => id.to_string(),
            _ => format!("{id:032}"),
        };
        let key = format!("{prefix}.{id}");
        let (key_len, len) = (key.len(), value.len());
        match (ours, prefix == 2 && id % 2 == 1) {
            (true, true) => write!(text, "incr {key} 1\r\n"),
            (true, false) => write!(text, "set {key} 0 0 {len}\r\n{value}\r\n"),
            (false, true) => write!(text, "*2\r\n$4\r\nINCR\r\n${key_len}\r\n{key}\r\n"),
            (false, false) => write!(
                text,
                "*3\r\n$3\r\nSET\r\n${key_len}\r\n{key}\r\n${len}\r\n{value}\r\n"
            ),
        }
        .unwrap();
    }
}

/// A journal and no snapshot but the empty one that a store begins with.
fn prepare_journal(dir: &Path, counters: usize, items: usize) {
    let server = Server::start(Program::Ours, dir);
    server.fill(counters, items);
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
    let server = Server::start(Program::Ours, dir);
    for entry in fs::read_dir(&data).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if name.to_string_lossy().contains('-') {
            fs::rename(entry.path(), old.join(name)).unwrap();
        }
    }
    assert_eq!(server.ask("reopen").unwrap(), "OK\r\n");
    server.shut_down();
    fs::remove_dir_all(old).unwrap();
}

fn prepare_redis(dir: &Path, counters: usize, items: usize) {
    let server = Server::start(Program::RedisAof, dir);
    server.fill(counters, items);
    assert_eq!(server.ask("SAVE").unwrap(), "+OK\r\n");
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
    program: Program,
    dir: PathBuf,
    /// What is read, below `dir`.
    files: &'static str,
    seconds: Vec<f64>,
    /// Resident at its height and when it answered.
    memory: (usize, usize),
}

impl Row {
    fn run(&mut self, entries: usize) {
        let server = Server::start(self.program, &self.dir);
        self.memory = (server.memory("VmHWM"), server.memory("VmRSS"));
        assert_eq!(server.entries(), entries);
        self.seconds.push(server.took.as_secs_f64());
        if self.program == Program::Ours {
            server.shut_down();
        }
    }

    fn median(&self) -> f64 {
        let mut seconds = self.seconds.clone();
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    }
}

fn main() {
    let numbers = std::env::args().filter_map(|word| word.parse().ok());
    let numbers: Vec<usize> = numbers.collect();
    let counters = numbers.first().copied().unwrap_or(COUNTERS);
    let items = numbers.get(1).copied().unwrap_or(ITEMS);
    let home = tempfile::tempdir().unwrap();
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
        row("snapshot", Program::Ours, dir("snapshot"), "data"),
        row("journal", Program::Ours, dir("journal"), "data"),
    ];
    let with_redis = Command::new("redis-server")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok();
    if with_redis {
        prepare_redis(&dir("redis"), counters, items);
        rows.push(row(
            "Redis RDB",
            Program::RedisRdb,
            dir("redis"),
            "dump.rdb",
        ));
        rows.push(row(
            "Redis AOF",
            Program::RedisAof,
            dir("redis"),
            "appendonlydir",
        ));
    }
    for _ in 0..RUNS {
        for row in &mut rows {
            row.run(counters + items);
        }
    }
    print_table(&rows, counters, items);
}

fn print_table(rows: &[Row], counters: usize, items: usize) {
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
