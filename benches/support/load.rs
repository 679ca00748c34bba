//! A load that is cheap enough for the server to be what is busy: requests are written down
//! beforehand, and sent and answered without looking at them, but for the lengths of the replies.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::server::Server;

/// Requests to be sent again and again.
pub(crate) struct Script {
    /// Each is sent at once, and the next on that connection when all its replies are there.
    pub(crate) batches: Vec<Vec<u8>>,
    /// The length of the replies to any of the batches.
    pub(crate) reply_len: usize,
    /// How many requests - or whatever is to be counted - a batch has.
    pub(crate) requests: usize,
}

/// What came of a load.
#[derive(Clone, Copy)]
pub(crate) struct Spent {
    requests: f64,
    /// Of the server.
    cpu: Duration,
    time: Duration,
}

impl Spent {
    /// The server's processor time for each request, in microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.requests
    }

    /// Requests for each second of the server's processor time.
    pub(crate) fn per_cpu_second(&self) -> f64 {
        self.requests / self.cpu.as_secs_f64()
    }

    /// Requests a second.
    pub(crate) fn per_second(&self) -> f64 {
        self.requests / self.time.as_secs_f64()
    }

    /// For how much of the time the server was busy.
    pub(crate) fn busy(&self) -> f64 {
        self.cpu.as_secs_f64() / self.time.as_secs_f64()
    }
}

/// Loads the server over so many connections for that long.
///
/// The connections are in two halves: while the replies to one are read, the requests of the
/// other are with the server. That takes a write and a read for each batch, and no other call.
pub(crate) fn run(server: &Server, connections: usize, script: &Script, time: Duration) -> Spent {
    let mut streams: Vec<TcpStream> = (0..connections)
        .map(|_| server.connect().into_stream())
        .collect();
    let (one, other) = streams.split_at_mut(connections / 2);
    let mut load = Load {
        script,
        next: 0,
        buffer: vec![0; 64 << 10],
    };
    load.send(other);
    load.run(one, other, time / 10);
    let (begun, before) = (Instant::now(), server.process().cpu());
    let batches = load.run(one, other, time);
    let spent = Spent {
        requests: (batches * script.requests) as f64,
        cpu: server.process().cpu_since(before),
        time: begun.elapsed(),
    };
    load.receive(other);
    spent
}

struct Load<'a> {
    script: &'a Script,
    next: usize,
    buffer: Vec<u8>,
}

impl Load<'_> {
    /// How many batches were answered. The requests of the other half are on their way before
    /// and after.
    fn run(&mut self, one: &mut [TcpStream], other: &mut [TcpStream], time: Duration) -> usize {
        let (begun, mut batches) = (Instant::now(), 0);
        while begun.elapsed() < time {
            self.send(one);
            self.receive(other);
            self.send(other);
            self.receive(one);
            batches += one.len() + other.len();
        }
        batches
    }

    fn send(&mut self, streams: &mut [TcpStream]) {
        for stream in streams {
            stream.write_all(&self.script.batches[self.next]).unwrap();
            self.next = (self.next + 1) % self.script.batches.len();
        }
    }

    fn receive(&mut self, streams: &mut [TcpStream]) {
        for stream in streams {
            let mut left = self.script.reply_len;
            while left > 0 {
                let read = stream.read(&mut self.buffer).unwrap();
                let bytes = &self.buffer[..read];
                assert!(read > 0 && read <= left, "{}", bytes.escape_ascii());
                left -= read;
            }
        }
    }
}
