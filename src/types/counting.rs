//! How the numbers of a counter type count: where a missing counter starts, between which bounds
//! a counter stays, what a step beyond them does, and how long a counter lives.
//!
//! Invariant: the [`Counting`] of a row of a type table has `min <= initial <= max`, and `max`
//! fits the kind.

use super::{Kind, TypeError};
use crate::clock::{Expiry, Time};

/// What a step beyond the bounds does. The number is its stable tag on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Overflow {
    /// Above `max` it goes on from `min`; below `min` it stops there: as memcached.
    #[default]
    Wrap = 1,
    /// It stops at the bound.
    Saturate = 2,
    /// It is refused.
    Error = 3,
}

impl Overflow {
    /// Every rule, in the order of their tags.
    pub const ALL: [Self; 3] = [Self::Wrap, Self::Saturate, Self::Error];

    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wrap => "wrap",
            Self::Saturate => "saturate",
            Self::Error => "error",
        }
    }

    /// The rule of that name, exactly as written.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == name)
    }

    /// The stable tag on disk.
    pub const fn tag(self) -> u8 {
        self as u8
    }

    /// The rule of that tag.
    pub fn from_tag(tag: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.tag() == tag)
    }
}

/// The options of a counter type, as they were given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterOptions {
    /// What a missing counter starts from; `min` unless given.
    pub initial: Option<u64>,
    /// The least number; 0 unless given.
    pub min: Option<u64>,
    /// The largest number; what the kind holds unless given.
    pub max: Option<u64>,
    /// What a step beyond the bounds does.
    pub overflow: Option<Overflow>,
    /// How many seconds a counter lives that a step creates; for ever unless given.
    pub ttl_s: Option<u32>,
}

impl CounterOptions {
    /// The first option that is given, by its name in the configuration.
    pub(super) fn first_given(&self) -> Option<&'static str> {
        let given = [
            ("initial", self.initial.is_some()),
            ("min", self.min.is_some()),
            ("max", self.max.is_some()),
            ("overflow", self.overflow.is_some()),
            ("ttl", self.ttl_s.is_some()),
        ];
        let first = given.into_iter().find(|(_, given)| *given);
        first.map(|(name, _)| name)
    }

    /// The rules that these options make for a type of `kind`.
    pub(super) fn counting(&self, kind: Kind) -> Counting {
        let min = self.min.unwrap_or(0);
        Counting {
            initial: self.initial.unwrap_or(min),
            min,
            max: self.max.unwrap_or(kind.largest_number()),
            overflow: self.overflow.unwrap_or_default(),
            ttl_s: self.ttl_s,
        }
    }

    /// Why these options do not make rules for type `prefix`, which is of `kind`.
    pub(super) fn check(&self, prefix: u16, kind: Kind) -> Result<(), TypeError> {
        let Counting {
            initial, min, max, ..
        } = self.counting(kind);
        if max > kind.largest_number() {
            return Err(TypeError::MaxTooLarge { prefix, kind, max });
        }
        if min > max {
            return Err(TypeError::MinAboveMax { prefix, min, max });
        }
        if !(min..=max).contains(&initial) {
            return Err(TypeError::InitialOutside {
                prefix,
                initial,
                min,
                max,
            });
        }
        Ok(())
    }
}

/// The rules of a counter type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counting {
    /// What a missing counter starts from.
    pub initial: u64,
    /// The least number.
    pub min: u64,
    /// The largest number.
    pub max: u64,
    /// What a step beyond the bounds does.
    pub overflow: Overflow,
    /// How many seconds a counter lives that a step creates.
    pub ttl_s: Option<u32>,
}

impl Counting {
    /// The rules of a type of `kind` without options.
    pub fn plain(kind: Kind) -> Self {
        CounterOptions::default().counting(kind)
    }

    /// True for a number within the bounds.
    pub fn holds(&self, number: u64) -> bool {
        (self.min..=self.max).contains(&number)
    }

    /// When a counter ends that a step creates at `now`.
    pub fn ends(&self, now: Time) -> Expiry {
        match self.ttl_s {
            Some(seconds) => Expiry::at(now.plus_ms(u64::from(seconds) * 1000)),
            None => Expiry::NEVER,
        }
    }
}
