//! The header of an item, of DATA, INDEX or a named key: all that is known of it beside its key
//! and its value, in 28 bytes. With the 4 bytes of a `block` it makes 32, and an item of
//! 32 bytes is an allocation of 64.
//!
//! | bytes | field | who changes it |
//! |---|---|---|
//! | 8 | `cas`, the cas unique | a change, under the shard's write lock |
//! | 4 | `id` of a typed key, 0 of a named one | nobody |
//! | 4 | `flags` | a change |
//! | 6 | `expires`, in ms since the epoch; 0 is never | a change |
//! | 1 | the length of the named key in front of the value; 0 of a typed one | nobody |
//! | 1 | `marks`, see [`Marks`] | anybody who sees the item |
//! | 4 | `accessed`, in seconds since the epoch | anybody who sees the item |
//!
//! Marks and the time of access are atomic, so that a retrieval can note itself under a read
//! lock; they are relaxed, because each stands on its own.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};

use crate::clock::{Expiry, Time};

/// The header of an item.
#[derive(Debug)]
pub struct Head {
    /// Two halves, so that the header is aligned to 4 bytes.
    cas: [u32; 2],
    id: u32,
    flags: u32,
    expires_low: u32,
    expires_high: u16,
    pub(super) key_len: u8,
    marks: AtomicU8,
    accessed_s: AtomicU32,
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

impl Head {
    /// The header of a value on its own, before it is an item.
    pub(super) fn new(key_len: u8, marks: Marks) -> Self {
        Self {
            cas: [0; 2],
            id: 0,
            flags: 0,
            expires_low: 0,
            expires_high: 0,
            key_len,
            marks: AtomicU8::new(marks.0),
            accessed_s: AtomicU32::new(0),
        }
    }

    /// The header of an item with this id.
    pub fn of(id: u32) -> Self {
        let mut head = Self::new(0, Marks::NONE);
        head.id = id;
        head
    }

    /// This header in front of another form of the same value, of whose layout `form` speaks.
    pub(super) fn reformed(&self, form: &Self) -> Self {
        let layout = form.marks().0 & Marks::AWAY.0;
        let others = self.marks().0 & !Marks::AWAY.0;
        Self {
            key_len: form.key_len,
            marks: AtomicU8::new(others | layout),
            ..self.clone()
        }
    }

    /// This header for a new value: of its marks only those stay that say how often it was used.
    #[must_use]
    pub fn anew(&self) -> Self {
        let mut head = self.clone();
        *head.marks.get_mut() &= Marks::USED.and(Marks::USED_OFTEN).0;
        head
    }

    /// The id of a typed key; 0 of a named one.
    pub fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn set_id(&mut self, id: u32) {
        self.id = id;
    }

    /// Flags, expiry and cas unique.
    pub fn attributes(&self) -> Attributes {
        Attributes {
            flags: self.flags,
            expires: self.expires(),
            cas: self.cas(),
        }
    }

    /// Sets flags, expiry and cas unique.
    pub fn set_attributes(&mut self, attributes: Attributes) {
        self.flags = attributes.flags;
        self.set_cas(attributes.cas);
        self.set_expires(attributes.expires);
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

    /// When the item ends.
    pub fn expires(&self) -> Expiry {
        match u64::from(self.expires_low) | u64::from(self.expires_high) << 32 {
            0 => Expiry::NEVER,
            ms => Expiry::at(Time(ms)),
        }
    }

    /// Sets when the item ends.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the parts of a number that has 48 bits: `Expiry::LATEST`"
    )]
    pub fn set_expires(&mut self, expires: Expiry) {
        let ms = expires.time().map_or(0, |time| time.0);
        (self.expires_low, self.expires_high) = (ms as u32, (ms >> 32) as u16);
    }

    /// The marks.
    pub fn marks(&self) -> Marks {
        Marks(self.marks.load(Relaxed))
    }

    /// Sets marks; gives those that there were.
    pub fn mark(&self, marks: Marks) -> Marks {
        let before = self.marks();
        if before.has(marks) {
            // Nothing is written, so that cores which read one item do not fight for its line.
            return before;
        }
        Marks(self.marks.fetch_or(marks.0, Relaxed))
    }

    /// Takes marks away; gives those that there were.
    pub fn unmark(&self, marks: Marks) -> Marks {
        Marks(self.marks.fetch_and(!marks.0, Relaxed))
    }

    /// Sets those marks that only changes make, all of them. Alone of the marks these must not
    /// be seen by a snapshot that is older than the change.
    pub fn set_kept(&mut self, marks: Marks) {
        let others = self.marks.get_mut();
        *others = *others & !Marks::kept(Marks(u8::MAX)).0 | marks.kept().0;
    }

    /// How often the item was used lately, up to 3.
    pub fn uses(&self) -> u8 {
        self.marks.load(Relaxed) / Marks::USED.0 % 4
    }

    /// Notes a use.
    pub fn note_use(&self) {
        self.set_uses(|uses| (uses < 3).then(|| uses + 1));
    }

    /// Forgets one use.
    pub fn forget_use(&self) {
        self.set_uses(|uses| uses.checked_sub(1));
    }

    fn set_uses(&self, step: impl Fn(u8) -> Option<u8>) {
        // Nothing is written once there is no step to take.
        let _ = self.marks.fetch_update(Relaxed, Relaxed, |marks| {
            let uses = marks / Marks::USED.0 % 4;
            let next = step(uses)?;
            Some(marks - uses * Marks::USED.0 + next * Marks::USED.0)
        });
    }

    /// Takes over what another item of the same key says of its use, and notes one more.
    pub fn follow(&self, old: &Self) {
        let kept = Marks::PROBATION.0 | Marks::USED.0 | Marks::USED_OFTEN.0;
        self.mark(Marks(old.marks().0 & kept));
        self.note_use();
    }

    /// When the item was last accessed, in seconds since the epoch; 0 if that was not noted.
    pub fn accessed_s(&self) -> u32 {
        self.accessed_s.load(Relaxed)
    }

    /// Notes an access.
    pub fn note_access(&self, now: Time) {
        let now_s = u32::try_from(now.seconds()).unwrap_or(u32::MAX);
        if self.accessed_s() != now_s {
            self.accessed_s.store(now_s, Relaxed);
        }
    }
}

impl Clone for Head {
    fn clone(&self) -> Self {
        Self {
            cas: self.cas,
            id: self.id,
            flags: self.flags,
            expires_low: self.expires_low,
            expires_high: self.expires_high,
            key_len: self.key_len,
            marks: AtomicU8::new(self.marks.load(Relaxed)),
            accessed_s: AtomicU32::new(self.accessed_s.load(Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_28_bytes_and_keeps_what_it_is_given() {
        assert_eq!((size_of::<Head>(), align_of::<Head>()), (28, 4));
        let mut head = Head::of(u32::MAX);
        for expires in [Expiry::NEVER, Expiry::LATEST, Expiry::at(Time(1))] {
            let attributes = Attributes {
                flags: u32::MAX,
                expires,
                cas: u64::MAX - 7,
            };
            head.set_attributes(attributes);
            assert_eq!(head.attributes(), attributes);
            assert_eq!(head.clone().attributes(), attributes);
        }
        assert_eq!(
            (head.id(), head.key_len, head.marks()),
            (u32::MAX, 0, Marks::NONE)
        );
    }

    #[test]
    fn marks_are_set_and_taken_away_one_by_one() {
        let head = Head::new(3, Marks::AWAY);
        let both = Marks::FETCHED.and(Marks::STALE);
        assert_eq!(head.mark(both), Marks::AWAY);
        assert!(head.marks().has(both) && !head.marks().has(Marks::WON));
        assert_eq!(head.mark(Marks::STALE), both.and(Marks::AWAY));
        assert_eq!(head.unmark(Marks::STALE), both.and(Marks::AWAY));
        assert_eq!(head.marks(), Marks::FETCHED.and(Marks::AWAY));
        let here = head.reformed(&Head::new(3, Marks::NONE));
        assert_eq!(here.marks(), Marks::FETCHED);
        assert_eq!(here.reformed(&head).marks(), head.marks());
    }

    #[test]
    fn a_change_sets_the_marks_of_the_journal_and_no_others() {
        let mut head = Head::new(3, Marks::AWAY.and(Marks::FETCHED).and(Marks::WON));
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
        let head = Head::new(3, Marks::AWAY);
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
        let head = Head::of(1);
        assert_eq!(head.accessed_s(), 0);
        head.note_access(Time(1_700_000_000_999));
        assert_eq!(head.accessed_s(), 1_700_000_000);
        head.note_access(Time(u64::MAX));
        assert_eq!(head.clone().accessed_s(), u32::MAX);
    }
}
