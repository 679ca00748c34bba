//! The header of an item, of DATA, INDEX or a named key, in 20 bytes. With the 4 bytes of a
//! `block` it makes 24, so that an item of 32 bytes and what the C library's allocator
//! adds take 64.
//!
//! | bytes | field | who changes it |
//! |---|---|---|
//! | 8 | the cas unique | a change, under the shard's write lock |
//! | 4 | the id of a typed key, 0 of a named one | nobody |
//! | 4 | the flags | a change |
//! | 1 | the marks, see [`Marks`] | anybody who sees the item |
//! | 3 | the time of the last access in seconds modulo 2^24 - 1, from 1; 0 if not noted | anybody |
//!
//! An expiry takes another 8 bytes where there is one, and so does the length of a named key; the
//! two share them.
//!
//! Marks and the time of access are one atomic number, so that a retrieval can note itself under a
//! read lock. It is relaxed, because it stands on its own.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::clock::{Expiry, Time};

/// The header of an item.
#[derive(Debug)]
pub struct Head {
    /// Two halves, so that the header is aligned to 4 bytes.
    cas: [u32; 2],
    id: u32,
    flags: u32,
    /// The marks in the lowest byte, the time of access above.
    noted: AtomicU32,
}

/// A set of marks that an item can bear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks(u8);

impl Marks {
    /// No mark.
    pub const NONE: Self = Self(0);
    /// The bytes of the value are in a data file, and the item has their place.
    pub(super) const AWAY: Self = Self(1);
    /// A client has fetched the item since it was stored.
    pub const FETCHED: Self = Self(1 << 1);
    /// The item is stale: one client is asked to store it anew.
    pub const STALE: Self = Self(1 << 2);
    /// A client has been asked to store the item anew.
    pub const WON: Self = Self(1 << 3);
    /// The lower of two bits that say how often the item was used lately.
    pub const USED: Self = Self(1 << 4);
    /// The upper of these bits.
    pub const USED_OFTEN: Self = Self(1 << 5);
    /// The key was sent as base64, and is shown so.
    pub const BINARY: Self = Self(1 << 7);

    /// The marks that only changes make, which the journal has, and their bits there.
    const KEPT: [(Self, u8); 3] = [(Self::STALE, 1), (Self::WON, 2), (Self::BINARY, 4)];

    /// Those of the marks that only changes make.
    #[must_use]
    pub const fn kept(self) -> Self {
        Self(self.0 & (Self::STALE.0 | Self::WON.0 | Self::BINARY.0))
    }

    /// The marks that only changes make, as the journal has them.
    pub fn bits(self) -> u8 {
        let bits = Self::KEPT.iter().filter(|(mark, _)| self.has(*mark));
        bits.fold(0, |all, (_, bit)| all | bit)
    }

    /// Marks of the journal; `None` if there is one that this release does not know.
    pub fn from_bits(bits: u8) -> Option<Self> {
        let marks = Self::KEPT.iter().filter(|(_, bit)| bits & bit != 0);
        let marks = marks.fold(Self::NONE, |all, (mark, _)| all.and(*mark));
        (marks.bits() == bits).then_some(marks)
    }

    /// These marks but for those.
    #[must_use]
    pub const fn without(self, fewer: Self) -> Self {
        Self(self.0 & !fewer.0)
    }

    /// The item came not long ago and nobody has shown that it is wanted.
    pub const PROBATION: Self = Self(1 << 6);

    /// Those of the lowest byte.
    fn lowest(bits: u32) -> Self {
        let [lowest, ..] = bits.to_le_bytes();
        Self(lowest)
    }

    /// These marks and those.
    #[must_use]
    pub const fn and(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// True if all of `marks` are among these.
    pub const fn has(self, marks: Self) -> bool {
        self.0 & marks.0 == marks.0
    }
}

/// What a change sets in a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The client's flags.
    pub flags: u32,
    /// When the item ends.
    pub expires: Expiry,
    /// The cas unique.
    pub cas: u64,
}

/// Times of access are counted modulo this: half a year and more.
const ACCESS_CYCLE_S: u64 = (1 << 24) - 1;

impl Head {
    /// The header of a value on its own, before it is an item.
    pub(super) fn new(marks: Marks) -> Self {
        Self {
            cas: [0; 2],
            id: 0,
            flags: 0,
            noted: AtomicU32::new(marks.0.into()),
        }
    }

    /// The header of an item with this id.
    pub fn of(id: u32) -> Self {
        let mut head = Self::new(Marks::NONE);
        head.set_id(id);
        head
    }

    pub(super) fn set_id(&mut self, id: u32) {
        self.id = id;
    }

    /// Sets flags and cas unique; the expiry is kept elsewhere.
    pub fn set_attributes(&mut self, attributes: Attributes) {
        self.flags = attributes.flags;
        self.set_cas(attributes.cas);
    }

    /// This header in front of another form of the same value: its bytes, or where they are.
    pub(super) fn reformed(&self, is_away: bool) -> Self {
        let head = self.clone();
        if is_away {
            head.mark(Marks::AWAY);
        } else {
            head.unmark(Marks::AWAY);
        }
        head
    }

    /// This header for a new value: of its marks only those stay that say how often it was used.
    #[must_use]
    pub fn anew(&self) -> Self {
        let mut head = self.clone();
        *head.noted.get_mut() &= !0xff | u32::from(Marks::USED.and(Marks::USED_OFTEN).0);
        head
    }

    /// The id of a typed key; 0 of a named one.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The client's flags.
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// The cas unique.
    pub fn cas(&self) -> u64 {
        let [low, high] = self.cas;
        u64::from(low) | u64::from(high) << 32
    }

    /// Sets the cas unique.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves of the number"
    )]
    pub fn set_cas(&mut self, cas: u64) {
        self.cas = [cas as u32, (cas >> 32) as u32];
    }

    /// The marks.
    pub fn marks(&self) -> Marks {
        Marks::lowest(self.noted.load(Relaxed))
    }

    /// Sets marks; gives those that there were.
    pub fn mark(&self, marks: Marks) -> Marks {
        let before = self.marks();
        if before.has(marks) {
            // Nothing is written, so that cores which read one item do not fight for its line.
            return before;
        }
        Marks::lowest(self.noted.fetch_or(marks.0.into(), Relaxed))
    }

    /// Takes marks away; gives those that there were.
    pub fn unmark(&self, marks: Marks) -> Marks {
        Marks::lowest(self.noted.fetch_and(!u32::from(marks.0), Relaxed))
    }

    /// Sets those marks that only changes make, all of them. Alone of the marks these must not
    /// be seen by a snapshot that is older than the change.
    pub fn set_kept(&mut self, marks: Marks) {
        let noted = self.noted.get_mut();
        *noted = *noted & !u32::from(Marks(u8::MAX).kept().0) | u32::from(marks.kept().0);
    }

    /// How often the item was used lately, up to 3.
    pub fn uses(&self) -> u8 {
        self.marks().0 / Marks::USED.0 % 4
    }

    /// Notes a use.
    pub fn note_use(&self) {
        self.set_uses(|uses| (uses < 3).then(|| uses + 1));
    }

    /// Forgets one use.
    pub fn forget_use(&self) {
        self.set_uses(|uses| uses.checked_sub(1));
    }

    fn set_uses(&self, step: impl Fn(u32) -> Option<u32>) {
        let one = u32::from(Marks::USED.0);
        // Nothing is written once there is no step to take.
        let _ = self.noted.fetch_update(Relaxed, Relaxed, |noted| {
            let uses = noted / one % 4;
            Some(noted - uses * one + step(uses)? * one)
        });
    }

    /// Takes over what another item of the same key says of its use, and notes one more.
    pub fn follow(&self, old: &Self) {
        let kept = Marks::PROBATION.0 | Marks::USED.0 | Marks::USED_OFTEN.0;
        self.mark(Marks(old.marks().0 & kept));
        self.note_use();
    }

    /// For how many seconds the item was not accessed; `None` if no access was noted. Of more
    /// than half a year only what is beyond full cycles of 2^24 - 1 s is known.
    pub fn idle_s(&self, now: Time) -> Option<u64> {
        let cycle = u64::from(self.noted.load(Relaxed) >> 8).checked_sub(1)?;
        Some((now.seconds() % ACCESS_CYCLE_S + ACCESS_CYCLE_S - cycle) % ACCESS_CYCLE_S)
    }

    /// Notes an access.
    pub fn note_access(&self, now: Time) {
        // From 1 to 2^24 - 1: it fits.
        let accessed = u32::try_from(now.seconds() % ACCESS_CYCLE_S + 1).unwrap_or_default() << 8;
        if self.noted.load(Relaxed) & !0xff != accessed {
            let note = |noted| Some(noted & 0xff | accessed);
            // It is `Some`, so this succeeds.
            let _ = self.noted.fetch_update(Relaxed, Relaxed, note);
        }
    }
}

impl Clone for Head {
    fn clone(&self) -> Self {
        Self {
            cas: self.cas,
            id: self.id,
            flags: self.flags,
            noted: AtomicU32::new(self.noted.load(Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_20_bytes_and_keeps_what_it_is_given() {
        assert_eq!((size_of::<Head>(), align_of::<Head>()), (20, 4));
        let attributes = Attributes {
            flags: u32::MAX - 1,
            expires: Expiry::NEVER,
            cas: u64::MAX - 7,
        };
        let mut head = Head::of(u32::MAX);
        head.set_attributes(attributes);
        let head = head.clone();
        assert_eq!((head.id(), head.flags()), (u32::MAX, u32::MAX - 1));
        assert_eq!((head.cas(), head.marks()), (u64::MAX - 7, Marks::NONE));
    }

    #[test]
    fn marks_are_set_and_taken_away_one_by_one() {
        let head = Head::new(Marks::AWAY);
        let both = Marks::FETCHED.and(Marks::STALE);
        assert_eq!(head.mark(both), Marks::AWAY);
        assert!(head.marks().has(both) && !head.marks().has(Marks::WON));
        assert_eq!(head.mark(Marks::STALE), both.and(Marks::AWAY));
        assert_eq!(head.unmark(Marks::STALE), both.and(Marks::AWAY));
        assert_eq!(head.marks(), Marks::FETCHED.and(Marks::AWAY));
        let here = head.reformed(false);
        assert_eq!(here.marks(), Marks::FETCHED);
        assert_eq!(here.reformed(true).marks(), head.marks());
    }

    #[test]
    fn a_change_sets_the_marks_of_the_journal_and_no_others() {
        let mut head = Head::new(Marks::AWAY.and(Marks::FETCHED).and(Marks::WON));
        head.set_kept(Marks::STALE.and(Marks::USED));
        assert_eq!(
            head.marks(),
            Marks::AWAY.and(Marks::FETCHED).and(Marks::STALE)
        );
        for bits in 0..8 {
            assert_eq!(Marks::from_bits(bits).map(Marks::bits), Some(bits));
        }
        assert_eq!(Marks::from_bits(8), None);
    }

    #[test]
    fn uses_are_counted_up_to_three_and_down_to_none() {
        let head = Head::new(Marks::AWAY);
        head.mark(Marks::PROBATION);
        for uses in [1, 2, 3, 3] {
            head.note_use();
            assert_eq!(head.uses(), uses);
        }
        let next = Head::of(1);
        next.follow(&head);
        assert_eq!((next.uses(), next.marks().has(Marks::PROBATION)), (3, true));
        for uses in [2, 1, 0, 0] {
            head.forget_use();
            assert_eq!(head.uses(), uses);
        }
        assert_eq!(head.marks(), Marks::PROBATION.and(Marks::AWAY));
    }

    #[test]
    fn an_access_is_noted_to_the_second() {
        let head = Head::new(Marks::NONE);
        head.mark(Marks::WON);
        for base_s in [0, 1_700_000_000, (1 << 24) - 2, (1 << 24) - 1] {
            let at = |seconds: u64| Time((base_s + seconds) * 1000 + 999);
            assert_eq!(Head::new(Marks::NONE).idle_s(at(0)), None);
            head.note_access(at(0));
            let idle = [0, 1, 1000, (1 << 24) - 2].map(|s| head.clone().idle_s(at(s)));
            assert_eq!(idle, [Some(0), Some(1), Some(1000), Some((1 << 24) - 2)]);
            assert_eq!(head.marks(), Marks::WON);
        }
    }
}
