//! How much there is of a type, in one shard or in all.

/// How much there is of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// The number of entries, some of which may have expired unnoticed.
    pub entries: usize,
    /// What they take in memory, about, in bytes.
    pub bytes: usize,
    /// What they take in a snapshot, about, in bytes.
    pub file_bytes: u64,
    /// What of them is not in memory.
    pub away: Away,
    /// What was there and went without being asked for.
    pub gone: Gone,
}

/// Entries that went because they had expired, or to make room; since the start or `stats reset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// How many were dropped after they had expired.
    pub reclaimed: u64,
    /// How many of them no client had fetched; of counters that is not known.
    pub expired_unfetched: u64,
    /// How many made room before they expired.
    pub evicted: u64,
    /// How many of them had an expiry.
    pub evicted_nonzero: u64,
    /// How many of them no client had fetched.
    pub evicted_unfetched: u64,
    /// How many of them had been accessed within a minute.
    pub evicted_active: u64,
    /// For how many seconds the last one of them had not been accessed.
    pub evicted_time_s: u64,
}

impl std::ops::AddAssign for Gone {
    fn add_assign(&mut self, other: Self) {
        self.reclaimed += other.reclaimed;
        self.expired_unfetched += other.expired_unfetched;
        self.evicted += other.evicted;
        self.evicted_nonzero += other.evicted_nonzero;
        self.evicted_unfetched += other.evicted_unfetched;
        self.evicted_active += other.evicted_active;
        self.evicted_time_s = self.evicted_time_s.max(other.evicted_time_s);
    }
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
        self.file_bytes += other.file_bytes;
        self.away += other.away;
        self.gone += other.gone;
    }
}
