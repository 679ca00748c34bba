//! Refusals: why a command changed nothing. Each names the cause and, where there is one, the
//! remedy; the front-end adds its own framing.

use crate::key::{KeyError, TypedKey};
use crate::types::Kind;
use crate::value::index::MemberError;

/// Why a command was refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The key means nothing under the type table.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// A counter's body is not a number in range.
    #[error("{key} is {}: value must be {min}..{max}, got \"{got}\"", .kind.name())]
    NotANumber {
        /// The counter.
        key: TypedKey,
        /// Its kind.
        kind: Kind,
        /// The least number of its type.
        min: u64,
        /// The largest number of its type.
        max: u64,
        /// The start of the body, escaped.
        got: String,
    },
    /// An INDEX body is not a list of members.
    #[error("{key} is INDEX: {error}")]
    Member {
        /// The index.
        key: TypedKey,
        /// Where and why.
        error: MemberError,
    },
    /// The command does not apply to this kind of entry.
    #[error("{verb} does not apply to {key}, which is {}", .kind.name())]
    WrongKind {
        /// What was asked for.
        verb: &'static str,
        /// Of which entry.
        key: TypedKey,
        /// What the entry holds.
        kind: Kind,
    },
    /// A delta that no number or no named value takes.
    #[error("invalid numeric delta argument")]
    BadDelta,
    /// A delta beyond the width of a COUNTER.
    #[error("a COUNTER's delta must be -4294967295..4294967295")]
    DeltaOutOfRange,
    /// A step beyond the bounds of a type that refuses those.
    #[error("{key} would not be in {min}..{max}")]
    OutOfBounds {
        /// The counter.
        key: TypedKey,
        /// The least number of its type.
        min: u64,
        /// The largest number of its type.
        max: u64,
    },
    /// A named value that is not a number.
    #[error("cannot increment or decrement non-numeric value")]
    NonNumeric,
    /// A target on a key that is not an INDEX.
    #[error("only an INDEX takes a target type")]
    NoTarget,
    /// A target that is not a counter type.
    #[error("target {0} is not a COUNTER or COUNTER64 type")]
    TargetNotCounter(u16),
    /// A fan-out of an INDEX that is not durable over counters that are.
    #[error(
        "{index} is not durable and counters of type {target} are: a fan-out that is not \
         journalled can step only counters of a type with durable = false"
    )]
    TargetDurable {
        /// The index.
        index: TypedKey,
        /// The counter type.
        target: u16,
    },
    /// The value, or what it would become, is over `max_value`.
    #[error("object too large for cache")]
    TooLarge,
    /// The index would hold too many members.
    #[error("{key} would hold more than {max} members")]
    TooManyMembers {
        /// The index.
        key: TypedKey,
        /// The limit.
        max: usize,
    },
    /// The value is not in memory and its file does not give it.
    #[error(
        "the value of {key} cannot be read: {why}; restore it with salvage or from a backup, or \
         set it again"
    )]
    Unreadable {
        /// Its entry.
        key: TypedKey,
        /// What happened.
        why: String,
    },
    /// The memory limit is reached.
    #[error("out of memory storing object")]
    OutOfMemory,
    /// The disk is full: reads go on, writes resume once there is space.
    #[error("out of disk space")]
    DiskFull,
    /// A write or a sync failed: reads go on, writes resume after a new snapshot.
    #[error("storage failed, read-only")]
    StorageFailed,
    /// The disk has not finished a sync for too long.
    #[error("storage stalled: the disk has not answered for 5 seconds")]
    StorageStalled,
    /// The server is stopping.
    #[error("the server is stopping")]
    StorageClosed,
    /// `flush_all` is turned off.
    #[error("flush_all not allowed: allow_flush_all in [server]")]
    FlushAllOff,
    /// `term` and `shutdown` are turned off.
    #[error("term and shutdown are off: allow_term in [server]")]
    TermOff,
    /// The client may not stop the server from where it is.
    #[error("term and shutdown are for local clients: term_from in [server]")]
    TermFromAfar,
    /// A defect of the server: its own rules do not fit each other.
    #[error("internal error: {0}; please report this")]
    Internal(&'static str),
}

/// Who is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request cannot be carried out as it is.
    Client,
    /// The request is in order; the server cannot carry it out now.
    Server,
}

impl Refusal {
    /// Who is at fault.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Key(_)
            | Self::NotANumber { .. }
            | Self::Member { .. }
            | Self::WrongKind { .. }
            | Self::BadDelta
            | Self::DeltaOutOfRange
            | Self::OutOfBounds { .. }
            | Self::NonNumeric
            | Self::NoTarget
            | Self::FlushAllOff
            | Self::TermOff
            | Self::TermFromAfar
            | Self::TargetDurable { .. }
            | Self::TargetNotCounter(_) => Fault::Client,
            Self::TooLarge
            | Self::TooManyMembers { .. }
            | Self::Unreadable { .. }
            | Self::OutOfMemory
            | Self::DiskFull
            | Self::StorageFailed
            | Self::StorageStalled
            | Self::StorageClosed
            | Self::Internal(_) => Fault::Server,
        }
    }

    /// The cause without any key or value: for the log, which is no place for clients' data.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Key(_) => "a key of no type",
            Self::NotANumber { .. } => "a counter's value is not a number in range",
            Self::Member { .. } => "an index's body is not a list of members",
            Self::WrongKind { .. } => "the command does not apply to the type",
            Self::BadDelta | Self::DeltaOutOfRange => "the delta is not in range",
            Self::OutOfBounds { .. } => "a counter would leave the bounds of its type",
            Self::NonNumeric => "incr or decr of a value that is no number",
            Self::NoTarget | Self::TargetNotCounter(_) | Self::TargetDurable { .. } => {
                "a wrong target type"
            }
            Self::TooLarge | Self::TooManyMembers { .. } => "too large",
            Self::Unreadable { .. } => "a value cannot be read from its file",
            Self::OutOfMemory => "memory_limit is reached",
            Self::DiskFull => "out of disk space: writes resume when there is room",
            Self::StorageFailed => "a write or a sync failed: writes resume after a snapshot",
            Self::StorageStalled => "the disk has not answered for 5 seconds",
            Self::StorageClosed => "the server is stopping",
            Self::FlushAllOff | Self::TermOff | Self::TermFromAfar => "not allowed",
            Self::Internal(cause) => cause,
        }
    }

    /// True if the storage itself refuses writes: a `noreply` writer must then be cut off,
    /// because silence would be a lie.
    pub fn is_storage(&self) -> bool {
        matches!(
            self,
            Self::DiskFull | Self::StorageFailed | Self::StorageStalled | Self::StorageClosed
        )
    }
}
