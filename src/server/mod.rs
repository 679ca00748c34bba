//! Everything that touches the process and its surroundings: sockets, signals, the service
//! manager, the terminal, and files other than data. The only place that awaits.
//!
//! [`run`] is the order of the start and of the stop.

pub mod access;
pub mod budget;
pub mod buffers;
pub mod connection;
mod count;
pub mod detach;
pub mod due;
mod dump;
pub mod entrance;
pub mod files;
mod flow;
pub mod handshake;
pub mod leaving;
pub mod listener;
pub mod loading;
pub mod logging;
pub mod logins;
pub mod output;
mod pace;
pub mod process;
pub mod report;
pub mod session;
pub mod shared;
pub mod snapshots;
pub mod socket;
pub mod systemd;
pub mod task;
pub mod tls;
pub mod upkeep;
pub mod worker;

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread::JoinHandle;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_tokio::Signals;
use tokio::sync::Notify;

use crate::cli::{Args, ConfigSource};
use crate::clock::Tick;
use crate::config::Config;
use crate::engine::{Engine, OpenError};
use crate::exit::Exit;
use crate::journal::disk::{Disk, DiskError, FileDisk};
use crate::journal::{JournalError, Options, Progress, Recovered};
use access::{Access, AccessError};
use files::{FileError, PidFile};
use handshake::Handshakes;
use listener::{Inside, Listener};
use loading::Loading;
use logging::LogHandle;
use shared::{Shared, settings};
use upkeep::{Order, Upkeep};
use worker::{Handle, Message};

/// Why the server did not start, or did not stop as it should.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The data do not give a state.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address}: {source}; stop what uses it, or change listen in [server]"
    )]
    Listen {
        /// The address.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The users or the certificate cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A file other than data cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The journal could not be closed.
    #[error("not everything could be made durable: {0}")]
    Close(#[source] JournalError),
    /// Threads, signals or the runtime.
    #[error("the system refused: {0}")]
    System(#[from] io::Error),
}

impl ServeError {
    /// The exit code that tells this.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Disk(DiskError::Locked { .. }) | Self::File(FileError::PidInUse { .. }) => {
                Exit::Locked
            }
            Self::Open(OpenError::Types(_)) | Self::Access(_) => Exit::Config,
            Self::Open(OpenError::Stopped) => Exit::Ok,
            Self::Open(OpenError::Journal(JournalError::Io { .. }))
            | Self::Disk(_)
            | Self::File(_)
            | Self::Close(_) => Exit::Io,
            Self::Open(OpenError::Journal(_)) => Exit::Damaged,
            Self::Listen { .. } => Exit::Unavailable,
            Self::System(_) => Exit::Internal,
        }
    }
}

/// Serves until TERM, INT or a client's `term`.
///
/// Start: the data directory's lock, the addresses, the pid file, the state, the workers; then
/// ready. Stop: no more connections, the workers finish what was received, the upkeep ends, the
/// journal is closed and synced.
pub fn run(
    config: Config,
    (args, source): (Args, ConfigSource),
    log: LogHandle,
) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(config, (args, source), log))
}

async fn serve(
    config: Config,
    origin: (Args, ConfigSource),
    log: LogHandle,
) -> Result<(), ServeError> {
    let mut signals = Signals::new([SIGHUP, SIGTERM, SIGINT])?;
    let stop_asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop_asked))?;
    }
    let access = Access::load(&config)?;
    let disk: Arc<dyn Disk> = Arc::new(FileDisk::open(&config.data_dir)?);
    let listeners = listen_all(&config).await?;
    let pid_file = config
        .pid_file
        .as_deref()
        .map(PidFile::create)
        .transpose()?;
    let config = Arc::new(config);
    let engine = match open_engine(disk, &config, &stop_asked) {
        Ok(engine) => engine,
        Err(ServeError::Open(stopped @ OpenError::Stopped)) => {
            tracing::info!("{stopped}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };

    let running = Running::start((engine, access), &config, origin, log)?;
    let listening = &running.shared.clients().listening;
    listening.get_or_init(|| listeners.iter().map(Listener::listening).collect());
    announce(&listeners, &config);
    if detach::is_child() {
        detach::child_ready()?;
    }
    tokio::select! {
        () = accept_all(&listeners, &running) => {}
        () = stop_signal(&mut signals, &running.shared) => {}
        () = running.terminate.notified() => tracing::info!("stopping: a client asked for it"),
    }
    drop(listeners);
    running.stop()?;
    Ok(pid_file.map_or(Ok(()), PidFile::remove)?)
}

/// The threads that serve.
struct Running {
    shared: Arc<Shared>,
    workers: Arc<[Handle]>,
    handshakes: Handshakes,
    threads: Vec<JoinHandle<()>>,
    upkeep: JoinHandle<()>,
    /// Notified when a client asked for the end.
    terminate: Arc<Notify>,
}

impl Running {
    fn start(
        state: (Engine, Access),
        config: &Arc<Config>,
        origin: (Args, ConfigSource),
        log: LogHandle,
    ) -> io::Result<Self> {
        let count = config.threads.map_or_else(cores, Ok)?;
        let (orders, inbox) = mpsc::channel();
        let print_commands = origin.0.print_commands;
        let config = Arc::clone(config);
        let shared = Shared::new(state, config, count, orders, print_commands)?;
        let shared = Arc::new(shared);
        leaving::start(&shared)?;
        let terminate = Arc::new(Notify::new());
        let upkeep = Upkeep::new(
            Arc::clone(&shared),
            inbox,
            log,
            origin,
            Arc::clone(&terminate),
        );
        let upkeep = std::thread::Builder::new()
            .name("upkeep".into())
            .spawn(|| upkeep.run())?;
        let started: io::Result<Vec<_>> = (0..count)
            .map(|number| worker::start(&shared, number))
            .collect();
        let (workers, threads): (Vec<_>, _) = started?.into_iter().unzip();
        let workers: Arc<[Handle]> = workers.into();
        let handshakes = Handshakes::start(&shared, &workers)?;
        Ok(Self {
            shared,
            workers,
            handshakes,
            threads,
            upkeep,
            terminate,
        })
    }

    /// The workers finish what was received, the upkeep ends, the journal is closed and synced.
    fn stop(self) -> Result<(), ServeError> {
        systemd::stopping();
        let begun = Tick::now();
        // First, because a client may be waiting for one.
        self.shared.engine().give_up_snapshots();
        self.handshakes.stop();
        for worker in self.workers.iter() {
            worker.tell(Message::Stop);
        }
        for thread in self.threads {
            join(thread);
        }
        self.shared.order(Order::Stop);
        join(self.upkeep);
        let journal = self.shared.engine().journal();
        journal.close().map_err(ServeError::Close)?;
        let duration_ms = begun.elapsed().as_millis();
        tracing::info!(duration_ms, "stopped, everything is on disk");
        Ok(())
    }
}

async fn listen_all(config: &Config) -> Result<Vec<Listener>, ServeError> {
    let mut listeners = Vec::new();
    for address in &config.listen {
        let opened = listener::listen(address, config).await;
        let failed = |source| ServeError::Listen {
            address: address.to_string(),
            source,
        };
        listeners.extend(opened.map_err(failed)?);
    }
    Ok(listeners)
}

/// Recovers the state; the log, and the service manager, hear how it goes.
fn open_engine(
    disk: Arc<dyn Disk>,
    config: &Config,
    stop_asked: &AtomicBool,
) -> Result<Engine, ServeError> {
    let mut loading = Loading::begin();
    let mut watch = |progress: &Progress| {
        if stop_asked.load(Relaxed) {
            return ControlFlow::Break(());
        }
        loading.hear(progress);
        ControlFlow::Continue(())
    };
    let options = Options {
        fsync: config.fsync,
        ..Options::default()
    };
    let (engine, recovered) =
        Engine::open(disk, options, settings(config), &config.types, &mut watch)?;
    log_recovery(&engine, &recovered, config);
    Ok(engine)
}

fn log_recovery(engine: &Engine, recovered: &Recovered, config: &Config) {
    let dir = config.data_dir.display();
    if recovered.created {
        tracing::info!("new data directory {dir}, fsync {}", config.fsync.name());
        return;
    }
    tracing::info!(
        entries = engine.store().entries(),
        snapshot_entries = recovered.entries,
        records = recovered.records,
        bytes = recovered.bytes,
        torn_bytes = recovered.torn_bytes,
        snapshot = recovered.snapshot,
        generation = recovered.generation,
        duration_ms = recovered.duration_ms,
        "replay of {dir} complete, fsync {}",
        config.fsync.name()
    );
}

fn announce(listeners: &[Listener], config: &Config) {
    for listener in listeners {
        tracing::info!("listening on {}", listener.name());
    }
    for address in &config.listen {
        let in_clear = !address.is_local() && !address.is_tls();
        if in_clear && config.users.is_some() {
            tracing::warn!(%address, "passwords cross the network in clear: use a tls: address");
        }
    }
    let first = listeners.iter().find_map(Listener::tcp_address);
    let hint = first.map(|at| format!("; try: telnet {} {}", at.ip(), at.port()));
    tracing::info!("ready{}", hint.unwrap_or_default());
    systemd::ready(&status(config));
}

/// One line for `systemctl status`.
fn status(config: &Config) -> String {
    let listen: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
    format!(
        "serving {} types on {}",
        config.types.rows().len(),
        listen.join(", ")
    )
}

fn cores() -> io::Result<usize> {
    std::thread::available_parallelism().map(usize::from)
}

async fn accept_all(listeners: &[Listener], running: &Running) {
    let inside = Inside {
        shared: &running.shared,
        workers: &running.workers,
        handshakes: &running.handshakes,
        numbers: AtomicU64::new(0),
    };
    join_all(listeners.iter().map(|one| one.accept_all(&inside))).await;
}

/// Returns at TERM or INT; a HUP is passed on to the upkeep thread.
async fn stop_signal(signals: &mut Signals, shared: &Shared) {
    while let Some(signal) = signals.next().await {
        if signal == SIGHUP {
            tracing::info!("HUP: reloading");
            shared.order(Order::Reload(None));
        } else {
            tracing::info!("stopping: signal {signal}");
            return;
        }
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread ended by a panic");
    }
}
