//! The load of one thread: its connections, whichever are ready, until it is over.
//!
//! One turn of a connection is one read, and one write of what follows. Without a rate a
//! connection sends its next requests, as many as the pipeline is deep, when all before them are
//! answered. At a rate, requests go to the connections in turn as they come due.
//!
//! Invariant: it ends: when its requests are answered or its time is over, when it is told to, or
//! when no connection is left; and what was sent then is waited for, for a while only.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use fastrand::Rng;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use crate::clock::Tick;

use super::super::ToolError;
use super::super::client::Stream;
use super::connection::Connection;
use super::pace::Pace;
use super::tally::Tally;
use super::workload::Workload;

/// How long replies are waited for after the end.
const DRAIN: Duration = Duration::from_secs(10);
/// So often it is looked whether to stop, if nothing else happens.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a thread is to do.
pub(super) struct Job<'a> {
    /// What to ask.
    pub(super) workload: &'a Workload,
    /// When to ask.
    pub(super) pace: Pace,
    /// How many requests are on their way in one connection.
    pub(super) depth: usize,
    /// For the draws.
    pub(super) seed: u64,
    /// Set from outside to end it.
    pub(super) stop: &'a AtomicBool,
}

/// A thread's load, ready to start.
pub(super) struct Driver<'a> {
    job: Job<'a>,
    /// When it started.
    start: Tick,
    rng: Rng,
    tally: Tally,
    ready: OwnedFd,
    /// A lost one leaves its place empty.
    connections: Vec<Option<Connection>>,
    /// Which one is asked next, at a rate.
    next: usize,
    /// Those with something to write.
    touched: Vec<usize>,
}

impl<'a> Driver<'a> {
    /// Through these connections, which must not wait.
    pub(super) fn new(job: Job<'a>, streams: Vec<Stream>) -> Result<Self, ToolError> {
        let ready = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(cannot_wait)?;
        for (place, stream) in (0..).zip(&streams) {
            epoll::add(&ready, stream, EventData::new_u64(place), EventFlags::IN)
                .map_err(cannot_wait)?;
        }
        let connections = streams.into_iter();
        let connections: Vec<_> = connections
            .map(|stream| Some(Connection::new(stream, job.depth)))
            .collect();
        Ok(Self {
            rng: Rng::with_seed(job.seed),
            tally: Tally::new()?,
            start: Tick::now(),
            ready,
            next: 0,
            touched: Vec::with_capacity(connections.len()),
            connections,
            job,
        })
    }

    fn now_ns(&self) -> u64 {
        nanoseconds(self.start.elapsed())
    }

    /// Loads the server; what came of it.
    pub(super) fn run(mut self) -> Result<Tally, ToolError> {
        self.start = Tick::now();
        if self.job.pace.has_rate() {
            // Finer waiting; without it requests go out a little late, and count so.
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        }
        let mut events = Vec::with_capacity(self.connections.len().max(1));
        if !self.job.pace.has_rate() {
            for place in 0..self.connections.len() {
                self.refill(place);
                self.send(place)?;
            }
        }
        while !self.is_over() {
            let wait = self.ask_due()?;
            self.wait(&mut events, wait)?;
            self.turns(&events)?;
        }
        let over_ns = self.now_ns();
        self.tally.left_behind = self.job.pace.left_behind(over_ns);
        while self.waits() && self.now_ns() < over_ns + nanoseconds(DRAIN) {
            self.wait(&mut events, LOOK_EVERY)?;
            self.turns(&events)?;
        }
        Ok(self.tally)
    }

    fn is_over(&self) -> bool {
        self.job.stop.load(Relaxed)
            || self.job.pace.is_over(self.now_ns())
            || self.connections.iter().all(Option::is_none)
    }

    fn waits(&self) -> bool {
        let mut live = self.connections.iter().flatten();
        live.any(|connection| connection.waiting() > 0)
    }

    /// Waits until a connection is ready, or `wait` is over.
    fn wait(&self, events: &mut Vec<epoll::Event>, wait: Duration) -> Result<(), ToolError> {
        events.clear();
        let mut wait = wait.min(LOOK_EVERY);
        if self.job.pace.has_rate() && !wait.is_zero() {
            // Epoll waits in milliseconds, which is too coarse for a rate.
            let readable = PollFd::new(&self.ready, PollFlags::IN);
            retried(poll(&mut [readable], Some(&timespec(wait))).map(drop))?;
            wait = Duration::ZERO;
        }
        let into = rustix::buffer::spare_capacity(events);
        retried(epoll::wait(&self.ready, into, Some(&timespec(wait))).map(drop))
    }

    /// One turn of each connection that is ready.
    fn turns(&mut self, events: &[epoll::Event]) -> Result<(), ToolError> {
        for event in events {
            let flags = event.flags;
            let Ok(place) = usize::try_from(event.data.u64()) else {
                continue;
            };
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                self.receive(place);
                self.refill(place);
            }
            self.send(place)?;
        }
        Ok(())
    }

    fn receive(&mut self, place: usize) {
        let start = self.start;
        let Some(slot) = self.connections.get_mut(place) else {
            return;
        };
        let Some(connection) = slot else { return };
        let now_ns = || nanoseconds(start.elapsed());
        let received = connection.receive(self.job.workload, now_ns, &mut self.tally);
        if let Err(error) = received {
            self.tally.lost(format!("a connection was lost: {error}"));
            *slot = None;
        }
    }

    /// Without a rate: the next requests of a connection that has its replies.
    fn refill(&mut self, place: usize) {
        let now_ns = self.now_ns();
        if self.job.pace.has_rate() || self.job.stop.load(Relaxed) {
            return;
        }
        let connection = self.connections.get_mut(place).and_then(Option::as_mut);
        let Some(connection) = connection.filter(|connection| connection.waiting() == 0) else {
            return;
        };
        while connection.has_room()
            && let Some(since_ns) = self.job.pace.take(now_ns)
        {
            connection.ask(self.job.workload, &mut self.rng, since_ns, &mut self.tally);
        }
    }

    /// At a rate: what is due, to the connections in turn. How long until there is more to do
    /// if no reply comes.
    fn ask_due(&mut self) -> Result<Duration, ToolError> {
        let now_ns = self.now_ns();
        if !self.job.pace.has_rate() {
            return Ok(Duration::from_nanos(self.job.pace.wait_ns(now_ns)));
        }
        let mut full = 0;
        while full < self.connections.len() {
            let place = self.next;
            self.next = (place + 1) % self.connections.len();
            let connection = self.connections.get_mut(place).and_then(Option::as_mut);
            let Some(connection) = connection.filter(|connection| connection.has_room()) else {
                full += 1;
                continue;
            };
            let Some(since_ns) = self.job.pace.take(now_ns) else {
                self.next = place;
                break;
            };
            full = 0;
            if !connection.has_output() {
                self.touched.push(place);
            }
            connection.ask(self.job.workload, &mut self.rng, since_ns, &mut self.tally);
        }
        while let Some(place) = self.touched.pop() {
            self.send(place)?;
        }
        if full == self.connections.len() {
            return Ok(LOOK_EVERY);
        }
        Ok(Duration::from_nanos(self.job.pace.wait_ns(self.now_ns())))
    }

    /// Writes, and has the rest written when the socket takes more.
    fn send(&mut self, place: usize) -> Result<(), ToolError> {
        let Some(slot) = self.connections.get_mut(place) else {
            return Ok(());
        };
        let Some(connection) = slot else {
            return Ok(());
        };
        let was_waiting = connection.waits_to_write;
        if let Err(error) = connection.send() {
            self.tally.lost(format!("a connection was lost: {error}"));
            *slot = None;
            return Ok(());
        }
        connection.waits_to_write = connection.has_output();
        if connection.waits_to_write == was_waiting {
            return Ok(());
        }
        let mut flags = EventFlags::IN;
        flags.set(EventFlags::OUT, connection.waits_to_write);
        let data = EventData::new_u64(place as u64);
        epoll::modify(&self.ready, &connection.stream, data, flags).map_err(cannot_wait)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

fn cannot_wait(error: Errno) -> ToolError {
    ToolError::Server(format!("cannot wait for connections: {error}"))
}

/// A wait that a signal ends is one that is over.
fn retried(result: Result<(), Errno>) -> Result<(), ToolError> {
    match result {
        Ok(()) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(cannot_wait(error)),
    }
}
