//! The upkeep thread: what takes disk time and must not hold up a worker. It reloads, takes
//! snapshots, heals a failed storage, drops what has expired and samples the rates.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::logging::LogHandle;
use super::shared::{Shared, settings};
use super::systemd;
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
    /// The log.
    #[error("the log file cannot be opened: see the log")]
    Log,
    /// The data files.
    #[error("the new data files could not be written: see the log")]
    Data,
}

/// What the upkeep thread is told.
pub enum Order {
    /// As HUP; whoever asked hears how it went.
    Reload(Option<oneshot::Sender<Result<(), Incomplete>>>),
    /// As TERM.
    Terminate,
    /// End.
    Stop,
}

/// How often the thread looks after things.
const PERIOD: Duration = Duration::from_millis(100);

/// In how many periods each shard is looked through for expired entries once.
const PURGE_PERIODS: usize = 600;

/// How long to wait after a snapshot that failed: doubled each time, up to the second figure.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The upkeep thread's own.
pub struct Upkeep {
    shared: Arc<Shared>,
    orders: Receiver<Order>,
    log: LogHandle,
    args: Args,
    source: ConfigSource,
    /// Notified when a client asked for the end.
    terminate: Arc<Notify>,
    periods: usize,
    sampled: Tick,
    /// The data files were moved away and there are no new ones yet.
    moved: bool,
    /// When the last snapshot failed, and how long to wait from then on.
    retry: Option<(Tick, Duration)>,
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
            shared,
            orders,
            log,
            args,
            source,
            terminate,
            periods: 0,
            sampled,
            moved: false,
            retry: None,
        }
    }

    /// Works until it is told to stop.
    pub fn run(mut self) {
        loop {
            // First of all: a server that is killed again and again must get to its snapshot.
            self.look_after();
            match self.orders.recv_timeout(PERIOD) {
                Ok(Order::Reload(asked)) => self.reload_for(asked),
                Ok(Order::Terminate) => self.terminate.notify_one(),
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn look_after(&mut self) {
        self.periods = (self.periods + 1) % PURGE_PERIODS;
        self.shared.engine().tidy(self.periods, PURGE_PERIODS);
        if self.sampled.elapsed() >= Duration::from_secs(1) {
            self.sampled = Tick::now();
            self.shared
                .rates()
                .lock()
                .sample(self.shared.total(Metric::Requests));
        }
        let after_bytes = self.shared.config().snapshot_after;
        let due = self.shared.engine().journal().needs_snapshot(after_bytes);
        if (due || self.moved) && self.may_retry() {
            let _ = self.snapshot(self.moved);
        }
    }

    fn may_retry(&self) -> bool {
        self.retry
            .is_none_or(|(failed, wait)| failed.elapsed() >= wait)
    }

    fn snapshot(&mut self, new_generation: bool) -> Result<(), JournalError> {
        let begun = Tick::now();
        let result = self.shared.engine().snapshot(new_generation);
        match &result {
            Ok(()) => {
                self.retry = None;
                self.moved = false;
                let stats = self.shared.engine().journal().stats();
                tracing::info!(
                    snapshot = stats.snapshot,
                    generation = stats.generation,
                    bytes = stats.snapshot_bytes,
                    duration_ms = begun.elapsed().as_millis(),
                    "snapshot complete"
                );
            }
            Err(error) => {
                let wait = self
                    .retry
                    .map_or(RETRY.0, |(_, wait)| (wait * 2).min(RETRY.1));
                self.retry = Some((Tick::now(), wait));
                tracing::error!(%error, retry_in_ms = wait.as_millis(), "snapshot failed");
            }
        }
        result
    }

    /// Reloads once for all who ask at the same time.
    fn reload_for(&mut self, asked: Option<oneshot::Sender<Result<(), Incomplete>>>) {
        let mut askers = vec![asked];
        let mut later = Vec::new();
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Reload(asked) => askers.push(asked),
                Order::Terminate | Order::Stop => later.push(order),
            }
        }
        systemd::reloading();
        let begun = Tick::now();
        let result = self.reload();
        let duration_ms = begun.elapsed().as_millis();
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
        for asked in askers.into_iter().flatten() {
            // Whoever asked may have gone.
            let _ = asked.send(result);
        }
        for order in later {
            self.shared.order(order);
        }
    }

    /// HUP: the configuration, the log file and the data files. A configuration that is refused
    /// leaves the running one in force; the files are reopened all the same.
    fn reload(&mut self) -> Result<(), Incomplete> {
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
        let journal = self.shared.engine().journal();
        let moved = journal.files_moved();
        self.moved |= moved;
        let stored = if moved || journal.failed().is_some() {
            self.snapshot(moved)
        } else {
            Ok(())
        };
        configured.map_err(|_| Incomplete::Configuration)?;
        reopened.map_err(|_| Incomplete::Log)?;
        stored.map_err(|_| Incomplete::Data)
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
