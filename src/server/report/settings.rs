//! `stats settings`: memcached's names in its order, then ours. Each line has a value, of one word:
//! an exporter stops at one that has none.

use std::path::Path;

use super::super::process;
use super::super::shared::Shared;
use crate::config::{Config, ListenAddr};
use crate::protocol::memcached::encode::{stat, yes_or_no};

/// Where a setting is found.
enum Source {
    /// In the configuration.
    Number(fn(&Config) -> u64),
    /// In the configuration.
    Text(fn(&Config) -> String),
    /// In the configuration: `yes` or `no`.
    Switch(fn(&Config) -> bool),
    /// In the server.
    Live(fn(&Shared) -> String),
    /// It cannot be set. What is nothing here is as memcached has it if nothing is said.
    Fixed(&'static str),
}

use Source::{Fixed, Live, Number, Switch, Text};

/// memcached's settings.
const THEIRS: &[(&str, Source)] = &[
    (
        "maxbytes",
        Number(|config| config.memory_limit.unwrap_or_else(process::memory_bytes)),
    ),
    ("maxconns", Number(|config| config.max_clients as u64)),
    ("tcpport", Live(tcp_port)),
    ("udpport", Fixed("0")),
    ("inter", Text(inter)),
    ("verbosity", Fixed("0")),
    ("oldest", Fixed("0")),
    ("evictions", Text(|config| on_or_off(config.types.evicts()))),
    ("domain_socket", Text(domain_socket)),
    ("umask", Text(|config| format!("{:o}", config.unix_mode))),
    ("shutdown_command", Switch(|config| config.allow_term)),
    ("growth_factor", Fixed("1.25")),
    ("chunk_size", Fixed("48")),
    (
        "num_threads",
        Live(|shared| shared.tallies().len().to_string()),
    ),
    ("num_threads_per_udp", Fixed("0")),
    ("stat_key_prefix", Fixed(":")),
    (
        "detail_enabled",
        Live(|shared| yes_or_no(shared.has_detail()).to_owned()),
    ),
    ("reqs_per_event", Fixed("20")),
    ("cas_enabled", Fixed("yes")),
    ("tcp_backlog", Fixed("1024")),
    ("binding_protocol", Fixed("ascii")),
    ("auth_enabled_sasl", Fixed("no")),
    (
        "auth_enabled_ascii",
        Text(|config| path_or(config.users.as_deref(), "no")),
    ),
    ("item_size_max", Number(|config| config.max_value as u64)),
    ("maxconns_fast", Fixed("yes")),
    ("hashpower_init", Fixed("0")),
    ("slab_reassign", Fixed("no")),
    ("slab_automove", Fixed("0")),
    ("slab_automove_ratio", Fixed("0.80")),
    ("slab_automove_window", Fixed("30")),
    ("slab_chunk_max", Fixed("524288")),
    ("lru_crawler", Fixed("no")),
    ("lru_crawler_sleep", Fixed("100")),
    ("lru_crawler_tocrawl", Fixed("0")),
    ("tail_repair_time", Fixed("0")),
    ("flush_enabled", Switch(|config| config.allow_flush_all)),
    ("dump_enabled", Fixed("yes")),
    ("hash_algorithm", Fixed("foldhash")),
    ("lru_maintainer_thread", Fixed("no")),
    ("lru_segmented", Fixed("no")),
    ("hot_lru_pct", Fixed("20")),
    ("warm_lru_pct", Fixed("40")),
    ("hot_max_factor", Fixed("0.20")),
    ("warm_max_factor", Fixed("2.00")),
    ("temp_lru", Fixed("no")),
    ("temporary_ttl", Fixed("61")),
    (
        "idle_timeout",
        Number(|config| config.idle_timeout.map_or(0, |time| time.as_secs())),
    ),
    ("watcher_logbuf_size", Fixed("262144")),
    ("worker_logbuf_size", Fixed("65536")),
    ("read_buf_mem_limit", Number(|config| config.client_memory)),
    ("track_sizes", Fixed("no")),
    ("inline_ascii_response", Fixed("no")),
    ("ext_item_size", Fixed("512")),
    ("ext_item_age", Fixed("4294967295")),
    ("ext_low_ttl", Fixed("0")),
    ("ext_recache_rate", Fixed("2000")),
    ("ext_wbuf_size", Fixed("4194304")),
    ("ext_compact_under", Fixed("0")),
    ("ext_drop_under", Fixed("0")),
    ("ext_max_sleep", Fixed("1000000")),
    ("ext_max_frag", Fixed("0.80")),
    ("slab_automove_freeratio", Fixed("0.010")),
    ("ext_drop_unread", Fixed("no")),
    (
        "ssl_enabled",
        Switch(|config| config.listen.iter().any(ListenAddr::is_tls)),
    ),
    (
        "ssl_chain_cert",
        Text(|config| path_or(config.tls_cert.as_deref(), "(null)")),
    ),
    (
        "ssl_key",
        Text(|config| path_or(config.tls_key.as_deref(), "(null)")),
    ),
    // Of clients nothing is asked, or a certificate is required.
    (
        "ssl_verify_mode",
        Number(|config| if config.tls_client_ca.is_some() { 3 } else { 0 }),
    ),
    ("ssl_keyformat", Fixed("1")),
    ("ssl_ciphers", Fixed("NULL")),
    (
        "ssl_ca_cert",
        Text(|config| path_or(config.tls_client_ca.as_deref(), "NULL")),
    ),
    ("ssl_wbuf_size", Fixed("16384")),
    ("ssl_session_cache", Fixed("no")),
    ("ssl_kernel_tls", Fixed("no")),
    ("ssl_min_version", Fixed("tlsv1.2")),
    ("num_napi_ids", Fixed("(null)")),
    ("memory_file", Fixed("(null)")),
];

/// Our own.
const OURS: &[(&str, Source)] = &[
    ("fsync", Text(|config| config.fsync.name().to_owned())),
    ("compact_min", Number(|config| config.compact_min)),
    ("compact_ratio", Number(|config| config.compact_ratio)),
    ("snapshot_rate", Number(|config| config.snapshot_rate)),
    ("named_keys", Text(|config| named_keys(config).to_owned())),
];

/// Writes `stats settings`.
pub(super) fn settings(shared: &Shared, out: &mut Vec<u8>) {
    let config = shared.config();
    for (name, source) in THEIRS.iter().chain(OURS) {
        match source {
            Number(find) => stat(name, find(&config), out),
            Text(find) => stat(name, one_word(&find(&config)), out),
            Switch(find) => stat(name, yes_or_no(find(&config)), out),
            Live(find) => stat(name, find(shared), out),
            Fixed(value) => stat(name, value, out),
        }
    }
}

/// A path may have a space in it, which would begin another word.
fn one_word(text: &str) -> String {
    text.replace(char::is_whitespace, "%20")
}

fn on_or_off(is_on: bool) -> String {
    if is_on { "on" } else { "off" }.to_owned()
}

fn named_keys(config: &Config) -> &'static str {
    if config.key_rules.named_keys {
        "data"
    } else {
        "reject"
    }
}

fn path_or(path: Option<&Path>, without: &str) -> String {
    path.map_or_else(|| without.to_owned(), |path| path.display().to_string())
}

fn inter(config: &Config) -> String {
    let listen: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
    listen.join(",")
}

fn domain_socket(config: &Config) -> String {
    let path = config.listen.iter().find_map(|address| match address {
        ListenAddr::Unix(path) => Some(path.as_path()),
        ListenAddr::Tcp { .. } => None,
    });
    path_or(path, "NULL")
}

/// The first TCP port that is listened on; 0 if there is none, as in memcached.
fn tcp_port(shared: &Shared) -> String {
    let mut names = shared.clients().listening.get().into_iter().flatten();
    let port = names.find_map(|listening| match listening.name.strip_prefix("unix:") {
        Some(_) => None,
        None => listening.name.rsplit_once(':'),
    });
    port.map_or("0", |(_, port)| port).to_owned()
}
