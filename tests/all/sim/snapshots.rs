//! Snapshots under load: what happens between any two steps of a snapshot in the making, and a
//! power loss at each of them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use storage_server::journal::Fsync;
use storage_server::journal::disk::Name;
use storage_server::journal::sim::Call;
use storage_server::types::{Kind, TypeDef, TypeTable};

use super::campaign;
use super::workload::Words;
use super::world::{Ground, World};
use crate::support::{Random, setting};

/// A worker that changes everything while a snapshot is written.
struct Meanwhile {
    worker: World,
    random: Random,
}

impl Meanwhile {
    fn act(&mut self, may_sync: bool) {
        let random = &mut self.random;
        self.worker.clock.pass_us(random.below(400_000));
        self.worker.begin();
        for _ in 0..random.below(4) {
            let _ = self.worker.execute(&Words::any(random));
        }
        self.worker.end_turn();
        match random.below(12) {
            // What has expired goes, also what the snapshot has not read yet.
            0 => self.worker.engine.tidy(std::time::Duration::MAX),
            // Other types: the snapshot has to begin again.
            1 if random.one_in(8) => {
                let other = TypeDef::new(60 + random.below(5) as u16, Kind::Data);
                let mut rows = self.worker.engine.store().types().rows().to_vec();
                rows.retain(|row| (3..60).contains(&row.prefix));
                rows.push(other);
                let _ = self
                    .worker
                    .engine
                    .declare_types(&TypeTable::new(rows).unwrap());
            }
            2..4 if may_sync => drop(self.worker.sync()),
            _ => {}
        }
    }
}

/// Has everything changed at each step of a snapshot, and the power fail at each change.
fn watch(ground: &Ground, worker: World, seed: u64, states: &Arc<AtomicU64>) {
    let random = Random::new(seed);
    let meanwhile = Mutex::new(Meanwhile { worker, random });
    let (states, watched) = (Arc::clone(states), ground.clone());
    ground.watch_changes(move |call, name| {
        watched.lose_power(seed, &states, &|| format!("{call:?} {name}"));
        // In these calls the journal holds no lock that a worker takes. What this does to the
        // disk is watched, too.
        let in_the_making = name.contains("snapshot-") && Name::is_temporary(name);
        if in_the_making
            && matches!(call, Call::Create | Call::Write | Call::Sync)
            && let Ok(mut meanwhile) = meanwhile.try_lock()
        {
            meanwhile.act(call != Call::Create);
        }
    });
}

fn snapshots_under_load(seed: u64, meanwhile: &AtomicU64) -> u64 {
    let mut random = Random::new(seed);
    let mut ground = Ground::new(Fsync::Always);
    let states = Arc::default();
    for life in 0..2 {
        let what = || format!("seed {seed}: life {life}");
        let least = ground.past().flushed;
        let mut world = World::open(&ground, least, &what).unwrap();
        for _ in 0..2 {
            for _ in 0..random.below(12) {
                world.begin();
                for _ in 0..3 {
                    world.execute(&Words::any(&mut random)).unwrap();
                }
                world.end_turn();
                world.sync();
            }
            let before = world.engine.journal().appended();
            watch(&ground, world.another(), random.next(), &states);
            world.engine.snapshot(random.one_in(3)).unwrap();
            ground.disk.watch(None);
            meanwhile.fetch_add(world.engine.journal().appended() - before, Relaxed);
            world.compare(&what);
            // The snapshot and the journal from the cut on are the living state, exactly.
            world.engine.flush().unwrap();
            let appended = world.engine.journal().appended();
            let found = ground.check(&ground.disk.kill(), appended, &what);
            assert_eq!(found, appended, "seed {seed}");
        }
        drop(world);
        ground.disk = ground.disk.kill();
    }
    states.load(Relaxed)
}

#[test]
fn a_snapshot_under_load_and_the_journal_from_its_cut_are_the_state() {
    let states = setting("STORAGE_SERVER_SNAPSHOT_CRASHES", 30_000);
    let (meanwhile, seeds) = (AtomicU64::new(0), AtomicU64::new(0));
    campaign("power losses in snapshots under load", states, |seed| {
        seeds.fetch_add(1, Relaxed);
        snapshots_under_load(seed, &meanwhile)
    });
    let seeds = seeds.into_inner();
    println!("{seeds} seeds");
    // A seed has so many states that a few would do for the campaign.
    assert!(seeds >= 20.min(states / 1500), "only {seeds} seeds");
    assert!(meanwhile.load(Relaxed) > 100, "nothing happened meanwhile");
}
