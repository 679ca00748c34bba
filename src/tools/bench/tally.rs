//! What was sent and what came of it.
//!
//! Invariant: every request that was sent is answered, with a latency, or unanswered.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::super::ToolError;
use super::replies::Reply;
use super::workload::Kind;

/// A longer latency counts as this one.
const LATENCY_MAX: Duration = Duration::from_hours(1);
/// Latencies are kept to three digits.
const DIGITS: u8 = 3;

/// The figures of one kind of request.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    /// Requests that were sent.
    pub(super) sent: u64,
    /// Keys that were not there.
    pub(super) misses: u64,
    /// Replies that are errors.
    pub(super) errors: u64,
    /// Latencies of the replies, in nanoseconds.
    pub(super) latency_ns: Histogram<u64>,
}

impl Figures {
    /// Nothing yet.
    pub(super) fn new() -> Result<Self, ToolError> {
        let max = u64::try_from(LATENCY_MAX.as_nanos()).unwrap_or(u64::MAX);
        let latency_ns = Histogram::new_with_max(max, DIGITS)
            .map_err(|error| ToolError::Server(format!("cannot keep latencies: {error}")))?;
        Ok(Self {
            sent: 0,
            misses: 0,
            errors: 0,
            latency_ns,
        })
    }

    /// Adds those of another thread or kind.
    pub(super) fn add(&mut self, other: &Self) -> Result<(), ToolError> {
        self.sent += other.sent;
        self.misses += other.misses;
        self.errors += other.errors;
        self.latency_ns
            .add(&other.latency_ns)
            .map_err(|error| ToolError::Server(format!("cannot add latencies: {error}")))
    }
}

/// The figures of a thread, or of all together.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// By kind.
    pub(super) kinds: [Figures; Kind::ALL.len()],
    /// Values that came back.
    pub(super) values: u64,
    /// Requests that were due and never sent.
    pub(super) left_behind: u64,
    /// Connections that ended before their time, and why the first did.
    pub(super) lost: u64,
    /// The first error of the server or of a connection.
    pub(super) first_error: Option<String>,
    /// From the start to the last reply, in nanoseconds.
    pub(super) elapsed_ns: u64,
}

impl Tally {
    /// Nothing yet.
    pub(super) fn new() -> Result<Self, ToolError> {
        let none = Figures::new()?;
        Ok(Self {
            kinds: Kind::ALL.map(|_| none.clone()),
            values: 0,
            left_behind: 0,
            lost: 0,
            first_error: None,
            elapsed_ns: 0,
        })
    }

    fn of(&mut self, kind: Kind) -> Option<&mut Figures> {
        self.kinds.get_mut(kind as usize)
    }

    /// A request is on its way.
    pub(super) fn sent(&mut self, kind: Kind) {
        if let Some(figures) = self.of(kind) {
            figures.sent += 1;
        }
    }

    /// A reply is there to a request that asked for so many values and counts from `since_ns`.
    pub(super) fn replied(
        &mut self,
        (kind, asked, since_ns): (Kind, u64, u64),
        reply: &Reply<'_>,
        now_ns: u64,
    ) {
        self.elapsed_ns = self.elapsed_ns.max(now_ns);
        if let Reply::Done { values } = reply {
            self.values += values;
        }
        if let Reply::Error(line) = reply
            && self.first_error.is_none()
        {
            self.first_error = Some(String::from_utf8_lossy(line).into_owned());
        }
        let Some(figures) = self.of(kind) else { return };
        figures
            .latency_ns
            .saturating_record(now_ns.saturating_sub(since_ns));
        match reply {
            Reply::Done { values } => figures.misses += asked.saturating_sub(*values),
            Reply::Missing => figures.misses += 1,
            Reply::Error(_) => figures.errors += 1,
        }
    }

    /// A connection ended before its time.
    pub(super) fn lost(&mut self, why: String) {
        self.lost += 1;
        self.first_error.get_or_insert(why);
    }

    /// Adds those of another thread.
    pub(super) fn add(&mut self, other: &Self) -> Result<(), ToolError> {
        for (own, other) in self.kinds.iter_mut().zip(&other.kinds) {
            own.add(other)?;
        }
        self.values += other.values;
        self.left_behind += other.left_behind;
        self.lost += other.lost;
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
        self.elapsed_ns = self.elapsed_ns.max(other.elapsed_ns);
        Ok(())
    }

    /// All kinds together.
    pub(super) fn total(&self) -> Result<Figures, ToolError> {
        let mut total = Figures::new()?;
        for kind in &self.kinds {
            total.add(kind)?;
        }
        Ok(total)
    }
}
