//! The cut of a snapshot: every entry as it was at one moment, taken bit by bit while the store
//! goes on changing.
//!
//! [`WriteSet::begin_cut`] marks the moment under all locks. From then on each table keeps aside
//! what it held (its pre-image, see `pre_images`) of an entry that changes before it was
//! taken: entry by entry, so a fan-out over all shards costs as much as it touches.
//! [`Store::visit_cut`] takes the buckets of one shard after the other, `PIECE_BUCKETS` under each
//! hold of its lock, and after those of a table what it has kept aside. A table that is about to
//! grow, which moves entries to other buckets, keeps aside all that was not taken. `flush_all`
//! leaves its tables to the snapshot whole; new types void the cut.
//!
//! Invariant: each entry that was alive at the cut is visited once, as it was, whatever happens
//! in between; but for counters and bytes that have expired since and that nothing changed
//! before. The engine alone calls this.

use super::Store;
use super::locks::WriteSet;
use super::shard::Shard;
use super::table::Table;
use crate::clock::Time;
use crate::command::View;
use crate::key::{Key, TypedKey};
use crate::limits::SHARDS;
use crate::value::{Entry, Value};

/// How many buckets of a table are taken under one hold of the shard's lock: some ten microseconds,
/// so that the snapshot's thread is seldom put aside with a lock held. Few in tests, so that much
/// happens between two pieces.
pub(super) const PIECE_BUCKETS: usize = if cfg!(test) { 8 } else { 1024 };

/// What a shard still owes to a snapshot.
pub(super) enum ShardCut {
    /// Its own tables from this one on.
    Live(Progress),
    /// The shard as it was before a `flush_all`.
    Flushed(Box<Shard>),
}

/// How far a shard has been taken.
#[derive(Clone, Copy)]
pub(super) struct Progress {
    /// The table that is being taken; after the last one that of the named keys.
    pub(super) table: usize,
    /// The time of the cut.
    pub(super) time: Time,
}

/// What taking a piece of a shard gave.
pub(super) enum Took {
    /// Entries, and there may be more.
    Piece,
    /// The last ones.
    Last,
    /// Nothing, but all that is left of the cut, which nobody else can change any more.
    Flushed(Box<Shard>),
    /// Nothing: there is no cut any more.
    Void,
}

/// Entries on their way out of a shard.
#[derive(Default)]
pub(super) struct Piece {
    /// Each with its typed key; the value of a named key carries its key.
    taken: Vec<(Option<TypedKey>, Entry)>,
}

impl Piece {
    pub(super) fn take(&mut self, key: Option<TypedKey>, view: View<'_>) {
        self.taken.push((key, view.to_entry()));
    }

    fn visit<E>(
        &mut self,
        mut visit: impl FnMut(Key<'_>, &Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        for (key, entry) in self.taken.drain(..) {
            match (key, &entry.value) {
                (Some(key), _) => visit(Key::Typed(key), &entry)?,
                (None, Value::Data(blob)) => visit(Key::Named(blob.key()), &entry)?,
                // Named keys hold nothing else.
                (None, Value::Number(_) | Value::Index(_)) => {}
            }
        }
        Ok(())
    }
}

/// The cut is void, because the type table has changed: begin again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Void;

impl WriteSet<'_> {
    /// Makes this moment the cut of a snapshot. All shards are locked.
    pub fn begin_cut(&mut self, time: Time) {
        for shard in self.shards_mut() {
            shard.begin_cut(time);
        }
    }
}

impl Store {
    /// Calls `visit` with each entry that shard `at` held at the cut, without holding its lock;
    /// until `visit` fails.
    pub fn visit_cut<E: From<Void>>(
        &self,
        at: usize,
        mut visit: impl FnMut(Key<'_>, &Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut piece = Piece::default();
        let mut flushed: Option<Box<Shard>> = None;
        loop {
            let took = if let Some(shard) = &mut flushed {
                shard.take_piece(&mut piece)
            } else {
                let mut shard = self.write_nth(at);
                let _held = self.holds().begin();
                shard.take_piece(&mut piece)
            };
            piece.visit(&mut visit)?;
            match took {
                Took::Piece => {}
                Took::Last => return Ok(()),
                Took::Flushed(shard) => flushed = Some(shard),
                Took::Void => return Err(Void.into()),
            }
        }
    }

    /// Gives the cut up: nothing is kept aside any more.
    pub fn drop_cut(&self) {
        for at in 0..SHARDS {
            self.write_nth(at).drop_cut();
        }
    }
}

/// The part of one shard in it.
impl Shard {
    /// From now on the shard knows what its durable tables held at `time`.
    pub(super) fn begin_cut(&mut self, time: Time) {
        for (row, table) in self.types.rows().iter().zip(&mut self.tables) {
            if row.keep.durable {
                table.begin_cut();
            }
        }
        if self.types.named().durable {
            self.named.begin_cut();
        }
        self.cut = Some(ShardCut::Live(Progress { table: 0, time }));
        self.settle_all();
    }

    /// Forgets the cut.
    pub(super) fn drop_cut(&mut self) {
        if self.cut.take().is_some() {
            self.tables.iter_mut().for_each(Table::drop_cut);
            self.named.drop_cut();
            self.settle_all();
        }
    }

    /// Takes the next entries of the cut, a bounded number of them.
    pub(super) fn take_piece(&mut self, piece: &mut Piece) -> Took {
        let Progress { table: at, time } = match self.cut.take() {
            None => return Took::Void,
            Some(ShardCut::Flushed(old)) => return Took::Flushed(old),
            Some(ShardCut::Live(progress)) => progress,
        };
        let Some((row, table)) = self.types.rows().get(at).zip(self.tables.get_mut(at)) else {
            return self.take_named_piece(piece, (at, time));
        };
        let prefix = row.prefix;
        let take = |id, view: View<'_>| piece.take(Some(TypedKey { prefix, id }), view);
        let more = table.take_piece(&self.hashing, time, take);
        self.settle_page(at + 1);
        let table = if more { at } else { at + 1 };
        self.cut = Some(ShardCut::Live(Progress { table, time }));
        Took::Piece
    }

    fn take_named_piece(&mut self, piece: &mut Piece, (table, time): (usize, Time)) -> Took {
        let take = |_, view: View<'_>| piece.take(None, view);
        let more = self.named.take_piece(time, take);
        self.settle_page(0);
        if !more {
            return Took::Last;
        }
        self.cut = Some(ShardCut::Live(Progress { table, time }));
        Took::Piece
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::clock::Expiry;
    use crate::command::change::{Change, Side};
    use crate::store::hashing::shard_of;
    use crate::store::locks::ShardSet;
    use crate::store::shard::Stamp;
    use crate::types::{Kind, TypeDef, TypeTable};
    use crate::value::{Blob, Delta, Index, Marks, Member};

    type State = BTreeMap<String, Entry>;

    fn types() -> Arc<TypeTable> {
        let rows = vec![
            TypeDef::new(3, Kind::Data),
            TypeDef::new(4, Kind::Counter64),
        ];
        Arc::new(TypeTable::new(rows).unwrap())
    }

    /// A store that changes at random.
    struct Life {
        store: Store,
        random: fastrand::Rng,
        seq: u64,
        time: Time,
    }

    impl Life {
        fn new(seed: u64) -> Self {
            let mut life = Self {
                store: Store::default(),
                random: fastrand::Rng::with_seed(seed),
                seq: 0,
                time: Time(1_000_000),
            };
            life.apply(Change::Types(types()));
            life
        }

        /// Puts an entry at every id of every type that has no members.
        fn fill(&mut self, ids: u32) {
            let (seq, time) = (self.seq, self.time);
            let mut shards = self.store.write_set(ShardSet::ALL);
            for (prefix, id) in [2, 3, 4].iter().flat_map(|at| (0..ids).map(|id| (*at, id))) {
                let value = match prefix {
                    3 => Value::Data(Blob::unnamed(b"filled")),
                    _ => Value::Number(id.into()),
                };
                let (flags, expires, cas) = (0, Expiry::NEVER, 0);
                let entry = Entry {
                    value,
                    flags,
                    expires,
                    cas,
                    marks: Marks::NONE,
                };
                let key = Key::Typed(TypedKey { prefix, id });
                let (hash, stamp) = (self.store.hashing().key(key), Stamp { seq, time });
                let shard = shards.shard_mut(hash, stamp).unwrap();
                shard.restore(hash, key, entry, stamp).unwrap();
            }
        }

        fn apply(&mut self, change: Change<'_>) {
            self.seq += 1;
            let (seq, time) = (self.seq, self.time);
            let mut shards = self.store.write_set(ShardSet::ALL);
            shards.apply(change, Stamp { seq, time }).unwrap();
        }

        /// Stores a DATA value of so many bytes.
        fn put(&mut self, id: u32, bytes: usize) {
            self.apply(Change::Put {
                key: Key::Typed(TypedKey { prefix: 3, id }),
                value: Value::Data(Blob::unnamed(&vec![7; bytes])),
                flags: 0,
                expires: Expiry::NEVER,
            });
        }

        fn below(&mut self, end: u32) -> u32 {
            self.random.u32(0..end)
        }

        fn expiry(&mut self) -> Expiry {
            match self.below(3) {
                0 => Expiry::at(Time(self.time.0 + u64::from(self.below(2000)))),
                _ => Expiry::NEVER,
            }
        }

        /// A change of any kind, of keys below `ids`.
        fn step(&mut self, ids: u32) {
            self.time.0 += u64::from(self.below(3));
            let id = self.below(ids);
            let (flags, expires) = (self.below(2), self.expiry());
            let name = format!("name{id}");
            let text = format!("value{}", self.below(1000));
            let prefix = u16::try_from(1 + self.below(5)).unwrap();
            let typed = TypedKey { prefix, id };
            let key = match prefix {
                5 => Key::Named(name.as_bytes()),
                _ => Key::Typed(typed),
            };
            let alive = {
                let shards = self.store.write_set(ShardSet::ALL);
                shards.view(key, self.time).is_some()
            };
            let members: Vec<_> = (0..20).map(|at| at * 7 + id).collect();
            let member = |id: &u32| Member {
                id: *id,
                attribute: 0,
            };
            let value = match prefix {
                1 => Value::Index(Arc::new(Index::from_members(
                    members.iter().map(member).collect(),
                ))),
                2 | 4 => Value::Number(self.below(1000).into()),
                3 => Value::Data(Blob::unnamed(text.as_bytes())),
                _ => Value::Data(Blob::named(name.as_bytes(), text.as_bytes())),
            };
            let put = Change::Put {
                key,
                value,
                flags,
                expires,
            };
            let change = match (self.below(8), alive, prefix) {
                (0, true, _) => Change::Remove { key },
                (1, true, _) => Change::Expire { key, expires },
                (2 | 3, true, 3 | 5) => Change::Extend {
                    key,
                    side: Side::Back,
                    bytes: b"+",
                },
                (2 | 3, true, 1) => Change::Members {
                    key: typed,
                    create: None,
                    added: Cow::Owned(vec![member(&1)]),
                    removed: Cow::Owned(vec![id]),
                },
                (4, true, 1) => Change::FanOut {
                    index: typed,
                    target: 2,
                    delta: Delta {
                        negative: false,
                        amount: 1,
                    },
                },
                (2 | 3, _, 2 | 4) => Change::Number { key, number: 7 },
                _ => put,
            };
            self.apply(change);
            if self.below(50) == 0 {
                self.store.sweep(self.time, || true);
            }
        }

        fn state(&self) -> State {
            let mut state = State::new();
            for shard in self.store.write_set(ShardSet::ALL).shards() {
                let Ok(()) = shard.for_each(self.time, |key, view| {
                    state.insert(key.to_string(), view.to_entry());
                    Ok::<_, std::convert::Infallible>(())
                });
            }
            state
        }
    }

    /// What a snapshot sees that is taken while `between` happens after each piece.
    fn seen_at_cut(life: &mut Life, mut between: impl FnMut(&mut Life)) -> Option<State> {
        let mut shards = life.store.write_set(ShardSet::ALL);
        shards.begin_cut(life.time);
        drop(shards);
        let (mut seen, mut flushed): (_, Option<Box<Shard>>) = (State::new(), None);
        let mut at = 0;
        while at < SHARDS {
            let mut piece = Piece::default();
            let took = match &mut flushed {
                Some(shard) => shard.take_piece(&mut piece),
                None => life.store.shard(at).write().take_piece(&mut piece),
            };
            let mut visit = |key: Key<'_>, entry: &Entry| {
                let twice = seen.insert(key.to_string(), entry.clone());
                assert_eq!(twice, None, "{key} is seen twice");
                Ok::<_, std::convert::Infallible>(())
            };
            let Ok(()) = piece.visit(&mut visit);
            match took {
                Took::Piece => {}
                Took::Last => (at, flushed) = (at + 1, None),
                Took::Flushed(shard) => flushed = Some(shard),
                Took::Void => return None,
            }
            between(life);
        }
        Some(seen)
    }

    #[test]
    fn a_cut_is_what_was_there_whatever_happens_since() {
        for seed in 0..12 {
            let mut life = Life::new(seed);
            let ids = 2000 + life.below(2000);
            life.fill(ids * 2);
            for _ in 0..1000 {
                life.step(ids);
            }
            let before = life.state();
            let flush_at = (seed % 3 == 0).then_some(200);
            let mut pieces = 0;
            let seen = seen_at_cut(&mut life, |life| {
                pieces += 1;
                (0..3).for_each(|_| life.step(ids * 2));
                if Some(pieces) == flush_at {
                    life.apply(Change::Flush { at: None });
                }
            });
            assert!(pieces > SHARDS * 8, "too few pieces to mean much: {pieces}");
            let (seen, now) = (seen.unwrap(), life.time);
            for (key, entry) in &before {
                let expired = entry.expires.is_past(now);
                let may_miss = expired && !matches!(entry.value, Value::Index(_));
                let found = seen.get(key);
                assert!(found == Some(entry) || found.is_none() && may_miss, "{key}");
            }
            assert!(seen.keys().all(|key| before.contains_key(key)));
            assert!(seen.len() > before.len() / 2, "seed {seed}");
            let after = life.state();
            assert_ne!(before, after);
            assert_eq!(seen_at_cut(&mut life, |_| {}), Some(after), "seed {seed}");
        }
    }

    /// Ids, and numbers of named keys, that are in the first shard.
    fn of_first_shard(life: &Life) -> (Vec<u32>, Vec<u32>) {
        let first = |hash| shard_of(hash) == 0;
        let hashing = life.store.hashing();
        let ids = (0..).filter(|id| first(hashing.id(*id)));
        let names = (0..).filter(|at| first(hashing.name(format!("name{at}").as_bytes())));
        (ids.take(400).collect(), names.take(400).collect())
    }

    /// A key of each table of the first shard but the indexes'; its place is the same in the
    /// counters' tables and in the values', which have the same ids and so the same buckets.
    fn change_all(life: &mut Life, (id, name): (u32, u32), put: bool) {
        let name = format!("name{name}");
        let typed = [2, 3, 4].map(|prefix| Key::Typed(TypedKey { prefix, id }));
        for key in typed.into_iter().chain([Key::Named(name.as_bytes())]) {
            let value = match key {
                Key::Typed(TypedKey { prefix: 2 | 4, .. }) => Value::Number(life.seq),
                Key::Typed(_) => Value::Data(Blob::unnamed(life.seq.to_string().as_bytes())),
                Key::Named(name) => Value::Data(Blob::named(name, b"named")),
            };
            let (flags, expires) = (0, Expiry::NEVER);
            let change = if put {
                Change::Put {
                    key,
                    value,
                    flags,
                    expires,
                }
            } else {
                Change::Remove { key }
            };
            life.apply(change);
        }
    }

    /// Entries, capacity and buckets of the tables of values and of named keys.
    fn tables(life: &Life) -> [(usize, usize, usize); 2] {
        let shard = life.store.shard(0).read();
        let values = shard.tables.iter().find_map(Table::data).unwrap();
        [&values.slots, &shard.named.slots]
            .map(|slots| (slots.len(), slots.capacity(), slots.num_buckets()))
    }

    /// Puts and removes entries until tables were rehashed: made larger, or cleared of what the
    /// removed ones have left. Answers how often each of the two happened.
    fn until_rehashed(
        life: &mut Life,
        (ids, names): &(Vec<u32>, Vec<u32>),
        grows: bool,
    ) -> [u32; 2] {
        let mut rehashed = [0, 0];
        // The alive ones are those from here to there.
        let mut alive = if grows { 0..100 } else { 58..112 };
        for _ in 0..250 {
            let at = |place: usize| (ids[place], names[place]);
            let before = tables(life);
            change_all(life, at(alive.end), true);
            alive.end += 1;
            for (before, after) in before.into_iter().zip(tables(life)) {
                if before.0 == before.1 {
                    rehashed[usize::from(before.2 == after.2)] += 1;
                }
            }
            if !grows {
                change_all(life, at(alive.start), false);
                alive.start += 1;
            }
            if rehashed[usize::from(!grows)] >= 2 {
                break;
            }
        }
        rehashed
    }

    /// A snapshot takes what was there though tables are rehashed after that piece of it; answers
    /// how often they grew, and how often they did not.
    fn see_with_rehash(after: usize, grows: bool) -> [u32; 2] {
        let mut life = Life::new(after as u64);
        let places = of_first_shard(&life);
        let at = |place: usize| (places.0[place], places.1[place]);
        if grows {
            (0..100).for_each(|place| change_all(&mut life, at(place), true));
        } else {
            // Full tables, of which most goes again: what went has left its mark in the buckets.
            (0..112).for_each(|place| change_all(&mut life, at(place), true));
            (0..58).for_each(|place| change_all(&mut life, at(place), false));
        }
        let (before, mut pieces, mut rehashed) = (life.state(), 0, [0, 0]);
        let seen = seen_at_cut(&mut life, |life| {
            pieces += 1;
            if pieces == after {
                rehashed = until_rehashed(life, &places, grows);
            }
        });
        assert!(seen == Some(before), "after piece {after}, grows: {grows}");
        rehashed
    }

    #[test]
    fn a_cut_is_whole_though_tables_grow_while_it_is_taken() {
        for after in 1..80 {
            assert_eq!(see_with_rehash(after, true), [2, 0]);
        }
    }

    #[test]
    fn a_cut_is_whole_though_tables_are_rehashed_in_place_while_it_is_taken() {
        let mut all = 0;
        for after in 1..80 {
            let [grown, in_place] = see_with_rehash(after, false);
            assert_eq!(grown, 0);
            all += in_place;
        }
        // Not every row of removals leaves enough behind.
        assert!(all > 50, "{all}");
    }

    /// A store of named keys and a DATA type with one value of so many bytes each.
    fn store_of(count: u32, bytes: usize, durable: bool) -> Life {
        let mut life = Life::new(1);
        let mut row = TypeDef::new(3, Kind::Data);
        row.keep.durable = durable;
        life.apply(Change::Types(Arc::new(TypeTable::new(vec![row]).unwrap())));
        for id in 0..count {
            life.put(id, bytes);
        }
        life
    }

    fn taken(life: &Life) -> usize {
        let mut shards = life.store.write_set(ShardSet::ALL);
        shards.shards_mut().for_each(Shard::tell);
        drop(shards);
        usize::try_from(life.store.memory_bytes()).unwrap()
    }

    fn take_all(life: &Life) -> usize {
        let mut count = 0;
        for at in 0..SHARDS {
            let visit = |_: Key<'_>, _: &Entry| {
                count += 1;
                Ok::<_, Void>(())
            };
            life.store.visit_cut(at, visit).unwrap();
        }
        count
    }

    #[test]
    fn values_that_only_a_snapshot_still_has_count_as_memory() {
        const COUNT: u32 = 1000;
        // Short values and such as are shared on their own.
        for bytes in [2000, 40_000] {
            let all = bytes * COUNT as usize;
            let mut life = store_of(COUNT, bytes, true);
            let begin = |life: &Life| {
                let time = life.time;
                life.store.write_set(ShardSet::ALL).begin_cut(time);
            };
            let before = taken(&life);
            assert!(before > all);
            begin(&life);
            // Beside the values: what was kept of them, and bits of buckets.
            let aside = 256 * 4096;
            let key = |id| Key::Typed(TypedKey { prefix: 3, id });
            let time = Expiry::at(Time(1 << 50));
            for id in 0..COUNT {
                let expires = Change::Expire {
                    key: key(id),
                    expires: time,
                };
                life.apply(expires);
            }
            let bound = before + aside + if bytes < 16 << 10 { all * 11 / 10 } else { 0 };
            assert!(taken(&life) <= bound, "shared bytes are counted twice");
            (0..COUNT / 2).for_each(|id| life.put(id, 1));
            (COUNT / 2..COUNT).for_each(|id| life.apply(Change::Remove { key: key(id) }));
            assert!(taken(&life) > all, "what is kept aside is not counted");
            assert!(taken(&life) < before + aside);
            assert_eq!(take_all(&life), COUNT as usize);
            assert!(taken(&life) < aside);
            // A table that grows keeps all of it aside, and shares it.
            (0..COUNT).for_each(|id| life.put(id, bytes));
            let before = taken(&life);
            begin(&life);
            (COUNT..COUNT * 20).for_each(|id| life.put(id, 0));
            let grown = taken(&life);
            assert!(grown < before + all / 2 + 64 * 20 * COUNT as usize + aside);
            (0..COUNT).for_each(|id| life.apply(Change::Remove { key: key(id) }));
            assert!(taken(&life) > grown - all / 2);
            assert_eq!(take_all(&life), COUNT as usize);
            assert!(taken(&life) < grown - all / 2);
        }
    }

    #[test]
    fn a_flush_keeps_nothing_for_a_snapshot_that_no_snapshot_takes() {
        for durable in [true, false] {
            let mut life = store_of(1000, 1000, durable);
            let before = taken(&life);
            let time = life.time;
            life.store.write_set(ShardSet::ALL).begin_cut(time);
            life.apply(Change::Flush { at: None });
            assert_eq!(taken(&life) > before / 2, durable);
            assert_eq!(take_all(&life), if durable { 1000 } else { 0 });
        }
    }

    #[test]
    fn new_types_void_a_cut() {
        let mut life = Life::new(7);
        let mut pieces = 0;
        let seen = seen_at_cut(&mut life, |life| {
            pieces += 1;
            if pieces == 5 {
                life.apply(Change::Types(Arc::default()));
            }
        });
        assert_eq!((seen, pieces), (None, 5));
        let bytes = life.store.memory_bytes();
        life.store.drop_cut();
        assert_eq!(life.store.memory_bytes(), bytes);
    }
}
