//! What the daemon asks of the system, watched and tampered with by strace: replies leave after
//! the sync that they promise, and a disk that fails or fills is told, survived and left behind.

use std::time::Duration;

use crate::support::daemon::copy_files;
use crate::support::{Client, Config, Daemon, Home, until};

const TRACED: &str = "trace=pwritev,pwrite64,fdatasync,fsync,sendto,write,writev";

fn strace(home: Home, trace: &str, extra: &[&str]) -> Home {
    let mut wrapper = vec!["strace", "-f", "-qq", "-s", "64", "-o", trace, "-e"];
    wrapper.extend(extra);
    home.started_by(&wrapper)
}

/// Ends a daemon that strace started.
fn terminate(daemon: Daemon) {
    let mut client = daemon.client();
    assert_eq!(client.ask("term").unwrap(), "OK");
    assert!(daemon.ended(Duration::from_secs(10)).success());
}

/// The numbered keys that are there after a start on a copy of the files.
fn survivors(home: &Home, keys: usize) -> Vec<usize> {
    let again = Home::new(Config::standard());
    copy_files(&home.data(), &again.data());
    let daemon = again.start();
    let mut client = daemon.client();
    (0..keys)
        .filter(|n| client.get(&format!("key{n}")).unwrap().is_some())
        .collect()
}

#[test]
fn with_always_each_reply_leaves_after_the_sync_of_its_write() {
    const WRITES: usize = 1000;
    let home = Home::new(Config::standard().with("data", "fsync", "\"always\""));
    let trace = home.path("trace").display().to_string();
    let home = strace(home, &trace, &[TRACED]);
    let daemon = home.start();
    let mut client = daemon.client();
    for n in 0..WRITES {
        assert_eq!(client.set(&format!("key{n}"), "value").unwrap(), "STORED");
    }
    terminate(daemon);

    // One client that waits for each reply: between two replies there must be the write of the
    // record and, after it, the end of a sync.
    let (mut written, mut synced, mut replies) = (false, false, 0);
    for line in home.read("trace").lines() {
        let done = line.ends_with("= 0");
        if line.contains("pwritev(") || line.contains("pwrite64(") {
            (written, synced) = (true, false);
        } else if line.contains("fdatasync") && done {
            synced = written;
        } else if line.contains("\"STORED") {
            assert!(written && synced, "reply {replies} left too early: {line}");
            (written, synced) = (false, false);
            replies += 1;
        }
    }
    assert_eq!(replies, WRITES);
}

#[test]
fn without_a_sync_each_reply_still_leaves_after_the_write() {
    const WRITES: usize = 1000;
    let home = Home::new(Config::standard().with("data", "fsync", "\"never\""));
    let trace = home.path("trace").display().to_string();
    let home = strace(home, &trace, &[TRACED]);
    let daemon = home.start();
    let mut client = daemon.client();
    for n in 0..WRITES {
        assert_eq!(client.set(&format!("key{n}"), "value").unwrap(), "STORED");
    }
    terminate(daemon);
    let (mut written, mut replies) = (false, 0);
    for line in home.read("trace").lines() {
        if line.contains("pwritev(") || line.contains("pwrite64(") {
            written = true;
        } else if line.contains("\"STORED") {
            assert!(written, "reply {replies} left too early: {line}");
            written = false;
            replies += 1;
        }
    }
    assert_eq!(replies, WRITES);
}

/// Sets numbered keys until the daemon has refused some and then stored `after` more.
fn write_through(client: &mut Client, after: usize) -> (Vec<usize>, Vec<String>) {
    let (mut stored, mut refused, mut since) = (Vec::new(), Vec::new(), 0);
    let value = "v".repeat(20_000);
    until(
        "the storage fails and recovers",
        Duration::from_mins(1),
        || {
            let n = stored.len() + refused.len();
            let reply = client.set(&format!("key{n}"), &value).unwrap();
            if reply == "STORED" {
                stored.push(n);
                since += usize::from(!refused.is_empty());
            } else {
                refused.push(reply);
                // What is there can be read all along.
                if let Some(n) = stored.last() {
                    assert!(client.get(&format!("key{n}")).unwrap().is_some());
                }
            }
            (since == after).then_some(())
        },
    );
    (stored, refused)
}

#[test]
fn a_failed_sync_is_told_and_a_snapshot_heals_it() {
    let home = Home::new(Config::standard().with("data", "fsync", "\"always\""));
    let trace = home.path("trace").display().to_string();
    let home = strace(home, &trace, &["inject=fdatasync:error=EIO:when=20"]);
    let daemon = home.start();
    let (stored, refused) = write_through(&mut daemon.client(), 30);
    assert_eq!(refused[0], "SERVER_ERROR storage failed, outcome unknown");
    for reply in &refused[1..] {
        assert_eq!(reply, "SERVER_ERROR storage failed, read-only");
    }
    daemon.logged(&["snapshot complete"]);
    terminate(daemon);
    let survivors = survivors(&home, stored.len() + refused.len());
    let lost: Vec<_> = stored.iter().filter(|n| !survivors.contains(n)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    let home = Home::new(Config::standard());
    let trace = home.path("trace").display().to_string();
    // From the third reach for more room on there is none for a while.
    let home = strace(home, &trace, &["inject=fallocate:error=ENOSPC:when=3..40"]);
    let daemon = home.start();
    let (stored, refused) = write_through(&mut daemon.client(), 30);
    for reply in &refused {
        assert_eq!(reply, "SERVER_ERROR out of disk space");
    }
    terminate(daemon);
    assert_eq!(survivors(&home, stored.len() + refused.len()), stored);
}
