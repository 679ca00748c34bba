//! Files that are not data files: dumps, how far a load is, and what `/proc` tells.
//!
//! Invariant: a file has its name only when it is complete and synced.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A file in the making.
pub(super) struct NewFile {
    path: PathBuf,
    part: PathBuf,
    file: BufWriter<File>,
}

impl NewFile {
    /// Begins it as `PATH.part`. Only its owner may read it: it holds data.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)?;
        Ok(Self {
            path: path.to_owned(),
            part,
            file: BufWriter::with_capacity(1 << 20, file),
        })
    }

    /// Syncs it and gives it its name.
    pub(super) fn finish(self) -> io::Result<()> {
        let file = self.file.into_inner()?;
        file.sync_all()?;
        std::fs::rename(&self.part, &self.path)
    }

    /// Gives it its name without a sync: the content is of no use after a crash of the system.
    pub(super) fn finish_unsynced(self) -> io::Result<()> {
        self.file.into_inner()?;
        std::fs::rename(&self.part, &self.path)
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The bytes of a file that holds secrets; none if it is not there. One that others may read or
/// change is refused.
pub(super) fn read_secret(path: &Path) -> io::Result<Vec<u8>> {
    if !path.try_exists()? {
        return Ok(Vec::new());
    }
    crate::server::files::read_secret(path).map_err(io::Error::other)
}

/// Gives a file that holds secrets another content, as a whole and synced. A new one is for its
/// owner only; one that was there keeps its owner and its permissions.
pub(super) fn replace_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = NewFile::create(path)?;
    new.write_all(bytes)?;
    if let Ok(old) = std::fs::metadata(path) {
        let file = new.file.get_ref();
        std::os::unix::fs::fchown(file, Some(old.uid()), Some(old.gid()))?;
        file.set_permissions(old.permissions())?;
    }
    new.finish()
}

/// Opens a file, and answers its length.
pub(super) fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    Ok((file, len))
}

/// The bytes of a file; `None` if it is not there.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The names of what is in a directory.
pub(super) fn names(dir: &Path) -> io::Result<Vec<OsString>> {
    std::fs::read_dir(dir)?
        .map(|entry| Ok(entry?.file_name()))
        .collect()
}

/// Removes a file that may not be there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
