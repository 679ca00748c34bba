//! Syncs: the thread that does them, and what replies wait for.
//!
//! Invariant: one sync at a time, under the sync lock, and never one of a segment that has
//! failed. A sync covers what was written when it began; `synced` says no more than that.

use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::MutexGuard;

use super::places::Wish;
use super::writer::{Active, FAILED, Shared, WELL, Waker};
use super::{Failed, Fsync, Journal, JournalError};
use crate::clock::Tick;

/// `Never`: a sync lets values leave memory when the oldest unsynced write is this old.
const LEAVE_AFTER_MS: u64 = 1000;

/// How long a full segment goes on after a rotation that failed.
const ROTATION_RETRY: Duration = Duration::from_secs(5);

/// What the sync thread is told.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is told by somebody else"
)]
pub(super) struct Signal {
    /// Something is to be synced, or the segment is full.
    work: bool,
    /// The sync is not to wait for its time.
    presses: bool,
    /// The storage has failed: wake those who wait.
    failed: bool,
    stop: bool,
    /// When the last rotation failed, if it did.
    rotation_failed: Option<Tick>,
}

enum Task {
    Sync,
    Wake,
    Stop,
    /// Nothing for so many milliseconds, or until a signal.
    Sleep(Option<u64>),
}

impl Shared {
    /// After a write: remembers its age and tells the thread what it should know.
    pub(super) fn note_write(&self, active: &mut Active) {
        // The write may have taken long, and replies that wait for it have seen no newer time.
        let now_ms = self.now_ms();
        self.noted_ms.fetch_max(now_ms, Relaxed);
        let first = active.unsynced_ms == 0;
        if first {
            active.unsynced_ms = now_ms;
            if active.syncing_ms == 0 {
                self.oldest_ms.store(active.unsynced_ms, Release);
            }
        }
        let full = active.offset >= self.options.segment_bytes;
        let due = match self.options.fsync {
            Fsync::Always => true,
            Fsync::EverySec => first,
            Fsync::Never => active.wish == Wish::Some,
        };
        let presses = std::mem::take(&mut active.wish) == Wish::Soon;
        if due || full || presses {
            let mut signal = self.signal.lock();
            signal.work = true;
            signal.presses |= presses;
            self.wake.notify_one();
        }
    }

    /// Has the sync thread write and sync what there is.
    pub(super) fn signal_work(&self) {
        self.signal.lock().work = true;
        self.wake.notify_one();
    }

    pub(super) fn signal_failure(&self) {
        self.signal.lock().failed = true;
        self.wake.notify_one();
    }

    /// Syncs what is written and not synced. The caller holds the sync lock.
    pub(super) fn sync_locked(&self, _sync: &MutexGuard<'_, ()>) -> Result<(), Failed> {
        let (file, upto) = {
            let mut active = self.active.lock();
            if self.health.load(Acquire) != WELL {
                return Err(Failed);
            }
            let upto = self.written.load(Acquire);
            if self.synced.load(Acquire) >= upto {
                return Ok(());
            }
            active.syncing_ms = active.unsynced_ms;
            active.unsynced_ms = 0;
            (Arc::clone(&active.file), upto)
        };
        self.is_syncing.store(true, Release);
        let result = file.sync_data();
        self.is_syncing.store(false, Release);
        if result.is_err() {
            // Known at once: a writer may hold the lock that the rest of the news waits for.
            let _ = self.health.compare_exchange(WELL, FAILED, AcqRel, Relaxed);
        }
        let mut active = self.active.lock();
        match result {
            Ok(()) => {
                active.syncing_ms = 0;
                self.oldest_ms.store(active.unsynced_ms, Release);
                self.synced.fetch_max(upto, AcqRel);
                self.syncs.fetch_add(1, Relaxed);
                Ok(())
            }
            Err(error) => {
                let reason = format!("syncing {}: {error}", active.name());
                self.fail(&mut active, reason);
                Err(Failed)
            }
        }
    }

    /// Writes and syncs everything.
    pub(super) fn write_and_sync(&self) -> Result<(), Failed> {
        // Under the lock there is no sync that could put the writing off.
        let sync = self.sync.lock();
        self.flush().and_then(|()| self.sync_locked(&sync))
    }

    /// The same, and wakes those who wait for it.
    pub(super) fn sync_now(&self) -> Result<(), Failed> {
        let result = self.write_and_sync();
        self.call_wakers();
        result
    }

    pub(super) fn call_wakers(&self) {
        // Who is woken asks what must still wait, perhaps long after the last turn began.
        self.noted_ms.fetch_max(self.now_ms(), Relaxed);
        let wakers = self.wakers.lock().clone();
        for waker in wakers {
            waker();
        }
        if self.places.is_waiting()
            && let Some(leaving) = &*self.leaving.lock()
        {
            leaving();
        }
    }

    fn next_task(&self, signal: &mut Signal) -> Task {
        if signal.stop {
            return Task::Stop;
        }
        if std::mem::take(&mut signal.failed) {
            return Task::Wake;
        }
        if std::mem::take(&mut signal.presses) {
            signal.work = false;
            return Task::Sync;
        }
        if let Some(due) = self.sync_due_ms() {
            let wait = due.saturating_sub(self.now_ms());
            return match wait {
                0 => Task::Sync,
                wait => Task::Sleep(Some(wait)),
            };
        }
        if std::mem::take(&mut signal.work) {
            return Task::Sync;
        }
        Task::Sleep(None)
    }

    /// When the next sync is due, if it has a time.
    fn sync_due_ms(&self) -> Option<u64> {
        let after_ms = match self.options.fsync {
            Fsync::EverySec => self.options.sync_after_ms,
            Fsync::Never if self.values_wait() => LEAVE_AFTER_MS,
            Fsync::Always | Fsync::Never => return None,
        };
        let oldest = self.oldest_ms.load(Acquire);
        (oldest != 0).then(|| oldest.saturating_add(after_ms))
    }

    /// True if values leave memory after the next sync: they must be on disk for certain, since
    /// after a failure memory is the truth.
    fn values_wait(&self) -> bool {
        self.places.wait_for_sync(self.synced.load(Acquire))
    }

    fn run(&self) {
        loop {
            let task = {
                let mut signal = self.signal.lock();
                let task = self.next_task(&mut signal);
                match task {
                    Task::Sleep(None) => self.wake.wait(&mut signal),
                    Task::Sleep(Some(ms)) => {
                        self.wake.wait_for(&mut signal, Duration::from_millis(ms));
                    }
                    Task::Stop | Task::Wake | Task::Sync => {}
                }
                task
            };
            if !self.carry_out(&task) {
                return;
            }
        }
    }

    /// False when there is nothing more to do.
    fn carry_out(&self, task: &Task) -> bool {
        match task {
            Task::Stop => return false,
            Task::Sleep(_) => return true,
            Task::Wake => {}
            Task::Sync => self.work_once(),
        }
        self.call_wakers();
        true
    }

    /// Syncs, and begins a new segment when this one is full. A rotation that failed is not
    /// tried again at once: the old segment does for a while.
    fn work_once(&self) {
        let sync = self.sync.lock();
        let synced = match self.options.fsync {
            Fsync::Always => self
                .zero_ahead()
                .and_then(|()| self.flush())
                .and_then(|()| self.sync_locked(&sync)),
            Fsync::EverySec => self.sync_locked(&sync),
            Fsync::Never if self.values_wait() => self.sync_locked(&sync),
            Fsync::Never => Ok(()),
        };
        // A failure is kept in the state; here it only means that there is nothing to do.
        if synced.is_err() {
            return;
        }
        let full = self.active.lock().offset >= self.options.segment_bytes;
        let now = self.options.clock.tick();
        let failed = self.signal.lock().rotation_failed;
        let too_soon = failed.is_some_and(|at| now.since(at) < ROTATION_RETRY);
        if full && !too_soon {
            let rotated = self.rotate_locked(&sync, None);
            self.signal.lock().rotation_failed = rotated.is_err().then_some(now);
            if let Err(error) = rotated {
                tracing::warn!("the journal goes on in its old segment: {error}");
            }
        }
    }
}

impl Journal {
    /// Tells the time, which [`Journal::reserve`] and [`Journal::must_wait`] do not read anew for
    /// each record.
    pub fn note_time(&self, now: Tick) {
        let now_ms = self.shared.ms_at(now);
        self.shared.noted_ms.fetch_max(now_ms, Relaxed);
    }

    /// The age of the oldest write that is not synced; 0 if there is none.
    pub(super) fn oldest_age_ms(&self) -> u64 {
        match self.shared.oldest_ms.load(Acquire) {
            0 => 0,
            oldest => self.shared.noted_ms.load(Relaxed).saturating_sub(oldest),
        }
    }

    /// True while a reply may not leave, because `seq`, the newest record that it shows or (if
    /// `acknowledges`) acknowledges, is not [`Journal::synced`]. Ask again after each sync.
    pub fn must_wait(&self, seq: u64, acknowledges: bool) -> bool {
        let holds = match self.shared.options.fsync {
            Fsync::Always => true,
            Fsync::EverySec => {
                acknowledges && self.oldest_age_ms() >= self.shared.options.hold_after_ms
            }
            Fsync::Never => false,
        };
        holds && seq > self.synced()
    }

    /// Calls `waker` after each sync and when the storage fails, in the sync thread and without
    /// a lock of the journal.
    pub fn subscribe(&self, waker: Waker) {
        self.shared.wakers.lock().push(waker);
    }

    /// Calls `waker` as those of [`Journal::subscribe`], but only while values wait for
    /// [`Journal::put_away`].
    pub fn subscribe_leaving(&self, waker: Waker) {
        *self.shared.leaving.lock() = Some(waker);
    }

    /// Writes and syncs everything that is in the buffer, now.
    pub fn sync_now(&self) -> Result<(), Failed> {
        self.shared.sync_now()
    }

    /// Closes the segment and begins the next one.
    pub fn rotate(&self) -> Result<(), JournalError> {
        self.shared.rotate_locked(&self.shared.sync.lock(), None)
    }

    /// Does what the sync thread would do next, if it is due, and answers for how many
    /// milliseconds it would sleep now, if not until the next write: for simulations, in its
    /// stead. After something was done that is 0: there may be more.
    pub fn run_due(&self) -> Option<u64> {
        let task = self.shared.next_task(&mut self.shared.signal.lock());
        if let Task::Sleep(time) = task {
            return time;
        }
        self.shared.carry_out(&task).then_some(0)
    }

    /// Starts the sync thread.
    pub(super) fn spawn(shared: &Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
        let shared = Arc::clone(shared);
        std::thread::Builder::new()
            .name("journal-sync".to_owned())
            .spawn(move || shared.run())
    }

    pub(super) fn stop_thread(&self) {
        let thread = self.thread.lock().take();
        self.shared.signal.lock().stop = true;
        self.shared.wake.notify_all();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the sync thread has panicked");
        }
    }
}
