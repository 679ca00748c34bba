//! Server CPU per request over loopback, beside the peers that are installed (memcached, Redis),
//! in the same run: `cargo bench --bench loopback`.
//!
//! Each server runs on core 0 with one thread, the load on core 1 with 50 connections and
//! 32-byte values. What is compared is the CPU time of the server's threads, which the kernel
//! counts in nanoseconds; each figure is the median of several runs that take turns.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::panic,
    reason = "a measurement that cannot go on says so and stops"
)]

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const CONNECTIONS: usize = 50;
const KEYS: usize = 10_000;
const RUNS: usize = 5;
const REQUESTS_SINGLE: usize = 100_000;
const REQUESTS_PIPELINED: usize = 640_000;

#[derive(Clone, Copy, PartialEq)]
enum Dialect {
    Memcached,
    Redis,
}

/// A server under measurement; ended when dropped.
struct Server {
    name: &'static str,
    dialect: Dialect,
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn installed(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok()
}

impl Server {
    fn start(
        name: &'static str,
        dialect: Dialect,
        args: impl Fn(u16, &str) -> Vec<String>,
    ) -> Self {
        let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
        let args = args(port, dir.path().to_str().unwrap());
        let child = Command::new("taskset")
            .args(["-c", "0"])
            .args(&args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self {
            name,
            dialect,
            child,
            port,
            _dir: dir,
        };
        for _ in 0..200 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return server;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{name} does not answer");
    }

    fn ours(name: &'static str, fsync: &'static str) -> Self {
        Self::start(name, Dialect::Memcached, |port, dir| {
            let config = format!("{dir}/config.ini");
            let text = format!(
                "[server]\nlisten = \"127.0.0.1:{port}\"\nthreads = 1\nmax_value = \"32m\"\n\
                 [log]\nlevel = \"warn\"\n[types]\n3 = \"DATA\"\n\
                 [data]\ndir = \"{dir}/data\"\nfsync = \"{fsync}\"\n"
            );
            fs::write(&config, text).unwrap();
            vec![
                env!("CARGO_BIN_EXE_storage_server").into(),
                "-c".into(),
                config,
            ]
        })
    }

    fn memcached() -> Self {
        Self::start("memcached", Dialect::Memcached, |port, _| {
            let line = format!("memcached -u nobody -t 1 -m 1024 -l 127.0.0.1 -p {port}");
            line.split(' ').map(str::to_owned).collect()
        })
    }

    fn redis(name: &'static str, log: bool) -> Self {
        Self::start(name, Dialect::Redis, |port, dir| {
            let log = if log { "yes" } else { "no" };
            let line = format!(
                "redis-server --port {port} --bind 127.0.0.1 --dir {dir} --save  \
                 --appendonly {log} --appendfsync everysec"
            );
            // `--save ""`: the empty word stays.
            line.split(' ').map(str::to_owned).collect()
        })
    }

    fn cpu_ns(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        tasks
            .map(|task| {
                let text = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
                text.split(' ').next().unwrap().parse::<u64>().unwrap()
            })
            .sum()
    }

    fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1024
    }

    fn connect(&self, count: usize) -> Vec<TcpStream> {
        let connect = |_| {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
            stream.set_nodelay(true).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            stream
        };
        (0..count).map(connect).collect()
    }

    fn set(&self, key: usize) -> String {
        let value = format!("{key:032}");
        match self.dialect {
            Dialect::Memcached => format!("set key:{key:06} 0 0 32\r\n{value}\r\n"),
            Dialect::Redis => {
                format!("*3\r\n$3\r\nSET\r\n$10\r\nkey:{key:06}\r\n$32\r\n{value}\r\n")
            }
        }
    }

    fn get(&self, key: usize) -> String {
        match self.dialect {
            Dialect::Memcached => format!("get key:{key:06}\r\n"),
            Dialect::Redis => format!("*2\r\n$3\r\nGET\r\n$10\r\nkey:{key:06}\r\n"),
        }
    }

    fn set_reply(&self) -> usize {
        match self.dialect {
            Dialect::Memcached => "STORED\r\n".len(),
            Dialect::Redis => "+OK\r\n".len(),
        }
    }

    fn get_reply(&self) -> usize {
        match self.dialect {
            Dialect::Memcached => "VALUE key:000000 0 32\r\n".len() + 34 + "END\r\n".len(),
            Dialect::Redis => "$32\r\n".len() + 34,
        }
    }
}

/// Sends each connection its bytes, then reads each one's replies.
fn round(streams: &mut [TcpStream], requests: &[Vec<u8>], reply_len: usize, buffer: &mut [u8]) {
    for (stream, bytes) in streams.iter_mut().zip(requests) {
        stream.write_all(bytes).unwrap();
    }
    for stream in streams {
        let mut left = reply_len;
        while left > 0 {
            let read = stream.read(buffer).unwrap();
            assert!(
                read > 0 && read <= left,
                "{:?}",
                String::from_utf8_lossy(&buffer[..read])
            );
            left -= read;
        }
    }
}

/// The server's CPU time per request, in microseconds.
fn measure(server: &Server, write: bool, pipeline: usize) -> f64 {
    let mut streams = server.connect(CONNECTIONS);
    let mut buffer = vec![0; 1 << 20];
    let batches: Vec<Vec<u8>> = (0..CONNECTIONS)
        .map(|connection| {
            let keys = (0..pipeline).map(|at| (connection * 7919 + at * 104_729) % KEYS);
            let text: String = keys
                .map(|key| {
                    if write {
                        server.set(key)
                    } else {
                        server.get(key)
                    }
                })
                .collect();
            text.into_bytes()
        })
        .collect();
    let reply = pipeline
        * if write {
            server.set_reply()
        } else {
            server.get_reply()
        };
    let total = if pipeline == 1 {
        REQUESTS_SINGLE
    } else {
        REQUESTS_PIPELINED
    };
    let rounds = total / (CONNECTIONS * pipeline);
    for _ in 0..=rounds / 10 {
        round(&mut streams, &batches, reply, &mut buffer);
    }
    let before = server.cpu_ns();
    for _ in 0..rounds {
        round(&mut streams, &batches, reply, &mut buffer);
    }
    let spent = server.cpu_ns() - before;
    spent as f64 / 1000.0 / (rounds * CONNECTIONS * pipeline) as f64
}

fn preload(server: &Server) {
    let mut streams = server.connect(1);
    let mut buffer = vec![0; 1 << 20];
    for first in (0..KEYS).step_by(100) {
        let batch: String = (first..first + 100).map(|key| server.set(key)).collect();
        round(
            &mut streams,
            &[batch.into_bytes()],
            100 * server.set_reply(),
            &mut buffer,
        );
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn requests_table(servers: &[Server]) {
    let names: Vec<_> = servers.iter().map(|server| server.name).collect();
    println!(
        "\nserver CPU per request, us (in brackets: {} / that peer)",
        names[0]
    );
    println!("| | {} |", names.join(" | "));
    println!("|---{}|", "|---".repeat(names.len()));
    for (write, pipeline) in [
        (false, 1),
        (false, 16),
        (false, 64),
        (true, 1),
        (true, 16),
        (true, 64),
    ] {
        let mut figures = vec![Vec::new(); servers.len()];
        for _ in 0..RUNS {
            for (server, figures) in servers.iter().zip(&mut figures) {
                figures.push(measure(server, write, pipeline));
            }
        }
        let medians: Vec<_> = figures.into_iter().map(median).collect();
        let mut row = format!("| {} x{pipeline}", if write { "set" } else { "get" });
        for figure in &medians {
            write!(row, " | {figure:.2} ({:.2})", medians[0] / figure).unwrap();
        }
        println!("{row} |");
    }
}

fn fan_out_table(server: &Server) {
    println!(
        "\nfan-out, {}: counters changed per second of server CPU",
        server.name
    );
    let mut streams = server.connect(1);
    let mut buffer = vec![0; 1 << 20];
    for (id, members) in [(1, 100), (2, 1000), (3, 10_000)] {
        let ids = (0..members).map(|id| (id * 31).to_string());
        let body = ids.collect::<Vec<_>>().join(
            "
",
        );
        let set = format!("set 1.{id} 0 0 {}\r\n{body}\r\n", body.len());
        round(
            &mut streams,
            &[set.into_bytes()],
            "STORED\r\n".len(),
            &mut buffer,
        );
        let repeat = 2_000_000 / members / 10;
        let batch = format!("incr 1.{id} 1\r\n").repeat(10).into_bytes();
        let reply = 10 * (members.to_string().len() + 2);
        let mut run = || {
            let before = server.cpu_ns();
            for _ in 0..repeat {
                round(
                    &mut streams,
                    std::slice::from_ref(&batch),
                    reply,
                    &mut buffer,
                );
            }
            let spent = (server.cpu_ns() - before) as f64 / 1e9;
            f64::from(repeat * 10 * members) / spent / 1e6
        };
        run();
        println!(
            "{members} members: {:.1} M/s",
            median((0..RUNS).map(|_| run()).collect())
        );
    }
}

/// What the server's memory grows by for each of `items`, in bytes: `request` is the one that
/// stores batch number n, and `reply` its length.
fn growth(
    server: &Server,
    items: usize,
    batches: usize,
    mut request: impl FnMut(usize) -> (Vec<u8>, usize),
) -> f64 {
    let mut streams = server.connect(1);
    let mut buffer = vec![0; 1 << 20];
    let before = server.resident_bytes();
    for batch in 0..batches {
        let (bytes, reply) = request(batch);
        round(&mut streams, &[bytes], reply, &mut buffer);
    }
    let grown = server.resident_bytes().saturating_sub(before);
    grown as f64 / items as f64
}

/// A million entries `prefix.n` with this value, stored a thousand at a time.
fn entries(server: &Server, prefix: &str, value: &str) -> f64 {
    const ENTRIES: usize = 1_000_000;
    growth(server, ENTRIES, ENTRIES / 1000, |batch| {
        let mut text = String::new();
        for id in batch * 1000..(batch + 1) * 1000 {
            let (key, length) = (format!("{prefix}.{id}"), value.len());
            match server.dialect {
                Dialect::Memcached => write!(text, "set {key} 0 0 {length}\r\n{value}\r\n"),
                Dialect::Redis => {
                    let key_length = key.len();
                    write!(text, "*3\r\n$3\r\nSET\r\n${key_length}\r\n{key}\r\n")
                        .and_then(|()| write!(text, "${length}\r\n{value}\r\n"))
                }
            }
            .unwrap();
        }
        (text.into_bytes(), 1000 * server.set_reply())
    })
}

/// `indexes` sets of `members` ids each, none of them in a row.
fn members(server: &Server, indexes: usize, members: usize) -> f64 {
    growth(server, indexes * members, indexes, |index| {
        let ids: Vec<_> = (0..members)
            .map(|at| (index * 7 + at * 131).to_string())
            .collect();
        match server.dialect {
            Dialect::Memcached => {
                let body = ids.join("\n");
                let key = 1000 * members + index;
                let text = format!("set 1.{key} 0 0 {}\r\n{body}\r\n", body.len());
                (text.into_bytes(), "STORED\r\n".len())
            }
            Dialect::Redis => {
                let mut text = format!("*{}\r\n$4\r\nSADD\r\n", members + 2);
                let key = format!("{members}:{index}");
                for word in std::iter::once(&key).chain(&ids) {
                    write!(text, "${}\r\n{word}\r\n", word.len()).unwrap();
                }
                (text.into_bytes(), format!(":{members}\r\n").len())
            }
        }
    })
}

fn memory_table(servers: &[Server]) {
    println!("\nresident memory, bytes for each");
    for server in servers {
        let mut row = format!(
            "{}: counter {:.1}, 32-byte item {:.1}",
            server.name,
            entries(server, "2", "7"),
            entries(server, "3", "0123456789abcdef0123456789abcdef"),
        );
        if server.name != "memcached" {
            let (few, many) = (members(server, 5000, 150), members(server, 1, 1_000_000));
            write!(row, ", member of 150 {few:.1}, of 1,000,000 {many:.1}").unwrap();
        }
        println!("{row}");
    }
}

fn main() {
    let own = std::process::id().to_string();
    let _ = Command::new("taskset")
        .args(["-pc", "1", &own])
        .stdout(Stdio::null())
        .status();
    let mut servers = vec![Server::ours("storage_server", "everysec")];
    if installed("memcached") {
        servers.push(Server::memcached());
    }
    if installed("redis-server") {
        servers.push(Server::redis("redis", false));
        servers.push(Server::redis("redis with log", true));
    }
    servers.iter().for_each(preload);
    requests_table(&servers);
    fan_out_table(&servers[0]);
    memory_table(&servers);
}
