//! Which of so many keys a request names: each as likely, or few of them much more than others.
//!
//! Invariant: what is drawn is below the count, and drawing neither allocates nor loops for long.

use fastrand::Rng;

/// Spreads the ranks of a Zipf distribution over the ids, so that popular keys are not
/// neighbours. It is prime, and so has no divisor in common with any count below it.
const SPREAD: u64 = 2_654_435_761;

/// The most keys that there can be.
pub(super) const KEYS_MAX: u64 = 1_000_000_000;

const _: () = assert!(KEYS_MAX < SPREAD && u64::MAX / SPREAD > KEYS_MAX);

/// How likely each id from 0 up to a count is.
#[derive(Clone, Debug)]
pub(super) struct Ids {
    count: u64,
    zipf: Option<Zipf>,
}

impl Ids {
    /// Ids below `count`; with `skew` by Zipf's law, else uniform.
    pub(super) fn new(count: u64, skew: Option<f64>) -> Self {
        Self {
            count,
            zipf: skew.map(|skew| Zipf::new(count, skew)),
        }
    }

    /// How many ids there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Draws one.
    pub(super) fn draw(&self, rng: &mut Rng) -> u64 {
        match &self.zipf {
            None => rng.u64(..self.count),
            Some(zipf) => zipf.rank(rng) * SPREAD % self.count,
        }
    }
}

/// Zipf's law over the ranks from 1: rank k is as likely as `k^-skew`. Drawn exactly, in a time
/// that does not depend on the count, by rejection-inversion (Hörmann and Derflinger, 1996).
#[derive(Clone, Debug)]
struct Zipf {
    count: f64,
    skew: f64,
    /// The area up to the middle of the first rank, whose bar begins at its own height.
    low: f64,
    /// The area up to the end of the last rank.
    high: f64,
    /// So close below a rank, what was drawn is that rank without a further look.
    certain: f64,
}

impl Zipf {
    fn new(count: u64, skew: f64) -> Self {
        let mut zipf = Self {
            count: count as f64,
            skew,
            low: 0.0,
            high: 0.0,
            certain: 0.0,
        };
        zipf.low = zipf.area(1.5) - 1.0;
        zipf.high = zipf.area(zipf.count + 0.5);
        zipf.certain = 2.0 - zipf.area_inverse(zipf.area(2.5) - zipf.height(2.0));
        zipf
    }

    fn height(&self, rank: f64) -> f64 {
        rank.powf(-self.skew)
    }

    /// The integral of [`Self::height`] from 1.
    fn area(&self, rank: f64) -> f64 {
        let rest = 1.0 - self.skew;
        if rest.abs() < 1e-9 {
            rank.ln()
        } else {
            (rank.powf(rest) - 1.0) / rest
        }
    }

    fn area_inverse(&self, area: f64) -> f64 {
        let rest = 1.0 - self.skew;
        if rest.abs() < 1e-9 {
            area.exp()
        } else {
            (area * rest + 1.0).powf(1.0 / rest)
        }
    }

    fn rank(&self, rng: &mut Rng) -> u64 {
        loop {
            let area = self.high + rng.f64() * (self.low - self.high);
            let drawn = self.area_inverse(area);
            let rank = drawn.round().clamp(1.0, self.count);
            if rank - drawn <= self.certain || area >= self.area(rank + 0.5) - self.height(rank) {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a rank is a whole number from 1 to the count"
                )]
                return rank as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: u32 = 400_000;

    /// The sum of the squared deviations over the expectations, which for a right distribution
    /// is about the number of cells.
    fn chi_squared(drawn: &[u32], chances: &[f64]) -> f64 {
        let all = f64::from(DRAWS);
        let cells = drawn.iter().zip(chances);
        cells
            .map(|(&drawn, chance)| (f64::from(drawn) - all * chance).powi(2) / (all * chance))
            .sum()
    }

    /// Six standard deviations above the mean: a right one fails in one of a thousand million
    /// seeds.
    fn bound(cells: usize) -> f64 {
        let free = cells as f64 - 1.0;
        free + 6.0 * (2.0 * free).sqrt()
    }

    #[test]
    fn uniform_ids_are_equally_likely() {
        let (ids, mut rng) = (Ids::new(1000, None), Rng::with_seed(1));
        let mut drawn = vec![0; 1000];
        for _ in 0..DRAWS {
            drawn[usize::try_from(ids.draw(&mut rng)).unwrap()] += 1;
        }
        assert!(chi_squared(&drawn, &vec![1e-3; 1000]) < bound(1000));
        assert!(chi_squared(&drawn, &zipf_chances(1000, 0.2)) > bound(1000));
    }

    fn zipf_chances(count: u32, skew: f64) -> Vec<f64> {
        let weights: Vec<f64> = (1..=count)
            .map(|rank| f64::from(rank).powf(-skew))
            .collect();
        let sum: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / sum).collect()
    }

    #[test]
    fn ranks_follow_the_law_of_zipf() {
        for skew in [0.5, 0.99, 1.0, 1.3] {
            let (zipf, mut rng) = (Zipf::new(1000, skew), Rng::with_seed(2));
            let mut drawn = vec![0; 1000];
            for _ in 0..DRAWS {
                drawn[usize::try_from(zipf.rank(&mut rng)).unwrap() - 1] += 1;
            }
            let found = chi_squared(&drawn, &zipf_chances(1000, skew));
            assert!(found < bound(1000), "skew {skew}: {found}");
            let other = chi_squared(&drawn, &zipf_chances(1000, skew + 0.1));
            assert!(other > bound(1000), "skew {skew}: {other}");
        }
    }

    #[test]
    fn every_rank_has_an_id_of_its_own() {
        for count in [1, 2, 10, 997, 100_000] {
            let mut ids: Vec<u64> = (1..=count).map(|rank| rank * SPREAD % count).collect();
            ids.sort_unstable();
            assert!(ids.into_iter().eq(0..count));
        }
    }

    #[test]
    fn one_key_and_the_most_keys_can_be_drawn() {
        let mut rng = Rng::with_seed(3);
        for skew in [None, Some(0.99), Some(1.0)] {
            assert_eq!(Ids::new(1, skew).draw(&mut rng), 0);
            let many = Ids::new(KEYS_MAX, skew);
            assert!((0..1000).all(|_| many.draw(&mut rng) < KEYS_MAX));
        }
    }
}
