//! Values that memory does not keep: how they leave, how they are read, and how those that are
//! read often stay near.
//!
//! Invariant: a value is read without any lock, and not by a thread that serves. Whoever finds an
//! entry whose value is away gets a [`Cold`] under the same lock, which stays readable whatever
//! happens to the entry. The cache is keyed by cas unique, so nothing in it is ever wrong, and a
//! snapshot, which moves values, leaves them in it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use super::{Engine, Turn};
use crate::command::{Fetch, Hit, Refusal, View, ViewValue};
use crate::journal::{JournalError, Located};
use crate::key::{Key, TypedKey};
use crate::store::shard::Shard;
use crate::value::{Blob, Content, Entry, Marks, Place, Value};

/// A value that has to be read from its file.
#[derive(Clone, Debug)]
pub struct Cold {
    key: TypedKey,
    cas: u64,
    at: Located,
}

impl Cold {
    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.at.len()
    }

    /// True for a value of no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Which value: its key and its cas unique.
type Of = (TypedKey, u64);

/// Values count with what they take.
#[derive(Clone)]
struct ByBytes;

impl Weighter<Of, Blob> for ByBytes {
    fn weight(&self, _: &Of, blob: &Blob) -> u64 {
        blob.heap_bytes() as u64 + ENTRY_BYTES
    }
}

/// About what the cache needs for a value beside the value.
const ENTRY_BYTES: u64 = 64;

/// About how large a cached value is, to size the cache's tables.
const USUAL_BYTES: u64 = 8 << 10;

/// Values that were read from their files and may be wanted again.
pub(super) struct Hot(Cache<Of, Blob, ByBytes>);

impl Hot {
    pub(super) fn new(bytes: u64) -> Self {
        let usual = usize::try_from(bytes / USUAL_BYTES).unwrap_or(usize::MAX);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(usual.clamp(16, 1 << 20))
            .weight_capacity(bytes)
            .shards(SHARDS)
            .build();
        Self(match options {
            Ok(options) => Cache::with_options(
                options,
                ByBytes,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            // Only options that are left out can be at fault, and none are.
            Err(_) => Cache::with_weighter(usual, bytes, ByBytes),
        })
    }
}

/// Few, so that one can take a large value.
const SHARDS: usize = 4;

/// The value of an entry, if it is in memory and may leave.
fn leaves(shard: &Shard, hash: u64, (key, cas): Of) -> Option<&Blob> {
    let may_leave =
        |blob: &&Blob| !blob.is_away() && shard.types().may_leave(key.prefix, blob.len());
    shard.data(hash, key, cas).filter(may_leave)
}

impl Engine {
    /// What a reply says of a found entry; a value that has to be read goes to `cold`. Call it
    /// under the lock of the entry.
    pub(super) fn hit(&self, key: Key<'_>, view: View<'_>, cold: &mut Vec<Cold>) -> Hit {
        self.note_use(view);
        let mut hit = Fetch::hit(key, view);
        self.fill(key, hit.cas, &mut hit.value, cold);
        hit
    }

    /// Gives a value that is away its bytes if they are near; else it goes to `cold`. Call it
    /// under the lock of the entry.
    pub(super) fn fill(&self, key: Key<'_>, cas: u64, value: &mut Value, cold: &mut Vec<Cold>) {
        if let (Key::Typed(key), Value::Data(blob)) = (key, &*value)
            && let Content::Away(place) = blob.content()
        {
            match self.hot.0.get(&(key, cas)) {
                Some(blob) => *value = Value::Data(blob),
                None => cold.push(self.cold(key, cas, place)),
            }
        }
    }

    /// Notes that a client has fetched an entry: figures of memory alone, which nothing that is
    /// journalled depends on.
    pub(super) fn note_use(&self, view: View<'_>) {
        if let Some(head) = view.head {
            head.mark(Marks::FETCHED);
            head.note_use();
            head.note_access(self.clock.latest());
        }
    }

    pub(super) fn cold(&self, key: TypedKey, cas: u64, place: Place) -> Cold {
        let at = self.journal.files().locate(place);
        Cold { key, cas, at }
    }

    /// Reads a value; it stays near for a while. May take as long as the disk takes: call it
    /// without any lock and not from a thread that serves.
    pub fn read_cold(&self, cold: &Cold) -> Result<Blob, Refusal> {
        let of = (cold.key, cold.cas);
        if let Some(blob) = self.hot.0.get(&of) {
            return Ok(blob);
        }
        match cold.at.read() {
            Ok(bytes) => {
                let blob = Blob::unnamed(&bytes);
                self.hot.0.insert(of, blob.clone());
                Ok(blob)
            }
            Err(error) => {
                tracing::error!(key = %cold.key, "a value cannot be read: {error}");
                Err(Refusal::Unreadable {
                    key: cold.key,
                    why: error.to_string(),
                })
            }
        }
    }

    /// Puts a value that has been read back into memory, if its entry has not changed meanwhile:
    /// a command that needs the bytes finds them there.
    pub fn warm(&self, cold: &Cold, blob: Blob) {
        let hash = self.store.hashing().id(cold.key.id);
        let bytes = blob.len() as u64;
        let mut shard = self.store.write(hash);
        if shard.reform(hash, cold.key, cold.cas, blob) {
            self.lingering.fetch_add(bytes, Relaxed);
        }
    }

    /// Bytes are added to a value, which stays in memory then though it may be long enough to
    /// leave.
    pub(super) fn note_lingering(
        &self,
        turn: &Turn,
        key: Key<'_>,
        (old, added): (Option<View<'_>>, usize),
    ) {
        if let (Key::Typed(key), Some(ViewValue::Data(blob))) = (key, old.map(|old| old.value))
            && turn.types.may_leave(key.prefix, blob.len() + added)
        {
            self.lingering.fetch_add(added as u64, Relaxed);
        }
    }

    /// True if memory is full and a snapshot would help: values that were added to are in no
    /// file as a whole before it.
    pub fn wants_snapshot(&self) -> bool {
        let settings = Arc::clone(&self.settings.read());
        let limit = settings.memory_limit;
        let nearly_full = self.memory_room(&settings) < limit / 16;
        nearly_full && self.lingering.load(Relaxed) >= limit / 8
    }

    /// Lets values leave memory that may and whose records last.
    pub fn put_away(&self) {
        self.journal.put_away(|leaving| {
            let (key, cas) = (leaving.key, leaving.seq);
            let hash = self.store.hashing().id(key.id);
            let blob = leaves(&self.store.read(hash), hash, (key, cas)).cloned();
            if let Some(bytes) = blob.as_ref().and_then(Blob::bytes) {
                let place = leaving.at(bytes);
                // While it is held here its memory is not free.
                drop(blob);
                self.leave(key, cas, place);
            }
        });
    }

    /// A value is at a place in a file and leaves memory, if it still may: nobody has held its
    /// lock since it was looked at.
    fn leave(&self, key: TypedKey, cas: u64, place: Place) {
        let hash = self.store.hashing().id(key.id);
        let mut shard = self.store.write(hash);
        if leaves(&shard, hash, (key, cas)).is_some() {
            shard.reform(hash, key, cas, Blob::away(place));
        }
    }

    /// A snapshot has been read back and has this value: it is there from now on, if it is away
    /// or may leave.
    pub(super) fn moved(&self, key: TypedKey, cas: u64, blob: Blob) {
        let hash = self.store.hashing().id(key.id);
        let mut shard = self.store.write(hash);
        let may_leave = shard.types().may_leave(key.prefix, blob.len());
        let old = shard.data(hash, key, cas);
        if old.is_some_and(|old| may_leave || old.is_away()) {
            shard.reform(hash, key, cas, blob);
        }
    }

    /// The entry with its value, which a snapshot needs wherever it is.
    pub(super) fn whole(&self, key: Key<'_>, entry: &Entry) -> Result<Option<Entry>, JournalError> {
        let Value::Data(blob) = &entry.value else {
            return Ok(None);
        };
        let Content::Away(place) = blob.content() else {
            return Ok(None);
        };
        let read = self.journal.files().locate(place).read();
        let bytes = read.map_err(|source| JournalError::Value {
            key: key.to_string(),
            source,
        })?;
        Ok(Some(Entry {
            value: Value::Data(Blob::unnamed(&bytes)),
            ..*entry
        }))
    }

    /// True if a value is away or may leave memory.
    pub(super) fn values_leave(&self) -> bool {
        let types = self.store.types();
        let (sizes, _) = self.store.sizes();
        types.rows().iter().any(|row| row.keep_in_memory.is_some())
            || sizes.iter().any(|(_, sizes)| sizes.away.values > 0)
    }

    /// What the values take that were read and stay near, in bytes.
    pub fn hot_bytes(&self) -> u64 {
        self.hot.0.weight()
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::sync::Arc;

    use super::*;
    use crate::clock::{SimClock, Source, Time};
    use crate::command::{Command, Exptime, Mode, Put};
    use crate::engine::Settings;
    use crate::journal::sim::{Call, Fault, SimDisk};
    use crate::journal::{Fsync, Options};
    use crate::types::{KeyRules, Kind, TypeDef, TypeTable};

    const KEY: TypedKey = TypedKey { prefix: 3, id: 1 };

    /// Values of type 3 may leave if they have more bytes than this.
    fn types(keep_in_memory: u32) -> TypeTable {
        let row = TypeDef {
            keep_in_memory: Some(keep_in_memory),
            ..TypeDef::new(3, Kind::Data)
        };
        TypeTable::new([row]).unwrap()
    }

    fn engine() -> Engine {
        engine_on(&SimDisk::new(), Source::default())
    }

    fn engine_on(disk: &SimDisk, clock: Source) -> Engine {
        let options = Options {
            clock,
            background: false,
            fsync: Fsync::Never,
            allocate_bytes: 16 << 10,
            ..Options::default()
        };
        let settings = Settings {
            key_rules: KeyRules::default(),
            value_bytes_max: 1 << 20,
            members_max: 1 << 20,
            memory_limit: 0,
            cache_bytes: 0,
            snapshot_bytes_per_s: 0,
        };
        let mut watch = |_: &_| ControlFlow::Continue(());
        let disk = Arc::new(disk.clone());
        let opened = Engine::open(disk, options, settings, &types(10), &mut watch);
        opened.unwrap().0
    }

    fn carry_out(engine: &Engine, command: &Command<'_>) {
        let mut turn = engine.turn();
        engine.execute(&mut turn, command).unwrap();
        engine.flush().unwrap();
        engine.journal.sync_now().unwrap();
    }

    fn put(engine: &Engine, mode: Mode, body: &[u8]) {
        let put = Put {
            key: b"3.1",
            mode,
            flags: 0,
            exptime: Exptime(0),
            body,
        };
        carry_out(engine, &Command::Put(put));
    }

    /// The value in memory, or where it is; `None` without an entry.
    fn content(engine: &Engine) -> Option<Result<Vec<u8>, Place>> {
        let hash = engine.store.hashing().id(KEY.id);
        let shard = engine.store.read(hash);
        let ViewValue::Data(blob) = shard
            .view(hash, Key::Typed(KEY), engine.clock.latest())?
            .value
        else {
            panic!("type 3 is DATA");
        };
        Some(match blob.content() {
            Content::Here(bytes) => Ok(bytes.to_vec()),
            Content::Away(place) => Err(place),
        })
    }

    /// What becomes of a value that was found fit to leave if this happens before it does. The
    /// second answer is the place it would have left for.
    fn left_after(between: impl FnOnce(&Engine)) -> (Option<Result<Vec<u8>, Place>>, Place) {
        let engine = engine();
        put(&engine, Mode::Set, b"more than ten bytes");
        let mut leaving = None;
        engine.journal.put_away(|value| leaving = Some(*value));
        let leaving = leaving.unwrap();
        assert_eq!(leaving.key, KEY);
        let place = leaving.at(b"more than ten bytes");
        between(&engine);
        engine.leave(KEY, leaving.seq, place);
        (content(&engine), place)
    }

    #[test]
    fn a_value_leaves_memory_if_nothing_has_changed_since_it_was_looked_at() {
        let (left, place) = left_after(|_| {});
        assert_eq!(left, Some(Err(place)));
    }

    #[test]
    fn a_value_that_has_changed_since_it_was_looked_at_stays() {
        let (set, _) = left_after(|engine| put(engine, Mode::Set, b"another of some bytes"));
        assert_eq!(set, Some(Ok(b"another of some bytes".to_vec())));
        let (added, _) = left_after(|engine| put(engine, Mode::Append, b"!"));
        assert_eq!(added, Some(Ok(b"more than ten bytes!".to_vec())));
        let (deleted, _) = left_after(|engine| carry_out(engine, &Command::Delete { key: b"3.1" }));
        assert_eq!(deleted, None);
        let (again, _) = left_after(|engine| {
            carry_out(engine, &Command::Delete { key: b"3.1" });
            put(engine, Mode::Add, b"more than ten bytes");
        });
        assert_eq!(again, Some(Ok(b"more than ten bytes".to_vec())));
    }

    #[test]
    fn a_value_whose_type_lets_it_leave_no_more_stays() {
        let (left, _) = left_after(|engine| engine.declare_types(&types(1000)).unwrap());
        assert_eq!(left, Some(Ok(b"more than ten bytes".to_vec())));
    }

    fn put_here(engine: &Engine, key: &[u8], exptime: i64, body: &[u8]) {
        let put = Put {
            key,
            mode: Mode::Set,
            flags: 0,
            exptime: Exptime(exptime),
            body,
        };
        carry_out(engine, &Command::Put(put));
    }

    /// The value of [`KEY`], which is away.
    fn read(engine: &Engine) -> Vec<u8> {
        let place = content(engine).unwrap().unwrap_err();
        engine.journal.files().locate(place).read().unwrap()
    }

    /// A snapshot whose file this call fails on.
    fn snapshot_that_fails(engine: &Engine, disk: &SimDisk, fails: Call) {
        let at = disk.clone();
        disk.watch(Some(Arc::new(move |call, name| {
            if call == fails && name.starts_with(".snapshot") {
                at.fail_only(call, 1, false, Fault::Io);
            }
        })));
        assert!(engine.snapshot(false).is_err());
        disk.watch(None);
        disk.heal();
    }

    #[test]
    fn a_value_is_found_after_snapshots_that_failed_with_different_contents() {
        let (clock, disk) = (SimClock::new(Time(1_700_000_000_000)), SimDisk::new());
        let engine = engine_on(&disk, clock.source());
        for id in 2..50 {
            put_here(
                &engine,
                format!("3.{id}").as_bytes(),
                10,
                b"value that ends soon",
            );
        }
        put_here(&engine, b"3.1", 0, b"more than ten bytes");
        engine.put_away();
        // The first one is read back, so values are in its file from then on; the second one does
        // not get so far, and has the value elsewhere.
        for fails in [Call::Rename, Call::Read] {
            snapshot_that_fails(&engine, &disk, fails);
            assert_eq!(read(&engine), b"more than ten bytes");
            clock.pass_us(20_000_000);
            engine.turn();
        }
        engine.snapshot(false).unwrap();
        assert_eq!(read(&engine), b"more than ten bytes");
    }

    #[test]
    fn what_waited_to_leave_waits_on_after_a_snapshot_that_failed() {
        let disk = SimDisk::new();
        let engine = engine_on(&disk, Source::default());
        put(&engine, Mode::Set, b"more than ten bytes");
        snapshot_that_fails(&engine, &disk, Call::Read);
        assert_eq!(content(&engine), Some(Ok(b"more than ten bytes".to_vec())));
        engine.put_away();
        assert_eq!(read(&engine), b"more than ten bytes");
    }

    #[test]
    fn a_value_that_a_snapshot_has_moved_stays_where_it_is_now() {
        let (left, place) = left_after(|engine| engine.snapshot(false).unwrap());
        let moved = left.unwrap().unwrap_err();
        assert_ne!(moved.file, place.file);
    }
}
