//! The end of recovery: the one edit of the directory, and the journal that goes on from there.
//!
//! Invariant: every step can be cut short by a crash and leaves a directory that recovers to the
//! same state; only bytes that were decided to be torn are taken off a file, after a copy of
//! them lasts. Recovery alone uses this.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64};

use parking_lot::{Condvar, Mutex};

use super::buffer::{Buffer, Part};
use super::disk::{Disk, Name};
use super::found::{Found, Opened};
use super::places::{Places, Wish};
use super::record::{FileHeader, FileKind, VERSION};
use super::recover::Scanned;
use super::scan::for_each_chunk;
use super::segment::{Kept, NewSegment, create_temporary, discard, failed, publish, write_store};
use super::space::Space;
use super::sync::Signal;
use super::writer::{Active, Shared, SnapshotInfo, WELL};
use super::{Journal, JournalError, Options, Recovered};
use crate::holds::Holds;
use crate::waits::Waits;

/// The one edit: temporaries go, a torn tail is put aside and cut, and what was read lasts.
pub(super) fn edit(
    disk: &dyn Disk,
    found: &Found,
    last: &Opened,
    scanned: &Scanned,
    recovered: &mut Recovered,
) -> Result<(), JournalError> {
    // The process before this one may have ended before the names of its files lasted; those of
    // the files to come must not last without them.
    disk.sync_dir()
        .map_err(failed("sync", "the data directory"))?;
    for name in &found.temporaries {
        discard(disk, name);
    }
    for orphan in found.orphans() {
        disk.remove(&orphan.name.to_string())
            .map_err(failed("remove", orphan.name))?;
    }
    if scanned.torn_end > scanned.end {
        recovered.torn_bytes = scanned.torn_end - scanned.end;
        set_aside(disk, last, scanned)?;
        tracing::warn!(
            "{}: {} torn bytes at offset {} put aside as {}; records before {} are complete",
            last.name,
            recovered.torn_bytes,
            scanned.end,
            last.name.torn(scanned.next_seq),
            scanned.next_seq
        );
    }
    let file = &last.file;
    if last.len > scanned.end {
        file.truncate(scanned.end)
            .map_err(failed("truncate", last.name))?;
    }
    rewrite(last, scanned)?;
    file.sync_all().map_err(failed("sync", last.name))?;
    if found.store_generation() < recovered.generation {
        let header = FileHeader {
            generation: recovered.generation,
            ..last.header
        };
        write_store(disk, &header)?;
    }
    Ok(())
}

/// Writes what may not last yet once more, as it is. The next segment will say that it lasts;
/// but if a sync of the process before this one failed, the kernel takes its pages for clean and
/// the next sync would say that all is well without writing them.
fn rewrite(last: &Opened, scanned: &Scanned) -> Result<(), JournalError> {
    let range = scanned.unsynced_from..scanned.end;
    let unread = failed("read", last.name);
    for_each_chunk(&*last.file, range, 0, unread, |at, chunk| {
        last.file
            .write_all_at(at, &mut [IoSlice::new(chunk)])
            .map_err(failed("write", last.name))
    })
}

/// Copies the torn bytes to a file of their own.
fn set_aside(disk: &dyn Disk, last: &Opened, scanned: &Scanned) -> Result<(), JournalError> {
    let temporary = last.name.torn_temporary(scanned.next_seq);
    let copy = create_temporary(disk, &temporary)?;
    let range = scanned.end..scanned.torn_end;
    let unread = failed("read", last.name);
    for_each_chunk(&*last.file, range, 0, unread, |at, chunk| {
        copy.write_all_at(at - scanned.end, &mut [IoSlice::new(chunk)])
            .map_err(failed("write", &temporary))
    })?;
    copy.sync_all().map_err(failed("sync", &temporary))?;
    publish(disk, &temporary, &last.name.torn(scanned.next_seq))
}

/// Begins the segment that this process writes.
pub(super) fn go_on(
    disk: Arc<dyn Disk>,
    options: Options,
    found: &Found,
    (snapshot, last): (&Opened, &Opened),
    scanned: &Scanned,
    recovered: &Recovered,
) -> Result<Journal, JournalError> {
    let header = FileHeader {
        kind: FileKind::Segment,
        version: VERSION,
        log_id: snapshot.header.log_id,
        generation: last.header.generation.max(snapshot.header.generation),
        number: found.last_number() + 1,
        base_seq: scanned.next_seq,
        time: recovered.newest_time,
        chain: scanned.prev_crc,
        fresh: false,
    };
    // Nobody has said yet how much is to be kept free: nothing is allocated ahead.
    let new = NewSegment::create(&*disk, header, 0, 0)?;
    new.publish(&*disk)?;
    let mut kept: BTreeMap<Name, Kept> = found.kept(snapshot.header.generation);
    if let Some(kept) = kept.get_mut(&last.name) {
        kept.bytes = scanned.end;
    }
    let mut active = Active {
        file: Arc::clone(&last.file),
        number: last.header.number,
        generation: last.header.generation,
        seed: 0,
        offset: 0,
        allocated: 0,
        zeroed: 0,
        step_bytes: options.allocate_bytes,
        prev_crc: scanned.prev_crc,
        newest: recovered.newest_time,
        spare: Part::default(),
        header: Vec::new(),
        unsynced_ms: 0,
        syncing_ms: 0,
        failed: None,
        wish: Wish::default(),
        last_number: found.last_number(),
        store_generation: recovered.generation.max(found.store_generation()),
        tried_generation: 0,
        kept: Vec::new(),
        snapshot: SnapshotInfo {
            number: snapshot.header.number,
            bytes: snapshot.len,
            time: snapshot.header.time,
            seq: snapshot.header.base_seq,
        },
    };
    active.switch(new);
    active.kept = kept.into_values().collect();
    start(disk, options, header, active)
}

fn start(
    disk: Arc<dyn Disk>,
    options: Options,
    header: FileHeader,
    active: Active,
) -> Result<Journal, JournalError> {
    let before = header.base_seq - 1;
    let places = Places::new(options.files.clone());
    places.files.insert(active.name(), &active.file);
    for kept in &active.kept {
        places.files.insert(kept.name, &kept.file);
    }
    let background = options.background;
    let shared = Arc::new(Shared {
        disk,
        start: options.clock.tick(),
        options,
        log_id: header.log_id,
        sync: Mutex::new(()),
        is_syncing: AtomicBool::new(false),
        room: AtomicI64::new(active.capacity()),
        active: Mutex::new(active),
        buffer: Mutex::new(Buffer::new(header.base_seq)),
        appended: AtomicU64::new(before),
        written: AtomicU64::new(before),
        synced: AtomicU64::new(before),
        oldest_ms: AtomicU64::new(0),
        noted_ms: AtomicU64::new(0),
        waits: Waits::default(),
        health: AtomicU8::new(WELL),
        signal: Mutex::new(Signal::default()),
        wake: Condvar::new(),
        wakers: Mutex::new(Vec::new()),
        leaving: Mutex::new(None),
        work: AtomicU64::new(0),
        snapshot_running: AtomicBool::new(false),
        places,
        syncs: AtomicU64::new(0),
        errors: AtomicU64::new(0),
        space: Space::default(),
        holds: Holds::default(),
    });
    let thread = if background {
        let spawned = Journal::spawn(&shared);
        Some(spawned.map_err(failed("start", "the sync thread"))?)
    } else {
        None
    };
    Ok(Journal {
        shared,
        thread: Mutex::new(thread),
    })
}
