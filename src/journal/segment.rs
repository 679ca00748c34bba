//! Files that come and go: making one under a temporary name, beginning the next segment,
//! closing the journal.
//!
//! Invariant: a file has its final name only when its content up to then lasts, so a final name
//! with a bad header is damage. A segment is followed by another, or gets its End batch when the
//! journal is closed, only after all its records last; it is not written to after that. The
//! journal's other modules use this.

use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use parking_lot::MutexGuard;

use super::disk::{Disk, DiskFile, Identity, Name, is_full};
use super::record::{
    BATCH_HEADER_BYTES, BatchHeader, FILE_HEADER_BYTES, FileHeader, FileKind, VERSION, batch_seed,
};
use super::writer::{Active, CLOSED, FAILED, Shared};
use super::{Journal, JournalError};

/// A file that is not written any more, held open so that it is known by more than its name.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) name: Name,
    pub(super) number: u64,
    pub(super) generation: u64,
    pub(super) bytes: u64,
    pub(super) file: Arc<dyn DiskFile>,
}

impl Kept {
    pub(super) fn is_segment(&self) -> bool {
        matches!(self.name, Name::Segment(_))
    }

    /// True if the file is still at its path.
    pub(super) fn is_in_place(&self, disk: &dyn Disk) -> bool {
        is_in_place(disk, self.name, &*self.file)
    }
}

/// True if this is the file that has the name.
pub(super) fn is_in_place(disk: &dyn Disk, name: Name, file: &dyn DiskFile) -> bool {
    let identity = |found: io::Result<Option<Identity>>| found.ok().flatten();
    let at_path = identity(disk.identity(&name.to_string()));
    at_path.is_some() && at_path == file.identity().ok()
}

/// Makes an error of `doing` something with a file.
pub(super) fn failed(
    doing: &'static str,
    name: impl fmt::Display,
) -> impl FnOnce(io::Error) -> JournalError {
    let name = name.to_string();
    move |source| JournalError::Io {
        doing,
        name,
        source,
    }
}

/// Makes the temporary of `name`; one that is left from before goes.
pub(super) fn create_temporary(
    disk: &dyn Disk,
    name: &str,
) -> Result<Box<dyn DiskFile>, JournalError> {
    match disk.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", name)(error));
        }
        Ok(()) | Err(_) => {}
    }
    disk.create_new(name).map_err(failed("create", name))
}

/// Gives a complete and synced temporary its name.
pub(super) fn publish(disk: &dyn Disk, from: &str, to: &str) -> Result<(), JournalError> {
    disk.rename(from, to).map_err(failed("rename", from))?;
    disk.sync_dir().map_err(failed("sync the directory of", to))
}

/// Removes a temporary that is not needed; recovery removes it if this cannot.
pub(super) fn discard(disk: &dyn Disk, name: &str) {
    if let Err(error) = disk.remove(name)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("cannot remove {name}: {error}");
    }
}

/// Writes `STORE`.
pub(super) fn write_store(disk: &dyn Disk, header: &FileHeader) -> Result<(), JournalError> {
    let header = FileHeader {
        kind: FileKind::Store,
        version: VERSION,
        number: 0,
        base_seq: 0,
        chain: 0,
        fresh: false,
        ..*header
    };
    let temporary = Name::Store.temporary();
    let file = create_temporary(disk, &temporary)?;
    file.write_all_at(0, &mut [IoSlice::new(&header.encode())])
        .and_then(|()| file.sync_all())
        .map_err(failed("write", &temporary))?;
    publish(disk, &temporary, &Name::Store.to_string())
}

/// A file that is to become a segment: there is space in it, and no header yet.
struct Blank {
    name: String,
    file: Arc<dyn DiskFile>,
    allocated: u64,
}

impl Blank {
    /// Makes the file under its temporary name, with space for `outstanding` bytes of records and,
    /// if there is that much, `ahead` more.
    fn create(
        disk: &dyn Disk,
        number: u64,
        outstanding: u64,
        ahead: u64,
    ) -> Result<Self, JournalError> {
        let name = Name::Segment(number).temporary();
        let mut blank = Self {
            file: Arc::from(create_temporary(disk, &name)?),
            name,
            allocated: 0,
        };
        let needed = segment_bytes(outstanding);
        let made = match blank.allocate(needed + ahead) {
            Err(error) if is_full(&error) => blank.allocate(needed),
            made => made,
        };
        blank.or_discard(disk, made)
    }

    fn allocate(&mut self, bytes: u64) -> io::Result<()> {
        if bytes > self.allocated {
            self.file.allocate(self.allocated, bytes - self.allocated)?;
            self.allocated = bytes;
        }
        Ok(())
    }

    /// Makes what there is last, so that little is left to do when the segment begins.
    fn sync(self, disk: &dyn Disk) -> Result<Self, JournalError> {
        let synced = self.file.sync_all();
        self.or_discard(disk, synced)
    }

    /// Begins the segment, which lacks only its name then.
    fn begin(
        mut self,
        disk: &dyn Disk,
        header: FileHeader,
        outstanding: u64,
    ) -> Result<NewSegment, JournalError> {
        let begun = self
            .allocate(segment_bytes(outstanding))
            .and_then(|()| {
                self.file
                    .write_all_at(0, &mut [IoSlice::new(&header.encode())])
            })
            .and_then(|()| self.file.sync_all());
        let Self {
            file, allocated, ..
        } = self.or_discard(disk, begun)?;
        Ok(NewSegment {
            header,
            file,
            allocated,
        })
    }

    fn or_discard(self, disk: &dyn Disk, result: io::Result<()>) -> Result<Self, JournalError> {
        if result.is_err() {
            discard(disk, &self.name);
        }
        result.map_err(failed("write", &self.name))?;
        Ok(self)
    }
}

/// How long a segment is that has room for so many bytes of records.
const fn segment_bytes(records: u64) -> u64 {
    FILE_HEADER_BYTES as u64 + records + BATCH_HEADER_BYTES as u64
}

/// A segment that is complete but for its name.
pub(super) struct NewSegment {
    pub(super) header: FileHeader,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) allocated: u64,
}

impl NewSegment {
    /// Makes the file under its temporary name, with space for `outstanding` bytes of records and,
    /// if there is that much, `ahead` more.
    pub(super) fn create(
        disk: &dyn Disk,
        header: FileHeader,
        outstanding: u64,
        ahead: u64,
    ) -> Result<Self, JournalError> {
        Blank::create(disk, header.number, outstanding, ahead)?.begin(disk, header, outstanding)
    }

    fn name(&self) -> String {
        Name::Segment(self.header.number).to_string()
    }

    fn temporary(&self) -> String {
        Name::Segment(self.header.number).temporary()
    }

    /// Gives it its name, which lasts from then on.
    pub(super) fn publish(&self, disk: &dyn Disk) -> Result<(), JournalError> {
        publish(disk, &self.temporary(), &self.name())
    }
}

impl Active {
    /// The segment as it is now, to be kept.
    pub(super) fn to_kept(&self) -> Kept {
        Kept {
            name: self.name(),
            number: self.number,
            generation: self.generation,
            bytes: self.offset,
            file: Arc::clone(&self.file),
        }
    }

    /// Goes on in a new segment, which has its name.
    pub(super) fn switch(&mut self, new: NewSegment) {
        let old = self.to_kept();
        self.kept.push(old);
        self.file = new.file;
        self.number = new.header.number;
        self.generation = new.header.generation;
        self.seed = batch_seed(&new.header.log_id, new.header.number);
        self.offset = FILE_HEADER_BYTES as u64;
        self.allocated = new.allocated;
        self.zeroed = 0;
        self.prev_crc = new.header.crc();
        self.last_number = self.last_number.max(self.number);
        self.unsynced_ms = 0;
        self.syncing_ms = 0;
    }
}

impl Shared {
    /// Leaves the segment and begins the next one, of `generation` or the same as now. The caller
    /// holds the sync lock. The segment that is left needs no End batch: all of it lasts before
    /// the next one has a name, and that one knows where it begins.
    pub(super) fn rotate_locked(
        &self,
        sync: &MutexGuard<'_, ()>,
        generation: Option<u64>,
    ) -> Result<(), JournalError> {
        // Workers wait while the file lock is held: most of what takes time is done before and
        // after, and under the lock two syncs of very little.
        let early = self.flush().and_then(|()| self.sync_locked(sync));
        let disk = &*self.disk;
        let ahead = self.affordable(self.options.allocate_bytes);
        let (number, promised) = {
            let active = self.active.lock();
            early.map_err(|_| self.not_well(&active))?;
            let room = self.room.load(Relaxed);
            (active.last_number + 1, outstanding(&active, room))
        };
        let blank = Blank::create(disk, number, promised, ahead)?.sync(disk)?;
        let mut active = self.active.lock();
        let held = self.holds.begin();
        if let Err(error) = self.sync_rest(&mut active) {
            discard(disk, &blank.name);
            return Err(error);
        }
        let header = FileHeader {
            kind: FileKind::Segment,
            version: VERSION,
            log_id: self.log_id,
            generation: generation.unwrap_or(0).max(active.generation),
            number,
            base_seq: self.written.load(Acquire) + 1,
            time: active.newest,
            chain: active.prev_crc,
            fresh: false,
        };
        let room = self.room.swap(0, Relaxed);
        let new = match blank.begin(disk, header, outstanding(&active, room)) {
            Ok(new) => new,
            Err(error) => {
                self.room.fetch_add(room, Relaxed);
                return Err(error);
            }
        };
        let (left, left_bytes) = (Arc::clone(&active.file), active.offset);
        if let Err(error) = disk.rename(&new.temporary(), &new.name()) {
            // Nobody knows which segment a restart would take for the last one: no way on.
            self.room.fetch_add(room, Relaxed);
            active.last_number = number;
            let error = failed("rename", new.temporary())(error);
            self.fail(&mut active, error.to_string());
            return Err(error);
        }
        self.switch_to(&mut active, new, room);
        drop(active);
        drop(held);
        // Nothing in the new segment counts as synced before its name lasts.
        let named = disk
            .sync_dir()
            .map_err(failed("sync the directory of", Name::Segment(number)));
        if let Err(error) = &named {
            self.fail(&mut self.active.lock(), error.to_string());
        } else if let Err(error) = left.truncate(left_bytes) {
            tracing::warn!(
                "cannot give back the space after {left_bytes} bytes of a segment: {error}"
            );
        }
        named
    }

    /// Takes `new` as the active segment; `room` is what was free in the old one, and is 0 now.
    pub(super) fn switch_to(&self, active: &mut Active, new: NewSegment, room: i64) {
        let outstanding = active.capacity().saturating_sub(room);
        active.switch(new);
        self.places.files.insert(active.name(), &active.file);
        active.step_bytes = self.options.allocate_bytes;
        let ahead = active.capacity().saturating_sub(outstanding);
        self.space.has_grown(u64::try_from(ahead).unwrap_or(0));
        self.room.fetch_add(ahead, Relaxed);
        self.oldest_ms.store(0, Release);
    }

    /// Writes and syncs everything.
    fn sync_rest(&self, active: &mut MutexGuard<'_, Active>) -> Result<(), JournalError> {
        if self.write_out(active).is_err() {
            return Err(self.not_well(active));
        }
        let written = self.written.load(Acquire);
        if self.synced.load(Acquire) < written {
            if let Err(error) = active.file.sync_data() {
                let reason = format!("syncing {}: {error}", active.name());
                self.fail(active, reason);
                return Err(self.not_well(active));
            }
            self.synced.store(written, Release);
            self.syncs.fetch_add(1, Relaxed);
            active.unsynced_ms = 0;
            self.oldest_ms.store(0, Release);
        }
        Ok(())
    }

    /// Why nothing can be written.
    pub(super) fn not_well(&self, active: &Active) -> JournalError {
        match (&active.failed, self.health.load(Acquire)) {
            (None, CLOSED) => JournalError::Closed,
            (reason, _) => JournalError::Failed {
                reason: reason.clone().unwrap_or_default(),
            },
        }
    }
}

/// What was promised to records that are not written yet.
pub(super) fn outstanding(active: &Active, room: i64) -> u64 {
    u64::try_from(active.capacity().saturating_sub(room)).unwrap_or(0)
}

/// Writes the End batch and gives the space after it back.
fn write_end(active: &mut Active, end: &[u8]) -> io::Result<()> {
    active
        .file
        .write_all_at(active.offset, &mut [IoSlice::new(end)])?;
    active.file.truncate(active.offset + end.len() as u64)?;
    active.file.sync_all()
}

impl Journal {
    /// True if a file that a restart needs is not at its path any more.
    pub fn files_moved(&self) -> bool {
        let active = self.shared.active.lock();
        let disk = &*self.shared.disk;
        let mut needed = active
            .kept
            .iter()
            .filter(|kept| kept.number >= active.snapshot.number);
        !is_in_place(disk, active.name(), &*active.file)
            || needed.any(|kept| !kept.is_in_place(disk))
    }

    /// Writes, syncs and closes the segment and ends the sync thread. Nothing can be written
    /// after it. Closing twice is no error.
    pub fn close(&self) -> Result<(), JournalError> {
        self.stop_thread();
        let shared = &*self.shared;
        let _sync = shared.sync.lock();
        let mut active = shared.active.lock();
        if shared.health.load(Acquire) == CLOSED {
            return Ok(());
        }
        shared.sync_rest(&mut active)?;
        let written = shared.written.load(Acquire);
        let end = BatchHeader::end(written + 1, written, active.newest, active.prev_crc);
        let mut bytes = Vec::new();
        end.encode(active.seed, &mut bytes);
        if let Err(error) = write_end(&mut active, &bytes) {
            let error = failed("close", active.name())(error);
            shared.fail(&mut active, error.to_string());
            return Err(error);
        }
        shared.health.store(CLOSED, Release);
        drop(active);
        shared.call_wakers();
        Ok(())
    }

    /// True while only a snapshot can bring the storage back.
    pub(super) fn is_failed(&self) -> bool {
        self.shared.health.load(Acquire) == FAILED
    }
}

impl Drop for Journal {
    /// Ends the thread and no more: what is to last is closed.
    fn drop(&mut self) {
        self.stop_thread();
    }
}
