//! An open file of a simulated disk.
//!
//! Invariant: every call is counted, watched and may fail before it has an effect. The simulated
//! disk alone makes these.

use std::io::{self, IoSlice};
use std::ops::Range;

use parking_lot::MutexGuard;

use super::fault::{Call, Fault};
use super::image::{Edit, Random};
use super::{SimDisk, State};
use crate::journal::disk::{DiskFile, Identity};

#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) inode: u64,
}

impl SimFile {
    /// The disk's state, after a watcher has seen the call.
    fn watched(&self, call: Call) -> MutexGuard<'_, State> {
        let state = self.disk.0.lock();
        if state.watcher.is_none() {
            return state;
        }
        let name = state.name(self.inode);
        drop(state);
        self.disk.watched(call, &name)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.syncs += 1;
        let called = state.checked_call(Call::Sync);
        let edits = state.content(self.inode)?.edits.len();
        drop(state);
        let mut state = self.watched(Call::Sync);
        let mut random = Random(state.calls);
        let content = state.content(self.inode)?;
        match called {
            Ok(()) => content.sync(edits),
            Err(_) => content.fail_sync(edits, &mut random),
        }
        called
    }
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl DiskFile for SimFile {
    fn identity(&self) -> io::Result<Identity> {
        Ok(Identity {
            device: 0,
            inode: self.inode,
        })
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.watched(Call::Len);
        state.checked_call(Call::Len)?;
        Ok(state.content(self.inode)?.live.len() as u64)
    }

    fn read_exact_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut state = self.watched(Call::Read);
        state.checked_call(Call::Read)?;
        let from = place(offset);
        let live = &state.content(self.inode)?.live;
        let found = live.get(from..from.saturating_add(bytes.len()));
        bytes.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, offset: u64, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        let mut bytes: Vec<u8> = slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        let mut state = self.watched(Call::Write);
        let fault = state.call(Call::Write);
        match fault {
            None => state.check_space(self.inode, place(offset) + bytes.len())?,
            Some(Fault::Short) => {
                let quarters = usize::try_from(state.calls % 4).unwrap_or(0);
                bytes.truncate(bytes.len() * quarters / 4);
            }
            Some(fault) => return Err(fault.error(Call::Write)),
        }
        let edit = Edit::Write(place(offset), bytes);
        state.content(self.inode)?.edit(edit);
        fault.map_or(Ok(()), |fault| Err(fault.error(Call::Write)))
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.watched(Call::Allocate);
        state.checked_call(Call::Allocate)?;
        let end = place(offset.saturating_add(len));
        state.check_space(self.inode, end)?;
        let content = state.content(self.inode)?;
        if content.live.len() < end {
            content.edit(Edit::Length(end));
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.watched(Call::Truncate);
        state.checked_call(Call::Truncate)?;
        state.content(self.inode)?.edit(Edit::Length(place(len)));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn drop_cached(&self, _range: Range<u64>) {
        if let Ok(content) = self.disk.0.lock().content(self.inode) {
            content.drop_cached();
        }
    }
}
