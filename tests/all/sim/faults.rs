//! Every call of a store's life fails, once or for ever, in every way: refusals as promised, no
//! loss, and a way back.

use std::sync::atomic::AtomicU64;

use storage_server::command::Refusal;
use storage_server::journal::Fsync;
use storage_server::journal::sim::{Call, Crash, Fault, SimDisk};

use super::on_all_cores;
use super::workload::Words;
use super::world::{Ground, Past, World};
use crate::support::{Random, setting};

/// A life of everything that a store does; the same calls each time. Answers the refusals.
fn life(world: &mut World, seed: u64, what: &dyn Fn() -> String) -> Vec<Refusal> {
    let mut random = Random::new(seed);
    let mut refusals = Vec::new();
    for turn in 0..14 {
        world.clock.pass_us(100_000);
        world.begin();
        if turn % 5 == 0 {
            refusals.extend(world.store_long().err());
        }
        for _ in 0..3 {
            refusals.extend(world.execute(&Words::any(&mut random)).err());
        }
        world.end_turn();
        // Whatever the disk does, memory is there and right.
        world.compare(what);
        match turn {
            4 => drop(world.engine.snapshot(false)),
            7 => drop(world.engine.journal().rotate()),
            9 => drop(world.move_files()),
            _ => drop(world.sync()),
        }
    }
    refusals
}

#[derive(Clone, Copy, Debug)]
struct Failing {
    seed: u64,
    fault: Fault,
    forever: bool,
    /// Only calls of this kind.
    only: Option<Call>,
    first: u64,
}

impl Failing {
    fn begin(self, disk: &SimDisk) {
        match self.only {
            Some(only) => disk.fail_only(only, self.first, self.forever, self.fault),
            None => disk.fail(disk.calls() + self.first, self.forever, self.fault),
        }
    }

    /// Lives with these failures and after them.
    fn run(self) -> u64 {
        let what = || format!("{self:?}");
        let ground = Ground::new(Fsync::Always);
        let mut world = World::open(&ground, 0, &what).unwrap();
        self.begin(&ground.disk);
        let refusals = life(&mut world, self.seed, &what);
        // No space to reserve is no failure: it heals when there is space.
        let no_space = matches!(self.fault, Fault::Full | Fault::Quota);
        if no_space && self.only == Some(Call::Allocate) {
            let full = refusals.iter().all(|refusal| *refusal == Refusal::DiskFull);
            assert!(
                full && world.engine.journal().failed().is_none(),
                "{self:?}"
            );
        }
        let Past {
            promised, flushed, ..
        } = *world.past();
        for crash in Crash::ALL {
            ground.check(&ground.disk.crash(crash, self.first), promised, &what);
        }
        ground.check(&ground.disk.kill(), flushed, &what);
        ground.disk.heal();
        if world.engine.journal().failed().is_some() {
            let refused = world.execute(&Words::of(3, &mut Random::new(1)));
            assert_eq!(refused.err(), Some(Refusal::StorageFailed), "{self:?}");
            world.engine.snapshot(false).unwrap();
        }
        // It is well again: everything in memory lasts, and so does what comes.
        let refusals = life(&mut world, self.seed, &what);
        assert_eq!(refusals, [], "{self:?}");
        let appended = world.engine.journal().appended();
        let left = ground.disk.crash(Crash::DropAll, 0);
        assert_eq!(ground.check(&left, appended, &what), appended, "{self:?}");
        1
    }
}

/// All failures of a life, each call in turn.
fn failings(seed: u64) -> impl Iterator<Item = Failing> {
    let what = || format!("seed {seed}");
    let ground = Ground::new(Fsync::Always);
    let mut world = World::open(&ground, 0, &what).unwrap();
    let opened = ground.disk.calls();
    life(&mut world, seed, &what);
    let calls = ground.disk.calls() - opened;
    let kinds = [None].into_iter().chain(Call::ALL.map(Some));
    kinds.flat_map(move |only| {
        // Of one kind there are fewer calls; beyond them nothing fails.
        let firsts = if only.is_none() { calls } else { 12 };
        (1..=firsts).flat_map(move |first| {
            [false, true].into_iter().flat_map(move |forever| {
                Fault::ALL.into_iter().map(move |fault| Failing {
                    seed,
                    fault,
                    forever,
                    only,
                    first,
                })
            })
        })
    })
}

#[test]
fn every_call_may_fail_once_or_for_ever_in_every_way() {
    let count = setting("STORAGE_SERVER_FAILING_CALLS", 1000) as usize;
    let cases: Vec<_> = failings(Random::seed("failing calls")).collect();
    println!("failing calls: {count} of {}", cases.len());
    let step = (cases.len() / count).max(1);
    let cases = cases.into_iter().step_by(step);
    let cold = on_all_cores("failing calls", cases, &AtomicU64::new(0), Failing::run);
    assert!(cold > 0, "no value was ever away");
}

#[test]
fn a_start_whose_calls_fail_is_refused_or_complete() {
    let what = || "start".to_owned();
    let mut ground = Ground::new(Fsync::Always);
    let mut world = World::open(&ground, 0, &what).unwrap();
    life(&mut world, 7, &what);
    let (appended, disk) = (world.engine.journal().appended(), ground.disk.kill());
    ground.disk = disk.kill();
    let before = disk.calls();
    drop(World::open(&ground, appended, &what).unwrap());
    for call in before + 1..=ground.disk.calls() {
        for fault in Fault::ALL {
            for forever in [false, true] {
                let what = || format!("call {call} {fault:?} forever {forever}");
                ground.disk = disk.kill();
                ground.disk.fail(call, forever, fault);
                drop(World::open(&ground, appended, &what));
                ground.check(&ground.disk.kill(), appended, &what);
                let left = ground.disk.crash(Crash::Sectors, call);
                let promised = ground.past().promised;
                ground.check(&left, promised, &what);
            }
        }
    }
}
