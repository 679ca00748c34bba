//! Too much of everything at once: HUPs by the thousand while the data files are moved away,
//! TERM again and again under load, a hundred starts on one directory.
//!
//! `STORAGE_SERVER_HUPS` (100), `STORAGE_SERVER_TERMS` (20) and `STORAGE_SERVER_SEED`.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use crate::golden::Segment;
use crate::signals::{contents, move_data};
use crate::support::daemon::{copy_files, listening_on, read_text};
use crate::support::load::Load;
use crate::support::wire::PATIENCE;
use crate::support::{Client, Config, Home, Random, setting, until};

#[test]
fn a_storm_of_hups_on_moved_files_loses_nothing() {
    let hups = setting("STORAGE_SERVER_HUPS", 100);
    let seed = Random::seed("hup storm");
    let mut random = Random::new(seed);
    // Snapshots come all the time, beside those that the moved files ask for.
    let config = Config::standard().with("data", "compact_min", "\"1m\"");
    let home = Home::new(config.clone());
    let daemon = home.start();
    let mut load = Load::new(&mut daemon.client(), 8, seed);
    let mut moved = 0;
    load.during_all_along(daemon.addr(), || {
        for hup in 0..hups {
            if random.one_in(3) {
                moved += move_data(&home.data(), &home.path(&format!("away.{hup}")));
            }
            daemon.hup();
            std::thread::sleep(Duration::from_millis(random.below(20)));
        }
        // The answer comes when the files that are there now are whole.
        assert_eq!(daemon.client().ask("reopen").unwrap(), "OK");
    });
    println!(
        "{hups} HUPs, {moved} files moved, {} requests",
        load.acked()
    );
    assert!(moved > 0, "no file was ever moved");
    let (one, two) = (daemon.client(), daemon.client());
    let open = daemon.descriptors();
    drop((one, two));
    // Two clients, the log, the directory, the lock, sockets and the runtime's: whatever a HUP
    // or a snapshot leaves open would be a hundred times that.
    assert!(open < 64, "{open} descriptors are open after {hups} HUPs");
    load.check(&mut daemon.client());
    daemon.kill9();
    load.check(&mut home.start().client());

    // All files that there ever were, in one directory, are the same store.
    let union = Home::new(config);
    for hup in 0..hups {
        let away = home.path(&format!("away.{hup}"));
        if away.exists() {
            copy_files(&away, &union.data());
        }
    }
    copy_files(&home.data(), &union.data());
    load.check(&mut union.start().client());
}

#[test]
fn term_again_and_again_under_load_ends_with_everything_on_disk() {
    let terms = setting("STORAGE_SERVER_TERMS", 20);
    let seed = Random::seed("term storm");
    let mut acked = 0;
    for first in (0..terms).step_by(50) {
        let mut random = Random::new(seed ^ first);
        let home = Home::new(Config::standard());
        let mut daemon = home.start();
        let mut load = Load::new(&mut daemon.client(), 8, seed ^ first);
        for term in first..terms.min(first + 50) {
            load.during(daemon.addr(), || {
                std::thread::sleep(Duration::from_micros(1000 + random.below(30_000)));
                daemon.signal(Signal::TERM);
                let status = daemon.ended(Duration::from_secs(5));
                assert_eq!(status.code(), Some(0), "term {term}: {status}");
            });
            assert!(Segment::last(&home.data()).ended, "term {term}: not closed");
            daemon = home.start();
            load.check(&mut daemon.client());
        }
        acked += load.acked();
    }
    println!("{terms} times TERM, {acked} requests answered");
    assert!(acked > terms, "that was no load: {acked} requests");
}

/// A process that ends with the test, however that ends.
struct Guard(std::process::Child);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn of_a_hundred_starts_at_once_one_wins_and_the_others_touch_nothing() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    assert_eq!(daemon.client().set("2.1", "5").unwrap(), "STORED");
    assert!(daemon.term().success());
    let before = contents(&home.data());
    let log = home.path("many");
    let start = || {
        let log = fs::OpenOptions::new().create(true).append(true).open(&log);
        Guard(home.command(&[]).stderr(log.unwrap()).spawn().unwrap())
    };
    let mut children: Vec<_> = (0..100).map(|_| start()).collect();
    let addr = until("one listens", PATIENCE, || listening_on(&read_text(&log)));
    let mut winner = None;
    until("all others have ended", Duration::from_mins(1), || {
        let mut left = Vec::new();
        for (n, child) in children.iter_mut().enumerate() {
            match child.0.try_wait().unwrap() {
                None => left.push(n),
                Some(status) => assert_eq!(status.code(), Some(73), "{}", read_text(&log)),
            }
        }
        winner = left.first().copied();
        (left.len() == 1).then_some(())
    });
    // The winner has added a file; what was there is as it was.
    let after = contents(&home.data());
    for (name, content) in &before {
        assert_eq!(after.get(name), Some(content), "{name} was changed");
    }
    assert_eq!(after.len(), before.len() + 1);
    // The lock is still held after a HUP.
    let mut client = Client::connect(addr).unwrap();
    crate::support::daemon::send_signal(children[winner.unwrap()].0.id(), Signal::HUP);
    assert_eq!(client.ask("reopen").unwrap(), "OK");
    assert_eq!(home.run(&[]).0, Some(73));
    assert_eq!(client.incr("2.1", 1).unwrap(), "6");
}
