//! Clients that mean no good, or are many: they cost a bounded amount of memory, and who behaves
//! is served all the same. Each scenario has a short form; the long one, of 10,000 connections, is
//! the same with `STORAGE_SERVER_FLOOD=10000` (and `STORAGE_SERVER_CHURN=100000`).

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::support::daemon::quoted;
use crate::support::wire::PATIENCE;
use crate::support::{Client, Config, Daemon, Home, setting, until};

/// What a connection may take: its buffers as `client_memory` says, and what it is itself.
const EACH_KB: u64 = 16 + 4;
/// What is not a connection's: stacks, the allocator's slack, the journal's buffers.
const SLACK_KB: u64 = 48 << 10;

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

/// Resident memory, in KiB.
fn resident_kb(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
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

#[test]
fn readers_that_do_not_read_take_bounded_memory() {
    let count = connections();
    let (_home, daemon, socket) = start(count);
    let mut healthy = daemon.client();
    assert_eq!(healthy.set("2.1", "7").unwrap(), "STORED");
    assert_eq!(healthy.set("3.1", &"x".repeat(1 << 20)).unwrap(), "STORED");
    let idle_p99_us = healthy_p99_us(&mut healthy);
    let base_kb = resident_kb(&daemon);
    let begun = Instant::now();
    let readers: Vec<_> = (0..count)
        .map(|_| {
            let mut reader = connect(&socket);
            reader.set_nonblocking(true).unwrap();
            // What does not go at once is not sent: the server reads no more than it may.
            let _ = reader.write(&b"get 3.1\r\n".repeat(1000));
            reader
        })
        .collect();
    until("all are connected", PATIENCE, || {
        (connected(&mut healthy) > count).then_some(())
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
        "{count} readers that do not read: {taken_kb} KiB; p99 of others {p99_us} us, without \
         them {idle_p99_us} us"
    );
    assert!(
        taken_kb <= (16 << 10) + EACH_KB * count as u64 + SLACK_KB,
        "{taken_kb} KiB"
    );
    if std::env::var_os("STORAGE_SERVER_FLOOD").is_some() {
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
            stream.write_all(b"get 2.1\r\n").unwrap();
            let mut reply = [0; 24];
            stream.read_exact(&mut reply[..22]).unwrap();
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

#[test]
fn one_client_too_many_is_told_and_the_others_go_on() {
    let churn = setting("STORAGE_SERVER_CHURN", 3000);
    let beyond = churn / 20;
    let mut home = Home::new(Config::standard());
    home.reconfigure(|config| config.set("server", "max_clients", "50"));
    let daemon = home.start();
    let mut kept: Vec<_> = (0..50).map(|_| daemon.client()).collect();
    assert_eq!(kept[0].set("2.1", "7").unwrap(), "STORED");
    until("all are connected", PATIENCE, || {
        (connected(&mut kept[0]) == 50).then_some(())
    });
    for _ in 0..beyond {
        let mut stream = TcpStream::connect(daemon.addr()).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(said, "ERROR Too many open connections\r\n");
    }
    for client in &mut kept {
        assert_eq!(client.get("2.1").unwrap().as_deref(), Some("7"));
    }
    let stats = kept[0].stats("").unwrap();
    assert_eq!(stats["rejected_connections"], beyond.to_string());
    kept.truncate(1);
    let begun = Instant::now();
    for _ in 0..churn {
        drop(TcpStream::connect(daemon.addr()).unwrap());
    }
    assert_eq!(kept[0].get("2.1").unwrap().as_deref(), Some("7"));
    println!(
        "{churn} connections opened and closed in {:?}",
        begun.elapsed()
    );
    until("nobody else is left", PATIENCE, || {
        (connected(&mut kept[0]) == 1).then_some(())
    });
}

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
