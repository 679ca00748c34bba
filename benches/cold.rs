//! The latency of `get` for values in memory, in the cache and in the data files, and that of a
//! counter beside cold reads: `cargo bench --bench cold`.
//!
//! A data set four times the memory limit, with one server thread. Cold reads are measured twice:
//! with what the kernel's page cache happens to hold, and with the data files dropped from it
//! before each round.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::panic,
    reason = "a measurement that cannot go on says so and stops"
)]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};

const VALUE_BYTES: usize = 4 << 10;
const LIMIT: usize = 64 << 20;
const VALUES: usize = 4 * LIMIT / VALUE_BYTES;
const READS: usize = 5_000;

struct Server {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let data = dir.path().join("data");
        let data = data.display();
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:{port}\"\nthreads = 1\nmemory_limit = {LIMIT}\n\
             [log]\nlevel = \"error\"\n[data]\ndir = \"{data}\"\ncache_memory = \"8m\"\n\
             [types]\n3 = {{ kind = \"DATA\", keep_in_memory = \"1k\" }}\n4 = \"DATA\"\n"
        );
        let path = dir.path().join("config.ini");
        fs::write(&path, config).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_storage_server"))
            .arg("-c")
            .arg(&path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, port, dir }
    }

    fn connect(&self) -> Client {
        let begun = Instant::now();
        loop {
            match TcpStream::connect(("127.0.0.1", self.port)) {
                Ok(socket) => {
                    socket.set_nodelay(true).unwrap();
                    return Client(BufReader::with_capacity(64 << 10, socket));
                }
                Err(error) if begun.elapsed() > Duration::from_secs(10) => {
                    panic!("the server does not listen: {error}")
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Has the kernel forget what it holds of the data files.
    fn drop_page_cache(&self) {
        let data: &Path = &self.dir.path().join("data");
        for entry in fs::read_dir(data).unwrap() {
            let file = File::open(entry.unwrap().path()).unwrap();
            file.sync_all().unwrap();
            fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        }
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn ask(&mut self, request: &[u8]) -> String {
        self.0.get_mut().write_all(request).unwrap();
        self.line()
    }

    fn set(&mut self, key: &str, value: &[u8]) {
        let head = format!("set {key} 0 0 {}\r\n", value.len());
        let request = [head.as_bytes(), value, b"\r\n"].concat();
        while self.ask(&request) != "STORED" {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn get(&mut self, key: &str) -> Duration {
        let request = format!("get {key}\r\n");
        let begun = Instant::now();
        let head = self.ask(request.as_bytes());
        let len: usize = head.rsplit(' ').next().unwrap().parse().unwrap();
        let mut rest = vec![0; len + "\r\nEND\r\n".len()];
        self.0.read_exact(&mut rest).unwrap();
        begun.elapsed()
    }
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let us = |part: f64| {
        let at = (times.len() as f64 * part) as usize;
        times[at.min(times.len() - 1)].as_nanos() as f64 / 1000.0
    };
    println!(
        "{what:44} p50 {:8.1} us   p99 {:8.1} us   p99.9 {:8.1} us",
        us(0.5),
        us(0.99),
        us(0.999)
    );
}

/// A row of keys in no order, each once in a while.
fn scattered(seed: usize) -> impl Iterator<Item = String> {
    (0..).map(move |step: usize| {
        let id = (seed + step).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 17;
        format!("3.{}", id % VALUES)
    })
}

fn main() {
    let server = Server::start();
    let mut client = server.connect();
    let value = vec![b'v'; VALUE_BYTES];
    let begun = Instant::now();
    for id in 0..VALUES {
        client.set(&format!("3.{id}"), &value);
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{VALUES} values of {VALUE_BYTES} bytes, {} MiB, memory_limit {} MiB, \
         written in {seconds:.1} s",
        (VALUES * VALUE_BYTES) >> 20,
        LIMIT >> 20
    );
    client.set("4.1", &value);
    client.ask(b"incr 2.1 1\r\n");
    assert_eq!(client.ask(b"snapshot\r\n"), "OK");
    let mut times = |keys: &mut dyn Iterator<Item = String>| -> Vec<_> {
        keys.take(READS).map(|key| client.get(&key)).collect()
    };
    report(
        "hot: in memory",
        times(&mut (0..).map(|_| "4.1".to_owned())),
    );
    report(
        "hot: read often, in the cache",
        times(&mut (0..).map(|at| format!("3.{}", at % 100))),
    );
    report("cold: page cache as it is", times(&mut scattered(1)));
    server.drop_page_cache();
    report(
        "cold: data files dropped from the page cache",
        times(&mut scattered(1 << 20)),
    );
    // A neighbour of somebody who reads cold values all the time.
    server.drop_page_cache();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut other = server.connect();
        let stop = &stop;
        scope.spawn(move || {
            for key in scattered(1 << 24) {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                other.get(&key);
            }
        });
        report(
            "hot, beside a client of cold values",
            times(&mut (0..).map(|_| "4.1".to_owned())),
        );
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
