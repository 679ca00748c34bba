//! The power fails at every change of the disk, in every way; and again during the recovery.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use storage_server::journal::Fsync;
use storage_server::journal::sim::Crash;

use super::campaign;
use super::world::{Ground, World, some_fault};
use crate::support::{Random, setting};

/// Two lives of a store, with or without faults of the disk: how many states the power failed in.
fn lives(seed: u64) -> u64 {
    let mut random = Random::new(seed);
    let mut ground = Ground::new(Fsync::Always);
    let states = Arc::default();
    for _ in 0..2 {
        ground.watch_power(seed, &states);
        some_fault(&ground.disk, &mut random, 200);
        let least = ground.past().flushed;
        let what = || format!("seed {seed}: after the end of the process");
        if let Some(mut world) = World::open(&ground, least, &what) {
            for _ in 0..10 {
                world.live(&mut random);
            }
            if random.one_in(2) {
                let _ = world.engine.journal().close();
            }
            world.compare(&|| format!("seed {seed}: alive"));
        }
        ground.disk.watch(None);
        ground.disk = ground.disk.kill();
    }
    states.load(Relaxed)
}

#[test]
fn a_power_loss_at_any_change_loses_nothing_acknowledged_or_observed() {
    let states = setting("STORAGE_SERVER_POWER_LOSSES", 100_000);
    campaign("power losses", states, lives);
}

/// A row of crashes, each while the store recovers from the one before or soon after it.
fn crash_after_crash(seed: u64) -> u64 {
    let mut random = Random::new(seed);
    let mut ground = Ground::new(Fsync::Always);
    let states = Arc::default();
    let what = || format!("seed {seed}: again");
    let mut least = 0;
    for round in 0..6 {
        if round > 0 {
            ground.watch_power(seed, &states);
        }
        if random.one_in(3) {
            some_fault(&ground.disk, &mut random, 60);
        }
        let world = World::open(&ground, least, &what);
        let started = world.is_some();
        if let Some(mut world) = world {
            for _ in 0..if round == 0 { 8 } else { random.below(4) } {
                world.live(&mut random);
            }
        }
        ground.disk.watch(None);
        let crash = random.below(Crash::ALL.len() as u64 + 1) as usize;
        (ground.disk, least) = match Crash::ALL.get(crash) {
            Some(crash) => (
                ground.disk.crash(*crash, seed + round),
                ground.past().promised,
            ),
            None if started => (ground.disk.kill(), ground.past().flushed),
            // A start that failed has not brought back what a power loss before it took.
            None => (ground.disk.kill(), least),
        };
    }
    states.load(Relaxed)
}

#[test]
fn a_crash_during_recovery_recovers_and_so_does_the_next_one() {
    let states = setting("STORAGE_SERVER_DOUBLE_CRASHES", 20_000);
    campaign("crashes after crashes", states, crash_after_crash);
}
