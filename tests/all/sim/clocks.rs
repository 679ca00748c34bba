//! A wall clock that is set forward and back, by up to a year: no loss, expiries on time, and
//! syncs when they are due.

use storage_server::clock::Time;
use storage_server::command::{Command, Exptime, Mode, Put};
use storage_server::journal::Fsync;

use super::campaign;
use super::workload::Words;
use super::world::{Ground, World};
use crate::support::{Random, setting};

const SECOND: u64 = 1_000_000;
const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;

/// Sets the wall clock by up to a year either way.
fn step_wall(ground: &Ground, random: &mut Random) {
    let by = random.below(2 * YEAR_MS);
    let now = ground.clock.wall().0 + by;
    ground.clock.set_wall(Time(now.saturating_sub(YEAR_MS)));
}

/// An entry that ends, and until when it must be there and from when on it must be gone.
struct Ending {
    key: &'static [u8],
    there_until: u64,
    gone_from: u64,
}

fn set_with_expiry(world: &mut World, random: &mut Random) -> Ending {
    let key: &[u8] = [&b"a"[..], b"b", b"5.1", b"2.1"][random.below(4) as usize];
    let seconds = 1 + random.below(20);
    world.turn(&[Command::Put(Put {
        key,
        mode: Mode::Set,
        flags: 0,
        exptime: Exptime(seconds.cast_signed()),
        // A counter's, or a value that leaves memory.
        body: if key == b"2.1" {
            b"1"
        } else {
            b"longer than that"
        },
    })]);
    let end = world.clock.passed_us() + seconds * SECOND;
    Ending {
        key,
        there_until: end - SECOND,
        gone_from: end + SECOND,
    }
}

/// Three lives in which the clock is set 50 times each. Answers how often.
fn lives(seed: u64) -> u64 {
    let mut random = Random::new(seed);
    let mut ground = Ground::new(Fsync::EverySec);
    for life in 0..3 {
        let what = || format!("seed {seed}, life {life}");
        let least = ground.past().flushed;
        let mut world = World::open(&ground, least, &what).unwrap();
        let mut endings: Vec<Ending> = Vec::new();
        for _ in 0..50 {
            step_wall(&ground, &mut random);
            let ending = set_with_expiry(&mut world, &mut random);
            endings.retain(|other| other.key != ending.key);
            endings.push(ending);
            world.turn(&[]);
            world.begin();
            // The other keys, without an expiry of theirs.
            let words = Words::of(5 + random.below(2), &mut random);
            world.execute(&words).unwrap();
            world.end_turn();
            // What was written now is synced in less than a second, whatever the wall clock says.
            let appended = world.engine.journal().appended();
            for _ in 0..10 {
                step_wall(&ground, &mut random);
                ground.clock.pass_us(SECOND / 10);
                world.sync();
            }
            assert!(world.engine.journal().synced() >= appended, "{}", what());
            ground.clock.pass_us(random.below(3 * SECOND));
            world.begin();
            let now = ground.clock.passed_us();
            for ending in &endings {
                let there = world.holds(ending.key);
                let key = ending.key.escape_ascii();
                assert!(
                    there || now > ending.there_until,
                    "{}: {key} is gone",
                    what()
                );
                assert!(!there || now < ending.gone_from, "{}: {key} stays", what());
            }
            world.compare(&what);
        }
        drop(world);
        ground.disk = ground.disk.kill();
    }
    3 * 50
}

#[test]
fn steps_of_the_wall_clock_lose_nothing_and_end_nothing_early_or_late() {
    let steps = setting("STORAGE_SERVER_CLOCK_STEPS", 1000);
    campaign("steps of the wall clock", steps, lives);
}
