//! The one table of keys: what parsing, defaults, errors, the example file and the
//! documentation of the configuration are made from.
//!
//! Invariant: a key is unique, is named `section.name`, and its default is TOML text that reads to
//! what `Config::default` holds; tests check each. To add a key, add its field to `Config` and
//! its row here. Read by `config`, and by `server` for `stats settings`.

use super::{Form, Fsync, LogLevel, TermFrom};
use crate::limits;
use crate::types::WhenFull;
use std::path::PathBuf;
use std::time::Duration;

/// When a changed value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// At the next HUP or `reopen`.
    OnHup,
    /// At the next start.
    AtRestart,
}

/// All that is known about a key.
#[derive(Debug)]
pub struct KeyRow {
    /// The section and the name, with a dot between them.
    pub key: &'static str,
    /// The default, as TOML.
    pub default: &'static str,
    /// What it takes, and where the value goes.
    pub form: Form,
    /// When a change takes effect.
    pub applies: Applies,
    /// What it does: sentences for the example file and the documentation, a line each.
    pub doc: &'static [&'static str],
}

impl KeyRow {
    /// The section that the key belongs to.
    pub fn section(&self) -> &'static str {
        self.key.split_once('.').map_or("", |(section, _)| section)
    }

    /// The key's name within its section.
    pub fn name(&self) -> &'static str {
        self.key.split_once('.').map_or(self.key, |(_, name)| name)
    }
}

/// The sections, in the order of the example file. `types` has rows of its own kind.
pub(super) const SECTIONS: [&str; 6] = ["server", "access", "tls", "log", "data", "types"];

/// 0 in the file is `None` in the configuration.
fn none_if_zero<T: TryFrom<u64>>(number: u64) -> Option<T> {
    if number == 0 {
        return None;
    }
    T::try_from(number).ok()
}

fn none_if_empty(path: &str) -> Option<PathBuf> {
    (!path.is_empty()).then(|| PathBuf::from(path))
}

fn shown(path: Option<&PathBuf>) -> String {
    path.map_or_else(String::new, |path| path.display().to_string())
}

/// A bound that fits memory as a number of the file.
const fn wide(number: usize) -> u64 {
    number as u64
}

/// A number of the file that `Form` has already held against its bound.
fn narrow(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Every key outside `[types]`.
pub const KEYS: &[KeyRow] = &[
    KeyRow {
        key: "server.listen",
        default: "\"127.0.0.1:11211\"",
        form: Form::Listen,
        applies: Applies::AtRestart,
        doc: &[
            "Where to listen. A host name is resolved at the start, to all of its addresses. With",
            "\"tls:\" before it an address speaks TLS, with the certificate of [tls].",
        ],
    },
    KeyRow {
        key: "server.allow_public",
        default: "false",
        form: Form::Flag {
            set: |config, value| config.allow_public = value,
            get: |config| config.allow_public,
        },
        applies: Applies::AtRestart,
        doc: &[
            "Serve whoever reaches an address. Without this, an address that other machines reach",
            "is refused at the start unless clients say who they are: by users in [access], or on",
            "a TLS address by a certificate that client_ca in [tls] asks for.",
        ],
    },
    KeyRow {
        key: "server.unix_mode",
        default: "\"0600\"",
        form: Form::Mode {
            set: |config, value| config.unix_mode = value,
            get: |config| config.unix_mode,
        },
        applies: Applies::AtRestart,
        doc: &["The permission bits of unix sockets: who may connect."],
    },
    KeyRow {
        key: "server.daemon",
        default: "false",
        form: Form::Flag {
            set: |config, value| config.daemon = value,
            get: |config| config.daemon,
        },
        applies: Applies::AtRestart,
        doc: &["Detach from the terminal once the server is ready. Leave it off under systemd."],
    },
    KeyRow {
        key: "server.pid_file",
        default: "\"\"",
        form: Form::Path {
            may_be_empty: true,
            set: |config, value| config.pid_file = none_if_empty(value),
            get: |config| shown(config.pid_file.as_ref()),
        },
        applies: Applies::AtRestart,
        doc: &["Where to write the process id; \"\" writes none."],
    },
    KeyRow {
        key: "server.threads",
        default: "0",
        form: Form::Number {
            min: 0,
            max: wide(limits::THREADS_MAX),
            set: |config, value| config.threads = none_if_zero(value),
            get: |config| wide(config.threads.unwrap_or(0)),
        },
        applies: Applies::AtRestart,
        doc: &["Threads that serve clients; 0 is one per core."],
    },
    KeyRow {
        key: "server.max_clients",
        default: "1024",
        form: Form::Number {
            min: 1,
            max: wide(limits::CLIENTS_MAX),
            set: |config, value| config.max_clients = narrow(value),
            get: |config| wide(config.max_clients),
        },
        applies: Applies::OnHup,
        doc: &["The most clients at one time; -n on the command line overrides it."],
    },
    KeyRow {
        key: "server.idle_timeout",
        default: "0",
        form: Form::Number {
            min: 0,
            max: wide(limits::IDLE_TIMEOUT_MAX_S),
            set: |config, value| {
                config.idle_timeout = none_if_zero(value).map(Duration::from_secs);
            },
            get: |config| config.idle_timeout.map_or(0, |timeout| timeout.as_secs()),
        },
        applies: Applies::OnHup,
        doc: &[
            "Close a connection that was silent for this many seconds; 0 is never. A request of",
            "which less than 16 KiB has come must be whole in this time, and in a minute at most.",
        ],
    },
    KeyRow {
        key: "server.max_value",
        default: "\"1m\"",
        form: Form::Bytes {
            min: 1,
            max: wide(limits::VALUE_BYTES_MAX),
            set: |config, value| config.max_value = narrow(value),
            get: |config| wide(config.max_value),
        },
        applies: Applies::OnHup,
        doc: &["The largest value, and the largest body of one request."],
    },
    KeyRow {
        key: "server.memory_limit",
        default: "0",
        form: Form::Bytes {
            min: 0,
            max: limits::MEMORY_LIMIT_MAX,
            set: |config, value| config.memory_limit = none_if_zero(value),
            get: |config| config.memory_limit.unwrap_or(0),
        },
        applies: Applies::OnHup,
        doc: &[
            "The most memory for data; 0 is no limit. What would take more is refused, unless",
            "types with when_full = \"evict\" (or named keys) can make room. Entries and their",
            "tables count, with what they make the process grow by to within 5 % and 2 MiB.",
        ],
    },
    KeyRow {
        key: "server.client_memory",
        default: "\"64m\"",
        form: Form::Bytes {
            min: 4 << 20,
            max: limits::MEMORY_LIMIT_MAX,
            set: |config, value| config.client_memory = value,
            get: |config| config.client_memory,
        },
        applies: Applies::AtRestart,
        doc: &[
            "The most memory for requests that are arriving and replies that are not read yet, of",
            "all clients together, beside 16 KiB for each. What a retrieval has found is a part of",
            "its reply. Large requests and retrievals of many keys wait for their share; after a",
            "minute they are refused. While replies take all of theirs, a client that reads less",
            "than 8 KiB a second is closed.",
        ],
    },
    KeyRow {
        key: "server.named_keys",
        default: "\"data\"",
        form: Form::Choice {
            names: &["data", "reject"],
            set: |config, value| config.key_rules.named_keys = value == "data",
            get: |config| {
                if config.key_rules.named_keys {
                    "data"
                } else {
                    "reject"
                }
            },
        },
        applies: Applies::OnHup,
        doc: &["Keys that are not number.number: served as memcached does, or refused."],
    },
    KeyRow {
        key: "server.named_keys_durable",
        default: "true",
        form: Form::Flag {
            set: |config, durable| config.keep_named(|keep| keep.durable = durable),
            get: |config| config.types.named().durable,
        },
        applies: Applies::OnHup,
        doc: &[
            "Named keys survive a restart; otherwise they are in memory only, in no file. What",
            "is there when this becomes false stays until the server stops.",
        ],
    },
    KeyRow {
        key: "server.named_keys_when_full",
        default: "\"reject\"",
        form: Form::Choice {
            names: WhenFull::NAMES,
            set: |config, name| {
                config.keep_named(|keep| {
                    keep.when_full = WhenFull::from_name(name).unwrap_or(keep.when_full);
                });
            },
            get: |config| config.types.named().when_full.name(),
        },
        applies: Applies::OnHup,
        doc: &[
            "What becomes of named keys at memory_limit: they stay, or those least likely to be",
            "wanted again make room.",
        ],
    },
    KeyRow {
        key: "server.unknown_prefix",
        default: "\"reject\"",
        form: Form::Choice {
            names: &["reject", "named"],
            set: |config, value| config.key_rules.unknown_prefix_is_named = value == "named",
            get: |config| {
                if config.key_rules.unknown_prefix_is_named {
                    "named"
                } else {
                    "reject"
                }
            },
        },
        applies: Applies::OnHup,
        doc: &["Keys like 2024.11 whose type is not declared: refused, or taken as named keys."],
    },
    KeyRow {
        key: "server.allow_flush_all",
        default: "true",
        form: Form::Flag {
            set: |config, value| config.allow_flush_all = value,
            get: |config| config.allow_flush_all,
        },
        applies: Applies::OnHup,
        doc: &["Serve flush_all, which removes everything."],
    },
    KeyRow {
        key: "server.allow_term",
        default: "true",
        form: Form::Flag {
            set: |config, value| config.allow_term = value,
            get: |config| config.allow_term,
        },
        applies: Applies::OnHup,
        doc: &["Serve term and shutdown, which stop the server gracefully."],
    },
    KeyRow {
        key: "server.term_from",
        default: "\"local\"",
        form: Form::Choice {
            names: TermFrom::NAMES,
            set: |config, value| {
                config.term_from = TermFrom::from_name(value).unwrap_or(config.term_from);
            },
            get: |config| config.term_from.name(),
        },
        applies: Applies::OnHup,
        doc: &["From where term and shutdown are served: loopback and unix sockets, or anywhere."],
    },
    KeyRow {
        key: "access.users",
        default: "\"\"",
        form: Form::Path {
            may_be_empty: true,
            set: |config, value| config.users = none_if_empty(value),
            get: |config| shown(config.users.as_ref()),
        },
        applies: Applies::AtRestart,
        doc: &[
            "The file of users: a line each, as storage_server passwd USER prints it. With it a",
            "client is served only after memcached's login, set KEY 0 0 BYTES with USER PASSWORD",
            "as the value; \"\" serves everybody. A HUP reads the file again.",
        ],
    },
    KeyRow {
        key: "access.login_on_unix",
        default: "true",
        form: Form::Flag {
            set: |config, value| config.login_on_unix = value,
            get: |config| config.login_on_unix,
        },
        applies: Applies::AtRestart,
        doc: &["With users: ask for a login on unix sockets, too, besides their unix_mode."],
    },
    KeyRow {
        key: "tls.cert",
        default: "\"\"",
        form: Form::Path {
            may_be_empty: true,
            set: |config, value| config.tls_cert = none_if_empty(value),
            get: |config| shown(config.tls_cert.as_ref()),
        },
        applies: Applies::OnHup,
        doc: &[
            "The certificate of TLS addresses and its chain, in PEM. A HUP reads it again; should",
            "that fail, the old one stays.",
        ],
    },
    KeyRow {
        key: "tls.key",
        default: "\"\"",
        form: Form::Path {
            may_be_empty: true,
            set: |config, value| config.tls_key = none_if_empty(value),
            get: |config| shown(config.tls_key.as_ref()),
        },
        applies: Applies::OnHup,
        doc: &["Its private key, in PEM; a file that others may read is refused."],
    },
    KeyRow {
        key: "tls.client_ca",
        default: "\"\"",
        form: Form::Path {
            may_be_empty: true,
            set: |config, value| config.tls_client_ca = none_if_empty(value),
            get: |config| shown(config.tls_client_ca.as_ref()),
        },
        applies: Applies::AtRestart,
        doc: &[
            "Serve only clients with a certificate that one of these, in PEM, has signed; \"\"",
            "asks for none. A HUP reads the file again.",
        ],
    },
    KeyRow {
        key: "log.file",
        default: "\"\"",
        form: Form::Path {
            may_be_empty: true,
            set: |config, value| config.log_file = none_if_empty(value),
            get: |config| shown(config.log_file.as_ref()),
        },
        applies: Applies::OnHup,
        doc: &["The log file; \"\" is standard error. A HUP reopens it."],
    },
    KeyRow {
        key: "log.level",
        default: "\"info\"",
        form: Form::Choice {
            names: LogLevel::NAMES,
            set: |config, value| {
                config.log_level = LogLevel::from_name(value).unwrap_or(config.log_level);
            },
            get: |config| config.log_level.name(),
        },
        applies: Applies::OnHup,
        doc: &["The least important lines that are logged."],
    },
    KeyRow {
        key: "data.dir",
        default: "\"data\"",
        form: Form::Path {
            may_be_empty: false,
            set: |config, value| config.data_dir = PathBuf::from(value),
            get: |config| shown(Some(&config.data_dir)),
        },
        applies: Applies::AtRestart,
        doc: &["The directory of the data files, created if it is missing. One server at a time."],
    },
    KeyRow {
        key: "data.fsync",
        default: "\"everysec\"",
        form: Form::Choice {
            names: Fsync::NAMES,
            set: |config, value| config.fsync = Fsync::from_name(value).unwrap_or(config.fsync),
            get: |config| config.fsync.name(),
        },
        applies: Applies::AtRestart,
        doc: &[
            "When data is forced to the disk: before each reply, once a second, or when the",
            "system chooses. A killed server loses nothing; this is about power loss. With",
            "everysec at most one second of acknowledged writes is at stake.",
        ],
    },
    KeyRow {
        key: "data.cache_memory",
        default: "\"64m\"",
        form: Form::Bytes {
            min: 0,
            max: limits::MEMORY_LIMIT_MAX,
            set: |config, value| config.cache_memory = value,
            get: |config| config.cache_memory,
        },
        applies: Applies::AtRestart,
        doc: &[
            "The most memory, beside memory_limit, for values of types with keep_in_memory that",
            "were read from the data files: what is read often stays.",
        ],
    },
    KeyRow {
        key: "data.compact_min",
        default: "\"256m\"",
        form: Form::Bytes {
            min: 1 << 20,
            max: limits::COMPACT_MIN_MAX,
            set: |config, value| config.compact_min = value,
            get: |config| config.compact_min,
        },
        applies: Applies::OnHup,
        doc: &[
            "Write a snapshot, in the background, after at least this many bytes of journal: more",
            "is a slower restart.",
        ],
    },
    KeyRow {
        key: "data.compact_ratio",
        default: "1",
        form: Form::Number {
            min: 1,
            max: limits::COMPACT_RATIO_MAX,
            set: |config, value| config.compact_ratio = value,
            get: |config| config.compact_ratio,
        },
        applies: Applies::OnHup,
        doc: &[
            "And not before the journal is this many times as large as the last snapshot: more",
            "writes less and keeps more.",
        ],
    },
    KeyRow {
        key: "data.snapshot_rate",
        default: "\"64m\"",
        form: Form::Bytes {
            min: 0,
            max: limits::SNAPSHOT_RATE_MAX,
            set: |config, value| config.snapshot_rate = value,
            get: |config| config.snapshot_rate,
        },
        applies: Applies::OnHup,
        doc: &[
            "The most bytes a second that a snapshot is written with and then read back with, so",
            "that the journal beside it does not wait; 0 is as fast as the disk takes them.",
        ],
    },
];
