//! `mg`: an entry and what is known of it; it may touch it, make it on a miss, and tell one
//! client of many to store it anew.

use smallvec::SmallVec;

use super::together;
use super::{Course, MetaReply, Seen, Status, Turn, empty_value, forbid_mark, forbid_unique};
use crate::clock::Expiry;
use crate::command::{Change, Context, Outcome, Place, Refusal, View};
use crate::key::Key;
use crate::value::{Marks, Value};

/// What `mg` asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Get {
    /// The flags whose order counts.
    pub turns: SmallVec<[Turn; 4]>,
    /// `v`: the value is shown.
    pub value: bool,
    /// `E`: the cas unique of an entry that is made on a miss.
    pub unique: Option<u64>,
    /// `u`: the entry does not count as used.
    pub unseen: bool,
}

impl Get {
    /// True if it may change what it finds, or that it finds nothing.
    pub fn edits(&self) -> bool {
        self.turns.iter().any(|turn| *turn != Turn::Remaining)
    }

    /// True if it sets the expiry of what it finds.
    pub fn touches(&self) -> bool {
        self.turns
            .iter()
            .any(|turn| matches!(turn, Turn::Expire(_)))
    }

    /// True if whoever sees these marks is told to store the entry anew, which must be noted.
    pub fn wins(marks: Marks) -> bool {
        marks.has(Marks::STALE) && !marks.has(Marks::WON)
    }

    /// What is shown of an entry that stays as it is.
    pub fn show(&self, old: Option<View<'_>>, ctx: &Context<'_>) -> MetaReply {
        let Some(old) = old else {
            return MetaReply::without(Status::Miss);
        };
        let mut seen = Seen::of(&old, ctx.now);
        seen.value = self.value.then(|| old.value.to_value());
        MetaReply {
            status: Status::Done,
            seen,
        }
    }

    /// The same as if another client had won.
    pub fn show_won(&self, old: Option<View<'_>>, ctx: &Context<'_>) -> MetaReply {
        let mut reply = self.show(old, ctx);
        let marks = &mut reply.seen.marks;
        *marks = marks.map(|marks| marks.and(Marks::WON));
        reply
    }

    /// The rules.
    pub fn decide<'a>(
        &self,
        place: Place<'a>,
        old: Option<View<'_>>,
        ctx: &Context<'_>,
    ) -> Result<Outcome<'a>, Refusal> {
        let turns = self.turns.iter();
        let (vivifies, recaches) = turns.fold((false, false), |(viv, re), turn| match turn {
            Turn::Vivified(_) => (true, re),
            Turn::Recache(_) => (viv, true),
            Turn::Expire(_) | Turn::Remaining => (viv, re),
        });
        forbid_mark("flag N", vivifies, place)?;
        forbid_mark("flag R", recaches, place)?;
        forbid_unique(self.unique, place)?;
        match old {
            Some(old) => Ok(self.found(place.key, old, ctx)),
            None if vivifies => Ok(self.create(place, ctx)),
            None => Ok(Outcome::keep(self.show(None, ctx).into())),
        }
    }

    fn found<'a>(&self, key: Key<'a>, old: View<'_>, ctx: &Context<'_>) -> Outcome<'a> {
        let course = Course::run(&self.turns, old.expires, false, ctx.now);
        let mut reply = self.show(Some(old), ctx);
        let sent = old.marks().has(Marks::WON);
        reply.seen.remaining_s = course.remaining_s;
        reply.seen.won = !sent && (course.is_late || Self::wins(old.marks()));
        let mut changes: Vec<_> = course.change(key, ctx.now).into_iter().collect();
        if reply.seen.won && !course.expires.is_past(ctx.now) {
            let marks = old.marks().and(Marks::WON);
            changes.push(Change::Mark { key, marks });
        }
        Outcome {
            reply: reply.into(),
            change: together(changes),
        }
    }

    /// A miss is filled with an empty value, and whoever did that is to store a real one.
    fn create<'a>(&self, place: Place<'a>, ctx: &Context<'_>) -> Outcome<'a> {
        let key = place.key;
        let course = Course::run(&self.turns, Expiry::NEVER, true, ctx.now);
        let value = empty_value(place);
        if let (Value::Data(blob), false) = (&value, self.unseen) {
            blob.head().mark(Marks::FETCHED);
        }
        let mut reply = MetaReply::without(Status::Done);
        reply.seen.marks = Some(Marks::NONE);
        reply.seen.size = Some(0);
        reply.seen.unique = self.unique;
        reply.seen.won = true;
        reply.seen.value = self.value.then(|| value.clone());
        reply.seen.remaining_s = course.remaining_s;
        let reply = reply.into();
        if course.expires.is_past(ctx.now) {
            return Outcome::keep(reply);
        }
        let put = Change::Put {
            key,
            value,
            flags: 0,
            expires: course.expires,
        };
        let marks = Marks::WON;
        let mut changes = vec![put, Change::Mark { key, marks }];
        changes.extend(self.unique.map(|unique| Change::Unique {
            key,
            unique: Some(unique),
        }));
        Outcome {
            reply,
            change: together(changes),
        }
    }
}
