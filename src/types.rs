//! The type table: which prefixes exist, what each holds, and what a raw key means under it.
//!
//! Invariant: rows ascend by prefix, `1 INDEX` and `2 COUNTER` are always there, and the target
//! of every INDEX type is a counter type of the same table.

mod counting;
mod error;

use crate::key::{Key, KeyError};
pub use counting::{CounterOptions, Counting, Overflow};
pub use error::TypeError;

/// The prefix of the built-in INDEX type.
pub const INDEX_PREFIX: u16 = 1;
/// The prefix of the built-in COUNTER type, the target of an INDEX that names none.
pub const COUNTER_PREFIX: u16 = 2;

/// What the entries of a type hold. The number is the kind's stable tag on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// An unsigned 32-bit number.
    Counter = 1,
    /// An unsigned 64-bit number.
    Counter64 = 2,
    /// A set of u32 ids, each with a u32 attribute.
    Index = 3,
    /// Bytes, as memcached.
    Data = 4,
}

impl Kind {
    /// Every kind, in the order of their tags.
    pub const ALL: [Self; 4] = [Self::Counter, Self::Counter64, Self::Index, Self::Data];

    /// The name in the configuration, in `show types` and in errors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "COUNTER",
            Self::Counter64 => "COUNTER64",
            Self::Index => "INDEX",
            Self::Data => "DATA",
        }
    }

    /// The kind of that name, exactly as written.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The stable tag on disk.
    pub const fn tag(self) -> u8 {
        self as u8
    }

    /// The kind of that tag.
    pub fn from_tag(tag: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.tag() == tag)
    }

    /// True for the kinds that a fan-out can increment.
    pub const fn is_counter(self) -> bool {
        matches!(self, Self::Counter | Self::Counter64)
    }

    /// The largest number that the kind has room for.
    pub const fn largest_number(self) -> u64 {
        match self {
            Self::Counter => u32::MAX as u64,
            Self::Counter64 | Self::Index | Self::Data => u64::MAX,
        }
    }
}

/// What becomes of an entry when memory is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// It stays: what finds no room is refused.
    #[default]
    Reject,
    /// It goes if it is among those least likely to be wanted again.
    Evict,
}

impl WhenFull {
    /// Every name, as in the configuration.
    pub const NAMES: &'static [&'static str] = &["reject", "evict"];

    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Evict => "evict",
        }
    }

    /// The one of that name, exactly as written.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "reject" => Some(Self::Reject),
            "evict" => Some(Self::Evict),
            _ => None,
        }
    }
}

/// How long the entries of a type, or the named keys, are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// They are in the journal and survive a restart; otherwise they are in memory only.
    pub durable: bool,
    /// What becomes of them when memory is full.
    pub when_full: WhenFull,
}

impl Keep {
    /// For good: what a type is if it says nothing else.
    pub const ALWAYS: Self = Self {
        durable: true,
        when_full: WhenFull::Reject,
    };
}

impl Default for Keep {
    fn default() -> Self {
        Self::ALWAYS
    }
}

/// One declared type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeDef {
    /// The type's number, 1..=65535.
    pub prefix: u16,
    /// What its entries hold.
    pub kind: Kind,
    /// For an INDEX: the counter type that its fan-out increments. `None` for other kinds.
    pub target: Option<u16>,
    /// For DATA: the longest value, in bytes, that memory keeps for certain; `None` keeps all.
    pub keep_in_memory: Option<u32>,
    /// How long its entries are kept.
    pub keep: Keep,
    /// For COUNTER and COUNTER64: how the numbers count.
    pub counter: CounterOptions,
    /// For an INDEX: a fan-out steps each counter as many times as the member's attribute says.
    pub weighted: bool,
}

impl TypeDef {
    /// A type without options.
    pub const fn new(prefix: u16, kind: Kind) -> Self {
        Self {
            prefix,
            kind,
            target: None,
            keep_in_memory: None,
            keep: Keep::ALWAYS,
            counter: CounterOptions {
                initial: None,
                min: None,
                max: None,
                overflow: None,
                ttl_s: None,
            },
            weighted: false,
        }
    }

    /// How the numbers of this type count.
    pub fn counting(&self) -> Counting {
        self.counter.counting(self.kind)
    }

    /// Why an option does not go with the kind, or the options not with each other.
    fn check(&self) -> Result<(), TypeError> {
        let counter = self.counter.first_given();
        let misplaced = [
            (
                self.kind == Kind::Index,
                self.target.map(|_| "target"),
                "INDEX",
            ),
            (
                self.kind == Kind::Index,
                self.weighted.then_some("weighted"),
                "INDEX",
            ),
            (
                self.kind == Kind::Data,
                self.keep_in_memory.map(|_| "keep_in_memory"),
                "DATA",
            ),
            (self.kind.is_counter(), counter, "COUNTER and COUNTER64"),
        ];
        for (fits, option, takers) in misplaced {
            if let Some(option) = option.filter(|_| !fits) {
                let (prefix, kind) = (self.prefix, self.kind);
                return Err(TypeError::Misplaced {
                    prefix,
                    kind,
                    option,
                    takers,
                });
            }
        }
        self.counter.check(self.prefix, self.kind)
    }
}

/// The declared types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeTable {
    rows: Vec<TypeDef>,
    /// How long named keys are kept.
    named: Keep,
    /// For each prefix up to the largest declared one: its row and one, or 0.
    row_of: Vec<u16>,
}

impl Default for TypeTable {
    fn default() -> Self {
        Self::from_rows(BUILT_IN.to_vec())
    }
}

const BUILT_IN: [TypeDef; 2] = [
    TypeDef {
        target: Some(COUNTER_PREFIX),
        ..TypeDef::new(INDEX_PREFIX, Kind::Index)
    },
    TypeDef::new(COUNTER_PREFIX, Kind::Counter),
];

impl TypeTable {
    /// The built-in types and `declared` ones; an INDEX without a target gets type 2.
    pub fn new(declared: impl IntoIterator<Item = TypeDef>) -> Result<Self, TypeError> {
        let mut rows = BUILT_IN.to_vec();
        for mut row in declared {
            if row.prefix == 0 {
                return Err(TypeError::PrefixOutOfRange);
            }
            if BUILT_IN
                .iter()
                .any(|built_in| built_in.prefix == row.prefix)
            {
                return Err(TypeError::BuiltIn(row.prefix));
            }
            if rows.iter().any(|other| other.prefix == row.prefix) {
                return Err(TypeError::Duplicate(row.prefix));
            }
            row.check()?;
            if row.kind == Kind::Index {
                row.target = row.target.or(Some(COUNTER_PREFIX));
            }
            if row.kind.is_counter() && row.keep.when_full == WhenFull::Evict {
                return Err(TypeError::EvictedCounter(row.prefix));
            }
            if !row.keep.durable && row.keep_in_memory.is_some() {
                return Err(TypeError::KeepWithoutFiles(row.prefix));
            }
            rows.push(row);
        }
        let table = Self::from_rows(rows);
        for row in &table.rows {
            if let Some(target) = row.target {
                table.check_target(row, target)?;
            }
        }
        Ok(table)
    }

    fn check_target(&self, index: &TypeDef, target: u16) -> Result<(), TypeError> {
        let prefix = index.prefix;
        let counter = self.get(target).filter(|row| row.kind.is_counter());
        let counter = counter.ok_or(TypeError::TargetNotCounter { prefix, target })?;
        if counter.keep.durable && !index.keep.durable {
            return Err(TypeError::TargetDurable { prefix, target });
        }
        Ok(())
    }

    /// The same types, and how long named keys are kept.
    #[must_use]
    pub fn with_named(self, named: Keep) -> Self {
        Self { named, ..self }
    }

    /// How long named keys are kept.
    pub fn named(&self) -> Keep {
        self.named
    }

    /// How long an entry is kept.
    pub fn keep(&self, key: Key<'_>) -> Keep {
        match key {
            Key::Named(_) => self.named,
            Key::Typed(key) => self.get(key.prefix).map_or(Keep::ALWAYS, |row| row.keep),
        }
    }

    /// True if anything may be evicted.
    pub fn evicts(&self) -> bool {
        let mut keeps = self.rows.iter().map(|row| row.keep).chain([self.named]);
        keeps.any(|keep| keep.when_full == WhenFull::Evict)
    }

    /// True if the entries of that type are in the journal.
    pub fn is_durable(&self, prefix: u16) -> bool {
        self.get(prefix).is_none_or(|row| row.keep.durable)
    }

    fn from_rows(mut rows: Vec<TypeDef>) -> Self {
        rows.sort_by_key(|row| row.prefix);
        let longest = rows.last().map_or(0, |row| usize::from(row.prefix) + 1);
        let mut row_of = vec![0; longest];
        for (number, row) in (1..).zip(&rows) {
            if let Some(cell) = row_of.get_mut(usize::from(row.prefix)) {
                *cell = number;
            }
        }
        Self {
            rows,
            named: Keep::ALWAYS,
            row_of,
        }
    }

    /// The rows, ascending by prefix.
    pub fn rows(&self) -> &[TypeDef] {
        &self.rows
    }

    /// The rows that an operator declared, without the built-in ones: what [`Self::new`] takes.
    pub fn declared(&self) -> impl Iterator<Item = TypeDef> + Clone {
        self.rows
            .iter()
            .copied()
            .filter(|row| row.prefix > COUNTER_PREFIX)
    }

    /// The position of a prefix among the rows.
    pub fn position(&self, prefix: u16) -> Option<usize> {
        usize::from(*self.row_of.get(usize::from(prefix))?).checked_sub(1)
    }

    /// True if a value of so many bytes does not have to stay in memory.
    pub fn may_leave(&self, prefix: u16, bytes: usize) -> bool {
        let keep = self.get(prefix).and_then(|row| row.keep_in_memory);
        keep.is_some_and(|keep| bytes > keep as usize)
    }

    /// The type of that prefix.
    pub fn get(&self, prefix: u16) -> Option<&TypeDef> {
        self.rows.get(self.position(prefix)?)
    }
}

/// What to do with a key that is not of a declared type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRules {
    /// Named keys are served; otherwise they are refused.
    pub named_keys: bool,
    /// A typed-looking key of an undeclared prefix is a named key; otherwise it is refused.
    pub unknown_prefix_is_named: bool,
}

impl Default for KeyRules {
    fn default() -> Self {
        Self {
            named_keys: true,
            unknown_prefix_is_named: false,
        }
    }
}

impl TypeTable {
    /// What a key from the wire means under this table and `rules`.
    pub fn resolve<'a>(&self, raw: &'a [u8], rules: KeyRules) -> Result<Key<'a>, KeyError> {
        let named = |()| {
            if rules.named_keys {
                Ok(Key::Named(raw))
            } else {
                Err(KeyError::NamedKeysOff)
            }
        };
        match Key::parse(raw).and_then(|key| self.check(key)) {
            Ok(Key::Named(_)) => named(()),
            Ok(key) => Ok(key),
            Err(error) if rules.unknown_prefix_is_named && !self.declares(error) => named(()),
            Err(error) => Err(error),
        }
    }

    fn check<'a>(&self, key: Key<'a>) -> Result<Key<'a>, KeyError> {
        match key {
            Key::Typed(typed) if self.position(typed.prefix).is_none() => {
                Err(KeyError::UnknownType {
                    prefix: typed.prefix,
                })
            }
            key => Ok(key),
        }
    }

    /// True if the key that gave `error` is of a declared prefix.
    fn declares(&self, error: KeyError) -> bool {
        match error {
            KeyError::IdTooLarge { prefix } | KeyError::IdLeadingZeros { prefix } => {
                self.position(prefix).is_some()
            }
            KeyError::PrefixOutOfRange
            | KeyError::PrefixLeadingZeros
            | KeyError::UnknownType { .. }
            | KeyError::NamedKeysOff => false,
        }
    }
}
