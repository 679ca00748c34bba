//! A daemon of its own for each test: configuration, process, log and data directory.
//!
//! Only processes that were started here are ended, by their pid.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{Client, until};

/// How long a start may take, replay included.
const START: Duration = Duration::from_mins(1);
/// How long a stop may take: the contract says 5 s; what is over shows as a failure.
const STOP: Duration = Duration::from_secs(5);

/// The text of a config.ini, by section and key.
#[derive(Clone, Default)]
pub(crate) struct Config(BTreeMap<String, BTreeMap<String, String>>);

impl Config {
    /// Port 0, the types that the tests use: 3 DATA, 4 COUNTER, 5 INDEX of 4, 6 COUNTER64,
    /// 7 INDEX of 6.
    pub(crate) fn standard() -> Self {
        Self::bare()
            .with("types", "3", "\"DATA\"")
            .with("types", "4", "\"COUNTER\"")
            .with("types", "5", "{ kind = \"INDEX\", target = 4 }")
            .with("types", "6", "\"COUNTER64\"")
            .with("types", "7", "{ kind = \"INDEX\", target = 6 }")
    }

    /// Port 0 and the built-in types.
    pub(crate) fn bare() -> Self {
        Self::default().with("server", "listen", "\"127.0.0.1:0\"")
    }

    /// With this key set; the value is TOML.
    #[must_use]
    pub(crate) fn with(mut self, section: &str, key: &str, value: &str) -> Self {
        self.set(section, key, value);
        self
    }

    /// With DATA types whose values leave memory as soon as they may.
    #[must_use]
    pub(crate) fn leaving(mut self) -> Self {
        let types = self.0.entry("types".to_owned()).or_default();
        for value in types.values_mut().filter(|value| *value == "\"DATA\"") {
            "{ kind = \"DATA\", keep_in_memory = 0 }".clone_into(value);
        }
        self
    }

    pub(crate) fn set(&mut self, section: &str, key: &str, value: &str) {
        let section = self.0.entry(section.to_owned()).or_default();
        section.insert(key.to_owned(), value.to_owned());
    }

    pub(crate) fn remove(&mut self, section: &str, key: &str) {
        if let Some(section) = self.0.get_mut(section) {
            section.remove(key);
        }
    }

    pub(crate) fn get(&self, section: &str, key: &str) -> Option<&str> {
        Some(self.0.get(section)?.get(key)?.as_str())
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (section, keys) in &self.0 {
            writeln!(text, "[{section}]").unwrap();
            for (key, value) in keys {
                writeln!(text, "{key} = {value}").unwrap();
            }
        }
        text
    }
}

/// A directory with a configuration, in which daemons start one after the other.
pub(crate) struct Home {
    dir: TempDir,
    config: Config,
    /// What the daemon is started by, if not directly: a program and its arguments.
    wrapper: Vec<String>,
}

impl Home {
    pub(crate) fn new(config: Config) -> Self {
        let dir = TempDir::new().unwrap();
        let wrapper = Vec::new();
        let mut home = Self {
            dir,
            config,
            wrapper,
        };
        home.reconfigure(|_| {});
        home
    }

    /// Has the daemon started by another program. Its process is then that program's child: it
    /// ends by `term` from a client.
    #[must_use]
    pub(crate) fn started_by(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(ToString::to_string).collect();
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.path("config.ini")
    }

    /// Changes the configuration file; a running daemon does not see it before a HUP.
    pub(crate) fn reconfigure(&mut self, edit: impl FnOnce(&mut Config)) {
        edit(&mut self.config);
        let mut whole = self.config.clone();
        if whole.get("data", "dir").is_none() {
            whole.set("data", "dir", &quoted(&self.data()));
        }
        fs::write(self.config_path(), whole.text()).unwrap();
    }

    /// Where the daemon's log goes: the configured file, or what it writes to standard error.
    fn log_path(&self) -> PathBuf {
        self.config
            .get("log", "file")
            .map(|quoted| quoted.trim_matches('"'))
            .filter(|path| !path.is_empty())
            .map_or_else(|| self.path("stderr"), PathBuf::from)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let binary = env!("CARGO_BIN_EXE_storage_server");
        let mut command = match self.wrapper.split_first() {
            None => Command::new(binary),
            Some((program, rest)) => {
                let mut command = Command::new(program);
                command.args(rest).arg(binary);
                command
            }
        };
        command.arg("-c").arg(self.config_path()).args(args);
        command
            .current_dir(self.dir.path())
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null());
        command
    }

    /// Starts a daemon and waits until it listens.
    pub(crate) fn start(&self) -> Daemon {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&self, args: &[&str]) -> Daemon {
        self.try_start(args).unwrap_or_else(|status| {
            panic!(
                "the daemon ended at once, {status}:\n{}",
                self.read("stderr")
            )
        })
    }

    /// Starts a daemon and waits until it listens, or gives how it ended.
    pub(crate) fn try_start(&self, args: &[&str]) -> Result<Daemon, ExitStatus> {
        let log = self.log_path();
        let seen = file_len(&log);
        let stderr = append_to(&self.path("stderr"));
        let stdout = append_to(&self.path("stdout"));
        let child = self
            .command(args)
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .expect("start the daemon");
        let mut daemon = Daemon {
            child,
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            log,
            log_from: seen,
        };
        daemon.addr = until("the daemon listens", START, || {
            if let Some(status) = daemon.child.try_wait().unwrap() {
                return Some(Err(status));
            }
            listening_on(&daemon.log()).map(Ok)
        })?;
        Ok(daemon)
    }

    /// Runs the daemon where it is expected to end by itself: status, output and error text.
    pub(crate) fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let out = File::create(self.path("run.out")).unwrap();
        let err = File::create(self.path("run.err")).unwrap();
        let mut child = self.command(args).stdout(out).stderr(err).spawn().unwrap();
        let status = wait(&mut child, Duration::from_secs(10)).unwrap_or_else(|| {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the daemon did not end: {}", self.read("run.err"));
        });
        (status.code(), self.read("run.out"), self.read("run.err"))
    }

    /// A file of this home as text; empty if it is not there.
    pub(crate) fn read(&self, name: &str) -> String {
        read_text(&self.path(name))
    }
}

/// A running daemon.
pub(crate) struct Daemon {
    child: Child,
    addr: SocketAddr,
    log: PathBuf,
    log_from: usize,
}

impl Daemon {
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.addr).expect("connect to the daemon")
    }

    /// What this daemon has logged since its start (or since the log was moved away).
    pub(crate) fn log(&self) -> String {
        let text = read_text(&self.log);
        text.get(self.log_from..).unwrap_or(&text).to_owned()
    }

    /// The next log line that contains all of `words`, whatever their case.
    pub(crate) fn logged(&self, words: &[&str]) -> String {
        until(
            &format!("a log line with {words:?}"),
            Duration::from_secs(10),
            || {
                let log = self.log();
                let has = |line: &&str| {
                    let line = line.to_lowercase();
                    words.iter().all(|word| line.contains(&word.to_lowercase()))
                };
                log.lines().find(has).map(str::to_owned)
            },
        )
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send_signal(self.pid(), signal);
    }

    pub(crate) fn hup(&self) {
        self.signal(Signal::HUP);
    }

    /// kill -9, and waits until it is gone.
    pub(crate) fn kill9(mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "it ended before: {}", self.log());
    }

    /// Ends it by TERM; the status must come within 5 s.
    pub(crate) fn term(self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended(STOP)
    }

    /// Waits for an end that was asked for in another way.
    pub(crate) fn ended(mut self, limit: Duration) -> ExitStatus {
        wait(&mut self.child, limit)
            .unwrap_or_else(|| panic!("still there after {limit:?}: {}", self.log()))
    }

    /// True while the process has not ended.
    pub(crate) fn alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .unwrap()
            .count()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.len().saturating_sub(4000);
            println!("the daemon's log:\n{}", log.get(tail..).unwrap_or(&log));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Resident memory, in KiB.
pub(crate) fn resident_kb(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

pub(crate) fn send_signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).expect("send a signal");
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let end = std::time::Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if std::time::Instant::now() > end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The address in the newest complete line with `listening on ADDRESS`.
pub(crate) fn listening_on(log: &str) -> Option<SocketAddr> {
    let (complete, _) = log.rsplit_once('\n')?;
    let (_, rest) = complete.rsplit_once("listening on ")?;
    let address: String = rest
        .chars()
        .take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':'))
        .collect();
    address.parse().ok()
}

pub(crate) fn read_text(path: &Path) -> String {
    fs::read(path).map_or_else(
        |_| String::new(),
        |bytes| String::from_utf8_lossy(&bytes).into_owned(),
    )
}

fn file_len(path: &Path) -> usize {
    fs::metadata(path).map_or(0, |meta| usize::try_from(meta.len()).unwrap())
}

fn append_to(path: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap()
}

/// A path as TOML text.
pub(crate) fn quoted(path: &Path) -> String {
    toml::Value::from(path.to_str().unwrap()).to_string()
}

/// Copies the files of a directory (not its folders) into a new one.
pub(crate) fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}
