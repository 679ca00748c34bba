//! What the store should hold: the rules of the commands told a second time, in plain maps.

use std::collections::BTreeMap;
use std::sync::Arc;

use storage_server::clock::{Expiry, Time};
use storage_server::command::{Arith, Command, Exptime, Mode, Put, Reply};
use storage_server::value::Delta;

/// The keys that simulations use: two INDEX types, their counters, DATA and named keys. The
/// members of the indexes are among the counters.
pub(super) const KEYS: [&[u8]; 18] = [
    b"1.1", b"1.2", b"3.1", b"2.1", b"2.2", b"2.3", b"2.4", b"2.5", b"2.6", b"4.1", b"4.2", b"4.3",
    b"4.4", b"4.5", b"4.6", b"5.1", b"a", b"b",
];
/// The ids of the counters that indexes may have as members.
pub(super) const MEMBERS: u64 = 6;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Held {
    Number(u64),
    Members(BTreeMap<u32, u32>),
    Bytes(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) held: Held,
    pub(super) flags: u32,
    pub(super) expires: Expiry,
    /// The record that changed its value last: the cas unique.
    pub(super) seq: u64,
}

/// All entries, also those that have expired and were not replaced.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State {
    pub(super) entries: BTreeMap<Vec<u8>, Arc<Entry>>,
    pub(super) flush_at: Option<Time>,
}

fn is_index(key: &[u8]) -> bool {
    key.starts_with(b"1.") || key.starts_with(b"3.")
}

fn is_counter(key: &[u8]) -> bool {
    key.starts_with(b"2.") || key.starts_with(b"4.")
}

/// The members that a body lists.
fn members(body: &[u8]) -> BTreeMap<u32, u32> {
    let text = std::str::from_utf8(body).unwrap();
    let number = |word: Option<&str>| word.map_or(0, |word| word.parse().unwrap());
    text.lines()
        .map(|line| {
            let mut words = line.split(' ');
            (number(words.next()), number(words.next()))
        })
        .collect()
}

fn read(key: &[u8], body: &[u8]) -> Held {
    if is_index(key) {
        Held::Members(members(body))
    } else if is_counter(key) {
        Held::Number(std::str::from_utf8(body).unwrap().parse().unwrap())
    } else {
        Held::Bytes(body.to_vec())
    }
}

fn stepped(key: &[u8], number: u64, delta: Delta, decr: bool) -> u64 {
    if delta.negative != decr {
        return number.saturating_sub(delta.amount);
    }
    let sum = number.wrapping_add(delta.amount);
    if key.starts_with(b"2.") {
        sum % (1 << 32)
    } else {
        sum
    }
}

impl State {
    pub(super) fn get(&self, key: &[u8], now: Time) -> Option<&Entry> {
        let entry = self.entries.get(key)?;
        (!entry.expires.is_past(now)).then_some(&**entry)
    }

    fn set(&mut self, key: &[u8], entry: Entry) {
        self.entries.insert(key.to_vec(), Arc::new(entry));
    }

    /// A `flush_all` that was delayed, when it is carried out.
    pub(super) fn flush(&mut self) {
        self.entries.clear();
        self.flush_at = None;
    }

    /// Carries out a command as record `seq`, and answers what the reply must be.
    pub(super) fn apply(&mut self, command: &Command<'_>, now: Time, seq: u64) -> Reply {
        match command {
            Command::Put(put) => self.put(put, now, seq),
            Command::PutMany(puts) => {
                for put in puts {
                    self.put(put, now, seq);
                }
                Reply::Stored
            }
            Command::Arith(arith) if is_index(arith.key) => self.fan_out(arith, now, seq),
            Command::Arith(arith) => {
                let number = self.step(arith.key, arith.delta, arith.decr, now, seq);
                Reply::Number(number)
            }
            Command::Delete { key } => {
                let found = self.get(key, now).is_some();
                if found {
                    self.entries.remove(*key);
                    Reply::Deleted
                } else {
                    Reply::NotFound
                }
            }
            Command::Touch { key, exptime } => {
                if self.touch(key, *exptime, now) {
                    Reply::Touched
                } else {
                    Reply::NotFound
                }
            }
            Command::FlushAll { delay } => {
                match delay.resolve(now).time().filter(|at| *at > now) {
                    Some(at) => self.flush_at = Some(at),
                    None => self.flush(),
                }
                Reply::Ok
            }
            Command::Fetch(fetch) => {
                for key in &fetch.keys {
                    self.touch(key, fetch.touch.unwrap(), now);
                }
                Reply::Ok
            }
            Command::Meta(_) => unreachable!("the workload has none"),
        }
    }

    fn touch(&mut self, key: &[u8], exptime: Exptime, now: Time) -> bool {
        let Some(old) = self.get(key, now).cloned() else {
            return false;
        };
        let expires = exptime.resolve(now);
        self.set(key, Entry { expires, ..old });
        true
    }

    fn put(&mut self, put: &Put<'_>, now: Time, seq: u64) -> Reply {
        let old = self.get(put.key, now).cloned();
        let found = old.is_some();
        let expires = put.exptime.resolve(now);
        match (put.mode, old) {
            (Mode::Add, Some(_)) | (Mode::Replace, None) => return Reply::NotStored,
            (Mode::Append | Mode::Prepend, old) => return self.extend(put, old, expires, seq),
            (Mode::Set | Mode::Add | Mode::Replace | Mode::Cas(_), _) => {}
        }
        if expires.is_past(now) {
            if found {
                self.entries.remove(put.key);
            }
            return Reply::Stored;
        }
        let (held, flags) = (read(put.key, put.body), put.flags);
        self.set(
            put.key,
            Entry {
                held,
                flags,
                expires,
                seq,
            },
        );
        Reply::Stored
    }

    fn extend(&mut self, put: &Put<'_>, old: Option<Entry>, expires: Expiry, seq: u64) -> Reply {
        let front = put.mode == Mode::Prepend;
        let mut entry = match old {
            Some(old) => old,
            None if is_index(put.key) && !front => Entry {
                held: Held::Members(BTreeMap::new()),
                flags: put.flags,
                expires,
                seq,
            },
            None => return Reply::NotStored,
        };
        match &mut entry.held {
            Held::Bytes(bytes) if front => drop(bytes.splice(..0, put.body.iter().copied())),
            Held::Bytes(bytes) => bytes.extend_from_slice(put.body),
            Held::Members(held) if front => {
                let before = held.len();
                let removed = members(put.body);
                held.retain(|id, _| !removed.contains_key(id));
                if held.len() == before {
                    return Reply::NotStored;
                }
            }
            Held::Members(_) if put.body.is_empty() && entry.seq != seq => return Reply::Stored,
            Held::Members(held) => held.extend(members(put.body)),
            Held::Number(_) => panic!("nothing extends a counter"),
        }
        self.set(put.key, Entry { seq, ..entry });
        Reply::Stored
    }

    fn step(&mut self, key: &[u8], delta: Delta, decr: bool, now: Time, seq: u64) -> u64 {
        let mut entry = self.get(key, now).cloned().unwrap_or(Entry {
            held: Held::Number(0),
            flags: 0,
            expires: Expiry::NEVER,
            seq,
        });
        let Held::Number(old) = entry.held else {
            panic!("{} is a counter", key.escape_ascii());
        };
        let number = stepped(key, old, delta, decr);
        entry.held = Held::Number(number);
        self.set(key, entry);
        number
    }

    fn fan_out(&mut self, arith: &Arith<'_>, now: Time, seq: u64) -> Reply {
        let own = if arith.key.starts_with(b"3.") { 4 } else { 2 };
        let target = arith.target.unwrap_or(own);
        let Some(Held::Members(members)) = self.get(arith.key, now).map(|entry| entry.held.clone())
        else {
            return Reply::NotFound;
        };
        for id in members.keys() {
            let key = format!("{target}.{id}");
            self.step(key.as_bytes(), arith.delta, arith.decr, now, seq);
        }
        Reply::Number(members.len() as u64)
    }
}
