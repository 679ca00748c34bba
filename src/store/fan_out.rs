//! The fan-out: every member of an index has its counter stepped, under the locks of all.
//!
//! Invariant: members are stepped in ascending order of their ids, all or, if one does not fit,
//! some: the engine finds out before it journals one. What takes time is to wait for memory, so
//! counters are fetched many at a time, and what is the same for all is looked up before.

use std::sync::Arc;

use super::hashing::shard_of;
use super::locks::WriteSet;
use super::shard::{Misfit, Shard, Stamp};
use super::step::{Plain, Ruled, Step};
use super::table::{Table, Unfit};
use crate::clock::Time;
use crate::command::ViewValue;
use crate::key::{Key, TypedKey};
use crate::limits::SHARDS;
use crate::types::{Counting, Kind, Overflow};
use crate::value::{Delta, Index, Member};

/// How many counters are fetched from memory together: about as many as the processor waits for at
/// the same time.
const AT_ONCE: usize = 64;

/// What a fan-out is about.
struct FanOut {
    members: Arc<Index>,
    /// A counter is stepped as many times as its member's attribute says.
    weighted: bool,
    kind: Kind,
    counting: Counting,
}

/// The counters of the type in one shard.
struct Counters<'s> {
    table: &'s mut Table,
    last_seq: &'s mut u64,
}

impl Shard {
    fn counters(&mut self, prefix: u16) -> Option<Counters<'_>> {
        let at = self.types.position(prefix)?;
        Some(Counters {
            table: self.tables.get_mut(at)?,
            last_seq: &mut self.last_seq,
        })
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
        let FanOut {
            members,
            weighted,
            kind,
            counting,
        } = self.fan_out_of(index, target, stamp)?;
        let ruled = |times| Ruled {
            delta,
            times,
            counting,
        };
        if weighted {
            let members = members.iter().map(|member| (member.id, member.attribute));
            self.step_all(target, members, ruled, stamp)?;
        } else {
            let members = members.ids().map(|id| (id, 1));
            if counting == Counting::plain(kind) {
                self.step_all(target, members, |_| Plain { delta, kind }, stamp)?;
            } else {
                self.step_all(target, members, ruled, stamp)?;
            }
        }
        for shard in &mut self.guards {
            shard.expect(counting.ends(stamp.time));
            shard.settle(Some(target));
        }
        Ok(())
    }

    /// Steps counters of a type, each as many times as it says.
    fn step_all<S: Step>(
        &mut self,
        prefix: u16,
        mut counters: impl Iterator<Item = (u32, u32)>,
        step: impl Fn(u32) -> S,
        stamp: Stamp,
    ) -> Result<(), Misfit> {
        let hashing = self.store.hashing();
        let mut shards: [Option<Counters<'_>>; SHARDS] = [const { None }; SHARDS];
        for (at, guard) in self.set.iter().zip(&mut self.guards) {
            if let Some(shard) = shards.get_mut(at) {
                *shard = guard.counters(prefix);
            }
        }
        let mut next = Vec::with_capacity(AT_ONCE);
        loop {
            let some = counters.by_ref().take(AT_ONCE);
            next.extend(some.map(|(id, times)| (hashing.id(id), id, times)));
            if next.is_empty() {
                return Ok(());
            }
            for (hash, ..) in &next {
                if let Some(Some(shard)) = shards.get(shard_of(*hash)) {
                    shard.table.prefetch(*hash);
                }
            }
            for (hash, id, times) in next.drain(..) {
                let misfit = |what| stamp.misfit(&format_args!("{prefix}.{id} {what}"));
                let shard = shards.get_mut(shard_of(hash)).and_then(Option::as_mut);
                let shard = shard.ok_or_else(|| misfit(Unfit::Misplaced))?;
                stamp.note_in(shard.last_seq);
                let stepped = shard
                    .table
                    .step(hashing, (hash, id), step(times), stamp.time);
                stepped.map_err(misfit)?;
            }
        }
    }
}
