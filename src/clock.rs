//! The only place that reads time; everywhere else `now` is an argument.
//!
//! Invariant: [`Clock::tick`] never goes back, whatever the system's clock does: it starts at the
//! wall clock (or at the newest record's time, if that is later) and runs with the monotonic one.

#![expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads time"
)]

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
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

/// The wall clock, for log lines: it may go back, so nothing is decided by it.
pub fn wall() -> Time {
    let wall = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Time(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX))
}

/// Prints the moment as ISO 8601 in UTC, such as `2026-11-20T21:54:39.123Z`.
impl fmt::Display for Time {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ms) = (self.seconds(), self.0 % 1000);
        let (year, month, day) = civil_date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(
            out,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"
        )
    }
}

/// The Gregorian date of a day since the Unix epoch. Years are counted from March, so that the
/// day that a leap year adds is the last of its year.
fn civil_date(day: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    /// From 0000-03-01 to 1970-01-01.
    const EPOCH: u64 = 719_468;
    let day = day + EPOCH;
    let (era, day_of_era) = (day / DAYS_OF_400_YEARS, day % DAYS_OF_400_YEARS);
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // The months from March on have 153 days in each five.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day_of_month)
}

/// When an entry ends: never, or at a moment from which on it is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Expiry(Option<NonZeroU64>);

impl Expiry {
    /// The entry stays until it is removed.
    pub const NEVER: Self = Self(None);

    /// The latest moment that an expiry can be, of 48 bits: in the year 10889.
    pub const LATEST: Self = Self(NonZeroU64::new((1 << 48) - 1));

    /// The entry is gone from `time` on. The epoch itself is read as 1 ms after it, and what is
    /// later than [`Self::LATEST`] as that.
    pub fn at(time: Time) -> Self {
        let ms = NonZeroU64::new(time.0).unwrap_or(NonZeroU64::MIN);
        Self(Some(ms).min(Self::LATEST.0))
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

    /// The point `time` after this one.
    #[must_use]
    pub fn plus(self, time: Duration) -> Self {
        Self(self.0.checked_add(time).unwrap_or(self.0))
    }

    /// The time from `earlier` to this point; zero if it is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }
}

/// Where time comes from: the system's clocks by default, or a [`SimClock`].
#[derive(Clone, Debug, Default)]
pub struct Source(Option<Arc<Hands>>);

impl Source {
    /// A point of the monotonic clock: now.
    pub fn tick(&self) -> Tick {
        match &self.0 {
            None => Tick::now(),
            Some(hands) => hands.tick(),
        }
    }

    /// The wall clock, which may be set back.
    pub fn wall(&self) -> Time {
        match &self.0 {
            None => wall(),
            Some(hands) => hands.wall(),
        }
    }
}

/// A clock that a simulation owns: time passes when it says so, and it sets the wall clock as
/// an administrator might. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct SimClock(Arc<Hands>);

impl SimClock {
    /// A clock that stands at `wall`.
    pub fn new(wall: Time) -> Self {
        let clock = Self(Arc::new(Hands {
            base: Instant::now(),
            passed_us: AtomicU64::new(0),
            wall_ahead_ms: AtomicI64::new(0),
        }));
        clock.set_wall(wall);
        clock
    }

    /// What those who read this clock are given.
    pub fn source(&self) -> Source {
        Source(Some(Arc::clone(&self.0)))
    }

    /// Lets time pass, in microseconds: both clocks go on.
    pub fn pass_us(&self, us: u64) {
        self.0.passed_us.fetch_add(us, Relaxed);
    }

    /// Microseconds that have passed since this clock was made.
    pub fn passed_us(&self) -> u64 {
        self.0.passed_us.load(Relaxed)
    }

    /// The wall clock.
    pub fn wall(&self) -> Time {
        self.0.wall()
    }

    /// Sets the wall clock, forward or back; the monotonic one does not notice.
    pub fn set_wall(&self, wall: Time) {
        let ahead = wall.0.cast_signed() - self.0.passed_ms();
        self.0.wall_ahead_ms.store(ahead, Relaxed);
    }
}

#[derive(Debug)]
struct Hands {
    base: Instant,
    passed_us: AtomicU64,
    wall_ahead_ms: AtomicI64,
}

impl Hands {
    fn tick(&self) -> Tick {
        Tick(self.base).plus(Duration::from_micros(self.passed_us.load(Relaxed)))
    }

    fn passed_ms(&self) -> i64 {
        (self.passed_us.load(Relaxed) / 1000).cast_signed()
    }

    fn wall(&self) -> Time {
        let ms = self.passed_ms() + self.wall_ahead_ms.load(Relaxed);
        Time(u64::try_from(ms).unwrap_or(0))
    }
}

/// The process's clock, shared by all threads.
#[derive(Debug)]
pub struct Clock {
    source: Source,
    start: Tick,
    start_ms: u64,
    /// The latest moment that any thread has read, so that what one thread has seen expire no
    /// other thread finds alive.
    latest_ms: AtomicU64,
}

impl Clock {
    /// A clock that starts at the wall clock or at `newest`, whichever is later.
    pub fn starting_after(newest: Time, source: Source) -> Self {
        let start_ms = source.wall().max(newest).0;
        Self {
            start: source.tick(),
            source,
            start_ms,
            latest_ms: AtomicU64::new(start_ms),
        }
    }

    /// When the clock started.
    pub fn started(&self) -> Time {
        Time(self.start_ms)
    }

    /// Reads the clock for a turn of a worker.
    pub fn tick(&self) -> (Tick, Time) {
        let tick = self.source.tick();
        let elapsed = tick.since(self.start);
        let ms = self.start_ms + u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX / 2);
        if ms > self.latest_ms.load(Relaxed) {
            self.latest_ms.fetch_max(ms, Relaxed);
        }
        (tick, Time(ms))
    }

    /// The latest moment that any thread has read. Taken under shard locks this is the time of
    /// a decision: never before the time of a record that the shard has already seen.
    pub fn latest(&self) -> Time {
        Time(self.latest_ms.load(Relaxed))
    }

    /// Milliseconds since the clock started, by the monotonic clock.
    pub fn uptime(&self) -> Duration {
        self.source.tick().since(self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_print_as_iso_8601() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_000, "2024-02-29T23:59:59.000Z"),
            (1_735_689_599_001, "2024-12-31T23:59:59.001Z"),
            (1_735_689_600_000, "2025-01-01T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Time(ms).to_string(), text);
        }
        assert!(Time(u64::MAX).to_string().ends_with('Z'));
    }

    #[test]
    fn each_day_of_four_centuries_follows_the_one_before() {
        let (mut year, mut month, mut day) = civil_date(0);
        for number in 1..=146_097 {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let days = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > days {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
            assert_eq!(civil_date(number), (year, month, day));
        }
    }
}
