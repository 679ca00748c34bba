//! Power losses at every call and in every way, and the same again during recovery.
//!
//! The rule: what was synced is there, nothing was invented, and what is there is a prefix.

use super::*;
use crate::journal::sim::{Crash, Fault};

/// What a run was promised before the power went.
struct Promised {
    log: Log,
    synced: u64,
}

/// Writes, syncs, rotates, makes snapshots and restarts, until it is done or the disk fails.
fn work(disk: &SimDisk, seed: u64) -> Promised {
    let mut promised = Promised {
        log: Log::default(),
        synced: 0,
    };
    for part in 0..2 {
        let Ok(mut store) = Store::open(disk) else {
            break;
        };
        assert!(store.log.0.len() as u64 >= promised.synced, "seed {seed}");
        store.random = Random(seed + part);
        for round in 0..7 {
            for _ in 0..=store.random.below(4) {
                store.turn();
            }
            if store.random.below(3) > 0 {
                let _ = store.journal.sync_now();
            } else {
                let _ = store.journal.flush();
            }
            match round {
                2 => drop(store.journal.rotate()),
                4 => drop(store.snapshot(part == 1)),
                _ => {}
            }
            promised.synced = promised.synced.max(store.journal.synced());
        }
        if store.random.below(2) == 0 {
            let _ = store.journal.close();
            promised.synced = promised.synced.max(store.journal.synced());
        }
        promised.log = store.log;
    }
    promised
}

fn check(disk: &SimDisk, promised: &Promised, what: &str) -> Store {
    let store = Store::open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = store.log.0.len() as u64;
    assert!(
        found >= promised.synced,
        "{what}: {found} of {} synced",
        promised.synced
    );
    assert!(
        promised.log.0.starts_with(&store.log.0),
        "{what}: not a prefix"
    );
    store
}

/// How many calls the work makes.
fn calls(seed: u64) -> u64 {
    let disk = SimDisk::new();
    work(&disk, seed);
    disk.calls()
}

#[test]
fn a_power_loss_at_any_call_loses_nothing_that_was_synced() {
    let mut states = 0;
    for seed in 0..4 {
        for call in 1..=calls(seed) {
            let disk = SimDisk::new();
            disk.fail(call, true, Fault::Io);
            let promised = work(&disk, seed);
            for crash in Crash::ALL {
                for variant in 0..if crash == Crash::Sectors { 3 } else { 1 } {
                    let what = format!("seed {seed} call {call} {crash:?} {variant}");
                    let left = disk.crash(crash, seed * 1000 + call * 10 + variant);
                    let mut store = check(&left, &promised, &what);
                    // It goes on, and what it does now lasts too.
                    store.random = Random(seed);
                    assert!(store.turns(3), "{what}");
                    store.journal.sync_now().unwrap();
                    let lasting = left.crash(Crash::DropAll, 0);
                    assert_eq!(Store::open(&lasting).unwrap().log, store.log, "{what}");
                    states += 1;
                }
            }
        }
    }
    assert!(states >= 4000, "{states}");
}

#[test]
fn a_crash_during_recovery_recovers() {
    for seed in 0..3 {
        let disk = SimDisk::new();
        disk.fail(calls(seed) * (seed + 1) / 4, true, Fault::Io);
        let promised = work(&disk, seed);
        let left = disk.crash(Crash::Garbage, seed);
        let probe = left.kill();
        let before = probe.calls();
        Store::open(&probe).unwrap();
        for call in 1..=probe.calls() - before {
            for crash in Crash::ALL {
                let what = format!("seed {seed} call {call} {crash:?}");
                let left = left.kill();
                left.fail(left.calls() + call, true, Fault::Io);
                assert!(Store::open(&left).is_err(), "{what}");
                let again = left.crash(crash, seed + call);
                drop(check(&again, &promised, &what));
                drop(check(&left.kill(), &promised, &what));
            }
        }
    }
}

#[test]
fn a_kill_at_any_call_loses_nothing_that_was_flushed() {
    for call in 1..=calls(1) {
        let disk = SimDisk::new();
        disk.fail(call, true, Fault::Io);
        let promised = work(&disk, 1);
        let killed = disk.kill();
        let store = check(&killed, &promised, &format!("call {call}"));
        let recovered = store.log.clone();
        drop(store);
        // A power loss right after the recovery takes nothing back.
        let lasting = killed.crash(Crash::DropAll, 0);
        assert_eq!(Store::open(&lasting).unwrap().log, recovered, "call {call}");
    }
}

#[test]
fn the_end_of_a_file_attests_nothing_that_may_be_lost() {
    for call in 1..8 {
        for seed in 0..40 {
            let disk = SimDisk::new();
            let mut store = Store::open(&disk).unwrap();
            // Several sectors of records that nobody has synced.
            for _ in 0..10 {
                assert!(store.turns(10));
            }
            disk.fail(disk.calls() + call, true, Fault::Io);
            let closed = store.journal.close().is_ok();
            let log = store.log.clone();
            let promised = Promised {
                log,
                synced: store.journal.synced(),
            };
            assert!(!closed || promised.synced == 100);
            let left = disk.crash(Crash::Sectors, seed);
            drop(check(&left, &promised, &format!("call {call} seed {seed}")));
        }
    }
}

#[test]
fn a_power_loss_after_a_kill_during_a_start_loses_no_segment_in_between() {
    let disk = SimDisk::new();
    let mut store = Store::open(&disk).unwrap();
    assert!(store.turns(5));
    store.journal.sync_now().unwrap();
    assert!(store.turns(5));
    let promised = Promised {
        log: store.log.clone(),
        synced: store.journal.synced(),
    };
    let calls_of_a_start = |disk: &SimDisk| {
        let probe = disk.kill();
        let before = probe.calls();
        Store::open(&probe).unwrap();
        before + 1..=probe.calls()
    };
    let killed = disk.kill();
    for call in calls_of_a_start(&killed) {
        let killed = killed.kill();
        killed.fail(call, true, Fault::Io);
        assert!(Store::open(&killed).is_err());
        for next in calls_of_a_start(&killed) {
            let again = killed.kill();
            again.fail(next, true, Fault::Io);
            assert!(Store::open(&again).is_err());
            for seed in 0..24 {
                let what = format!("call {call}, then {next}, seed {seed}");
                let left = again.crash(Crash::Reorder, (seed * 100 + call) * 100 + next);
                drop(check(&left, &promised, &what));
            }
        }
    }
}
