//! Whole stores in simulated worlds: a disk that loses power at any call, a clock that a test
//! moves, and an oracle that knows what must be left.
//!
//! Every world follows from its seed: a failure prints it, and `STORAGE_SERVER_SEED` brings it
//! back. (Only the order of entries in a snapshot is drawn anew at every start.) How many cases
//! a campaign tries comes from the environment, see README.

mod clocks;
mod everysec;
mod faults;
mod model;
mod power;
mod snapshots;
mod traces;
mod workload;
mod world;

use std::fmt::Debug;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use self::world::COLD_READS;
use crate::support::Random;

/// Says what a case was that fails.
struct Case<'a, T: Debug>(&'a str, T);

impl<T: Debug> Drop for Case<'_, T> {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("{}: failed with {:?}", self.0, self.1);
        }
    }
}

/// Runs `run` with each of `cases` on all cores; it adds to `tried` how many states it tried.
/// Answers how many values that were not in memory were read and compared.
fn on_all_cores<T: Copy + Debug>(
    what: &str,
    cases: impl Iterator<Item = T> + Send,
    tried: &AtomicU64,
    run: impl Fn(T) -> u64 + Sync,
) -> u64 {
    let cold = AtomicU64::new(0);
    let cases = Mutex::new(cases);
    let next = || cases.lock().unwrap().next();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(case) = next() {
                    let case = Case(what, case);
                    tried.fetch_add(run(case.1), Relaxed);
                }
                cold.fetch_add(COLD_READS.get(), Relaxed);
            });
        }
    });
    let (tried, cold) = (tried.load(Relaxed), cold.into_inner());
    println!("{what}: {tried} cases, {cold} cold reads");
    cold
}

/// Runs worlds of one seed after the other until they have tried so many states.
fn campaign(what: &str, states: u64, run: impl Fn(u64) -> u64 + Sync) {
    let tried = AtomicU64::new(0);
    let seeds = (Random::seed(what)..).take_while(|_| tried.load(Relaxed) < states);
    let cold = on_all_cores(what, seeds, &tried, run);
    assert!(cold > 0, "{what}: no value was ever away");
}
