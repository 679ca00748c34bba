//! A clock that is wrong by a year: nothing is lost, and what expires does so by the time that
//! passed, not by the time that the clock shows.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::{Config, Home, skip, until};

/// libfaketime, if it is installed.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?;
    folders
        .filter_map(|folder| Some(folder.ok()?.path().join("faketime/libfaketime.so.1")))
        .find(|library| library.is_file())
}

/// A home whose daemons see the clock that the file `clock` sets; the monotonic clock is real.
fn home_with_clock() -> Option<Home> {
    let Some(library) = library() else {
        skip("libfaketime is not here");
        return None;
    };
    let home = Home::new(Config::standard());
    let clock = format!("FAKETIME_TIMESTAMP_FILE={}", home.path("clock").display());
    let preload = format!("LD_PRELOAD={}", library.display());
    let own = ["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"];
    set_clock(&home, "+0");
    Some(home.started_by(&["env", &preload, &clock, own[0], own[1]]))
}

fn set_clock(home: &Home, offset: &str) {
    // In one step: the daemon reads it at any time.
    fs::write(home.path("clock.new"), format!("{offset}\n")).unwrap();
    fs::rename(home.path("clock.new"), home.path("clock")).unwrap();
}

#[test]
fn restarts_with_a_clock_that_is_a_year_off_lose_nothing() {
    let Some(home) = home_with_clock() else {
        return;
    };
    for (round, offset) in (1..).zip(["+0", "+1y", "-1y", "+0", "-1y", "+1y", "+1y", "+0"]) {
        set_clock(&home, offset);
        let daemon = home.start();
        let mut client = daemon.client();
        let wall = 365 * 24 * 60 * 60;
        let shown = client.stats("").unwrap()["time"].parse::<u64>().unwrap();
        let real = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        if offset == "+1y" {
            let ahead = shown.saturating_sub(real.unwrap().as_secs());
            assert!(ahead > wall / 2, "the clock was not set: {ahead}");
        }
        for key in ["2.1", "6.1"] {
            assert_eq!(client.incr(key, 1).unwrap(), round.to_string(), "{offset}");
        }
        for n in 1..round {
            assert_eq!(client.get(&format!("3.{n}")).unwrap().as_deref(), Some("x"));
        }
        assert_eq!(client.set(&format!("3.{round}"), "x").unwrap(), "STORED");
        // What was to last for an hour from now on does so at the next start, unless that is
        // a year later.
        let hour = format!("set hour{round} 0 3600 1\r\nx");
        assert_eq!(client.ask(&hour).unwrap(), "STORED");
        if offset != "+1y" && round > 1 {
            let before = client.get(&format!("hour{}", round - 1)).unwrap();
            assert_eq!(before.as_deref(), Some("x"), "{offset}");
        }
        if round % 2 == 0 {
            assert!(daemon.term().success());
        } else {
            daemon.kill9();
        }
    }
}

#[test]
fn what_expires_does_so_by_the_time_that_passed_whatever_the_clock_shows() {
    let Some(home) = home_with_clock() else {
        return;
    };
    let daemon = home.start();
    let mut client = daemon.client();
    for offset in ["+1y", "-1y", "+0"] {
        assert_eq!(client.set("stays", "x").unwrap(), "STORED");
        assert_eq!(client.ask("set hour 0 3600 1\r\nx").unwrap(), "STORED");
        let began = Instant::now();
        assert_eq!(client.ask("set soon 0 3 1\r\nx").unwrap(), "STORED");
        // A moment, by the clock that the server goes by.
        let now: u64 = client.stats("").unwrap()["time"].parse().unwrap();
        let moment = format!("set moment 0 {} 1\r\nx", now + 3);
        assert_eq!(client.ask(&moment).unwrap(), "STORED");
        set_clock(&home, offset);
        let lived = until("the end of 3 seconds", Duration::from_mins(1), || {
            let asked = began.elapsed();
            let found = ["soon", "moment"].map(|key| client.get(key).unwrap());
            (found == [None, None]).then_some(asked)
        });
        // Whole seconds, as memcached counts them.
        assert!(
            lived > Duration::from_secs(2),
            "{offset}: gone after {lived:?}"
        );
        for key in ["stays", "hour"] {
            assert_eq!(
                client.get(key).unwrap().as_deref(),
                Some("x"),
                "{key} {offset}"
            );
        }
    }
}
