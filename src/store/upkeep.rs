//! What a shard does beside its changes: it keeps its books, drops what has expired, and says what
//! goes first when memory is full.

use super::books::Taken;
use super::shard::Shard;
use super::sizes::{Gone, Sizes};
use super::sweep::Swept;
use super::table::Table;
use crate::clock::{Expiry, Time};
use crate::key::{Key, TypedKey};
use crate::types::WhenFull;
use crate::value::{Head, Marks};

/// How many buckets are looked at for victims under one hold of the lock.
const VICTIM_STEPS: usize = 4096;

/// The most victims that are chosen at once.
pub const VICTIMS_MAX: usize = 64;

/// An entry that is to make room.
#[derive(Clone, Debug)]
pub struct Victim {
    name: VictimName,
    /// What it takes, about, in bytes.
    pub bytes: u64,
}

#[derive(Clone, Debug)]
enum VictimName {
    Typed(TypedKey),
    /// A copy: a share of the item would keep its memory.
    Named(Box<[u8]>),
}

impl Victim {
    /// Its key.
    pub fn key(&self) -> Key<'_> {
        match &self.name {
            VictimName::Typed(key) => Key::Typed(*key),
            VictimName::Named(name) => Key::Named(name),
        }
    }
}

/// Pages are those of the named keys and then of the types.
pub(super) fn page_of(at: Option<usize>) -> usize {
    at.map_or(0, |at| at + 1)
}

impl Shard {
    /// Tells the store's totals what memory the shard takes, to the byte.
    pub fn tell(&mut self) {
        self.books.tell_all();
    }

    /// An entry ends then, for a sweep to know.
    pub(super) fn expect(&mut self, expires: Expiry) {
        self.books.expect(expires);
    }

    /// Takes down what the table of a type, or of the named keys, takes now: after each change.
    #[inline]
    pub(super) fn settle(&mut self, prefix: Option<u16>) {
        match prefix {
            None => self.settle_page(0),
            Some(prefix) => {
                if let Some(at) = self.types.position(prefix) {
                    self.settle_page(page_of(Some(at)));
                }
            }
        }
    }

    #[inline]
    pub(super) fn settle_page(&mut self, page: usize) {
        let (sizes, durable) = match page.checked_sub(1) {
            None => (self.named.sizes(), self.types.named().durable),
            Some(at) => match self.tables.get(at).zip(self.types.rows().get(at)) {
                Some((table, row)) => (table.sizes(), row.keep.durable),
                None => return,
            },
        };
        let memory = sizes.bytes as u64;
        let file = if durable { sizes.file_bytes } else { 0 };
        self.books.set(page, Taken { memory, file });
    }

    pub(super) fn settle_all(&mut self) {
        (0..=self.tables.len()).for_each(|page| self.settle_page(page));
    }

    /// What the shard takes in memory, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.books.sum().memory
    }

    /// The sizes of a type, or with `None` of the named keys.
    pub fn sizes(&self, prefix: Option<u16>) -> Sizes {
        let (page, sizes) = match prefix {
            None => (0, self.named.sizes()),
            Some(prefix) => {
                let at = self.types.position(prefix);
                let table = at.and_then(|at| self.tables.get(at));
                (page_of(at), table.map_or(Sizes::default(), Table::sizes))
            }
        };
        Sizes {
            gone: self.books.gone(page),
            ..sizes
        }
    }

    /// Tells the tables which of them may have to evict.
    pub(super) fn set_evicts(&mut self) {
        let evicts = |keep: crate::types::Keep| keep.when_full == WhenFull::Evict;
        for (row, table) in self.types.rows().iter().zip(&mut self.tables) {
            table.set_evicts(evicts(row.keep));
        }
        self.named.set_evicts(evicts(self.types.named()));
    }

    /// Drops the next of what has expired, a bounded number; true if there is more to look at.
    pub(super) fn sweep(&mut self, now: Time) -> bool {
        if self.sweeping == 0 {
            if self.books.soonest() > now {
                self.books.tell_soonest();
                return false;
            }
            self.books.forget_soonest();
        }
        let page = self.sweeping;
        let swept = match page.checked_sub(1) {
            None => self.named.sweep(&self.hashing, now),
            Some(at) => match self.tables.get_mut(at) {
                Some(table) => table.sweep(&self.hashing, now),
                None => Swept::default(),
            },
        };
        self.books.expect(swept.soonest);
        self.books.note_gone(page, swept.gone);
        self.settle_page(page);
        self.sweeping += usize::from(!swept.more);
        let more = self.sweeping <= self.tables.len();
        if !more {
            self.sweeping = 0;
        }
        more
    }

    /// Entries of this shard that are to make room for so many bytes: those that are least likely
    /// to be wanted again; none if none was found in the time that a lock may be held.
    pub fn victims(&mut self, now: Time, bytes: u64) -> Vec<Victim> {
        let mut victims: Vec<(usize, usize, Victim)> = Vec::new();
        let (mut steps, mut found) = (VICTIM_STEPS, 0);
        while found < bytes && victims.len() < VICTIMS_MAX {
            let Some((page, bucket, victim)) = self.victim(now, &mut steps) else {
                break;
            };
            let again = |(other, at, _): &(usize, usize, Victim)| (*other, *at) == (page, bucket);
            if victims.iter().any(again) {
                break;
            }
            found += victim.bytes;
            victims.push((page, bucket, victim));
        }
        victims.into_iter().map(|(_, _, victim)| victim).collect()
    }

    /// The next victim, with its page and its bucket there. Tables take turns by their entries.
    fn victim(&mut self, now: Time, steps: &mut usize) -> Option<(usize, usize, Victim)> {
        let page = self.draw_page()?;
        let hashing = &self.hashing;
        let (gone, bucket, victim) = match page.checked_sub(1) {
            None => {
                let bucket = self.named.victim(hashing, now, steps)?;
                let blob = self.named.slots.get_bucket(bucket)?;
                let name = VictimName::Named(blob.key().into());
                let bytes = blob.heap_bytes() as u64;
                let gone = gone(blob.head(), blob.expires(), now);
                (gone, bucket, Victim { name, bytes })
            }
            Some(at) => {
                let prefix = self.types.rows().get(at)?.prefix;
                let table = self.tables.get_mut(at)?;
                let bucket = table.victim(hashing, now, steps)?;
                let (head, expires, bytes) = table.item_at(bucket)?;
                let id = head.id();
                let name = VictimName::Typed(TypedKey { prefix, id });
                let bytes = bytes as u64;
                (gone(head, expires, now), bucket, Victim { name, bytes })
            }
        };
        self.books.note_gone(page, gone);
        Some((page, bucket, victim))
    }

    /// Draws one of the tables that may evict, each as often as it has entries.
    fn draw_page(&mut self) -> Option<usize> {
        let named = (self.named.cache.is_some(), self.named.sizes().entries);
        let typed = self
            .tables
            .iter()
            .map(|table| (table.evicts(), table.sizes().entries));
        let pages = std::iter::once(named).chain(typed).enumerate();
        let pages = pages.filter(|(_, (evicts, _))| *evicts);
        let entries = |(_, (_, entries)): &(usize, (bool, usize))| *entries as u64;
        let all: u64 = pages.clone().map(|page| entries(&page)).sum();
        // Multiples of the golden ratio are spread evenly.
        self.draw = self.draw.wrapping_add(0x9e37_79b9);
        let mut drawn = (u64::from(self.draw) * all) >> 32;
        for page in pages {
            match drawn.checked_sub(entries(&page)) {
                Some(rest) => drawn = rest,
                None => return Some(page.0),
            }
        }
        None
    }
}

/// What is taken down of a victim.
fn gone(head: &Head, expires: Expiry, now: Time) -> Gone {
    const ACTIVE_S: u64 = 60;
    let unfetched = u64::from(!head.marks().has(Marks::FETCHED));
    if expires.is_past(now) {
        return Gone {
            reclaimed: 1,
            expired_unfetched: unfetched,
            ..Gone::default()
        };
    }
    let idle_s = head.idle_s(now).unwrap_or_default();
    Gone {
        evicted: 1,
        evicted_nonzero: u64::from(expires != Expiry::NEVER),
        evicted_unfetched: unfetched,
        evicted_active: u64::from(unfetched == 0 && idle_s < ACTIVE_S),
        evicted_time_s: idle_s,
        ..Gone::default()
    }
}
