//! A load with an oracle: clients that know, after every reply, what the store must hold.
//!
//! Each worker has keys of its own and a model of them. A connection's requests are executed
//! and recorded in order, so that after a crash its keys must be as after all acknowledged
//! requests and some first part of those that were in flight; nothing else will do. Besides,
//! all workers bump shared indexes whose counters nothing else touches: those of one index are
//! equal at every moment, and never fewer than were acknowledged or shown.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use super::client::mset_bytes;
use super::{Client, Random};

/// How many shared indexes there are, and how many members each has.
const SHARED: u64 = 4;
const SHARED_MEMBERS: u64 = 50;

/// What one key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Held {
    Number(u64),
    Members(BTreeMap<u32, u32>),
    Text(String),
}

impl Held {
    fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
            Self::Members(members) => {
                let lines: Vec<_> = members
                    .iter()
                    .map(|(id, attribute)| format!("{id} {attribute}"))
                    .collect();
                lines.join("\n")
            }
        }
    }
}

/// One request.
#[derive(Clone, Debug)]
enum Op {
    Add {
        key: String,
        delta: i64,
    },
    Set {
        key: String,
        value: Held,
    },
    Append {
        key: String,
        members: Vec<(u32, u32)>,
    },
    Prepend {
        key: String,
        ids: Vec<u32>,
    },
    Mset(Vec<(String, Held)>),
    Delete {
        key: String,
    },
    FanOut {
        key: String,
        delta: i64,
    },
    Shared(u64),
}

impl Op {
    fn write(&self, out: &mut Vec<u8>) {
        let mut block = |verb: &str, key: &str, value: &str| {
            let length = value.len();
            out.extend_from_slice(format!("{verb} {key} 0 0 {length}\r\n{value}\r\n").as_bytes());
        };
        match self {
            Self::Add { key, delta } | Self::FanOut { key, delta } => {
                out.extend_from_slice(format!("incr {key} {delta}\r\n").as_bytes());
            }
            Self::Set { key, value } => block("set", key, &value.text()),
            Self::Append { key, members } => {
                let members = Held::Members(members.iter().copied().collect());
                block("append", key, &members.text());
            }
            Self::Prepend { key, ids } => {
                let mut body = String::new();
                for id in ids {
                    writeln!(body, "{id}").unwrap();
                }
                block("prepend", key, &body);
            }
            Self::Mset(items) => {
                let items: Vec<_> = items
                    .iter()
                    .map(|(key, value)| (key.clone(), value.text()))
                    .collect();
                out.extend_from_slice(&mset_bytes(&items));
            }
            Self::Delete { key } => {
                out.extend_from_slice(format!("delete {key}\r\n").as_bytes());
            }
            Self::Shared(index) => {
                out.extend_from_slice(format!("incr 1.{index} 1\r\n").as_bytes());
            }
        }
    }
}

/// What a worker's keys must hold.
#[derive(Clone, Default)]
struct Model(BTreeMap<String, Held>);

impl Model {
    fn add(&mut self, key: &str, delta: i64) -> u64 {
        let held = self.0.entry(key.to_owned()).or_insert(Held::Number(0));
        let Held::Number(number) = held else {
            panic!("{key} is no counter")
        };
        let width = if key.starts_with("6.") {
            u64::MAX
        } else {
            u64::from(u32::MAX)
        };
        *number = if delta < 0 {
            number.saturating_sub(delta.unsigned_abs())
        } else {
            number.wrapping_add(delta.unsigned_abs()) & width
        };
        *number
    }

    fn members(&mut self, key: &str) -> &mut BTreeMap<u32, u32> {
        let empty = || Held::Members(BTreeMap::new());
        match self.0.entry(key.to_owned()).or_insert_with(empty) {
            Held::Members(members) => members,
            _ => panic!("{key} is no index"),
        }
    }

    /// Carries the request out; gives the reply that must come.
    fn apply(&mut self, op: &Op) -> String {
        match op {
            Op::Add { key, delta } => self.add(key, *delta).to_string(),
            Op::Set { key, value } => {
                self.0.insert(key.clone(), value.clone());
                "STORED".to_owned()
            }
            Op::Append { key, members } => {
                self.members(key).extend(members.iter().copied());
                "STORED".to_owned()
            }
            Op::Prepend { key, ids } => {
                if !self.0.contains_key(key) {
                    return "NOT_STORED".to_owned();
                }
                let members = self.members(key);
                let before = members.len();
                members.retain(|id, _| !ids.contains(id));
                let stored = members.len() < before;
                if stored { "STORED" } else { "NOT_STORED" }.to_owned()
            }
            Op::Mset(items) => {
                self.0.extend(items.iter().cloned());
                "STORED".to_owned()
            }
            Op::Delete { key } => {
                let found = self.0.remove(key).is_some();
                if found { "DELETED" } else { "NOT_FOUND" }.to_owned()
            }
            Op::FanOut { key, delta } => {
                let Some(Held::Members(members)) = self.0.get(key).cloned() else {
                    return "NOT_FOUND".to_owned();
                };
                for id in members.keys() {
                    self.add(&format!("2.{id}"), *delta);
                }
                members.len().to_string()
            }
            Op::Shared(_) => SHARED_MEMBERS.to_string(),
        }
    }

    fn texts(&self) -> BTreeMap<String, String> {
        self.0
            .iter()
            .map(|(key, held)| (key.clone(), held.text()))
            .collect()
    }
}

/// What is known of the shared indexes.
#[derive(Default)]
struct Shared {
    tried: [AtomicU64; SHARED as usize],
    acked: [AtomicU64; SHARED as usize],
    seen: [AtomicU64; SHARED as usize],
}

fn shared_keys(index: u64) -> Vec<String> {
    (0..SHARED_MEMBERS)
        .map(|member| format!("2.{}", 1_000_000 * (index + 1) + member))
        .collect()
}

/// One connection's worth of load.
struct Worker {
    number: u64,
    model: Model,
    pending: Vec<Op>,
    random: Random,
    written: u64,
    acked: u64,
}

impl Worker {
    /// Every key that this worker may ever write.
    fn keys(&self) -> Vec<String> {
        let base = self.number * 10_000;
        let mut keys: Vec<_> = (0..40).map(|n| format!("2.{}", base + n)).collect();
        for n in 0..6 {
            keys.push(format!("6.{}", base + n));
            keys.push(format!("3.{}", base + n));
            keys.push(format!("name:{}:{n}", self.number));
        }
        keys.extend((0..3).map(|n| format!("1.{}", base + n)));
        keys
    }

    fn op(&mut self) -> Op {
        let base = self.number * 10_000;
        let random = &mut self.random;
        let counter = format!("2.{}", base + random.below(40));
        let long = format!("6.{}", base + random.below(6));
        let index = format!("1.{}", base + random.below(3));
        let data = if random.one_in(2) {
            format!("3.{}", base + random.below(6))
        } else {
            format!("name:{}:{}", self.number, random.below(6))
        };
        let member = |random: &mut Random| u32::try_from(base + random.below(40)).unwrap();
        self.written += 1;
        let written = self.written;
        let text = |random: &mut Random| {
            // Mostly short, sometimes longer than any buffer on the way.
            let length = if random.one_in(50) { 100_000 } else { 40 };
            let filler = "x".repeat(usize::try_from(random.below(length)).unwrap());
            Held::Text(format!("{written} {filler}"))
        };
        match random.below(20) {
            0..=4 => Op::Add {
                key: counter,
                delta: 1,
            },
            5 => Op::Add {
                key: counter,
                delta: -2,
            },
            6 => Op::Add {
                key: long,
                delta: 5_000_000_000,
            },
            7..=9 => Op::Set {
                key: data,
                value: text(random),
            },
            10 => Op::Set {
                key: counter,
                value: Held::Number(random.below(1 << 32)),
            },
            11..=12 => {
                let members = (0..=random.below(8))
                    .map(|_| (member(random), u32::try_from(random.below(3)).unwrap()))
                    .collect::<BTreeMap<_, _>>();
                let members = members.into_iter().collect();
                Op::Append {
                    key: index,
                    members,
                }
            }
            13 => {
                let ids = (0..=random.below(4)).map(|_| member(random)).collect();
                Op::Prepend { key: index, ids }
            }
            14 => {
                let number = Held::Number(written);
                Op::Mset(vec![
                    (long, number.clone()),
                    (counter, number),
                    (data, text(random)),
                ])
            }
            15 => Op::Delete {
                key: [counter, long, data, index][usize::try_from(random.below(4)).unwrap()]
                    .clone(),
            },
            16 => Op::FanOut {
                key: index,
                delta: 3,
            },
            17 => Op::FanOut {
                key: index,
                delta: -1,
            },
            _ => Op::Shared(random.below(SHARED)),
        }
    }

    /// Works until the connection breaks or `stop` is set. Panics at a wrong reply.
    fn run(&mut self, addr: SocketAddr, stop: &AtomicBool, shared: &Shared) -> io::Result<()> {
        let mut client = Client::connect(addr)?;
        while !stop.load(SeqCst) {
            let depth = if self.random.one_in(4) {
                1 + self.random.below(16)
            } else {
                1
            };
            let mut request = Vec::new();
            self.pending = (0..depth).map(|_| self.op()).collect();
            for op in &self.pending {
                op.write(&mut request);
                if let Op::Shared(index) = op {
                    shared.tried[usize::try_from(*index).unwrap()].fetch_add(1, SeqCst);
                }
            }
            client.send(&request)?;
            while !self.pending.is_empty() {
                let reply = client.line()?;
                let op = self.pending.remove(0);
                let expected = self.model.apply(&op);
                assert_eq!(reply, expected, "worker {}, {op:?}", self.number);
                self.acked += 1;
                if let Op::Shared(index) = op {
                    shared.acked[usize::try_from(index).unwrap()].fetch_add(1, SeqCst);
                }
            }
        }
        Ok(())
    }

    /// Compares the store with the model; takes over what became of requests in flight.
    fn check(&mut self, client: &mut Client) {
        let found = client.get_many(&self.keys()).unwrap();
        let mut model = self.model.clone();
        let mut pending = std::mem::take(&mut self.pending).into_iter();
        let mut nearest = differences(&model, &found);
        loop {
            if model.texts() == found {
                self.model = model;
                return;
            }
            let Some(op) = pending.next() else {
                panic!(
                    "worker {}: the store is none of the states: {nearest}",
                    self.number
                );
            };
            model.apply(&op);
            let now = differences(&model, &found);
            if now.len() < nearest.len() {
                nearest = now;
            }
        }
    }
}

fn differences(model: &Model, found: &BTreeMap<String, String>) -> String {
    let expected = model.texts();
    let mut text = String::new();
    let keys: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    for key in keys {
        if expected.get(key) != found.get(key) {
            let (expected, found) = (expected.get(key), found.get(key));
            writeln!(text, "{key}: expected {expected:.60?}, found {found:.60?}").unwrap();
        }
    }
    text
}

/// A load of several connections and a reader.
pub(crate) struct Load {
    workers: Vec<Worker>,
    shared: Shared,
}

impl Load {
    /// Workers without keys yet, and the shared indexes, written and acknowledged.
    pub(crate) fn new(client: &mut Client, connections: u64, seed: u64) -> Self {
        for index in 0..SHARED {
            let ids: Vec<_> = shared_keys(index)
                .iter()
                .map(|key| key["2.".len()..].to_owned())
                .collect();
            assert_eq!(
                client.set(&format!("1.{index}"), &ids.join("\n")).unwrap(),
                "STORED"
            );
        }
        let workers = (1..=connections)
            .map(|number| Worker {
                number,
                model: Model::default(),
                pending: Vec::new(),
                random: Random::new(seed ^ (number << 32)),
                written: 0,
                acked: 0,
            })
            .collect();
        Self {
            workers,
            shared: Shared::default(),
        }
    }

    /// How many requests were acknowledged so far.
    pub(crate) fn acked(&self) -> u64 {
        self.workers.iter().map(|worker| worker.acked).sum()
    }

    /// Loads the daemon at `addr` while `meanwhile` runs, and until each connection has come to
    /// its end: broken, if `meanwhile` ended the daemon, or after its last reply.
    pub(crate) fn during<T>(&mut self, addr: SocketAddr, meanwhile: impl FnOnce() -> T) -> T {
        self.run(addr, true, meanwhile)
    }

    /// The same where `meanwhile` does not end the daemon: no connection may break.
    pub(crate) fn during_all_along<T>(
        &mut self,
        addr: SocketAddr,
        meanwhile: impl FnOnce() -> T,
    ) -> T {
        self.run(addr, false, meanwhile)
    }

    fn run<T>(&mut self, addr: SocketAddr, may_break: bool, meanwhile: impl FnOnce() -> T) -> T {
        let stop = AtomicBool::new(false);
        let shared = &self.shared;
        std::thread::scope(|scope| {
            let running: Vec<_> = self
                .workers
                .iter_mut()
                .map(|worker| scope.spawn(|| worker.run(addr, &stop, shared)))
                .collect();
            let reader = scope.spawn(|| read_shared(addr, &stop, shared));
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
            stop.store(true, SeqCst);
            for worker in running {
                // An error is a broken connection; a wrong reply has panicked.
                let ended = worker.join().unwrap();
                assert!(may_break || ended.is_ok(), "a connection broke: {ended:?}");
            }
            let ended = reader.join().unwrap();
            assert!(may_break || ended.is_ok(), "the reader broke: {ended:?}");
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Compares all that the store holds with what it must hold.
    pub(crate) fn check(&mut self, client: &mut Client) {
        for worker in &mut self.workers {
            worker.check(client);
        }
        for index in 0..SHARED {
            let at = usize::try_from(index).unwrap();
            let [tried, acked, seen] = [&self.shared.tried, &self.shared.acked, &self.shared.seen]
                .map(|numbers| &numbers[at]);
            let keys = shared_keys(index);
            let found = client.get_many(&keys).unwrap();
            let number = equal(index, &found);
            let least = acked.load(SeqCst).max(seen.load(SeqCst));
            assert!(
                (least..=tried.load(SeqCst)).contains(&number),
                "index 1.{index}: {number} is not in {least}..={tried:?}"
            );
            for counter in [tried, acked, seen] {
                counter.store(number, SeqCst);
            }
        }
    }
}

/// The one number that all counters of an index have.
fn equal(index: u64, found: &BTreeMap<String, String>) -> u64 {
    let Some(first) = found.values().next() else {
        return 0;
    };
    let whole = u64::try_from(found.len()).unwrap() == SHARED_MEMBERS;
    assert!(
        whole && found.values().all(|number| number == first),
        "half a fan-out of 1.{index}: {found:?}"
    );
    first.parse().unwrap()
}

/// Reads all counters of one index at a time: they are equal at every moment.
fn read_shared(addr: SocketAddr, stop: &AtomicBool, shared: &Shared) -> io::Result<()> {
    let mut client = Client::connect(addr)?;
    let mut rounds = 0;
    while !stop.load(SeqCst) {
        rounds += 1;
        let index = rounds % SHARED;
        let at = usize::try_from(index).unwrap();
        let least = shared.acked[at].load(SeqCst);
        let number = equal(index, &client.get_many(&shared_keys(index))?);
        let most = shared.tried[at].load(SeqCst);
        assert!(
            (least..=most).contains(&number),
            "index 1.{index}: {number} was read, {least}..={most} is possible"
        );
        shared.seen[at].fetch_max(number, SeqCst);
    }
    Ok(())
}
