//! kill -9 under load, again and again: after each restart every acknowledged write is there,
//! nothing was made up, and no fan-out is half there.
//!
//! `STORAGE_SERVER_CRASHES` sets how many kills (500), `STORAGE_SERVER_SEED` repeats a run.

use std::time::{Duration, Instant};

use crate::support::load::Load;
use crate::support::{Config, Home, Random, setting};

const CONNECTIONS: u64 = 8;

/// A new store begins after so many kills, so that the time of a start stays what it is.
const KILLS_OF_A_STORE: u64 = 100;

fn crash_again_and_again(fsync: &str, kills: u64, config: &Config) {
    let seed = Random::seed(fsync);
    for first in (0..kills).step_by(KILLS_OF_A_STORE as usize) {
        let cycles = KILLS_OF_A_STORE.min(kills - first);
        crash_one_store(fsync, cycles, config.clone(), seed ^ first);
    }
}

fn crash_one_store(fsync: &str, cycles: u64, config: Config, seed: u64) {
    let mut random = Random::new(seed);
    let home = Home::new(config.with("data", "fsync", &format!("\"{fsync}\"")));
    let mut daemon = home.start();
    let mut load = Load::new(&mut daemon.client(), CONNECTIONS, seed);
    let began = Instant::now();
    for _ in 0..cycles {
        let moment = Duration::from_micros(1000 + random.below(50_000));
        load.during(daemon.addr(), || {
            std::thread::sleep(moment);
            daemon.kill9();
        });
        daemon = home.start();
        load.check(&mut daemon.client());
    }
    let each = began.elapsed() / u32::try_from(cycles.max(1)).unwrap();
    let acked = load.acked();
    println!("{fsync}: {cycles} kills, {each:?} each, {acked} requests acknowledged");
    assert!(acked > cycles, "that was no load: {acked} requests");
    assert!(daemon.term().success());
    load.check(&mut home.start().client());
}

/// A share of all kills.
fn kills(percent: u64) -> u64 {
    (setting("STORAGE_SERVER_CRASHES", 500) * percent).div_ceil(100)
}

#[test]
fn kill_9_loses_nothing_with_fsync_always() {
    crash_again_and_again("always", kills(30), &Config::standard());
}

#[test]
fn kill_9_loses_nothing_with_fsync_everysec() {
    crash_again_and_again("everysec", kills(30), &Config::standard());
}

#[test]
fn kill_9_loses_nothing_while_snapshots_are_taken() {
    let config = Config::standard().with("data", "compact_min", "\"1m\"");
    crash_again_and_again("everysec", kills(20), &config);
}

#[test]
fn kill_9_loses_nothing_of_values_that_are_not_in_memory() {
    let config = Config::standard()
        .leaving()
        .with("data", "cache_memory", "0")
        .with("data", "compact_min", "\"1m\"");
    crash_again_and_again("always", kills(10), &config);
    crash_again_and_again("never", kills(10), &config);
}
