//! An open load: every request is sent at its moment, whether or not those before it are answered,
//! and its latency counts from that moment. So a server that stands still has to make up for all
//! that became due meanwhile, as it would for clients that know nothing of each other. Only while a
//! whole second's worth is unanswered does a request wait for an answer before it is sent.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::wire::{Client, no_error};

/// How long to wait for replies at a time if nothing is due.
const LOOK_EVERY: Duration = Duration::from_millis(100);

type Writer = Box<dyn FnMut(&mut Vec<u8>) + Send>;

/// A connection with requests at a steady rate, each of which has a reply of one line.
pub(crate) struct Stream {
    socket: TcpStream,
    /// Requests a second.
    rate: u64,
    /// Writes the next request down.
    request: Writer,
    /// When the first one is due.
    phase: Duration,
    made: u64,
    /// When those were due that are not answered yet, from the beginning of the load.
    due: VecDeque<Duration>,
    unsent: Vec<u8>,
    /// The beginning of a reply whose end has not come.
    line: Vec<u8>,
}

impl Stream {
    /// The first request is due within `phase`, a share of the time between two.
    pub(crate) fn new(
        client: Client,
        (rate, phase): (u64, f64),
        request: impl FnMut(&mut Vec<u8>) + Send + 'static,
    ) -> Self {
        let socket = client.into_stream();
        socket.set_nonblocking(true).unwrap();
        Self {
            socket,
            rate,
            request: Box::new(request),
            phase: Duration::from_secs_f64(phase / rate as f64),
            made: 0,
            due: VecDeque::new(),
            unsent: Vec::new(),
            line: Vec::new(),
        }
    }

    /// When the next request is due. None while a second's worth is unanswered: a server that
    /// cannot keep up gets the next when it has answered one, and that one is late already.
    fn next_due(&self) -> Option<Duration> {
        let due = self.phase + Duration::from_nanos(self.made * 1_000_000_000 / self.rate);
        ((self.due.len() as u64) < self.rate).then_some(due)
    }

    /// Makes every request that is due.
    fn make(&mut self, now: Duration) {
        while let Some(due) = self.next_due().filter(|&due| due <= now) {
            self.due.push_back(due);
            (self.request)(&mut self.unsent);
            self.made += 1;
        }
    }

    /// Sends what the system takes.
    fn send(&mut self) {
        while !self.unsent.is_empty() {
            let sent = match self.socket.write(&self.unsent) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                sent => sent.unwrap(),
            };
            self.unsent.drain(..sent);
        }
    }

    /// Reads what has come; adds the latencies in microseconds.
    fn receive(&mut self, begun: Instant, buffer: &mut [u8], latencies: &mut Vec<u32>) {
        let read = self.socket.read(buffer).unwrap();
        assert!(read > 0, "the server closed a connection");
        let now = begun.elapsed();
        for &byte in &buffer[..read] {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            no_error(std::str::from_utf8(&self.line).unwrap());
            self.line.clear();
            let due = self.due.pop_front().unwrap();
            latencies.push(u32::try_from(now.saturating_sub(due).as_micros()).unwrap_or(u32::MAX));
        }
    }
}

/// What came of a load.
pub(crate) struct Answers {
    /// In microseconds, those of the last replies included.
    pub(crate) latencies: Vec<u32>,
    /// How many came before the load was told to stop.
    pub(crate) in_time: usize,
}

/// Sends at the rates of the streams until it is told to stop, and waits for the last replies.
pub(crate) fn run(mut streams: Vec<Stream>, stop: &AtomicBool) -> Answers {
    let (mut latencies, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    let (begun, mut in_time) = (Instant::now(), None);
    loop {
        if stop.load(Relaxed) {
            in_time.get_or_insert(latencies.len());
        } else {
            for stream in &mut streams {
                stream.make(begun.elapsed());
            }
        }
        streams.iter_mut().for_each(Stream::send);
        let due = streams.iter().filter_map(Stream::next_due).min();
        let wait = match in_time {
            Some(in_time) if streams.iter().all(|stream| stream.due.is_empty()) => {
                return Answers { latencies, in_time };
            }
            Some(_) => LOOK_EVERY,
            None => due.map_or(LOOK_EVERY, |due| due.saturating_sub(begun.elapsed())),
        };
        for at in readable(&streams, wait) {
            streams[at].receive(begun, &mut buffer, &mut latencies);
        }
    }
}

/// The streams that have something to read, once one has, or room for what is unsent, or the time
/// is over.
fn readable(streams: &[Stream], wait: Duration) -> Vec<usize> {
    let fds = streams.iter().map(|stream| {
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, !stream.unsent.is_empty());
        PollFd::new(&stream.socket, flags)
    });
    let mut fds: Vec<PollFd<'_>> = fds.collect();
    poll(&mut fds, Some(&Timespec::try_from(wait).unwrap())).unwrap();
    let read = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
    let ready = fds.iter().map(|fd| fd.revents().intersects(read));
    let ready = ready.enumerate();
    ready
        .filter_map(|(at, ready)| ready.then_some(at))
        .collect()
}
