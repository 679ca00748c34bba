//! Why rows do not make a type table: each names the type at fault, and the remedy where there
//! is one. Anyone may read these; the type table makes them.

use super::Kind;

/// Why rows do not make a type table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    /// A prefix of 0.
    #[error("type number must be 1..65535")]
    PrefixOutOfRange,
    /// One of the two built-in types was declared again.
    #[error("type {0} is built in and cannot be redefined")]
    BuiltIn(u16),
    /// One prefix twice.
    #[error("type {0} is declared twice")]
    Duplicate(u16),
    /// A `keep_in_memory` on a type whose values are in no file.
    #[error(
        "type {0} is not durable: its values are in no file to be read from, so remove \
             keep_in_memory"
    )]
    KeepWithoutFiles(u16),
    /// A counter type that is to be evicted from.
    #[error(
        "type {0} holds counters, which remember nothing of their use and cannot be evicted: \
             remove when_full, or give the counters a ttl"
    )]
    EvictedCounter(u16),
    /// A volatile INDEX whose fan-out would step durable counters.
    #[error(
        "type {prefix} is not durable, but its target {target} is: a fan-out that is not \
             journalled can step only counters of a type with durable = false"
    )]
    TargetDurable {
        /// The INDEX type.
        prefix: u16,
        /// What it names.
        target: u16,
    },
    /// An option of another kind.
    #[error("type {prefix} is {}: {option} is for {takers} only, remove it here", .kind.name())]
    Misplaced {
        /// The type.
        prefix: u16,
        /// What it holds.
        kind: Kind,
        /// The option.
        option: &'static str,
        /// The kinds that take it.
        takers: &'static str,
    },
    /// A `max` that the kind has no room for.
    #[error(
        "max {max} of type {prefix} is larger than what a {} holds, {}", .kind.name(),
        .kind.largest_number()
    )]
    MaxTooLarge {
        /// The counter type.
        prefix: u16,
        /// What it holds.
        kind: Kind,
        /// Its `max`.
        max: u64,
    },
    /// Bounds without a number between them.
    #[error("min {min} of type {prefix} is larger than its max, {max}")]
    MinAboveMax {
        /// The counter type.
        prefix: u16,
        /// Its `min`.
        min: u64,
        /// Its `max`, given or what the kind holds.
        max: u64,
    },
    /// A counter would start outside of its bounds.
    #[error("initial {initial} of type {prefix} is not in its min..max, {min}..{max}")]
    InitialOutside {
        /// The counter type.
        prefix: u16,
        /// Its `initial`.
        initial: u64,
        /// Its `min`.
        min: u64,
        /// Its `max`.
        max: u64,
    },
    /// A `target` that is not a counter type.
    #[error("target {target} of type {prefix} is not a COUNTER or COUNTER64 type")]
    TargetNotCounter {
        /// The INDEX type.
        prefix: u16,
        /// What it names.
        target: u16,
    },
}

impl TypeError {
    /// The type at fault.
    pub fn prefix(&self) -> u16 {
        match self {
            Self::PrefixOutOfRange => 0,
            Self::BuiltIn(prefix)
            | Self::Duplicate(prefix)
            | Self::Misplaced { prefix, .. }
            | Self::MaxTooLarge { prefix, .. }
            | Self::MinAboveMax { prefix, .. }
            | Self::InitialOutside { prefix, .. }
            | Self::KeepWithoutFiles(prefix)
            | Self::EvictedCounter(prefix)
            | Self::TargetDurable { prefix, .. }
            | Self::TargetNotCounter { prefix, .. } => *prefix,
        }
    }

    /// What an INDEX type names, if that is at fault.
    pub fn target(&self) -> Option<u16> {
        match self {
            Self::TargetDurable { target, .. } | Self::TargetNotCounter { target, .. } => {
                Some(*target)
            }
            _ => None,
        }
    }
}
