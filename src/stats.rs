//! Figures: what is counted, and the counters. Under which name `stats` shows one is said there.
//!
//! Invariant: a [`Tally`] has one writer, its worker, so that counting costs a load and a store;
//! anyone may read it.

mod classes;
mod prefixes;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use classes::Classes;
pub use classes::Counts;
pub use prefixes::{Prefixes, Uses};

use crate::limits::RATE_SECONDS;

/// Makes the enum of what is counted and the list of all of it.
macro_rules! metrics {
    ($(#[$enum_doc:meta])* $name:ident: $($(#[$doc:meta])* $metric:ident,)*) => {
        $(#[$enum_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$doc])* $metric,)*
        }

        impl $name {
            /// Every metric.
            pub const ALL: &'static [Self] = &[$(Self::$metric,)*];
        }
    };
}

metrics! {
    /// Something that is counted for each class, a type or the named keys, as in memcached for
    /// each slab class. The general figure is the sum.
    PerClass:
    /// Keys found.
    GetHits,
    /// Storage commands; of `mset` each item.
    CmdSet,
    /// `delete` of what was there.
    DeleteHits,
    /// `incr` that counted.
    IncrHits,
    /// `decr` that counted.
    DecrHits,
    /// `cas` that stored.
    CasHits,
    /// `cas` of what had changed.
    CasBadval,
    /// `touch` and `gat` of what was there.
    TouchHits,
    /// Writes refused at the memory limit.
    OutOfMemory,
}

metrics! {
    /// Something that is counted.
    Metric:
    /// Keys asked for.
    CmdGet,
    /// `flush_all`.
    CmdFlush,
    /// `touch`, and keys of `gat`.
    CmdTouch,
    /// `me`.
    CmdMeta,
    /// Keys not found.
    GetMisses,
    /// Those of them that were there and had expired.
    GetExpired,
    /// `delete` of what was not there.
    DeleteMisses,
    /// `incr` of what was not there.
    IncrMisses,
    /// `decr` of what was not there.
    DecrMisses,
    /// `cas` of what was not there.
    CasMisses,
    /// `touch` and `gat` of what was not there.
    TouchMisses,
    /// Values over `max_value`.
    StoreTooLarge,
    /// Logins.
    AuthCmds,
    /// Logins that were refused.
    AuthErrors,
    /// Connections closed because they were silent for too long.
    IdleKicks,
    /// Bytes from clients.
    BytesRead,
    /// Bytes to clients.
    BytesWritten,
    /// Times that a client's other requests had to wait until it read its replies.
    ConnYields,
    /// Entries stored.
    TotalItems,
    /// Requests of every kind.
    Requests,
    /// `incr` and `decr` of an INDEX.
    FanOuts,
    /// Counters that fan-outs changed.
    FanOutCounters,
    /// `ERROR`: unknown commands.
    ErrorsUnknown,
    /// `CLIENT_ERROR`: requests that cannot be carried out as they are.
    ErrorsClient,
    /// `SERVER_ERROR`: requests that could not be carried out then.
    ErrorsServer,
    /// Errors that a `noreply` kept from the client.
    NoreplyErrors,
    /// Connections closed because another protocol was spoken.
    ErrorsForeign,
    /// Values that had to be read from their files.
    ColdReads,
    /// Values that could not be read from their files.
    ColdReadErrors,
    /// The time from reading requests to sending their replies, summed over requests, in ns.
    ServiceNs,
}

/// One worker's counters.
#[derive(Debug)]
pub struct Tally {
    all: [AtomicU64; Metric::ALL.len()],
    classes: Classes,
    prefixes: Prefixes,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            all: std::array::from_fn(|_| AtomicU64::new(0)),
            classes: Classes::default(),
            prefixes: Prefixes::default(),
        }
    }
}

impl Tally {
    /// Counts. Only the tally's own worker may.
    pub fn add(&self, metric: Metric, count: u64) {
        if let Some(cell) = self.all.get(metric as usize) {
            cell.store(cell.load(Relaxed).wrapping_add(count), Relaxed);
        }
    }

    /// Counts one of a class. Only the tally's own worker may.
    pub fn add_in(&self, class: u32, metric: PerClass) {
        self.add_all_in(class, metric, 1);
    }

    /// Counts several of a class. Only the tally's own worker may.
    pub fn add_all_in(&self, class: u32, metric: PerClass, count: u64) {
        self.classes.add(class, metric, count);
    }

    /// What has been counted.
    pub fn get(&self, metric: Metric) -> u64 {
        self.all
            .get(metric as usize)
            .map_or(0, |cell| cell.load(Relaxed))
    }

    /// What is counted by the first part of keys.
    pub fn prefixes(&self) -> &Prefixes {
        &self.prefixes
    }

    /// What has been counted of each class of which something was.
    pub fn classes(&self) -> impl Iterator<Item = (u32, Counts)> {
        self.classes.counts()
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
    fn metrics_count_apart() {
        let tally = Tally::default();
        tally.add(Metric::CmdGet, 2);
        tally.add(Metric::CmdGet, 3);
        assert_eq!(
            (tally.get(Metric::CmdGet), tally.get(Metric::GetMisses)),
            (5, 0)
        );
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
