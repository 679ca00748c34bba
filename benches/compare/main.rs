//! The daemon beside Debian's memcached and Redis, in one run: `cargo bench --bench compare`.
//!
//! It prints a table with each figure of ours, the peer's, their ratio and what the ratio is to be.
//! `-- --short` takes a minute or two and says less; `-- --only get,set` measures some of it;
//! `-- --save` writes a whole run to `benches/RESULTS.md`, where what stands below its table stays.
//!
//! Unless a part says otherwise: servers run on core 0 and the load on core 1; 50 connections,
//! 100,000 named keys, values of 32 bytes, and our journal on (`everysec`). What is compared is the
//! processor time of the server's threads, which the kernel counts in nanoseconds; each figure is
//! the median of five runs that take turns. A peer that is not installed is left out.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "a measurement that cannot go on says so and stops"
)]

mod fan_out;
mod latency;
mod memory;
mod requests;
mod results;
#[path = "../support/mod.rs"]
mod support;
mod synced;
mod threads;

use std::time::Duration;

use clap::{Parser, ValueEnum as _};
use support::figures::{HEAD, Row};
use support::process::pin;
use support::server::count as cores;

const CONNECTIONS: usize = 50;

/// How long and how often it is measured.
struct Plan {
    short: bool,
    runs: usize,
    /// Of each run.
    time: Duration,
}

impl Plan {
    fn new(short: bool) -> Self {
        Self {
            short,
            runs: if short { 1 } else { 5 },
            time: Duration::from_millis(if short { 200 } else { 1000 }),
        }
    }
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
enum Part {
    /// Processor time of `get`
    Get,
    /// Processor time of `set`
    Set,
    /// Keys of a `get` of 100
    Multiget,
    /// Throughput of `set` when each waits for the disk
    Fsync,
    /// p99 at half of memcached's peak
    Latency,
    /// The fan-out, and members that are added
    Fanout,
    /// Processor time with 2 worker threads
    Threads,
    /// Memory of each kind of entry, and of connections
    Memory,
}

impl Part {
    fn measure(self, plan: &Plan) -> Vec<Row> {
        // Parts that are not about one core use all of them.
        match self {
            Self::Threads | Self::Memory => pin(0..cores()),
            _ => pin([1]),
        }
        match self {
            Self::Get => requests::gets(plan),
            Self::Set => requests::sets(plan),
            Self::Multiget => requests::multigets(plan),
            Self::Fsync => synced::throughput(plan),
            Self::Latency => latency::p99(plan),
            Self::Fanout => fan_out::fan_outs(plan),
            Self::Threads => threads::two_and_one(plan),
            Self::Memory if plan.short => memory::growth(Duration::from_secs(2), 1_000_000),
            Self::Memory => memory::growth(Duration::from_mins(1), u64::MAX),
        }
    }
}

/// Compare the daemon with memcached and Redis
#[derive(Parser)]
struct Args {
    /// Few and short runs
    #[arg(long)]
    short: bool,
    /// Only these
    #[arg(long, value_delimiter = ',', value_name = "PART,...")]
    only: Vec<Part>,
    /// Write the whole run to benches/RESULTS.md
    #[arg(long, conflicts_with_all = ["short", "only"])]
    save: bool,
    /// Cargo says so
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    assert!(cores() >= 2, "the server and the load take a core each");
    let plan = Plan::new(args.short);
    let about = results::about();
    println!("{about}\n{HEAD}");
    let mut table = String::from(HEAD);
    for part in Part::value_variants() {
        if args.only.is_empty() || args.only.contains(part) {
            for row in part.measure(&plan) {
                println!("{row}");
                table = format!("{table}\n{row}");
            }
        }
    }
    if args.save {
        results::save(&about, &table);
    }
}
