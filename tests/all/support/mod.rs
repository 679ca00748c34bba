//! What every test needs: a daemon of its own, a client, a seeded source of chance.

pub(crate) mod client;
pub(crate) mod daemon;
pub(crate) mod linear;
pub(crate) mod load;
pub(crate) mod memcached;
pub(crate) mod memory;
pub(crate) mod random;
pub(crate) mod wire;

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
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// An environment variable that holds a number, or its default.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}"))
    })
}
