//! `stats`: memcached's general list under memcached's names, because clients and exporters
//! parse it, then ours. The type's number serves as the "slab class", so that every monitor shows
//! panels by type.

mod classes;
mod settings;

use std::sync::atomic::Ordering::Relaxed;

use super::process::{self, Cpu};
use super::shared::{Listening, Shared};
use crate::config::Config;
use crate::protocol::memcached::encode::{end, stat, write_line};
use crate::protocol::memcached::error::Complaint;
use crate::protocol::memcached::words::Words;
use crate::stats::{Counts, Metric, PerClass, Rates};
use crate::store::sizes::Sizes;

/// Writes the answer to `stats <topic> <rest>`.
pub fn stats(
    shared: &Shared,
    topic: &[u8],
    rest: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Complaint> {
    match topic {
        b"" => general(shared, out),
        b"settings" => settings::settings(shared, out),
        b"items" => classes::items(shared, out),
        b"slabs" => classes::slabs(shared, out),
        b"sizes" => stat("sizes_status", "disabled", out),
        b"sizes_enable" | b"sizes_disable" => {
            sizes_switch(topic, out);
            return Ok(());
        }
        b"conns" => conns(shared, out),
        b"types" => types(shared, out),
        b"reset" => {
            shared.reset_counters();
            out.extend_from_slice(b"RESET\r\n");
            return Ok(());
        }
        b"detail" => return detail(shared, rest, out),
        _ => return Err(Complaint::Unknown),
    }
    end(out);
    Ok(())
}

/// Sizes are not counted, and cannot be: as memcached says it where it cannot. It writes no `END`.
fn sizes_switch(topic: &[u8], out: &mut Vec<u8>) {
    if topic == b"sizes_enable" {
        stat("sizes_status", "error", out);
        stat("sizes_error", "cas_support_disabled", out);
    } else {
        stat("sizes_status", "disabled", out);
    }
}

/// `stats detail`: figures by the first part of keys.
fn detail(shared: &Shared, rest: &[u8], out: &mut Vec<u8>) -> Result<(), Complaint> {
    match Words::new(rest).next() {
        Some(word @ (b"on" | b"off")) => {
            shared.set_detail(word == b"on");
            out.extend_from_slice(b"OK\r\n");
        }
        Some(b"dump") => {
            for (prefix, uses) in shared.prefixes() {
                out.extend_from_slice(b"PREFIX ");
                out.extend_from_slice(&prefix);
                let (gets, hits, sets, deletes) = (uses.gets, uses.hits, uses.sets, uses.deletes);
                let figures = format_args!(" get {gets} hit {hits} set {sets} del {deletes}");
                write_line(figures, out);
            }
            end(out);
        }
        Some(_) | None => {
            return Err(Complaint::Malformed("usage: stats detail on|off|dump"));
        }
    }
    Ok(())
}

/// What the rows of [`GENERAL`] and [`OURS`] are made from: read once for an answer.
struct Figures<'s> {
    shared: &'s Shared,
    config: std::sync::Arc<Config>,
    cpu: Cpu,
    all: Sizes,
    classes: Counts,
    journal: crate::journal::Stats,
    rates: Rates,
}

/// A figure of `stats`, and how it is found.
enum Source {
    Counter(Metric),
    /// The sum of all classes.
    Classes(PerClass),
    Number(fn(&Figures<'_>) -> u64),
    Text(fn(&Figures<'_>) -> String),
    /// A name of memcached's for what this server does not have: no slabs, no crawler and no
    /// threads behind its lists, no logs for clients, no buffers of a fixed number. What is flushed
    /// is gone at once, so nobody finds it. Monitors want to see the names all the same.
    Nothing,
}

use Source::{Classes, Counter, Nothing, Number, Text};

/// memcached's general list, in its order.
const GENERAL: &[(&str, Source)] = &[
    ("pid", Number(|_| std::process::id().into())),
    ("uptime", Number(|of| of.shared.uptime_s())),
    (
        "time",
        Number(|of| of.shared.engine().clock().latest().seconds()),
    ),
    ("version", Text(|_| env!("CARGO_PKG_VERSION").to_owned())),
    ("libevent", Text(|_| "none".to_owned())),
    ("pointer_size", Number(|_| usize::BITS.into())),
    ("rusage_user", Text(|of| format!("{:.6}", of.cpu.user))),
    ("rusage_system", Text(|of| format!("{:.6}", of.cpu.system))),
    ("max_connections", Number(|of| of.config.max_clients as u64)),
    ("curr_connections", Number(connected)),
    (
        "total_connections",
        Number(|of| of.shared.clients().total.load(Relaxed)),
    ),
    (
        "rejected_connections",
        Number(|of| of.shared.clients().rejected.load(Relaxed)),
    ),
    ("connection_structures", Number(connected)),
    ("response_obj_oom", Nothing),
    ("response_obj_count", Nothing),
    ("response_obj_bytes", Nothing),
    ("read_buf_count", Nothing),
    ("read_buf_bytes", Nothing),
    ("read_buf_bytes_free", Nothing),
    ("read_buf_oom", Nothing),
    ("reserved_fds", Nothing),
    ("cmd_get", Counter(Metric::CmdGet)),
    ("cmd_set", Classes(PerClass::CmdSet)),
    ("cmd_flush", Counter(Metric::CmdFlush)),
    ("cmd_touch", Counter(Metric::CmdTouch)),
    ("cmd_meta", Counter(Metric::CmdMeta)),
    ("get_hits", Classes(PerClass::GetHits)),
    ("get_misses", Counter(Metric::GetMisses)),
    ("get_expired", Counter(Metric::GetExpired)),
    ("get_flushed", Nothing),
    ("delete_misses", Counter(Metric::DeleteMisses)),
    ("delete_hits", Classes(PerClass::DeleteHits)),
    ("incr_misses", Counter(Metric::IncrMisses)),
    ("incr_hits", Classes(PerClass::IncrHits)),
    ("decr_misses", Counter(Metric::DecrMisses)),
    ("decr_hits", Classes(PerClass::DecrHits)),
    ("cas_misses", Counter(Metric::CasMisses)),
    ("cas_hits", Classes(PerClass::CasHits)),
    ("cas_badval", Classes(PerClass::CasBadval)),
    ("touch_hits", Classes(PerClass::TouchHits)),
    ("touch_misses", Counter(Metric::TouchMisses)),
    ("store_too_large", Counter(Metric::StoreTooLarge)),
    ("store_no_memory", Classes(PerClass::OutOfMemory)),
    ("auth_cmds", Counter(Metric::AuthCmds)),
    ("auth_errors", Counter(Metric::AuthErrors)),
    ("idle_kicks", Counter(Metric::IdleKicks)),
    ("bytes_read", Counter(Metric::BytesRead)),
    ("bytes_written", Counter(Metric::BytesWritten)),
    ("limit_maxbytes", Number(limit_bytes)),
    (
        "accepting_conns",
        Number(|of| (of.shared.clients().pausing.load(Relaxed) == 0).into()),
    ),
    (
        "listen_disabled_num",
        Number(|of| of.shared.clients().pauses.load(Relaxed)),
    ),
    (
        "time_in_listen_disabled_us",
        Number(|of| of.shared.clients().paused_us.load(Relaxed)),
    ),
    ("threads", Number(|of| of.shared.tallies().len() as u64)),
    ("conn_yields", Counter(Metric::ConnYields)),
    ("hash_power_level", Nothing),
    ("hash_bytes", Nothing),
    ("hash_is_expanding", Nothing),
    ("slab_reassign_rescues", Nothing),
    ("slab_reassign_chunk_rescues", Nothing),
    ("slab_reassign_evictions_nomem", Nothing),
    ("slab_reassign_inline_reclaim", Nothing),
    ("slab_reassign_busy_items", Nothing),
    ("slab_reassign_busy_deletes", Nothing),
    ("slab_reassign_running", Nothing),
    ("slabs_moved", Nothing),
    ("lru_crawler_running", Nothing),
    ("lru_crawler_starts", Nothing),
    ("lru_maintainer_juggles", Nothing),
    ("malloc_fails", Nothing),
    ("log_worker_dropped", Nothing),
    ("log_worker_written", Nothing),
    ("log_watcher_skipped", Nothing),
    ("log_watcher_sent", Nothing),
    ("log_watchers", Nothing),
    ("unexpected_napi_ids", Nothing),
    ("round_robin_fallback", Nothing),
    ("bytes", Number(|of| of.all.bytes as u64)),
    ("curr_items", Number(|of| of.all.entries as u64)),
    ("total_items", Counter(Metric::TotalItems)),
    ("slab_global_page_pool", Nothing),
    (
        "expired_unfetched",
        Number(|of| of.all.gone.expired_unfetched),
    ),
    (
        "evicted_unfetched",
        Number(|of| of.all.gone.evicted_unfetched),
    ),
    ("evicted_active", Number(|of| of.all.gone.evicted_active)),
    ("evictions", Number(|of| of.all.gone.evicted)),
    ("reclaimed", Number(|of| of.all.gone.reclaimed)),
    ("crawler_reclaimed", Nothing),
    ("crawler_items_checked", Nothing),
    ("lrutail_reflocked", Nothing),
    ("moves_to_cold", Nothing),
    ("moves_to_warm", Nothing),
    ("moves_within_lru", Nothing),
    ("direct_reclaims", Nothing),
    ("lru_bumps_dropped", Nothing),
];

/// Our own figures.
const OURS: &[(&str, Source)] = &[
    // The original daemon's spelling, which its scripts look for.
    ("connectionss", Number(connected)),
    ("requests", Counter(Metric::Requests)),
    ("requests_per_second", Number(|of| of.rates.now())),
    ("requests_per_second_5m", Number(|of| of.rates.averaged())),
    ("service_time_mean_us", Text(mean_service_time)),
    ("fan_outs", Counter(Metric::FanOuts)),
    ("fan_out_counters", Counter(Metric::FanOutCounters)),
    ("errors_unknown", Counter(Metric::ErrorsUnknown)),
    ("errors_client", Counter(Metric::ErrorsClient)),
    ("errors_server", Counter(Metric::ErrorsServer)),
    ("errors_foreign_protocol", Counter(Metric::ErrorsForeign)),
    ("noreply_errors", Counter(Metric::NoreplyErrors)),
    (
        "client_input_bytes",
        Number(|of| of.shared.buffers().input_bytes() as u64),
    ),
    (
        "client_output_bytes",
        Number(|of| of.shared.buffers().output_bytes() as u64),
    ),
    ("values_away", Number(|of| of.all.away.values as u64)),
    ("bytes_away", Number(|of| of.all.away.bytes)),
    ("cache_bytes", Number(|of| of.shared.engine().hot_bytes())),
    ("cold_reads", Counter(Metric::ColdReads)),
    ("cold_read_errors", Counter(Metric::ColdReadErrors)),
    ("journal_bytes", Number(|of| of.journal.journal_bytes)),
    ("journal_segments", Number(|of| of.journal.segments)),
    ("journal_generation", Number(|of| of.journal.generation)),
    ("journal_seq_appended", Number(|of| of.journal.appended)),
    ("journal_seq_written", Number(|of| of.journal.written)),
    ("journal_seq_synced", Number(|of| of.journal.synced)),
    ("journal_syncs", Number(|of| of.journal.syncs)),
    ("journal_errors", Number(|of| of.journal.errors)),
    (
        "journal_failed",
        Number(|of| of.journal.failed.is_some().into()),
    ),
    (
        "journal_records_since_snapshot",
        Number(|of| of.journal.records_since_snapshot),
    ),
    (
        "journal_bytes_since_snapshot",
        Number(|of| of.journal.bytes_since_snapshot),
    ),
    (
        "lock_hold_max_us",
        Number(|of| of.shared.engine().store().holds().max_us()),
    ),
    (
        "journal_lock_hold_max_us",
        Number(|of| of.shared.engine().journal().holds().max_us()),
    ),
    (
        "lock_wait_us",
        Number(|of| {
            let engine = of.shared.engine();
            engine.store().waits().us() + engine.journal().waits().us()
        }),
    ),
    (
        "snapshot_running",
        Number(|of| of.journal.snapshot_running.into()),
    ),
    ("snapshot_number", Number(|of| of.journal.snapshot)),
    ("snapshot_bytes", Number(|of| of.journal.snapshot_bytes)),
    (
        "snapshot_time",
        Number(|of| of.journal.snapshot_time.seconds()),
    ),
];

fn general(shared: &Shared, out: &mut Vec<u8>) {
    let (types, mut all) = shared.engine().store().sizes();
    for (_, sizes) in types {
        all += sizes;
    }
    let mut classes = Counts::default();
    for counts in shared.counted_in_classes().into_values() {
        classes += counts;
    }
    let figures = Figures {
        shared,
        classes,
        config: shared.config(),
        cpu: process::cpu_seconds(),
        all,
        journal: shared.engine().journal().stats(),
        rates: shared.rates().lock().clone(),
    };
    for (name, source) in GENERAL.iter().chain(OURS) {
        match source {
            Counter(metric) => stat(name, shared.counted(*metric), out),
            Classes(metric) => stat(name, figures.classes.get(*metric), out),
            Number(find) => stat(name, find(&figures), out),
            Text(find) => stat(name, find(&figures), out),
            Nothing => stat(name, 0, out),
        }
    }
}

fn connected(of: &Figures<'_>) -> u64 {
    of.shared.clients().current.load(Relaxed) as u64
}

/// Monitors subtract `bytes` from this or divide by it: it is never 0 and never less.
fn limit_bytes(of: &Figures<'_>) -> u64 {
    let limit = of.config.memory_limit.unwrap_or_else(process::memory_bytes);
    limit.max(of.all.bytes as u64 + 1)
}

fn mean_service_time(of: &Figures<'_>) -> String {
    let requests = of.shared.counted(Metric::Requests).max(1);
    let service_us = of.shared.counted(Metric::ServiceNs) as f64 / 1000.0;
    format!("{:.3}", service_us / requests as f64)
}

fn conns(shared: &Shared, out: &mut Vec<u8>) {
    let uptime = shared.uptime_s();
    for Listening { fd, name } in shared.clients().listening.get().into_iter().flatten() {
        stat(&format!("{fd}:addr"), with_scheme(name), out);
        stat(&format!("{fd}:state"), "conn_listening", out);
        stat(&format!("{fd}:secs_since_last_cmd"), uptime, out);
    }
    for client in &shared.clients().connected {
        let (fd, silent) = (client.fd, client.silent_s(uptime));
        stat(&format!("{fd}:addr"), &client.peer, out);
        stat(
            &format!("{fd}:listen_addr"),
            with_scheme(&client.listener),
            out,
        );
        stat(&format!("{fd}:state"), client.phase().name(), out);
        stat(&format!("{fd}:secs_since_last_cmd"), silent, out);
    }
}

/// The address of a listener as memcached shows it.
fn with_scheme(name: &str) -> String {
    if name.starts_with("unix:") || name.starts_with("tls:") {
        name.to_owned()
    } else {
        format!("tcp:{name}")
    }
}

fn types(shared: &Shared, out: &mut Vec<u8>) {
    let (sizes, named) = shared.engine().store().sizes();
    let table = shared.engine().store().types();
    let mut line = |name: &str, kind: &str, sizes: Sizes| {
        write_line(format_args!("STAT {name}:kind {kind}"), out);
        write_line(format_args!("STAT {name}:entries {}", sizes.entries), out);
        write_line(format_args!("STAT {name}:bytes {}", sizes.bytes), out);
        let away = sizes.away.bytes;
        write_line(format_args!("STAT {name}:bytes_away {away}"), out);
    };
    line("named", "DATA", named);
    for (prefix, sizes) in sizes {
        let kind = table.get(prefix).map_or("", |row| row.kind.name());
        line(&prefix.to_string(), kind, sizes);
    }
}
