//! The counters of one table as a snapshot takes them; see [`super::cut`]. Most are numbers only,
//! and a fan-out over a million keeps a million aside at once: so these take no more room than in
//! the table.

use super::counters::{Extra, Number};
use super::line::Slot;
use super::pre_images::{Kept, PreImages};
use crate::clock::{Expiry, Time};
use crate::command::{View, ViewValue};
use crate::value::counter;

/// A counter with all that it may have, as it was at the cut of a snapshot.
pub(super) struct Whole<N> {
    pub(super) counter: Slot<N>,
    flags: u32,
    expires: Expiry,
}

impl<N: Number> Whole<N> {
    pub(super) fn new(counter: Slot<N>, extra: Option<&Extra>) -> Self {
        let (flags, expires) =
            extra.map_or((0, Expiry::NEVER), |extra| (extra.flags, extra.expires));
        Self {
            counter,
            flags,
            expires,
        }
    }

    fn is_number_only(&self) -> bool {
        self.flags == 0 && self.expires == Expiry::NEVER
    }

    pub(super) fn view(&self, now: Time) -> Option<View<'static>> {
        let (number, flags, expires) = (self.counter.value.unpack(), self.flags, self.expires);
        (!expires.is_past(now)).then(|| View {
            value: ViewValue::Number(number),
            flags,
            expires,
            cas: counter::cas(number, flags, expires),
            head: None,
        })
    }
}

/// What a snapshot in the making still needs of a table.
pub(super) struct CounterCut<N> {
    pub(super) numbers: PreImages<Slot<N>>,
    /// Those that were kept and have more.
    wholes: Kept<Whole<N>>,
}

impl<N: Number> CounterCut<N> {
    pub(super) fn new(buckets: usize) -> Self {
        Self {
            numbers: PreImages::new(buckets),
            wholes: Kept::new(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.numbers.bytes() + self.wholes.bytes()
    }

    /// Keeps a counter that was owed.
    pub(super) fn keep(&mut self, whole: Option<Whole<N>>) {
        match whole {
            Some(whole) if whole.is_number_only() => self.numbers.keep(Some(whole.counter)),
            Some(whole) => self.wholes.push(whole),
            None => {}
        }
    }

    /// Hands over some of the counters that were kept; `None` once all were.
    pub(super) fn next_kept(&mut self) -> Option<Vec<Whole<N>>> {
        let whole = |counter| Whole::new(counter, None);
        let numbers = self.numbers.next_kept();
        let numbers = numbers.map(|kept| kept.into_iter().map(whole).collect());
        numbers.or_else(|| self.wholes.pop_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_takes_what_it_takes_in_its_table_and_comes_back_as_it_was() {
        let mut cut = CounterCut::<u32>::new(0);
        for id in 0..100_000 {
            cut.keep(Some(Whole::new(Slot { id, value: id }, None)));
        }
        let numbers = cut.bytes();
        assert!((800_000..900_000).contains(&numbers), "{numbers} bytes");
        let whole = |id| Whole {
            counter: Slot { id, value: id },
            flags: 1,
            expires: Expiry::NEVER,
        };
        for id in 100_000..200_000 {
            cut.keep(Some(whole(id)));
        }
        assert!(cut.bytes() >= numbers + 100_000 * size_of::<Whole<u32>>());
        let mut ids = Vec::new();
        while let Some(kept) = cut.next_kept() {
            for whole in kept {
                assert_eq!(whole.counter.value, whole.counter.id);
                assert_eq!(whole.is_number_only(), whole.counter.id < 100_000);
                ids.push(whole.counter.id);
            }
        }
        ids.sort_unstable();
        assert!(ids.into_iter().eq(0..200_000));
    }
}
