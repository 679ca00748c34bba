//! Servers under measurement: ours, memcached and Redis, each with its data in a directory of its
//! own below the build's, so that it is on a disk; ended when dropped.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process::Process;
use super::wire::{Client, Dialect};

/// A start that takes longer is given up.
const LONGEST_START: Duration = Duration::from_mins(5);

/// A program, and how it is set up.
#[derive(Clone, Copy)]
pub(crate) enum Program<'a> {
    /// Ours.
    Ours(Config<'a>),
    /// memcached, with these arguments.
    Memcached(&'a str),
    /// Redis, with these arguments; nothing is saved but by them.
    Redis(&'a str),
}

/// What our configuration has beside where things are: lines of its sections.
#[derive(Clone, Copy)]
pub(crate) struct Config<'a> {
    pub(crate) server: &'a str,
    pub(crate) data: &'a str,
    pub(crate) types: &'a str,
}

impl Default for Config<'_> {
    fn default() -> Self {
        Self {
            server: "",
            data: "",
            types: "3 = \"DATA\"",
        }
    }
}

impl Program<'_> {
    fn dialect(&self) -> Dialect {
        match self {
            Self::Ours(_) | Self::Memcached(_) => Dialect::Memcached,
            Self::Redis(_) => Dialect::Redis,
        }
    }

    /// Its words; the program first.
    fn command_line(&self, port: u16, dir: &Path) -> Vec<String> {
        let home = dir.display();
        let line = match self {
            Self::Ours(Config {
                server,
                data,
                types,
            }) => {
                let config = dir.join("config.ini");
                let text = format!(
                    "[server]\nlisten = \"127.0.0.1:{port}\"\n{server}\n\
                     [log]\nlevel = \"warn\"\nfile = \"{home}/log\"\n\
                     [data]\ndir = \"{home}/data\"\n{data}\n[types]\n{types}\n"
                );
                fs::write(&config, text).unwrap();
                let config = config.display().to_string();
                return vec![
                    env!("CARGO_BIN_EXE_storage_server").into(),
                    "-c".into(),
                    config,
                ];
            }
            Self::Memcached(arguments) => {
                format!("memcached -u nobody -l 127.0.0.1 -p {port} {arguments}")
            }
            Self::Redis(arguments) => {
                format!("redis-server --bind 127.0.0.1 --port {port} --dir {home} {arguments}")
            }
        };
        let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        if matches!(self, Self::Redis(_)) {
            words.extend(["--save".into(), String::new()]);
        }
        words
    }

    /// False if it has to be installed first.
    pub(crate) fn is_installed(&self) -> bool {
        match self {
            Self::Ours(_) => true,
            Self::Memcached(_) => runs("memcached"),
            Self::Redis(_) => runs("redis-server"),
        }
    }
}

fn runs(program: &str) -> bool {
    let version = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    version.is_ok()
}

/// A server that answers.
pub(crate) struct Server {
    /// As it is called in tables.
    pub(crate) name: &'static str,
    pub(crate) dialect: Dialect,
    pub(crate) port: u16,
    /// How long it took until it answered.
    pub(crate) took: Duration,
    child: Child,
    home: Option<TempDir>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// In a new directory, on one core (the first) or on all; `None` if it is not installed.
    pub(crate) fn start(name: &'static str, program: Program<'_>, cores: Cores) -> Option<Self> {
        if !program.is_installed() {
            return None;
        }
        let home = scratch();
        let mut server = Self::start_in(name, program, cores, home.path());
        server.home = Some(home);
        Some(server)
    }

    /// In this directory, which stays.
    pub(crate) fn start_in(
        name: &'static str,
        program: Program<'_>,
        cores: Cores,
        dir: &Path,
    ) -> Self {
        let port = free_port();
        let begun = Instant::now();
        let child = Command::new("taskset")
            .args(["-c", &cores.list()])
            .args(program.command_line(port, dir))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self {
            name,
            dialect: program.dialect(),
            port,
            took: Duration::ZERO,
            child,
            home: None,
        };
        while !server.answers() {
            assert!(begun.elapsed() < LONGEST_START, "{name} does not answer");
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none(), "{name} has ended: {ended:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
        server.took = begun.elapsed();
        server
    }

    fn answers(&self) -> bool {
        let (question, answer) = match self.dialect {
            Dialect::Memcached => ("version\r\n", "VERSION"),
            Dialect::Redis => ("PING\r\n", "+PONG"),
        };
        let reply = Client::try_connect(self.port).and_then(|mut client| {
            client.send(question)?;
            Ok(client.try_line()?.starts_with(answer))
        });
        reply.unwrap_or(false)
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> Client {
        Client::try_connect(self.port).unwrap()
    }

    pub(crate) fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// Where its data are; only for those of [`Server::start`].
    pub(crate) fn dir(&self) -> &Path {
        self.home.as_ref().expect("it has a directory").path()
    }

    /// A figure of `stats`, if ours has it.
    pub(crate) fn stat(&self, name: &str) -> Option<u64> {
        if self.dialect == Dialect::Redis {
            return None;
        }
        let mut client = self.connect();
        client.send("stats\r\n").unwrap();
        let mut found = None;
        loop {
            let line = client.line();
            if line == "END" {
                return found;
            }
            let mut words = line.split(' ').skip(1);
            if words.next() == Some(name) {
                found = words.next().and_then(|figure| figure.parse().ok());
            }
        }
    }

    /// Ends it by its own command, which makes everything durable.
    pub(crate) fn shut_down(mut self) {
        let mut client = self.connect();
        let line = match self.dialect {
            Dialect::Memcached => "shutdown\r\n",
            Dialect::Redis => "SHUTDOWN NOSAVE\r\n",
        };
        client.send(line).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

/// Where a server may run. The load of a measurement of processor time has the second core.
#[derive(Clone, Copy)]
pub(crate) enum Cores {
    First,
    All,
}

impl Cores {
    fn list(self) -> String {
        match self {
            Self::First => "0".into(),
            Self::All => format!("0-{}", count() - 1),
        }
    }
}

/// How many cores this machine has, whichever of them this process may use.
pub(crate) fn count() -> usize {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap();
    text.matches("processor\t:").count().max(1)
}

/// A directory that goes when it is dropped. `/tmp` would be memory on many a machine.
pub(crate) fn scratch() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
