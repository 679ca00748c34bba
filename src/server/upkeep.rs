//! The upkeep thread: what takes disk time and must not hold up a worker. It reloads, sees to it
//! that snapshots are taken, drops what has expired and samples the rates.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::logging::LogHandle;
use super::shared::{Shared, settings};
use super::snapshots::Snapshots;
use super::systemd::{self, Patience};
use crate::cli::{self, Args, ConfigSource};
use crate::clock::Tick;
use crate::config::Applies;
use crate::journal::JournalError;
use crate::stats::Metric;

/// What a reload could not do. The log has the details: whoever asked may be any client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incomplete {
    /// The configuration.
    #[error("the new configuration is refused and the old one stays: see the log")]
    Configuration,
    /// The users or the certificate.
    #[error("the users or the certificate are refused and the old ones stay: see the log")]
    Access,
    /// The log.
    #[error("the log file cannot be opened: see the log")]
    Log,
    /// The data files.
    #[error("the data files could not be written: see the log")]
    Data,
}

/// Hears how a reload or a snapshot went.
pub type Asked = oneshot::Sender<Result<(), Incomplete>>;

/// What the upkeep thread is told.
pub enum Order {
    /// As HUP; whoever asked hears how it went.
    Reload(Option<Asked>),
    /// Write a snapshot; whoever asked hears how it went.
    Snapshot(Option<Asked>),
    /// The snapshot that was being written is complete or has failed.
    SnapshotEnded(Result<(), JournalError>),
    /// As TERM.
    Terminate,
    /// End.
    Stop,
}

/// How often the thread looks after things.
const PERIOD: Duration = Duration::from_millis(100);

/// In each of them expired entries are dropped for so long: a twentieth of one core at the most.
const SWEEP: Duration = Duration::from_millis(5);

/// The upkeep thread's own.
pub struct Upkeep {
    shared: Arc<Shared>,
    orders: Receiver<Order>,
    log: LogHandle,
    args: Args,
    source: ConfigSource,
    /// Notified when a client asked for the end.
    terminate: Arc<Notify>,
    snapshots: Snapshots,
    /// Each reload that waits for its snapshot has one more of these.
    reloads: Arc<()>,
    patience: Patience,
    sampled: Tick,
}

impl Upkeep {
    /// The thread's work, for orders from `orders`.
    pub fn new(
        shared: Arc<Shared>,
        orders: Receiver<Order>,
        log: LogHandle,
        (args, source): (Args, ConfigSource),
        terminate: Arc<Notify>,
    ) -> Self {
        let sampled = Tick::now();
        Self {
            snapshots: Snapshots::new(Arc::clone(&shared)),
            shared,
            orders,
            log,
            args,
            source,
            terminate,
            reloads: Arc::default(),
            patience: Patience::default(),
            sampled,
        }
    }

    /// Works until it is told to stop.
    pub fn run(mut self) {
        loop {
            // First of all: a server that is killed again and again must get to its snapshot.
            self.look_after();
            match self.orders.recv_timeout(PERIOD) {
                Ok(Order::Reload(asked)) => self.reload_for(asked),
                Ok(Order::Snapshot(asked)) => self.snapshot_for(asked),
                Ok(Order::SnapshotEnded(result)) => self.snapshots.ended(result),
                Ok(Order::Terminate) => self.terminate.notify_one(),
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    return self.snapshots.stop();
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn look_after(&mut self) {
        self.shared.engine().tidy(SWEEP);
        if self.sampled.elapsed() >= Duration::from_secs(1) {
            self.sampled = Tick::now();
            self.shared
                .rates()
                .lock()
                .sample(self.shared.total(Metric::Requests));
        }
        self.snapshots.look_after();
        if Arc::strong_count(&self.reloads) > 1 {
            self.patience.ask();
        }
    }

    /// Reloads once for all who ask at the same time.
    fn reload_for(&mut self, asked: Option<Asked>) {
        let mut askers = vec![asked];
        let mut later = Vec::new();
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Reload(asked) => askers.push(asked),
                Order::Snapshot(_) | Order::SnapshotEnded(_) | Order::Terminate | Order::Stop => {
                    later.push(order);
                }
            }
        }
        systemd::reloading();
        let reload = Reload {
            begun: Tick::now(),
            askers: askers.into_iter().flatten().collect(),
            shared: Arc::clone(&self.shared),
            _waits: Arc::clone(&self.reloads),
        };
        let reopened = self.reload();
        if self.needs_files() {
            let ended = move |stored| reload.end(reopened.and(stored));
            self.snapshots.ask(Box::new(ended));
        } else {
            reload.end(reopened);
        }
        for order in later {
            self.shared.order(order);
        }
    }

    fn snapshot_for(&mut self, asked: Option<Asked>) {
        let ended = move |stored| {
            if let Some(asked) = asked {
                // Whoever asked may have gone.
                let _ = asked.send(stored);
            }
        };
        self.snapshots.ask(Box::new(ended));
    }

    /// HUP: the configuration and the log file. A configuration that is refused leaves the
    /// running one in force; the log is reopened all the same.
    fn reload(&self) -> Result<(), Incomplete> {
        let configured = self.configure();
        if let Err(error) = &configured {
            tracing::error!("the new configuration is refused, the old one stays: {error}");
        }
        let config = self.shared.config();
        let reopened = self
            .log
            .reopen(config.log_file.as_deref(), config.log_level);
        if let Err(error) = &reopened {
            tracing::error!(%error, "the log goes on in the old file");
        }
        let admitted = self.shared.access().reload(&config);
        if let Err(error) = &admitted {
            tracing::error!("what was in force stays: {error}");
        }
        configured.map_err(|_| Incomplete::Configuration)?;
        admitted.map_err(|_| Incomplete::Access)?;
        reopened.map_err(|_| Incomplete::Log)
    }

    /// True if only a snapshot gives the data files that a HUP asks for.
    fn needs_files(&mut self) -> bool {
        let journal = self.shared.engine().journal();
        let moved = journal.files_moved();
        if moved {
            self.snapshots.files_moved();
        }
        moved || journal.failed().is_some()
    }

    fn configure(&self) -> Result<(), String> {
        let config = cli::reload(&self.args, &self.source).map_err(|error| error.to_string())?;
        self.shared
            .engine()
            .declare_types(&config.types)
            .map_err(|error| error.to_string())?;
        let old = self.shared.config();
        for (key, applies) in old.changed_keys(&config) {
            match applies {
                Applies::OnHup => tracing::info!(key, "changed"),
                Applies::AtRestart => tracing::warn!(key, "changed: takes effect at a restart"),
            }
        }
        let config = old.after_hup(config);
        self.shared.engine().set_settings(settings(&config));
        self.shared.set_config(Arc::new(config));
        Ok(())
    }
}

/// A reload under way.
struct Reload {
    begun: Tick,
    askers: Vec<Asked>,
    shared: Arc<Shared>,
    /// [`Upkeep::reloads`].
    _waits: Arc<()>,
}

impl Reload {
    fn end(self, result: Result<(), Incomplete>) {
        let duration_ms = self.begun.elapsed().as_millis();
        let status = super::status(&self.shared.config());
        match &result {
            Ok(()) => {
                tracing::info!(duration_ms, "reload complete");
                systemd::ready(&status);
            }
            Err(error) => {
                tracing::error!(duration_ms, "reload incomplete: {error}");
                systemd::ready(&format!("{status}; the last reload failed, see the log"));
            }
        }
        for asked in self.askers {
            // Whoever asked may have gone.
            let _ = asked.send(result);
        }
    }
}
