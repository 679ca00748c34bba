//! What entries are counted with, `memory_limit` too, is what they take: the growth of the
//! resident set of a daemon that is filled with one kind of entries is compared with its `bytes`.
//! What is kept free on the disk for a snapshot is what one takes.

use std::fmt::Write as _;

use storage_server::journal::sim::SimDisk;

use crate::support::daemon::resident_kb;
use crate::support::memory::MemoryServer;
use crate::support::wire::PATIENCE;
use crate::support::{Client, Config, Daemon, Home, until};

/// Requests that are sent at once.
const BATCH: u64 = 1000;

/// How far what is counted may be from the growth, in hundredths of the growth.
const OFF_PERCENT: u64 = 5;
/// And this, whatever is stored: buffers, stacks, what tables had before they grew.
const OFF_BYTES: u64 = 2 << 20;

/// What a daemon is filled with.
#[derive(Clone, Copy)]
struct Load {
    what: &'static str,
    entries: u64,
    key: fn(u64) -> String,
    value: fn(u64) -> String,
}

const LOADS: [Load; 6] = [
    Load {
        what: "COUNTER",
        entries: 1_000_000,
        key: |id| format!("2.{id}"),
        value: |id| id.to_string(),
    },
    Load {
        what: "COUNTER64",
        entries: 1_000_000,
        key: |id| format!("6.{id}"),
        value: |id| (u64::MAX - id).to_string(),
    },
    Load {
        what: "INDEX of 10 members",
        entries: 200_000,
        key: |id| format!("1.{id}"),
        value: |id| {
            let members: Vec<_> = (0..10).map(|at| (id + at * 4000).to_string()).collect();
            members.join("\n")
        },
    },
    Load {
        what: "DATA of 32 bytes",
        entries: 200_000,
        key: |id| format!("3.{id}"),
        value: |_| "x".repeat(32),
    },
    Load {
        what: "DATA of 20 to 420 bytes",
        entries: 200_000,
        key: |id| format!("3.{id}"),
        value: |id| "x".repeat(20 + (id * 7919 % 400) as usize),
    },
    Load {
        what: "named keys of 100 bytes",
        entries: 200_000,
        key: |id| format!("name:{id:08}"),
        value: |_| "x".repeat(100),
    },
];

/// Stores entries, and waits until all are.
fn fill(client: &mut Client, ids: std::ops::Range<u64>, load: Load) {
    let mut id = ids.start;
    while id < ids.end {
        let mut requests = String::new();
        for id in id..ids.end.min(id + BATCH) {
            let value = (load.value)(id);
            let (key, length) = ((load.key)(id), value.len());
            write!(requests, "set {key} 0 0 {length} noreply\r\n{value}\r\n").unwrap();
        }
        client.send(requests.as_bytes()).unwrap();
        id += BATCH;
    }
    assert_eq!(client.ask("mn").unwrap(), "MN");
}

fn counted(client: &mut Client) -> u64 {
    client.stats("").unwrap()["bytes"].parse().unwrap()
}

/// The resident set once it stays the same for a while, in bytes.
fn settled(daemon: &Daemon) -> u64 {
    let mut last = (0, 0);
    until("the resident set stays the same", PATIENCE, || {
        let now = resident_kb(daemon);
        last = if now == last.0 {
            (now, last.1 + 1)
        } else {
            (now, 0)
        };
        (last.1 == 200).then_some(now << 10)
    })
}

#[test]
fn what_is_counted_is_what_entries_take() {
    for load in LOADS {
        let home = Home::new(Config::standard());
        let daemon = home.start();
        let mut client = daemon.client();
        // The same requests to few entries first: what they need beside the entries is there.
        for _ in 0..20 {
            fill(&mut client, 0..BATCH, load);
        }
        let (base, base_counted) = (settled(&daemon), counted(&mut client));
        fill(&mut client, 0..load.entries, load);
        let grown = settled(&daemon).saturating_sub(base);
        let counted = counted(&mut client) - base_counted;
        let each = |bytes: u64| bytes as f64 / (load.entries - BATCH) as f64;
        println!(
            "{}: {:.1} bytes counted for each, {:.1} of growth",
            load.what,
            each(counted),
            each(grown)
        );
        assert!(
            counted.abs_diff(grown) <= grown * OFF_PERCENT / 100 + OFF_BYTES,
            "{}: {counted} bytes counted, {grown} of growth",
            load.what
        );
    }
}

#[test]
fn a_snapshot_takes_about_what_is_reckoned() {
    for load in LOADS {
        let config = Config::standard().text();
        let server = MemoryServer::start(&config, SimDisk::new());
        let mut wire = server.connect();
        for id in 0..2000 {
            let (key, value) = ((load.key)(id), (load.value)(id));
            let request = format!("set {key} 0 0 {}\r\n{value}\r\n", value.len());
            assert_eq!(wire.ask(request.as_bytes()), b"STORED\r\n");
        }
        let reckoned = server.engine().store().snapshot_bytes();
        assert_eq!(wire.ask(b"snapshot\r\n"), b"OK\r\n");
        let taken = server.engine().journal().stats().snapshot_bytes;
        println!("{}: {taken} bytes, {reckoned} reckoned", load.what);
        assert!(reckoned > taken - taken / 10, "{}", load.what);
        // Members are far shorter in files where there are many near each other.
        assert!(reckoned < 4 * taken, "{}", load.what);
    }
}
