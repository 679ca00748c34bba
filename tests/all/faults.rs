//! Disks that fail and disks that fill, under a real daemon: strace makes its calls fail, a
//! small tmpfs runs full. What was acknowledged is never lost, reads go on, and when the fault
//! is over the daemon goes on by itself.
//!
//! `STORAGE_SERVER_FAULTS` sets how many calls of each kind fail (3), one after the other.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use storage_server::journal::disk::Name;

use crate::support::daemon::copy_files;
use crate::support::{Client, Config, Daemon, Home, setting, skip, until};

/// Long enough for any machine.
const DEADLINE: Duration = Duration::from_mins(1);

/// Has the daemon run under strace, with these arguments for it; what it sees is in `trace`.
pub(crate) fn traced(home: Home, trace: &[&str]) -> Home {
    let file = home.path("trace").display().to_string();
    let mut wrapper = vec!["strace", "-f", "-qq", "-y", "-o", &file];
    wrapper.extend(quick());
    wrapper.extend(trace);
    home.started_by(&wrapper)
}

/// What makes strace stop the daemon for the calls in question only, where there is that.
fn quick() -> Option<&'static str> {
    static QUICK: OnceLock<Option<&str>> = OnceLock::new();
    const OPTION: &str = "--seccomp-bpf";
    *QUICK.get_or_init(|| {
        let tried = Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=fsync", OPTION, "true"])
            .output();
        let quick = tried.is_ok_and(|out| out.status.success() && out.stderr.is_empty());
        quick.then_some(OPTION)
    })
}

const VALUE_BYTES: usize = 2000;

/// A value of so many bytes that says which it is.
fn value(n: usize, bytes: usize) -> String {
    format!("{n:0bytes$}")
}

/// What came of numbered writes of values of so many bytes.
struct Written {
    value_bytes: usize,
    stored: Vec<usize>,
    refused: Vec<(usize, String)>,
}

impl Written {
    fn of(value_bytes: usize) -> Self {
        Self {
            value_bytes,
            stored: Vec::new(),
            refused: Vec::new(),
        }
    }

    fn value(&self, n: usize) -> String {
        value(n, self.value_bytes)
    }

    fn count(&self) -> usize {
        self.stored.len() + self.refused.len()
    }

    /// Writes the next one, and reads one that is there.
    fn write(&mut self, client: &mut Client) {
        let n = self.count();
        let reply = client.set(&format!("key{n}"), &self.value(n)).unwrap();
        if reply == "STORED" {
            self.stored.push(n);
        } else {
            assert!(reply.starts_with("SERVER_ERROR "), "{reply}");
            self.refused.push((n, reply));
        }
        if let Some(n) = self.stored.get(n / 2).or(self.stored.last()) {
            let found = client.get(&format!("key{n}")).unwrap();
            assert_eq!(found, Some(self.value(*n)), "reads go on");
        }
    }

    /// What a start on a copy of the files must find: all that was stored, nothing that was
    /// refused with a known outcome.
    fn check(&self, home: &Home) {
        let again = Home::new(Config::standard());
        copy_files(&home.data(), &again.data());
        self.check_daemon(&again.start());
    }

    fn check_daemon(&self, daemon: &Daemon) {
        let mut client = daemon.client();
        for n in &self.stored {
            let found = client.get(&format!("key{n}")).unwrap();
            assert_eq!(found, Some(self.value(*n)), "key{n} was acknowledged");
        }
        for (n, reply) in &self.refused {
            let found = client.get(&format!("key{n}")).unwrap();
            let unknown = reply.ends_with("outcome unknown");
            assert!(unknown || found.is_none(), "key{n} is there after {reply}");
        }
    }
}

/// The calls of that kind fail from number `when` on, once or for ever. False if no call has.
fn fail(call: &str, error: &str, when: u64, forever: bool) -> bool {
    let name = format!("{call} {error} {when}{}", if forever { "+" } else { "" });
    let when = if forever {
        format!("{when}+")
    } else {
        when.to_string()
    };
    let inject = format!("inject={call}:error={error}:when={when}");
    let config = Config::standard().with("data", "fsync", "\"always\"").with(
        "data",
        "compact_min",
        "\"1m\"",
    );
    let home = traced(
        Home::new(config),
        &["-e", &format!("trace={call}"), "-e", &inject],
    );
    let injected = || home.read("trace").contains("(INJECTED)");
    let Ok(daemon) = home.try_start(&[]) else {
        // It could not even begin, and says so; without the fault it can.
        assert!(home.read("stderr").contains("cannot "), "{name}: no reason");
        Written::of(VALUE_BYTES).check(&home);
        assert!(injected(), "{name}: no start, and no fault");
        return true;
    };
    let mut client = daemon.client();
    let mut written = Written::of(VALUE_BYTES);
    if forever {
        for _ in 0..80 {
            written.write(&mut client);
        }
    } else {
        let (mut since, began) = (0, Instant::now());
        while since < 20 || written.count() < 80 {
            let before = written.refused.len();
            written.write(&mut client);
            since = if written.refused.len() > before {
                0
            } else {
                since + 1
            };
            assert!(began.elapsed() < DEADLINE, "{name}: writes do not resume");
        }
    }
    // strace counts the calls of each thread: the fault may come at the very end, and 74 says so.
    // Under a lasting fault it cannot end well, but end it must.
    assert_eq!(client.ask("term").unwrap(), "OK", "{name}");
    let status = daemon.ended(DEADLINE);
    let told = status.success() || status.code() == Some(74);
    assert!(forever || told, "{name}: {status}");
    println!(
        "{name}: {} stored, {} refused, injected: {}",
        written.stored.len(),
        written.refused.len(),
        injected()
    );
    written.check(&home);
    injected()
}

#[test]
fn calls_that_fail_once_or_for_ever_lose_nothing_that_was_acknowledged() {
    let faults = setting("STORAGE_SERVER_FAULTS", 3);
    for (call, error, first) in [
        ("fdatasync", "EIO", 1),
        ("pwritev", "EIO", 8),
        ("pwritev", "ENOSPC", 8),
        ("pwritev", "EDQUOT", 8),
        ("pwritev", "EINTR", 1),
        ("fallocate", "ENOSPC", 1),
        ("fallocate", "EDQUOT", 1),
        ("fsync", "EIO", 1),
    ] {
        // A daemon that makes fewer calls than that has none that fails.
        let mut injected = 0;
        for fault in 0..faults {
            // Later and later, with all of the start covered by a long campaign.
            let when = if faults > 20 {
                1 + fault
            } else {
                first + fault * 7
            };
            injected += usize::from(fail(call, error, when, false));
            // No call is interrupted for ever.
            if error != "EINTR" {
                injected += usize::from(fail(call, error, when, true));
            }
        }
        assert!(injected > 0, "no {call} has failed with {error}");
    }
}

/// The path in `fdatasync(7</path>)`.
fn path_of<'a>(line: &'a str, call: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!("{call}("))?;
    let (_, rest) = rest.split_once('<')?;
    rest.split_once('>').map(|(path, _)| path)
}

/// Clients that write while a sync fails.
const WRITERS: usize = 4;

#[test]
fn a_file_whose_sync_failed_is_never_synced_or_written_again() {
    let mut gets = 0;
    for fault in 0..setting("STORAGE_SERVER_FAILED_SYNCS", 3) {
        let inject = format!("inject=fdatasync:error=EIO:when={}", 20 + fault * 13 % 997);
        let trace = ["-e", "trace=fdatasync,fsync,pwritev", "-e", &inject];
        let config = Config::standard().with("data", "fsync", "\"always\"");
        let home = traced(Home::new(config), &trace);
        let daemon = home.start();
        let written = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let mut client = daemon.client();
                    scope.spawn(move || write_across(&mut client, writer))
                })
                .collect();
            writers
                .into_iter()
                .map(|one| one.join().unwrap())
                .collect::<Vec<_>>()
        });
        assert_eq!(daemon.client().ask("term").unwrap(), "OK");
        assert!(daemon.ended(DEADLINE).success());
        let trace = home.read("trace");
        let failed = trace.lines().position(|line| line.contains("EIO")).unwrap();
        let lines: Vec<_> = trace.lines().collect();
        // The call may stand on an earlier line of its thread: "unfinished", then "resumed".
        let thread = lines[failed].split(' ').next().unwrap();
        let begun = lines[..=failed].iter().rev();
        let mut begun = begun.filter(|line| line.split(' ').next() == Some(thread));
        let path = begun.find_map(|line| path_of(line, "fdatasync"));
        let path = path.expect("the path of the file");
        let mut late = Vec::new();
        for line in &lines[failed + 1..] {
            for call in ["fdatasync", "fsync"] {
                assert_ne!(path_of(line, call), Some(path), "{line}");
            }
            if path_of(line, "pwritev") == Some(path) {
                late.push(*line);
            }
        }
        // Writes may be on their way when the sync fails, not more than clients, each of which
        // waits for its reply.
        assert!(late.len() <= WRITERS, "{late:#?}");
        let again = Home::new(Config::standard());
        copy_files(&home.data(), &again.data());
        let daemon = again.start();
        let mut unknown = 0;
        for (stored, refused, got) in written {
            gets += got;
            let found = daemon.client().get_many(&stored).unwrap();
            assert_eq!(found.len(), stored.len(), "acknowledged and lost");
            for (key, reply) in refused {
                match reply.as_str() {
                    "SERVER_ERROR storage failed, outcome unknown" => unknown += 1,
                    "SERVER_ERROR storage failed, read-only" => {
                        assert_eq!(daemon.client().get(&key).unwrap(), None, "{key}");
                    }
                    other => panic!("{key}: {other}"),
                }
            }
        }
        assert!(unknown > 0, "no held write was told");
    }
    println!("{gets} gets were answered");
    assert!(gets >= 500, "only {gets} gets");
}

/// Writes and reads until some writes were refused and others are stored again: what was
/// stored, what was refused, and how many gets were answered.
fn write_across(client: &mut Client, writer: usize) -> (Vec<String>, Vec<(String, String)>, usize) {
    let (mut stored, mut refused, mut since, mut gets) = (Vec::new(), Vec::new(), 0, 0);
    until("the storage fails and recovers", DEADLINE, || {
        let key = format!("key{writer}:{}", stored.len() + refused.len());
        let reply = client.set(&key, "value").unwrap();
        if reply == "STORED" {
            stored.push(key);
            since += usize::from(!refused.is_empty());
        } else {
            refused.push((key, reply));
        }
        for key in stored.iter().rev().take(3) {
            assert_eq!(client.get(key).unwrap().as_deref(), Some("value"));
            gets += 1;
        }
        (since == 20).then_some(())
    });
    (stored, refused, gets)
}

/// A home whose data directory is a tmpfs of so many MiB, in a name space of its own, on which
/// so many bytes are taken by something else; `None` where that may not be made.
fn on_tmpfs(config: Config, mib: usize, filler_bytes: usize) -> Option<Home> {
    let root = rustix::process::geteuid().is_root();
    let space = if root { "-m" } else { "-rm" };
    let works = |command: &[&str]| {
        let mut tried = Command::new("unshare");
        tried.arg(space).args(command).stderr(Stdio::null());
        tried.status().map(|status| status.success())
    };
    // Some machines refuse name spaces of their own, and there is nothing to be done about it.
    if matches!(works(&["true"]), Ok(false)) {
        println!("SKIPPED: no mount name space can be made here");
        return None;
    }
    if !matches!(works(&["mount", "-t", "tmpfs", "none", "/mnt"]), Ok(true)) {
        skip("no tmpfs can be mounted here");
        return None;
    }
    let home = Home::new(config);
    std::fs::create_dir(home.data()).unwrap();
    let script = format!(
        "mount -t tmpfs -o size={mib}m,mode=0700 none '{data}' && \
         head -c {filler_bytes} /dev/zero >'{data}/{FILLER}' && exec \"$0\" \"$@\"",
        data = home.data().display()
    );
    Some(home.started_by(&["unshare", space, "sh", "-c", &script]))
}

/// The data directory as the daemon sees it.
fn inside(home: &Home, daemon: &Daemon) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{}/root", daemon.pid()));
    root.join(home.data().strip_prefix("/").unwrap())
}

/// What else is on a small disk.
const FILLER: &str = "filler";
/// Writes go on so soon after there is space: in much less, but the machine may be busy.
const RESUMED_AFTER: Duration = Duration::from_secs(5);

#[test]
fn a_small_disk_full_of_journal_frees_itself() {
    let Some(home) = on_tmpfs(Config::standard(), 1, 300 << 10) else {
        return;
    };
    let daemon = home.start();
    let mut client = daemon.client();
    let mut refused = 0;
    // Four times what the disk holds, of which 32 KiB are alive.
    for n in 0..2000 {
        let began = Instant::now();
        while let reply = client
            .set(&format!("key{}", n % 16), &value(n, VALUE_BYTES))
            .unwrap()
            && reply != "STORED"
        {
            assert_eq!(reply, "SERVER_ERROR out of disk space");
            assert!(
                began.elapsed() < RESUMED_AFTER,
                "write {n} is still refused"
            );
            refused += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    // The journal never grew so far that a snapshot was due for its size.
    assert!(refused > 0);
    let found = |daemon: &Daemon| {
        let mut client = daemon.client();
        for n in 1984..2000 {
            let found = client.get(&format!("key{}", n % 16)).unwrap();
            assert_eq!(found, Some(value(n, VALUE_BYTES)));
        }
    };
    found(&daemon);
    let copy = Home::new(Config::standard());
    copy_files(&inside(&home, &daemon), &copy.data());
    drop(daemon);
    found(&copy.start());
}

#[test]
fn a_full_disk_is_survived_and_left_behind_without_a_restart() {
    fill_a_disk(8, VALUE_BYTES);
}

#[test]
fn a_disk_full_of_short_values_is_survived_and_left_behind() {
    // A few in each of the shards, all of which matter here.
    fill_a_disk(1, 100);
}

/// Writes what is never written over, so that the next snapshot has to have all of it.
fn fill_a_disk(mib: usize, value_bytes: usize) {
    let eighths = |eighths: usize| eighths * (mib << 17);
    let Some(home) = on_tmpfs(Config::standard(), mib, eighths(3)) else {
        return;
    };
    let daemon = home.start();
    let mut client = daemon.client();
    let filler = inside(&home, &daemon).join(FILLER);
    let mut written = Written::of(value_bytes);
    for round in 0..3 {
        until("the disk is full", DEADLINE, || {
            written.write(&mut client);
            let full = written.refused.len() > round * 20;
            full.then_some(())
        });
        while written.refused.len() < (round + 1) * 20 {
            written.write(&mut client);
        }
        for (_, reply) in &written.refused {
            assert_eq!(reply, "SERVER_ERROR out of disk space");
        }
        // For a snapshot there is room, which lets the journal before it go.
        assert_eq!(client.ask("snapshot").unwrap(), "OK", "{}", daemon.log());
        let left: Vec<_> = std::fs::read_dir(inside(&home, &daemon))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| Name::is_temporary(name))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        // Some room comes back, by and by.
        std::fs::OpenOptions::new()
            .write(true)
            .open(&filler)
            .unwrap()
            .set_len(eighths(2 - round) as u64)
            .unwrap();
        let freed = Instant::now();
        until("writes resume", DEADLINE, || {
            let before = written.stored.len();
            written.write(&mut client);
            if written.stored.len() == before {
                // Refusals are counted by the round: these are of the time after the room came.
                written.refused.pop();
                std::thread::sleep(Duration::from_millis(10));
            }
            (written.stored.len() > before).then_some(())
        });
        assert!(freed.elapsed() < RESUMED_AFTER, "{:?}", freed.elapsed());
    }
    let copy = Home::new(Config::standard());
    daemon.client().ask("version").unwrap();
    copy_files(&inside(&home, &daemon), &copy.data());
    drop(daemon);
    written.check_daemon(&copy.start());
}

#[test]
fn snapshots_do_not_fill_a_disk_that_holds_the_data() {
    let config = Config::standard().with("data", "compact_min", "\"1m\"");
    let Some(home) = on_tmpfs(config, 16, 0) else {
        return;
    };
    let daemon = home.start();
    let mut client = daemon.client();
    // 1 MiB of data is written over and over, four times what the disk holds. Whoever writes
    // faster than the disk takes a snapshot is refused in time, which is another test.
    let mut number = client.stats("").unwrap()["snapshot_number"].clone();
    for n in 0..1000 {
        let value = n.to_string().repeat(64_000 / n.to_string().len());
        let reply = client.set(&format!("key{}", n % 16), &value).unwrap();
        assert_eq!(reply, "STORED", "write {n}");
        if n % 32 == 31 {
            number = until("the next snapshot", DEADLINE, || {
                let now = client.stats("").unwrap()["snapshot_number"].clone();
                (now != number).then_some(now)
            });
        }
    }
}
