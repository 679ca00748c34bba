//! Meta commands: those that only look take a read lock, the others are edits of one entry.

use super::{Answer, Engine, Halt, Turn, room_bytes};
use crate::command::meta::{Act, Get, MetaReply, Set, Step};
use crate::command::{Context, Holds, Meta, Outcome, Place, Refusal, View};
use crate::key::Key;
use crate::types::Kind;

/// A record of several changes of one entry has its key in each.
const CHANGES_MAX: usize = 4;

impl Engine {
    pub(super) fn meta(&self, turn: &mut Turn, meta: &Meta<'_>) -> Result<Answer, Halt> {
        match &meta.act {
            Act::Get(get) => self.meta_get(turn, meta, get),
            Act::Set(set) => self.meta_set(turn, meta, set),
            Act::Arith(step) => self.meta_arith(turn, meta, step),
            Act::Delete(delete) => {
                self.revise(turn, meta, |place, old, ctx| delete.decide(place, old, ctx))
            }
            Act::Debug => {
                let looked = self.look(turn, meta, |place, old, ctx| {
                    Some(MetaReply::debug(place, old, ctx.now))
                });
                looked?.ok_or(Refusal::Internal("to look changes nothing").into())
            }
        }
    }

    fn meta_get(&self, turn: &mut Turn, meta: &Meta<'_>, get: &Get) -> Result<Answer, Halt> {
        if !get.edits() {
            let show = |_: Place<'_>, old: Option<View<'_>>, ctx: &Context<'_>| {
                let wins = old.is_some_and(|old| Get::wins(old.marks()));
                (!wins).then(|| self.noting(get, old, || get.show(old, ctx)))
            };
            if let Some(answer) = self.look(turn, meta, show)? {
                return Ok(answer);
            }
        }
        let revised = self.revise(turn, meta, |place, old, ctx| {
            // An edit that shows a value that is away halts and comes again: it is one use.
            let halts = get.value && old.is_some_and(|old| old.value.is_away());
            let used = old.filter(|_| !halts);
            self.noting(get, used, || get.decide(place, old, ctx))
        });
        match revised {
            Err(Halt::Refused(refusal)) if refusal.is_storage() && !get.edits() => {
                // Reads go on whatever has become of the storage. Nobody wins, as nobody could
                // store the entry anew.
                let show = |_: Place<'_>, old: Option<View<'_>>, ctx: &Context<'_>| {
                    Some(self.noting(get, old, || get.show_won(old, ctx)))
                };
                let looked = self.look(turn, meta, show)?;
                looked.ok_or(Halt::Refused(refusal))
            }
            revised => revised,
        }
    }

    /// Notes the use of an entry after it has been shown as it was before.
    fn noting<T>(&self, get: &Get, old: Option<View<'_>>, show: impl FnOnce() -> T) -> T {
        let shown = show();
        if let Some(old) = old.filter(|_| !get.unseen) {
            self.note_use(old);
        }
        shown
    }

    fn meta_set(&self, turn: &mut Turn, meta: &Meta<'_>, set: &Set<'_>) -> Result<Answer, Halt> {
        let bytes = CHANGES_MAX * meta.key.bytes().len() + set.body.len();
        self.edit(
            turn,
            meta.key.bytes(),
            room_bytes(CHANGES_MAX, bytes),
            |place| set.prepare(&meta.key, place),
            |place, body, old, ctx| set.decide(&meta.key, (place, body), old, ctx),
        )
    }

    fn meta_arith(&self, turn: &mut Turn, meta: &Meta<'_>, step: &Step) -> Result<Answer, Halt> {
        let place = turn.place(meta.key.bytes())?;
        if let (Key::Typed(key), Holds::Kind(Kind::Index)) = (place.key, place.holds) {
            step.check_fan_out(place)?;
            let answer = self.fan_out(turn, key, &step.arith(meta.key.bytes()))?;
            let reply = step.fanned_out(&answer.reply).into();
            return Ok(Answer { reply, ..answer });
        }
        self.revise(turn, meta, |place, old, ctx| step.decide(place, old, ctx))
    }

    /// An edit without a body.
    fn revise<'a>(
        &self,
        turn: &mut Turn,
        meta: &'a Meta<'_>,
        decide: impl Fn(Place<'a>, Option<View<'_>>, &Context<'_>) -> Result<Outcome<'a>, Refusal>,
    ) -> Result<Answer, Halt> {
        let key = meta.key.bytes();
        self.edit(
            turn,
            key,
            room_bytes(CHANGES_MAX, CHANGES_MAX * key.len()),
            |_| (),
            |place, (), old, ctx| decide(place, old, ctx),
        )
    }

    /// Shows an entry as it is; `None` from `show` if to show it is to change it.
    fn look(
        &self,
        turn: &mut Turn,
        meta: &Meta<'_>,
        show: impl Fn(Place<'_>, Option<View<'_>>, &Context<'_>) -> Option<MetaReply>,
    ) -> Result<Option<Answer>, Halt> {
        loop {
            let place = turn.place(meta.key.bytes())?;
            let hash = self.store.hashing().key(place.key);
            let shard = self.store.read(hash);
            if !turn.is_current(shard.types()) {
                drop(shard);
                *turn = self.turn();
                continue;
            }
            let ctx = self.context(turn);
            let old = shard.view(hash, place.key, ctx.now);
            let Some(mut reply) = show(place, old, &ctx) else {
                return Ok(None);
            };
            let mut cold = Vec::new();
            if let (Some(value), Some(old)) = (&mut reply.seen.value, old) {
                self.fill(place.key, old.cas, value, &mut cold);
            }
            let has_expired = old.is_none() && shard.has_expired(hash, place.key, ctx.now);
            return Ok(Some(Answer {
                class: place.key.class(),
                expired: has_expired.into(),
                cold,
                ..Answer::read(reply.into(), shard.last_seq())
            }));
        }
    }
}
