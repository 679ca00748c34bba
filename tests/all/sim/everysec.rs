//! `fsync = "everysec"` by a simulated clock: at most a second of acknowledged writes is at
//! stake, whatever the disk does.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use storage_server::command::Refusal;
use storage_server::journal::Fsync;
use storage_server::journal::sim::{Call, Crash};

use super::campaign;
use super::workload::Words;
use super::world::{Ground, Waiting, World};
use crate::support::{Random, setting};

const MS: u64 = 1000;
const SECOND: u64 = 1000 * MS;

/// Clients that go on while the disk syncs, and when what happened to their writes.
struct Clients {
    world: World,
    random: Random,
    seed: u64,
    /// The longest time between two of their turns.
    pause_us: u64,
    /// The disk is healthy: it syncs within half a second.
    healthy: bool,
    /// The newest record of each turn, and when it was written.
    written: Vec<(u64, u64)>,
    /// The record of each acknowledged write, and when it was acknowledged.
    acknowledged: Vec<(u64, u64)>,
    refused: u64,
    waited: u64,
}

impl Clients {
    /// How long the oldest write has been waiting for a sync.
    fn oldest_age(&self) -> u64 {
        let synced = self.world.engine.journal().synced();
        let oldest = self.written.iter().find(|(seq, _)| *seq > synced);
        oldest.map_or(0, |(_, time)| self.world.clock.passed_us() - time)
    }

    fn pause(&mut self) -> u64 {
        1 + self.random.below(self.pause_us)
    }

    /// A turn of theirs; and then, in a simulation of its own, the power fails.
    fn act(&mut self, ground: &Ground, states: &AtomicU64) {
        self.world.begin();
        let age = self.oldest_age();
        for _ in 0..self.random.below(4) {
            let words = Words::of(self.random.below(7), &mut self.random);
            match self.world.execute(&words) {
                Ok(answer) => {
                    let in_time = age < 5 * SECOND + MS;
                    assert!(in_time || !answer.wrote, "a write after {age} us");
                }
                Err(refusal) => {
                    assert_eq!(refusal, Refusal::StorageStalled);
                    assert!(age > 5 * SECOND - MS, "refused after {age} us");
                    self.refused += 1;
                }
            }
        }
        let left = self.world.end_turn();
        let now = self.world.clock.passed_us();
        self.written.push((self.world.past().flushed, now));
        self.note(&left);
        self.waited += self.world.waiting.len() as u64;
        for crash in [Crash::DropAll, Crash::Sectors] {
            self.lose_power(ground, crash);
            states.fetch_add(1, Relaxed);
        }
    }

    fn note(&mut self, left: &[Waiting]) {
        let now = self.world.clock.passed_us();
        let writes = left.iter().filter(|answer| answer.wrote);
        self.acknowledged
            .extend(writes.map(|answer| (answer.seq, now)));
    }

    fn lose_power(&self, ground: &Ground, crash: Crash) {
        let now = self.world.clock.passed_us();
        let what = || format!("seed {}: {crash:?} at {now} us", self.seed);
        let left = ground.disk.crash(crash, self.seed + now);
        let found = ground.check(&left, 0, &what);
        let gone = self.acknowledged.iter().filter(|(seq, _)| *seq > found);
        let (mut first, mut last) = (u64::MAX, 0);
        for (_, time) in gone {
            (first, last) = (first.min(*time), last.max(*time));
        }
        let span = last.saturating_sub(first);
        assert!(span <= SECOND, "{}: lost {first}..{last} us", what());
        let age = now.saturating_sub(first);
        assert!(
            !self.healthy || age <= SECOND,
            "{}: lost {first} us",
            what()
        );
    }
}

/// Half a minute of a store. Answers how many states were tried, and how many writes waited for
/// a sync and were refused.
fn half_a_minute(seed: u64, healthy: bool) -> [u64; 3] {
    let mut random = Random::new(seed);
    let ground = Ground::new(Fsync::EverySec);
    let world = World::open(&ground, 0, &|| format!("seed {seed}")).unwrap();
    let engine = Arc::clone(&world.engine);
    let clients = Arc::new(Mutex::new(Clients {
        world,
        random: Random::new(seed),
        seed,
        pause_us: [50 * MS, 300 * MS, 5 * SECOND][random.below(3) as usize],
        healthy,
        written: Vec::new(),
        acknowledged: Vec::new(),
        refused: 0,
        waited: 0,
    }));
    let states = Arc::new(AtomicU64::new(0));
    let longest = if healthy { 499 * MS } else { 8 * SECOND };
    let latency = Mutex::new(Random::new(seed + 1));
    let during = (ground.clone(), Arc::clone(&clients), Arc::clone(&states));
    ground.watch_changes(move |call, _| {
        let (ground, clients, states) = &during;
        if call == Call::Sync {
            let end = ground.clock.passed_us() + latency.lock().unwrap().below(longest);
            let mut clients = clients.lock().unwrap();
            loop {
                let (now, pause) = (ground.clock.passed_us(), clients.pause());
                ground.clock.pass_us(pause.min(end - now));
                if now + pause >= end {
                    break;
                }
                clients.act(ground, states);
            }
        }
    });
    while ground.clock.passed_us() < 30 * SECOND {
        let sleep = engine.journal().run_due().map_or(u64::MAX, |ms| ms * MS);
        let mut clients = clients.lock().unwrap();
        let left = clients.world.settle(false);
        clients.note(&left);
        let pause = clients.pause();
        ground.clock.pass_us(pause.min(sleep));
        if pause <= sleep {
            clients.act(&ground, &states);
        }
    }
    ground.disk.watch(None);
    let clients = clients.lock().unwrap();
    [states.load(Relaxed), clients.waited, clients.refused]
}

#[test]
fn a_healthy_disk_loses_no_write_acknowledged_more_than_a_second_ago() {
    let states = setting("STORAGE_SERVER_EVERYSEC", 10_000);
    campaign("everysec", states, |seed| half_a_minute(seed, true)[0]);
}

#[test]
fn a_stalled_disk_has_writes_wait_and_refuses_them_after_five_seconds() {
    let states = setting("STORAGE_SERVER_EVERYSEC", 10_000);
    let (waited, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    campaign("everysec, stalled", states, |seed| {
        let [states, these_waited, these_refused] = half_a_minute(seed, false);
        waited.fetch_add(these_waited, Relaxed);
        refused.fetch_add(these_refused, Relaxed);
        states
    });
    assert!(waited.load(Relaxed) > 0 && refused.load(Relaxed) > 0);
}

#[test]
fn one_write_and_then_nothing_lasts_within_a_second() {
    let ground = Ground::new(Fsync::EverySec);
    let mut world = World::open(&ground, 0, &|| "one write".to_owned()).unwrap();
    let mut random = Random::new(1);
    world.engine.journal().run_due();
    world.begin();
    while !world.execute(&Words::of(3, &mut random)).unwrap().wrote {}
    assert_eq!(world.end_turn().len(), 1);
    let seq = world.engine.journal().appended();
    // The sync thread sleeps until the write is due, and nobody else wakes it.
    let sleep = world.engine.journal().run_due().unwrap();
    assert!(sleep < 1000, "{sleep} ms");
    ground.clock.pass_us(sleep * MS);
    world.engine.journal().run_due();
    let left = ground.disk.crash(Crash::DropAll, 0);
    ground.check(&left, seq, &|| "one write".to_owned());
}
