//! The disk as the journal sees it: one directory of files, behind [`Disk`] and [`DiskFile`],
//! and [`FileDisk`], the real one.
//!
//! Invariant: file names are built and parsed here only ([`Name`]), `std::fs` is used here only,
//! and as long as a [`FileDisk`] lives no other process owns its directory. The journal uses
//! this, and whoever opens one makes the `FileDisk`.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FallocateFlags};
use rustix::io::Errno;

/// At least a page of the system's memory, on any machine.
const CACHE_PAGE_BYTES: u64 = 1 << 16;

/// A directory of files. Renames, creations and removals last only after [`Disk::sync_dir`].
pub trait Disk: Send + Sync {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Creates a file that does not exist yet.
    fn create_new(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name; a file of that name goes.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the directory's entries last.
    fn sync_dir(&self) -> io::Result<()>;
    /// How many bytes more the directory's file system can take.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Which file has this name now, if one has.
    fn identity(&self, name: &str) -> io::Result<Option<Identity>>;
}

/// An open file. Contents last only after a sync.
pub trait DiskFile: Send + Sync {
    /// Which file this is, whatever its name is now.
    fn identity(&self) -> io::Result<Identity>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Fills `bytes` from `offset` on; a file that ends before is an error.
    fn read_exact_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
    /// Writes all slices one after the other at `offset`; the slices are used up.
    fn write_all_at(&self, offset: u64, slices: &mut [IoSlice<'_>]) -> io::Result<()>;
    /// Makes sure that writes in this range do not run out of space; new bytes read as zeros.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Sets the length.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Makes the contents last.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes contents and metadata last.
    fn sync_all(&self) -> io::Result<()>;
    /// Has the system forget what it keeps of this range in memory, so that what was synced is
    /// read from the medium. Advice: a system that forgets less or more is none the worse for it.
    fn drop_cached(&self, _range: Range<u64>) {}
    /// True for a file of no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }
}

/// What a file is apart from its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The file system.
    pub device: u64,
    /// The file within it.
    pub inode: u64,
}

/// The name of a file in the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// A segment of the journal: `journal-0000000001`.
    Segment(u64),
    /// A snapshot: `snapshot-0000000001`.
    Snapshot(u64),
    /// `STORE`: the log id and the highest generation.
    Store,
    /// `LOCK`: held by the owner of the directory.
    Lock,
}

const TEMPORARY: &str = ".tmp";

impl Name {
    /// The file of that name; `None` for temporaries, quarantined tails and what is not ours.
    pub fn parse(name: &str) -> Option<Self> {
        let parsed = match name {
            "STORE" => Self::Store,
            "LOCK" => Self::Lock,
            _ => {
                let (kind, digits) = name.split_once('-')?;
                let number = digits.parse().ok()?;
                match kind {
                    "journal" => Self::Segment(number),
                    "snapshot" => Self::Snapshot(number),
                    _ => return None,
                }
            }
        };
        (parsed.to_string() == name).then_some(parsed)
    }

    /// The name under which the file is made before it counts: hidden, so that an operator who
    /// moves `journal-*` and `snapshot-*` away does not take it from under its writer.
    pub fn temporary(self) -> String {
        format!(".{self}{TEMPORARY}")
    }

    /// True if `name` is the temporary of one of our files; those of 1.0.0 were not hidden.
    pub fn is_temporary(name: &str) -> bool {
        let Some(stem) = name.strip_suffix(TEMPORARY) else {
            return false;
        };
        let stem = stem.strip_prefix('.').unwrap_or(stem);
        let stem = stem.split_once(".torn-").map_or(stem, |(file, _)| file);
        Self::parse(stem).is_some()
    }

    /// True if `name` is that of a torn tail.
    pub fn is_torn(name: &str) -> bool {
        let Some((stem, seq)) = name.split_once(".torn-") else {
            return false;
        };
        Self::parse(stem).is_some() && seq.parse::<u64>().is_ok()
    }

    /// The name under which a torn tail is kept that begins before record `seq`.
    pub fn torn(self, seq: u64) -> String {
        format!("{self}.torn-{seq}")
    }

    /// The temporary of [`Self::torn`].
    pub fn torn_temporary(self, seq: u64) -> String {
        format!(".{self}.torn-{seq}{TEMPORARY}")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(number) => write!(f, "journal-{number:010}"),
            Self::Snapshot(number) => write!(f, "snapshot-{number:010}"),
            Self::Store => f.write_str("STORE"),
            Self::Lock => f.write_str("LOCK"),
        }
    }
}

/// Why a directory cannot be owned.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Another process has it.
    #[error(
        "{path} is in use by another storage_server: stop that one, or configure another data \
         directory"
    )]
    Locked {
        /// The directory.
        path: String,
    },
    /// The directory cannot be made, opened or locked.
    #[error("cannot use {path} as data directory: {source}; check its owner and permissions")]
    Io {
        /// The directory.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The directory cannot be opened or locked to be read.
    #[error("cannot read {path}: {source}; check the path and the permissions")]
    Unreadable {
        /// The directory.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A directory of the file system that is only looked at: nothing in it is made or changed. As long
/// as this lives no daemon owns the directory; several may look at it at the same time.
#[derive(Debug)]
pub struct ReadOnlyDisk {
    path: PathBuf,
    /// The locks are released when they are closed.
    _held: Vec<File>,
}

impl ReadOnlyDisk {
    /// Takes the locks of a directory that is there, shared; a `LOCK` that is missing stays so.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let failed = |source| DiskError::Unreadable {
            path: path.display().to_string(),
            source,
        };
        let mut held = vec![File::open(path).map_err(failed)?];
        match File::open(path.join(Name::Lock.to_string())) {
            Ok(lock) => held.push(lock),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        for file in &held {
            file.try_lock_shared()
                .map_err(|error| not_locked(path, error))?;
        }
        Ok(Self {
            path: path.to_owned(),
            _held: held,
        })
    }
}

impl Disk for ReadOnlyDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        list(&self.path)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        // Writing to it is refused by the system.
        Ok(Box::new(RealFile(File::open(self.path.join(name))?)))
    }

    fn create_new(&self, _: &str) -> io::Result<Box<dyn DiskFile>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn identity(&self, name: &str) -> io::Result<Option<Identity>> {
        identity(&self.path.join(name))
    }
}

fn not_locked(path: &Path, error: TryLockError) -> DiskError {
    let path = path.display().to_string();
    match error {
        TryLockError::WouldBlock => DiskError::Locked { path },
        TryLockError::Error(source) => DiskError::Io { path, source },
    }
}

/// A directory of the file system, owned by this process as long as this lives.
#[derive(Debug)]
pub struct FileDisk {
    path: PathBuf,
    directory: File,
    /// Its lock is released when it is closed; the file itself stays for ever.
    _lock: File,
}

impl FileDisk {
    /// Makes the directory if it is missing and takes its lock.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let failed = |source| DiskError::Io {
            path: path.display().to_string(),
            source,
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed)?;
        let lock = options()
            .create(true)
            .truncate(false)
            .open(path.join(Name::Lock.to_string()))
            .map_err(failed)?;
        let directory = File::open(path).map_err(failed)?;
        // The directory itself is locked, too: somebody may move the LOCK file away.
        for held in [&lock, &directory] {
            held.try_lock().map_err(|error| not_locked(path, error))?;
        }
        Ok(Self {
            path: path.to_owned(),
            directory,
            _lock: lock,
        })
    }

    fn file(&self, name: &str, options: &OpenOptions) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(options.open(self.path.join(name))?)))
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

impl Disk for FileDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        list(&self.path)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.file(name, &options())
    }

    fn create_new(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.file(name, options().create_new(true))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let system = rustix::fs::fstatvfs(&self.directory)?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    fn identity(&self, name: &str) -> io::Result<Option<Identity>> {
        identity(&self.path.join(name))
    }
}

fn list(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        // A name that is not UTF-8 is not one of ours.
        names.extend(entry?.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

fn identity(path: &Path) -> io::Result<Option<Identity>> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(identity_of(&metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn identity_of(metadata: &std::fs::Metadata) -> Identity {
    Identity {
        device: metadata.dev(),
        inode: metadata.ino(),
    }
}

/// The most slices that one system call takes.
const SLICES_MAX: usize = 1024;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn identity(&self) -> io::Result<Identity> {
        self.0.metadata().map(|metadata| identity_of(&metadata))
    }

    fn len(&self) -> io::Result<u64> {
        self.0.metadata().map(|metadata| metadata.len())
    }

    fn read_exact_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }

    fn write_all_at(&self, mut offset: u64, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            let head = slices.get(..SLICES_MAX).unwrap_or(slices);
            match rustix::io::pwritev(&self.0, head, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut slices, written);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        loop {
            return match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), offset, len) {
                Err(Errno::INTR) => continue,
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.fill_with_zeros(offset, len),
                result => Ok(result?),
            };
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn drop_cached(&self, range: Range<u64>) {
        // The system forgets whole pages only; the first one of the range is whole by now.
        let start = range.start / CACHE_PAGE_BYTES * CACHE_PAGE_BYTES;
        let len = NonZeroU64::new(range.end.saturating_sub(start));
        let _ = rustix::fs::fadvise(&self.0, start, len, Advice::DontNeed);
    }
}

impl RealFile {
    /// Takes the space on a file system without `fallocate`. Nothing before the end of the file
    /// is touched.
    fn fill_with_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset.saturating_add(len);
        let mut at = self.len()?.max(offset);
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            let zeros = ZEROS.get(..left).unwrap_or(&ZEROS);
            self.0.write_all_at(zeros, at)?;
            at += zeros.len() as u64;
        }
        Ok(())
    }
}

/// True if the error says that there is no space: it may come back.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_built_and_parsed_as_a_pair() {
        for name in [
            Name::Segment(1),
            Name::Snapshot(u64::MAX),
            Name::Store,
            Name::Lock,
        ] {
            assert_eq!(Name::parse(&name.to_string()), Some(name));
            assert_eq!(Name::parse(&name.temporary()), None);
            assert!(Name::is_temporary(&name.temporary()));
            assert_eq!(Name::parse(&name.torn(7)), None);
            assert!(!Name::is_temporary(&name.torn(7)));
            assert!(Name::is_torn(&name.torn(7)) && !Name::is_torn(&name.torn_temporary(7)));
            assert!(Name::is_temporary(&name.torn_temporary(7)));
        }
        assert_eq!(Name::Segment(1).to_string(), "journal-0000000001");
        assert!(Name::is_temporary("journal-0000000001.tmp"));
        for name in [
            "journal-1",
            "journal-00000000001",
            "journal-+000000001",
            "x.tmp",
            "journal",
        ] {
            assert_eq!(Name::parse(name), None, "{name}");
            assert!(!Name::is_temporary(name), "{name}");
        }
    }

    #[test]
    fn a_directory_has_one_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        let first = FileDisk::open(&path).unwrap();
        assert!(matches!(
            FileDisk::open(&path),
            Err(DiskError::Locked { .. })
        ));
        drop(first);
        assert!(path.join("LOCK").exists());
        FileDisk::open(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o700);
    }

    #[test]
    fn a_reader_keeps_an_owner_out_and_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let owner = FileDisk::open(directory.path()).unwrap();
        owner.create_new("a").unwrap();
        let locked = ReadOnlyDisk::open(directory.path()).map(drop);
        assert!(matches!(locked, Err(DiskError::Locked { .. })));
        drop(owner);
        let reader = ReadOnlyDisk::open(directory.path()).unwrap();
        let other = ReadOnlyDisk::open(directory.path()).unwrap();
        let refused = FileDisk::open(directory.path()).map(drop);
        assert!(matches!(refused, Err(DiskError::Locked { .. })));
        let file = reader.open("a").unwrap();
        assert!(file.write_all_at(0, &mut [IoSlice::new(b"x")]).is_err());
        assert!(file.truncate(0).is_err());
        assert!(reader.create_new("b").is_err());
        assert!(reader.rename("a", "b").is_err());
        assert!(reader.remove("a").is_err());
        assert_eq!(reader.list().unwrap(), ["LOCK", "a"]);
        drop((reader, other));
        std::fs::remove_file(directory.path().join("LOCK")).unwrap();
        ReadOnlyDisk::open(directory.path()).unwrap();
        assert!(!directory.path().join("LOCK").exists());
    }

    #[test]
    fn a_file_takes_many_slices_and_keeps_its_identity() {
        let directory = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(directory.path()).unwrap();
        let file = disk.create_new("a").unwrap();
        let bytes: Vec<u8> = (0..=255).cycle().take(3000).collect();
        let mut slices: Vec<_> = bytes.chunks(1).map(IoSlice::new).collect();
        file.write_all_at(5, &mut slices).unwrap();
        let mut back = vec![0; bytes.len()];
        file.read_exact_at(5, &mut back).unwrap();
        assert_eq!(back, bytes);
        file.allocate(3005, 1000).unwrap();
        assert_eq!(file.len().unwrap(), 4005);
        assert!(disk.create_new("a").is_err());
        disk.rename("a", "b").unwrap();
        assert_eq!(disk.identity("a").unwrap(), None);
        assert_eq!(disk.identity("b").unwrap(), Some(file.identity().unwrap()));
        assert_eq!(disk.list().unwrap(), ["LOCK", "b"]);
    }

    #[test]
    fn zeros_stand_in_for_fallocate() {
        let directory = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(directory.path()).unwrap();
        disk.create_new("a").unwrap();
        let file = RealFile(options().open(directory.path().join("a")).unwrap());
        file.write_all_at(0, &mut [IoSlice::new(b"abc")]).unwrap();
        file.fill_with_zeros(1, 100_000).unwrap();
        assert_eq!(file.len().unwrap(), 100_001);
        let mut back = [1; 5];
        file.read_exact_at(0, &mut back).unwrap();
        assert_eq!(&back, b"abc\0\0");
    }
}
