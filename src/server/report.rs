//! `stats`: memcached's general list under memcached's names, because clients and exporters
//! parse it, then ours. The type's number serves as the "slab class", so that every monitor shows
//! panels by type.

use std::sync::atomic::Ordering::Relaxed;

use super::shared::Shared;
use crate::protocol::memcached::encode::{stat, write_line};
use crate::stats::Metric;
use crate::store::shard::Sizes;

/// Writes the answer to `stats <topic>`. False if there is no such topic.
pub fn stats(shared: &Shared, topic: &[u8], out: &mut Vec<u8>) -> bool {
    match topic {
        b"" => general(shared, out),
        b"settings" => settings(shared, out),
        b"items" => items(shared, out),
        b"slabs" => slabs(shared, out),
        b"sizes" => stat("sizes_status", "disabled", out),
        b"conns" => conns(shared, out),
        b"types" => types(shared, out),
        b"reset" => {
            shared.reset_counters();
            out.extend_from_slice(b"RESET\r\n");
            return true;
        }
        b"cachedump" => {
            out.extend_from_slice(b"CLIENT_ERROR Illegal slab id\r\n");
            return true;
        }
        _ => return false,
    }
    out.extend_from_slice(b"END\r\n");
    true
}

fn general(shared: &Shared, out: &mut Vec<u8>) {
    process(shared, out);
    connections(shared, out);
    for metric in Metric::ALL {
        stat(metric.name(), shared.counted(*metric), out);
    }
    store(shared, out);
    for name in ALWAYS_ZERO {
        stat(name, 0, out);
    }
    ours(shared, out);
}

fn process(shared: &Shared, out: &mut Vec<u8>) {
    let usage = super::process::cpu_seconds();
    stat("pid", std::process::id(), out);
    stat("uptime", shared.uptime_s(), out);
    stat("time", shared.engine().clock().latest().seconds(), out);
    stat("version", env!("CARGO_PKG_VERSION"), out);
    stat("libevent", "none", out);
    stat("pointer_size", usize::BITS, out);
    stat("rusage_user", format_args!("{:.6}", usage.user), out);
    stat("rusage_system", format_args!("{:.6}", usage.system), out);
}

fn connections(shared: &Shared, out: &mut Vec<u8>) {
    let clients = shared.clients();
    let config = shared.config();
    let current = clients.current.load(Relaxed);
    stat("max_connections", config.max_clients, out);
    stat("curr_connections", current, out);
    // The original daemon's spelling, which its scripts look for.
    stat("connectionss", current, out);
    stat("total_connections", clients.total.load(Relaxed), out);
    stat("rejected_connections", clients.rejected.load(Relaxed), out);
    stat("connection_structures", current, out);
    stat("listen_disabled_num", clients.pauses.load(Relaxed), out);
    stat("accepting_conns", 1, out);
    stat("threads", shared.tallies().len(), out);
}

fn store(shared: &Shared, out: &mut Vec<u8>) {
    let (types, named) = shared.engine().store().sizes();
    let mut all = named;
    for (_, sizes) in types {
        all += sizes;
    }
    stat("bytes", all.bytes, out);
    stat("limit_maxbytes", limit_bytes(shared, all.bytes as u64), out);
    stat("curr_items", all.entries, out);
}

/// Monitors subtract `bytes` from this or divide by it: it is never 0 and never less.
fn limit_bytes(shared: &Shared, used: u64) -> u64 {
    let limit = shared.config().memory_limit;
    limit
        .unwrap_or_else(super::process::memory_bytes)
        .max(used + 1)
}

fn ours(shared: &Shared, out: &mut Vec<u8>) {
    let journal = shared.engine().journal().stats();
    let rates = shared.rates().lock().clone();
    let requests = shared.counted(Metric::Requests);
    let service_ns = shared.counted(Metric::ServiceNs);
    stat("requests_per_second", rates.now(), out);
    stat("requests_per_second_5m", rates.averaged(), out);
    let mean_us = service_ns as f64 / 1000.0 / requests.max(1) as f64;
    stat("service_time_mean_us", format_args!("{mean_us:.3}"), out);
    stat("journal_bytes", journal.journal_bytes, out);
    stat("journal_segments", journal.segments, out);
    stat("journal_generation", journal.generation, out);
    stat("journal_seq_appended", journal.appended, out);
    stat("journal_seq_written", journal.written, out);
    stat("journal_seq_synced", journal.synced, out);
    stat("journal_syncs", journal.syncs, out);
    stat("journal_errors", journal.errors, out);
    stat("journal_failed", u8::from(journal.failed.is_some()), out);
    stat("snapshot_number", journal.snapshot, out);
    stat("snapshot_bytes", journal.snapshot_bytes, out);
    stat("snapshot_time", journal.snapshot_time.seconds(), out);
    stat(
        "records_since_snapshot",
        journal.records_since_snapshot,
        out,
    );
}

/// memcached's names for what this server does not have: no binary or meta protocol, no
/// authentication, no cache eviction, no slabs, no LRU. Monitors want to see them all the same.
const ALWAYS_ZERO: &[&str] = &[
    "response_obj_oom",
    "response_obj_count",
    "response_obj_bytes",
    "read_buf_count",
    "read_buf_bytes",
    "read_buf_bytes_free",
    "read_buf_oom",
    "reserved_fds",
    "cmd_meta",
    "get_expired",
    "get_flushed",
    "auth_cmds",
    "auth_errors",
    "time_in_listen_disabled_us",
    "hash_power_level",
    "hash_bytes",
    "hash_is_expanding",
    "slab_reassign_rescues",
    "slab_reassign_chunk_rescues",
    "slab_reassign_evictions_nomem",
    "slab_reassign_inline_reclaim",
    "slab_reassign_busy_items",
    "slab_reassign_busy_deletes",
    "slab_reassign_running",
    "slabs_moved",
    "lru_crawler_running",
    "lru_crawler_starts",
    "lru_maintainer_juggles",
    "malloc_fails",
    "log_worker_dropped",
    "log_worker_written",
    "log_watcher_skipped",
    "log_watcher_sent",
    "log_watchers",
    "unexpected_napi_ids",
    "round_robin_fallback",
    "slab_global_page_pool",
    "expired_unfetched",
    "evicted_unfetched",
    "evicted_active",
    "evictions",
    "reclaimed",
    "crawler_reclaimed",
    "crawler_items_checked",
    "lrutail_reflocked",
    "moves_to_cold",
    "moves_to_warm",
    "moves_within_lru",
    "direct_reclaims",
    "lru_bumps_dropped",
];

fn settings(shared: &Shared, out: &mut Vec<u8>) {
    let config = shared.config();
    let listen: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
    stat("maxbytes", config.memory_limit.unwrap_or(0), out);
    stat("maxconns", config.max_clients, out);
    stat("inter", listen.join(","), out);
    stat("verbosity", 0, out);
    stat("oldest", 0, out);
    stat("evictions", "off", out);
    stat("num_threads", shared.tallies().len(), out);
    stat("item_size_max", config.max_value, out);
    stat("cas_enabled", "yes", out);
    stat(
        "flush_enabled",
        if config.allow_flush_all { "yes" } else { "no" },
        out,
    );
    stat(
        "idle_timeout",
        config.idle_timeout.map_or(0, |time| time.as_secs()),
        out,
    );
    stat("binding_protocol", "ascii", out);
    stat("auth_enabled_sasl", "no", out);
    stat("lru_crawler", "no", out);
    stat("lru_segmented", "no", out);
    stat("slab_reassign", "no", out);
    stat("fsync", config.fsync.name(), out);
    stat("data_dir", config.data_dir.display(), out);
    stat("snapshot_after", config.snapshot_after, out);
    stat(
        "named_keys",
        if config.key_rules.named_keys {
            "data"
        } else {
            "reject"
        },
        out,
    );
}

/// The entries of each type that has some, the type's number first; 0 are the named keys.
fn classes(shared: &Shared) -> Vec<(u16, Sizes)> {
    let (types, named) = shared.engine().store().sizes();
    let mut classes = vec![(0, named)];
    classes.extend(types);
    classes.retain(|(_, sizes)| sizes.entries > 0);
    classes
}

fn items(shared: &Shared, out: &mut Vec<u8>) {
    for (class, sizes) in classes(shared) {
        stat(&format!("items:{class}:number"), sizes.entries, out);
        stat(&format!("items:{class}:mem_requested"), sizes.bytes, out);
        for name in [
            "number_hot",
            "number_warm",
            "number_cold",
            "age_hot",
            "age_warm",
            "age",
            "evicted",
            "evicted_nonzero",
            "evicted_time",
            "outofmemory",
            "tailrepairs",
            "reclaimed",
            "expired_unfetched",
            "evicted_unfetched",
            "evicted_active",
        ] {
            stat(&format!("items:{class}:{name}"), 0, out);
        }
    }
}

fn slabs(shared: &Shared, out: &mut Vec<u8>) {
    let classes = classes(shared);
    for (class, sizes) in &classes {
        let (entries, bytes) = (sizes.entries, sizes.bytes);
        stat(
            &format!("{class}:chunk_size"),
            bytes.div_ceil(entries.max(1)),
            out,
        );
        stat(&format!("{class}:chunks_per_page"), entries, out);
        stat(&format!("{class}:total_pages"), 1, out);
        stat(&format!("{class}:total_chunks"), entries, out);
        stat(&format!("{class}:used_chunks"), entries, out);
        for name in [
            "free_chunks",
            "get_hits",
            "cmd_set",
            "delete_hits",
            "incr_hits",
            "decr_hits",
            "cas_hits",
            "cas_badval",
            "touch_hits",
        ] {
            stat(&format!("{class}:{name}"), 0, out);
        }
    }
    stat("active_slabs", classes.len(), out);
    stat(
        "total_malloced",
        classes.iter().map(|(_, sizes)| sizes.bytes).sum::<usize>(),
        out,
    );
}

fn conns(shared: &Shared, out: &mut Vec<u8>) {
    let uptime = shared.uptime_s();
    for client in &shared.clients().connected {
        let (fd, silent) = (client.fd, uptime - client.last_heard_s.load(Relaxed));
        stat(&format!("{fd}:addr"), &client.peer.name, out);
        stat(&format!("{fd}:listen_addr"), &client.listener, out);
        stat(&format!("{fd}:state"), "conn_read", out);
        stat(&format!("{fd}:secs_since_last_cmd"), silent, out);
    }
}

fn types(shared: &Shared, out: &mut Vec<u8>) {
    let (sizes, named) = shared.engine().store().sizes();
    let table = shared.engine().store().types();
    let mut line = |name: &str, kind: &str, sizes: Sizes| {
        write_line(format_args!("STAT {name}:kind {kind}"), out);
        write_line(format_args!("STAT {name}:entries {}", sizes.entries), out);
        write_line(format_args!("STAT {name}:bytes {}", sizes.bytes), out);
    };
    line("named", "DATA", named);
    for (prefix, sizes) in sizes {
        let kind = table.get(prefix).map_or("", |row| row.kind.name());
        line(&prefix.to_string(), kind, sizes);
    }
}
