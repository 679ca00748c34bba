//! The operator's tools beside the daemon: what looks at data files, repairs them, moves data in
//! and out, and puts a server under load. One file a tool, or a folder; each is a subcommand of
//! the program.
//!
//! Invariant: a data directory that a tool reads is never changed, and what a tool writes counts
//! only when it is complete. A daemon and a tool never use one directory at the same time. Called
//! by `main` with what `cli` has read.

pub mod bench;
pub mod check;
mod client;
pub mod dump;
mod files;
mod lines;
pub mod load;
mod ndjson;
pub mod passwd;
mod plan;
mod progress;
pub mod salvage;
pub mod snapshot;
mod state;
mod survey;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Subcommand;

use crate::engine::OpenError;
use crate::exit::Exit;
use crate::journal::JournalError;
use crate::journal::disk::DiskError;

/// What to do instead of serving.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Tool {
    /// Verify a data directory, change nothing, and say what is there and where it is damaged
    #[command(long_about = check::PAGE)]
    Check(check::Args),
    /// Read whatever can be read of a damaged directory into a new one, or undo a `flush_all`
    #[command(long_about = salvage::PAGE)]
    Salvage(salvage::Args),
    /// Write every entry of a data directory as a line of JSON
    #[command(long_about = dump::PAGE)]
    Dump(dump::Args),
    /// Load a dump into a running server
    #[command(long_about = load::PAGE)]
    Load(load::Args),
    /// Have a running server write a snapshot now, and wait until it is complete
    #[command(long_about = snapshot::PAGE)]
    Snapshot(snapshot::Args),
    /// Put a server that speaks memcached's protocol under load, and report its speed
    #[command(long_about = bench::PAGE)]
    Bench(bench::Args),
    /// Make the line of a users file
    #[command(long_about = passwd::PAGE)]
    Passwd(passwd::Args),
}

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// A directory cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The data files do not give what was asked for.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// What was asked for is not there, or is damaged.
    #[error("{0}")]
    Damaged(String),
    /// The configuration cannot be read.
    #[error(transparent)]
    Config(#[from] crate::cli::LoadError),
    /// A file other than data cannot be used.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No server answers there, or not as one of ours.
    #[error("{0}")]
    Unavailable(String),
    /// The server could not do it.
    #[error("{0}")]
    Server(String),
    /// Nobody reads what the tool says.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

impl From<OpenError> for ToolError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Journal(error) => Self::Journal(error),
            OpenError::Types(_) | OpenError::Stopped => Self::Damaged(error.to_string()),
        }
    }
}

impl ToolError {
    /// The exit code that tells this.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Disk(DiskError::Locked { .. }) => Exit::Locked,
            Self::Disk(_)
            | Self::Output(_)
            | Self::File { .. }
            | Self::Server(_)
            | Self::Journal(JournalError::Io { .. }) => Exit::Io,
            Self::Unavailable(_) => Exit::Unavailable,
            Self::Journal(_) | Self::Damaged(_) => Exit::Damaged,
            Self::Usage(_) => Exit::Usage,
            Self::Config(_) => Exit::Config,
        }
    }
}

/// Runs a tool: what it has found goes to `out`, why it could not go on to `err`.
pub fn run(tool: &Tool, out: &mut impl Write, err: &mut impl Write) -> Exit {
    let result = match tool {
        Tool::Check(args) => check::run(args, out),
        Tool::Salvage(args) => salvage::run(args, out),
        Tool::Dump(args) => dump::run(args, out),
        Tool::Load(args) => load::run(args, out),
        Tool::Snapshot(args) => snapshot::run(args, out),
        Tool::Bench(args) => bench::run(args, out),
        Tool::Passwd(args) => passwd::run(args, out),
    };
    let ended = result.and_then(|exit| {
        out.flush()?;
        Ok(exit)
    });
    ended.unwrap_or_else(|error| {
        // Without a terminal the exit code has to do.
        let _ = writeln!(err, "{error}");
        error.exit()
    })
}
