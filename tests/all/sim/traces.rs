//! Every short row of operations, and a power loss at every change of the disk in each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use storage_server::command::{Arith, Command, Exptime, Mode, Put};
use storage_server::journal::Fsync;
use storage_server::value::Delta;

use super::on_all_cores;
use super::world::{Ground, World};
use crate::support::setting;

#[derive(Clone, Copy, Debug)]
enum Operation {
    Set,
    Incr,
    Delete,
    FanOut,
    Hup,
    Compact,
}

const OPERATIONS: [Operation; 6] = [
    Operation::Set,
    Operation::Incr,
    Operation::Delete,
    Operation::FanOut,
    Operation::Hup,
    Operation::Compact,
];

fn incr(key: &[u8]) -> Command<'_> {
    Command::Arith(Arith {
        key,
        decr: false,
        delta: Delta {
            negative: false,
            amount: 3,
        },
        target: None,
    })
}

fn set<'a>(key: &'a [u8], body: &'a [u8]) -> Command<'a> {
    Command::Put(Put {
        key,
        mode: Mode::Set,
        flags: 1,
        exptime: Exptime(0),
        body,
    })
}

impl Operation {
    fn carry_out(self, world: &mut World) {
        let command = match self {
            Self::Set => set(b"2.1", b"40"),
            Self::Incr => incr(b"2.1"),
            Self::Delete => Command::Delete { key: b"2.1" },
            Self::FanOut => incr(b"1.1"),
            Self::Hup => return world.move_files().unwrap(),
            Self::Compact => return world.engine.snapshot(false).unwrap(),
        };
        world.turn(&[command]);
    }
}

/// Carries out a row of operations on a store that has an index and one of its counters.
fn trace(operations: &[Operation]) -> u64 {
    let what = || format!("{operations:?}");
    let ground = Ground::new(Fsync::Always);
    let mut world = World::open(&ground, 0, &what).unwrap();
    world.turn(&[set(b"1.1", b"1\n2\n3"), set(b"2.1", b"7")]);
    let states = Arc::default();
    // The row decides which sectors last.
    let place = |number, operation: &Operation| number * 7 + *operation as u64;
    let seed = operations.iter().fold(1, place) << 32;
    ground.watch_power(seed, &states);
    for operation in operations {
        operation.carry_out(&mut world);
    }
    ground.lose_power(seed, &states, &what);
    ground.disk.watch(None);
    world.compare(&what);
    let appended = world.engine.journal().appended();
    ground.check(&ground.disk.kill(), appended, &what);
    states.load(Relaxed)
}

#[test]
fn every_short_row_of_operations_survives_a_power_loss_at_every_change() {
    let longest = setting("STORAGE_SERVER_TRACE_LENGTH", 3) as u32;
    let count = |length| (OPERATIONS.len() as u64).pow(length);
    let traces = (1..=longest).flat_map(|length| (0..count(length)).map(move |at| (length, at)));
    let tried = AtomicU64::new(0);
    on_all_cores("short traces", traces, &tried, |(length, at)| {
        let digit = |place| OPERATIONS[(at / count(place)) as usize % OPERATIONS.len()];
        trace(&(0..length).map(digit).collect::<Vec<_>>())
    });
    assert!(tried.load(Relaxed) > 1000);
}
