//! Whole stores in simulated worlds: a disk that loses power at any call, a clock that a test
//! moves, and an oracle that knows what must be left.
//!
//! Every world follows from its seed: a failure prints it, and `STORAGE_SERVER_SEED` brings it
//! back. (Only the order of entries in a snapshot is drawn anew at every start.) How many cases
//! a campaign tries comes from the environment, see README.

mod model;
mod power;
mod snapshots;
mod workload;
mod world;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use crate::support::Random;

/// Prints the seed of a run that fails.
struct Seed<'a>(&'a str, u64);

impl Drop for Seed<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("{}: STORAGE_SERVER_SEED={} replays this", self.0, self.1);
        }
    }
}

/// Runs worlds of one seed after the other, on all cores, until they have tried `cases`. Each
/// answers how many it tried.
fn campaign(what: &str, cases: u64, run: impl Fn(u64) -> u64 + Sync) {
    let (next, tried) = (AtomicU64::new(Random::seed(what)), AtomicU64::new(0));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while tried.load(Relaxed) < cases {
                    let seed = Seed(what, next.fetch_add(1, Relaxed));
                    tried.fetch_add(run(seed.1), Relaxed);
                }
            });
        }
    });
    println!("{what}: {} cases", tried.load(Relaxed));
}
