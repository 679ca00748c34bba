//! Files other than data: the configuration, the pid file, the log file, the null device.
//!
//! Invariant: outside the journal's disk layer this is the only place that opens files, and each
//! error names its file. Called by `cli` and the rest of `server`.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// A configuration that is larger than this is some other file.
const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// So are users and certificates that are larger than this.
const SMALL_BYTES_MAX: u64 = 4 << 20;
/// What the permission bits of a secret's file may not have: anything for everybody, and writing
/// for its group.
const SECRET_MODE_BARRED: u32 = 0o027;
/// A pid file holds a number and a newline; what is longer is some other file.
const PID_BYTES_MAX: u64 = 32;
/// Everyone may read the pid file: scripts do.
const PID_MODE: u32 = 0o644;
/// The log names addresses of clients; a group may be given access to it.
const LOG_MODE: u32 = 0o640;

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A secret that too many may read.
    #[error(
        "{} may be read or changed by others (mode {mode:04o}): chmod 600 it, or 640 for a group \
         that is trusted", path.display()
    )]
    NotSecret {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A configuration that is not text or far too long.
    #[error("{}: {problem}", path.display())]
    NotConfig {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        problem: &'static str,
    },
    /// The pid file is that of a process that runs.
    #[error(
        "{} belongs to process {pid}, which is running: stop it, or name another \
         pid_file", path.display()
    )]
    PidInUse {
        /// The file.
        path: PathBuf,
        /// What it holds.
        pid: String,
    },
    /// The file where the pid file should be holds something else.
    #[error("{} is not a pid file: it is left as it is", path.display())]
    NotPidFile {
        /// The file.
        path: PathBuf,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io {
        action,
        path,
        source,
    }
}

/// `config.ini` in the current directory, else beside the program. A file that is there and
/// cannot be read is still the one: leaving it out silently would start with other data.
pub fn find_config() -> Option<PathBuf> {
    let here = PathBuf::from("config.ini");
    let beside = std::env::current_exe()
        .ok()
        .map(|exe| exe.with_file_name("config.ini"));
    let is_there = |path: &PathBuf| match fs::metadata(path) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    [Some(here), beside].into_iter().flatten().find(is_there)
}

/// The text of a configuration file.
pub fn read_config(path: &Path) -> Result<String, FileError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(failed("read", path))?;
    let not_config = |problem| FileError::NotConfig {
        path: path.to_owned(),
        problem,
    };
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        return Err(not_config("it is too long for a configuration"));
    }
    String::from_utf8(bytes).map_err(|_| not_config("it is not UTF-8 text"))
}

/// A file that somebody who may do that could have put there: a certificate.
pub fn read_small(path: &Path) -> Result<Vec<u8>, FileError> {
    File::open(path)
        .and_then(|file| read_at_most(file, SMALL_BYTES_MAX))
        .map_err(failed("read", path))
}

/// A file that only its owner, and at most a group, may read: passwords, keys. It is the opened
/// file that is looked at, whatever the name stands for a moment later.
pub fn read_secret(path: &Path) -> Result<Vec<u8>, FileError> {
    let file = File::open(path).map_err(failed("read", path))?;
    let found = file.metadata().map_err(failed("look at", path))?;
    let mode = found.mode() & 0o777;
    if mode & SECRET_MODE_BARRED != 0 {
        return Err(FileError::NotSecret {
            path: path.to_owned(),
            mode,
        });
    }
    read_at_most(file, SMALL_BYTES_MAX).map_err(failed("read", path))
}

fn read_at_most(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

/// A log file, open to append to.
#[derive(Debug)]
pub struct LogFile(File);

impl LogFile {
    /// Opens the file, and creates it if it is missing.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(LOG_MODE)
            .open(path)
            .map(Self)
            .map_err(failed("open the log file", path))
    }

    /// Writes a line in one call, so that lines of several threads do not mix.
    pub fn append(&self, line: &[u8]) -> io::Result<()> {
        (&self.0).write_all(line)
    }
}

/// The device that swallows what is written to it.
pub fn open_null() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/null")
}

/// The pid file of this process. It is locked as long as this lives, so that a second daemon
/// finds out even if process ids were used again.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    file: File,
}

/// The CPU time of this process in user and in system mode, in the kernel's ticks.
pub fn process_ticks() -> Option<(u64, u64)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the name in parentheses, which may hold spaces.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Removes a unix socket that a process which is gone has left behind. Nothing else is removed.
pub fn remove_stale_socket(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt as _;
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            match std::os::unix::net::UnixStream::connect(path) {
                Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(path)
                }
                Err(error) => Err(error),
            }
        }
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Sets a unix socket's permissions.
pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Removes a unix socket at the end.
pub fn remove_socket(path: &Path) {
    // It may have been removed already; the next start copes with one that is left.
    let _ = fs::remove_file(path);
}

impl PidFile {
    /// Writes this process's id, unless the file is locked by its process or is no pid file. A
    /// pid without a lock is of a process that is gone, whoever has its number now.
    pub fn create(path: &Path) -> Result<Self, FileError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PID_MODE)
            .open(path)
            .map_err(failed("open the pid file", path))?;
        let mut old = Vec::new();
        (&file)
            .take(PID_BYTES_MAX)
            .read_to_end(&mut old)
            .map_err(failed("read the pid file", path))?;
        let old = String::from_utf8_lossy(&old).trim().to_owned();
        let in_use = || FileError::PidInUse {
            path: path.to_owned(),
            pid: old.clone(),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use()),
            Err(TryLockError::Error(error)) => {
                return Err(failed("lock the pid file", path)(error));
            }
        }
        if !old.is_empty() {
            let pid = old.parse().ok().filter(|pid: &i32| *pid > 0);
            if pid.is_none() {
                return Err(FileError::NotPidFile {
                    path: path.to_owned(),
                });
            }
        }
        let text = format!("{}\n", std::process::id());
        file.set_len(0)
            .and_then(|()| io::Seek::rewind(&mut file))
            .and_then(|()| file.write_all(text.as_bytes()))
            .and_then(|()| file.set_permissions(Permissions::from_mode(PID_MODE)))
            .map_err(failed("write the pid file", path))?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    /// Removes the file, unless someone has put another in its place.
    pub fn remove(self) -> Result<(), FileError> {
        let ours = self
            .file
            .metadata()
            .map_err(failed("look at the pid file", &self.path))?;
        match fs::symlink_metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => {
                fs::remove_file(&self.path).map_err(failed("remove the pid file", &self.path))
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed("look at the pid file", &self.path)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_is_written_locked_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let first = PidFile::create(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
        assert!(matches!(
            PidFile::create(&path),
            Err(FileError::PidInUse { .. })
        ));
        first.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_pid_without_a_lock_is_of_a_process_that_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        // Number 1 always runs, and never holds this lock.
        fs::write(&path, "1\n").unwrap();
        PidFile::create(&path).unwrap().remove().unwrap();
    }

    #[test]
    fn a_file_that_is_no_pid_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        for text in ["[server]\n", "-1\n", "0\n"] {
            fs::write(&path, text).unwrap();
            assert!(
                matches!(PidFile::create(&path), Err(FileError::NotPidFile { .. })),
                "{text}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_pid_file_that_was_replaced_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let ours = PidFile::create(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        ours.remove().unwrap();
        assert!(path.exists());
    }

    #[test]
    fn a_configuration_is_text_of_a_sane_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.ini");
        fs::write(&path, b"\xff").unwrap();
        assert!(
            read_config(&path)
                .unwrap_err()
                .to_string()
                .ends_with("not UTF-8 text")
        );
        let long = File::create(&path).unwrap();
        long.set_len(CONFIG_BYTES_MAX + 1).unwrap();
        assert!(
            read_config(&path)
                .unwrap_err()
                .to_string()
                .contains("too long")
        );
    }
}
