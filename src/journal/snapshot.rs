//! Snapshots: the whole state on one file, from which a restart begins.
//!
//! Invariant: a snapshot has its name only when it is complete, synced and read back; older
//! files go only after that. It holds what the records before its cut made; the records from the
//! cut on are in the segment of its number and later ones. One is written at a time, by a
//! background thread of the engine.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::disk::{DiskFile, Name};
use super::encode::{self, Payload};
use super::pace::Pace;
use super::read_back::{Moved, Written, read_back};
use super::record::{
    BatchHeader, BatchKind, FILE_HEADER_BYTES, FileHeader, FileKind, VERSION, batch_seed,
};
use super::segment::{
    Kept, NewSegment, create_temporary, discard, failed, outstanding, publish, write_store,
};
use super::space::margin;
use super::writer::{Shared, SnapshotInfo, WELL};
use super::{Journal, JournalError};
use crate::clock::Time;
use crate::command::change::Change;
use crate::key::Key;
use crate::types::TypeTable;
use crate::value::Entry;

/// Entries are written in batches of about this size.
pub(super) const BATCH_BYTES: usize = 1 << 20;

/// A snapshot file: header, batches, End. Knows nothing of the journal.
pub(super) struct SnapshotFile {
    pub(super) name: Name,
    temporary: String,
    file: Arc<dyn DiskFile>,
    header: FileHeader,
    offset: u64,
    prev_crc: u32,
    records: u64,
    payload: Payload,
    in_payload: u32,
    /// How long the payload was at the last pause.
    at_breath: usize,
    pace: Pace,
}

impl SnapshotFile {
    /// Makes the file under its temporary name. Nothing is written before [`Self::begin`].
    pub(super) fn create(
        disk: &dyn super::disk::Disk,
        header: FileHeader,
        pace: Pace,
    ) -> Result<Self, JournalError> {
        let name = Name::Snapshot(header.number);
        let temporary = name.temporary();
        let file = Arc::from(create_temporary(disk, &temporary)?);
        Ok(Self {
            name,
            temporary,
            file,
            header,
            offset: 0,
            prev_crc: 0,
            records: 0,
            payload: Payload::default(),
            in_payload: 0,
            at_breath: 0,
            pace,
        })
    }

    /// Fixes the cut.
    pub(super) fn begin(&mut self, seq: u64, time: Time) {
        self.header.base_seq = seq;
        self.header.time = time;
        self.prev_crc = self.header.crc();
        self.offset = FILE_HEADER_BYTES as u64;
    }

    /// Adds a record, which is in memory until [`Self::write_records`].
    pub(super) fn put(&mut self, write: impl FnOnce(&mut Payload)) {
        write(&mut self.payload);
        self.in_payload += 1;
        if self.payload.len() - self.at_breath >= self.pace.breath_bytes() {
            self.at_breath = self.payload.len();
            self.pace.breathe();
        }
    }

    /// The bytes of the records that are still in memory.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.payload.len()
    }

    /// Writes the records that are still in memory.
    pub(super) fn write_records(&mut self) -> Result<(), JournalError> {
        if self.in_payload > 0 {
            self.write_batch(BatchKind::Snapshot)?;
        }
        Ok(())
    }

    fn write_batch(&mut self, kind: BatchKind) -> Result<(), JournalError> {
        let slices = self.payload.slices();
        let crc = slices.fold(0, crc32c::crc32c_append);
        let header = BatchHeader {
            kind,
            len: u32::try_from(self.payload.len()).unwrap_or(u32::MAX),
            count: self.in_payload,
            first_seq: self.records,
            synced_upto: 0,
            time: self.header.time,
            prev_crc: self.prev_crc,
            payload_crc: crc,
        };
        let mut bytes = Vec::new();
        let seed = batch_seed(&self.header.log_id, self.header.number);
        self.prev_crc = header.encode(seed, &mut bytes);
        let slices = [bytes.as_slice()].into_iter().chain(self.payload.slices());
        self.offset = self
            .pace
            .write((&self.temporary, &*self.file), self.offset, slices)?;
        self.records += u64::from(self.in_payload);
        self.in_payload = 0;
        self.at_breath = 0;
        self.payload.clear();
        Ok(())
    }

    /// Writes the rest and the End batch, syncs, and reads it all back; tells `moved` of each
    /// DATA value where it is now.
    pub(super) fn complete(&mut self, moved: Option<&mut Moved<'_>>) -> Result<(), JournalError> {
        self.write_records()?;
        self.write_batch(BatchKind::End)?;
        self.file
            .write_all_at(0, &mut [IoSlice::new(&self.header.encode())])
            .and_then(|()| self.file.sync_all())
            .map_err(failed("write", &self.temporary))?;
        let written = Written {
            file: &*self.file,
            name: &self.temporary,
            header: &self.header,
            len: self.offset,
            records: self.records,
        };
        read_back(&written, &self.pace, moved)
    }

    /// Gives it its name.
    pub(super) fn publish(&self, disk: &dyn super::disk::Disk) -> Result<(), JournalError> {
        publish(disk, &self.temporary, &self.name.to_string())
    }

    fn info(&self) -> SnapshotInfo {
        SnapshotInfo {
            number: self.header.number,
            bytes: self.offset,
            time: self.header.time,
            seq: self.header.base_seq,
        }
    }
}

/// A snapshot in the making. Dropping it before [`SnapshotWriter::finish`] leaves everything
/// as it was.
pub struct SnapshotWriter {
    shared: Arc<Shared>,
    snapshot: Option<SnapshotFile>,
    temporary: String,
    is_cut: bool,
    /// The storage had failed when this began: it heals it.
    heals: bool,
    work: u64,
}

/// What a snapshot is to be.
#[derive(Clone, Debug, Default)]
pub struct SnapshotPlan {
    /// The files of this generation were moved away: begin a new one.
    pub new_generation: bool,
    /// How large it may become, as far as is known.
    pub expected_bytes: u64,
    /// How fast it may be written; 0 is as fast as it goes, and so is one that heals the storage.
    pub bytes_per_s: u64,
    /// Once this is set the snapshot fails: nobody waits for it any more.
    pub given_up: Arc<AtomicBool>,
}

impl Journal {
    /// Begins a snapshot. Call it without any lock; it syncs and begins a new segment. One at a
    /// time.
    pub fn begin_snapshot(&self, plan: SnapshotPlan) -> Result<SnapshotWriter, JournalError> {
        let shared = &self.shared;
        if shared.snapshot_running.swap(true, AcqRel) {
            return Err(JournalError::Busy);
        }
        let result = begin(shared, plan, self.is_failed());
        if result.is_err() {
            shared.snapshot_running.store(false, Release);
        }
        let (snapshot, heals) = result?;
        Ok(SnapshotWriter {
            shared: Arc::clone(shared),
            temporary: snapshot.temporary.clone(),
            snapshot: Some(snapshot),
            is_cut: false,
            heals,
            work: 0,
        })
    }
}

fn begin(
    shared: &Shared,
    plan: SnapshotPlan,
    heals: bool,
) -> Result<(SnapshotFile, bool), JournalError> {
    let bytes_per_s = if heals { 0 } else { plan.bytes_per_s };
    let reserve = margin(plan.expected_bytes, shared.options.allocate_bytes);
    let pace = Pace::new(bytes_per_s, reserve, plan.given_up);
    pace.check()?;
    pace.check_space(&*shared.disk, plan.expected_bytes)?;
    let sync = shared.sync.lock();
    let generation = {
        let active = shared.active.lock();
        let tried = active.store_generation.max(active.tried_generation);
        tried + u64::from(plan.new_generation)
    };
    if !heals && !is_unused(shared, generation) {
        shared.rotate_locked(&sync, Some(generation))?;
    }
    let mut active = shared.active.lock();
    let number = if heals {
        active.last_number += 1;
        active.last_number
    } else {
        active.number
    };
    let header = FileHeader {
        kind: FileKind::Snapshot,
        version: VERSION,
        log_id: shared.log_id,
        generation,
        number,
        base_seq: 0,
        time: active.newest,
        chain: 0,
        fresh: false,
    };
    drop(active);
    Ok((SnapshotFile::create(&*shared.disk, header, pace)?, heals))
}

/// True if nothing is in the active segment and no snapshot has its number: an attempt at one has
/// failed, and the next may have it. But not if the segment was moved away since, nor if the
/// failed one came so far that values are read from it: places know a file by its number.
fn is_unused(shared: &Shared, generation: u64) -> bool {
    let active = shared.active.lock();
    let is_known = shared.places.files.contains(Name::Snapshot(active.number));
    !is_known && active.is_unused(generation, &*shared.disk)
}

impl SnapshotWriter {
    /// Fixes the first sequence number that is not in the snapshot, and answers it: call it
    /// under all shard locks, once, before the first entry. Does no I/O.
    pub fn cut(&mut self, time: Time) -> Result<u64, JournalError> {
        let snapshot = self.snapshot.as_mut().ok_or(JournalError::OutOfOrder)?;
        if std::mem::replace(&mut self.is_cut, true) {
            return Err(JournalError::OutOfOrder);
        }
        let mut buffer = self.shared.buffer.lock();
        let well = self.shared.health.load(Acquire) == WELL;
        let seq = if self.heals {
            buffer.keep()
        } else {
            buffer.next_seq
        };
        drop(buffer);
        if well == self.heals {
            return Err(JournalError::Failed {
                reason: "the storage has failed since the snapshot began".to_owned(),
            });
        }
        self.work = self.shared.work.load(Relaxed);
        snapshot.begin(seq, time);
        Ok(seq)
    }

    fn put(&mut self, write: impl FnOnce(&mut Payload)) -> Result<(), JournalError> {
        let snapshot = self.snapshot.as_mut().filter(|_| self.is_cut);
        let snapshot = snapshot.ok_or(JournalError::OutOfOrder)?;
        snapshot.put(write);
        let bytes = snapshot.waiting_bytes();
        if bytes >= self.shared.options.snapshot_batch_bytes {
            if !self.heals && self.shared.health.load(Acquire) != WELL {
                // Another one has to heal it, as soon as may be.
                return Err(self.shared.not_well(&self.shared.active.lock()));
            }
            snapshot
                .pace
                .check_space(&*self.shared.disk, bytes as u64)?;
            snapshot.write_records()?;
            self.shared.space.snapshot_has(snapshot.offset);
        }
        Ok(())
    }

    fn put_change(&mut self, change: &Change<'_>) -> Result<(), JournalError> {
        let time = self
            .snapshot
            .as_ref()
            .map_or(Time(0), |snapshot| snapshot.header.time);
        self.put(|payload| encode::put_change(payload, time, time, change, None))
    }

    /// The type table.
    pub fn types(&mut self, types: &Arc<TypeTable>) -> Result<(), JournalError> {
        self.put_change(&Change::Types(Arc::clone(types)))
    }

    /// A flush that is still to come, if there is one.
    pub fn pending_flush(&mut self, at: Option<Time>) -> Result<(), JournalError> {
        match at {
            Some(_) => self.put_change(&Change::Flush { at }),
            None => Ok(()),
        }
    }

    /// An entry. May write.
    pub fn entry(&mut self, key: Key<'_>, entry: &Entry) -> Result<(), JournalError> {
        self.put(|payload| encode::put_entry(payload, key, entry))
    }

    /// Completes it: from now on a restart begins here, older files go, and if the storage had
    /// failed it is well again. `moved` is needed if values are away or may leave: older files are
    /// not read after this. Should a later step fail, values can be read where `moved` was told
    /// all the same. Call it without any lock.
    pub fn finish(mut self, moved: Option<&mut Moved<'_>>) -> Result<(), JournalError> {
        if !self.is_cut {
            return Err(JournalError::OutOfOrder);
        }
        let mut snapshot = self.snapshot.take().ok_or(JournalError::OutOfOrder)?;
        let finished = self.carry_out(&mut snapshot, moved);
        self.shared.places.snapshot_ended(finished.is_ok());
        if finished.is_err() {
            self.snapshot = Some(snapshot);
        }
        finished
    }

    fn carry_out(
        &self,
        snapshot: &mut SnapshotFile,
        moved: Option<&mut Moved<'_>>,
    ) -> Result<(), JournalError> {
        let shared = &*self.shared;
        if !self.heals {
            // A restart expects all records before the cut to be there. Should the storage fail
            // after this, the snapshot is none the worse for it.
            let synced = shared.write_and_sync();
            synced.map_err(|_| shared.not_well(&shared.active.lock()))?;
        }
        if moved.is_some() {
            // Values are read from this file from the first one on that is told of, so it stays
            // open until the next snapshot whatever becomes of it.
            shared.places.files.insert(snapshot.name, &snapshot.file);
        }
        shared.places.keep_before(snapshot.header.number);
        snapshot.complete(moved)?;
        if self.heals {
            shared.heal(snapshot)?;
            shared.call_wakers();
        } else {
            snapshot.publish(&*shared.disk)?;
            let old = {
                let mut active = shared.active.lock();
                active.tried_generation = snapshot.header.generation;
                active.store_generation
            };
            let generation = shared.advance_store(old, snapshot)?;
            shared.active.lock().store_generation = generation;
        }
        shared.work.fetch_sub(self.work, Relaxed);
        shared.take_over(snapshot);
        tracing::info!("{}: {} records", snapshot.name, snapshot.records);
        Ok(())
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if self.snapshot.is_some() {
            discard(&*self.shared.disk, &self.temporary);
            if self.heals {
                let charged = self.shared.buffer.lock().drop_all();
                self.shared.room.fetch_add(charged.cast_signed(), Relaxed);
            }
        }
        self.shared.space.snapshot_ended(false);
        self.shared.snapshot_running.store(false, Release);
    }
}

impl Shared {
    /// Makes `STORE` tell the snapshot's generation, which it answers.
    fn advance_store(&self, old: u64, snapshot: &SnapshotFile) -> Result<u64, JournalError> {
        if snapshot.header.generation > old {
            write_store(&*self.disk, &snapshot.header)?;
        }
        Ok(snapshot.header.generation.max(old))
    }

    /// Goes on in a new segment that begins at the snapshot. No record comes into that segment
    /// before the snapshot has its name.
    fn heal(&self, snapshot: &SnapshotFile) -> Result<(), JournalError> {
        let _sync = self.sync.lock();
        let mut active = self.active.lock();
        let header = FileHeader {
            kind: FileKind::Segment,
            fresh: true,
            ..snapshot.header
        };
        let room = self.room.swap(0, Relaxed);
        let outstanding = outstanding(&active, room);
        let ahead = self.affordable(self.options.allocate_bytes);
        let made = NewSegment::create(&*self.disk, header, outstanding, ahead).and_then(|new| {
            new.publish(&*self.disk)?;
            snapshot.publish(&*self.disk)?;
            active.tried_generation = snapshot.header.generation;
            let generation = self.advance_store(active.store_generation, snapshot)?;
            Ok((new, generation))
        });
        let (new, generation) = match made {
            Ok(made) => made,
            Err(error) => {
                self.room.fetch_add(room, Relaxed);
                return Err(error);
            }
        };
        active.store_generation = generation;
        self.switch_to(&mut active, new, room);
        active.failed = None;
        let before = snapshot.header.base_seq - 1;
        self.written.store(before, Release);
        self.synced.store(before, Release);
        self.health.store(WELL, Release);
        tracing::info!("storage is well again from {} on", active.name());
        Ok(())
    }

    /// The snapshot is the last complete one: what only older ones need goes.
    fn take_over(&self, snapshot: &SnapshotFile) {
        let number = snapshot.header.number;
        let mut active = self.active.lock();
        active.snapshot = snapshot.info();
        self.space.snapshot_ended(true);
        let (mut needed, old) = std::mem::take(&mut active.kept)
            .into_iter()
            .partition::<Vec<_>, _>(|kept| kept.number >= number);
        needed.push(Kept {
            name: snapshot.name,
            number,
            generation: snapshot.header.generation,
            bytes: snapshot.offset,
            file: Arc::clone(&snapshot.file),
        });
        active.kept = needed;
        drop(active);
        self.places.forget_before(number);
        for kept in old {
            // Files of an older generation were moved away, or are to be.
            let ours = kept.generation >= snapshot.header.generation;
            if ours && kept.is_in_place(&*self.disk) {
                discard(&*self.disk, &kept.name.to_string());
            }
        }
    }
}
