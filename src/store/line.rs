//! A few small entries in one line of the processor's cache: what a table of [`super::slots`] is
//! made of. Memory comes in such lines, so whoever looks at one entry has all of them at hand.
//!
//! Invariant: a line of a table is never in two of the processor's.

/// The bytes of a line of the cache.
const LINE_BYTES: usize = 64;

/// An entry.
#[derive(Clone, Copy)]
pub(super) struct Slot<V> {
    pub(super) id: u32,
    pub(super) value: V,
}

/// A line, whatever its values are.
pub(super) trait Line: Copy {
    /// How many entries there are in it.
    const PLACES: usize;
    type Value: Copy + Default;

    /// A line all of whose entries have this id.
    fn of(id: u32) -> Self;

    /// The first place of an entry with this id.
    fn place_of(&self, id: u32) -> Option<usize>;

    fn slot(&self, place: usize) -> Option<Slot<Self::Value>>;

    fn put(&mut self, place: usize, slot: Slot<Self::Value>);

    fn value_mut(&mut self, place: usize) -> Option<&mut Self::Value>;
}

/// A line of `N` entries.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Packed<V, const N: usize> {
    ids: [u32; N],
    values: [V; N],
}

impl<V: Copy + Default, const N: usize> Line for Packed<V, N> {
    const PLACES: usize = {
        assert!(size_of::<Self>() == LINE_BYTES && N <= 16);
        N
    };
    type Value = V;

    fn of(id: u32) -> Self {
        Self {
            ids: [id; N],
            values: [V::default(); N],
        }
    }

    /// Which place it is cannot be predicted, so none of them has a branch of its own: a bit says
    /// where the id is. It is there twice, because the compiler compares several ids at once if
    /// what comes of each is a constant that it cannot make by a shift.
    #[inline]
    fn place_of(&self, id: u32) -> Option<usize> {
        const BIT: u32 = 1 | 1 << 16;
        let ids = self.ids.iter().enumerate();
        let places = ids.fold(0, |places, (place, &at)| {
            places | if at == id { BIT << place } else { 0 }
        });
        (places != 0).then(|| places.trailing_zeros() as usize)
    }

    #[inline]
    fn slot(&self, place: usize) -> Option<Slot<V>> {
        let (&id, &value) = (self.ids.get(place)?, self.values.get(place)?);
        Some(Slot { id, value })
    }

    fn put(&mut self, place: usize, slot: Slot<V>) {
        if let Some(id) = self.ids.get_mut(place) {
            *id = slot.id;
        }
        if let Some(value) = self.values.get_mut(place) {
            *value = slot.value;
        }
    }

    #[inline]
    fn value_mut(&mut self, place: usize) -> Option<&mut V> {
        self.values.get_mut(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_knows_the_first_place_of_each_id() {
        fn check<L: Line<Value: PartialEq>>() {
            let mut line = L::of(7);
            assert_eq!(line.place_of(7), Some(0));
            for place in 0..L::PLACES {
                let slot = line.slot(place);
                assert!(slot.is_some_and(|slot| slot.id == 7 && slot.value == L::Value::default()));
                let id = u32::MAX - u32::try_from(place).unwrap();
                let value = L::Value::default();
                line.put(place, Slot { id, value });
                assert_eq!(line.place_of(id), Some(place));
                assert_eq!(
                    line.place_of(7),
                    Some(place + 1).filter(|&next| next < L::PLACES)
                );
            }
            assert!(line.slot(L::PLACES).is_none() && line.value_mut(L::PLACES).is_none());
        }
        check::<Packed<u32, 8>>();
        check::<Packed<[u32; 2], 5>>();
    }
}
