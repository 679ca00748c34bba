//! How much a cache finds beside memcached: `cargo bench --bench evict`.
//!
//! Both daemons get the same memory limit and the same requests: each key is asked for, and stored
//! if it is not found, as a cache in front of something slow is used. Keys follow Zipf laws of
//! several skews over more than fits; every other run mixes in scans of keys that never come again.
//! Counted are the hits of the second half, scans left out, and what each daemon had resident at
//! the end. `-- 200000` is a short form with so many requests.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::panic,
    reason = "a measurement that cannot go on says so and stops"
)]

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT_MIB: usize = 64;
const VALUE_BYTES: usize = 200;
const KEYS: usize = 1_500_000;
const REQUESTS: usize = 3_000_000;
/// Keys that are asked for before the answers are read.
const DEPTH: usize = 32;
/// A scan of so many keys comes after so many requests.
const SCAN: (usize, usize) = (20_000, 100_000);
/// Keys from here on are those of scans.
const SCANNED_FROM: u32 = 1 << 31;

/// A daemon that ends with this.
struct Daemon {
    name: &'static str,
    child: Child,
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    fn ours() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (socket, config) = (dir.path().join("socket"), dir.path().join("config.ini"));
        let (at, data) = (socket.display(), dir.path().join("data"));
        let text = format!(
            "[server]\nlisten = \"unix:{at}\"\nthreads = 1\nmemory_limit = \"{LIMIT_MIB}m\"\n\
             named_keys_durable = false\nnamed_keys_when_full = \"evict\"\n\
             [log]\nlevel = \"error\"\n[data]\ndir = \"{}\"\n",
            data.display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_storage_server"));
        command.arg("-c").arg(&config);
        Self::start("storage_server", command, socket, dir)
    }

    /// Debian's, if it is installed.
    fn memcached() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let path = Path::new("/usr/bin/memcached");
        let mut command = Command::new(path);
        let limit = LIMIT_MIB.to_string();
        command.args(["-t", "1", "-m", &limit, "-u", "nobody", "-s"]);
        command.arg(&socket);
        path.is_file()
            .then(|| Self::start("memcached", command, socket, dir))
    }

    fn start(
        name: &'static str,
        mut command: Command,
        socket: PathBuf,
        dir: tempfile::TempDir,
    ) -> Self {
        // memcached gives its rights away and has to find its socket then.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(dir.path(), open).unwrap();
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        Self {
            name,
            child,
            socket,
            _dir: dir,
        }
    }

    fn connect(&self) -> BufReader<UnixStream> {
        let begun = Instant::now();
        loop {
            match UnixStream::connect(&self.socket) {
                Ok(socket) => return BufReader::with_capacity(1 << 20, socket),
                Err(error) if begun.elapsed() > Duration::from_secs(10) => {
                    panic!("{} does not listen: {error}", self.name)
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn resident_mib(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .unwrap();
        let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1024.0
    }
}

/// The keys of a run, in order.
fn trace(requests: usize, skew: f64, scans: bool) -> Vec<u32> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut sum = 0.0;
    let weights = (1..=KEYS).map(|rank| (rank as f64).powf(-skew));
    let sums: Vec<f64> = weights
        .map(|weight| {
            sum += weight;
            sum
        })
        .collect();
    let mut keys = Vec::with_capacity(requests * 5 / 4);
    let (scan, every) = SCAN;
    for request in 0..requests {
        let at = random.f64() * sum;
        keys.push(sums.partition_point(|sum| *sum < at) as u32);
        if scans && request % every == every - 1 {
            let first = SCANNED_FROM + keys.len() as u32;
            keys.extend(first..first + scan as u32);
        }
    }
    keys
}

/// Asks for each key and stores what is not found; answers which were found.
fn replay(daemon: &Daemon, keys: &[u32]) -> Vec<bool> {
    let mut wire = daemon.connect();
    let value = "v".repeat(VALUE_BYTES);
    let mut hits = Vec::with_capacity(keys.len());
    let mut line = String::new();
    let mut body = [0; VALUE_BYTES + 2];
    for few in keys.chunks(DEPTH) {
        let mut gets = String::new();
        for key in few {
            write!(gets, "get k{key}\r\n").unwrap();
        }
        wire.get_mut().write_all(gets.as_bytes()).unwrap();
        let mut sets = String::new();
        for key in few {
            line.clear();
            wire.read_line(&mut line).unwrap();
            let hit = line.starts_with("VALUE");
            if hit {
                wire.read_exact(&mut body).unwrap();
                wire.read_line(&mut line).unwrap();
            } else {
                write!(sets, "set k{key} 0 0 {VALUE_BYTES}\r\n{value}\r\n").unwrap();
            }
            hits.push(hit);
        }
        wire.get_mut().write_all(sets.as_bytes()).unwrap();
        for _ in 0..sets.matches("set ").count() {
            line.clear();
            wire.read_line(&mut line).unwrap();
            assert_eq!(line, "STORED\r\n", "{}", daemon.name);
        }
    }
    hits
}

/// The share of the second half that was found, scans left out.
fn hit_ratio(keys: &[u32], hits: &[bool]) -> f64 {
    let late = keys.iter().zip(hits).skip(keys.len() / 2);
    let asked: Vec<_> = late.filter(|(key, _)| **key < SCANNED_FROM).collect();
    asked.iter().filter(|(_, hit)| **hit).count() as f64 / asked.len() as f64
}

fn main() {
    let number = std::env::args().find_map(|argument| argument.parse().ok());
    let requests = number.unwrap_or(REQUESTS);
    println!(
        "{requests} requests, {KEYS} keys, {VALUE_BYTES}-byte values, limit {LIMIT_MIB} MiB\n\n\
         | skew | scans | daemon | found | resident MiB | seconds |\n|---|---|---|---|---|---|"
    );
    for skew in [0.8, 0.99, 1.1] {
        for scans in [false, true] {
            let keys = trace(requests, skew, scans);
            for daemon in [Some(Daemon::ours()), Daemon::memcached()].iter().flatten() {
                let begun = Instant::now();
                let hits = replay(daemon, &keys);
                println!(
                    "| {skew} | {} | {} | {:.4} | {:.0} | {:.0} |",
                    if scans { "yes" } else { "no" },
                    daemon.name,
                    hit_ratio(&keys, &hits),
                    daemon.resident_mib(),
                    begun.elapsed().as_secs_f64(),
                );
            }
        }
    }
}
