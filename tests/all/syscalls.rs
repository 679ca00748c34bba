//! What the daemon asks of the system, watched and tampered with by strace: replies leave after
//! the sync that they promise, and a disk that fails or fills is told, survived and left behind.

use std::collections::HashMap;
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

/// Goes through the replies: before each there must be the end of the write of its record, and if
/// `synced_first` the end of a sync that began after that. Answers how many there were, or which
/// line is too early.
fn check_order(trace: &str, synced_first: bool) -> Result<usize, &str> {
    let (mut writes, mut synced, mut answered, mut replies) = (0, 0, 0, 0);
    // What had been written when a thread began to sync.
    let mut begun = HashMap::new();
    for line in trace.lines() {
        let thread = line.split(' ').next();
        let is = |call: &str| {
            line.contains(&format!(" {call}(")) || line.contains(&format!("<... {call} resumed>"))
        };
        let ends = !line.ends_with("<unfinished ...>");
        if (is("pwritev") || is("pwrite64")) && ends {
            writes += 1;
        } else if is("fdatasync") {
            if line.contains("fdatasync(") {
                begun.insert(thread, writes);
            }
            if line.ends_with("= 0") {
                synced = begun.get(&thread).copied().unwrap_or(0).max(synced);
            }
        } else if line.contains("\"STORED") {
            if writes == answered || (synced_first && synced < writes) {
                return Err(line);
            }
            answered = writes;
            replies += 1;
        }
    }
    Ok(replies)
}

#[test]
fn a_sync_that_began_before_the_write_is_none() {
    let (write, reply) = ("1 pwritev(7, ...) = 9\n", "1 sendto(8, \"STORED\") = 8\n");
    let (begin, end) = (
        "2 fdatasync(7 <unfinished ...>\n",
        "2 <... fdatasync resumed>) = 0\n",
    );
    let failed = "2 fdatasync(7) = -1 EIO\n";
    for (trace, safe) in [
        ([write, begin, end, reply].concat(), true),
        ([write, "2 fdatasync(7) = 0\n", reply].concat(), true),
        ([begin, write, end, reply].concat(), false),
        ([write, begin, reply, end].concat(), false),
        ([write, failed, reply].concat(), false),
        (
            ["1 pwritev(7, <unfinished ...>\n", begin, end, reply].concat(),
            false,
        ),
        ([write, begin, end, reply, reply].concat(), false),
    ] {
        assert_eq!(check_order(&trace, true).is_ok(), safe, "{trace}");
    }
}

#[test]
fn with_always_each_reply_leaves_after_the_sync_of_its_write() {
    let trace = traced_writes("\"always\"");
    assert_eq!(check_order(&trace, true), Ok(WRITES));
}

#[test]
fn without_syncs_each_reply_still_leaves_after_the_write() {
    let trace = traced_writes("\"never\"");
    assert_eq!(check_order(&trace, false), Ok(WRITES));
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
    // From the fourth reach for more room on, the first after the start, there is none for a while.
    let home = strace(home, &trace, &["inject=fallocate:error=ENOSPC:when=4..40"]);
    let daemon = home.start();
    let (stored, refused) = write_through(&mut daemon.client(), 30);
    for reply in &refused {
        assert_eq!(reply, "SERVER_ERROR out of disk space");
    }
    terminate(daemon);
    assert_eq!(survivors(&home, stored.len() + refused.len()), stored);
}
