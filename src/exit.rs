//! The exit codes of the process, as `sysexits.h` numbers them.
//!
//! Invariant: a code tells a service manager whether to start again. 65, 73 and 78 do not mend
//! themselves, and the systemd unit lists them in `RestartPreventExitStatus`. Used by `main`,
//! `cli` and `server`; INSTALL.md's table is rendered from here.

use std::fmt::Write as _;
use std::process::ExitCode;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It was asked to stop and everything is on disk, or there was nothing to run.
    Ok = 0,
    /// The command line makes no sense.
    Usage = 64,
    /// The data files are damaged: nothing was changed.
    Damaged = 65,
    /// An address cannot be listened on.
    Unavailable = 69,
    /// A fault of the program.
    Internal = 70,
    /// Another daemon holds the data directory or the pid file.
    Locked = 73,
    /// A file could not be read, written or synced.
    Io = 74,
    /// The configuration is wrong: nothing was started.
    Config = 78,
}

impl Exit {
    /// Every code, ascending.
    pub const ALL: [Self; 8] = [
        Self::Ok,
        Self::Usage,
        Self::Damaged,
        Self::Unavailable,
        Self::Internal,
        Self::Locked,
        Self::Io,
        Self::Config,
    ];

    /// The number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// What it means to the operator.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "stopped as asked, everything is on disk",
            Self::Usage => "the command line is wrong; see `--help`",
            Self::Damaged => "data files are damaged; nothing was changed, see the log",
            Self::Unavailable => "an address in `listen` is in use or not of this machine",
            Self::Internal => "a fault of the program; please report it",
            Self::Locked => "another daemon uses the data directory or the pid file",
            Self::Io => "a file could not be read, written or synced",
            Self::Config => "the configuration is wrong; nothing was started",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The table of exit codes for INSTALL.md.
pub fn render_markdown() -> String {
    let mut out = "| Code | Meaning |\n|---|---|\n".to_owned();
    for exit in Exit::ALL {
        let _ = writeln!(out, "| {} | {} |", exit.code(), exit.meaning());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ascend() {
        assert!(Exit::ALL.is_sorted_by(|one, next| one.code() < next.code()));
    }
}
