//! How much there is of a type, in one shard or in all.

/// How much there is of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// The number of entries, some of which may have expired unnoticed.
    pub entries: usize,
    /// What they take in memory, about, in bytes.
    pub bytes: usize,
    /// What of them is not in memory.
    pub away: Away,
}

/// How much is in data files only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Away {
    /// The number of values.
    pub values: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl std::ops::AddAssign for Away {
    fn add_assign(&mut self, other: Self) {
        self.values += other.values;
        self.bytes += other.bytes;
    }
}

impl std::ops::SubAssign for Away {
    fn sub_assign(&mut self, other: Self) {
        self.values -= other.values;
        self.bytes -= other.bytes;
    }
}

impl std::ops::AddAssign for Sizes {
    fn add_assign(&mut self, other: Self) {
        self.entries += other.entries;
        self.bytes += other.bytes;
        self.away += other.away;
    }
}
