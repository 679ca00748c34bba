//! What an entry takes in memory, beside the peers that are installed.
//!
//! Each figure is the growth of the resident set of a server of its own over what it was when
//! empty, by entry; read after all servers have been idle, so that what a server gives back is
//! given back. Ours has its journal on (`everysec`). The peers hold the same under the same keys;
//! Redis holds an index as a set, memcached has none.

use std::io::Write as _;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::support::figures::{Goal, Row};
use super::support::server::{Config, Cores, Program, Server};
use super::support::wire::{Dialect, scrambled};

const CONNECTIONS: u64 = 10_000;
/// How long connections are idle before they are measured, or as long as servers if that is less.
const SETTLED: Duration = Duration::from_secs(10);
/// Files that a process has open beside its connections, and more.
const OTHER_FILES: u64 = 200;

/// What a server is filled with.
#[derive(Clone, Copy)]
enum Load {
    Counters(u64),
    Data(u64),
    /// So many indexes of so many members, whose ids are below a limit, added `at_once`.
    Indexes {
        count: u64,
        members: u64,
        below: u64,
        at_once: u64,
    },
    Connections,
}

/// What is measured, and the most bytes that it is to take of us.
const LOADS: &[(&str, Load, f64)] = &[
    ("counter, of 1,000,000", Load::Counters(1_000_000), 24.0),
    ("counter, of 7,500,000", Load::Counters(7_500_000), 24.0),
    ("counter, of 10,000,000", Load::Counters(10_000_000), 24.0),
    (
        "item of 32 bytes, of 1,000,000",
        Load::Data(1_000_000),
        85.0,
    ),
    (
        "member, indexes of 150 of 2^32",
        Load::Indexes {
            count: 20_000,
            members: 150,
            below: 1 << 32,
            at_once: 150,
        },
        6.0,
    ),
    (
        "member, 1,000,000 of 10,000,000",
        Load::Indexes {
            count: 1,
            members: 1_000_000,
            below: 10_000_000,
            at_once: 1,
        },
        2.0,
    ),
    (
        "member, 1,000,000 of 2^32",
        Load::Indexes {
            count: 1,
            members: 1_000_000,
            below: 1 << 32,
            at_once: 1,
        },
        8.0,
    ),
    ("idle connection, of 10,000", Load::Connections, 2048.0),
];

/// The rows of what has at most so many entries, after that long without requests.
pub(super) fn growth(idle: Duration, entries_max: u64) -> Vec<Row> {
    allow_files();
    let loads = LOADS.iter();
    let loads = loads.filter(|(_, load, _)| load.entries() <= entries_max);
    let filled: Vec<_> = loads.map(|load| (load, fill_each(load.1, idle))).collect();
    std::thread::sleep(idle);
    let table = filled.iter().flat_map(|((name, load, goal), servers)| {
        let each = |filled: &Filled| filled.grown_bytes() as f64 / load.entries() as f64;
        let ours = Row::new(
            format!("memory, bytes for each {name}"),
            each(&servers[0]),
            Some(Goal::AtMost(*goal)),
        );
        let peers = servers.iter().skip(1).map(|peer| {
            let row = Row::new(ours.measure.clone(), ours.ours, None);
            row.against(peer.server.name, each(peer), None)
        });
        let peers: Vec<_> = peers.collect();
        std::iter::once(ours).chain(peers)
    });
    table.collect()
}

/// 10,000 connections need as many files, here and in the servers, which inherit it.
fn allow_files() {
    let files = CONNECTIONS + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: Some(files.max(limit.current.unwrap_or(files))),
        ..limit
    };
    setrlimit(Resource::Nofile, raised).expect("10,000 connections need as many files");
}

/// Ours and its peers, each filled with the same; those that do not have the like are left out.
fn fill_each(load: Load, idle: Duration) -> Vec<Filled> {
    let clients = CONNECTIONS + OTHER_FILES;
    let (ours, memcached, redis) = (
        format!("max_clients = {clients}"),
        format!("-m 8192 -c {clients}"),
        format!("--maxclients {clients}"),
    );
    let config = Config {
        server: &ours,
        ..Config::default()
    };
    let programs = [
        ("ours", Program::Ours(config)),
        ("memcached", Program::Memcached(&memcached)),
        ("Redis", Program::Redis(&redis)),
    ];
    let has_the_like = |name: &str| name != "memcached" || !matches!(load, Load::Indexes { .. });
    let programs = programs.into_iter().filter(|(name, _)| has_the_like(name));
    programs
        .filter_map(|(name, program)| Server::start(name, program, Cores::All))
        .map(|server| Filled::new(server, load, idle))
        .collect()
}

/// A server that has been filled.
struct Filled {
    server: Server,
    empty_bytes: u64,
    /// What it grew by with its connections, which are gone by the end.
    connections_bytes: Option<u64>,
}

impl Filled {
    fn new(server: Server, load: Load, idle: Duration) -> Self {
        std::thread::sleep(Duration::from_millis(500));
        let empty_bytes = server.process().resident_bytes();
        let mut filled = Self {
            server,
            empty_bytes,
            connections_bytes: None,
        };
        if let Load::Connections = load {
            filled.hold_connections(idle.min(SETTLED));
        } else {
            let dialect = filled.server.dialect;
            let mut client = filled.server.connect();
            client.fill(load.requests(), |at, out| load.write(dialect, at, out));
        }
        filled
    }

    fn grown_bytes(&self) -> u64 {
        let resident = || self.server.process().resident_bytes();
        let grown = || resident().saturating_sub(self.empty_bytes);
        self.connections_bytes.unwrap_or_else(grown)
    }

    /// Measures what connections take that have asked for something once. Only those of one
    /// server at a time are open, because few machines let one process have more files.
    fn hold_connections(&mut self, idle: Duration) {
        let connect = |_| {
            let mut client = self.server.connect();
            client.ask("get none\r\n");
            client.into_stream()
        };
        let open: Vec<_> = (0..CONNECTIONS).map(connect).collect();
        std::thread::sleep(idle);
        self.connections_bytes = Some(self.grown_bytes());
        drop(open);
    }
}

impl Load {
    fn entries(self) -> u64 {
        match self {
            Self::Counters(count) | Self::Data(count) => count,
            Self::Indexes { count, members, .. } => count * members,
            Self::Connections => CONNECTIONS,
        }
    }

    fn requests(self) -> u64 {
        match self {
            Self::Counters(count) | Self::Data(count) => count,
            Self::Indexes {
                count,
                members,
                at_once,
                ..
            } => count * members / at_once,
            Self::Connections => 0,
        }
    }

    fn write(self, dialect: Dialect, at: u64, out: &mut Vec<u8>) {
        let id = scrambled(at);
        match self {
            Self::Counters(_) => dialect.set(out, &format!("2.{id}"), &(at % 1000).to_string()),
            Self::Data(_) if dialect == Dialect::Memcached => {
                let _ = write!(out, "set 3.{id} 7 0 32\r\n{at:032}\r\n");
            }
            Self::Data(_) => dialect.set(out, &format!("3.{id}"), &format!("{at:032}")),
            Self::Indexes {
                members,
                below,
                at_once,
                ..
            } => {
                let first = at * at_once;
                // Below the limit each id comes once too, but for few.
                let limited = |at| u32::try_from((u64::from(scrambled(at)) * below) >> 32);
                let ids = (first..first + at_once).map(|at| limited(at).unwrap());
                dialect.add_members(out, &format!("1.{}", first / members), ids);
            }
            Self::Connections => {}
        }
    }
}
