//! The server in memory: protocol and engine on a simulated disk, without a socket.

use std::collections::VecDeque;
use std::mem::take;
use std::path::Path;
use std::sync::{Arc, mpsc};

use storage_server::clock::{SimClock, Source};
use storage_server::config::Config;
use storage_server::engine::{Engine, OpenError, Turn};
use storage_server::journal::disk::Disk;
use storage_server::journal::sim::SimDisk;
use storage_server::journal::{Fsync, Options};
use storage_server::server::access::Access;
use storage_server::server::output::Output;
use storage_server::server::session::{Flow, Session};
use storage_server::server::shared::{Peer, Shared, settings};
use storage_server::server::upkeep::Order;
use storage_server::stats::Tally;

use super::wire::{Received, Wire};

/// A server in memory.
pub(crate) struct MemoryServer {
    pub(crate) disk: SimDisk,
    shared: Arc<Shared>,
    /// Keeps the way to an upkeep thread open, though there is none.
    _orders: mpsc::Receiver<Order>,
}

impl MemoryServer {
    /// A server on `disk`, which may hold what an earlier one left; `config` is the text of its
    /// config.ini.
    pub(crate) fn start(config: &str, disk: SimDisk) -> Self {
        Self::open(config, disk).unwrap()
    }

    /// As [`Self::start`], on a disk that may be refused.
    pub(crate) fn open(config: &str, disk: SimDisk) -> Result<Self, OpenError> {
        Self::open_at(config, disk, Source::default())
    }

    /// As [`Self::start`], by the test's own clock.
    pub(crate) fn start_at(config: &str, disk: SimDisk, clock: &SimClock) -> Self {
        Self::open_at(config, disk, clock.source()).unwrap()
    }

    fn open_at(config: &str, disk: SimDisk, clock: Source) -> Result<Self, OpenError> {
        let config = Config::parse(config, "config.ini").unwrap();
        let options = Options {
            background: false,
            fsync: Fsync::Never,
            // Memory: there is no need to take much of it ahead.
            allocate_bytes: 16 << 10,
            clock,
            ..Options::default()
        };
        let on: Arc<dyn Disk> = Arc::new(disk.clone());
        let (engine, _) = Engine::open(on, options, settings(&config), &config.types, &mut |_| {
            std::ops::ControlFlow::Continue(())
        })?;
        let (orders, inbox) = mpsc::channel();
        let access = Access::load(&config).unwrap();
        let shared = Shared::new((engine, access), Arc::new(config), 1, orders, false);
        let shared = Arc::new(shared.unwrap());
        Ok(Self {
            disk,
            shared,
            _orders: inbox,
        })
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.shared.engine()
    }

    pub(crate) fn connect(&self) -> MemoryWire {
        assert!(self.shared.admit());
        let peer = Peer::Unix(Path::new("memory").into());
        MemoryWire {
            shared: Arc::clone(&self.shared),
            session: Session::new(peer, false),
            turn: self.engine().turn(),
            tally: Arc::clone(&self.shared.tallies()[0]),
            input: Vec::new(),
            replies: VecDeque::new(),
            received: 0,
            largest_output: 0,
            closed: false,
        }
    }
}

/// A connection in memory.
pub(crate) struct MemoryWire {
    shared: Arc<Shared>,
    session: Session,
    turn: Turn,
    tally: Arc<Tally>,
    input: Vec<u8>,
    replies: VecDeque<u8>,
    /// How many bytes of replies there have been, and the most of one turn.
    received: u64,
    largest_output: usize,
    closed: bool,
}

impl MemoryWire {
    /// Executes what has arrived, as a worker does in its turns.
    fn run(&mut self) {
        let engine = self.shared.engine();
        let mut flow = Flow::Later;
        let mut is_first = true;
        while flow != Flow::Read && !self.closed {
            let mut output = Output::default();
            engine.begin(&mut self.turn);
            let taken;
            (taken, flow) = self.session.advance(
                &self.shared,
                &mut self.turn,
                &self.tally,
                &self.input,
                &mut output,
            );
            self.input.drain(..taken);
            if is_first && taken == 0 && flow == Flow::Read && output.unsent().is_empty() {
                // A part of a request: nothing was done. (Later on a request may end here.)
                return;
            }
            is_first = false;
            engine.flush().unwrap();
            // Values leave once they last.
            engine.journal().sync_now().unwrap();
            engine.put_away();
            self.received += output.unsent().len() as u64;
            self.largest_output = self.largest_output.max(output.unsent().len());
            // Nobody looks at more than this, and some tests make far more.
            if self.replies.len() < 64 << 20 {
                self.replies.extend(output.unsent());
            }
            match flow {
                Flow::Read | Flow::Later => {}
                Flow::Cold => {
                    let cold = self.session.cold();
                    let read = cold.iter().map(|cold| engine.read_cold(cold)).collect();
                    self.session.thaw(&self.shared, &self.tally, read);
                }
                Flow::Crowded => panic!("one client is not crowded out"),
                Flow::Close | Flow::Login => self.closed = true,
                Flow::Reopen | Flow::Snapshot => {
                    let moved = engine.journal().files_moved();
                    engine.snapshot(moved).unwrap();
                    self.replies.extend(b"OK\r\n");
                }
                Flow::Terminate => {
                    self.replies.extend(b"OK\r\n");
                    self.closed = true;
                }
            }
        }
    }

    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    pub(crate) fn largest_output(&self) -> usize {
        self.largest_output
    }

    /// What comes back for these bytes.
    pub(crate) fn ask(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.send(bytes);
        take(&mut self.replies).into()
    }
}

impl Drop for MemoryWire {
    fn drop(&mut self) {
        self.shared.leave(0);
    }
}

impl Wire for MemoryWire {
    fn send(&mut self, bytes: &[u8]) {
        if !self.closed {
            self.input.extend_from_slice(bytes);
            self.run();
        }
    }

    fn receive(&mut self) -> Received {
        if !self.replies.is_empty() {
            return Received::Bytes(take(&mut self.replies).into());
        }
        if self.closed {
            Received::Closed
        } else {
            Received::Nothing
        }
    }
}
