//! Snapshots in the background: one thread at a time writes one, begun when the journal says that
//! one is due or when somebody asks. Whoever asks while one is being written gets the next, since
//! what is being written may lack what they want in it. Failed ones are tried again, later and
//! later. The upkeep thread owns this.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::shared::Shared;
use super::upkeep::{Incomplete, Order};
use crate::clock::Tick;
use crate::journal::JournalError;

/// How long to wait after a snapshot that failed: doubled each time,
const RETRY: Duration = Duration::from_millis(500);
/// up to this,
const RETRY_MAX: Duration = Duration::from_mins(5);
/// or up to this while writes are refused until there is one.
const HEAL_RETRY_MAX: Duration = Duration::from_secs(1);

/// How much less of a busy processor a snapshot's thread gets than those that serve.
const NICENESS: i32 = 10;

/// Has the system run this thread when no other one wants to. What it cannot change stays.
fn give_way() {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "the snapshot takes as much of the processor as others");
    }
}

/// Hears whether the snapshot is complete.
pub type Asker = Box<dyn FnOnce(Result<(), Incomplete>) + Send>;

/// The snapshots of a server.
pub struct Snapshots {
    shared: Arc<Shared>,
    running: Option<Running>,
    /// Who waits for the next one.
    waiting: Vec<Asker>,
    /// The data files were moved away and there are no new ones yet.
    moved: bool,
    /// When the last one failed, and how long to wait from then on.
    retry: Option<(Tick, Duration)>,
}

/// One that is being written.
struct Running {
    thread: JoinHandle<()>,
    begun: Tick,
    new_generation: bool,
    askers: Vec<Asker>,
}

impl Snapshots {
    /// None so far.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            running: None,
            waiting: Vec::new(),
            moved: false,
            retry: None,
        }
    }

    /// The data files were moved away: the next snapshot begins a new generation.
    pub fn files_moved(&mut self) {
        self.moved = true;
    }

    /// Asks for a snapshot that begins from now on; `asker` hears how it ended.
    pub fn ask(&mut self, asker: Asker) {
        self.waiting.push(asker);
        self.begin_if_asked();
    }

    /// Begins one if one is due.
    pub fn look_after(&mut self) {
        let config = self.shared.config();
        let journal = self.shared.engine().journal();
        let due = journal.needs_snapshot(config.compact_min, config.compact_ratio)
            || self.shared.engine().wants_snapshot();
        let wait_over = self
            .retry
            .is_none_or(|(failed, wait)| failed.elapsed() >= wait);
        if self.running.is_none() && (due || self.moved) && wait_over {
            self.begin();
        }
    }

    fn begin_if_asked(&mut self) {
        if self.running.is_none() && !self.waiting.is_empty() {
            self.begin();
        }
    }

    fn begin(&mut self) {
        let (shared, new_generation) = (Arc::clone(&self.shared), self.moved);
        let write = move || {
            give_way();
            let result = shared.engine().snapshot(new_generation);
            // Should the upkeep have ended, nobody wants to know.
            shared.order(Order::SnapshotEnded(result));
        };
        let begun = Tick::now();
        let askers = std::mem::take(&mut self.waiting);
        match std::thread::Builder::new()
            .name("snapshot".into())
            .spawn(write)
        {
            Ok(thread) => {
                self.running = Some(Running {
                    thread,
                    begun,
                    new_generation,
                    askers,
                });
            }
            Err(error) => self.failed(&error, askers),
        }
    }

    /// The one that was being written is complete or has failed.
    pub fn ended(&mut self, result: Result<(), JournalError>) {
        let Some(running) = self.running.take() else {
            return;
        };
        super::join(running.thread);
        match result {
            Ok(()) => {
                self.retry = None;
                self.moved &= !running.new_generation;
                let stats = self.shared.engine().journal().stats();
                tracing::info!(
                    snapshot = stats.snapshot,
                    generation = stats.generation,
                    bytes = stats.snapshot_bytes,
                    duration_ms = running.begun.elapsed().as_millis(),
                    "snapshot complete"
                );
                answer(running.askers, Ok(()));
            }
            // The server stops.
            Err(JournalError::Closed) => return,
            Err(error) => self.failed(&error, running.askers),
        }
        self.begin_if_asked();
    }

    fn failed(&mut self, error: &dyn std::error::Error, askers: Vec<Asker>) {
        let heals = self.shared.engine().journal().failed().is_some();
        let most = if heals { HEAL_RETRY_MAX } else { RETRY_MAX };
        let wait = self.retry.map_or(RETRY, |(_, wait)| (wait * 2).min(most));
        self.retry = Some((Tick::now(), wait));
        tracing::error!(%error, retry_in_ms = wait.as_millis(), "snapshot failed");
        answer(askers, Err(Incomplete::Data));
    }

    /// Waits for the one that is being written, which has been told to give up.
    pub fn stop(self) {
        if let Some(running) = self.running {
            super::join(running.thread);
        }
    }
}

fn answer(askers: Vec<Asker>, result: Result<(), Incomplete>) {
    for asker in askers {
        asker(result);
    }
}
