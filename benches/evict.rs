//! How much a cache finds beside memcached: `cargo bench --bench evict`.
//!
//! Both daemons get the same memory limit and the same requests: each key is asked for, and stored
//! if it is not found, as a cache in front of something slow is used. Keys follow Zipf laws of
//! several skews over more than fits; every other run mixes in scans of keys that never come again.
//! Counted are the hits of the second half, scans left out, and what each daemon had resident at
//! the end. `-- 200000` is a short form with so many requests, and of keys and memory as much less.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "a measurement that cannot go on says so and stops"
)]

mod support;

use std::time::Instant;

use support::server::{Config, Cores, Program, Server};

const VALUE_BYTES: usize = 200;
const REQUESTS: usize = 3_000_000;
const FULL: Size = Size {
    limit_mib: 64,
    keys: 1_500_000,
    scan: (20_000, 100_000),
};
/// Keys that are asked for before the answers are read.
const DEPTH: usize = 32;
/// Keys from here on are those of scans.
const SCANNED_FROM: u32 = 1 << 31;

/// How much there is to keep, and how much room for it.
#[derive(Clone, Copy)]
struct Size {
    limit_mib: usize,
    keys: usize,
    /// A scan of so many keys comes after so many requests.
    scan: (usize, usize),
}

impl Size {
    /// What so many requests can fill.
    fn of(requests: usize) -> Self {
        let part = (REQUESTS / requests.max(1)).clamp(1, 8);
        Self {
            limit_mib: FULL.limit_mib / part,
            keys: FULL.keys / part,
            scan: (FULL.scan.0 / part, FULL.scan.1 / part),
        }
    }
}

/// Ours, and Debian's memcached if it is installed.
fn daemons(limit_mib: usize) -> Vec<Server> {
    let server = format!(
        "threads = 1\nmemory_limit = \"{limit_mib}m\"\n\
         named_keys_durable = false\nnamed_keys_when_full = \"evict\""
    );
    let config = Config {
        server: &server,
        ..Config::default()
    };
    let memcached = format!("-t 1 -m {limit_mib}");
    let daemons = [
        ("storage_server", Program::Ours(config)),
        ("memcached", Program::Memcached(&memcached)),
    ];
    let started = daemons.map(|(name, program)| Server::start(name, program, Cores::All));
    started.into_iter().flatten().collect()
}

/// The keys of a run, in order.
fn trace(requests: usize, size: Size, (skew, scans): (f64, bool)) -> Vec<u32> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut sum = 0.0;
    let weights = (1..=size.keys).map(|rank| (rank as f64).powf(-skew));
    let sums: Vec<f64> = weights
        .map(|weight| {
            sum += weight;
            sum
        })
        .collect();
    let mut keys = Vec::with_capacity(requests * 5 / 4);
    let (scan, every) = size.scan;
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
fn replay(server: &Server, keys: &[u32]) -> Vec<bool> {
    let mut client = server.connect();
    let value = "v".repeat(VALUE_BYTES);
    let mut hits = Vec::with_capacity(keys.len());
    for few in keys.chunks(DEPTH) {
        let keys = few.iter().map(|key| format!("k{key}"));
        let keys: Vec<_> = keys.collect();
        let mut gets = Vec::new();
        for key in &keys {
            server.dialect.get(&mut gets, std::slice::from_ref(key));
        }
        client.send(&gets).unwrap();
        let (mut sets, mut stored) = (Vec::new(), 0);
        for key in &keys {
            let hit = client.reply().starts_with("VALUE");
            if hit {
                client.block(VALUE_BYTES);
                client.line();
            } else {
                server.dialect.set(&mut sets, key, &value);
                stored += 1;
            }
            hits.push(hit);
        }
        client.send(&sets).unwrap();
        for _ in 0..stored {
            assert_eq!(client.line(), "STORED", "{}", server.name);
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
    let size = Size::of(requests);
    let (keys, limit_mib) = (size.keys, size.limit_mib);
    println!(
        "{requests} requests, {keys} keys, {VALUE_BYTES}-byte values, limit {limit_mib} MiB\n\n\
         | skew | scans | daemon | found | resident MiB | seconds |\n|---|---|---|---|---|---|"
    );
    for skew in [0.8, 0.99, 1.1] {
        for scans in [false, true] {
            let keys = trace(requests, size, (skew, scans));
            for daemon in &daemons(limit_mib) {
                let begun = Instant::now();
                let hits = replay(daemon, &keys);
                println!(
                    "| {skew} | {} | {} | {:.4} | {:.0} | {:.0} |",
                    if scans { "yes" } else { "no" },
                    daemon.name,
                    hit_ratio(&keys, &hits),
                    daemon.process().resident_bytes() as f64 / f64::from(1 << 20),
                    begun.elapsed().as_secs_f64(),
                );
            }
        }
    }
}
