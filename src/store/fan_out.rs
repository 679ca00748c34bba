//! The fan-out: every member of an index has its counter stepped, under the locks of all.
//!
//! Invariant: all members are stepped or, if one does not fit, some: the engine finds out before
//! it journals one. What takes time is to wait for memory. So of the tables only what a step in
//! place needs is looked at, which stays in the nearest cache, and counters are fetched many at a
//! time. What takes more, like a counter that is new, waits for the rest and takes the long way.

use std::sync::Arc;

use super::counters::{Counters, InPlace};
use super::hashing::shard_of;
use super::locks::WriteSet;
use super::shard::{Misfit, Stamp};
use super::step::{Plain, Ruled, Step};
use super::table::{Unfit, Width};
use super::upkeep::page_of;
use crate::clock::Time;
use crate::command::ViewValue;
use crate::key::{Key, TypedKey};
use crate::limits::SHARDS;
use crate::types::{Counting, Kind, Overflow};
use crate::value::{Delta, Index, Member};

/// How many counters are fetched from memory together: about as many as the processor waits for at
/// the same time.
const AT_ONCE: usize = 64;

/// How many counters wait for the long way at most.
const REST_MAX: usize = 4096;

/// What a fan-out is about.
struct FanOut {
    members: Arc<Index>,
    /// A counter is stepped as many times as its member's attribute says.
    weighted: bool,
    kind: Kind,
    counting: Counting,
}

/// A member whose counter is to be stepped.
#[derive(Clone, Copy)]
struct Due {
    hash: u64,
    member: Member,
}

/// Which counters, and how.
struct Steps<S> {
    /// The prefix of their type, and its position in the type table.
    prefix: u16,
    at: usize,
    step: S,
    stamp: Stamp,
}

impl<S> Steps<S> {
    fn misfit(&self, id: u32, unfit: Unfit) -> Misfit {
        self.stamp
            .misfit(&format_args!("{}.{id} {unfit}", self.prefix))
    }
}

impl WriteSet<'_> {
    /// The first counter of a fan-out that refuses its step, if one does.
    pub fn refusing(
        &self,
        index: &Index,
        (target, delta, weighted): (u16, Delta, bool),
        counting: &Counting,
        now: Time,
    ) -> Option<TypedKey> {
        if counting.overflow != Overflow::Error {
            return None;
        }
        let keyed = |member: Member| {
            (
                TypedKey {
                    prefix: target,
                    id: member.id,
                },
                member.attribute,
            )
        };
        let refuses = |(key, attribute): &(TypedKey, u32)| {
            let from = match self.view(Key::Typed(*key), now).map(|view| view.value) {
                Some(ViewValue::Number(number)) => number,
                Some(_) | None => counting.initial,
            };
            let times = if weighted { *attribute } else { 1 };
            delta.apply_within(from, times, counting).is_none()
        };
        index.iter().map(keyed).find(refuses).map(|(key, _)| key)
    }

    /// Finds out whether a fan-out fits as a whole; if it does not, [`WriteSet::apply`] may leave
    /// it half done.
    pub fn check_fan_out(
        &self,
        (index, target): (TypedKey, u16),
        delta: Delta,
        stamp: Stamp,
    ) -> Result<(), Misfit> {
        let FanOut {
            members,
            weighted,
            counting,
            ..
        } = self.fan_out_of(index, target, stamp)?;
        match self.refusing(&members, (target, delta, weighted), &counting, stamp.time) {
            Some(key) => Err(stamp.misfit(&format_args!("{key} {}", Unfit::OutOfBounds))),
            None => Ok(()),
        }
    }

    fn fan_out_of(&self, index: TypedKey, target: u16, stamp: Stamp) -> Result<FanOut, Misfit> {
        let members = self.index(index, stamp.time).cloned();
        let members = members.ok_or_else(|| stamp.misfit(&format_args!("{index} is not there")))?;
        let types = self.types().map(Arc::clone).unwrap_or_default();
        let counters = types
            .get(target)
            .ok_or_else(|| stamp.misfit(&format_args!("there is no type {target}")))?;
        Ok(FanOut {
            members,
            weighted: types.get(index.prefix).is_some_and(|row| row.weighted),
            kind: counters.kind,
            counting: counters.counting(),
        })
    }

    /// Carries a fan-out out.
    pub(super) fn fan_out(
        &mut self,
        index: TypedKey,
        target: u16,
        delta: Delta,
        stamp: Stamp,
    ) -> Result<(), Misfit> {
        let fan_out = self.fan_out_of(index, target, stamp)?;
        match fan_out.kind {
            Kind::Counter => self.step_members::<u32>(&fan_out, target, delta, stamp),
            Kind::Counter64 => self.step_members::<[u32; 2]>(&fan_out, target, delta, stamp),
            Kind::Index | Kind::Data => {
                Err(stamp.misfit(&format_args!("{target} has no counters")))
            }
        }
    }

    fn step_members<N: Width>(
        &mut self,
        fan_out: &FanOut,
        target: u16,
        delta: Delta,
        stamp: Stamp,
    ) -> Result<(), Misfit> {
        let &FanOut { kind, counting, .. } = fan_out;
        let members = &fan_out.members;
        let ruled = |times| Ruled {
            delta,
            times,
            counting,
        };
        if fan_out.weighted {
            let ruled = |member: Member| ruled(member.attribute);
            self.step_all::<N, _>(members, &self.steps(target, ruled, stamp)?)
        } else if counting == Counting::plain(kind) {
            let plain = |_| Plain { delta, kind };
            self.step_all::<N, _>(members, &self.steps(target, plain, stamp)?)
        } else {
            let ruled = |_| ruled(1);
            self.step_all::<N, _>(members, &self.steps(target, ruled, stamp)?)
        }
    }

    fn steps<F>(&self, prefix: u16, step: F, stamp: Stamp) -> Result<Steps<F>, Misfit> {
        let at = self.types().and_then(|types| types.position(prefix));
        Ok(Steps {
            prefix,
            at: at.ok_or_else(|| stamp.misfit(&format_args!("there is no type {prefix}")))?,
            step,
            stamp,
        })
    }

    fn step_all<N: Width, S: Step>(
        &mut self,
        members: &Index,
        steps: &Steps<impl Fn(Member) -> S>,
    ) -> Result<(), Misfit> {
        for guard in &mut self.guards {
            steps.stamp.note_in(&mut guard.last_seq);
        }
        let (mut blocks, mut rest) = (members.blocks().peekable(), Vec::new());
        let mut resized = false;
        while blocks.peek().is_some() {
            resized |= self.step_in_place::<N, S>(&mut blocks, steps, &mut rest)?;
            resized |= !rest.is_empty();
            self.step_rest::<N, S>(&rest, steps)?;
            rest.clear();
        }
        if resized {
            let page = page_of(Some(steps.at));
            self.shards_mut().for_each(|shard| shard.settle_page(page));
        }
        Ok(())
    }

    /// Steps the next of the counters that are there and have nothing but their numbers; the
    /// others are the rest. True if tables may take other memory than before.
    fn step_in_place<N: Width, S: Step>(
        &mut self,
        blocks: &mut impl Iterator<Item = impl Iterator<Item = Member>>,
        steps: &Steps<impl Fn(Member) -> S>,
        rest: &mut Vec<Due>,
    ) -> Result<bool, Misfit> {
        let hashing = self.store.hashing();
        let mut shards: [Option<InPlace<'_, N>>; SHARDS] = [const { None }; SHARDS];
        for (at, guard) in self.set.iter().zip(&mut self.guards) {
            let counters = guard.tables.get_mut(steps.at).and_then(N::counters);
            if let Some(shard) = shards.get_mut(at) {
                *shard = counters.and_then(Counters::in_place);
            }
        }
        let resized = shards.iter().flatten().any(InPlace::is_cut);
        let mut next = Vec::new();
        while rest.len() < REST_MAX
            && let Some(members) = blocks.next()
        {
            next.clear();
            next.extend(members.map(|member| Due {
                hash: hashing.id(member.id),
                member,
            }));
            for some in next.chunks(AT_ONCE) {
                for due in some {
                    if let Some(Some(shard)) = shards.get(shard_of(due.hash)) {
                        shard.prefetch(due.hash);
                    }
                }
                for &due in some {
                    let Due { hash, member } = due;
                    let shard = shards.get_mut(shard_of(hash)).and_then(Option::as_mut);
                    let number = shard.and_then(|shard| shard.number_mut(hash, member.id));
                    let Some(number) = number else {
                        rest.push(due);
                        continue;
                    };
                    let after = (steps.step)(member).after(number.unpack());
                    let after = after.ok_or_else(|| steps.misfit(member.id, Unfit::OutOfBounds))?;
                    *number = N::pack(after);
                }
            }
        }
        Ok(resized)
    }

    /// Steps counters that may be new, or have more than a number.
    fn step_rest<N: Width, S: Step>(
        &mut self,
        rest: &[Due],
        steps: &Steps<impl Fn(Member) -> S>,
    ) -> Result<(), Misfit> {
        for some in rest.chunks(AT_ONCE) {
            for due in some {
                let shard = self.guards.get(self.set.rank(shard_of(due.hash)));
                if let Some(table) = shard.and_then(|shard| shard.tables.get(steps.at)) {
                    table.prefetch(due.hash);
                }
            }
            for due in some {
                self.step_one::<N, S>(*due, steps)?;
            }
        }
        Ok(())
    }

    fn step_one<N: Width, S: Step>(
        &mut self,
        Due { hash, member }: Due,
        steps: &Steps<impl Fn(Member) -> S>,
    ) -> Result<(), Misfit> {
        let (hashing, now) = (self.store.hashing(), steps.stamp.time);
        let shard = self.guards.get_mut(self.set.rank(shard_of(hash)));
        let misplaced = || steps.misfit(member.id, Unfit::Misplaced);
        let shard = shard.ok_or_else(misplaced)?;
        let counters = shard.tables.get_mut(steps.at).and_then(N::counters);
        let counters = counters.ok_or_else(misplaced)?;
        let step = (steps.step)(member);
        let stepped = counters.step(hashing, (hash, member.id), step, now);
        stepped.ok_or_else(|| steps.misfit(member.id, Unfit::OutOfBounds))?;
        shard.expect(step.ends(now));
        Ok(())
    }
}
