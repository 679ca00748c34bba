//! The configuration: the text of `config.ini` (TOML by syntax) to a validated [`Config`].
//!
//! Invariant: a `Config` that [`Config::parse`] gave holds only values that the server can run
//! with, and everything said about a key - its default, its range, its documentation, whether a
//! HUP applies it - comes from its one row in [`KEYS`]. Nothing here does I/O: the caller brings
//! the text. Anyone may read a `Config`; `cli` makes it, `server` acts on it.

mod error;
mod form;
mod keys;
mod listen;
mod parse;
mod render;
#[cfg(test)]
mod tests;
mod types;

pub use error::{ConfigError, Problem, ProblemKind};
pub use form::Form;
pub use keys::{Applies, KEYS, KeyRow};
pub use listen::ListenAddr;
pub use render::{render_example, render_markdown};

use crate::limits;
use crate::types::{Keep, KeyRules, TypeTable};
use std::path::PathBuf;
use std::time::Duration;

/// Everything that an operator can set. The fields are named as the keys of `config.ini`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the operator's, independent of the others"
)]
pub struct Config {
    /// Where to listen; never empty.
    pub listen: Vec<ListenAddr>,
    /// Detach from the terminal.
    pub daemon: bool,
    /// The most clients at one time.
    pub max_clients: usize,
    /// Worker threads; `None` is one per core.
    pub threads: Option<usize>,
    /// Close a connection that was silent for this long; `None` is never.
    pub idle_timeout: Option<Duration>,
    /// Where to write the process id, if anywhere.
    pub pid_file: Option<PathBuf>,
    /// The largest value or request body, in bytes.
    pub max_value: usize,
    /// The most memory for data, in bytes; `None` is no limit.
    pub memory_limit: Option<u64>,
    /// The most memory for the buffers of all clients, in bytes.
    pub client_memory: u64,
    /// `named_keys` and `unknown_prefix`, as the type table takes them.
    pub key_rules: KeyRules,
    /// `flush_all` is served.
    pub allow_flush_all: bool,
    /// `term` and `shutdown` are served.
    pub allow_term: bool,
    /// From where `term` and `shutdown` are served.
    pub term_from: TermFrom,
    /// The file of users; `None` lets everybody in.
    pub users: Option<PathBuf>,
    /// Users say who they are on unix sockets, too.
    pub login_on_unix: bool,
    /// The certificate of TLS addresses, with its chain.
    pub tls_cert: Option<PathBuf>,
    /// Its private key.
    pub tls_key: Option<PathBuf>,
    /// Who must have signed the certificates of clients; `None` asks for none.
    pub tls_client_ca: Option<PathBuf>,
    /// The permission bits of unix sockets.
    pub unix_mode: u32,
    /// Listening on an address that other machines reach is meant.
    pub allow_public: bool,
    /// The log file; `None` is standard error.
    pub log_file: Option<PathBuf>,
    /// The least important lines that are logged.
    pub log_level: LogLevel,
    /// The data directory.
    pub data_dir: PathBuf,
    /// When the journal is forced to the medium.
    pub fsync: Fsync,
    /// A snapshot is due after this many bytes of journal,
    pub compact_min: u64,
    /// and after this many times the size of the last one.
    pub compact_ratio: u64,
    /// How many bytes a second a snapshot is written with; 0 is as fast as it goes.
    pub snapshot_rate: u64,
    /// The most memory for values that were read from the data files.
    pub cache_memory: u64,
    /// The declared types and the built-in ones.
    pub types: TypeTable,
}

impl Default for Config {
    /// What an empty file gives: a test holds this against the defaults in [`KEYS`].
    fn default() -> Self {
        Self {
            listen: vec![ListenAddr::Tcp {
                host: "127.0.0.1".to_owned(),
                port: 11211,
                tls: false,
            }],
            daemon: false,
            max_clients: 1024,
            threads: None,
            idle_timeout: None,
            pid_file: None,
            max_value: limits::VALUE_BYTES_DEFAULT,
            memory_limit: None,
            client_memory: 64 << 20,
            key_rules: KeyRules::default(),
            allow_flush_all: true,
            allow_term: true,
            term_from: TermFrom::Local,
            unix_mode: 0o600,
            allow_public: false,
            users: None,
            login_on_unix: true,
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
            log_file: None,
            log_level: LogLevel::Info,
            data_dir: PathBuf::from("data"),
            fsync: Fsync::EverySec,
            compact_min: 256 << 20,
            compact_ratio: 1,
            snapshot_rate: 64 << 20,
            cache_memory: 64 << 20,
            types: TypeTable::default(),
        }
    }
}

impl Config {
    /// Reads the text of a configuration file. `file` names it in errors, all of which are
    /// reported, in the order of their lines.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        parse::parse(text, file)
    }

    fn keep_named(&mut self, change: impl FnOnce(&mut Keep)) {
        let mut named = self.types.named();
        change(&mut named);
        self.types = std::mem::take(&mut self.types).with_named(named);
    }

    /// What runs after a HUP with the file `new`: its values, but those of this configuration
    /// for keys that take effect at a restart.
    #[must_use]
    pub fn after_hup(&self, new: Self) -> Self {
        let mut next = new;
        for row in KEYS.iter().filter(|row| row.applies == Applies::AtRestart) {
            row.form.copy(self, &mut next);
        }
        next
    }

    /// The keys whose values differ in `other`, and whether a HUP applies them.
    pub fn changed_keys(&self, other: &Self) -> Vec<(&'static str, Applies)> {
        let mut changed: Vec<_> = KEYS
            .iter()
            .filter(|row| row.form.show(self) != row.form.show(other))
            .map(|row| (row.key, row.applies))
            .collect();
        if self.types.rows() != other.types.rows() {
            changed.push(("types", Applies::OnHup));
        }
        changed
    }
}

/// Makes a fieldless enum whose variants have names in the configuration.
macro_rules! named_enum {
    (
        $(#[$doc:meta])*
        $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Every name, in the order of the variants.
            pub const NAMES: &'static [&'static str] = &[$($text,)*];

            /// The name in the configuration.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// The variant of that name, exactly as written.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($text => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

named_enum! {
    /// When what was written is made to last. Whatever it is, the end of the process (also a
    /// `SIGKILL`) loses nothing that was answered or shown; this is about the end of the machine.
    Fsync {
        /// A reply leaves after the sync: a power loss loses nothing that was answered or shown.
        Always = "always",
        /// A power loss loses at most the last second of what was answered.
        EverySec = "everysec",
        /// The kernel writes when it likes: a power loss may lose all since the last rotation.
        Never = "never",
    }
}

named_enum! {
    /// How important a log line is.
    LogLevel {
        /// Something failed and needs a person.
        Error = "error",
        /// Something is odd and may need a person.
        Warn = "warn",
        /// Starts, stops, reloads and snapshots.
        Info = "info",
        /// What each connection does.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

named_enum! {
    /// From where `term` and `shutdown` are served.
    TermFrom {
        /// From a loopback address or a unix socket only.
        Local = "local",
        /// From everywhere.
        Any = "any",
    }
}
