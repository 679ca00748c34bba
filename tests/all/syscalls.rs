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

/// How many writes the tests of order make.
const WRITES: usize = 10_000;

/// What a daemon asks of the system while one client writes and waits for each reply.
fn traced_writes(fsync: &str) -> String {
    let home = Home::new(Config::standard().with("data", "fsync", fsync));
    let trace = home.path("trace").display().to_string();
    let home = strace(home, &trace, &[TRACED]);
    let daemon = home.start();
    let mut client = daemon.client();
    for n in 0..WRITES {
        assert_eq!(client.set(&format!("key{n}"), "value").unwrap(), "STORED");
    }
    terminate(daemon);
    home.read("trace")
}

/// Goes through the replies: before each there must be the write of its record, and if
/// `synced_first` the end of a sync that began after it.
fn check_order(trace: &str, synced_first: bool) {
    let (mut written, mut synced, mut replies) = (false, false, 0);
    for line in trace.lines() {
        if line.contains("pwritev(") || line.contains("pwrite64(") {
            (written, synced) = (true, false);
        } else if line.contains("fdatasync") && line.ends_with("= 0") {
            synced = written;
        } else if line.contains("\"STORED") {
            let safe = written && (synced || !synced_first);
            assert!(safe, "reply {replies} left too early: {line}");
            (written, synced) = (false, false);
            replies += 1;
        }
    }
    assert_eq!(replies, WRITES);
}

#[test]
fn with_always_each_reply_leaves_after_the_sync_of_its_write() {
    check_order(&traced_writes("\"always\""), true);
}

#[test]
fn without_syncs_each_reply_still_leaves_after_the_write() {
    check_order(&traced_writes("\"never\""), false);
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
