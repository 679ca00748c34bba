//! What an entry takes in memory, beside the peers that are installed (memcached, Redis), in the
//! same run: `cargo bench --bench memory [-- SECONDS]`.
//!
//! Each figure is the growth of the resident set of a server of its own over what it was when
//! empty, by entry; read after all servers have been idle for SECONDS (a minute unless given), so
//! that what a server gives back is given back. Ours has its journal on (`everysec`). The peers
//! hold the same under the same keys; Redis holds an index as a set, memcached has none.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::panic,
    clippy::naive_bytecount,
    reason = "a measurement that cannot go on says so and stops"
)]

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const CONNECTIONS: u64 = 10_000;
/// How long connections are idle before they are measured.
const SETTLED: Duration = Duration::from_secs(10);
/// Files that a process has open beside its connections, and more.
const OTHER_FILES: u64 = 200;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    Ours,
    Memcached,
    Redis,
}

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

/// A row of the table: what is measured, and the most bytes that it is to take of us.
const ROWS: &[(&str, Load, f64)] = &[
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

impl Load {
    fn entries(self) -> u64 {
        match self {
            Self::Counters(count) | Self::Data(count) => count,
            Self::Indexes { count, members, .. } => count * members,
            Self::Connections => CONNECTIONS,
        }
    }
}

/// A server under measurement; ended when dropped.
struct Server {
    who: Who,
    child: Child,
    port: u16,
    empty_bytes: u64,
    /// What it grew by with its connections, which are gone by the end.
    connections_bytes: Option<u64>,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// `None` if it is not installed.
    fn start(who: Who) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let path = dir.path().to_str().unwrap();
        let clients = CONNECTIONS + OTHER_FILES;
        let line = match who {
            Who::Ours => {
                let config = format!("{path}/config.ini");
                let text = format!(
                    "[server]\nlisten = \"127.0.0.1:{port}\"\nmax_clients = {clients}\n\
                     [log]\nlevel = \"warn\"\n[types]\n3 = \"DATA\"\n\
                     [data]\ndir = \"{path}/data\"\nfsync = \"everysec\"\n"
                );
                fs::write(&config, text).unwrap();
                format!("{} -c {config}", env!("CARGO_BIN_EXE_storage_server"))
            }
            Who::Memcached => {
                format!("memcached -u nobody -m 8192 -c {clients} -l 127.0.0.1 -p {port}")
            }
            Who::Redis => format!(
                "redis-server --port {port} --bind 127.0.0.1 --dir {path} --save  \
                 --maxclients {clients}"
            ),
        };
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().ok()?;
        let mut server = Self {
            who,
            child,
            port,
            empty_bytes: 0,
            connections_bytes: None,
            _dir: dir,
        };
        server.await_answers();
        server.empty_bytes = server.resident_bytes();
        Some(server)
    }

    fn await_answers(&self) {
        for _ in 0..300 {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                std::thread::sleep(Duration::from_millis(500));
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{:?} does not answer", self.who);
    }

    fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib: u64 = line
            .unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        kib * 1024
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn grown_bytes(&self) -> u64 {
        let grown = || self.resident_bytes().saturating_sub(self.empty_bytes);
        self.connections_bytes.unwrap_or_else(grown)
    }

    /// Measures what connections take that have asked for something once. Only those of one
    /// server at a time are open, because few machines let one process have more files.
    fn hold_connections(&mut self) {
        let request = match self.who {
            Who::Redis => "GET none\r\n",
            Who::Ours | Who::Memcached => "get none\r\n",
        };
        let connect = |_| {
            let mut stream = self.connect();
            send(&mut stream, request, 1);
            stream
        };
        let open: Vec<TcpStream> = (0..CONNECTIONS).map(connect).collect();
        std::thread::sleep(SETTLED);
        self.connections_bytes = Some(self.grown_bytes());
        drop(open);
    }

    /// Fills the server; false if it does not have the like.
    fn fill(&mut self, load: Load) -> bool {
        if let Load::Connections = load {
            self.hold_connections();
            return true;
        }
        if matches!(load, Load::Indexes { .. }) && self.who == Who::Memcached {
            return false;
        }
        let mut stream = self.connect();
        let (mut batch, mut requests) = (String::new(), 0);
        let mut request = |stream: &mut TcpStream, last: bool, write: &dyn Fn(&mut String)| {
            if !last {
                write(&mut batch);
                requests += 1;
            }
            if last || batch.len() > 64 << 10 {
                send(stream, &batch, requests);
                batch.clear();
                requests = 0;
            }
        };
        for at in 0..load.requests() {
            request(&mut stream, false, &|out| load.write(self.who, at, out));
        }
        request(&mut stream, true, &|_| ());
        true
    }
}

/// Numbers that look random, each once: a permutation of 32 bits.
fn scrambled(at: u64) -> u64 {
    let bits = (at as u32).wrapping_mul(0x9e37_79b1);
    u64::from((bits ^ (bits >> 15)).wrapping_mul(0x85eb_ca6b))
}

impl Load {
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

    fn write(self, who: Who, at: u64, out: &mut String) {
        let id = scrambled(at);
        let _ = match (self, who) {
            (Self::Counters(_), Who::Redis) => write!(out, "SET 2.{id} {}\r\n", at % 1000),
            (Self::Counters(_), _) => {
                let number = (at % 1000).to_string();
                write!(out, "set 2.{id} 0 0 {}\r\n{number}\r\n", number.len())
            }
            (Self::Data(_), Who::Redis) => write!(out, "SET 3.{id} {at:032}\r\n"),
            (Self::Data(_), _) => write!(out, "set 3.{id} 7 0 32\r\n{at:032}\r\n"),
            (
                Self::Indexes {
                    members,
                    below,
                    at_once,
                    ..
                },
                who,
            ) => {
                let index = at * at_once / members;
                let ids = (at * at_once..).take(at_once as usize);
                // Below the limit each id comes once too, but for few.
                let ids = ids.map(|at| (scrambled(at) * below) >> 32);
                match who {
                    Who::Redis => {
                        let ids = ids.fold(String::new(), |line, id| format!("{line} {id}"));
                        write!(out, "SADD 1.{index}{ids}\r\n")
                    }
                    Who::Ours | Who::Memcached => {
                        let body = ids.fold(String::new(), |body, id| format!("{body}{id}\n"));
                        write!(out, "append 1.{index} 0 0 {}\r\n{body}\r\n", body.len())
                    }
                }
            }
            (Self::Connections, _) => Ok(()),
        };
    }
}

/// Sends requests and reads as many replies, a line each.
fn send(stream: &mut TcpStream, requests: &str, count: usize) {
    stream.write_all(requests.as_bytes()).unwrap();
    let mut buffer = [0; 16 << 10];
    let mut lines = 0;
    while lines < count {
        let len = stream.read(&mut buffer).unwrap();
        assert!(len > 0, "the server has closed the connection");
        let reply = &buffer[..len];
        let is_error = reply.starts_with(b"-") || reply.windows(5).any(|word| word == b"ERROR");
        assert!(!is_error, "{}", reply.escape_ascii());
        lines += reply.iter().filter(|byte| **byte == b'\n').count();
    }
}

fn main() {
    let idle = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let idle = Duration::from_secs(idle.unwrap_or(60));
    let files = CONNECTIONS + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: Some(files.max(limit.current.unwrap_or(files))),
        ..limit
    };
    setrlimit(Resource::Nofile, raised).expect("10,000 connections need as many files");

    let mut filled: Vec<Vec<Option<Server>>> = Vec::new();
    for (name, load, _) in ROWS {
        println!("filling: {name}");
        let servers = [Who::Ours, Who::Memcached, Who::Redis].map(|who| {
            let mut server = Server::start(who)?;
            server.fill(*load).then_some(server)
        });
        filled.push(servers.into());
    }
    std::thread::sleep(idle);

    println!(
        "\nbytes per {:34} {:>7} {:>9} {:>7}   of memcached, of Redis",
        "", "ours", "memcached", "Redis"
    );
    for ((name, load, goal), servers) in ROWS.iter().zip(&filled) {
        let each = |server: &Server| server.grown_bytes() as f64 / load.entries() as f64;
        let bytes: Vec<Option<f64>> = servers.iter().map(|it| it.as_ref().map(each)).collect();
        let [ours, memcached, redis] = bytes[..] else {
            unreachable!()
        };
        let figure = |it: Option<f64>| it.map_or("-".into(), |it| format!("{it:.1}"));
        let ratio = |peer: Option<f64>| {
            let ratio = ours.zip(peer).map(|(ours, peer)| ours / peer);
            ratio.map_or("-".into(), |it| format!("{it:.2}"))
        };
        let ours_met = if ours.is_some_and(|ours| ours <= *goal) {
            ""
        } else {
            "  above the goal"
        };
        println!(
            "{name:44} {:>7} {:>9} {:>7}   {:>12} {:>9}   goal {goal}{ours_met}",
            figure(ours),
            figure(memcached),
            figure(redis),
            ratio(memcached),
            ratio(redis),
        );
    }
}
