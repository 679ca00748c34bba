//! `mg ms md ma me`: the meta commands, which say by flags what to do and what to answer.
//!
//! What a flag asks for is done by the rule of the classic command wherever there is one. What
//! is added here: conditions on the cas unique, entries made on a miss, and the order of flags,
//! which counts as in memcached (`T30 t` shows the new time to live, `t T30` the old one).

mod arith;
mod delete;
mod get;
mod set;

use std::sync::Arc;

use super::{Change, Exptime, Holds, Place, Refusal, Reply, View, ViewValue};
use crate::clock::{Expiry, Time};
use crate::key::Key;
use crate::types::Kind;
use crate::value::{Blob, Marks, Value};
pub use arith::Step;
pub use delete::Delete;
pub use get::Get;
pub use set::Set;

/// A meta command.
#[derive(Clone, Debug, PartialEq)]
pub struct Meta<'a> {
    /// The key.
    pub key: MetaKey<'a>,
    /// What is done with it.
    pub act: Act<'a>,
}

/// A key as sent, or what was sent as base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaKey<'a> {
    /// The word of the line.
    Text(&'a [u8]),
    /// Any bytes.
    Binary(Box<[u8]>),
}

impl MetaKey<'_> {
    /// The key itself.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(key) => key,
            Self::Binary(key) => key,
        }
    }

    /// True for what was sent as base64.
    pub fn is_binary(&self) -> bool {
        matches!(self, Self::Binary(_))
    }
}

/// What a meta command does.
#[derive(Clone, Debug, PartialEq)]
pub enum Act<'a> {
    /// `mg`
    Get(Get),
    /// `ms`
    Set(Box<Set<'a>>),
    /// `md`
    Delete(Delete),
    /// `ma`
    Arith(Step),
    /// `me`
    Debug,
}

/// What a meta command answers.
#[derive(Clone, Debug, PartialEq)]
pub struct MetaReply {
    /// How it went.
    pub status: Status,
    /// What the reply may show.
    pub seen: Seen,
}

/// How a meta command went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It was done, or there is such an entry.
    Done,
    /// There is no such entry to show.
    Miss,
    /// The condition of a mode was not met.
    NotStored,
    /// The cas unique is another one.
    Exists,
    /// There is no such entry to change.
    NotFound,
}

/// What a reply may show of an entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// The value, if it was asked for.
    pub value: Option<Value>,
    /// The value's length as text, if it is known.
    pub size: Option<usize>,
    /// The client's flags.
    pub flags: u32,
    /// The cas unique; `None` is the sequence number of the change that the command made.
    pub unique: Option<u64>,
    /// For how many seconds more the entry is there, if not for ever.
    pub remaining_s: Option<u64>,
    /// The marks of an entry that was found, as they were.
    pub marks: Option<Marks>,
    /// The client is the one to store the entry anew.
    pub won: bool,
    /// The entry was not there and was made.
    pub created: bool,
    /// The entry was fetched before.
    pub fetched: bool,
    /// How many seconds ago it was last used.
    pub idle_s: u64,
    /// Its class; 0 where nobody asked.
    pub class: u32,
    /// What the value takes in memory.
    pub memory_bytes: usize,
}

impl Seen {
    /// What there is to see of an entry at `now`.
    pub fn of(view: &View<'_>, now: Time) -> Self {
        let (fetched, idle_s) = view.head.map_or((false, 0), |head| {
            let idle_s = head.idle_s(now).unwrap_or_default();
            (head.marks().has(Marks::FETCHED), idle_s)
        });
        Self {
            value: None,
            size: Some(view.value.text_len()),
            flags: view.flags,
            unique: Some(view.cas),
            remaining_s: remaining_s(view.expires, now),
            marks: Some(view.marks()),
            won: false,
            created: false,
            fetched,
            idle_s,
            class: 0,
            memory_bytes: view.value.heap_bytes(),
        }
    }
}

impl MetaReply {
    /// The reply to `me`.
    pub fn debug(place: Place<'_>, old: Option<View<'_>>, now: Time) -> Self {
        let Some(view) = old else {
            return Self::without(Status::Miss);
        };
        let seen = Seen {
            class: place.key.class(),
            ..Seen::of(&view, now)
        };
        let status = Status::Done;
        Self { status, seen }
    }

    /// A reply that has no entry to show.
    fn without(status: Status) -> Self {
        let seen = Seen {
            unique: Some(0),
            ..Seen::default()
        };
        Self { status, seen }
    }
}

/// True if the client's cas unique is not that of the entry.
fn differs(compare: Option<u64>, old: Option<View<'_>>) -> bool {
    old.zip(compare)
        .is_some_and(|(old, unique)| old.cas != unique)
}

/// The same where memcached takes 0 for none: adding to a value or a number.
fn differs_unless_0(compare: Option<u64>, old: Option<View<'_>>) -> bool {
    differs(compare.filter(|unique| *unique != 0), old)
}

/// Refuses a flag that what the key holds has no room for.
fn forbid(flag: &'static str, given: bool, place: Place<'_>) -> Result<(), Refusal> {
    match (place.key, place.holds) {
        (Key::Typed(key), Holds::Kind(kind)) if given => Err(Refusal::WrongKind {
            verb: flag,
            key,
            kind,
        }),
        (Key::Typed(_) | Key::Named(_), _) => Ok(()),
    }
}

/// The cas uniques of typed keys are the server's own: what a snapshot moves is known by them.
fn forbid_unique(given: Option<u64>, place: Place<'_>) -> Result<(), Refusal> {
    forbid("flag E", given.is_some(), place)
}

/// A counter has a number, flags and an expiry: there is no room for a mark.
fn forbid_mark(flag: &'static str, given: bool, place: Place<'_>) -> Result<(), Refusal> {
    match place.holds {
        Holds::Kind(Kind::Counter | Kind::Counter64) => forbid(flag, given, place),
        Holds::Kind(Kind::Index | Kind::Data) | Holds::Named => Ok(()),
    }
}

/// What a place holds that nobody has given a value.
fn empty_value(place: Place<'_>) -> Value {
    match (place.holds, place.key) {
        (Holds::Kind(Kind::Counter | Kind::Counter64), _) => Value::Number(0),
        (Holds::Kind(Kind::Index), _) => Value::Index(Arc::default()),
        (Holds::Kind(Kind::Data) | Holds::Named, Key::Named(name)) => {
            Value::Data(Blob::named(name, &[]))
        }
        (Holds::Kind(Kind::Data) | Holds::Named, Key::Typed(_)) => Value::Data(Blob::unnamed(&[])),
    }
}

impl From<MetaReply> for Reply {
    fn from(reply: MetaReply) -> Self {
        Self::Meta(Box::new(reply))
    }
}

impl ViewValue<'_> {
    /// The value's length as a client sees it.
    pub fn text_len(&self) -> usize {
        match self {
            Self::Number(number) => itoa::Buffer::new().format(*number).len(),
            Self::Index(index) => index.text_len(),
            Self::Data(blob) => blob.len(),
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Number(_) => 0,
            Self::Index(index) => index.heap_bytes(),
            Self::Data(blob) => blob.heap_bytes(),
        }
    }
}

/// The whole seconds for which an entry is still there, the one that has begun included; `None`
/// is for ever.
fn remaining_s(expires: Expiry, now: Time) -> Option<u64> {
    let left_ms = expires.time()?.0.saturating_sub(now.0);
    Some(left_ms.div_ceil(1000))
}

/// A flag whose place among the others counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// `T`: the entry gets another expiry.
    Expire(Exptime),
    /// `N`: an entry that was made on a miss gets this expiry.
    Vivified(Exptime),
    /// `R`: the client wins if less time is left than this.
    Recache(Exptime),
    /// `t`: the time that is left is shown.
    Remaining,
}

/// What flags make of an entry one after the other.
struct Course {
    expires: Expiry,
    /// What `t` saw.
    remaining_s: Option<u64>,
    /// `R` found less time left than it wants.
    is_late: bool,
    /// `T` or `N` has set the expiry.
    is_set: bool,
}

impl Course {
    fn run(turns: &[Turn], expires: Expiry, created: bool, now: Time) -> Self {
        let mut course = Self {
            expires,
            remaining_s: remaining_s(expires, now),
            is_late: false,
            is_set: false,
        };
        for turn in turns {
            match *turn {
                Turn::Expire(exptime) => course.set(exptime, now),
                Turn::Vivified(exptime) if created => course.set(exptime, now),
                Turn::Vivified(_) => {}
                Turn::Recache(exptime) => {
                    let wanted = remaining_s(exptime.resolve(now), now);
                    let left = remaining_s(course.expires, now).zip(wanted);
                    course.is_late |= left.is_some_and(|(left, wanted)| left < wanted);
                }
                Turn::Remaining => course.remaining_s = remaining_s(course.expires, now),
            }
        }
        course
    }

    fn set(&mut self, exptime: Exptime, now: Time) {
        self.expires = exptime.resolve(now);
        self.is_set = true;
    }

    /// The change that gives an entry its new expiry; it is gone at once if that is in the past.
    fn change<'a>(&self, key: Key<'a>, now: Time) -> Option<Change<'a>> {
        let expires = self.expires;
        self.is_set.then_some(if expires.is_past(now) {
            Change::Remove { key }
        } else {
            Change::Expire { key, expires }
        })
    }
}

/// The changes of one command as one.
fn together(mut changes: Vec<Change<'_>>) -> Option<Change<'_>> {
    if changes.len() > 1 {
        Some(Change::Batch(changes))
    } else {
        changes.pop()
    }
}

#[cfg(test)]
mod tests;
