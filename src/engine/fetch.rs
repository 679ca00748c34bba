//! Retrieval without a new expiry: nothing changes, nothing is journalled.

use smallvec::smallvec;

use super::{Answer, Engine, Turn};
use crate::command::{Fetch, Place, Refusal, Reply};
use crate::store::locks::ShardSet;

impl Engine {
    pub(super) fn fetch(&self, turn: &mut Turn, fetch: &Fetch<'_>) -> Result<Answer, Refusal> {
        loop {
            let answer = match fetch.keys.as_slice() {
                [key] => self.fetch_one(turn, turn.place(key)?),
                keys => self.fetch_many(turn, keys)?,
            };
            match answer {
                Some(answer) => return Ok(answer),
                None => *turn = self.turn(),
            }
        }
    }

    /// One key; `None` if the types have changed since the turn began.
    fn fetch_one(&self, turn: &Turn, place: Place<'_>) -> Option<Answer> {
        let hash = self.store.hashing().key(place.key);
        let shard = self.store.read(hash);
        if !turn.is_current(shard.types()) {
            return None;
        }
        let (mut cold, now) = (Vec::new(), self.clock.latest());
        let hit = shard
            .view(hash, place.key, now)
            .map(|view| self.hit(place.key, view, &mut cold));
        let has_expired = hit.is_none() && shard.has_expired(hash, place.key, now);
        let reply = Reply::Hits(smallvec![hit]);
        Some(Answer {
            cold,
            expired: has_expired.into(),
            ..Answer::read(reply, shard.last_seq())
        })
    }

    /// Several keys, all seen at one moment: of a fan-out either every step or none.
    fn fetch_many(&self, turn: &Turn, keys: &[&[u8]]) -> Result<Option<Answer>, Refusal> {
        let mut set = ShardSet::default();
        let mut places = Vec::with_capacity(keys.len());
        for key in keys {
            let place = turn.place(key)?;
            let hash = self.store.hashing().key(place.key);
            self.store.prefetch(hash);
            set.insert(hash);
            places.push((hash, place.key));
        }
        let shards = self.store.read_set(set);
        if !shards.shards().all(|shard| turn.is_current(shard.types())) {
            return Ok(None);
        }
        for (hash, key) in &places {
            if let Some(shard) = shards.shard(*hash) {
                shard.prefetch(*hash, *key);
            }
        }
        let now = self.clock.latest();
        let (mut cold, mut expired) = (Vec::new(), 0);
        let hits = places.iter().map(|(hash, key)| {
            let shard = shards.shard(*hash)?;
            let view = shard.view(*hash, *key, now);
            if view.is_none() {
                expired += u32::from(shard.has_expired(*hash, *key, now));
            }
            view.map(|view| self.hit(*key, view, &mut cold))
        });
        let reply = Reply::Hits(hits.collect());
        let seq = shards
            .shards()
            .map(crate::store::shard::Shard::last_seq)
            .max();
        Ok(Some(Answer {
            expired,
            cold,
            ..Answer::read(reply, seq.unwrap_or_default())
        }))
    }
}
