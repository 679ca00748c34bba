//! The model test: random commands over all types from several connections, with the daemon
//! killed at random moments. For every group of keys there must be one order of all requests
//! that explains all replies, before and after the crashes; a fan-out or an `mset` is all there
//! or not at all, also one that a crash left without an answer. Whatever the group, a `flush_all`
//! has its place in the order.
//!
//! `STORAGE_SERVER_HISTORIES` sets how many crashes (60), `STORAGE_SERVER_SEED` repeats a run.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use crate::support::linear::{Ask, Op, Reply, State, after, line};
use crate::support::{Client, Config, Home, Random, setting};

const CONNECTIONS: u64 = 6;
/// Requests of different groups have nothing to do with each other.
const GROUPS: u64 = 6;

/// The keys of a group: two indexes, the counters that are their members, a counter of 64 bits,
/// DATA and a named key.
struct Group(u64);

impl Group {
    fn index(&self, random: &mut Random) -> String {
        format!("1.{}", self.0 * 2 + random.below(2))
    }

    fn id(&self, random: &mut Random) -> u64 {
        self.0 * 10 + random.below(4)
    }

    fn counter(&self, random: &mut Random) -> String {
        match random.below(5) {
            0 => format!("6.{}", self.0),
            _ => format!("2.{}", self.id(random)),
        }
    }

    fn bytes(&self, random: &mut Random) -> String {
        if random.one_in(2) {
            format!("3.{}", self.0)
        } else {
            format!("name{}", self.0)
        }
    }

    fn keys(&self) -> Vec<String> {
        let mut keys: Vec<_> = (0..4).map(|n| format!("2.{}", self.0 * 10 + n)).collect();
        keys.extend((0..2).map(|n| format!("1.{}", self.0 * 2 + n)));
        keys.extend([
            format!("6.{}", self.0),
            format!("3.{}", self.0),
            format!("name{}", self.0),
        ]);
        keys
    }

    fn body(&self, key: &str, random: &mut Random) -> String {
        let members = |random: &mut Random| {
            let lines = (0..random.below(4))
                .map(|_| format!("{} {}", self.id(random), random.below(3)))
                .collect::<Vec<_>>();
            lines.join("\n")
        };
        match key.split_once('.') {
            Some(("1", _)) => members(random),
            Some(("2" | "6", _)) => random.below(1000).to_string(),
            // Sometimes longer than any buffer on the way.
            _ => {
                let length = if random.one_in(100) { 50_000 } else { 9 };
                "x".repeat(random.below(length) as usize)
            }
        }
    }

    fn any(&self, random: &mut Random) -> String {
        let keys = self.keys();
        keys[random.below(keys.len() as u64) as usize].clone()
    }

    /// `unique` is the last cas unique that this connection saw, and of which key.
    fn ask(&self, random: &mut Random, unique: Option<&(String, u64)>) -> Ask {
        let delta = |random: &mut Random| [1, 5, -1, -3][random.below(4) as usize];
        let key = self.any(random);
        let body = self.body(&key, random);
        match random.below(26) {
            0..4 => Ask::Add(self.counter(random), delta(random)),
            4..7 => Ask::FanOut(self.index(random), delta(random)),
            7..9 => Ask::Get(self.keys()),
            9..11 => Ask::Get(vec![self.bytes(random)]),
            11..13 => match unique {
                Some((key, unique)) => Ask::Cas(key.clone(), self.body(key, random), *unique),
                None => Ask::Get(vec![self.index(random)]),
            },
            13..15 => Ask::Store("set", key, body),
            15 => Ask::Store(["add", "replace"][random.below(2) as usize], key, body),
            16..19 => {
                let key = if random.one_in(3) {
                    self.bytes(random)
                } else {
                    self.index(random)
                };
                let body = self.body(&key, random);
                Ask::Store(["append", "prepend"][random.below(2) as usize], key, body)
            }
            19..21 => {
                let keys = [self.counter(random), self.bytes(random), self.index(random)];
                let items = keys.map(|key| {
                    let body = self.body(&key, random);
                    (key, body)
                });
                Ask::Mset(items.to_vec())
            }
            21..23 => Ask::Delete(key),
            23 => Ask::Touch(key),
            24 => Ask::Expire(key),
            // Not so often that there is nothing left to ask for.
            _ if random.one_in(8) => Ask::FlushAll,
            _ => Ask::Get(self.keys()),
        }
    }
}

fn answer(client: &mut Client, ask: &Ask) -> io::Result<Reply> {
    client.send(&ask.bytes())?;
    match ask {
        Ask::Get(_) => client.entries().map(Reply::Entries),
        _ => client.line().map(Reply::Line),
    }
}

/// A connection: what it asked of each group, until it broke or was told to stop.
fn converse(
    addr: SocketAddr,
    random: &mut Random,
    moments: &AtomicU64,
    stop: &AtomicBool,
) -> Vec<(u64, Op)> {
    let mut asked = Vec::new();
    let Ok(mut client) = Client::connect(addr) else {
        return asked;
    };
    let mut uniques = vec![None; GROUPS as usize];
    while !stop.load(SeqCst) {
        let group = random.below(GROUPS);
        let unique = &mut uniques[group as usize];
        let ask = Group(group).ask(random, unique.as_ref());
        let sent = moments.fetch_add(1, SeqCst);
        let reply = answer(&mut client, &ask).ok();
        let until = moments.fetch_add(1, SeqCst);
        if let Some(Reply::Entries(entries)) = &reply {
            let typed = |key: &str| key.starts_with("2.") || key.starts_with("6.");
            let mut found = entries.iter().filter(|(key, _)| !typed(key));
            *unique = found
                .next()
                .and_then(|(key, entry)| Some((key.clone(), entry.cas?)));
        }
        let broken = reply.is_none();
        let concerned = match ask {
            Ask::FlushAll => 0..GROUPS,
            _ => group..group + 1,
        };
        let op = Op {
            sent,
            until,
            ask,
            reply,
        };
        asked.extend(concerned.map(|group| (group, op.clone())));
        if broken {
            break;
        }
    }
    asked
}

#[test]
fn one_order_explains_all_replies_across_crashes() {
    let seed = Random::seed("linear");
    let rounds = setting("STORAGE_SERVER_HISTORIES", 60);
    let config = Config::standard()
        .leaving()
        .with("data", "cache_memory", "0");
    let mut home = Home::new(config.with("data", "fsync", "\"never\""));
    let mut random = Random::new(seed);
    let mut workers: Vec<_> = (0..CONNECTIONS)
        .map(|n| Random::new(seed ^ (n << 40)))
        .collect();
    let mut states = vec![HashSet::from([State::default()]); GROUPS as usize];
    let (moments, mut requests, mut unanswered) = (AtomicU64::new(1), 0, 0);
    let mut snapshots = HashSet::new();
    let mut daemon = home.start();
    for round in 0..rounds {
        let stop = AtomicBool::new(false);
        let asked: Vec<_> = std::thread::scope(|scope| {
            let (addr, moments, stop) = (daemon.addr(), &moments, &stop);
            let running: Vec<_> = workers
                .iter_mut()
                .map(|random| scope.spawn(move || converse(addr, random, moments, stop)))
                .collect();
            scope.spawn(move || Client::connect(addr)?.ask("snapshot"));
            std::thread::sleep(Duration::from_micros(2000 + random.below(40_000)));
            if random.one_in(8) {
                assert!(daemon.term().success());
            } else {
                daemon.kill9();
            }
            stop.store(true, SeqCst);
            running
                .into_iter()
                .flat_map(|one| one.join().unwrap())
                .collect()
        });
        // Every third round has syncs that replies wait for.
        let fsync = if round % 3 == 1 {
            "\"always\""
        } else {
            "\"never\""
        };
        home.reconfigure(|config| config.set("data", "fsync", fsync));
        daemon = home.start();
        let mut client = daemon.client();
        let snapshot = client.stats("").unwrap()["snapshot_number"].clone();
        snapshots.insert(snapshot);
        for group in 0..GROUPS {
            let mine = asked.iter().filter(|(of, _)| *of == group);
            let mut history: Vec<_> = mine.map(|(_, op)| op.clone()).collect();
            requests += history.len();
            unanswered += history.iter().filter(|op| op.reply.is_none()).count();
            let sent = moments.fetch_add(1, SeqCst);
            let ask = Ask::Get(Group(group).keys());
            let reply = answer(&mut client, &ask).ok();
            let until = moments.fetch_add(1, SeqCst);
            assert!(reply.is_some(), "no reply after the restart");
            history.push(Op {
                sent,
                until,
                ask,
                reply,
            });
            let at = group as usize;
            states[at] = after(&states[at], &history)
                .unwrap_or_else(|why| panic!("seed {seed}, round {round}, group {group}: {why}"));
        }
    }
    let snapshots = snapshots.len();
    println!(
        "{rounds} crashes, {snapshots} snapshots, {requests} requests, {unanswered} of them \
         without an answer"
    );
    assert!(snapshots > 1 || rounds < 60, "no snapshot was complete");
    assert!(
        requests as u64 > rounds * 20,
        "that was no load: {requests} requests"
    );
}

/// A history of requests, each with the moments between which it stands.
fn judged(history: &[(u64, u64, Ask, Option<Reply>)]) -> bool {
    let ops: Vec<_> = history
        .iter()
        .map(|(sent, until, ask, reply)| Op {
            sent: *sent,
            until: *until,
            ask: ask.clone(),
            reply: reply.clone(),
        })
        .collect();
    after(&HashSet::from([State::default()]), &ops).is_ok()
}

fn found(entries: &[(&str, &str)]) -> Reply {
    let entry = |(key, value): &(&str, &str)| {
        let value = (*value).to_owned();
        let entry = crate::support::client::Entry { value, cas: None };
        ((*key).to_owned(), entry)
    };
    Reply::Entries(entries.iter().map(entry).collect())
}

#[test]
fn the_checker_tells_histories_apart() {
    let set = |value: &str| Ask::Store("set", "3.1".to_owned(), value.to_owned());
    let get = || Ask::Get(vec!["3.1".to_owned()]);
    let add = || Ask::Add("2.1".to_owned(), 1);
    let stored = || Some(line("STORED"));
    // Two writes at once: a reader may see either, but not one, the other and the one again.
    let two = [(1, 10, set("a"), stored()), (2, 9, set("b"), stored())];
    for (reads, fits) in [(&["a", "b", "b"][..], true), (&["a", "b", "a"], false)] {
        let mut history = two.to_vec();
        for (number, value) in (0..).zip(reads) {
            let at = 3 + number * 2;
            history.push((at, at + 1, get(), Some(found(&[("3.1", value)]))));
        }
        assert_eq!(judged(&history), fits, "{reads:?}");
    }
    // A lost update, and a reply that is read before it was possible.
    let both = |second: &str| {
        [
            (1, 4, add(), Some(line("1"))),
            (2, 3, add(), Some(line(second))),
        ]
    };
    assert!(judged(&both("2")));
    assert!(!judged(&both("1")));
    assert!(!judged(&[
        (1, 2, get(), Some(found(&[("3.1", "a")]))),
        (3, 4, set("a"), stored())
    ]));
    // What a crash left without an answer is there or not, but does not come later.
    for (before, later, fits) in [
        (true, true, true),
        (false, false, true),
        (false, true, false),
    ] {
        let seen = |there: bool| Some(found(if there { &[("3.1", "a")] } else { &[] }));
        let history = [
            (1, 2, set("a"), None),
            (3, 4, get(), seen(before)),
            (5, 6, get(), seen(later)),
        ];
        assert_eq!(judged(&history), fits, "{before} {later}");
    }
    // What is gone stays away.
    let expire = || Ask::Expire("3.1".to_owned());
    for (end, reply) in [(expire(), "TOUCHED"), (Ask::FlushAll, "OK")] {
        for (entries, fits) in [(&[][..], true), (&[("3.1", "a")], false)] {
            let history = [
                (1, 2, set("a"), stored()),
                (3, 4, end.clone(), Some(line(reply))),
                (5, 6, get(), Some(found(entries))),
            ];
            assert_eq!(judged(&history), fits, "{end:?} {entries:?}");
        }
    }
    assert!(!judged(&[(1, 2, expire(), Some(line("TOUCHED")))]));
    // Half a fan-out.
    let members = Ask::Store("set", "1.1".to_owned(), "1\n2".to_owned());
    let keys = ["2.1", "2.2"].map(str::to_owned).to_vec();
    for (values, fits) in [
        (&[("2.1", "1"), ("2.2", "1")][..], true),
        (&[("2.1", "1")], false),
    ] {
        let history = [
            (1, 2, members.clone(), stored()),
            (3, 4, Ask::FanOut("1.1".to_owned(), 1), None),
            (5, 6, Ask::Get(keys.clone()), Some(found(values))),
        ];
        assert_eq!(judged(&history), fits, "{values:?}");
    }
}
