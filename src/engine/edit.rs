//! Edits of single entries, and of several at once.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

use super::evict::Tries;
use super::{Answer, Engine, Halt, Turn, room_bytes};
use crate::clock::{Expiry, Time};
use crate::command::put::Body;
use crate::command::{
    Arith, Change, Context, Exptime, Fetch, Holds, Outcome, Place, Put, Refusal, Reply, View,
    ViewValue, fetch, remove,
};
use crate::journal::Room;
use crate::key::{Key, TypedKey};
use crate::store::locks::{ShardSet, WriteSet};
use crate::types::Kind;
use crate::value::{self, Content};

/// How long before the start of the server its time begins, as in memcached: the clock of a client
/// may be a bit behind.
const CLOCKS_APART_MS: u64 = 62_000;

type Decided<'a> = Result<Outcome<'a>, Refusal>;

impl Engine {
    /// Decides about one entry and carries the decision out.
    pub(super) fn edit<'a, P>(
        &self,
        turn: &mut Turn,
        raw: &'a [u8],
        bytes: u64,
        prepare: impl Fn(Place<'a>) -> P,
        decide: impl Fn(Place<'a>, P, Option<View<'_>>, &Context<'_>) -> Decided<'a>,
    ) -> Result<Answer, Halt> {
        let mut tries = Tries::default();
        loop {
            let place = turn.place(raw)?;
            let prepared = prepare(place);
            let hash = self.store.hashing().key(place.key);
            let durable = turn.types.keep(place.key).durable;
            let room = self.reserve_if(durable, bytes)?;
            let mut shard = self.store.write(hash);
            if !turn.is_current(shard.types()) {
                drop(shard);
                self.release(room);
                *turn = self.turn();
                continue;
            }
            let ctx = self.context(turn);
            let old = shard.view(hash, place.key, ctx.now);
            let away = old.and_then(|old| away(place.key, old));
            let decided = decide(place, prepared, old, &ctx);
            let lacking = lacking(&decided, &ctx, |_| old);
            if lacking > 0 {
                drop(shard);
                self.release(room);
                tries.make_room(self, lacking)?;
                continue;
            }
            let added = added(&decided);
            let needed = added.is_some() || shows_value(&decided);
            if let Some((key, cas, at)) = away.filter(|_| needed) {
                let cold = self.cold(key, cas, at);
                drop(shard);
                self.release(room);
                return Err(Halt::Cold(Box::new(cold)));
            }
            if let Some(added) = added {
                self.note_lingering(turn, place.key, (old, added));
            }
            let seen = shard.last_seq();
            let apply = |change, stamp| shard.apply(hash, change, stamp);
            let mut answer = self.commit(decided, (room, ctx.now), &turn.types, apply, seen)?;
            answer.class = place.key.class();
            return Ok(answer);
        }
    }

    pub(super) fn put(&self, turn: &mut Turn, put: &Put<'_>) -> Result<Answer, Halt> {
        let prepare = |place: Place<'_>| put.prepare(place);
        self.edit(
            turn,
            put.key,
            room_bytes(1, put.key.len() + put.body.len()),
            prepare,
            |place, body, old, ctx| put.decide(place, body, old, ctx),
        )
    }

    pub(super) fn arith(&self, turn: &mut Turn, arith: &Arith<'_>) -> Result<Answer, Halt> {
        let place = turn.place(arith.key)?;
        if let (Key::Typed(key), Holds::Kind(Kind::Index)) = (place.key, place.holds) {
            return Ok(self.fan_out(turn, key, arith)?);
        }
        let bytes = room_bytes(1, arith.key.len());
        self.edit(
            turn,
            arith.key,
            bytes,
            |_| (),
            |place, (), old, ctx| arith.decide(place, old, ctx),
        )
    }

    pub(super) fn delete(&self, turn: &mut Turn, key: &[u8]) -> Result<Answer, Halt> {
        self.edit(
            turn,
            key,
            room_bytes(1, key.len()),
            |_| (),
            |place, (), old, _| Ok(remove::delete(place.key, old)),
        )
    }

    pub(super) fn touch(
        &self,
        turn: &mut Turn,
        key: &[u8],
        exptime: Exptime,
    ) -> Result<Answer, Halt> {
        self.edit(
            turn,
            key,
            room_bytes(1, key.len()),
            |_| (),
            |place, (), old, ctx| {
                if let Some(old) = old {
                    self.note_use(old);
                }
                Ok(remove::touch(place.key, exptime, old, ctx))
            },
        )
    }

    /// Decides about several entries under all their locks; the changes are one record.
    fn edit_many<'a, P>(
        &self,
        turn: &mut Turn,
        raws: &[&'a [u8]],
        bytes: u64,
        prepare: impl Fn(&[Place<'a>]) -> P,
        decide: impl Fn(&[Place<'a>], P, &WriteSet<'_>, &Context<'_>) -> Decided<'a>,
    ) -> Result<Answer, Refusal> {
        let mut tries = Tries::default();
        loop {
            let places: Vec<_> = raws
                .iter()
                .map(|raw| turn.place(raw))
                .collect::<Result<_, _>>()?;
            let prepared = prepare(&places);
            let mut set = ShardSet::default();
            for place in &places {
                set.insert(self.store.hashing().key(place.key));
            }
            let durable = |place: &Place<'_>| turn.types.keep(place.key).durable;
            let room = self.reserve_if(places.iter().any(durable), bytes)?;
            let mut shards = self.store.write_set(set);
            if !shards.shards().all(|shard| turn.is_current(shard.types())) {
                drop(shards);
                self.release(room);
                *turn = self.turn();
                continue;
            }
            let ctx = self.context(turn);
            let decided = decide(&places, prepared, &shards, &ctx);
            let lacking = lacking(&decided, &ctx, |key| shards.view(key, ctx.now));
            if lacking > 0 {
                drop(shards);
                self.release(room);
                tries.make_room(self, lacking)?;
                continue;
            }
            let seen = shards.last_seq();
            let apply = |change: Change<'_>, stamp| shards.apply(change, stamp);
            return self.commit(decided, (room, ctx.now), &turn.types, apply, seen);
        }
    }

    pub(super) fn put_many(&self, turn: &mut Turn, puts: &[Put<'_>]) -> Result<Answer, Refusal> {
        let keys: Vec<_> = puts.iter().map(|put| put.key).collect();
        let bytes = puts.iter().map(|put| put.key.len() + put.body.len()).sum();
        let bytes = room_bytes(puts.len(), bytes);
        let prepare = |places: &[Place<'_>]| -> Vec<Body<'_>> {
            puts.iter()
                .zip(places)
                .map(|(put, place)| put.prepare(*place))
                .collect()
        };
        self.edit_many(
            turn,
            &keys,
            bytes,
            prepare,
            |places, bodies, shards, ctx| {
                let mut changes = Vec::with_capacity(puts.len());
                for ((put, place), body) in puts.iter().zip(places).zip(bodies) {
                    let old = shards.view(place.key, ctx.now);
                    let outcome = put.decide(*place, body, old, ctx)?;
                    changes.push((place.key, outcome.change));
                }
                Ok(Outcome {
                    reply: Reply::Stored,
                    change: last_of_each(changes),
                })
            },
        )
    }

    pub(super) fn fetch_and_touch(
        &self,
        turn: &mut Turn,
        fetch: &Fetch<'_>,
        exptime: Exptime,
    ) -> Result<Answer, Refusal> {
        let bytes = fetch.keys.iter().map(|key| key.len()).sum();
        let bytes = room_bytes(fetch.keys.len(), bytes);
        let (cold, expired) = (RefCell::<Vec<_>>::default(), Cell::new(0));
        let answer = self.edit_many(
            turn,
            &fetch.keys,
            bytes,
            |_| (),
            |places, (), shards, ctx| {
                let mut changes = Vec::with_capacity(places.len());
                let mut cold = cold.borrow_mut();
                cold.clear();
                let missing = |place: &&Place<'_>| shards.has_expired(place.key, ctx.now);
                expired.set(places.iter().filter(missing).count());
                // One key after the other: what ends at once is not there the next time.
                let ends = exptime.resolve(ctx.now).is_past(ctx.now);
                let mut gone = HashSet::new();
                let hits = places.iter().map(|place| {
                    let old = shards.view(place.key, ctx.now);
                    let old = old.filter(|_| !ends || gone.insert(place.key));
                    let change = fetch::touch(place.key, exptime, old, ctx);
                    changes.extend(change.map(|change| (place.key, Some(change))));
                    old.map(|old| self.hit(place.key, old, &mut cold))
                });
                let reply = Reply::Hits(hits.collect());
                Ok(Outcome {
                    reply,
                    change: last_of_each(changes),
                })
            },
        )?;
        Ok(Answer {
            expired: u32::try_from(expired.get()).unwrap_or(u32::MAX),
            cold: cold.into_inner(),
            ..answer
        })
    }

    pub(super) fn flush_all(&self, turn: &mut Turn, delay: Exptime) -> Result<Answer, Refusal> {
        // As memcached: a time before the server's own is none, and not one that has passed. It
        // is a delay of more than 30 days, which is read as a moment of 1970.
        let began = Time(self.clock.started().0.saturating_sub(CLOCKS_APART_MS));
        if delay.0 > 0 && delay.resolve(began).is_past(began) {
            return Ok(Answer::read(Reply::Ok, 0));
        }
        let room = self.reserve(room_bytes(1, 0))?;
        let mut shards = self.store.write_set(ShardSet::ALL);
        let now = self.context(turn).now;
        let at = Some(delay.resolve(now))
            .filter(|at| !at.is_past(now))
            .and_then(Expiry::time);
        self.empty(&mut shards, room, now, at)
    }

    /// Carries out a delayed `flush_all` that is due. If the journal has no room now, the next
    /// turn tries again.
    pub(super) fn flush_due(&self) {
        let Ok(room) = self.reserve(room_bytes(1, 0)) else {
            return;
        };
        let mut shards = self.store.write_set(ShardSet::ALL);
        let now = self.clock.latest();
        if !self.store.pending_flush().is_past(now) {
            self.journal.release(room);
            return;
        }
        if let Err(refusal) = self.empty(&mut shards, room, now, None) {
            tracing::error!(%refusal, "a delayed flush_all failed");
        }
    }

    /// Removes everything: now, or all that is there at that time.
    fn empty(
        &self,
        shards: &mut WriteSet<'_>,
        room: Room,
        now: Time,
        at: Option<Time>,
    ) -> Result<Answer, Refusal> {
        let outcome = Outcome {
            reply: Reply::Ok,
            change: Some(Change::Flush { at }),
        };
        let types = self.store.types();
        let apply = |change: Change<'_>, stamp| shards.apply(change, stamp);
        self.commit(Ok(outcome), (Some(room), now), &types, apply, 0)
    }
}

/// True if the reply shows the value as it was.
fn shows_value(decided: &Result<Outcome<'_>, Refusal>) -> bool {
    let reply = decided.as_ref().map(|outcome| &outcome.reply);
    matches!(reply, Ok(Reply::Meta(reply)) if reply.seen.value.is_some())
}

/// How many bytes of memory a decision lacks.
fn lacking<'s>(
    decided: &Result<Outcome<'_>, Refusal>,
    ctx: &Context<'_>,
    old: impl Fn(Key<'_>) -> Option<View<'s>>,
) -> u64 {
    let change = decided.as_ref().ok().and_then(|it| it.change.as_ref());
    change.map_or(0, |change| ctx.lacks(change, old))
}

/// How many bytes a decision adds to a value, if that is what it does.
fn added(decided: &Decided<'_>) -> Option<usize> {
    match decided.as_ref().ok()?.change.as_ref()? {
        Change::Extend { bytes, .. } => Some(bytes.len()),
        Change::Put { .. }
        | Change::Remove { .. }
        | Change::Expire { .. }
        | Change::Number { .. }
        | Change::Mark { .. }
        | Change::Unique { .. }
        | Change::Members { .. }
        | Change::FanOut { .. }
        | Change::Flush { .. }
        | Change::Types(_)
        | Change::Batch(_) => None,
    }
}

/// Which value is away, if the entry's is.
fn away(key: Key<'_>, view: View<'_>) -> Option<(TypedKey, u64, value::Place)> {
    match (key, view.value) {
        (Key::Typed(key), ViewValue::Data(blob)) => match blob.content() {
            Content::Away(place) => Some((key, view.cas, place)),
            Content::Here(_) => None,
        },
        (Key::Typed(_) | Key::Named(_), _) => None,
    }
}

/// The changes as one; of several to the same key the last.
fn last_of_each<'a>(changes: Vec<(Key<'a>, Option<Change<'a>>)>) -> Option<Change<'a>> {
    let last: HashMap<_, _> = changes
        .iter()
        .enumerate()
        .map(|(at, (key, _))| (*key, at))
        .collect();
    let kept = changes
        .into_iter()
        .enumerate()
        .filter(|(at, (key, _))| last.get(key) == Some(at));
    let mut changes: Vec<_> = kept.filter_map(|(_, (_, change))| change).collect();
    if changes.len() > 1 {
        Some(Change::Batch(changes))
    } else {
        changes.pop()
    }
}
