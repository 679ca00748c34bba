//! What all threads of the server share: the engine, the configuration, the figures, who is
//! connected, and the way to the upkeep thread.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, mpsc};

use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};

use super::access::Access;
use super::buffers::Buffers;
use super::logging::RateLimit;
use super::logins::Logins;
use super::process;
use super::upkeep::Order;
use crate::clock::Tick;
use crate::command::Refusal;
use crate::config::{Config, TermFrom};
use crate::engine::{Engine, Settings};
use crate::limits::MEMBERS_MAX;
use crate::stats::{Counts, Metric, Rates, Tally, Uses};

/// Who is at the other end: shown as the address, in logs and `stats conns`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A client over TCP, by its address.
    Tcp(SocketAddr),
    /// A client of the unix socket at this path.
    Unix(Arc<Path>),
}

impl Peer {
    /// True for a loopback address or a unix socket.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One connection, as the other threads see it.
#[derive(Debug)]
pub struct Client {
    /// Who is at the other end.
    pub peer: Peer,
    /// The listening address that it came to.
    pub listener: Arc<str>,
    /// Its file descriptor.
    pub fd: i32,
    /// It must say who it is before it is served.
    pub must_log_in: bool,
    /// When it last sent something, in seconds since the server's start.
    pub last_heard_s: AtomicU64,
    /// What it is at: one of [`Phase`].
    pub phase: AtomicU8,
}

/// What a connection is at, as far as memcached has a name for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It waits for a request, or is being served.
    #[default]
    Read,
    /// It waits for the rest of a block.
    ReadBlock,
    /// It waits for memory, or for a sync.
    Wait,
    /// It waits for a value that is being read from its file.
    WaitForFile,
    /// It waits until the client has read its replies.
    Write,
}

impl Phase {
    /// The name in `stats conns`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "conn_read",
            Self::ReadBlock => "conn_nread",
            Self::Wait => "conn_waiting",
            Self::WaitForFile => "conn_io_queue",
            Self::Write => "conn_mwrite",
        }
    }
}

impl Client {
    /// Takes down what the connection is at. Not on the way of most requests, which are not
    /// waited for.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    /// What the connection is at.
    pub fn phase(&self) -> Phase {
        let phase = self.phase.load(Relaxed);
        let all = [
            Phase::Read,
            Phase::ReadBlock,
            Phase::Wait,
            Phase::WaitForFile,
            Phase::Write,
        ];
        let found = all.into_iter().find(|one| *one as u8 == phase);
        found.unwrap_or_default()
    }
}

/// A listening socket, as `stats` shows it.
#[derive(Clone, Debug)]
pub struct Listening {
    /// Its file descriptor.
    pub fd: i32,
    /// The address as it really is, port included.
    pub name: Arc<str>,
}

impl Client {
    /// For how many seconds it has sent nothing. It may have been heard since `now_s` was read.
    pub fn silent_s(&self, now_s: u64) -> u64 {
        now_s.saturating_sub(self.last_heard_s.load(Relaxed))
    }
}

/// How many connections there are and were.
#[derive(Debug, Default)]
pub struct Clients {
    /// Those of now, by a number of their own.
    pub connected: DashMap<u64, Arc<Client>>,
    /// How many there are now.
    pub current: AtomicUsize,
    /// How many there have been.
    pub total: AtomicU64,
    /// How many were turned away at `max_clients`.
    pub rejected: AtomicU64,
    /// How often accepting had to pause because the system had no more descriptors.
    pub pauses: AtomicU64,
    /// How long it paused so far, in microseconds.
    pub paused_us: AtomicU64,
    /// How many listeners pause now.
    pub pausing: AtomicUsize,
    /// The listening sockets, once there are any.
    pub listening: OnceLock<Vec<Listening>>,
}

impl Clients {
    /// Counts from now on. Who is connected stays.
    fn reset(&self) {
        for count in [&self.total, &self.rejected, &self.pauses, &self.paused_us] {
            count.store(0, Relaxed);
        }
    }
}

/// What the threads share.
pub struct Shared {
    engine: Engine,
    access: Access,
    logins: Option<Logins>,
    buffers: Buffers,
    config: RwLock<Arc<Config>>,
    /// The most clients: `max_clients`, or fewer if the system allows no more descriptors.
    clients_max: AtomicUsize,
    clients: Clients,
    tallies: Vec<Arc<Tally>>,
    rates: Mutex<Rates>,
    /// What was counted when `stats reset` was last asked for.
    baseline: Mutex<Baseline>,
    orders: mpsc::Sender<Order>,
    print_commands: bool,
    /// It is counted by the first part of keys: `stats detail`.
    detail: AtomicBool,
}

/// What was counted at some time.
#[derive(Debug, Default)]
struct Baseline {
    metrics: Vec<u64>,
    classes: BTreeMap<u32, Counts>,
}

/// Bad requests are logged, but no client can fill the log with them.
static REFUSED: RateLimit = RateLimit::new("request refused", 10);
static STORAGE: RateLimit = RateLimit::new("writes are refused", 1);

impl Shared {
    /// For `threads` workers. Orders for the upkeep thread go to `orders`; with
    /// `print_commands` each command goes to standard output.
    pub fn new(
        (engine, access): (Engine, Access),
        config: Arc<Config>,
        threads: usize,
        orders: mpsc::Sender<Order>,
        print_commands: bool,
    ) -> io::Result<Self> {
        let logins = access.users().map(|_| Logins::start()).transpose()?;
        Ok(Self {
            engine,
            access,
            logins,
            buffers: Buffers::new(config.client_memory),
            clients_max: AtomicUsize::new(process::allow_clients(config.max_clients, threads)),
            config: RwLock::new(config),
            clients: Clients::default(),
            tallies: (0..threads).map(|_| Arc::default()).collect(),
            rates: Mutex::default(),
            baseline: Mutex::default(),
            orders,
            print_commands,
            detail: AtomicBool::new(false),
        })
    }

    /// Who may come in.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The memory of all clients' buffers.
    pub fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// The threads that check passwords; `None` without users.
    pub fn logins(&self) -> Option<&Logins> {
        self.logins.as_ref()
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read())
    }

    /// Puts another configuration in force.
    pub fn set_config(&self, config: Arc<Config>) {
        let clients_max = process::allow_clients(config.max_clients, self.tallies.len());
        self.clients_max.store(clients_max, Relaxed);
        *self.config.write() = config;
    }

    /// Sets the memory limit, in MiB, until the configuration is read again: the reply to
    /// `cache_memlimit`, in memcached's words.
    pub fn limit_memory(&self, mib: Option<u64>) -> &'static str {
        /// Below this nothing works; above this somebody took MiB for bytes.
        const MIB: std::ops::RangeInclusive<u64> = 8..=1_000_000_000;
        let Some(mib) = mib else {
            return "ERROR";
        };
        if mib < *MIB.start() {
            return "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m";
        }
        if !MIB.contains(&mib) {
            return "MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes";
        }
        let mut config = Config::clone(&self.config());
        config.memory_limit = Some(mib << 20);
        self.engine.set_settings(settings(&config));
        self.set_config(Arc::new(config));
        tracing::info!(mib, "cache_memlimit: memory_limit until the next HUP");
        "OK"
    }

    /// Who is connected.
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// Each worker's counters.
    pub fn tallies(&self) -> &[Arc<Tally>] {
        &self.tallies
    }

    /// The request rates.
    pub fn rates(&self) -> &Mutex<Rates> {
        &self.rates
    }

    /// What has been counted since the last `stats reset`.
    pub fn counted(&self, metric: Metric) -> u64 {
        let baseline = self
            .baseline
            .lock()
            .metrics
            .get(metric as usize)
            .copied()
            .unwrap_or_default();
        self.total(metric).saturating_sub(baseline)
    }

    /// What has been counted since the start.
    pub fn total(&self, metric: Metric) -> u64 {
        self.tallies.iter().map(|tally| tally.get(metric)).sum()
    }

    /// What has been counted of each class since the last `stats reset`.
    pub fn counted_in_classes(&self) -> BTreeMap<u32, Counts> {
        let mut classes = self.classes();
        for (class, before) in &self.baseline.lock().classes {
            if let Some(counts) = classes.get_mut(class) {
                *counts = counts.since(*before);
            }
        }
        classes.retain(|_, counts| !counts.is_empty());
        classes
    }

    /// What has been counted of each class since the start.
    fn classes(&self) -> BTreeMap<u32, Counts> {
        let mut classes = BTreeMap::<u32, Counts>::new();
        for (class, counts) in self.tallies.iter().flat_map(|tally| tally.classes()) {
            *classes.entry(class).or_default() += counts;
        }
        classes
    }

    /// True if it is counted by the first part of keys.
    pub fn has_detail(&self) -> bool {
        self.detail.load(Relaxed)
    }

    /// Whether it is counted by the first part of keys. What has been counted stays.
    pub fn set_detail(&self, detail: bool) {
        self.detail.store(detail, Relaxed);
    }

    /// What has been counted by the first part of keys, which are in ascending order.
    pub fn prefixes(&self) -> BTreeMap<Box<[u8]>, Uses> {
        let mut all = BTreeMap::new();
        for tally in &self.tallies {
            tally.prefixes().collect(&mut all);
        }
        all
    }

    /// Counts from now on: `stats reset`.
    pub fn reset_counters(&self) {
        self.clients.reset();
        self.engine.store().forget_gone();
        self.tallies
            .iter()
            .for_each(|tally| tally.prefixes().clear());
        self.engine.store().holds().reset();
        self.engine.journal().holds().reset();
        self.engine.store().waits().reset();
        self.engine.journal().waits().reset();
        let metrics = Metric::ALL.iter().map(|metric| self.total(*metric));
        *self.baseline.lock() = Baseline {
            metrics: metrics.collect(),
            classes: self.classes(),
        };
    }

    /// Gives the upkeep thread an order. False if it has ended: the server is stopping.
    pub fn order(&self, order: Order) -> bool {
        self.orders.send(order).is_ok()
    }

    /// Seconds since the start.
    pub fn uptime_s(&self) -> u64 {
        self.engine.clock().uptime().as_secs()
    }

    /// Why this client may not stop the server, if it may not.
    pub fn forbids_term(&self, peer: &Peer) -> Option<Refusal> {
        let config = self.config();
        if !config.allow_term {
            return Some(Refusal::TermOff);
        }
        let from_afar = config.term_from == TermFrom::Local && !peer.is_local();
        from_afar.then_some(Refusal::TermFromAfar)
    }

    /// Logs what a client did wrong; not more often than a few times a second.
    pub fn log_refused(&self, peer: &Peer, noreply: bool, cause: &str) {
        REFUSED.run(Tick::now(), || {
            tracing::info!(client = %peer, noreply, "request refused: {cause}");
        });
    }

    /// Logs that the storage refuses writes, once a second.
    pub fn log_storage(&self, refusal: &Refusal) {
        STORAGE.run(Tick::now(), || {
            let dir = self.config().data_dir.display().to_string();
            tracing::error!(dir, "writes are refused: {}", refusal.cause());
        });
    }

    /// Prints a command's line to standard output, if the operator asked for that.
    pub fn print_command(&self, input: &[u8]) {
        if !self.print_commands {
            return;
        }
        let end = memchr::memchr(b'\n', input).unwrap_or(input.len());
        let line = input
            .get(..end)
            .unwrap_or_default()
            .trim_ascii_end()
            .escape_ascii();
        // A reader that has gone away is no reason to stop serving.
        let _ = writeln!(io::stdout().lock(), "{line}");
    }

    /// The most clients at one time.
    pub fn clients_max(&self) -> usize {
        self.clients_max.load(Relaxed)
    }

    /// Counts a connection in, unless there are too many.
    pub fn admit(&self) -> bool {
        let max = self.clients_max();
        let admitted = self
            .clients
            .current
            .fetch_update(Relaxed, Relaxed, |now| (now < max).then_some(now + 1));
        if admitted.is_err() {
            self.clients.rejected.fetch_add(1, Relaxed);
        }
        admitted.is_ok()
    }

    /// Counts a connection out.
    pub fn leave(&self, number: u64) {
        self.clients.connected.remove(&number);
        self.clients.current.fetch_sub(1, Relaxed);
    }
}

/// What a configuration says to the engine.
pub fn settings(config: &Config) -> Settings {
    Settings {
        key_rules: config.key_rules,
        value_bytes_max: config.max_value,
        members_max: MEMBERS_MAX,
        memory_limit: config.memory_limit.unwrap_or(0),
        cache_bytes: config.cache_memory,
        snapshot_bytes_per_s: config.snapshot_rate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_was_heard_a_moment_after_the_clock_is_not_silent() {
        let client = Client {
            peer: Peer::Unix(Path::new("socket").into()),
            listener: "listener".into(),
            fd: 3,
            must_log_in: false,
            last_heard_s: AtomicU64::new(5),
            phase: AtomicU8::default(),
        };
        assert_eq!([4, 5, 7].map(|now_s| client.silent_s(now_s)), [0, 0, 2]);
    }
}
