//! The memory limit: what finds no room is refused or makes room, and what goes is what is least
//! likely to be wanted again.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use storage_server::journal::sim::SimDisk;
use storage_server::store::sizes::Gone;

use crate::support::memory::{MemoryServer, MemoryWire};
use crate::support::{Config, Random};

const LIMIT: u64 = 4 << 20;
/// By how much what is counted may be more than the limit: what the books do not tell at once, and
/// a table that doubles.
const SLACK: u64 = 512 << 10;

fn config() -> Config {
    let evicted = "when_full = \"evict\"";
    Config::standard()
        .with("server", "memory_limit", &LIMIT.to_string())
        .with(
            "types",
            "13",
            &format!("{{ kind = \"DATA\", {evicted}, durable = false }}"),
        )
        .with("types", "14", &format!("{{ kind = \"DATA\", {evicted} }}"))
        .with("types", "15", &format!("{{ kind = \"INDEX\", {evicted} }}"))
        .with("server", "named_keys_when_full", "\"evict\"")
}

fn ask(wire: &mut MemoryWire, request: &str) -> String {
    String::from_utf8(wire.ask(request.as_bytes())).unwrap()
}

fn set(wire: &mut MemoryWire, key: &str, bytes: usize) -> String {
    ask(
        wire,
        &format!("set {key} 0 0 {bytes}\r\n{}\r\n", "v".repeat(bytes)),
    )
}

fn start(config: &Config) -> MemoryServer {
    MemoryServer::start(&config.text(), SimDisk::new())
}

const NO_ROOM: &str = "SERVER_ERROR out of memory storing object\r\n";

#[test]
fn without_eviction_what_finds_no_room_is_refused_and_changes_nothing() {
    let mut config = config();
    for prefix in ["13", "14", "15"] {
        config.remove("types", prefix);
    }
    config.remove("server", "named_keys_when_full");
    let server = start(&config);
    let mut wire = server.connect();
    let memory = || server.engine().store().memory_bytes();
    let mut stored = 0;
    while set(&mut wire, &format!("3.{stored}"), 1000) == "STORED\r\n" {
        stored += 1;
        assert!(memory() <= LIMIT + SLACK, "{}", memory());
    }
    assert!(memory() > LIMIT - SLACK && stored > 3000, "{stored}");
    assert_eq!(set(&mut wire, "name", 2000), NO_ROOM);
    assert_eq!(
        ask(
            &mut wire,
            "mset 3.1 0 0 1 name 0 0 5000\r\nx\r\n".to_owned().as_str()
        ),
        ""
    );
    assert_eq!(
        ask(&mut wire, &format!("{}\r\n", "v".repeat(5000))),
        NO_ROOM
    );
    assert_eq!(ask(&mut wire, "append 3.1 0 0 9999\r\n"), "");
    assert_eq!(
        ask(&mut wire, &format!("{}\r\n", "v".repeat(9999))),
        NO_ROOM
    );
    let shown = ask(&mut wire, "get 3.1 name\r\n");
    assert!(shown.starts_with("VALUE 3.1 0 1000\r\nvvv") && shown.ends_with("\r\nEND\r\n"));
    // What takes no more than what it replaces, or gives room, goes on.
    assert_eq!(set(&mut wire, "3.1", 900), "STORED\r\n");
    assert_eq!(
        ask(&mut wire, "delete 3.2\r\ndelete 3.3\r\ndelete 3.4\r\n")
            .matches("DEL")
            .count(),
        3
    );
    assert_eq!(set(&mut wire, "name", 1000), "STORED\r\n");
}

fn gone(server: &MemoryServer, prefix: u16) -> Gone {
    let (types, named) = server.engine().store().sizes();
    let of_type = types.iter().find(|(number, _)| *number == prefix);
    of_type.map_or(named.gone, |(_, sizes)| sizes.gone)
}

#[test]
fn with_eviction_everything_is_stored_and_only_what_may_go_goes() {
    let server = start(&config());
    let mut wire = server.connect();
    for id in 0..500 {
        assert_eq!(set(&mut wire, &format!("3.{id}"), 1000), "STORED\r\n");
        assert_eq!(ask(&mut wire, &format!("incr 2.{id} 1\r\n")), "1\r\n");
    }
    for id in 0..20_000 {
        let key = ["13.", "14.", "name"][id % 3];
        assert_eq!(
            set(&mut wire, &format!("{key}{id}"), 100 + id % 1000),
            "STORED\r\n"
        );
        if id % 8 == 0 {
            ask(
                &mut wire,
                &format!("append 15.{id} 0 0 11\r\n1\n2\n3\n40000\r\n"),
            );
        }
        let memory = server.engine().store().memory_bytes();
        assert!(memory <= LIMIT + SLACK, "{memory}");
    }
    for id in 0..500 {
        let found = ask(&mut wire, &format!("get 3.{id} 2.{id}\r\n"));
        assert_eq!(found.matches("VALUE").count(), 2, "{id}");
    }
    for prefix in [13, 14, 15, 0] {
        assert!(gone(&server, prefix).evicted > 500, "{prefix}");
    }
    assert_eq!(gone(&server, 3), Gone::default());
    // A value that takes a quarter of it all makes its room, too.
    assert_eq!(set(&mut wire, "13.1", 1 << 20), "STORED\r\n");
    // What may not go finds room as long as something else may go, and then no more.
    let mut stored = 0;
    while set(&mut wire, &format!("3.{}", 1000 + stored), 1000) == "STORED\r\n" {
        stored += 1;
    }
    assert!(stored > 2000, "{stored}");
    assert!(server.engine().store().memory_bytes() <= LIMIT + SLACK);
}

#[test]
fn a_restart_finds_what_was_not_evicted() {
    let config = config();
    let server = start(&config);
    let mut wire = server.connect();
    for id in 0..12_000 {
        let key = if id % 2 == 0 { "14." } else { "name" };
        assert_eq!(set(&mut wire, &format!("{key}{id}"), 600), "STORED\r\n");
        if id == 6000 {
            assert_eq!(ask(&mut wire, "snapshot\r\n"), "OK\r\n");
        }
    }
    let keys: Vec<_> = (0..12_000)
        .map(|id| format!("{}{id}", ["14.", "name"][id % 2]))
        .collect();
    let show = |wire: &mut MemoryWire| {
        let chunks = keys.chunks(1000);
        chunks
            .map(|keys| ask(wire, &format!("gets {}\r\n", keys.join(" "))))
            .collect::<String>()
    };
    let shown = show(&mut wire);
    let left = shown.matches("VALUE").count();
    assert!((2000..8000).contains(&left), "{left}");
    let again = MemoryServer::start(&config.text(), server.disk.kill());
    assert!(show(&mut again.connect()) == shown);
}

#[test]
fn a_limit_that_is_lowered_is_kept_soon() {
    let server = start(&config());
    let mut wire = server.connect();
    for id in 0..6000 {
        assert_eq!(set(&mut wire, &format!("13.{id}"), 600), "STORED\r\n");
    }
    let lower = config().with("server", "memory_limit", "\"1m\"").text();
    let lower = storage_server::config::Config::parse(&lower, "config.ini").unwrap();
    server
        .engine()
        .set_settings(storage_server::server::shared::settings(&lower));
    for _ in 0..50 {
        server.engine().tidy(Duration::MAX);
    }
    let memory = server.engine().store().memory_bytes();
    assert!(memory <= (1 << 20) + SLACK / 4, "{memory}");
    assert_eq!(set(&mut wire, "13.1", 600), "STORED\r\n");
}

#[test]
fn a_burst_of_many_clients_does_not_overrun_the_limit() {
    let server = start(&config());
    std::thread::scope(|scope| {
        for client in 0..8 {
            let (mut wire, store) = (server.connect(), server.engine().store());
            scope.spawn(move || {
                for id in 0..2000 {
                    let key = format!("14.{}", client * 2000 + id);
                    assert_eq!(set(&mut wire, &key, 3000), "STORED\r\n");
                    let memory = store.memory_bytes();
                    assert!(memory <= LIMIT + SLACK, "{memory}");
                }
            });
        }
    });
}

/// Keys of a Zipf law: the first is the most wanted.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(keys: usize, skew: f64) -> Self {
        let mut sum = 0.0;
        let weights = (1..=keys).map(|rank| (rank as f64).powf(-skew));
        Self(
            weights
                .map(|weight| {
                    sum += weight;
                    sum
                })
                .collect(),
        )
    }

    fn draw(&self, random: &mut Random) -> usize {
        let at = random.below(1 << 52) as f64 / (1u64 << 52) as f64 * self.0.last().unwrap();
        self.0.partition_point(|sum| *sum < at)
    }
}

/// Plain LRU, to compare with.
#[derive(Default)]
struct Lru {
    newest: HashMap<usize, u64>,
    order: VecDeque<(usize, u64)>,
    clock: u64,
}

impl Lru {
    fn use_of(&mut self, key: usize, capacity: usize) -> bool {
        self.clock += 1;
        let hit = self.newest.insert(key, self.clock).is_some();
        self.order.push_back((key, self.clock));
        while self.newest.len() > capacity {
            let (key, used) = self.order.pop_front().unwrap();
            if self.newest.get(&key) == Some(&used) {
                self.newest.remove(&key);
            }
        }
        hit
    }
}

#[test]
fn more_is_found_than_with_plain_lru() {
    let seed = Random::seed("zipf");
    for (skew, scans) in [(0.8, false), (0.99, false), (0.99, true)] {
        let server = start(&config());
        let mut wire = server.connect();
        let mut random = Random::new(seed);
        let zipf = Zipf::new(200_000, skew);
        let mut asked = Vec::new();
        while asked.len() < 300_000 {
            asked.push(zipf.draw(&mut random));
            if scans && asked.len() % 20_000 == 0 {
                let first = 1_000_000 + asked.len();
                asked.extend(first..first + 8000);
            }
        }
        let mut hits = Vec::new();
        for key in &asked {
            let found = ask(&mut wire, &format!("get 13.{key}\r\n")).len() > 5;
            hits.push(found);
            if !found {
                assert_eq!(set(&mut wire, &format!("13.{key}"), 200), "STORED\r\n");
            }
        }
        let (mut lru, held) = (Lru::default(), server.engine().store().entries());
        let of_lru: Vec<_> = asked.iter().map(|key| lru.use_of(*key, held)).collect();
        let second_half = |hits: &[bool]| {
            let late = asked.iter().zip(hits).skip(asked.len() / 2);
            let asked: Vec<_> = late.filter(|(key, _)| **key < 1_000_000).collect();
            asked.iter().filter(|(_, hit)| **hit).count() as f64 / asked.len() as f64
        };
        let (ours, theirs) = (second_half(&hits), second_half(&of_lru));
        println!("skew {skew}, scans {scans}, {held} held: {ours:.3}, plain LRU {theirs:.3}");
        assert!(
            ours > theirs + 0.03,
            "seed {seed}: {ours:.3} against {theirs:.3}"
        );
    }
}
