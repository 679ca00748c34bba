//! Snapshots of the whole state while it goes on changing: the cut is a moment under all locks,
//! and then the shards are read bit by bit.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Engine;
use crate::journal::{JournalError, Moved, SnapshotPlan};
use crate::limits::SHARDS;
use crate::store::cut::Void;
use crate::store::locks::ShardSet;

/// Why a snapshot ended early.
enum Ended {
    /// The types have changed: it has to begin again.
    Void,
    Failed(JournalError),
}

impl From<Void> for Ended {
    fn from(_: Void) -> Self {
        Self::Void
    }
}

impl From<JournalError> for Ended {
    fn from(error: JournalError) -> Self {
        Self::Failed(error)
    }
}

impl Engine {
    /// Writes a snapshot: of a new generation if the files of this one were moved away. Nobody
    /// waits for it longer than for a thousand entries. One at a time.
    pub fn snapshot(&self, new_generation: bool) -> Result<(), JournalError> {
        loop {
            let ended = self.try_snapshot(new_generation);
            if ended.is_err() {
                self.store.drop_cut();
            }
            match ended {
                Ok(()) => return Ok(()),
                Err(Ended::Failed(error)) => return Err(error),
                Err(Ended::Void) => {}
            }
        }
    }

    /// The server stops: a snapshot that is being written is given up.
    pub fn give_up_snapshots(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    fn try_snapshot(&self, new_generation: bool) -> Result<(), Ended> {
        let mut writer = self.journal.begin_snapshot(SnapshotPlan {
            new_generation,
            expected_bytes: self.store.snapshot_bytes(),
            bytes_per_s: self.settings.read().snapshot_bytes_per_s,
            given_up: Arc::clone(&self.closing),
        })?;
        let (types, pending_flush, lingering) = {
            let mut shards = self.store.write_set(ShardSet::ALL);
            let lingering = self.lingering.load(Ordering::Relaxed);
            let time = self.clock.latest();
            writer.cut(time)?;
            shards.begin_cut(time);
            let types = shards.types().map(Arc::clone).unwrap_or_default();
            (types, self.store.pending_flush().time(), lingering)
        };
        writer.types(&types)?;
        writer.pending_flush(pending_flush)?;
        for shard in 0..SHARDS {
            self.store.visit_cut(shard, |key, entry| {
                let whole = self.whole(key, entry)?;
                writer.entry(key, whole.as_ref().unwrap_or(entry))?;
                Ok::<_, Ended>(())
            })?;
        }
        let mut moved = |key, cas, blob| self.moved(key, cas, blob);
        let moved: Option<&mut Moved<'_>> = self.values_leave().then_some(&mut moved);
        writer.finish(moved)?;
        self.lingering.fetch_sub(lingering, Ordering::Relaxed);
        Ok(())
    }
}
