//! A large store comes back from disk: a million counters and ten thousand indexes.

use std::fmt::Write as _;
use std::time::Instant;

use crate::support::client::mset_bytes;
use crate::support::{Client, Config, Daemon, Home};

const COUNTERS: u64 = 1_000_000;
const INDEXES: u64 = 10_000;
const MEMBERS: u64 = 100;
/// How many counters go into one `mset`, and come back with one `get`.
const BATCH: u64 = 500;

fn counter(id: u64) -> (String, String) {
    (
        format!("2.{id}"),
        (id * 2_654_435_761 % (1 << 32)).to_string(),
    )
}

fn index(id: u64) -> (String, String) {
    let mut members = String::new();
    for member in 0..MEMBERS {
        let line_end = if member == 0 { "" } else { "\n" };
        write!(
            members,
            "{line_end}{} {}",
            10_000_000 + id * 7 + member * 3,
            member % 3
        )
        .unwrap();
    }
    (format!("1.{id}"), members)
}

fn fill(client: &mut Client) {
    let mut request = Vec::new();
    for first in (0..COUNTERS).step_by(usize::try_from(BATCH).unwrap()) {
        let items: Vec<_> = (first..first + BATCH).map(counter).collect();
        request.extend_from_slice(&mset_bytes(&items));
    }
    for id in 0..INDEXES {
        let (key, members) = index(id);
        let length = members.len();
        request.extend_from_slice(format!("set {key} 0 0 {length}\r\n{members}\r\n").as_bytes());
    }
    let replies = usize::try_from(COUNTERS / BATCH + INDEXES).unwrap();
    let stored = client.pipeline(&request, replies).unwrap();
    assert!(stored.iter().all(|reply| reply == "STORED"));
}

fn check(client: &mut Client) {
    let mut compare = |entry: fn(u64) -> (String, String), ids: u64| {
        for first in (0..ids).step_by(usize::try_from(BATCH).unwrap()) {
            let expected: Vec<_> = (first..first + BATCH).map(entry).collect();
            let keys: Vec<_> = expected.iter().map(|(key, _)| key.clone()).collect();
            let mut found = client.get_many(&keys).unwrap();
            for (key, value) in expected {
                assert_eq!(found.remove(&key), Some(value), "{key}");
            }
        }
    };
    compare(counter, COUNTERS);
    compare(index, INDEXES);
    let items = &client.stats("").unwrap()["curr_items"];
    assert_eq!(*items, (COUNTERS + INDEXES).to_string());
}

/// Starts again, and reads in the log what the start took and found.
fn start_again(home: &Home, how: &str) -> Daemon {
    let began = Instant::now();
    let daemon = home.start();
    let line = daemon.logged(&["replay", "complete", "duration"]);
    // Entries of the snapshot and records of the journal; each batch was one record.
    let number = |name: &str| {
        let (_, rest) = line.split_once(name).expect(name);
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap();
        digits.parse::<u64>().unwrap()
    };
    let found = number("entries=") + number("records=");
    assert!(found >= COUNTERS / BATCH + INDEXES, "no counts: {line}");
    println!("{how}: listening after {:?}: {line}", began.elapsed());
    daemon
}

#[test]
fn a_million_counters_and_ten_thousand_indexes_survive_a_restart() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    let began = Instant::now();
    fill(&mut daemon.client());
    println!("loaded within {:?}", began.elapsed());
    daemon.kill9();
    let daemon = start_again(&home, "after kill -9");
    check(&mut daemon.client());
    assert!(daemon.term().success());
    let daemon = start_again(&home, "after TERM");
    check(&mut daemon.client());
}

#[test]
fn every_property_of_an_entry_survives_a_restart() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    let mut client = daemon.client();
    for request in [
        "set 2.1 7 0 2\r\n41",
        "set 2.2 0 2000000000 2\r\n42",
        "set 6.1 0 0 20\r\n18446744073709551615",
        "set 1.1 9 2000000000 9\r\n1\n2 5\n3 6",
        "set 1.2 0 0 0\r\n",
        "set 3.1 4294967295 0 4\r\n\0\u{1}\r\n",
        "set name 3 2000000000 5\r\nvalue",
        "append 3.1 0 0 1\r\n!",
        "set gone 0 0 1\r\nx",
        "set late 0 0 1\r\nx",
    ] {
        assert_eq!(client.ask(request).unwrap(), "STORED", "{request}");
    }
    assert_eq!(client.ask("delete gone").unwrap(), "DELETED");
    assert_eq!(client.ask("touch late -1").unwrap(), "TOUCHED");
    assert_eq!(client.incr("1.1", 3).unwrap(), "3");
    let everything = "gets 2.1 2.2 2.3 6.1 1.1 1.2 3.1 name gone late\r\n";
    let read = |client: &mut Client| {
        client.send(everything.as_bytes()).unwrap();
        let mut lines = Vec::new();
        while lines.last().map(String::as_str) != Some("END") {
            lines.push(client.line().unwrap());
        }
        lines
    };
    let before = read(&mut client);
    assert_eq!(
        before
            .iter()
            .filter(|line| line.starts_with("VALUE"))
            .count(),
        8,
        "{before:?}"
    );
    daemon.kill9();
    let daemon = home.start();
    assert_eq!(read(&mut daemon.client()), before, "after kill -9");
    assert!(daemon.term().success());
    let daemon = home.start();
    let mut client = daemon.client();
    assert_eq!(read(&mut client), before, "after TERM");
    assert_eq!(client.ask("reopen").unwrap(), "OK");
    daemon.kill9();
    let daemon = home.start();
    let mut client = daemon.client();
    assert_eq!(read(&mut client), before, "after reopen and kill -9");

    // A cas unique that was given out before the restart still means the same, and is not
    // given out again.
    let unique = |line: &str| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    let line = before
        .iter()
        .find(|line| line.starts_with("VALUE name "))
        .unwrap();
    let old = unique(line);
    assert_eq!(
        client.ask(&format!("cas name 0 0 1 {old}\r\nn")).unwrap(),
        "STORED"
    );
    client.send(b"gets name\r\n").unwrap();
    let new = unique(&client.line().unwrap());
    let largest = before
        .iter()
        .filter(|line| line.starts_with("VALUE") && !line.contains(" 2.") && !line.contains(" 6."))
        .map(|line| unique(line))
        .max();
    assert!(
        Some(new) > largest,
        "{new} may have been given out before: {largest:?}"
    );
}

#[test]
fn an_entry_that_expires_while_the_daemon_is_down_is_gone() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    let mut client = daemon.client();
    client.ask("set 2.1 0 1 1\r\n5").unwrap();
    client.ask("set 1.1 0 1 1\r\n5").unwrap();
    client.ask("set name 0 1 1\r\n5").unwrap();
    client.ask("set 2.2 0 100 1\r\n5").unwrap();
    daemon.kill9();
    let keys = ["2.1", "1.1", "name", "2.2"].map(str::to_owned);
    let daemon = home.start();
    crate::support::until(
        "the end of three entries",
        crate::support::wire::PATIENCE,
        || {
            let found = daemon.client().get_many(&keys).unwrap();
            (found.len() == 1).then_some(())
        },
    );
    daemon.kill9();
    let daemon = home.start();
    let mut client = daemon.client();
    assert_eq!(
        client
            .get_many(&keys)
            .unwrap()
            .into_keys()
            .collect::<Vec<_>>(),
        ["2.2"]
    );
    assert_eq!(client.incr("2.1", 1).unwrap(), "1");
    assert_eq!(client.incr("1.1", 1).unwrap(), "NOT_FOUND");
}

#[test]
fn flush_all_survives_a_restart_and_so_does_its_delay() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    let mut client = daemon.client();
    client.set("2.1", "5").unwrap();
    client.set("name", "5").unwrap();
    assert_eq!(client.ask("flush_all").unwrap(), "OK");
    client.set("2.2", "6").unwrap();
    assert_eq!(client.ask("flush_all 1").unwrap(), "OK");
    daemon.kill9();
    let daemon = home.start();
    let mut client = daemon.client();
    assert_eq!(client.get("2.1").unwrap(), None);
    assert_eq!(client.get("name").unwrap(), None);
    crate::support::until("the flush", crate::support::wire::PATIENCE, || {
        client.get("2.2").unwrap().is_none().then_some(())
    });
}
