//! Clients that mean no good, or are many: they cost a bounded amount of memory, and who behaves
//! is served all the same. Each scenario has a short form; the long one, of 10,000 connections, is
//! the same with `STORAGE_SERVER_FLOOD=10000` (and `STORAGE_SERVER_CHURN=100000`).

use std::fmt::Write as _;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

use crate::support::daemon::{quoted, resident_kb};
use crate::support::wire::PATIENCE;
use crate::support::{Client, Config, Daemon, Home, setting, until};

/// What a connection may take: its buffers as `client_memory` says, and what it is itself.
const EACH_KB: u64 = 16 + 4;
/// What is not a connection's: stacks, the allocator's slack, the journal's buffers.
const SLACK_KB: u64 = 48 << 10;

/// True for the long form.
fn is_campaign() -> bool {
    std::env::var_os("STORAGE_SERVER_FLOOD").is_some()
}

fn connections() -> usize {
    let count = setting("STORAGE_SERVER_FLOOD", 300) as usize;
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    count
}

/// A daemon on a TCP address and on a unix socket, for so many clients and a few more.
fn start(clients: usize) -> (Home, Daemon, PathBuf) {
    let mut home = Home::new(Config::standard());
    let socket = home.path("socket");
    home.reconfigure(|config| {
        let unix = quoted(&PathBuf::from(format!("unix:{}", socket.display())));
        config.set("server", "listen", &format!("[{unix}, \"127.0.0.1:0\"]"));
        config.set("server", "max_clients", &(clients + 20).to_string());
        config.set("server", "client_memory", "\"16m\"");
    });
    let daemon = home.start();
    (home, daemon, socket)
}

/// What 2,000 gets of a healthy client take at the 99th percentile, in microseconds.
fn healthy_p99_us(client: &mut Client) -> u128 {
    let mut times: Vec<_> = (0..2000)
        .map(|_| {
            let begun = Instant::now();
            assert_eq!(client.get("2.1").unwrap().as_deref(), Some("7"));
            begun.elapsed().as_micros()
        })
        .collect();
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// Connects until there are so many; the listener's queue may be full for a moment.
fn connect(socket: &PathBuf) -> UnixStream {
    until("a connection", PATIENCE, || {
        match UnixStream::connect(socket) {
            Ok(stream) => Some(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    })
}

fn connected(client: &mut Client) -> usize {
    client.stats("").unwrap()["curr_connections"]
        .parse()
        .unwrap()
}

/// Values of about 1 MiB, as each kind of large reply sends them.
const LARGE: [&str; 4] = ["get 3.1", "mg 3.1 v", "get 1.1", "mg 1.1 k v"];

fn store_large(client: &mut Client) {
    let members: Vec<_> = (0..80_000)
        .map(|id| (4_000_000_000u32 + id).to_string())
        .collect();
    assert_eq!(client.set("1.1", &members.join("\n")).unwrap(), "STORED");
    assert_eq!(client.set("3.1", &"x".repeat(1 << 20)).unwrap(), "STORED");
}

#[test]
fn readers_that_do_not_read_take_bounded_memory() {
    for request in LARGE {
        flood_of_readers(request);
    }
}

fn flood_of_readers(request: &str) {
    let count = connections();
    let (_home, daemon, socket) = start(count);
    let mut healthy = daemon.client();
    assert_eq!(healthy.set("2.1", "7").unwrap(), "STORED");
    store_large(&mut healthy);
    let idle_p99_us = healthy_p99_us(&mut healthy);
    let base_kb = resident_kb(&daemon);
    let begun = Instant::now();
    let readers: Vec<_> = (0..count)
        .map(|_| {
            let mut reader = connect(&socket);
            reader.set_nonblocking(true).unwrap();
            // What does not go at once is not sent: the server reads no more than it may.
            let _ = reader.write(format!("{request}\r\n").repeat(1000).as_bytes());
            reader
        })
        .collect();
    until("all have come", PATIENCE, || {
        // The first may have been closed again.
        let stats = healthy.stats("").unwrap();
        (stats["total_connections"].parse::<usize>().unwrap() > count).then_some(())
    });
    let mut before = (String::new(), 0);
    until(
        "the server has done what it can for them",
        Duration::from_mins(1),
        || {
            let yields = healthy.stats("").unwrap()["conn_yields"].clone();
            let same = if yields == before.0 { before.1 + 1 } else { 0 };
            before = (yields, same);
            (same == 50).then_some(())
        },
    );
    let p99_us = healthy_p99_us(&mut healthy);
    let taken_kb = resident_kb(&daemon).saturating_sub(base_kb);
    println!(
        "{count} readers that do not read `{request}`: {taken_kb} KiB; p99 of others {p99_us} \
         us, without them {idle_p99_us} us"
    );
    assert!(
        taken_kb <= (16 << 10) + EACH_KB * count as u64 + SLACK_KB,
        "{request}: {taken_kb} KiB"
    );
    if is_campaign() {
        until("all are closed", Duration::from_secs(90), || {
            (connected(&mut healthy) == 1).then_some(())
        });
        println!(
            "all closed {} s after the first came",
            begun.elapsed().as_secs()
        );
    }
    drop(readers);
}

/// Everything up to the end of the last reply, which nothing else ends with.
fn read_to(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let (mut all, mut piece) = (Vec::new(), vec![0; 64 << 10]);
    while !all.ends_with(end) {
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "{} bytes", all.len());
        all.extend_from_slice(&piece[..count]);
    }
    all
}

#[test]
fn large_replies_that_come_in_pieces_are_whole_and_in_order() {
    let (_home, daemon, _) = start(1);
    store_large(&mut daemon.client());
    let mut stream = TcpStream::connect(daemon.addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut sent, mut expected) = (String::new(), String::new());
    let members: Vec<_> = (0..80_000)
        .map(|id| format!("{} 0", 4_000_000_000u32 + id))
        .collect();
    let (index, data) = (members.join("\n"), "x".repeat(1 << 20));
    for round in 0..3 {
        for request in LARGE
            .into_iter()
            .chain(["mg 3.1 T0 v", "gat 0 1.1 3.1", "get 1.1 9 3.1"])
        {
            write!(
                sent,
                "{request}\r\nset name 0 0 1\r\n{round}\r\nmg name v\r\n"
            )
            .unwrap();
            let block =
                |key: &str, value: &str| format!("VALUE {key} 0 {}\r\n{value}\r\n", value.len());
            let reply = match request {
                "get 3.1" => block("3.1", &data) + "END\r\n",
                "get 1.1" => block("1.1", &index) + "END\r\n",
                "mg 1.1 k v" => format!("VA {} k1.1\r\n{index}\r\n", index.len()),
                "mg 3.1 v" | "mg 3.1 T0 v" => format!("VA {}\r\n{data}\r\n", data.len()),
                _ => block("1.1", &index) + &block("3.1", &data) + "END\r\n",
            };
            write!(expected, "{reply}STORED\r\nVA 1\r\n{round}\r\n").unwrap();
        }
    }
    sent += "mn\r\n";
    expected += "MN\r\n";
    stream.write_all(sent.as_bytes()).unwrap();
    let found = read_to(&mut stream, b"MN\r\n");
    assert_eq!(found.len(), expected.len());
    let differs = found
        .iter()
        .zip(expected.as_bytes())
        .position(|(one, other)| one != other);
    assert_eq!(differs, None);
}

#[test]
fn writers_that_trickle_take_what_they_have_sent() {
    let count = connections();
    let (_home, daemon, socket) = start(count);
    let mut healthy = daemon.client();
    assert_eq!(healthy.set("2.1", "7").unwrap(), "STORED");
    let base_kb = resident_kb(&daemon);
    let mut writers: Vec<_> = (0..count)
        .map(|number| {
            let mut writer = connect(&socket);
            writeln!(writer, "set 3.{number} 0 0 1048576\r").unwrap();
            writer
        })
        .collect();
    for _ in 0..3 {
        for writer in &mut writers {
            writer.write_all(b"x").unwrap();
        }
        assert_eq!(healthy.get("2.1").unwrap().as_deref(), Some("7"));
    }
    let taken_kb = resident_kb(&daemon).saturating_sub(base_kb);
    println!("{count} writers of 1 MiB, a byte at a time: {taken_kb} KiB");
    assert!(taken_kb <= 16 * count as u64 + SLACK_KB, "{taken_kb} KiB");
    // Those that send most of it and stop take what there is for all, and no more.
    let most = vec![b'x'; 1 << 20];
    for writer in &mut writers {
        writer.set_nonblocking(true).unwrap();
        let _ = writer.write(&most[..most.len() - 100]);
    }
    assert_eq!(healthy.get("2.1").unwrap().as_deref(), Some("7"));
    let taken_kb = resident_kb(&daemon).saturating_sub(base_kb);
    println!("{count} writers that stop before the end: {taken_kb} KiB");
    assert!(
        taken_kb <= (16 << 10) + EACH_KB * count as u64 + SLACK_KB,
        "{taken_kb} KiB"
    );
}

#[test]
fn large_requests_of_many_all_get_through_little_memory() {
    const WRITERS: usize = 40;
    let (_home, daemon, _) = start(WRITERS);
    let value = "x".repeat(1 << 20);
    std::thread::scope(|scope| {
        for number in 0..WRITERS {
            let (daemon, value) = (&daemon, &value);
            scope.spawn(move || {
                let mut client = daemon.client();
                let key = format!("3.{number}");
                assert_eq!(client.set(&key, value).unwrap(), "STORED");
                assert!(client.get(&key).unwrap().as_ref() == Some(value));
            });
        }
    });
}

#[test]
fn idle_connections_are_cheap() {
    let count = connections();
    let (_home, daemon, socket) = start(count);
    let mut healthy = daemon.client();
    assert_eq!(healthy.set("2.1", "7").unwrap(), "STORED");
    let base_kb = resident_kb(&daemon);
    let streams: Vec<_> = (0..count)
        .map(|_| {
            let mut stream = connect(&socket);
            ask(&mut stream);
            stream
        })
        .collect();
    let taken_kb = resident_kb(&daemon).saturating_sub(base_kb);
    println!(
        "{count} idle connections: {} bytes each",
        taken_kb * 1024 / count as u64
    );
    // Beside what the first requests take once.
    assert!(taken_kb <= 2 * count as u64 + 512, "{taken_kb} KiB");
    drop(streams);
}

/// A request and its answer.
fn ask(stream: &mut (impl Read + Write)) {
    stream.write_all(b"get 2.1\r\n").unwrap();
    let mut reply = [0; 23];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"VALUE 2.1 0 1\r\n7\r\nEND\r\n");
}

/// Asks again and again until it is told to stop: how often, and how long the answers took.
fn bystander(mut client: Client, stop: &AtomicBool) -> String {
    let mut times = Vec::new();
    while !stop.load(Relaxed) {
        let begun = Instant::now();
        assert_eq!(client.get("2.1").unwrap().as_deref(), Some("7"));
        times.push(begun.elapsed().as_micros());
        std::thread::sleep(Duration::from_millis(1));
    }
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 1000];
    format!(
        "{} gets of a bystander: median {} us, p99 {} us, slowest {} us",
        times.len(),
        at(500),
        at(990),
        at(1000)
    )
}

#[test]
fn clients_too_many_are_told_and_the_others_go_on() {
    let (cap, churn) = (connections(), setting("STORAGE_SERVER_CHURN", 3000));
    let beyond = churn as usize / 20;
    let (mut home, daemon, socket) = start(cap);
    drop(daemon);
    home.reconfigure(|config| config.set("server", "max_clients", &(cap + 2).to_string()));
    let daemon = home.start();
    let mut first = daemon.client();
    assert_eq!(first.set("2.1", "7").unwrap(), "STORED");
    let mut kept: Vec<_> = (0..cap).map(|_| connect(&socket)).collect();
    let other = daemon.client();
    until("all are connected", PATIENCE, || {
        (connected(&mut first) == cap + 2).then_some(())
    });
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let bystander = scope.spawn(|| bystander(other, &stop));
        // All of them at once, and each is told.
        let mut refused: Vec<_> = (0..beyond).map(|_| connect(&socket)).collect();
        for stream in &mut refused {
            let mut said = String::new();
            stream.read_to_string(&mut said).unwrap();
            assert_eq!(said, "ERROR Too many open connections\r\n");
        }
        kept.iter_mut().for_each(ask);
        stop.store(true, Relaxed);
        let told = bystander.join().unwrap();
        println!("{beyond} clients beyond {}: {told}", cap + 2);
    });
    let stats = first.stats("").unwrap();
    assert_eq!(stats["rejected_connections"], beyond.to_string());
    drop(kept);
    until("nobody else is left", PATIENCE, || {
        (connected(&mut first) == 1).then_some(())
    });
    let (begun, stop, other) = (Instant::now(), AtomicBool::new(false), daemon.client());
    std::thread::scope(|scope| {
        let bystander = scope.spawn(|| bystander(other, &stop));
        for _ in 0..churn {
            drop(TcpStream::connect(daemon.addr()).unwrap());
        }
        stop.store(true, Relaxed);
        let (told, took) = (bystander.join().unwrap(), begun.elapsed());
        println!("{churn} connections opened and closed in {took:?}: {told}");
    });
    until("nobody else is left", PATIENCE, || {
        (connected(&mut first) == 1).then_some(())
    });
}

/// What the daemon has used of the processor, in hundredths of a second.
fn cpu_ticks(daemon: &Daemon) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    // The name, in parentheses, may have spaces.
    let (_, words) = stat.rsplit_once(')').unwrap();
    let word = |at: usize| -> u64 { words.split_whitespace().nth(at).unwrap().parse().unwrap() };
    word(11) + word(12)
}

#[test]
fn without_descriptors_the_others_go_on_and_nothing_spins() {
    const WAITING: usize = 20;
    let (_home, daemon, socket) = start(100);
    let mut kept: Vec<_> = (0..20).map(|_| daemon.client()).collect();
    assert_eq!(kept[0].set("2.1", "7").unwrap(), "STORED");
    until("all are connected", PATIENCE, || {
        (connected(&mut kept[0]) == 20).then_some(())
    });
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).unwrap());
    let before = prlimit(pid, Resource::Nofile, getrlimit(Resource::Nofile)).unwrap();
    let none = Rlimit {
        current: Some(3),
        ..before
    };
    prlimit(pid, Resource::Nofile, none).unwrap();
    let mut waiting: Vec<_> = (0..WAITING)
        .map(|at| -> Box<dyn ReadWrite> {
            if at % 2 == 0 {
                Box::new(connect(&socket))
            } else {
                Box::new(TcpStream::connect(daemon.addr()).unwrap())
            }
        })
        .collect();
    daemon.logged(&["accepting pauses"]);
    for client in &mut kept {
        assert_eq!(client.get("2.1").unwrap().as_deref(), Some("7"));
    }
    let (ticks, begun) = (cpu_ticks(&daemon), Instant::now());
    std::thread::sleep(Duration::from_secs(3));
    let (ticks, elapsed) = (cpu_ticks(&daemon) - ticks, begun.elapsed());
    let percent = ticks as f64 / elapsed.as_secs_f64();
    for client in &mut kept {
        assert_eq!(client.get("2.1").unwrap().as_deref(), Some("7"));
    }
    assert_eq!(connected(&mut kept[0]), 20);
    let begun = Instant::now();
    prlimit(pid, Resource::Nofile, before).unwrap();
    for stream in &mut waiting {
        ask(stream);
    }
    println!(
        "without descriptors: {percent:.1} % of a processor; all served {:?} after there were some",
        begun.elapsed()
    );
    // It is the daemon's own time: others that need the processor make it no more.
    assert!(percent < 5.0, "{percent} %");
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

#[test]
fn large_replies_leave_nothing_behind() {
    const LARGE: &[u8] = b"get 3.1\r\n";
    let mut home = Home::new(Config::standard());
    home.reconfigure(|config| config.set("server", "client_memory", "\"4m\""));
    let daemon = home.start();
    let mut client = daemon.client();
    let value = "x".repeat(1 << 20);
    let pauses = |client: &mut Client| {
        let before: u64 = client.stats("").unwrap()["conn_yields"].parse().unwrap();
        assert_eq!(client.get("3.1").unwrap().as_deref(), Some(value.as_str()));
        let after: u64 = client.stats("").unwrap()["conn_yields"].parse().unwrap();
        after - before
    };
    assert_eq!(client.set("3.1", &value).unwrap(), "STORED");
    let with_room = pauses(&mut client);
    for _ in 0..20 {
        assert_eq!(client.set("3.1", &value).unwrap(), "STORED");
        pauses(&mut client);
        // One that goes away with its replies unread.
        let mut gone = TcpStream::connect(daemon.addr()).unwrap();
        gone.write_all(&LARGE.repeat(20)).unwrap();
        gone.read_exact(&mut [0; 100]).unwrap();
    }
    until("nothing is held", PATIENCE, || {
        let stats = client.stats("").unwrap();
        let held = ["client_input_bytes", "client_output_bytes"].map(|name| stats[name].clone());
        (held == ["0", "0"]).then_some(())
    });
    assert_eq!(pauses(&mut client), with_room, "there is as much room");
}

#[test]
fn a_client_that_reads_slowly_is_not_silent() {
    const REPLIES: usize = 40;
    let home = Home::new(Config::standard().with("server", "idle_timeout", "1"));
    let daemon = home.start();
    let mut other = daemon.client();
    let value = "x".repeat(1 << 20);
    assert_eq!(other.set("3.1", &value).unwrap(), "STORED");
    let mut slow = daemon.client();
    slow.send(&b"get 3.1\r\n".repeat(REPLIES)).unwrap();
    let uptime = |client: &mut Client| -> u64 {
        let stats = client.stats("").unwrap();
        stats["uptime"].parse().unwrap()
    };
    let begun = uptime(&mut other);
    until("four times as long", PATIENCE, || {
        (uptime(&mut other) > begun + 4).then_some(())
    });
    for _ in 0..REPLIES {
        let found = slow.values().unwrap();
        assert!(found["3.1"] == value);
    }
    // It is once it has read everything.
    let end = slow.line().unwrap_err();
    assert_eq!(end.kind(), ErrorKind::UnexpectedEof, "{end}");
}

#[test]
fn a_soft_limit_of_descriptors_is_raised_as_far_as_it_may() {
    let home = Home::new(Config::standard()).started_by(&[
        "sh",
        "-c",
        "ulimit -S -n 3000; ulimit -H -n 4000; exec \"$0\" \"$@\"",
    ]);
    let daemon = home.start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let words: Vec<_> = line.unwrap().split_whitespace().collect();
    assert_eq!(words[3..5], ["4000", "4000"], "{limits}");
}

#[test]
fn fewer_descriptors_than_clients_are_told_and_kept_to() {
    let mut home = Home::new(Config::standard()).started_by(&[
        "sh",
        "-c",
        "ulimit -n 200; exec \"$0\" \"$@\"",
    ]);
    home.reconfigure(|config| {
        config.set("server", "max_clients", "1000");
        config.set("server", "threads", "10");
    });
    let daemon = home.start();
    daemon.logged(&[
        "max_clients = 1000 needs 1168 file descriptors",
        "32 clients are served",
    ]);
    let mut kept: Vec<_> = (0..32).map(|_| daemon.client()).collect();
    until("all are connected", PATIENCE, || {
        (connected(&mut kept[0]) == 32).then_some(())
    });
    assert_eq!(
        daemon.client().line().unwrap(),
        "ERROR Too many open connections"
    );
    kept.truncate(1);
    until("there is room again", PATIENCE, || {
        let mut client = daemon.client();
        client
            .ask("get 2.1")
            .is_ok_and(|line| line == "END")
            .then_some(())
    });
}

/// A client that asks for `keys` and does not read.
fn ask_and_leave_unread(socket: &PathBuf, keys: &[String]) -> UnixStream {
    let mut stream = connect(socket);
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(format!("get {}\r\n", keys.join(" ")).as_bytes())
        .unwrap();
    stream
}

#[test]
fn what_retrievals_of_many_keys_find_takes_bounded_memory() {
    const READERS: usize = 60;
    let (_home, daemon, socket) = start(READERS);
    let mut healthy = daemon.client();
    assert_eq!(healthy.set("2.1", "7").unwrap(), "STORED");
    let base_kb = resident_kb(&daemon);
    let keys = vec!["2.1".to_owned(); 32 << 10];
    let readers: Vec<_> = (0..READERS)
        .map(|_| ask_and_leave_unread(&socket, &keys))
        .collect();
    let begun = Instant::now();
    let mut most_kb = 0;
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(healthy.get("2.1").unwrap().as_deref(), Some("7"));
        most_kb = most_kb.max(resident_kb(&daemon).saturating_sub(base_kb));
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("{READERS} readers of 32,768 keys that do not read: {most_kb} KiB");
    assert!(
        most_kb <= (16 << 10) + EACH_KB * READERS as u64 + SLACK_KB,
        "{most_kb} KiB"
    );
    // Those that are in the way go, so that others get their turn.
    daemon.logged(&["closed: replies are read too slowly"]);
    drop(readers);
    until("all are closed", PATIENCE, || {
        (connected(&mut healthy) == 1).then_some(())
    });
    let found = healthy.stats("").unwrap();
    assert_eq!(found["client_output_bytes"], "0");
}

#[test]
fn who_keeps_replaced_values_alive_reads_or_is_closed() {
    const READERS: usize = 30;
    let (_home, daemon, socket) = start(READERS);
    let mut healthy = daemon.client();
    let keys: Vec<_> = (0..100).map(|id| format!("3.{id}")).collect();
    let store = |healthy: &mut Client, byte: u8| {
        let value = String::from(char::from(byte)).repeat(30_000);
        for key in &keys {
            assert_eq!(healthy.set(key, &value).unwrap(), "STORED");
        }
    };
    let mut readers = Vec::new();
    for reader in 0..READERS {
        store(&mut healthy, b'a' + reader as u8 % 26);
        let mut stream = ask_and_leave_unread(&socket, &keys);
        stream.read_exact(&mut [0; 10]).unwrap();
        readers.push(stream);
    }
    // A byte now and then is not to read.
    until("all are closed", Duration::from_mins(1), || {
        for reader in &mut readers {
            let _ = reader.read(&mut [0]);
        }
        std::thread::sleep(Duration::from_millis(100));
        (connected(&mut healthy) == 1).then_some(())
    });
    let found = healthy.get_many(&keys).unwrap();
    assert_eq!(found.len(), keys.len());
}

#[test]
fn a_request_that_trickles_in_for_ever_is_given_up() {
    let home = Home::new(Config::standard().with("server", "idle_timeout", "2"));
    let daemon = home.start();
    for begin in ["get 3.", "set 3.1 0 0 1000\r\n", "set 3.1 0 0 1000000\r\n"] {
        let mut stream = TcpStream::connect(daemon.addr()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        stream.write_all(begin.as_bytes()).unwrap();
        let begun = Instant::now();
        until("it is closed", PATIENCE, || {
            let sent = stream.write_all(b"1");
            let read = stream.read(&mut [0; 10]);
            let goes_on = |error: &std::io::Error| error.kind() == ErrorKind::WouldBlock;
            (sent.is_err() || !read.is_err_and(|error| goes_on(&error))).then_some(())
        });
        assert!(begun.elapsed() > Duration::from_secs(2), "{begin:?}");
        daemon.logged(&["closed: a request does not arrive"]);
    }
    // One that asks and asks is not idle, however little it sends at a time.
    let mut client = daemon.client();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        for byte in b"get 3.1\r\n" {
            client.send(&[*byte]).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(client.line().unwrap(), "END");
    }
}
