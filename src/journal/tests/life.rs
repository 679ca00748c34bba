//! The ordinary life of a journal: restarts, rotations, snapshots, generations.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::clock::SimClock;
use crate::command::Change;
use crate::journal::disk::{FileDisk, Name};
use crate::journal::room_bytes;
use crate::journal::sim::Call;
use crate::journal::{Refused, SnapshotPlan};

#[test]
fn a_new_directory_is_an_empty_store() {
    let disk = SimDisk::new();
    let store = Store::open(&disk).unwrap();
    assert!(store.recovered.created);
    assert_eq!(
        (store.recovered.snapshot, store.recovered.generation),
        (1, 1)
    );
    store.journal.close().unwrap();
    store.journal.close().unwrap();
    assert_eq!(store.journal.reserve(1).unwrap_err(), Refused::Closed);
    let store = Store::open(&disk).unwrap();
    assert!(!store.recovered.created);
    assert_eq!(store.recovered.newest_time, Time(1_700_000_000_000));
}

#[test]
fn what_was_flushed_survives_the_end_of_the_process() {
    let mut disk = SimDisk::new();
    let mut log = Log::default();
    for round in 0..12 {
        let mut store = Store::open(&disk).unwrap();
        assert_eq!(store.log, log);
        store.random = Random(round);
        for _ in 0..10 {
            assert!(store.turns(5));
            store.assert_no_room_is_lost();
        }
        assert_eq!(store.journal.written(), store.journal.appended());
        if round % 4 == 1 {
            store.journal.rotate().unwrap();
        }
        if round % 4 == 2 {
            store.snapshot(round % 8 == 2).unwrap();
            assert!(store.turns(3));
        }
        store.assert_no_room_is_lost();
        if round % 2 == 0 {
            store.journal.close().unwrap();
        }
        log.clone_from(&store.log);
        disk = disk.kill();
    }
}

#[test]
fn a_snapshot_ends_older_files_and_holds_all() {
    let disk = SimDisk::new();
    let mut store = Store::open(&disk).unwrap();
    assert!(store.turns(100));
    store.snapshot(false).unwrap();
    assert!(!store.journal.files_moved());
    let names = disk.list().unwrap();
    assert_eq!(
        names,
        ["STORE", "journal-0000000003", "snapshot-0000000003"]
    );
    assert!(store.turns(7));
    let stats = store.journal.stats();
    assert_eq!(
        (stats.segments, stats.snapshot, stats.records_since_snapshot),
        (1, 3, 7)
    );
    let again = Store::open(&disk.kill()).unwrap();
    assert_eq!(again.log, store.log);
    assert_eq!((again.recovered.entries, again.recovered.records), (100, 7));
}

#[test]
fn large_values_go_in_by_reference_and_come_back() {
    let disk = SimDisk::new();
    let mut store = Store::open(&disk).unwrap();
    let members: Vec<_> = (0..50_000)
        .map(|id| Member {
            id: id * 3,
            attribute: id % 2,
        })
        .collect();
    let bytes = vec![b'x'; 100_000];
    let index = TypedKey { prefix: 1, id: 1 };
    let put = |key, value| Change::Put {
        key,
        value,
        flags: 0,
        expires: Expiry::NEVER,
    };
    let changes = [
        put(Key::Named(b"big"), Value::Data(Blob::named(b"big", &bytes))),
        put(
            Key::Typed(index),
            Value::Index(Arc::new(Index::from_members(members.clone()))),
        ),
        Change::Extend {
            key: Key::Named(b"big"),
            side: Side::Back,
            bytes: &bytes,
        },
        Change::Members {
            key: index,
            create: None,
            added: members.clone().into(),
            removed: members.iter().map(|member| member.id).collect(),
        },
    ];
    for change in &changes {
        assert!(store.change(change) && store.turn());
    }
    assert!(store.change(&Change::Batch(changes.to_vec())));
    assert!(store.turns(2));
    store.assert_no_room_is_lost();
    let again = Store::open(&disk.kill()).unwrap();
    assert_eq!(again.log, store.log);
}

#[test]
fn many_records_in_one_write_are_several_batches() {
    let disk = SimDisk::new();
    let mut store = Store::open(&disk).unwrap();
    let bytes = vec![b'x'; 3_000_000];
    for _ in 0..20 {
        let value = Value::Data(Blob::named(b"k", &bytes));
        let key = Key::Named(b"k");
        assert!(store.change(&Change::Put {
            key,
            value,
            flags: 0,
            expires: Expiry::NEVER
        }));
    }
    assert!(store.turns(1));
    store.assert_no_room_is_lost();
    assert_eq!(Store::open(&disk.kill()).unwrap().log, store.log);
}

#[test]
fn files_that_were_moved_away_make_a_new_generation() {
    let disk = SimDisk::new();
    let mut store = Store::open(&disk).unwrap();
    assert!(store.turns(20) && !store.journal.files_moved());
    let away: Vec<_> = disk
        .list()
        .unwrap()
        .into_iter()
        .filter(|name| name != "STORE")
        .map(|name| (name.clone(), disk.kill().read(&name).unwrap()))
        .collect();
    // The contents after the old segment was closed, as the moved file has them.
    for (name, _) in &away {
        disk.rename(name, &format!("backup.{name}")).unwrap();
    }
    assert!(store.journal.files_moved());
    assert!(store.turns(20));

    // A crash before the new generation is complete asks for the files and takes them back.
    let mut writer = store
        .journal
        .begin_snapshot(SnapshotPlan {
            new_generation: true,
            ..SnapshotPlan::default()
        })
        .unwrap();
    writer.cut(Time(1)).unwrap();
    assert!(store.turns(5));
    let crashed = disk.kill();
    let error = Store::open(&crashed).err().unwrap();
    assert!(matches!(&error, JournalError::Missing { missing } if missing.contains("snapshot")));
    for (name, _) in &away {
        crashed.rename(&format!("backup.{name}"), name).unwrap();
    }
    assert_eq!(Store::open(&crashed).unwrap().log, store.log);
    drop(writer);

    store.snapshot(true).unwrap();
    assert!(!store.journal.files_moved());
    assert!(store.turns(3));
    for (name, _) in &away {
        disk.read(&format!("backup.{name}")).unwrap();
    }
    let again = Store::open(&disk.kill()).unwrap();
    assert_eq!((again.recovered.generation, &again.log), (2, &store.log));

    // The old files beside the new ones change nothing.
    let both = disk.kill();
    for (name, _) in &away {
        both.rename(&format!("backup.{name}"), name).unwrap();
    }
    assert_eq!(Store::open(&both).unwrap().log, store.log);
}

/// Moves all files but `STORE` away, as an operator does, and answers which.
fn move_away(disk: &SimDisk) -> Vec<String> {
    let mut names = disk.list().unwrap();
    names.retain(|name| name.starts_with("journal") || name.starts_with("snapshot"));
    for name in &names {
        disk.move_file(name, &format!("backup.{name}"));
    }
    names
}

#[test]
fn files_may_be_moved_away_again_after_a_new_generation_that_failed() {
    let disk = SimDisk::new();
    let mut store = Store::open(&disk).unwrap();
    assert!(store.turns(20));
    move_away(&disk);
    let plan = SnapshotPlan {
        new_generation: true,
        ..SnapshotPlan::default()
    };
    let mut writer = store.journal.begin_snapshot(plan).unwrap();
    writer.cut(Time(1)).unwrap();
    drop(writer);
    // What it leaves is the segment that it has begun, with nothing in it.
    let unused = move_away(&disk);
    assert_eq!(unused, ["journal-0000000003"]);
    assert!(store.journal.files_moved());
    store.snapshot(true).unwrap();
    assert!(
        !store.journal.files_moved(),
        "{unused:?} belongs to a backup"
    );
    assert!(store.turns(5));
    store.journal.sync_now().unwrap();
    for left in [
        disk.kill(),
        disk.crash(crate::journal::sim::Crash::DropAll, 0),
    ] {
        assert_eq!(Store::open(&left).unwrap().log, store.log);
    }
}

#[test]
fn a_snapshot_that_is_given_up_leaves_everything_as_it_was() {
    let disk = SimDisk::new();
    let mut store = Store::open(&disk).unwrap();
    assert!(store.turns(20));
    let mut writer = store
        .journal
        .begin_snapshot(SnapshotPlan::default())
        .unwrap();
    assert!(matches!(
        store.journal.begin_snapshot(SnapshotPlan::default()),
        Err(JournalError::Busy)
    ));
    writer.cut(Time(1)).unwrap();
    assert!(matches!(writer.cut(Time(1)), Err(JournalError::OutOfOrder)));
    writer.types(&some_types()).unwrap();
    drop(writer);
    assert!(
        !disk
            .list()
            .unwrap()
            .iter()
            .any(|name| Name::is_temporary(name))
    );
    assert!(store.turns(20));
    assert_eq!(Store::open(&disk.kill()).unwrap().log, store.log);
    store.snapshot(false).unwrap();
}

#[test]
fn records_after_the_cut_are_not_lost() {
    let disk = SimDisk::new();
    let mut store = Store::open(&disk).unwrap();
    assert!(store.turns(20));
    let mut writer = store
        .journal
        .begin_snapshot(SnapshotPlan::default())
        .unwrap();
    assert!(store.turns(5));
    writer.cut(Time(1)).unwrap();
    let before = store.log.clone();
    assert!(store.turns(5));
    before.write(&mut writer).unwrap();
    writer.finish(None).unwrap();
    assert!(store.turns(5));
    for disk in [
        disk.kill(),
        disk.crash(crate::journal::sim::Crash::DropAll, 0),
    ] {
        let again = Store::open(&disk).unwrap();
        assert_eq!(again.recovered.entries, 25);
        assert!(store.log.0.starts_with(&again.log.0) && again.log.0.len() >= 25);
    }
}

#[test]
fn a_full_segment_is_followed_by_the_next_and_workers_are_woken() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let disk = Arc::new(FileDisk::open(directory.path()).unwrap());
        let options = Options {
            segment_bytes: 20_000,
            background: true,
            ..options(Fsync::Always)
        };
        Store::open_with(disk, options).unwrap()
    };
    let mut store = open();
    let woken = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&woken);
    store.journal.subscribe(Arc::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    for _ in 0..300 {
        assert!(store.turns(10));
    }
    while store.journal.synced() < store.journal.appended() {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(woken.load(Ordering::Relaxed) > 0);
    assert!(store.journal.stats().segments > 1);
    store.journal.close().unwrap();
    let log = store.log.clone();
    drop(store);
    let store = open();
    assert_eq!(store.log, log);
}

#[test]
fn one_write_and_then_nothing_is_synced_under_everysec() {
    let disk = SimDisk::new();
    let options = Options {
        sync_after_ms: 20,
        background: true,
        ..options(Fsync::EverySec)
    };
    let mut store = Store::open_with(Arc::new(disk.clone()), options).unwrap();
    assert!(store.turns(1));
    assert!(!store.journal.must_wait(1, true));
    for _ in 0..5000 {
        if store.journal.synced() == 1 {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(store.journal.synced(), 1);
    let lost = disk.crash(crate::journal::sim::Crash::DropAll, 0);
    assert_eq!(Store::open(&lost).unwrap().log, store.log);
}

#[test]
fn values_leave_memory_after_a_sync_though_nothing_else_is_synced() {
    let disk = SimDisk::new();
    let clock = SimClock::new(Time(1_700_000_000_000));
    let options = Options {
        clock: clock.source(),
        allocate_bytes: 16 << 20,
        ..options(Fsync::Never)
    };
    let mut store = Store::open_with(Arc::new(disk), options).unwrap();
    store.journal.set_types(some_types());
    let run = |store: &Store| {
        let due = (0..100).take_while(|_| store.journal.run_due() == Some(0));
        assert!(due.count() < 100, "there is always something to do");
    };
    let put = |store: &mut Store, bytes: usize| {
        let (prefix, id) = (65535, 1);
        let change = Change::Put {
            key: Key::Typed(TypedKey { prefix, id }),
            value: Value::Data(Blob::unnamed(&vec![b'v'; bytes])),
            flags: 0,
            expires: Expiry::NEVER,
        };
        let room = store.journal.reserve(room_bytes(1, bytes as u64)).unwrap();
        store.journal.append(Time(1), &change, room);
        store.journal.flush().unwrap();
    };
    let gone = |store: &Store| {
        let mut gone = 0;
        store.journal.put_away(|_| gone += 1);
        gone
    };
    // What stays in memory waits for nothing.
    put(&mut store, 1000);
    clock.pass_us(60_000_000);
    run(&store);
    assert_eq!((store.journal.synced(), gone(&store)), (0, 0));
    store.journal.sync_now().unwrap();
    // Others wait for a second,
    put(&mut store, 2000);
    put(&mut store, 2000);
    run(&store);
    assert_eq!((store.journal.run_due(), gone(&store)), (Some(1000), 0));
    clock.pass_us(1_000_000);
    run(&store);
    assert_eq!((store.journal.synced(), gone(&store)), (3, 2));
    // unless they are many.
    for at in 0..8 {
        run(&store);
        assert_eq!((store.journal.synced(), gone(&store)), (3, 0), "{at}");
        put(&mut store, 1 << 20);
    }
    run(&store);
    assert_eq!((store.journal.synced(), gone(&store)), (11, 8));
    assert_eq!(store.journal.run_due(), None);
}

#[test]
fn a_stalled_disk_holds_replies_and_then_refuses_writes() {
    let disk = SimDisk::new();
    // Nobody syncs: the disk stalls.
    let clock = SimClock::new(Time(1_700_000_000_000));
    let options = Options {
        clock: clock.source(),
        ..options(Fsync::EverySec)
    };
    let mut store = Store::open_with(Arc::new(disk), options).unwrap();
    assert!(store.turns(1));
    let pass_us = |journal: &Journal, us| {
        clock.pass_us(us);
        journal.note_time(clock.source().tick());
    };
    pass_us(&store.journal, 999_999);
    assert!(!store.journal.must_wait(1, true));
    pass_us(&store.journal, 1);
    assert!(store.journal.must_wait(1, true) && !store.journal.must_wait(1, false));
    pass_us(&store.journal, 3_999_999);
    store.journal.release(store.journal.reserve(1).unwrap());
    pass_us(&store.journal, 1);
    assert_eq!(store.journal.reserve(1).unwrap_err(), Refused::Stalled);
    store.journal.sync_now().unwrap();
    assert!(!store.journal.must_wait(1, true));
    assert!(store.turns(1));
}

#[test]
fn replies_are_held_by_the_time_that_a_slow_disk_took() {
    let disk = SimDisk::new();
    let clock = SimClock::new(Time(1_700_000_000_000));
    let options = Options {
        clock: clock.source(),
        ..options(Fsync::EverySec)
    };
    let mut store = Store::open_with(Arc::new(disk.clone()), options).unwrap();
    assert!(store.turns(1));
    clock.pass_us(1_500_000);
    // No turn has begun since, but the write of this one has ended.
    assert!(store.turns(1));
    assert!(store.journal.must_wait(2, true));
    store.journal.sync_now().unwrap();
    assert!(!store.journal.must_wait(2, true));
    // While a sync takes three seconds another write comes, and then no turn begins any more.
    assert!(store.turns(1));
    let store = Arc::new(store);
    let writer = Arc::downgrade(&store);
    disk.watch(Some(Arc::new(move |call, _| {
        let Some(store) = writer.upgrade().filter(|_| call == Call::Sync) else {
            return;
        };
        let journal = &store.journal;
        let room = journal.reserve(room_bytes(1, 0)).unwrap();
        journal.append(Time(1_700_000_002_000), &Change::Flush { at: None }, room);
        journal.flush().unwrap();
        clock.pass_us(3_000_000);
    })));
    store.journal.sync_now().unwrap();
    disk.watch(None);
    assert_eq!(store.journal.synced(), 3);
    assert!(store.journal.must_wait(4, true));
}

#[test]
fn what_comes_during_a_sync_is_written_before_the_next() {
    let disk = SimDisk::new();
    let mut store = Store::open_with(Arc::new(disk.clone()), options(Fsync::Always)).unwrap();
    assert!(store.turns(1));
    let store = Arc::new(store);
    let writer = Arc::downgrade(&store);
    disk.watch(Some(Arc::new(move |call, _| {
        if let Some(store) = writer.upgrade().filter(|_| call == Call::Sync) {
            let room = store.journal.reserve(room_bytes(1, 0)).unwrap();
            let change = Change::Flush { at: None };
            store.journal.append(Time(1_700_000_002_000), &change, room);
            store.journal.flush().unwrap();
        }
    })));
    store.journal.sync_now().unwrap();
    disk.watch(None);
    let journal = &store.journal;
    let appended = journal.appended();
    assert_eq!(
        (journal.written(), journal.synced()),
        (appended - 1, appended - 1)
    );
    assert!(journal.must_wait(appended, true));
    journal.sync_now().unwrap();
    assert_eq!((journal.written(), journal.synced()), (appended, appended));
}

#[test]
fn workers_share_the_journal() {
    let directory = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(FileDisk::open(directory.path()).unwrap());
    let options = Options {
        background: true,
        segment_bytes: 100_000,
        ..options(Fsync::Always)
    };
    let mut sink = Count::default();
    let (journal, _) = Journal::open(disk, options.clone(), &mut sink).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..4u64 {
            let journal = &journal;
            scope.spawn(move || {
                for round in 0..500u64 {
                    let key = Key::Typed(TypedKey {
                        prefix: 2,
                        id: worker as u32,
                    });
                    for step in 0..4 {
                        let room = journal.reserve(room_bytes(1, 0)).unwrap();
                        let number = round * 4 + step + 1;
                        journal.append(Time(round), &Change::Number { key, number }, room);
                    }
                    let appended = journal.appended();
                    journal.flush().unwrap();
                    // It is written, or waits for a sync that another worker's has put off.
                    assert!(journal.written() >= appended || journal.must_wait(appended, true));
                }
            });
        }
    });
    journal.close().unwrap();
    drop(journal);
    let disk: Arc<dyn Disk> = Arc::new(FileDisk::open(directory.path()).unwrap());
    let mut sink = Count::default();
    Journal::open(disk, options, &mut sink).unwrap();
    assert_eq!(sink.0, [2000; 4]);
}

/// The last number of each worker, checked to go up by one.
#[derive(Default)]
struct Count([u64; 4]);

impl Replay for Count {
    fn entry(&mut self, _key: Key<'_>, _entry: Entry) -> Result<(), ReplayError> {
        Err(ReplayError("there is none".to_owned()))
    }

    fn change(&mut self, _seq: u64, _time: Time, change: Change<'_>) -> Result<(), ReplayError> {
        if let Change::Number {
            key: Key::Typed(key),
            number,
        } = change
        {
            let last = &mut self.0[key.id as usize];
            assert_eq!(number, *last + 1);
            *last = number;
        }
        Ok(())
    }

    fn progress(&mut self, _progress: &Progress) -> Result<(), ReplayError> {
        Ok(())
    }
}

#[test]
fn a_restored_backup_without_store_is_adopted() {
    let disk = SimDisk::new();
    let mut store = Store::open(&disk).unwrap();
    assert!(store.turns(10));
    let backup = disk.kill();
    backup.unlink("STORE");
    assert_eq!(Store::open(&backup).unwrap().log, store.log);
    assert!(backup.list().unwrap().contains(&"STORE".to_owned()));
}

#[test]
fn files_of_another_store_and_missing_ones_are_refused_by_name() {
    let disk = SimDisk::new();
    let mut store = Store::open(&disk).unwrap();
    for _ in 0..3 {
        assert!(store.turns(10));
        store.journal.rotate().unwrap();
    }
    assert!(store.turns(10));
    let other = SimDisk::new();
    Store::open(&other).unwrap();
    for (name, expected) in [
        ("journal-0000000003", "journal-0000000003 is missing"),
        ("journal-0000000001", "journal-0000000001 is missing"),
        (
            "snapshot-0000000001",
            "a snapshot of generation 1 (such as snapshot-0000000001)",
        ),
    ] {
        let disk = disk.kill();
        disk.unlink(name);
        let before = disk.list().unwrap();
        let error = Store::open(&disk).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(disk.list().unwrap(), before);
    }
    let foreign = disk.kill();
    let name = Name::Segment(9).to_string();
    foreign.put(&name, &other.read("journal-0000000002").unwrap());
    assert!(Store::open(&foreign).is_err());
    let foreign = disk.kill();
    foreign.put("STORE", &other.read("STORE").unwrap());
    assert!(matches!(
        Store::open(&foreign),
        Err(JournalError::ForeignLog { .. })
    ));
}
