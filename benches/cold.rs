//! The latency of `get` for values in memory, in the cache and in the data files, and that of a
//! counter beside cold reads: `cargo bench --bench cold [-- READS]`.
//!
//! A data set four times the memory limit, with one server thread. Cold reads are measured twice:
//! with what the kernel's page cache happens to hold, and with the data files dropped from it
//! before each round. Few READS, of 5,000, are a short form, with as much less data.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    reason = "a measurement that cannot go on says so and stops"
)]

mod support;

use std::fs::{self, File};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};
use support::server::{Config, Cores, Program, Server};
use support::wire::{Client, Dialect};

const VALUE_BYTES: usize = 4 << 10;
const READS: usize = 5_000;

/// How much is read of how much.
#[derive(Clone, Copy)]
struct Size {
    reads: usize,
    /// The memory limit, in bytes.
    limit: usize,
}

impl Size {
    fn of(reads: usize) -> Self {
        let part = (READS / reads.max(1)).clamp(1, 8);
        Self {
            reads,
            limit: (64 << 20) / part,
        }
    }

    fn values(self) -> usize {
        4 * self.limit / VALUE_BYTES
    }

    /// A row of keys in no order, each once in a while.
    fn scattered(self, seed: usize) -> impl Iterator<Item = String> {
        (0..).map(move |step: usize| {
            let id = (seed + step).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 17;
            format!("3.{}", id % self.values())
        })
    }
}

fn start(limit: usize) -> Server {
    let server = format!("threads = 1\nmemory_limit = {limit}");
    let data = format!("cache_memory = {}", limit / 8);
    let config = Config {
        server: &server,
        data: &data,
        types: "3 = { kind = \"DATA\", keep_in_memory = \"1k\" }\n4 = \"DATA\"",
    };
    Server::start("ours", Program::Ours(config), Cores::All).unwrap()
}

/// Has the kernel forget what it holds of the data files.
fn drop_page_cache(server: &Server) {
    for entry in fs::read_dir(server.dir().join("data")).unwrap() {
        let file = File::open(entry.unwrap().path()).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }
}

fn set(client: &mut Client, key: &str, value: &str) {
    let mut request = Vec::new();
    Dialect::Memcached.set(&mut request, key, value);
    loop {
        client.send(&request).unwrap();
        if client.line() == "STORED" {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn get(client: &mut Client, key: &str) -> Duration {
    let request = format!("get {key}\r\n");
    let begun = Instant::now();
    let len = client.ask(request).rsplit(' ').next().unwrap().parse();
    client.block(len.unwrap());
    client.line();
    begun.elapsed()
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let us = |part: f64| {
        let at = (times.len() as f64 * part) as usize;
        times[at.min(times.len() - 1)].as_nanos() as f64 / 1000.0
    };
    println!(
        "{what:44} p50 {:8.1} us   p99 {:8.1} us   p99.9 {:8.1} us",
        us(0.5),
        us(0.99),
        us(0.999)
    );
}

fn main() {
    let reads = std::env::args().find_map(|word| word.parse().ok());
    let size = Size::of(reads.unwrap_or(READS));
    let (server, values) = (start(size.limit), size.values());
    let mut client = server.connect();
    let value = "v".repeat(VALUE_BYTES);
    let begun = Instant::now();
    for id in 0..values {
        set(&mut client, &format!("3.{id}"), &value);
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{values} values of {VALUE_BYTES} bytes, {} MiB, memory_limit {} MiB, \
         written in {seconds:.1} s",
        (values * VALUE_BYTES) >> 20,
        size.limit >> 20
    );
    set(&mut client, "4.1", &value);
    client.ask("incr 2.1 1\r\n");
    assert_eq!(client.ask("snapshot\r\n"), "OK");
    let mut times = |keys: &mut dyn Iterator<Item = String>| -> Vec<_> {
        let keys = keys.take(size.reads);
        keys.map(|key| get(&mut client, &key)).collect()
    };
    report(
        "hot: in memory",
        times(&mut (0..).map(|_| "4.1".to_owned())),
    );
    report(
        "hot: read often, in the cache",
        times(&mut (0..).map(|at| format!("3.{}", at % 100))),
    );
    report("cold: page cache as it is", times(&mut size.scattered(1)));
    drop_page_cache(&server);
    report(
        "cold: data files dropped from the page cache",
        times(&mut size.scattered(1 << 20)),
    );
    // A neighbour of somebody who reads cold values all the time.
    drop_page_cache(&server);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut other = server.connect();
        let stop = &stop;
        scope.spawn(move || {
            for key in size.scattered(1 << 24) {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                get(&mut other, &key);
            }
        });
        report(
            "hot, beside a client of cold values",
            times(&mut (0..).map(|_| "4.1".to_owned())),
        );
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
