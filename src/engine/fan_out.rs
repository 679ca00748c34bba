//! The fan-out: `incr` on an INDEX steps the counter of every member. One record, all or none.

use std::sync::Arc;

use super::evict::Tries;
use super::{Answer, Engine, Turn, room_bytes};
use crate::command::{Arith, Change, Context, Outcome, Refusal, Reply, View, ViewValue};
use crate::key::{Key, TypedKey};
use crate::limits::SHARDS;
use crate::store::locks::{ShardSet, WriteSet};
use crate::types::{Counting, TypeTable};
use crate::value::{Delta, Index};

/// From how many members on all shards are locked: two of five would be anyway, and looking up
/// which costs more than locking the rest.
const LOCK_ALL_FROM: usize = SHARDS / 2;

/// About what a new counter takes, in bytes.
const COUNTER_BYTES: u64 = 16;

/// What an index was when it was looked up.
enum Seen {
    Missing { seq: u64 },
    Found(Arc<Index>),
}

impl Engine {
    pub(super) fn fan_out(
        &self,
        turn: &mut Turn,
        index: TypedKey,
        arith: &Arith<'_>,
    ) -> Result<Answer, Refusal> {
        // The first try locks the shards of the members that it has seen; should the index have
        // changed in between, the second locks all, and so cannot fail for that reason.
        let mut lock_all = false;
        let mut tries = Tries::default();
        loop {
            let step = step(&turn.types, index, arith)?;
            let seen = match self.look_up(index) {
                Seen::Missing { seq } => {
                    return Ok(Answer {
                        class: index.prefix.into(),
                        ..Answer::read(Reply::NotFound, seq)
                    });
                }
                Seen::Found(members) => members,
            };
            let set = if lock_all {
                ShardSet::ALL
            } else {
                self.shards_of(index, &seen)
            };
            let room = self.reserve_if(turn.types.is_durable(step.target), room_bytes(1, 0))?;
            let mut shards = self.store.write_set(set);
            let ctx = self.context(turn);
            let same_types = shards.types().is_some_and(|types| turn.is_current(types));
            let current = shards.index(index, ctx.now);
            let same_index = current.is_some_and(|current| Arc::ptr_eq(current, &seen));
            if !same_types || !same_index && !lock_all {
                drop(shards);
                self.release(room);
                if !same_types {
                    *turn = self.turn();
                }
                lock_all = true;
                continue;
            }
            let decided = decide(index, &step, current, &shards, &ctx);
            let counters = current.map_or(0, |index| missing(&shards, index, step.target, &ctx));
            let lacking = (counters * COUNTER_BYTES).saturating_sub(ctx.memory_room);
            if lacking > 0 {
                drop(shards);
                self.release(room);
                tries.make_room(self, lacking)?;
                continue;
            }
            // The reference must go, or the index would be copied at its next edit.
            drop(seen);
            let last_seq = shards.last_seq();
            let apply = |change: Change<'_>, stamp| shards.apply(change, stamp);
            let mut answer = self.commit(decided, (room, ctx.now), &turn.types, apply, last_seq)?;
            answer.class = index.prefix.into();
            if let Reply::Number(members) = answer.reply {
                if answer.wrote {
                    self.journal.add_work(members);
                }
                answer.fanned_out = Some(members);
            }
            return Ok(answer);
        }
    }

    fn look_up(&self, key: TypedKey) -> Seen {
        let hash = self.store.hashing().id(key.id);
        let shard = self.store.read(hash);
        match shard.view(hash, Key::Typed(key), self.clock.latest()) {
            Some(View {
                value: ViewValue::Index(index),
                ..
            }) => Seen::Found(Arc::clone(index)),
            Some(_) | None => Seen::Missing {
                seq: shard.last_seq(),
            },
        }
    }

    fn shards_of(&self, index: TypedKey, members: &Index) -> ShardSet {
        if members.len() >= LOCK_ALL_FROM {
            return ShardSet::ALL;
        }
        let hashing = self.store.hashing();
        let mut set = ShardSet::default();
        set.insert(hashing.id(index.id));
        for id in members.ids() {
            set.insert(hashing.id(id));
        }
        set
    }
}

/// What a fan-out does to each counter.
struct Step {
    /// The prefix of the counters.
    target: u16,
    delta: Delta,
    /// As many times as the member's attribute says.
    weighted: bool,
    /// How the counters count.
    counting: Counting,
}

fn step(types: &TypeTable, index: TypedKey, arith: &Arith<'_>) -> Result<Step, Refusal> {
    let row = types.get(index.prefix);
    let own = row.and_then(|row| row.target);
    let target = arith.target.or(own).unwrap_or(crate::types::COUNTER_PREFIX);
    let counters = types.get(target).filter(|row| row.kind.is_counter());
    let counters = counters.ok_or(Refusal::TargetNotCounter(target))?;
    // A restart would not find the index that such a record is about.
    if types.is_durable(target) && !types.is_durable(index.prefix) {
        return Err(Refusal::TargetDurable { index, target });
    }
    Ok(Step {
        target,
        delta: arith.step(counters.kind)?,
        weighted: row.is_some_and(|row| row.weighted),
        counting: counters.counting(),
    })
}

/// How many counters a fan-out creates, as far as that matters: if memory has room for all, they
/// are not looked for.
fn missing(shards: &WriteSet<'_>, index: &Index, target: u16, ctx: &Context<'_>) -> u64 {
    if index.len() as u64 * COUNTER_BYTES <= ctx.memory_room {
        return 0;
    }
    let is_missing = |id: &u32| {
        let (prefix, id) = (target, *id);
        shards
            .view(Key::Typed(TypedKey { prefix, id }), ctx.now)
            .is_none()
    };
    index.ids().filter(is_missing).count() as u64
}

fn decide<'a>(
    key: TypedKey,
    step: &Step,
    index: Option<&Arc<Index>>,
    shards: &WriteSet<'_>,
    ctx: &Context<'_>,
) -> Result<Outcome<'a>, Refusal> {
    let Some(index) = index else {
        return Ok(Outcome {
            reply: Reply::NotFound,
            change: None,
        });
    };
    let reply = Reply::Number(index.len() as u64);
    if index.is_empty() {
        return Ok(Outcome {
            reply,
            change: None,
        });
    }
    let steps = (step.target, step.delta, step.weighted);
    if let Some(key) = shards.refusing(index, steps, &step.counting, ctx.now) {
        let Counting { min, max, .. } = step.counting;
        return Err(Refusal::OutOfBounds { key, min, max });
    }
    let change = Change::FanOut {
        index: key,
        target: step.target,
        delta: step.delta,
    };
    Ok(Outcome {
        reply,
        change: Some(change),
    })
}
