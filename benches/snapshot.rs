//! What clients feel while a snapshot is taken, beside Redis (if it is installed) with BGSAVE and
//! BGREWRITEAOF: `cargo bench --bench snapshot [-- COUNTERS [WINDOWS]]`.
//!
//! Each server holds 10,000,000 counters and 200 indexes of 1,000 random ids, with its log synced
//! every second. The load is open: 20,000 sets and 500 fan-outs a second over 5 connections, each
//! sent at its moment, from which its latency counts (`support/open.rs`).
//! Windows with and without a snapshot take turns, five of each or WINDOWS. Memory is the
//! proportional set size of the server and its children, beside what it was before the first
//! window. "Stolen" is what the host of a virtual machine took.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    reason = "a measurement that cannot go on says so and stops"
)]

mod support;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::figures::median;
use support::open::{self, Stream};
use support::server::{Config, Cores, Program, Server};
use support::wire::{Dialect, words};

const COUNTERS: usize = 10_000_000;
const INDEXES: usize = 200;
const MEMBERS: usize = 1000;
const RUNS: usize = 5;
/// Connections that set, and the sets a second of each.
const SETTERS: (u64, u64) = (4, 5000);
const FAN_OUTS_PER_S: u64 = 500;
/// How often memory is read, which takes a core some milliseconds for a gigabyte.
const SAMPLED_EVERY: Duration = Duration::from_millis(250);
/// A window without a snapshot.
const QUIET: Duration = Duration::from_secs(4);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Work {
    Snapshot,
    BgSave,
    BgRewriteAof,
}

/// The time of all cores since the machine began, in hundredths of a second.
#[derive(Clone, Copy)]
struct Cpu {
    busy: f64,
    idle: f64,
    /// What the host of a virtual machine took away: while it does, everything stands still.
    stolen: f64,
}

impl Cpu {
    fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap();
        let all = text.lines().next().unwrap().split_whitespace().skip(1);
        let all: Vec<f64> = all.map(|ticks| ticks.parse().unwrap()).collect();
        Self {
            busy: all[0] + all[1] + all[2] + all[5] + all[6],
            idle: all[3] + all[4],
            stolen: all[7],
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            busy: self.busy - before.busy,
            idle: self.idle - before.idle,
            stolen: self.stolen - before.stolen,
        }
    }

    fn busy_percent(&self) -> f64 {
        (self.busy + self.stolen) / (self.busy + self.idle + self.stolen) * 100.0
    }
}

/// Splitmix64: the same ids in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) % end as u64) as usize
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        self.below(1 << 20) as f64 / f64::from(1 << 20)
    }
}

/// Without snapshots of its own accord.
fn start(dialect: Dialect) -> Option<Server> {
    let config = Config {
        data: "compact_min = \"100g\"",
        ..Config::default()
    };
    let redis = "--appendonly yes --appendfsync everysec --auto-aof-rewrite-percentage 0";
    match dialect {
        Dialect::Memcached => Server::start("ours", Program::Ours(config), Cores::All),
        Dialect::Redis => Server::start("Redis", Program::Redis(redis), Cores::All),
    }
}

fn load(server: &Server, counters: usize) {
    let (mut client, dialect) = (server.connect(), server.dialect);
    client.fill(counters as u64, |id, out| {
        dialect.set(out, &format!("2.{id}"), "1");
    });
    let mut random = Random(1);
    client.fill(INDEXES as u64, |index, out| {
        let ids = (0..MEMBERS).map(|_| random.below(counters));
        let ids = ids.map(|id| u32::try_from(id).unwrap());
        dialect.add_members(out, &format!("1.{index}"), ids);
    });
}

impl Work {
    fn dialect(self) -> Dialect {
        match self {
            Self::Snapshot => Dialect::Memcached,
            Self::BgSave | Self::BgRewriteAof => Dialect::Redis,
        }
    }

    /// Begins it; the answer waits until it is done.
    fn begin(self, server: &Server) -> JoinHandle<()> {
        let mut client = server.connect();
        std::thread::spawn(move || match self {
            Self::Snapshot => assert_eq!(client.ask("snapshot\r\n"), "OK"),
            Self::BgSave | Self::BgRewriteAof => {
                client.ask(format!("{self:?}\r\n"));
                loop {
                    std::thread::sleep(Duration::from_millis(20));
                    let bulk = client.ask("INFO persistence\r\n").trim_start_matches('$');
                    let len = bulk.parse().unwrap();
                    let text = client.block(len);
                    let busy = ["rdb_bgsave_in_progress:1", "aof_rewrite_in_progress:1"];
                    if !busy.iter().any(|busy| text.contains(busy)) {
                        return;
                    }
                }
            }
        })
    }
}

const SCRIPT: &str = "local m = redis.call('SMEMBERS', KEYS[1]) \
                      for i = 1, #m do redis.call('INCR', '2.' .. m[i]) end return #m";

/// The load: sets of single counters, and fan-outs.
fn streams(server: &Server, counters: usize) -> Vec<Stream> {
    let dialect = server.dialect;
    let setter = |seed| {
        let mut random = Random(seed);
        let timing = (SETTERS.1, random.share());
        Stream::new(server.connect(), timing, move |out| {
            dialect.set(out, &format!("2.{}", random.below(counters)), "7");
        })
    };
    let mut random = Random(7);
    let timing = (FAN_OUTS_PER_S, random.share());
    let fan_outs = Stream::new(server.connect(), timing, move |out| {
        let index = format!("1.{}", random.below(INDEXES));
        match dialect {
            Dialect::Memcached => dialect.incr(out, &index),
            Dialect::Redis => words(out, &["EVAL", SCRIPT, "1", &index]),
        }
    });
    (0..SETTERS.0)
        .map(|at| setter(at + 100))
        .chain([fan_outs])
        .collect()
}

fn window(server: &Server, work: Option<Work>, counters: usize, memory: u64) -> Window {
    let stop = Arc::new(AtomicBool::new(false));
    let process = server.process();
    let (streams, stopped) = (streams(server, counters), Arc::clone(&stop));
    let load = std::thread::spawn(move || open::run(streams, &stopped));
    let peak = Arc::new(AtomicU64::new(0));
    let (sampled, ended) = (Arc::clone(&peak), Arc::clone(&stop));
    let watcher = std::thread::spawn(move || {
        while !ended.load(Relaxed) {
            sampled.fetch_max(process.proportional_bytes(), Relaxed);
            std::thread::sleep(SAMPLED_EVERY);
        }
    });
    std::thread::sleep(Duration::from_millis(300));
    let (begun, cpu) = (Instant::now(), Cpu::now());
    match work {
        None => std::thread::sleep(QUIET),
        Some(work) => work.begin(server).join().unwrap(),
    }
    let (took, machine) = (begun.elapsed(), Cpu::now().since(cpu));
    stop.store(true, Relaxed);
    let open::Answers {
        mut latencies,
        in_time,
    } = load.join().unwrap();
    watcher.join().unwrap();
    latencies.sort_unstable();
    let at = |share: f64| f64::from(latencies[(latencies.len() as f64 * share) as usize]) / 1000.0;
    Window {
        took,
        machine,
        requests_per_s: in_time as f64 / (took + Duration::from_millis(300)).as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        growth: peak.load(Relaxed) as f64 / memory as f64 - 1.0,
    }
}

struct Window {
    took: Duration,
    /// What the machine did meanwhile.
    machine: Cpu,
    requests_per_s: f64,
    /// Latencies in milliseconds.
    p50: f64,
    p99: f64,
    p999: f64,
    /// Of the memory, as a share of what it was before.
    growth: f64,
}

fn report(work: Work, quiet: &[Window], busy: &[Window], holds: &[u64]) {
    let of = |windows: &[Window], figure: fn(&Window) -> f64| {
        median(windows.iter().map(figure).collect())
    };
    let row = |name: &str, windows: &[Window]| {
        println!(
            "| {name} | {:.1} | {:.0} | {:.2} | {:.2} | {:.2} | {:+.0} % | {:.0} % | {:.0} |",
            of(windows, |window| window.took.as_secs_f64()),
            of(windows, |window| window.requests_per_s),
            of(windows, |window| window.p50),
            of(windows, |window| window.p99),
            of(windows, |window| window.p999),
            of(windows, |window| window.growth * 100.0),
            of(windows, |window| window.machine.busy_percent()),
            of(windows, |window| window.machine.stolen * 10.0),
        );
    };
    row(&format!("without {work:?}"), quiet);
    row(&format!("{work:?}"), busy);
    let ratio = of(busy, |window| window.p999) / of(quiet, |window| window.p999);
    println!("| ratio | | | | | {ratio:.2} | | | |");
    if let Some(max) = holds.iter().max() {
        println!(
            "\nlongest hold of a lock: {max} us (worst of {} windows)\n",
            holds.len()
        );
    }
}

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|arg| arg.parse().ok());
    let counters = numbers.next().unwrap_or(COUNTERS);
    let runs = numbers.next().unwrap_or(RUNS);
    println!("{counters} counters, {INDEXES} indexes of {MEMBERS}; medians of {runs} windows\n");
    println!(
        "| | seconds | requests/s | p50 ms | p99 ms | p99.9 ms | memory | cores busy | stolen ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut server: Option<Server> = None;
    for work in [Work::Snapshot, Work::BgSave, Work::BgRewriteAof] {
        let fits = |server: &Server| server.dialect == work.dialect();
        if !server.as_ref().is_some_and(fits) {
            // One at a time: each takes gigabytes.
            drop(server.take());
            server = start(work.dialect());
            if let Some(server) = &server {
                load(server, counters);
            }
        }
        let Some(server) = &server else { continue };
        let memory = server.process().proportional_bytes();
        window(server, None, counters, memory);
        let (mut quiet, mut busy, mut holds) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..runs {
            quiet.push(window(server, None, counters, memory));
            if work == Work::Snapshot {
                assert_eq!(server.connect().ask("stats reset\r\n"), "RESET");
            }
            busy.push(window(server, Some(work), counters, memory));
            holds.extend(server.stat("lock_hold_max_us"));
        }
        report(work, &quiet, &busy, &holds);
    }
}
