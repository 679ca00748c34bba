//! Figures: what is counted, under which name `stats` shows it, and the counters themselves.
//!
//! Invariant: a [`Tally`] has one writer, its worker, so that counting costs a load and a store;
//! anyone may read it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::limits::RATE_SECONDS;

/// Makes the enum of what is counted and the table of names from one list.
macro_rules! metrics {
    ($($(#[$doc:meta])* $metric:ident = $name:literal,)*) => {
        /// Something that is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Metric {
            $($(#[$doc])* $metric,)*
        }

        impl Metric {
            /// Every metric, in the order of `stats`.
            pub const ALL: &'static [Self] = &[$(Self::$metric,)*];

            /// The name in `stats`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$metric => $name,)* }
            }
        }
    };
}

metrics! {
    /// Keys asked for.
    CmdGet = "cmd_get",
    /// Storage commands; of `mset` each item.
    CmdSet = "cmd_set",
    /// `flush_all`.
    CmdFlush = "cmd_flush",
    /// `touch`, and keys of `gat`.
    CmdTouch = "cmd_touch",
    /// Keys found.
    GetHits = "get_hits",
    /// Keys not found.
    GetMisses = "get_misses",
    /// `delete` of what was not there.
    DeleteMisses = "delete_misses",
    /// `delete` of what was there.
    DeleteHits = "delete_hits",
    /// `incr` of what was not there.
    IncrMisses = "incr_misses",
    /// `incr` that counted.
    IncrHits = "incr_hits",
    /// `decr` of what was not there.
    DecrMisses = "decr_misses",
    /// `decr` that counted.
    DecrHits = "decr_hits",
    /// `cas` of what was not there.
    CasMisses = "cas_misses",
    /// `cas` that stored.
    CasHits = "cas_hits",
    /// `cas` of what had changed.
    CasBadval = "cas_badval",
    /// `touch` and `gat` of what was there.
    TouchHits = "touch_hits",
    /// `touch` and `gat` of what was not there.
    TouchMisses = "touch_misses",
    /// Values over `max_value`.
    StoreTooLarge = "store_too_large",
    /// Writes refused at the memory limit.
    StoreNoMemory = "store_no_memory",
    /// Bytes from clients.
    BytesRead = "bytes_read",
    /// Bytes to clients.
    BytesWritten = "bytes_written",
    /// Times that a client's other requests had to wait until it read its replies.
    ConnYields = "conn_yields",
    /// Entries stored.
    TotalItems = "total_items",
    /// Requests of every kind.
    Requests = "requests",
    /// `incr` and `decr` of an INDEX.
    FanOuts = "fan_outs",
    /// Counters that fan-outs changed.
    FanOutCounters = "fan_out_counters",
    /// `ERROR`: unknown commands.
    ErrorsUnknown = "errors_unknown",
    /// `CLIENT_ERROR`: requests that cannot be carried out as they are.
    ErrorsClient = "errors_client",
    /// `SERVER_ERROR`: requests that could not be carried out then.
    ErrorsServer = "errors_server",
    /// Errors that a `noreply` kept from the client.
    NoreplyErrors = "noreply_errors",
    /// Connections closed because another protocol was spoken.
    ErrorsForeign = "errors_foreign_protocol",
    /// The time from reading requests to sending their replies, summed over requests, in ns.
    ServiceNs = "service_ns",
}

/// One worker's counters.
#[derive(Debug)]
pub struct Tally([AtomicU64; Metric::ALL.len()]);

impl Default for Tally {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Tally {
    /// Counts. Only the tally's own worker may.
    pub fn add(&self, metric: Metric, count: u64) {
        if let Some(cell) = self.0.get(metric as usize) {
            cell.store(cell.load(Relaxed).wrapping_add(count), Relaxed);
        }
    }

    /// What has been counted.
    pub fn get(&self, metric: Metric) -> u64 {
        self.0
            .get(metric as usize)
            .map_or(0, |cell| cell.load(Relaxed))
    }
}

/// How many requests there were at each of the last seconds.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    totals: std::collections::VecDeque<u64>,
}

impl Rates {
    /// Takes down the total at the end of a second.
    pub fn sample(&mut self, total: u64) {
        if self.totals.len() > RATE_SECONDS {
            self.totals.pop_front();
        }
        self.totals.push_back(total);
    }

    /// Requests in the last whole second.
    pub fn now(&self) -> u64 {
        self.over(1)
    }

    /// Requests a second, averaged over the last five minutes, or over the time since the
    /// start if that is shorter.
    pub fn averaged(&self) -> u64 {
        self.over(RATE_SECONDS)
    }

    fn over(&self, seconds: usize) -> u64 {
        let newest = self.totals.back().copied().unwrap_or_default();
        let seconds = seconds.min(self.totals.len().saturating_sub(1));
        let from = self.totals.len().saturating_sub(seconds + 1);
        let oldest = self.totals.get(from).copied().unwrap_or_default();
        newest
            .saturating_sub(oldest)
            .checked_div(seconds as u64)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_count_apart_and_have_names_of_their_own() {
        let tally = Tally::default();
        tally.add(Metric::GetHits, 2);
        tally.add(Metric::GetHits, 3);
        assert_eq!(
            (tally.get(Metric::GetHits), tally.get(Metric::GetMisses)),
            (5, 0)
        );
        for (at, metric) in Metric::ALL.iter().enumerate() {
            assert!(!metric.name().contains(':'), "exporters fail on a colon");
            assert!(
                Metric::ALL[at + 1..]
                    .iter()
                    .all(|other| other.name() != metric.name())
            );
        }
    }

    #[test]
    fn rates_are_of_the_last_second_and_the_last_five_minutes() {
        let mut rates = Rates::default();
        assert_eq!((rates.now(), rates.averaged()), (0, 0));
        for total in [0, 10, 40] {
            rates.sample(total);
        }
        assert_eq!((rates.now(), rates.averaged()), (30, 20));
        for second in 0..1000 {
            rates.sample(40 + second);
        }
        assert_eq!((rates.now(), rates.averaged()), (1, 1));
        assert_eq!(rates.totals.len(), RATE_SECONDS + 1);
    }
}
