//! `ma`: a step of a number, which may be made on a miss.

use smallvec::SmallVec;

use super::{Course, MetaReply, Status, Turn, differs_unless_0, forbid, forbid_unique, together};
use crate::clock::Expiry;
use crate::command::put::{Mode, Put};
use crate::command::{
    Arith, Change, Context, Exptime, Holds, Outcome, Place, Refusal, Reply, View,
};
use crate::types::Kind;
use crate::value::{Delta, Value, counter};

/// What `ma` asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// `M`: a step down instead of up.
    pub decr: bool,
    /// `D`: how far.
    pub delta: u64,
    /// `N`: the number is made on a miss, with this expiry.
    pub vivify: Option<Exptime>,
    /// `J`: what it is then.
    pub initial: u64,
    /// `C`: the entry must have this cas unique.
    pub compare: Option<u64>,
    /// `E`: the cas unique that the entry gets.
    pub unique: Option<u64>,
    /// The flags whose order counts.
    pub turns: SmallVec<[Turn; 4]>,
    /// `v`: the number is shown.
    pub value: bool,
    /// `c`: the cas unique is shown.
    pub shows_unique: bool,
}

impl Step {
    /// The same step by `incr` or `decr`.
    pub fn arith<'a>(&self, key: &'a [u8]) -> Arith<'a> {
        Arith {
            key,
            decr: self.decr,
            delta: Delta {
                negative: false,
                amount: self.delta,
            },
            target: None,
        }
    }

    /// A fan-out has many counters and shows their number: it takes no flag that speaks of one.
    pub fn check_fan_out(&self, place: Place<'_>) -> Result<(), Refusal> {
        let shows_time = self.turns.contains(&Turn::Remaining);
        let sets_time = self
            .turns
            .iter()
            .any(|turn| matches!(turn, Turn::Expire(_)));
        forbid("flag N", self.vivify.is_some(), place)?;
        forbid("flag C", self.compare.is_some(), place)?;
        forbid("flag E", self.unique.is_some(), place)?;
        forbid("flag T", sets_time, place)?;
        forbid("flag t", shows_time, place)?;
        forbid("flag c", self.shows_unique, place)
    }

    /// The reply to a fan-out: how many counters there were.
    pub fn fanned_out(&self, reply: &Reply) -> MetaReply {
        match reply {
            Reply::Number(members) => self.reply(*members),
            Reply::Stored
            | Reply::NotStored
            | Reply::Exists
            | Reply::NotFound
            | Reply::Deleted
            | Reply::Touched
            | Reply::Ok
            | Reply::Hits(_)
            | Reply::Meta(_) => MetaReply::without(Status::NotFound),
        }
    }

    fn reply(&self, number: u64) -> MetaReply {
        let mut reply = MetaReply::without(Status::Done);
        reply.seen.value = self.value.then_some(Value::Number(number));
        reply
    }

    /// The rules for one number.
    pub fn decide<'a>(
        &self,
        place: Place<'a>,
        old: Option<View<'_>>,
        ctx: &Context<'_>,
    ) -> Result<Outcome<'a>, Refusal> {
        forbid_unique(self.unique, place)?;
        // As memcached: what is empty is no number, whatever its cas unique is.
        let is_empty = old.is_some_and(|old| old.value.text_len() == 0);
        if !is_empty && differs_unless_0(self.compare, old) {
            return Ok(Outcome::keep(MetaReply::without(Status::Exists).into()));
        }
        let arith = self.arith(&[]);
        let outcome = if old.is_none() && self.vivify.is_some() {
            // What is made is not stepped, so that no bound is in the step's way.
            arith.check(place)?;
            self.create(place, ctx)?
        } else {
            arith.decide(place, old, ctx)?
        };
        let (Reply::Number(number), Some(change)) = (&outcome.reply, outcome.change) else {
            return Ok(Outcome::keep(MetaReply::without(Status::NotFound).into()));
        };
        let key = place.key;
        let (flags, expires) = match (&change, old) {
            (Change::Put { flags, expires, .. }, _) => (*flags, *expires),
            (_, Some(old)) => (old.flags, old.expires),
            (_, None) => (0, Expiry::NEVER),
        };
        let course = Course::run(&self.turns, expires, old.is_none(), ctx.now);
        let mut reply = self.reply(*number);
        reply.seen.created = old.is_none();
        reply.seen.remaining_s = course.remaining_s;
        reply.seen.unique = match place.holds {
            Holds::Kind(Kind::Counter | Kind::Counter64) => {
                Some(counter::cas(*number, flags, course.expires))
            }
            Holds::Kind(Kind::Index | Kind::Data) | Holds::Named => self.unique,
        };
        let mut changes = vec![change];
        changes.extend(self.unique.map(|unique| Change::Unique {
            key,
            unique: Some(unique),
        }));
        changes.extend(course.change(key, ctx.now));
        Ok(Outcome {
            reply: reply.into(),
            change: together(changes),
        })
    }

    /// The number that a miss is filled with, as `add` would store it.
    fn create<'a>(&self, place: Place<'a>, ctx: &Context<'_>) -> Result<Outcome<'a>, Refusal> {
        let mut text = itoa::Buffer::new();
        let put = Put {
            key: &[],
            mode: Mode::Add,
            flags: 0,
            exptime: Exptime(0),
            body: text.format(self.initial).as_bytes(),
        };
        let outcome = put.decide(place, put.prepare(place), None, ctx)?;
        let key = place.key;
        let change = outcome.change.and_then(|change| match change {
            Change::Put {
                value,
                flags,
                expires,
                ..
            } => Some(Change::Put {
                key,
                value,
                flags,
                expires,
            }),
            _ => None,
        });
        Ok(Outcome {
            reply: Reply::Number(self.initial),
            change,
        })
    }
}
