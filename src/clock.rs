//! The only place that reads time; everywhere else `now` is an argument.
//!
//! Invariant: [`Clock::now`] never goes back, whatever the system's clock does: it starts at the
//! wall clock (or at the newest record's time, if that is later) and runs with the monotonic one.

#![expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads time"
)]

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

/// A moment: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// Whole seconds since the Unix epoch.
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// This moment and `ms` milliseconds.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// When an entry ends: never, or at a moment from which on it is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Expiry(Option<NonZeroU64>);

impl Expiry {
    /// The entry stays until it is removed.
    pub const NEVER: Self = Self(None);

    /// The entry is gone from `time` on. The epoch itself is read as 1 ms after it.
    pub fn at(time: Time) -> Self {
        Self(Some(NonZeroU64::new(time.0).unwrap_or(NonZeroU64::MIN)))
    }

    /// The moment, if there is one.
    pub fn time(self) -> Option<Time> {
        self.0.map(|ms| Time(ms.get()))
    }

    /// True if an entry with this expiry is gone at `now`.
    pub fn is_past(self, now: Time) -> bool {
        self.0.is_some_and(|ms| ms.get() <= now.0)
    }
}

/// A point of the monotonic clock, for durations only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(Instant);

impl Tick {
    /// Now.
    pub fn now() -> Self {
        Self(Instant::now())
    }

    /// How long ago this was.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// The time from `earlier` to this point; zero if it is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }
}

/// The process's clock, shared by all threads.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    start_ms: u64,
    /// The latest moment that any thread has read, so that what one thread has seen expire no
    /// other thread finds alive.
    latest_ms: AtomicU64,
}

impl Clock {
    /// A clock that starts at the wall clock or at `newest`, whichever is later.
    pub fn starting_after(newest: Time) -> Self {
        let wall = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let wall_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        let start_ms = wall_ms.max(newest.0);
        Self {
            start: Instant::now(),
            start_ms,
            latest_ms: AtomicU64::new(start_ms),
        }
    }

    /// Reads the clock for a turn of a worker.
    pub fn tick(&self) -> (Tick, Time) {
        let tick = Instant::now();
        let elapsed = tick.saturating_duration_since(self.start);
        let ms = self.start_ms + u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX / 2);
        if ms > self.latest_ms.load(Relaxed) {
            self.latest_ms.fetch_max(ms, Relaxed);
        }
        (Tick(tick), Time(ms))
    }

    /// The latest moment that any thread has read. Taken under shard locks this is the time of
    /// a decision: never before the time of a record that the shard has already seen.
    pub fn latest(&self) -> Time {
        Time(self.latest_ms.load(Relaxed))
    }

    /// Milliseconds since the clock started, by the monotonic clock.
    pub fn uptime(&self) -> Duration {
        self.start.elapsed()
    }
}
