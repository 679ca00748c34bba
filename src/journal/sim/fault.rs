//! Calls of a simulated disk and how they fail.
//!
//! Invariant: which call fails is decided by counting calls, so the same calls fail again. The
//! simulated disk alone uses this.

use std::io;

use rustix::io::Errno;

/// What is asked of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// The names of the directory.
    List,
    /// An existing file is opened.
    Open,
    /// A file is made.
    Create,
    /// A file gets another name.
    Rename,
    /// A file goes.
    Remove,
    /// The directory is synced.
    SyncDir,
    /// How much space is left.
    FreeBytes,
    /// Which file has a name.
    Identity,
    /// How long a file is.
    Len,
    /// A file is read.
    Read,
    /// A file is written.
    Write,
    /// Space is taken.
    Allocate,
    /// A file gets another length.
    Truncate,
    /// A file is synced.
    Sync,
}

impl Call {
    /// Every kind of call.
    pub const ALL: [Self; 14] = [
        Self::List,
        Self::Open,
        Self::Create,
        Self::Rename,
        Self::Remove,
        Self::SyncDir,
        Self::FreeBytes,
        Self::Identity,
        Self::Len,
        Self::Read,
        Self::Write,
        Self::Allocate,
        Self::Truncate,
        Self::Sync,
    ];
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// With `EIO`.
    Io,
    /// With `ENOSPC`.
    Full,
    /// With `EDQUOT`.
    Quota,
    /// With `EINTR`.
    Interrupted,
    /// A write writes some of its bytes and fails with `ENOSPC`; other calls fail with `EIO`.
    Short,
}

impl Fault {
    /// Every way.
    pub const ALL: [Self; 5] = [
        Self::Io,
        Self::Full,
        Self::Quota,
        Self::Interrupted,
        Self::Short,
    ];

    pub(super) fn error(self, call: Call) -> io::Error {
        let errno = match self {
            Self::Full => Errno::NOSPC,
            Self::Quota => Errno::DQUOT,
            Self::Interrupted => Errno::INTR,
            Self::Short if call == Call::Write => Errno::NOSPC,
            Self::Io | Self::Short => Errno::IO,
        };
        errno.into()
    }
}

/// Which calls fail, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    /// Only calls of this kind are counted and fail.
    pub(super) only: Option<Call>,
    /// How many of them there were.
    pub(super) seen: u64,
    pub(super) first: u64,
    pub(super) forever: bool,
    pub(super) fault: Fault,
}

impl Faults {
    /// Counts a call and says how it fails, if it does.
    pub(super) fn call(&mut self, call: Call) -> Option<Fault> {
        if self.only.is_some_and(|only| only != call) {
            return None;
        }
        self.seen += 1;
        let fails = self.seen == self.first || self.forever && self.seen > self.first;
        fails.then_some(self.fault)
    }
}
