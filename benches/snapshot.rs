//! What clients feel while a snapshot is taken, beside Redis (if it is installed) with BGSAVE and
//! BGREWRITEAOF: `cargo bench --bench snapshot [-- COUNTERS]`.
//!
//! Each server holds 10,000,000 counters and 200 indexes of 1,000 random ids, with its log synced
//! every second. The load is open: 20,000 sets and 500 fan-outs a second, each due at its moment,
//! over 5 connections; a latency counts from that moment if an earlier request made this one late.
//! Windows with and without a snapshot take turns, five of each. Memory is the proportional set
//! size of the server and its children. "Stolen" is what the host of a virtual machine took.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::format_collect,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a measurement that cannot go on says so and stops"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const COUNTERS: usize = 10_000_000;
const INDEXES: usize = 200;
const MEMBERS: usize = 1000;
const RUNS: usize = 5;
/// Connections that set, and the sets a second of each.
const SETTERS: (u64, u64) = (4, 5000);
const FAN_OUTS_PER_S: u64 = 500;
/// A window without a snapshot.
const QUIET: Duration = Duration::from_secs(4);
/// A snapshot that takes longer is given up.
const LONGEST: Duration = Duration::from_mins(2);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Work {
    Snapshot,
    BgSave,
    BgRewriteAof,
}

impl Work {
    fn is_ours(self) -> bool {
        self == Self::Snapshot
    }
}

/// A server; ended when dropped.
struct Server {
    child: Child,
    port: u16,
    ours: bool,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
}

impl Server {
    fn start(ours: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let path = dir.path().to_str().unwrap();
        let mut command = if ours {
            let config = format!("{path}/config.ini");
            let text = format!(
                "[server]\nlisten = \"127.0.0.1:{port}\"\n[log]\nlevel = \"warn\"\n\
                 [data]\ndir = \"{path}/data\"\ncompact_min = \"100g\"\n"
            );
            fs::write(&config, text).unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_storage_server"));
            command.args(["-c", &config]);
            command
        } else {
            let mut command = Command::new("redis-server");
            let line = format!(
                "--port {port} --bind 127.0.0.1 --dir {path} --appendonly yes \
                 --appendfsync everysec --auto-aof-rewrite-percentage 0"
            );
            command.args(line.split_whitespace()).args(["--save", ""]);
            command
        };
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self {
            child,
            port,
            ours,
            _dir: dir,
        };
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return server;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("a server does not answer");
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LONGEST)).unwrap();
        Client(BufReader::with_capacity(1 << 16, stream), String::new())
    }

    /// The proportional set size of the process and its children, in bytes.
    fn memory(pid: u32) -> u64 {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        let children: Vec<u32> = children
            .split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect();
        if children.is_empty() {
            // Without a child nothing is shared, and this costs the process nothing: a look at
            // its proportional set size would hold up its own calls for memory.
            let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
            let pages = statm
                .split_whitespace()
                .nth(1)
                .and_then(|pages| pages.parse::<u64>().ok());
            return pages.unwrap_or(0) * 4096;
        }
        let pss = |pid: u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with("Pss:"));
            let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
            kib.unwrap_or(0) * 1024
        };
        children.into_iter().chain([pid]).map(pss).sum()
    }

    fn load(&self, counters: usize) {
        let mut client = self.connect();
        for first in (0..counters).step_by(1000) {
            let ids = first..counters.min(first + 1000);
            let count = ids.len();
            let text: String = if self.ours {
                ids.map(|id| format!("set 2.{id} 0 0 1\r\n1\r\n")).collect()
            } else {
                ids.map(|id| format!("SET 2.{id} 1\r\n")).collect()
            };
            client.send(&text);
            (0..count).for_each(|_| client.expect(&["STORED", "+OK"]));
        }
        let mut random = Random(1);
        for index in 0..INDEXES {
            let ids = (0..MEMBERS).map(|_| random.below(counters).to_string());
            if self.ours {
                let body = ids.collect::<Vec<_>>().join("\n");
                client.send(&format!("set 1.{index} 0 0 {}\r\n{body}\r\n", body.len()));
                client.expect(&["STORED"]);
            } else {
                let ids = ids.collect::<Vec<_>>().join(" ");
                client.send(&format!("SADD 1.{index} {ids}\r\n"));
                client.line();
            }
        }
    }

    /// Begins the work; the answer waits until it is done.
    fn begin(&self, work: Work) -> JoinHandle<()> {
        let mut client = self.connect();
        std::thread::spawn(move || match work {
            Work::Snapshot => {
                client.send("snapshot\r\n");
                client.expect(&["OK"]);
            }
            Work::BgSave | Work::BgRewriteAof => {
                client.send(&format!("{work:?}\r\n"));
                client.line();
                loop {
                    std::thread::sleep(Duration::from_millis(20));
                    client.send("INFO persistence\r\n");
                    let bulk = client.line().trim_start_matches('$').parse().unwrap();
                    let text = client.bytes(bulk);
                    let busy = ["rdb_bgsave_in_progress:1", "aof_rewrite_in_progress:1"];
                    if !busy.iter().any(|busy| text.contains(busy)) {
                        return;
                    }
                }
            }
        })
    }

    fn lock_hold_max_us(&self) -> Option<u64> {
        let mut client = self.connect();
        client.send("stats\r\n");
        loop {
            let line = client.line();
            if line == "END" {
                return None;
            }
            if let Some(figure) = line.strip_prefix("STAT lock_hold_max_us ") {
                return figure.parse().ok();
            }
        }
    }

    fn reset_stats(&self) {
        let mut client = self.connect();
        client.send("stats reset\r\n");
        client.expect(&["RESET"]);
    }
}

/// A connection, and the line that was read last.
struct Client(BufReader<TcpStream>, String);

impl Client {
    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self) -> &str {
        self.1.clear();
        assert!(self.0.read_line(&mut self.1).unwrap() > 0, "closed");
        self.1.trim_end()
    }

    fn expect(&mut self, any: &[&str]) {
        let line = self.line();
        assert!(any.contains(&line), "{line}");
    }

    /// A bulk string of that length.
    fn bytes(&mut self, len: usize) -> String {
        let mut bytes = vec![0; len + 2];
        std::io::Read::read_exact(&mut self.0, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }
}

/// Sends `rate` requests a second until it is told to stop; answers the latencies in
/// microseconds.
fn drive(
    mut client: Client,
    rate: u64,
    stop: &AtomicBool,
    mut request: impl FnMut() -> String,
) -> Vec<u32> {
    let begun = Instant::now();
    let mut latencies = Vec::new();
    let mut late = false;
    for number in 0.. {
        if stop.load(Relaxed) {
            break;
        }
        let due = begun + Duration::from_nanos(number * 1_000_000_000 / rate);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let sent = if late { due } else { Instant::now() };
        client.send(&request());
        let reply = client.line();
        assert!(!reply.contains("ERR"), "{reply}");
        latencies.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
        late = Instant::now() > begun + Duration::from_nanos((number + 1) * 1_000_000_000 / rate);
    }
    latencies
}

const SCRIPT: &str = "local m = redis.call('SMEMBERS', KEYS[1]) \
                      for i = 1, #m do redis.call('INCR', '2.' .. m[i]) end return #m";

fn window(server: &Server, work: Option<Work>, counters: usize) -> Window {
    let stop = Arc::new(AtomicBool::new(false));
    let (ours, pid) = (server.ours, server.child.id());
    let mut threads = Vec::new();
    for setter in 0..SETTERS.0 {
        let (client, stop) = (server.connect(), Arc::clone(&stop));
        let mut random = Random(setter + 100);
        threads.push(std::thread::spawn(move || {
            drive(client, SETTERS.1, &stop, || {
                let id = random.below(counters);
                if ours {
                    format!("set 2.{id} 0 0 1\r\n7\r\n")
                } else {
                    format!("SET 2.{id} 7\r\n")
                }
            })
        }));
    }
    let (client, stopped) = (server.connect(), Arc::clone(&stop));
    let mut random = Random(7);
    threads.push(std::thread::spawn(move || {
        drive(client, FAN_OUTS_PER_S, &stopped, || {
            let index = random.below(INDEXES);
            if ours {
                format!("incr 1.{index} 1\r\n")
            } else {
                format!("EVAL \"{SCRIPT}\" 1 1.{index}\r\n")
            }
        })
    }));
    let before = Server::memory(pid);
    let peak = Arc::new(AtomicU64::new(before));
    let (sampled, ended) = (Arc::clone(&peak), Arc::clone(&stop));
    let watcher = std::thread::spawn(move || {
        while !ended.load(Relaxed) {
            sampled.fetch_max(Server::memory(pid), Relaxed);
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    std::thread::sleep(Duration::from_millis(300));
    let (begun, cpu) = (Instant::now(), Cpu::now());
    match work {
        None => std::thread::sleep(QUIET),
        Some(work) => server.begin(work).join().unwrap(),
    }
    let (took, machine) = (begun.elapsed(), Cpu::now().since(cpu));
    stop.store(true, Relaxed);
    let latencies = threads
        .into_iter()
        .flat_map(|thread| thread.join().unwrap());
    let mut latencies: Vec<u32> = latencies.collect();
    watcher.join().unwrap();
    latencies.sort_unstable();
    let at = |share: f64| f64::from(latencies[(latencies.len() as f64 * share) as usize]) / 1000.0;
    Window {
        took,
        machine,
        requests_per_s: latencies.len() as f64 / (took + Duration::from_millis(300)).as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        growth: peak.load(Relaxed) as f64 / before as f64 - 1.0,
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

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
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
    let count = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    let counters = count.unwrap_or(COUNTERS);
    let redis = Command::new("redis-server")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok();
    println!("{counters} counters, {INDEXES} indexes of {MEMBERS}; medians of {RUNS} windows\n");
    println!(
        "| | seconds | requests/s | p50 ms | p99 ms | p99.9 ms | memory | cores busy | stolen ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let works: &[Work] = if redis {
        &[Work::Snapshot, Work::BgSave, Work::BgRewriteAof]
    } else {
        &[Work::Snapshot]
    };
    let mut server: Option<Server> = None;
    for work in works {
        if server
            .as_ref()
            .is_none_or(|server| server.ours != work.is_ours())
        {
            drop(server.take());
            let started = Server::start(work.is_ours());
            started.load(counters);
            server = Some(started);
        }
        let server = server.as_ref().unwrap();
        window(server, None, counters);
        let (mut quiet, mut busy, mut holds) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..RUNS {
            quiet.push(window(server, None, counters));
            if server.ours {
                server.reset_stats();
            }
            busy.push(window(server, Some(*work), counters));
            holds.extend(server.ours.then(|| server.lock_hold_max_us()).flatten());
        }
        report(*work, &quiet, &busy, &holds);
    }
}
