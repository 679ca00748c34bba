//! Calls that fail, full disks, and what heals them.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::*;
use crate::journal::sim::{Call, Crash, Fault};
use crate::journal::{Refused, SnapshotPlan};

/// Works on whatever fails, as the engine would, and answers how far `synced` came.
fn work(store: &mut Store) -> u64 {
    let mut synced = 0;
    for round in 0..12 {
        for _ in 0..3 {
            store.turn();
        }
        let _ = store.journal.flush();
        let _ = store.journal.sync_now();
        synced = synced.max(store.journal.synced());
        if round == 5 || store.journal.failed().is_some() {
            let _ = store.snapshot(false);
        }
        if round == 8 {
            let _ = store.journal.rotate();
        }
        synced = synced.max(store.journal.synced());
    }
    synced
}

#[test]
fn a_call_that_fails_once_is_survived_and_healed() {
    let disk = SimDisk::new();
    let mut store = Store::open(&disk).unwrap();
    let opened = disk.calls();
    work(&mut store);
    let calls = disk.calls();
    for fault in Fault::ALL {
        for call in opened + 1..=calls {
            let what = format!("call {call} {fault:?}");
            let disk = SimDisk::new();
            let mut store = Store::open(&disk).unwrap();
            disk.fail(call, false, fault);
            let synced = work(&mut store);
            // What was synced is there at any moment.
            let lost = Store::open(&disk.crash(Crash::DropAll, 0)).unwrap();
            assert!(lost.log.0.len() as u64 >= synced, "{what}");
            assert!(store.log.0.starts_with(&lost.log.0), "{what}");
            // A snapshot heals whatever happened, and then all of memory is on disk.
            disk.heal();
            if store.journal.failed().is_some() {
                assert!(store.journal.reserve(1).is_err(), "{what}");
                store.snapshot(false).unwrap();
            }
            assert_eq!(store.journal.failed(), None, "{what}");
            assert!(store.turns(5), "{what}");
            store.journal.sync_now().unwrap();
            store.assert_no_room_is_lost();
            let lost = Store::open(&disk.crash(Crash::DropAll, 0)).unwrap();
            assert_eq!(lost.log, store.log, "{what}");
        }
    }
}

#[test]
fn calls_that_fail_for_ever_end_in_refused_writes_and_no_loss() {
    let disk = SimDisk::new();
    let mut store = Store::open(&disk).unwrap();
    let opened = disk.calls();
    work(&mut store);
    let calls = disk.calls();
    for fault in Fault::ALL {
        for call in opened + 1..=calls {
            let what = format!("call {call} {fault:?}");
            let disk = SimDisk::new();
            let mut store = Store::open(&disk).unwrap();
            disk.fail(call, true, fault);
            let synced = work(&mut store);
            let _ = store.journal.close();
            for lost in [disk.crash(Crash::DropAll, 0), disk.kill()] {
                let lost = Store::open(&lost).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert!(lost.log.0.len() as u64 >= synced, "{what}");
                assert!(store.log.0.starts_with(&lost.log.0), "{what}");
            }
        }
    }
}

#[test]
fn opening_on_a_disk_that_fails_is_an_error_and_changes_no_state() {
    let disk = SimDisk::new();
    let mut store = Store::open(&disk).unwrap();
    assert!(store.turns(30));
    let log = store.log.clone();
    let disk = disk.kill();
    let probe = disk.kill();
    let before = probe.calls();
    Store::open(&probe).unwrap();
    for call in before + 1..=probe.calls() {
        for fault in Fault::ALL {
            let disk = disk.kill();
            disk.fail(call, false, fault);
            drop(Store::open(&disk));
            assert_eq!(
                Store::open(&disk.kill()).unwrap().log,
                log,
                "call {call} {fault:?}"
            );
        }
    }
}

#[test]
fn a_failed_sync_is_not_tried_again() {
    let disk = SimDisk::new();
    let mut store = Store::open(&disk).unwrap();
    assert!(store.turns(5));
    store.journal.sync_now().unwrap();
    let room = store.journal.reserve(100).unwrap();
    assert!(store.turns(5));
    disk.fail(disk.calls() + 1, false, Fault::Io);
    assert!(store.journal.sync_now().is_err());
    let syncs = disk.syncs();
    assert!(!store.turn());
    assert_eq!(store.journal.reserve(1).unwrap_err(), Refused::Failed);
    assert!(store.journal.sync_now().is_err() && store.journal.rotate().is_err());
    assert!(matches!(
        store.journal.close(),
        Err(JournalError::Failed { .. })
    ));
    assert_eq!(disk.syncs(), syncs);
    assert!(store.journal.needs_snapshot(u64::MAX, 1) && store.journal.stats().failed.is_some());
    // Room from before the failure is still good for an append, which is in memory only.
    let change = Change::Flush { at: None };
    let seq = store.journal.append(Time(1), &change, room);
    store.log.0.push(line(seq, Time(1), &change));
    assert!(store.journal.flush().is_err());
    assert_eq!((store.journal.synced(), seq), (5, 11));

    store.snapshot(false).unwrap();
    assert!(store.journal.flush().is_ok() && !store.journal.needs_snapshot(u64::MAX, 1));
    assert!(store.turns(5));
    store.journal.sync_now().unwrap();
    store.assert_no_room_is_lost();
    let lost = Store::open(&disk.crash(Crash::DropAll, 0)).unwrap();
    assert_eq!((lost.recovered.entries, lost.log), (11, store.log.clone()));
}

#[test]
fn a_rotation_that_fails_on_an_idle_store_leaves_nothing_to_wait_for() {
    let mut failed_well = 0;
    for call in 1..12 {
        let disk = SimDisk::new();
        let mut store = Store::open(&disk).unwrap();
        assert!(store.turns(5));
        store.journal.sync_now().unwrap();
        disk.fail(disk.calls() + call, true, Fault::Full);
        let rotated = store.journal.rotate();
        disk.heal();
        if rotated.is_ok() || store.journal.failed().is_some() {
            continue;
        }
        failed_well += 1;
        let oldest = store.journal.shared.oldest_ms.load(Ordering::Acquire);
        assert_eq!(oldest, 0, "call {call}: an unsynced write that nobody made");
        assert!(store.turns(5));
        store.journal.sync_now().unwrap();
    }
    assert!(failed_well > 0);
}

#[test]
fn a_record_that_comes_while_the_storage_is_healed_is_kept() {
    let disk = SimDisk::new();
    let mut store = Store::open(&disk).unwrap();
    assert!(store.turns(5));
    let room = store.journal.reserve(100).unwrap();
    disk.fail(disk.calls() + 1, false, Fault::Io);
    assert!(store.journal.sync_now().is_err());
    let mut writer = store
        .journal
        .begin_snapshot(SnapshotPlan::default())
        .unwrap();
    writer.cut(Time(1)).unwrap();
    store.log.write(&mut writer).unwrap();
    let change = Change::Flush { at: None };
    let seq = store.journal.append(Time(1), &change, room);
    store.log.0.push(line(seq, Time(1), &change));
    writer.finish(None).unwrap();
    store.journal.sync_now().unwrap();
    store.assert_no_room_is_lost();
    let lost = Store::open(&disk.crash(Crash::DropAll, 0)).unwrap();
    assert_eq!((lost.recovered.entries, lost.log), (5, store.log.clone()));
}

#[test]
fn a_segment_of_no_snapshot_goes_at_a_start_wherever_it_is() {
    let disk = SimDisk::new();
    let mut store = Store::open(&disk).unwrap();
    assert!(store.turns(5));
    disk.fail(disk.calls() + 1, false, Fault::Io);
    assert!(store.journal.sync_now().is_err());
    // What is there when the snapshot that heals the storage gets its name.
    let orphan = Arc::new(Mutex::new(None));
    let (at, seen) = (disk.clone(), Arc::clone(&orphan));
    disk.watch(Some(Arc::new(move |call, name| {
        if call == Call::Rename && name.starts_with(".snapshot") {
            let segment = name.trim_start_matches('.').trim_end_matches(".tmp");
            let segment = segment.replace("snapshot", "journal");
            *seen.lock() = at.read(&segment).ok().map(|bytes| (segment, bytes));
        }
    })));
    store.snapshot(false).unwrap();
    disk.watch(None);
    assert!(store.turns(5));
    store.snapshot(false).unwrap();
    assert!(store.turns(5));
    let (name, bytes) = orphan.lock().take().unwrap();
    assert!(!disk.names().contains(&name));
    disk.put(&name, &bytes);
    let disk = disk.kill();
    assert_eq!(Store::open(&disk).unwrap().log, store.log);
    assert!(!disk.names().contains(&name), "{:?}", disk.names());
}

#[test]
fn a_snapshot_that_the_medium_does_not_hold_is_not_taken() {
    let disk = SimDisk::new();
    let mut store = Store::open(&disk).unwrap();
    assert!(store.turns(20));
    let rotten = AtomicBool::new(false);
    let at = disk.clone();
    disk.watch(Some(Arc::new(move |call, name| {
        // What lasts of it by then is in memory, too, as it was written.
        if call == Call::Sync && name.starts_with(".snapshot") && !rotten.load(Ordering::Relaxed) {
            rotten.store(at.rot(name, 200), Ordering::Relaxed);
        }
    })));
    let error = store.snapshot(false).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
    disk.watch(None);
    assert_eq!(Store::open(&disk.kill()).unwrap().log, store.log);
    store.snapshot(false).unwrap();
    let again = Store::open(&disk.kill()).unwrap();
    assert_eq!(
        (again.recovered.entries, again.log),
        (20, store.log.clone())
    );
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_space() {
    let disk = SimDisk::new();
    let mut store = Store::open(&disk).unwrap();
    disk.set_capacity(Some(1 << 20));
    let value = vec![b'x'; 10_000];
    let put = Change::Put {
        key: Key::Named(b"k"),
        value: Value::Data(Blob::named(b"k", &value)),
        flags: 0,
        expires: Expiry::NEVER,
    };
    let write = |store: &mut Store| {
        let room = store.journal.reserve(room_bytes(1, 10_001))?;
        let seq = store.journal.append(Time(1), &put, room);
        store.log.0.push(line(seq, Time(1), &put));
        store.journal.flush().unwrap();
        Ok(())
    };
    let refused = loop {
        if let Err(refused) = write(&mut store) {
            break refused;
        }
    };
    assert_eq!(refused, Refused::DiskFull);
    assert_eq!(write(&mut store), Err(Refused::DiskFull));
    // What could be promised was used up to the last record's size.
    assert!(store.log.0.len() >= 100, "{}", store.log.0.len());
    disk.set_capacity(Some(1 << 19));
    assert!(
        store.journal.rotate().is_err(),
        "no space for the next segment"
    );
    disk.set_capacity(Some(4 << 20));
    assert_eq!(write(&mut store), Ok(()));
    store.journal.rotate().unwrap();
    assert_eq!(write(&mut store), Ok(()));
    store.assert_no_room_is_lost();
    store.journal.close().unwrap();
    assert_eq!(Store::open(&disk.kill()).unwrap().log, store.log);
}

#[test]
fn a_disk_full_of_journal_keeps_room_for_the_snapshot_that_frees_it() {
    const SNAPSHOT_BYTES: u64 = 300_000;
    let disk = SimDisk::new();
    let journal = Store::open(&disk).unwrap().journal;
    disk.set_capacity(Some(4 << 20));
    let entry = Entry {
        value: Value::Data(Blob::named(b"k", &vec![b'x'; 290_000])),
        flags: 0,
        expires: Expiry::NEVER,
        cas: 0,
        marks: Marks::NONE,
    };
    let put = Change::Put {
        key: Key::Named(b"k"),
        value: entry.value.clone(),
        flags: 0,
        expires: Expiry::NEVER,
    };
    let write = || {
        // As the upkeep does, ten times a second.
        journal.keep_free(|| SNAPSHOT_BYTES);
        let room = journal.reserve(room_bytes(1, 290_001))?;
        journal.append(Time(1), &put, room);
        journal.flush().unwrap();
        Ok(())
    };
    for round in 0..3 {
        let written = (0..100).take_while(|_| write().is_ok()).count();
        assert!((5..100).contains(&written), "{written}");
        assert_eq!(write(), Err(Refused::DiskFull));
        assert!(disk.free_bytes().unwrap() > SNAPSHOT_BYTES);
        assert!(journal.needs_snapshot(u64::MAX, 1), "round {round}");
        let mut writer = journal
            .begin_snapshot(SnapshotPlan {
                expected_bytes: SNAPSHOT_BYTES,
                ..SnapshotPlan::default()
            })
            .unwrap();
        writer.cut(Time(1)).unwrap();
        writer.entry(Key::Named(b"k"), &entry).unwrap();
        writer.finish(None).unwrap();
        assert!(!journal.needs_snapshot(u64::MAX, 1), "round {round}");
        assert_eq!(write(), Ok(()));
    }
}

#[test]
fn a_small_disk_full_of_journal_frees_itself() {
    const VALUE: usize = 20_000;
    let disk = SimDisk::new();
    let options = Options {
        allocate_bytes: 1 << 20,
        ..options(Fsync::Always)
    };
    disk.set_capacity(Some(1 << 20));
    let store = Store::open_with(Arc::new(disk.clone()), options).unwrap();
    let entry = Entry {
        value: Value::Data(Blob::named(b"k", &vec![b'x'; VALUE])),
        flags: 0,
        expires: Expiry::NEVER,
        cas: 0,
        marks: Marks::NONE,
    };
    // Some live data, which every snapshot has, and one key that is written over and over.
    for keys in [1, 4, 8] {
        let snapshot_bytes = keys * (VALUE as u64 + 64);
        for round in 0..3 {
            let what = format!("{keys} keys, round {round}");
            store.journal.keep_free(|| snapshot_bytes);
            let mut count = 0;
            while let Ok(room) = store.journal.reserve(room_bytes(1, VALUE as u64 + 1)) {
                let change = Change::Put {
                    key: Key::Named(b"k"),
                    value: entry.value.clone(),
                    flags: 0,
                    expires: Expiry::NEVER,
                };
                store.journal.append(Time(1), &change, room);
                store.journal.flush().unwrap();
                store.journal.keep_free(|| snapshot_bytes);
                count += 1;
            }
            assert!(count >= 3, "{what}: {count}");
            assert!(store.journal.needs_snapshot(u64::MAX, 1), "{what}");
            let begun = store.journal.begin_snapshot(SnapshotPlan {
                expected_bytes: snapshot_bytes,
                ..SnapshotPlan::default()
            });
            let mut writer = begun.unwrap_or_else(|error| panic!("{what}: {error}"));
            writer.cut(Time(1)).unwrap();
            for _ in 0..keys {
                writer.entry(Key::Named(b"k"), &entry).unwrap();
            }
            writer.finish(None).unwrap();
            assert!(!store.journal.needs_snapshot(u64::MAX, 1), "{what}");
        }
    }
}

#[test]
fn a_snapshot_that_does_not_fit_the_disk_is_not_begun() {
    let disk = SimDisk::new();
    let mut store = Store::open(&disk).unwrap();
    assert!(store.turns(5));
    let used: usize = disk
        .names()
        .iter()
        .map(|name| disk.read(name).unwrap().len())
        .sum();
    let plan = || SnapshotPlan {
        expected_bytes: 100_000,
        ..SnapshotPlan::default()
    };
    // What it takes, and a step of the journal beside it.
    let needed = 100_000 + 4096;
    disk.set_capacity(Some(used as u64 + needed - 1));
    let (names, stats) = (disk.names(), store.journal.stats());
    let refused = store.journal.begin_snapshot(plan()).map(drop).unwrap_err();
    let JournalError::NoSpace { needed: told, free } = refused else {
        panic!("{refused}");
    };
    assert_eq!((told, free), (needed, needed - 1));
    assert_eq!((disk.names(), store.journal.stats()), (names, stats));
    assert!(store.turns(1) && store.journal.failed().is_none());
    disk.set_capacity(Some(1 << 20));
    drop(store.journal.begin_snapshot(plan()).unwrap());
}

#[test]
fn a_snapshot_is_synced_in_pieces() {
    let disk = SimDisk::new();
    let options = Options {
        snapshot_batch_bytes: 16 << 20,
        ..options(Fsync::Always)
    };
    let store = Store::open_with(Arc::new(disk.clone()), options).unwrap();
    let mut writer = store
        .journal
        .begin_snapshot(SnapshotPlan::default())
        .unwrap();
    writer.cut(Time(1)).unwrap();
    let entry = Entry {
        value: Value::Data(Blob::named(b"k", &vec![b'x'; 7 << 19])),
        flags: 0,
        expires: Expiry::NEVER,
        cas: 0,
        marks: Marks::NONE,
    };
    writer.entry(Key::Named(b"k"), &entry).unwrap();
    // Between two syncs of it no more than a piece is written.
    let lens = Arc::new(Mutex::new(vec![0]));
    let (at, seen) = (disk.clone(), Arc::clone(&lens));
    disk.watch(Some(Arc::new(move |call, name| {
        if call == Call::Sync && name.starts_with(".snapshot") {
            seen.lock().push(at.read(name).unwrap().len());
        }
    })));
    writer.finish(None).unwrap();
    let lens = lens.lock();
    let grown: Vec<_> = lens.windows(2).map(|two| two[1] - two[0]).collect();
    // The headers, four pieces of 3.5 MiB, the End batch, and the file's header at the end.
    assert_eq!(grown.len(), 7, "{grown:?}");
    assert!(grown.iter().all(|bytes| *bytes <= 1 << 20), "{grown:?}");
}

#[test]
fn a_new_generation_that_fails_at_any_call_leaves_a_store_that_starts() {
    for call in 1..60 {
        let what = format!("call {call}");
        let disk = SimDisk::new();
        let mut store = Store::open(&disk).unwrap();
        assert!(store.turns(5));
        disk.fail(disk.calls() + call, false, Fault::Io);
        let _ = store.snapshot(true);
        disk.heal();
        // A rotation or a write that fails in between has the next snapshot heal the storage.
        disk.fail_only(Call::Sync, 1, false, Fault::Io);
        store.turns(1);
        let _ = store.journal.sync_now();
        disk.heal();
        store.snapshot(false).unwrap();
        assert!(store.turns(5), "{what}");
        store.journal.sync_now().unwrap();
        for left in [disk.crash(Crash::DropAll, 0), disk.crash(Crash::KeepAll, 0)] {
            let found = Store::open(&left).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(found.log, store.log, "{what}");
        }
    }
}
