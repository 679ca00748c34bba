//! Tests of the journal as a whole, on the simulated disk unless they need threads or a lock.

#![allow(clippy::cast_possible_truncation, reason = "small numbers of tests")]

mod crash;
mod damage;
mod faults;
mod format;
mod life;
mod rot;

use std::sync::Arc;

use super::disk::Disk;
use super::sim::SimDisk;
use super::{
    Fsync, Journal, JournalError, Options, Progress, Recovered, Replay, ReplayError, SnapshotPlan,
    SnapshotWriter, room_bytes,
};
use crate::clock::{Expiry, Time};
use crate::command::change::{Change, Side};
use crate::key::{Key, TypedKey};
use crate::types::{Keep, Kind, TypeDef, TypeTable, WhenFull};
use crate::value::{Blob, Delta, Entry, Index, Marks, Member, Value};

/// The state of these tests: what came, in order, as text. A snapshot of it is its records as
/// entries, so that what is in the snapshot and what came after it compare as one row.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Log(pub(super) Vec<String>);

impl Log {
    /// Writes an entry for each line into a snapshot.
    pub(super) fn write(&self, writer: &mut SnapshotWriter) -> Result<(), JournalError> {
        for line in &self.0 {
            let entry = Entry {
                value: Value::Data(Blob::named(b"k", line.as_bytes())),
                flags: 3,
                expires: Expiry::NEVER,
                cas: 0,
                marks: Marks::NONE,
            };
            writer.entry(Key::Named(b"k"), &entry)?;
        }
        Ok(())
    }
}

impl Replay for Log {
    fn entry(&mut self, _key: Key<'_>, entry: Entry) -> Result<(), ReplayError> {
        let Value::Data(blob) = entry.value else {
            return Err(ReplayError("not one of ours".to_owned()));
        };
        self.0
            .push(String::from_utf8(blob.bytes().unwrap().to_vec()).unwrap());
        Ok(())
    }

    fn change(&mut self, seq: u64, time: Time, change: Change<'_>) -> Result<(), ReplayError> {
        if seq != 0 {
            self.0.push(line(seq, time, &change));
            assert_eq!(
                self.0.len() as u64,
                seq,
                "a record is missing or comes twice"
            );
        }
        Ok(())
    }

    fn progress(&mut self, progress: &Progress) -> Result<(), ReplayError> {
        assert!(progress.done_bytes <= progress.total_bytes);
        Ok(())
    }
}

pub(super) fn line(seq: u64, time: Time, change: &Change<'_>) -> String {
    format!("{seq} {} {change:?}", time.0)
}

/// A number from the environment, or its default.
pub(super) fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Splitmix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % bound
    }
}

const NAMES: [&[u8]; 3] = [b"a", b"session:17", b"\x00\xff"];
const BYTES: &[u8] = b"some bytes that a value may have, more or less of them";

fn some_bytes(random: &mut Random) -> &'static [u8] {
    &BYTES[..random.below(BYTES.len() as u64) as usize]
}

fn some_key(random: &mut Random) -> Key<'static> {
    match random.below(2) {
        0 => Key::Named(NAMES[random.below(3) as usize]),
        _ => Key::Typed(some_typed(random)),
    }
}

fn some_typed(random: &mut Random) -> TypedKey {
    let prefix = [1, 2, 5, u16::MAX][random.below(4) as usize];
    let id = [0, 7, 300, u32::MAX][random.below(4) as usize];
    TypedKey { prefix, id }
}

fn some_members(random: &mut Random) -> Vec<Member> {
    let with_attributes = random.below(2) == 1;
    let count = random.below(20);
    (0..count)
        .map(|at| Member {
            id: (at * 1000 + random.below(1000)) as u32,
            attribute: if with_attributes {
                random.below(3) as u32
            } else {
                0
            },
        })
        .collect()
}

fn some_expiry(random: &mut Random) -> Expiry {
    match random.below(2) {
        0 => Expiry::NEVER,
        _ => Expiry::at(Time(random.below(1 << 45) + 1)),
    }
}

fn some_put(random: &mut Random) -> Change<'static> {
    let key = some_key(random);
    let value = match (random.below(3), key) {
        (0, Key::Typed(_)) => Value::Number(random.below(u64::MAX)),
        (1, Key::Typed(_)) => Value::Index(Arc::new(Index::from_members(some_members(random)))),
        (_, Key::Typed(_)) => Value::Data(Blob::unnamed(some_bytes(random))),
        (_, Key::Named(name)) => Value::Data(Blob::named(name, some_bytes(random))),
    };
    let (flags, expires) = (random.below(1 << 32) as u32, some_expiry(random));
    Change::Put {
        key,
        value,
        flags,
        expires,
    }
}

pub(super) fn some_types() -> Arc<TypeTable> {
    let keep = Keep {
        durable: false,
        when_full: WhenFull::Evict,
    };
    let rows = [
        TypeDef {
            target: Some(5),
            ..TypeDef::new(3, Kind::Index)
        },
        TypeDef::new(5, Kind::Counter64),
        TypeDef {
            keep_in_memory: Some(1024),
            ..TypeDef::new(65535, Kind::Data)
        },
        TypeDef {
            keep,
            ..TypeDef::new(300, Kind::Data)
        },
    ];
    Arc::new(TypeTable::new(rows).unwrap().with_named(keep))
}

/// Any change, of every kind in turn as `turn` goes on.
pub(super) fn some_change(turn: u64, random: &mut Random) -> Change<'static> {
    match turn % 14 {
        0 => some_put(random),
        1 => Change::Remove {
            key: some_key(random),
        },
        2 => Change::Expire {
            key: some_key(random),
            expires: some_expiry(random),
        },
        3 => Change::Number {
            key: some_key(random),
            number: random.below(u64::MAX),
        },
        4 | 5 => Change::Extend {
            key: some_key(random),
            side: if turn % 14 == 4 {
                Side::Front
            } else {
                Side::Back
            },
            bytes: some_bytes(random),
        },
        6 => Change::Members {
            key: some_typed(random),
            create: (random.below(2) == 1).then(|| (7, some_expiry(random))),
            added: some_members(random).into(),
            removed: some_members(random)
                .iter()
                .map(|member| member.id)
                .collect(),
        },
        7 => Change::FanOut {
            index: some_typed(random),
            target: some_typed(random).prefix,
            delta: Delta {
                negative: random.below(2) == 1,
                amount: random.below(1 << 33),
            },
        },
        8 => Change::Flush { at: None },
        9 => Change::Flush {
            at: Some(Time(random.below(1 << 45))),
        },
        10 => Change::Types(some_types()),
        11 => Change::Mark {
            key: some_key(random),
            marks: Marks::from_bits(random.below(8) as u8).unwrap(),
        },
        12 => Change::Unique {
            key: some_key(random),
            unique: (random.below(2) == 1).then(|| random.below(u64::MAX)),
        },
        _ => Change::Batch(vec![
            some_put(random),
            Change::Remove {
                key: some_key(random),
            },
        ]),
    }
}

pub(super) fn options(fsync: Fsync) -> Options {
    Options {
        fsync,
        background: false,
        allocate_bytes: 4096,
        threads: 1,
        now: Time(1_700_000_000_000),
        ..Options::default()
    }
}

/// A journal and the state that its records made.
pub(super) struct Store {
    pub(super) journal: Journal,
    pub(super) log: Log,
    pub(super) recovered: Recovered,
    pub(super) random: Random,
}

impl Store {
    pub(super) fn open(disk: &SimDisk) -> Result<Self, JournalError> {
        Self::open_with(Arc::new(disk.clone()), options(Fsync::Always))
    }

    pub(super) fn open_with(disk: Arc<dyn Disk>, options: Options) -> Result<Self, JournalError> {
        let mut log = Log::default();
        let (journal, recovered) = Journal::open(disk, options, &mut log)?;
        assert_eq!(journal.appended(), log.0.len() as u64);
        Ok(Self {
            journal,
            log,
            recovered,
            random: Random(1),
        })
    }

    /// Appends a change; false if there was no room.
    pub(super) fn change(&mut self, change: &Change<'_>) -> bool {
        let Ok(room) = self.journal.reserve(room_bytes(3, 1000)) else {
            return false;
        };
        let turn = self.log.0.len() as u64;
        let time = Time(1_700_000_000_000 + turn * 100 - (turn % 3) * 50);
        let seq = self.journal.append(time, change, room);
        assert_eq!(seq, turn + 1);
        self.log.0.push(line(seq, time, change));
        true
    }

    /// Appends some change.
    pub(super) fn turn(&mut self) -> bool {
        let change = some_change(self.log.0.len() as u64, &mut self.random);
        self.change(&change)
    }

    /// Some turns, then a write.
    pub(super) fn turns(&mut self, turns: usize) -> bool {
        for _ in 0..turns {
            if !self.turn() {
                return false;
            }
        }
        self.journal.flush().is_ok()
    }

    pub(super) fn snapshot(&mut self, new_generation: bool) -> Result<(), JournalError> {
        let mut writer = self.journal.begin_snapshot(SnapshotPlan {
            new_generation,
            ..SnapshotPlan::default()
        })?;
        let seq = writer.cut(Time(1_800_000_000_000))?;
        assert_eq!(seq, self.log.0.len() as u64 + 1);
        writer.types(&some_types())?;
        writer.pending_flush(Some(Time(5)))?;
        self.log.write(&mut writer)?;
        writer.finish(None)
    }

    /// What is in the room's accounts that should not be: nothing is promised between turns.
    pub(super) fn assert_no_room_is_lost(&self) {
        let shared = &self.journal.shared;
        let room = shared.room.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(shared.active.lock().capacity(), room);
    }
}
