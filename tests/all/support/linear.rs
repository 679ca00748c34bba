//! Is there one order of all requests that explains every reply? (Wing and Gong, with the states
//! that were seen remembered.)
//!
//! A history is what several connections asked of a few keys, when each request was sent and
//! when its reply came. It is linearizable if the requests can be put in a row in which each
//! stands between its two moments and each reply is what the model gives there. A request that
//! a crash left without a reply stands before the crash or nowhere: all of it or nothing.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use super::client::{Entry, mset_bytes};

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    /// All of these keys at one moment.
    Get(Vec<String>),
    /// `set`, `add`, `replace`, `append` or `prepend`.
    Store(&'static str, String, String),
    Cas(String, String, u64),
    Mset(Vec<(String, String)>),
    Add(String, i64),
    FanOut(String, i64),
    Delete(String),
    Touch(String),
    /// Has the entry end at once.
    Expire(String),
    /// Whatever the keys are.
    FlushAll,
}

impl Ask {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Get(keys) => format!("gets {}\r\n", keys.join(" ")),
            Self::Store(verb, key, value) => {
                format!("{verb} {key} 0 0 {}\r\n{value}\r\n", value.len())
            }
            Self::Cas(key, value, unique) => {
                format!("cas {key} 0 0 {} {unique}\r\n{value}\r\n", value.len())
            }
            Self::Mset(items) => return mset_bytes(items),
            Self::Add(key, delta) | Self::FanOut(key, delta) => format!("incr {key} {delta}\r\n"),
            Self::Delete(key) => format!("delete {key}\r\n"),
            Self::Touch(key) => format!("touch {key} 0\r\n"),
            Self::Expire(key) => format!("touch {key} -1\r\n"),
            Self::FlushAll => "flush_all\r\n".to_owned(),
        }
        .into_bytes()
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Line(String),
    Entries(BTreeMap<String, Entry>),
}

/// A request, the moments between which it stands, and its reply if one came.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) sent: u64,
    pub(crate) until: u64,
    pub(crate) ask: Ask,
    pub(crate) reply: Option<Reply>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Value {
    Number(u64),
    Text(String),
    Members(BTreeMap<u32, u32>),
}

impl Value {
    fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
            Self::Members(members) => {
                let lines = members.iter().map(|(id, with)| format!("{id} {with}"));
                lines.collect::<Vec<_>>().join("\n")
            }
        }
    }
}

/// A type by the prefix of its key; named keys are bytes here.
fn prefix(key: &str) -> &str {
    key.split_once('.').map_or("", |(prefix, _)| prefix)
}

fn parse(key: &str, body: &str) -> Value {
    match prefix(key) {
        "1" => Value::Members(members(body)),
        "2" | "6" => Value::Number(body.parse().unwrap()),
        _ => Value::Text(body.to_owned()),
    }
}

fn members(body: &str) -> BTreeMap<u32, u32> {
    let member = |line: &str| {
        let (id, with) = line.split_once(' ').unwrap_or((line, "0"));
        (id.parse().unwrap(), with.parse().unwrap())
    };
    body.lines().map(member).collect()
}

/// What is known of a cas unique. Those of later changes are larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Unique {
    Is(u64),
    Above(u64),
}

impl Unique {
    fn may_be(self, unique: u64) -> bool {
        match self {
            Self::Is(known) => known == unique,
            Self::Above(bound) => unique > bound,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Held {
    value: Value,
    unique: Unique,
}

/// What the keys hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct State {
    entries: BTreeMap<String, Held>,
    /// The largest cas unique that was seen: what changes later has a larger one.
    seen: u64,
}

impl State {
    fn put(&mut self, key: &str, value: Value) {
        // An append that changes nothing may leave the unique as it was.
        let unique = match self.entries.get(key) {
            Some(old) if old.value == value => match old.unique {
                Unique::Is(known) => Unique::Above(known - 1),
                above @ Unique::Above(_) => above,
            },
            _ => Unique::Above(self.seen),
        };
        self.entries.insert(key.to_owned(), Held { value, unique });
    }

    fn add(&mut self, key: &str, delta: i64) -> u64 {
        let old = match self.entries.get(key).map(|held| &held.value) {
            Some(Value::Number(number)) => *number,
            None => 0,
            Some(other) => panic!("{key} holds {other:?}"),
        };
        let new = if delta < 0 {
            old.saturating_sub(delta.unsigned_abs())
        } else if prefix(key) == "2" {
            (old + delta.unsigned_abs()) & u64::from(u32::MAX)
        } else {
            old.wrapping_add(delta.unsigned_abs())
        };
        self.put(key, Value::Number(new));
        new
    }

    /// True if this unique may be that of the entry, which it then is.
    fn bind(&mut self, key: &str, unique: u64) -> bool {
        // That of a counter is a function of its content.
        if matches!(prefix(key), "2" | "6") {
            return true;
        }
        let Some(held) = self.entries.get_mut(key) else {
            return false;
        };
        let fits = held.unique.may_be(unique);
        held.unique = Unique::Is(unique);
        fits
    }

    fn store(&mut self, verb: &str, key: &str, body: &str) -> &'static str {
        let old = self.entries.get(key).map(|held| held.value.clone());
        let new = match (verb, old) {
            ("set", _) | ("add", None) | ("replace", Some(_)) => parse(key, body),
            ("append", Some(Value::Text(old))) => Value::Text(old + body),
            ("prepend", Some(Value::Text(old))) => Value::Text(body.to_owned() + &old),
            ("append", old) if prefix(key) == "1" => {
                let mut all = match old {
                    Some(Value::Members(all)) => all,
                    _ => BTreeMap::new(),
                };
                all.extend(members(body));
                Value::Members(all)
            }
            ("prepend", Some(Value::Members(mut all))) => {
                let (before, gone) = (all.len(), members(body));
                all.retain(|id, _| !gone.contains_key(id));
                if all.len() == before {
                    return "NOT_STORED";
                }
                Value::Members(all)
            }
            _ => return "NOT_STORED",
        };
        self.put(key, new);
        "STORED"
    }

    /// Carries the request out; false if the reply cannot have come from this state.
    fn apply(&mut self, op: &Op) -> bool {
        let line = match &op.ask {
            Ask::Get(keys) => return self.get(keys, op.reply.as_ref()),
            Ask::Cas(key, value, unique) => return self.cas(key, value, *unique, op),
            Ask::Store(verb, key, value) => self.store(verb, key, value).to_owned(),
            Ask::Mset(items) => {
                for (key, value) in items {
                    self.put(key, parse(key, value));
                }
                "STORED".to_owned()
            }
            Ask::Add(key, _) if prefix(key).is_empty() => unreachable!("{key} is no counter"),
            Ask::Add(key, delta) => self.add(key, *delta).to_string(),
            Ask::FanOut(key, delta) => match self.entries.get(key).map(|held| &held.value) {
                Some(Value::Members(members)) => {
                    let ids: Vec<_> = members.keys().copied().collect();
                    for id in &ids {
                        self.add(&format!("2.{id}"), *delta);
                    }
                    ids.len().to_string()
                }
                _ => "NOT_FOUND".to_owned(),
            },
            Ask::Delete(key) => match self.entries.remove(key) {
                Some(_) => "DELETED".to_owned(),
                None => "NOT_FOUND".to_owned(),
            },
            Ask::Touch(key) if self.entries.contains_key(key) => "TOUCHED".to_owned(),
            Ask::Expire(key) if self.entries.remove(key).is_some() => "TOUCHED".to_owned(),
            Ask::Touch(_) | Ask::Expire(_) => "NOT_FOUND".to_owned(),
            Ask::FlushAll => {
                self.entries.clear();
                "OK".to_owned()
            }
        };
        op.reply
            .as_ref()
            .is_none_or(|reply| *reply == Reply::Line(line))
    }

    fn get(&mut self, keys: &[String], reply: Option<&Reply>) -> bool {
        let Some(Reply::Entries(found)) = reply else {
            return reply.is_none();
        };
        let same = keys.iter().all(|key| {
            let held = self.entries.get(key).map(|held| held.value.text());
            held.as_deref() == found.get(key).map(|entry| entry.value.as_str())
        });
        let uniques = || {
            found
                .iter()
                .filter_map(|(key, entry)| Some((key, entry.cas?)))
        };
        if !same || !uniques().all(|(key, unique)| self.bind(key, unique)) {
            return false;
        }
        let seen = uniques().filter(|(key, _)| !matches!(prefix(key), "2" | "6"));
        self.seen = seen.map(|(_, unique)| unique).fold(self.seen, u64::max);
        true
    }

    fn cas(&mut self, key: &str, value: &str, unique: u64, op: &Op) -> bool {
        let Some(held) = self.entries.get(key) else {
            return op
                .reply
                .as_ref()
                .is_none_or(|reply| *reply == line("NOT_FOUND"));
        };
        let may_match = held.unique.may_be(unique);
        let may_differ = held.unique != Unique::Is(unique);
        match &op.reply {
            Some(reply) if *reply == line("STORED") && may_match => {
                self.put(key, parse(key, value));
                true
            }
            Some(reply) => *reply == line("EXISTS") && may_differ,
            None => {
                // Whether it matched, if that is not known, is as unknown as whether it ran.
                if may_match {
                    self.put(key, parse(key, value));
                }
                true
            }
        }
    }
}

pub(crate) fn line(text: &str) -> Reply {
    Reply::Line(text.to_owned())
}

/// All states that the keys may be in after `history`, if they began in one of `states`; or why
/// there is none.
pub(crate) fn after(states: &HashSet<State>, history: &[Op]) -> Result<HashSet<State>, String> {
    let mut ops = history.to_vec();
    ops.sort_by_key(|op| op.sent);
    let begin = Node {
        done: vec![0; ops.len().div_ceil(64)],
        first: 0,
        latest: 0,
        state: State::default(),
    };
    let mut stack: Vec<_> = states
        .iter()
        .map(|state| Node {
            state: state.clone(),
            ..begin.clone()
        })
        .collect();
    let (mut visited, mut ends, mut furthest) = (HashSet::new(), HashSet::new(), 0);
    while let Some(node) = stack.pop() {
        if !visited.insert((node.done.clone(), node.state.clone())) {
            continue;
        }
        furthest = furthest.max(node.first);
        if node.is_complete(&ops) {
            ends.insert(node.state.clone());
        }
        node.push_followers(&ops, &mut stack);
    }
    if ends.is_empty() {
        return Err(explain(&ops, furthest));
    }
    Ok(ends)
}

/// Some requests put in a row.
#[derive(Clone)]
struct Node {
    done: Vec<u64>,
    /// All requests before this one are in the row, or stand nowhere.
    first: usize,
    /// When the request that was sent last of those in the row was sent.
    latest: u64,
    state: State,
}

impl Node {
    fn is_done(&self, at: usize) -> bool {
        self.done[at / 64] >> (at % 64) & 1 == 1
    }

    /// True if only requests without replies are not in the row.
    fn is_complete(&self, ops: &[Op]) -> bool {
        let mut left = (self.first..ops.len()).filter(|at| !self.is_done(*at));
        left.all(|at| ops[at].reply.is_none())
    }

    fn push_followers(&self, ops: &[Op], stack: &mut Vec<Self>) {
        // Whoever was sent after a reply comes after what was replied to.
        let mut bound = u64::MAX;
        for (at, op) in ops.iter().enumerate().skip(self.first) {
            if op.sent > bound {
                break;
            }
            if self.is_done(at) {
                continue;
            }
            if op.reply.is_some() {
                bound = bound.min(op.until);
            } else if op.until < self.latest {
                // It was too late for this one.
                continue;
            }
            let mut next = self.clone();
            if !next.state.apply(op) {
                continue;
            }
            next.done[at / 64] |= 1 << (at % 64);
            next.latest = next.latest.max(op.sent);
            while next.first < ops.len()
                && (next.is_done(next.first) || {
                    let op = &ops[next.first];
                    op.reply.is_none() && op.until < next.latest
                })
            {
                next.first += 1;
            }
            stack.push(next);
        }
    }
}

/// The requests around the place that no row gets past.
fn explain(ops: &[Op], furthest: usize) -> String {
    let mut text = String::from("no order explains these replies:\n");
    for op in ops.iter().skip(furthest.saturating_sub(12)).take(40) {
        let Op {
            sent,
            until,
            ask,
            reply,
        } = op;
        writeln!(text, "{sent}..{until}: {ask:.200?} -> {reply:.300?}").unwrap();
    }
    text
}
