//! What a load has found, as a table to read or as JSON.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::super::ToolError;
use super::tally::{Figures, Tally};
use super::workload::Kind;

/// All that there is to say.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// What was loaded, and how.
    pub(super) load: LoadLines,
    seconds: f64,
    requests_per_second: f64,
    values: u64,
    total: Line,
    kinds: Vec<Line>,
    rate: Option<RateLines>,
    /// Only with a pid.
    pub(super) process: Option<ProcessLines>,
    lost_connections: u64,
    first_error: Option<String>,
}

/// How the server was loaded.
#[derive(Debug, Serialize)]
pub(super) struct LoadLines {
    /// Its address.
    pub(super) address: String,
    /// As it names itself.
    pub(super) version: String,
    /// In all threads.
    pub(super) connections: u64,
    /// Of the load.
    pub(super) threads: u64,
    /// Requests on their way in each connection.
    pub(super) pipeline: usize,
    /// As it is given.
    pub(super) mix: String,
    /// How many there are.
    pub(super) keys: u64,
    /// Of Zipf's law, if it is not uniform.
    pub(super) zipf: Option<f64>,
    /// Of the values that are set.
    pub(super) value_bytes: Option<usize>,
    /// For the draws.
    pub(super) seed: u64,
}

/// The figures of one kind of request, or of all.
#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    sent: u64,
    replies: u64,
    unanswered: u64,
    misses: u64,
    errors: u64,
    latency_us: Latency,
}

/// Percentiles, in microseconds.
#[derive(Debug, Serialize)]
struct Latency {
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
}

/// How a rate was kept.
#[derive(Debug, Serialize)]
struct RateLines {
    wanted_per_second: f64,
    due: u64,
    sent: u64,
    never_sent: u64,
}

/// The server's process.
#[derive(Debug, Serialize)]
pub(super) struct ProcessLines {
    /// Its number.
    pub(super) pid: u32,
    /// In the time of the load.
    pub(super) cpu_seconds: f64,
    /// For each reply.
    pub(super) cpu_us_per_request: f64,
    /// Resident, before the keys were prepared.
    pub(super) resident_bytes_before: u64,
    /// Resident, before the load.
    pub(super) resident_bytes_prepared: u64,
    /// Resident, after the load.
    pub(super) resident_bytes_after: u64,
}

impl Report {
    /// From what all threads have counted.
    pub(super) fn new(
        load: LoadLines,
        tally: &Tally,
        rate: Option<f64>,
    ) -> Result<Self, ToolError> {
        let total = Line::new("all", &tally.total()?);
        let kinds = Kind::ALL.iter().zip(&tally.kinds);
        let kinds = kinds.filter(|(_, figures)| figures.sent > 0);
        let seconds = tally.elapsed_ns as f64 / 1e9;
        Ok(Self {
            load,
            seconds,
            requests_per_second: if seconds > 0.0 {
                total.replies as f64 / seconds
            } else {
                0.0
            },
            values: tally.values,
            kinds: kinds
                .map(|(kind, figures)| Line::new(kind.name(), figures))
                .collect(),
            rate: rate.map(|wanted_per_second| RateLines {
                wanted_per_second,
                due: total.sent + tally.left_behind,
                sent: total.sent,
                never_sent: tally.left_behind,
            }),
            total,
            process: None,
            lost_connections: tally.lost,
            first_error: tally.first_error.clone(),
        })
    }

    /// Requests that were answered.
    pub(super) fn replies(&self) -> u64 {
        self.total.replies
    }

    /// True if every request got a reply that is no error.
    pub(super) fn is_clean(&self) -> bool {
        self.total.errors == 0 && self.total.unanswered == 0 && self.lost_connections == 0
    }
}

impl Line {
    fn new(name: &'static str, figures: &Figures) -> Self {
        let replies = figures.latency_ns.len();
        Self {
            name,
            sent: figures.sent,
            replies,
            unanswered: figures.sent.saturating_sub(replies),
            misses: figures.misses,
            errors: figures.errors,
            latency_us: Latency::new(&figures.latency_ns),
        }
    }
}

impl Latency {
    fn new(latency_ns: &Histogram<u64>) -> Self {
        let us = |quantile| latency_ns.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            mean: latency_ns.mean() / 1000.0,
            p50: us(0.5),
            p90: us(0.9),
            p99: us(0.99),
            p99_9: us(0.999),
            max: latency_ns.max() as f64 / 1000.0,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", self.load)?;
        writeln!(
            out,
            "{} replies in {:.2} s: {:.0} requests/s, {:.0} values/s\n",
            self.total.replies,
            self.seconds,
            self.requests_per_second,
            self.requests_per_second * self.values as f64 / self.total.replies.max(1) as f64,
        )?;
        writeln!(
            out,
            "{:10}{:>12}{:>10}{:>9}{:>12}  latency in us: {:>8}{:>10}{:>10}{:>10}{:>10}",
            "", "sent", "misses", "errors", "unanswered", "p50", "p90", "p99", "p99.9", "max"
        )?;
        for line in self.kinds.iter().chain([&self.total]) {
            writeln!(out, "{line}")?;
        }
        if let Some(rate) = &self.rate {
            writeln!(
                out,
                "\nrate: {} requests/s wanted: {} were due, {} sent, {} never sent",
                rate.wanted_per_second, rate.due, rate.sent, rate.never_sent
            )?;
        }
        if let Some(process) = &self.process {
            writeln!(out, "\n{process}")?;
        }
        if let Some(error) = &self.first_error {
            let lost = self.lost_connections;
            writeln!(out, "\n{lost} connections lost; the first error: {error}")?;
        }
        Ok(())
    }
}

impl fmt::Display for LoadLines {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, version) = (&self.address, &self.version);
        write!(
            out,
            "{address} ({version}): connections {}, threads {}, pipeline {}, mix {}; {} keys, ",
            self.connections, self.threads, self.pipeline, self.mix, self.keys
        )?;
        match self.zipf {
            Some(skew) => write!(out, "Zipf {skew}"),
            None => write!(out, "uniform"),
        }?;
        match self.value_bytes {
            Some(bytes) => write!(out, "; values of {bytes} bytes"),
            None => write!(out, "; numbers"),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let latency = &self.latency_us;
        write!(
            out,
            "{:10}{:>12}{:>10}{:>9}{:>12}{:>25.1}{:>10.1}{:>10.1}{:>10.1}{:>10.1}",
            self.name,
            self.sent,
            self.misses,
            self.errors,
            self.unanswered,
            latency.p50,
            latency.p90,
            latency.p99,
            latency.p99_9,
            latency.max,
        )
    }
}

impl fmt::Display for ProcessLines {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            out,
            "process {}: {:.3} us of CPU for each request, {:.2} s in all; resident {:.1} MiB \
             before, {:.1} MiB prepared, {:.1} MiB after",
            self.pid,
            self.cpu_us_per_request,
            self.cpu_seconds,
            mib(self.resident_bytes_before),
            mib(self.resident_bytes_prepared),
            mib(self.resident_bytes_after),
        )
    }
}
