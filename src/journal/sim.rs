//! A simulated disk, for tests: it knows what would be left after a power loss.
//!
//! Every file has a content that is read and one that lasts; writes that were not synced are
//! kept one by one, and so are changes of the directory. [`SimDisk::crash`] gives the disk that
//! a power loss could leave, [`SimDisk::kill`] the one that the end of the process leaves.
//! Calls are counted, any of them can be made to fail, and a test may watch them: what it does
//! then happens at that moment, during a sync also. Invariant: the same calls and the same seed
//! give the same disk. Tests use it, and nothing else does.

mod fault;
mod file;
mod image;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rustix::io::Errno;

use self::fault::Faults;
pub use self::fault::{Call, Fault};
use self::file::SimFile;
use self::image::{Content, Random};
use super::disk::{Disk, DiskFile, Identity};

/// What happens to what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// All of it is gone.
    DropAll,
    /// All of it is there.
    KeepAll,
    /// Of writes, some sectors of 512 bytes are there; of sizes and names, some.
    Sectors,
    /// As `Sectors`, but the sectors that are not there hold noise.
    Garbage,
    /// Some writes are there, whole, and some are not, in no order: a later one may last though
    /// an earlier one does not. The same of sizes and names.
    Reorder,
    /// Contents are there, but files are as long as they were.
    OldSize,
}

impl Crash {
    /// Every way.
    pub const ALL: [Self; 6] = [
        Self::DropAll,
        Self::KeepAll,
        Self::Sectors,
        Self::Garbage,
        Self::Reorder,
        Self::OldSize,
    ];
}

/// Called at each call with what it is and the name of its file (a file without one, and the
/// directory, have none), before it has an effect and without a lock of the disk.
pub type Watcher = Arc<dyn Fn(Call, &str) + Send + Sync>;

/// A simulated disk. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.lock();
        f.debug_struct("SimDisk")
            .field("names", &state.names)
            .field("calls", &state.calls)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Default)]
struct State {
    files: BTreeMap<u64, Content>,
    next_inode: u64,
    names: BTreeMap<String, u64>,
    lasting_names: BTreeMap<String, u64>,
    name_edits: Vec<NameEdit>,
    calls: u64,
    syncs: u64,
    faults: Option<Faults>,
    capacity: Option<u64>,
    watcher: Option<Watcher>,
}

#[derive(Clone, Debug)]
enum NameEdit {
    Set(String, u64),
    Rename(String, String, u64),
    Remove(String),
}

impl NameEdit {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Set(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl State {
    /// Counts a call and says how it fails, if it does.
    fn call(&mut self, call: Call) -> Option<Fault> {
        self.calls += 1;
        self.faults.as_mut().and_then(|faults| faults.call(call))
    }

    fn checked_call(&mut self, call: Call) -> io::Result<()> {
        self.call(call)
            .map_or(Ok(()), |fault| Err(fault.error(call)))
    }

    fn name(&self, inode: u64) -> String {
        let mut names = self.names.iter();
        let name = names.find(|(_, other)| **other == inode);
        name.map(|(name, _)| name.clone()).unwrap_or_default()
    }

    fn content(&mut self, inode: u64) -> io::Result<&mut Content> {
        self.files.get_mut(&inode).ok_or_else(|| Errno::BADF.into())
    }

    fn inode(&self, name: &str) -> io::Result<u64> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| Errno::NOENT.into())
    }

    fn edit_name(&mut self, edit: NameEdit) {
        edit.apply(&mut self.names);
        self.name_edits.push(edit);
    }

    /// What all files take but this one.
    fn used_beside(&self, inode: Option<u64>) -> usize {
        self.names
            .values()
            .filter(|other| Some(**other) != inode)
            .filter_map(|other| self.files.get(other))
            .map(|content| content.live.len())
            .sum()
    }

    fn check_space(&self, inode: u64, end: usize) -> io::Result<()> {
        let used = self.used_beside(Some(inode));
        let end = self
            .files
            .get(&inode)
            .map_or(end, |file| file.live.len().max(end));
        match self.capacity {
            Some(capacity) if (used + end) as u64 > capacity => Err(Errno::NOSPC.into()),
            Some(_) | None => Ok(()),
        }
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many calls there were.
    pub fn calls(&self) -> u64 {
        self.0.lock().calls
    }

    /// How many syncs of files there were, also failed ones.
    pub fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    /// Makes the call of that number (the first is 1) fail, and all later ones if `forever`.
    pub fn fail(&self, first: u64, forever: bool, fault: Fault) {
        let mut state = self.0.lock();
        state.faults = Some(Faults {
            only: None,
            seen: state.calls,
            first,
            forever,
            fault,
        });
    }

    /// Makes the call of that kind fail that comes as number `first` from now on (the first
    /// is 1), and all later ones of its kind if `forever`.
    pub fn fail_only(&self, only: Call, first: u64, forever: bool, fault: Fault) {
        self.0.lock().faults = Some(Faults {
            only: Some(only),
            seen: 0,
            first,
            forever,
            fault,
        });
    }

    /// Has each call watched from now on, or none. A sync is watched while it runs: what is
    /// written meanwhile it does not cover.
    pub fn watch(&self, watcher: Option<Watcher>) {
        self.0.lock().watcher = watcher;
    }

    /// The disk's state, after a watcher has seen the call.
    fn watched(&self, call: Call, name: &str) -> MutexGuard<'_, State> {
        let state = self.0.lock();
        let Some(watcher) = state.watcher.clone() else {
            return state;
        };
        drop(state);
        watcher(call, name);
        self.0.lock()
    }

    /// True if calls may fail, now or later.
    pub fn may_fail(&self) -> bool {
        self.0.lock().faults.is_some()
    }

    /// No call fails any more.
    pub fn heal(&self) {
        self.0.lock().faults = None;
    }

    /// Bounds the sum of all files; `None` is no bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// A disk that a power loss now could leave.
    #[must_use]
    pub fn crash(&self, crash: Crash, seed: u64) -> Self {
        let state = self.0.lock();
        let mut random = Random(seed);
        let mut names = state.lasting_names.clone();
        match crash {
            Crash::DropAll => {}
            Crash::KeepAll | Crash::OldSize => names.clone_from(&state.names),
            Crash::Sectors | Crash::Garbage | Crash::Reorder => {
                let odds = random.odds();
                for edit in &state.name_edits {
                    if random.wins(odds) {
                        edit.apply(&mut names);
                    }
                }
            }
        }
        let files = state.files.iter().map(|(inode, content)| {
            let bytes = content.after(crash, &mut random);
            (*inode, Content::lasting(bytes))
        });
        Self(Arc::new(Mutex::new(State {
            files: files.collect(),
            next_inode: state.next_inode,
            lasting_names: names.clone(),
            names,
            ..State::default()
        })))
    }

    /// The disk as the next process finds it after the end of this one: nothing is lost, and
    /// nothing more lasts than did.
    #[must_use]
    pub fn kill(&self) -> Self {
        let mut state = self.0.lock().clone();
        state.faults = None;
        state.watcher = None;
        Self(Arc::new(Mutex::new(state)))
    }

    /// A file's content.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut state = self.0.lock();
        let inode = state.inode(name)?;
        Ok(state.content(inode)?.live.clone())
    }

    /// Puts a file there, as if by another program; it lasts.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = self.0.lock();
        state.next_inode += 1;
        let inode = state.next_inode;
        state.files.insert(inode, Content::lasting(bytes.to_vec()));
        state.names.insert(name.to_owned(), inode);
        state.lasting_names.insert(name.to_owned(), inode);
    }

    /// Flips a bit of a file where it lasts: it is read as it was as long as it is in memory. False
    /// if nothing lasts there.
    pub fn rot(&self, name: &str, offset: usize) -> bool {
        let mut state = self.0.lock();
        let content = state.inode(name).and_then(|inode| state.content(inode));
        let byte = content
            .ok()
            .and_then(|content| content.lasting.get_mut(offset));
        byte.map(|byte| *byte ^= 1).is_some()
    }

    /// Gives a file another name, as if by another program that syncs the directory.
    pub fn move_file(&self, from: &str, to: &str) {
        let mut state = self.0.lock();
        if let Some(inode) = state.names.remove(from) {
            state.names.insert(to.to_owned(), inode);
        }
        state.lasting_names = state.names.clone();
        state.name_edits.clear();
    }

    /// The names of all files.
    pub fn names(&self) -> Vec<String> {
        self.0.lock().names.keys().cloned().collect()
    }

    /// Takes a name away, as if by another program; the file stays for those that have it open.
    pub fn unlink(&self, name: &str) {
        let mut state = self.0.lock();
        state.names.remove(name);
        state.lasting_names.remove(name);
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.watched(Call::List, "");
        state.checked_call(Call::List)?;
        Ok(state.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.watched(Call::Open, name);
        state.checked_call(Call::Open)?;
        let inode = state.inode(name)?;
        Ok(Box::new(SimFile {
            disk: self.clone(),
            inode,
        }))
    }

    fn create_new(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.watched(Call::Create, name);
        state.checked_call(Call::Create)?;
        if state.names.contains_key(name) {
            return Err(Errno::EXIST.into());
        }
        state.next_inode += 1;
        let inode = state.next_inode;
        state.files.insert(inode, Content::default());
        state.edit_name(NameEdit::Set(name.to_owned(), inode));
        Ok(Box::new(SimFile {
            disk: self.clone(),
            inode,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.watched(Call::Rename, from);
        state.checked_call(Call::Rename)?;
        let inode = state.inode(from)?;
        state.edit_name(NameEdit::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.watched(Call::Remove, name);
        state.checked_call(Call::Remove)?;
        state.inode(name)?;
        state.edit_name(NameEdit::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.watched(Call::SyncDir, "");
        state.checked_call(Call::SyncDir)?;
        state.name_edits.clear();
        state.lasting_names = state.names.clone();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let mut state = self.watched(Call::FreeBytes, "");
        state.checked_call(Call::FreeBytes)?;
        let used = state.used_beside(None) as u64;
        let capacity = state.capacity.unwrap_or(u64::MAX);
        Ok(capacity.saturating_sub(used))
    }

    fn identity(&self, name: &str) -> io::Result<Option<Identity>> {
        let mut state = self.watched(Call::Identity, name);
        state.checked_call(Call::Identity)?;
        let inode = state.names.get(name);
        Ok(inode.map(|inode| Identity {
            device: 0,
            inode: *inode,
        }))
    }
}
