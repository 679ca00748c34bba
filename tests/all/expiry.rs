//! Expiry: never early, exact, and memory comes back without being asked for.

use std::sync::mpsc;
use std::time::Duration;

use storage_server::clock::{SimClock, Time};
use storage_server::journal::sim::SimDisk;
use storage_server::store::locks::ShardSet;

use crate::support::memory::{MemoryServer, MemoryWire};
use crate::support::{Config, Home, until};

const START: Time = Time(1_700_000_000_000);

fn ask(wire: &mut MemoryWire, request: &str) -> String {
    String::from_utf8(wire.ask(request.as_bytes())).unwrap()
}

fn start() -> (MemoryServer, SimClock) {
    let clock = SimClock::new(START);
    let config = Config::standard().text();
    (
        MemoryServer::start_at(&config, SimDisk::new(), &clock),
        clock,
    )
}

const KEYS: [&str; 5] = ["1.1", "2.1", "3.1", "6.1", "name"];

#[test]
fn every_kind_lives_to_the_millisecond_and_not_one_longer() {
    let (server, clock) = start();
    let mut wire = server.connect();
    let alive = |wire: &mut MemoryWire| {
        let found = ask(wire, &format!("get {}\r\n", KEYS.join(" ")));
        found.matches("VALUE").count()
    };
    let in_a_minute = (START.0 / 1000 + 60).to_string();
    for (command, seconds) in [
        ("set KEY 0 1 1\r\n7\r\n", 1),
        ("set KEY 0 2592000 1\r\n7\r\n", 2_592_000),
        ("set KEY 3 0 1\r\n7\r\ntouch KEY 9\r\n", 9),
        ("set KEY 0 5 1\r\n7\r\ngat 8 KEY\r\n", 8),
    ] {
        for key in KEYS {
            ask(&mut wire, &command.replace("KEY", key));
        }
        clock.pass_us(seconds * 1_000_000 - 1000);
        assert_eq!(alive(&mut wire), KEYS.len(), "{command:?}");
        server.engine().tidy(Duration::MAX);
        assert_eq!(alive(&mut wire), KEYS.len(), "{command:?}");
        clock.pass_us(1000);
        assert_eq!(alive(&mut wire), 0, "{command:?}");
    }
    // A moment of the wall clock, on a server that has begun before it.
    let (server, clock) = start();
    let mut wire = server.connect();
    for key in KEYS {
        ask(&mut wire, &format!("set {key} 0 {in_a_minute} 1\r\n7\r\n"));
    }
    clock.pass_us(59_999_000);
    assert_eq!(alive(&mut wire), KEYS.len());
    clock.pass_us(1000);
    assert_eq!(alive(&mut wire), 0);
}

/// Entries of every kind, of which every second ends after `seconds`.
fn fill(wire: &mut MemoryWire, ids: u32, seconds: u32) {
    for id in 0..ids {
        let exptime = if id % 2 == 0 { seconds } else { 0 };
        let mset = format!(
            "mset 1.{id} 0 {exptime} 1 2.{id} 0 {exptime} 1 3.{id} 0 {exptime} 100 \
             n{id} 0 {exptime} 1\r\n7\r\n7\r\n{}\r\n7\r\n",
            "x".repeat(100)
        );
        assert_eq!(ask(wire, &mset), "STORED\r\n");
    }
}

#[test]
fn what_has_expired_gives_its_memory_back_without_being_asked_for() {
    let (server, clock) = start();
    let mut wire = server.connect();
    let store = server.engine().store();
    fill(&mut wire, 5000, 10);
    let full = store.memory_bytes();
    clock.pass_us(9_999_000);
    server.engine().tidy(Duration::MAX);
    assert_eq!((store.entries(), store.memory_bytes()), (20_000, full));
    clock.pass_us(1000);
    server.engine().tidy(Duration::MAX);
    assert_eq!(store.entries(), 10_000);
    // Tables stay as large as they were for a while: half of their buckets are in use.
    let values_only = store.memory_bytes();
    assert!(values_only < full * 9 / 10, "{values_only} of {full}");
    let (types, named) = store.sizes();
    let dropped: u64 = types.iter().map(|(_, sizes)| sizes.gone.reclaimed).sum();
    assert_eq!((dropped, named.gone.reclaimed), (7500, 2500));
    // A second pass, for what is stored after the first.
    assert_eq!(ask(&mut wire, "set 3.0 0 1 1\r\n7\r\n"), "STORED\r\n");
    clock.pass_us(1_000_000);
    server.engine().tidy(Duration::MAX);
    assert_eq!(store.entries(), 10_000);
}

#[test]
fn a_lock_is_held_for_a_bounded_piece_only() {
    let (server, clock) = start();
    let mut wire = server.connect();
    let store = server.engine().store();
    // All in one shard, so that its table has many pieces.
    let shard = |id: &u32| storage_server::store::hashing::shard_of(store.hashing().id(*id)) == 0;
    let ids: Vec<_> = (0..8_000_000).filter(shard).collect();
    for few in ids.chunks(500) {
        let heads: Vec<_> = few.iter().map(|id| format!("2.{id} 0 5 1")).collect();
        let mset = format!("mset {}\r\n{}", heads.join(" "), "1\r\n".repeat(few.len()));
        assert_eq!(ask(&mut wire, &mset), "STORED\r\n");
    }
    clock.pass_us(5_000_000);
    let now = Time(START.0 + 5000);
    let (mut before, mut steps) = (store.entries(), 0);
    while store.entries() > 0 {
        store.sweep(now, || false);
        let after = store.entries();
        assert!(before - after <= 4096, "{} at once", before - after);
        (before, steps) = (after, steps + 1);
    }
    assert!(steps >= ids.len() / 4096, "{steps}");
    assert!(
        store.memory_bytes() < 100 << 10,
        "tables shrink: {}",
        store.memory_bytes()
    );
}

#[test]
fn looking_for_what_has_expired_takes_no_lock_when_nothing_has() {
    let (server, clock) = start();
    fill(&mut server.connect(), 100, 1000);
    clock.pass_us(999_000_000);
    let shards = server.engine().store().write_set(ShardSet::ALL);
    let (done, told) = mpsc::channel();
    std::thread::scope(|scope| {
        let engine = server.engine();
        scope.spawn(move || {
            engine.tidy(Duration::MAX);
            done.send(()).unwrap();
        });
        let looked = told.recv_timeout(Duration::from_secs(20));
        drop(shards);
        assert_eq!(looked, Ok(()), "it waited for a lock");
    });
}

#[test]
fn a_restart_changes_no_expiry_even_if_the_clock_goes_back() {
    let (server, clock) = start();
    let mut wire = server.connect();
    fill(&mut wire, 100, 10);
    clock.pass_us(6_000_000);
    assert_eq!(ask(&mut wire, "set 2.999 0 0 1\r\n1\r\n"), "STORED\r\n");
    let disk = server.disk.kill();
    let config = Config::standard().text();
    for years in [0, 1, 20] {
        // By the newest record 4 seconds are left, whatever the clock says.
        let clock = SimClock::new(Time(START.0 + 6000 - years * 31_536_000_000));
        let again = MemoryServer::start_at(&config, disk.kill(), &clock);
        let mut wire = again.connect();
        clock.pass_us(3_999_000);
        assert_eq!(
            ask(&mut wire, "get 1.0 2.0 3.0 n0\r\n")
                .matches("VALUE")
                .count(),
            4
        );
        clock.pass_us(1000);
        assert_eq!(ask(&mut wire, "get 1.0 2.0 3.0 n0\r\n"), "END\r\n");
        again.engine().tidy(Duration::MAX);
        assert_eq!(again.engine().store().entries(), 201);
    }
}

#[test]
fn a_flush_at_a_time_that_has_passed_is_now_unless_it_is_before_the_start() {
    let (server, clock) = start();
    let mut wire = server.connect();
    clock.pass_us(100_000_000);
    for (seconds, left) in [
        (-1_000_000, 1),
        (-63, 1),
        (-1, 0),
        (50, 0),
        (100, 0),
        (101, 1),
    ] {
        assert_eq!(ask(&mut wire, "set 2.1 0 0 1\r\n7\r\n"), "STORED\r\n");
        let time = START.0.cast_signed() / 1000 + seconds;
        assert_eq!(ask(&mut wire, &format!("flush_all {time}\r\n")), "OK\r\n");
        let found = ask(&mut wire, "get 2.1\r\n").matches("VALUE").count();
        assert_eq!(found, left, "{seconds}");
    }
}

#[test]
fn a_running_server_drops_what_has_expired_without_being_asked() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    let mut client = daemon.client();
    let figures = |client: &mut crate::support::Client| {
        let stats = client.stats("").unwrap();
        ["curr_items", "bytes"].map(|name| stats[name].parse::<u64>().unwrap())
    };
    assert_eq!(client.ask("set 3.0 0 0 1\r\nx").unwrap(), "STORED");
    let before = figures(&mut client);
    let now: u64 = client.stats("").unwrap()["time"].parse().unwrap();
    // Relative, and a moment of the wall clock.
    for (at, exptime) in [2, now + 3].into_iter().enumerate() {
        for id in 0..500 {
            let keys = KEYS.map(|key| format!("{key}{at}{id:03}"));
            for key in keys {
                let line = format!("set {key} 0 {exptime} 3\r\n777");
                assert_eq!(client.ask(&line).unwrap(), "STORED");
            }
        }
    }
    let full = figures(&mut client);
    assert_eq!(full[0], before[0] + 5000, "{full:?}");
    let left = until("they are gone", Duration::from_secs(30), || {
        let left = figures(&mut client);
        (left[0] == before[0]).then_some(left)
    });
    // Tables may stay larger than they were.
    assert!(left[1] < full[1] / 2, "{before:?} {full:?} {left:?}");
    assert_eq!(client.get("3.0").unwrap().as_deref(), Some("x"));
}
