//! What the system knows of a server's process on this machine: its CPU time and its memory.

use std::path::{Path, PathBuf};

use super::super::ToolError;
use super::super::files;

/// A process that runs on this machine.
#[derive(Debug)]
pub(super) struct Process {
    folder: PathBuf,
}

impl Process {
    /// The process of this number.
    pub(super) fn new(pid: u32) -> Self {
        Self {
            folder: PathBuf::from(format!("/proc/{pid}")),
        }
    }

    /// The CPU time of its threads, in nanoseconds.
    pub(super) fn cpu_ns(&self) -> Result<u64, ToolError> {
        let tasks = self.folder.join("task");
        let threads = files::names(&tasks).map_err(|error| unreadable(&tasks, error))?;
        let mut spent = 0_u64;
        for thread in threads {
            // A thread that ended in between is gone with its time.
            if let Some(text) = text(&tasks.join(thread).join("schedstat"))? {
                let first = text.split(' ').next().and_then(|word| word.parse().ok());
                spent = spent.saturating_add(first.unwrap_or(0_u64));
            }
        }
        Ok(spent)
    }

    /// Its resident memory, in bytes.
    pub(super) fn resident_bytes(&self) -> Result<u64, ToolError> {
        let path = self.folder.join("status");
        let text = text(&path)?.unwrap_or_default();
        let mut lines = text.lines();
        let kib = lines.find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
        match kib.and_then(|kib| kib.trim().parse::<u64>().ok()) {
            Some(kib) => Ok(kib.saturating_mul(1024)),
            None => Err(ToolError::Usage(format!(
                "{} tells no resident memory: --pid takes the number of a running process of \
                 this machine",
                path.display()
            ))),
        }
    }
}

/// A file's text; `None` if it is not there.
fn text(path: &Path) -> Result<Option<String>, ToolError> {
    let bytes = files::read(path).map_err(|error| unreadable(path, error))?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

fn unreadable(path: &Path, source: std::io::Error) -> ToolError {
    ToolError::File {
        doing: "read",
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_time() {
        let own = Process::new(std::process::id());
        assert!(own.resident_bytes().unwrap() > 1 << 20);
        let before = own.cpu_ns().unwrap();
        // It ends once the system has counted what the loop itself costs.
        while own.cpu_ns().unwrap() <= before {}
    }

    #[test]
    fn no_process_has_the_number_0() {
        let error = Process::new(0).resident_bytes().unwrap_err();
        assert!(matches!(error, ToolError::Usage(_)), "{error}");
    }
}
