//! What every test needs: a daemon of its own, a client, a seeded source of chance.

pub(crate) mod client;
pub(crate) mod daemon;
pub(crate) mod linear;
pub(crate) mod load;
pub(crate) mod memcached;
pub(crate) mod memory;
pub(crate) mod random;
pub(crate) mod wire;

use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use client::Client;
pub(crate) use daemon::{Config, Daemon, Home};
pub(crate) use random::Random;

/// Asks again and again until there is an answer; panics with `what` when time is up.
pub(crate) fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// An environment variable that holds a number, or its default.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}"))
    })
}

/// Says that something is not tested because of what is missing here. With
/// `STORAGE_SERVER_NO_SKIPS=1`, which `tests/run` sets, that is a failure.
pub(crate) fn skip(missing: &str) {
    let allowed = setting("STORAGE_SERVER_NO_SKIPS", 0) == 0;
    assert!(allowed, "not to be skipped: {missing}");
    println!("SKIPPED: {missing}");
}

/// Does these numbered pieces of work, as many at a time as there are cores. A piece must not
/// depend on the others, or a seed would not tell what happened.
pub(crate) fn on_all_cores(pieces: u64, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    let take = || {
        let _others = Others {
            next: &next,
            pieces,
        };
        loop {
            let piece = next.fetch_add(1, Ordering::Relaxed);
            if piece >= pieces {
                return;
            }
            work(piece);
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(take);
        }
    });
}

/// The other threads, which take nothing more once one has failed.
struct Others<'n> {
    next: &'n AtomicU64,
    pieces: u64,
}

impl Drop for Others<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.next.store(self.pieces, Ordering::Relaxed);
        }
    }
}
