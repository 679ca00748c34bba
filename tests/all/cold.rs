//! Values that memory does not keep: every command answers as if it did, whatever happens to the
//! files in the meantime, and a data set may be larger than memory.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use storage_server::journal::sim::SimDisk;

use crate::faults::traced;
use crate::support::daemon::resident_kb;
use crate::support::memory::MemoryServer;
use crate::support::{Client, Config, Daemon, Home, Random, until};
use crate::transcript::{Cut, Transcript};

const PATIENCE: Duration = Duration::from_secs(30);

/// Values above 100 bytes leave memory at once, and nothing stays near.
fn config() -> Config {
    Config::standard()
        .with("types", "3", "{ kind = \"DATA\", keep_in_memory = 100 }")
        .with("data", "cache_memory", "0")
        .with("data", "fsync", "\"always\"")
}

fn figure(client: &mut Client, name: &str) -> u64 {
    client.stats("").unwrap()[name].parse().unwrap()
}

fn until_away(client: &mut Client, values: u64) {
    until("values are away", PATIENCE, || {
        (figure(client, "values_away") == values).then_some(())
    });
}

#[test]
fn transcripts_are_the_same_with_values_that_are_not_in_memory() {
    let seed = Random::seed("cuts of values away");
    for transcript in Transcript::all() {
        let play = |config: &Config, cut: &mut Cut| {
            let server = MemoryServer::start(&config.text(), SimDisk::new());
            transcript
                .play(|| Box::new(server.connect()), cut)
                .unwrap_or_else(|error| panic!("{error}"))
        };
        let away = transcript.config.clone().leaving();
        let whole = play(&transcript.config, &mut Cut::Steps);
        let mut cuts = vec![Cut::Steps];
        if !transcript.waits() {
            cuts.extend([Cut::Bytes, Cut::Random(Random::new(seed))]);
        }
        for mut cut in cuts {
            let replies = play(&away, &mut cut);
            let (replies, whole) = (replies.escape_ascii(), whole.escape_ascii());
            assert!(
                replies.to_string() == whole.to_string(),
                "{}, seed {seed}: {replies}\nnot\n{whole}",
                transcript.name
            );
        }
    }
}

fn stat(server: &MemoryServer, name: &str) -> u64 {
    let stats = server.connect().ask(b"stats\r\n");
    let stats = String::from_utf8(stats).unwrap();
    let line = format!("STAT {name} ");
    let found = stats.lines().find_map(|it| it.strip_prefix(&line));
    found.unwrap().trim().parse().unwrap()
}

#[test]
fn a_value_leaves_memory_and_what_is_read_often_stays_near() {
    let config = Config::standard().with("types", "3", "{ kind = \"DATA\", keep_in_memory = 10 }");
    let server = MemoryServer::start(&config.text(), SimDisk::new());
    let mut wire = server.connect();
    let long = "v".repeat(100_000);
    wire.ask(
        format!("set 3.1 7 0 100000\r\n{long}\r\nset 3.2 0 0 10\r\n0123456789\r\n").as_bytes(),
    );
    assert_eq!(
        (stat(&server, "values_away"), stat(&server, "bytes_away")),
        (1, 100_000)
    );
    assert!(stat(&server, "bytes") < 1000);
    let shown = format!("VALUE 3.1 7 100000\r\n{long}\r\nEND\r\n");
    for _ in 0..3 {
        assert_eq!(wire.ask(b"get 3.1\r\n"), shown.as_bytes());
        assert_eq!(
            stat(&server, "cold_reads"),
            1,
            "the second read needs no file"
        );
    }
    assert!(stat(&server, "cache_bytes") > 100_000);
    // A snapshot moves the value, and what is near stays near.
    assert_eq!(
        wire.ask(b"reopen\r\nget 3.1\r\n"),
        [b"OK\r\n", shown.as_bytes()].concat()
    );
    assert_eq!(
        (stat(&server, "cold_reads"), stat(&server, "values_away")),
        (1, 1)
    );
    assert_eq!(wire.ask(b"append 3.1 0 0 0\r\n\r\n"), b"STORED\r\n");
    assert_eq!(wire.ask(b"reopen\r\n"), b"OK\r\n");
    // What is added to stays in memory until the next snapshot.
    assert_eq!(wire.ask(b"append 3.1 0 0 1\r\n!\r\n"), b"STORED\r\n");
    assert_eq!(stat(&server, "values_away"), 0);
    assert_eq!(wire.ask(b"reopen\r\n"), b"OK\r\n");
    assert_eq!(stat(&server, "values_away"), 1);
    let shown = format!("VALUE 3.1 7 100001\r\n{long}!\r\nEND\r\n");
    assert_eq!(wire.ask(b"get 3.1\r\n"), shown.as_bytes());
    let again = MemoryServer::start(&config.text(), server.disk.kill());
    assert_eq!(
        stat(&again, "values_away"),
        1,
        "a start leaves it where it is"
    );
    assert_eq!(again.connect().ask(b"get 3.1\r\n"), shown.as_bytes());
}

#[test]
fn a_look_by_a_meta_command_leaves_the_value_away_and_is_one_use() {
    let server = MemoryServer::start(&config().text(), SimDisk::new());
    let mut wire = server.connect();
    let long = "v".repeat(1000);
    wire.ask(format!("set 3.1 7 0 1000\r\n{long}\r\n").as_bytes());
    for (reads, fetched) in [(1, 0), (2, 1), (3, 1)] {
        let shown = format!("VA 1000 f7 h{fetched}\r\n{long}\r\nMN\r\n");
        assert_eq!(wire.ask(b"mg 3.1 v f h\r\nmn\r\n"), shown.as_bytes());
        assert_eq!(stat(&server, "cold_reads"), reads);
        assert_eq!(stat(&server, "values_away"), 1);
    }
    // What sets the expiry, too, is an edit: it reads the value back.
    wire.ask(format!("set 3.1 7 0 1000\r\n{long}\r\n").as_bytes());
    let shown = format!("VA 1000 h0\r\n{long}\r\n");
    assert_eq!(wire.ask(b"mg 3.1 v h T0\r\n"), shown.as_bytes());
    assert_eq!(wire.ask(b"mg 3.1 h\r\n"), b"HD h1\r\n");
    assert_eq!(stat(&server, "values_away"), 0);
}

#[test]
fn pipelines_of_cold_values_hot_ones_and_counters_stay_in_order() {
    let seed = Random::seed("pipelines of values away");
    let mut random = Random::new(seed);
    let home = Home::new(config());
    let daemon = home.start();
    let mut client = daemon.client();
    let mut values = BTreeMap::new();
    for id in 0..40 {
        let value = format!("<{id}>").repeat(1 + random.below(2000) as usize);
        client.set(&format!("3.{id}"), &value).unwrap();
        values.insert(id, value);
    }
    let away = values.values().filter(|value| value.len() > 100).count();
    until_away(&mut client, away as u64);
    let mut socket = TcpStream::connect(daemon.addr()).unwrap();
    let mut counter = 0;
    for round in 0..30 {
        let (mut request, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..random.below(60) {
            let id = random.below(40);
            match random.below(4) {
                0 => {
                    counter += 1;
                    request.extend(b"incr 2.1 1\r\n");
                    expected.extend(format!("{counter}\r\n").bytes());
                }
                1 => {
                    request.extend(format!("append 3.{id} 0 0 1\r\n+\r\n").bytes());
                    expected.extend(b"STORED\r\n");
                    values.get_mut(&id).unwrap().push('+');
                }
                _ => {
                    let ids: Vec<_> = (0..=random.below(5))
                        .map(|more| (id + more * 7) % 41)
                        .collect();
                    let verb = ["get", "gat 0"][random.below(2) as usize];
                    request.extend(verb.bytes());
                    for id in &ids {
                        request.extend(format!(" 3.{id}").bytes());
                        if let Some(value) = values.get(id) {
                            let line = format!("VALUE 3.{id} 0 {}\r\n{value}\r\n", value.len());
                            expected.extend(line.bytes());
                        }
                    }
                    request.extend(b"\r\n");
                    expected.extend(b"END\r\n");
                }
            }
        }
        socket.write_all(&request).unwrap();
        let mut replies = vec![0; expected.len()];
        socket.read_exact(&mut replies).unwrap();
        assert!(replies == expected, "seed {seed}, round {round}");
        // Whatever was added to goes away again, to another place.
        if random.below(3) == 0 {
            assert_eq!(client.ask("snapshot").unwrap(), "OK");
        }
    }
    assert!(figure(&mut client, "cold_reads") > 0);
}

/// A value that says whose it is and which, so that no part of another is taken for it.
fn versioned(id: u64, version: u64) -> String {
    format!("<{id}:{version}>").repeat(50 + (version % 400) as usize)
}

fn version_of(id: u64, value: &str) -> u64 {
    let version = value.split([':', '>']).nth(1).unwrap().parse().unwrap();
    assert_eq!(value, versioned(id, version));
    version
}

/// Ends the others, however this one ends.
struct EndOthers<'s>(&'s AtomicBool);

impl Drop for EndOthers<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn values_away_survive_snapshots_moved_files_and_kills_under_load() {
    const IDS: u64 = 60;
    let home = Home::new(config().with("data", "compact_min", "\"1m\""));
    let daemon = home.start();
    let stop = AtomicBool::new(false);
    let write = |stop: &AtomicBool| {
        let mut client = daemon.client();
        let mut acknowledged = vec![0; IDS as usize];
        for version in 1.. {
            let id = version * 7 % IDS;
            let stored = client
                .set(&format!("3.{id}"), &versioned(id, version))
                .unwrap();
            assert_eq!(stored, "STORED");
            acknowledged[id as usize] = version;
            if stop.load(Relaxed) && version > IDS {
                break;
            }
        }
        acknowledged
    };
    let read = |stop: &AtomicBool| {
        let _end = EndOthers(stop);
        let mut client = daemon.client();
        let mut seen = vec![0; IDS as usize];
        while !stop.load(Relaxed) {
            for id in 0..IDS {
                if let Some(value) = client.get(&format!("3.{id}")).unwrap() {
                    let version = version_of(id, &value);
                    assert!(version >= seen[id as usize]);
                    seen[id as usize] = version;
                }
            }
        }
    };
    let acknowledged = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(&stop));
        let reader = scope.spawn(|| read(&stop));
        let end = EndOthers(&stop);
        let mut client = daemon.client();
        for round in 0..8 {
            if round % 2 == 0 {
                let moved = home.path(&format!("moved-{round}"));
                fs::create_dir(&moved).unwrap();
                for entry in fs::read_dir(home.data()).unwrap() {
                    let entry = entry.unwrap();
                    let name = entry.file_name().into_string().unwrap();
                    if name.starts_with("journal-") || name.starts_with("snapshot-") {
                        fs::rename(entry.path(), moved.join(name)).ok();
                    }
                }
                assert_eq!(client.ask("reopen").unwrap(), "OK");
                // Nothing but the new files is needed.
                fs::remove_dir_all(moved).unwrap();
            } else {
                assert_eq!(client.ask("snapshot").unwrap(), "OK");
            }
        }
        drop(end);
        reader.join().unwrap();
        writer.join().unwrap()
    });
    let check = |daemon: &Daemon| {
        let mut client = daemon.client();
        for (id, version) in (0..).zip(&acknowledged) {
            let value = client.get(&format!("3.{id}")).unwrap().unwrap();
            assert_eq!(version_of(id, &value), *version);
        }
    };
    check(&daemon);
    daemon.kill9();
    let daemon = home.start();
    assert_eq!(figure(&mut daemon.client(), "values_away"), IDS);
    check(&daemon);
    assert!(daemon.term().success());
    check(&home.start());
}

#[test]
fn a_damaged_value_is_an_error_that_names_it_and_nothing_else_is_lost() {
    let home = Home::new(config());
    let daemon = home.start();
    let mut client = daemon.client();
    let (bad, good) = ("bad!".repeat(100), "good".repeat(100));
    client.set("3.1", &bad).unwrap();
    client.set("3.2", &good).unwrap();
    until_away(&mut client, 2);
    let path = home.data().join("journal-0000000002");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(bad.len()).position(|it| it == bad.as_bytes());
    bytes[at.unwrap() + 77] ^= 1;
    fs::write(&path, bytes).unwrap();
    let unreadable = |line: &str| {
        line.starts_with("SERVER_ERROR the value of 3.1 cannot be read: journal-0000000002")
            && line.ends_with("restore it with salvage or from a backup, or set it again")
    };
    for request in [
        "get 3.1",
        "gat 0 3.1",
        "gets 3.1 3.2",
        "append 3.1 0 0 1\r\n!",
    ] {
        let reply = client.ask(request).unwrap();
        assert!(unreadable(&reply), "{request}: {reply}");
    }
    client.send(b"get 3.2 3.1 3.2\r\nincr 2.9 1\r\n").unwrap();
    assert_eq!(client.line().unwrap(), "VALUE 3.2 0 400");
    assert_eq!(client.line().unwrap(), good);
    assert!(unreadable(&client.line().unwrap()));
    assert_eq!(client.line().unwrap(), "1");
    assert_eq!(figure(&mut client, "cold_read_errors"), 5);
    daemon.logged(&["3.1", "cannot be read"]);
    // What cannot be copied must not be lost with the file that it is in.
    assert!(client.ask("snapshot").unwrap().starts_with("SERVER_ERROR"));
    assert!(path.exists());
    client.set("3.1", &good).unwrap();
    assert_eq!(client.ask("snapshot").unwrap(), "OK");
    for key in ["3.1", "3.2"] {
        assert_eq!(client.get(key).unwrap().unwrap(), good);
    }
}

/// Clients that wait for values that are not in memory.
const WAITING: usize = 3;
/// Others have at least so many replies meanwhile, one after the other: thousands if all is well.
const ROUND_TRIPS: usize = 20;

#[test]
fn a_slow_read_keeps_nobody_waiting_but_the_client_that_asked() {
    let home = Home::new(config().with("server", "threads", "1"));
    // Only calls for that file are seen, and each that reads it takes two seconds.
    let file = home.data().join("journal-0000000002");
    let file = format!("--trace-path={}", file.display());
    let slow = ["trace=pread64", "inject=pread64:delay_enter=2000000"];
    let home = traced(home, &[&file, "-e", slow[0], "-e", slow[1]]);
    let daemon = home.start();
    let mut other = daemon.client();
    let (old, new) = ("old".repeat(1000), "new");
    for id in 1..=WAITING {
        assert_eq!(other.set(&format!("3.{id}"), &old).unwrap(), "STORED");
    }
    until_away(&mut other, WAITING as u64);
    let answered = AtomicUsize::new(0);
    let round_trips = std::thread::scope(|scope| {
        for id in 1..=WAITING {
            let (mut client, old, answered) = (daemon.client(), &old, &answered);
            let request = format!("incr 4.{id} 1\r\nget 3.{id}\r\n").repeat(2);
            client.send(request.as_bytes()).unwrap();
            // By then the worker has come to the value.
            assert_eq!(client.line().unwrap(), "1");
            scope.spawn(move || {
                let key = format!("3.{id}");
                assert_eq!(client.values().unwrap()[&key], *old);
                answered.fetch_add(1, Relaxed);
                assert_eq!(client.line().unwrap(), "2");
                assert_eq!(client.values().unwrap()[&key], new);
            });
        }
        // Among these requests are writes to the very entries that are being read.
        for id in 1..=WAITING {
            assert_eq!(other.set(&format!("3.{id}"), new).unwrap(), "STORED");
        }
        let mut round_trips = 0;
        while answered.load(Relaxed) == 0 {
            round_trips += 1;
            assert_eq!(other.incr("4.9", 1).unwrap(), round_trips.to_string());
        }
        round_trips
    });
    println!("{round_trips} round trips");
    assert!(round_trips >= ROUND_TRIPS, "only {round_trips} round trips");
    assert_eq!(other.ask("term").unwrap(), "OK");
    assert!(daemon.ended(PATIENCE).success());
    let trace = home.read("trace");
    assert_eq!(trace.matches("(DELAYED)").count(), WAITING, "{trace}");
}

#[test]
fn a_data_set_eight_times_the_memory_limit_is_served() {
    serve_eight_times_the_memory_limit("\"everysec\"");
}

#[test]
fn so_it_is_where_nothing_else_is_synced() {
    serve_eight_times_the_memory_limit("\"never\"");
}

fn serve_eight_times_the_memory_limit(fsync: &str) {
    const VALUES: u64 = 8 << 10;
    const LIMIT: u64 = 16 << 20;
    let home = Home::new(
        Config::bare()
            .with("types", "3", "{ kind = \"DATA\", keep_in_memory = \"1k\" }")
            .with("server", "memory_limit", &LIMIT.to_string())
            .with("server", "threads", "1")
            .with("data", "cache_memory", "\"2m\"")
            .with("data", "fsync", fsync)
            // Nothing leaves memory by way of a snapshot.
            .with("data", "compact_min", "\"1g\""),
    );
    let value = |id: u64| format!("{id:08}").repeat(2048);
    assert_eq!(VALUES * value(0).len() as u64, 8 * LIMIT);
    let mut daemon = home.start();
    let mut client = daemon.client();
    let mut most = 0;
    for id in 0..VALUES {
        until("there is memory again", PATIENCE, || {
            match client.set(&format!("3.{id}"), &value(id)).unwrap().as_str() {
                "STORED" => Some(()),
                refused => {
                    assert_eq!(refused, "SERVER_ERROR out of memory storing object");
                    None
                }
            }
        });
        if id % 64 == 0 {
            most = most.max(resident_kb(&daemon) << 10);
        }
    }
    for start in 0..2 {
        for id in 0..VALUES {
            // A third of the reads is of what was read lately.
            for id in [id, id - id % 8, id / 2] {
                let found = client.get(&format!("3.{id}")).unwrap();
                assert!(found.as_ref() == Some(&value(id)), "3.{id}");
            }
            if id % 64 == 0 {
                most = most.max(resident_kb(&daemon) << 10);
            }
        }
        if start == 0 {
            assert_eq!(client.ask("snapshot").unwrap(), "OK");
            most = most.max(resident_kb(&daemon) << 10);
            assert!(daemon.term().success());
            daemon = home.start();
            client = daemon.client();
            most = most.max(resident_kb(&daemon) << 10);
        }
    }
    assert_eq!(figure(&mut client, "bytes_away"), 8 * LIMIT);
    assert!(figure(&mut client, "cache_bytes") <= 2 << 20);
    // A snapshot needs memory, too, and so does what is on its way to a client.
    println!("at most {} MiB were resident", most >> 20);
    assert!(most < 6 * LIMIT, "{most} bytes were resident");
}
