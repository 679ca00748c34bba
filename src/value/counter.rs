//! COUNTER and COUNTER64: unsigned numbers, their arithmetic and their cas unique.

use crate::clock::Expiry;
use crate::key::decimal;
use crate::types::{Counting, Kind, Overflow};

/// A signed step of up to 64 bits of magnitude.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Subtract instead of add.
    pub negative: bool,
    /// How much.
    pub amount: u64,
}

impl Delta {
    /// The step in the other direction.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self {
            negative: !self.negative,
            ..self
        }
    }

    /// The number after this step: subtracting stops at 0, adding wraps at the width of `kind`.
    pub fn apply(self, number: u64, kind: Kind) -> u64 {
        if self.negative {
            return number.saturating_sub(self.amount);
        }
        number.wrapping_add(self.amount) & kind.largest_number()
    }

    /// The number after `weight` of these steps at once, in a type that counts by `counting`;
    /// `None` if they are refused. A number that older bounds let in counts as the nearest one
    /// within the bounds.
    pub fn apply_within(self, number: u64, weight: u32, counting: &Counting) -> Option<u64> {
        let (min, max) = (u128::from(counting.min), u128::from(counting.max));
        let from = u128::from(number).clamp(min, max);
        let amount = u128::from(self.amount) * u128::from(weight);
        let room = if self.negative {
            from - min
        } else {
            max - from
        };
        let number = match (counting.overflow, self.negative) {
            (_, true) if amount <= room => from - amount,
            (_, false) if amount <= room => from + amount,
            (Overflow::Error, _) => return None,
            (Overflow::Wrap | Overflow::Saturate, true) => min,
            (Overflow::Saturate, false) => max,
            (Overflow::Wrap, false) => min + (amount - room - 1) % (max - min + 1),
        };
        u64::try_from(number).ok()
    }
}

/// Reads the body of a `set`: decimal digits in range, nothing else.
pub fn parse(body: &[u8], kind: Kind) -> Option<u64> {
    decimal(body).filter(|number| *number <= kind.largest_number())
}

/// The cas unique of a counter: a function of value, flags and expiry, never 0. It is visible
/// to clients, so it must never change. 63 bits: libmemcached cannot send 20 digits.
///
/// The mixing steps are the finalizer of `MurmurHash3` (64 bits, Austin Appleby, public domain),
/// of which the top 63 bits are kept: two values of a counter share a cas once in 2^63.
pub fn cas(number: u64, flags: u32, expires: Expiry) -> u64 {
    let expires_ms = expires.time().map_or(0, |time| time.0);
    let plain = flags == 0 && expires_ms == 0;
    let salt = if plain {
        0
    } else {
        mix(mix(expires_ms ^ SALT) ^ u64::from(flags))
    };
    (mix(number.wrapping_add(1) ^ salt) >> 1).max(1)
}

/// Parts an expiry of 0 from no salt at all.
const SALT: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut bits: u64) -> u64 {
    bits ^= bits >> 33;
    bits = bits.wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits ^= bits >> 33;
    bits = bits.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ (bits >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;
    use proptest::prelude::*;

    #[test]
    fn adding_wraps_at_the_width_and_subtracting_stops_at_zero() {
        let plus = |amount| Delta {
            negative: false,
            amount,
        };
        let max32 = u64::from(u32::MAX);
        assert_eq!(plus(1).apply(max32, Kind::Counter), 0);
        assert_eq!(plus(max32).apply(5, Kind::Counter), 4);
        assert_eq!(plus(1).apply(max32, Kind::Counter64), max32 + 1);
        assert_eq!(plus(1).apply(u64::MAX, Kind::Counter64), 0);
        assert_eq!(plus(7).reversed().apply(5, Kind::Counter), 0);
        assert_eq!(plus(7).reversed().apply(8, Kind::Counter64), 1);
    }

    fn counting(min: u64, max: u64, overflow: Overflow) -> Counting {
        Counting {
            initial: min,
            min,
            max,
            overflow,
            ttl_s: None,
        }
    }

    #[test]
    fn at_its_bounds_a_counter_wraps_stops_or_refuses() {
        let to = |from, amount: i64, overflow| {
            let delta = Delta {
                negative: amount < 0,
                amount: amount.unsigned_abs(),
            };
            delta.apply_within(from, 1, &counting(10, 19, overflow))
        };
        for (from, amount, wrap, saturate, error) in [
            (15, 4, 19, 19, Some(19)),
            (15, 5, 10, 19, None),
            (15, 7, 12, 19, None),
            (15, 25, 10, 19, None),
            (15, -5, 10, 10, Some(10)),
            (15, -6, 10, 10, None),
            (15, 0, 15, 15, Some(15)),
            // What older bounds let in counts as the nearest number.
            (3, 0, 10, 10, Some(10)),
            (3, 2, 12, 12, Some(12)),
            (99, 0, 19, 19, Some(19)),
            (99, 1, 10, 19, None),
            (99, -1, 18, 18, Some(18)),
        ] {
            assert_eq!(
                to(from, amount, Overflow::Wrap),
                Some(wrap),
                "{from} {amount}"
            );
            assert_eq!(
                to(from, amount, Overflow::Saturate),
                Some(saturate),
                "{from} {amount}"
            );
            assert_eq!(to(from, amount, Overflow::Error), error, "{from} {amount}");
        }
    }

    #[test]
    fn many_steps_at_once_do_not_lose_a_bit() {
        let most = Delta {
            negative: false,
            amount: u64::MAX,
        };
        let all = counting(0, u64::MAX, Overflow::Wrap);
        // (2^64 - 1) * (2^32 - 1) = 1 - 2^32 modulo 2^64
        let wrapped = 1u64.wrapping_sub(1 << 32);
        assert_eq!(most.apply_within(0, u32::MAX, &all), Some(wrapped));
        assert_eq!(most.apply_within(7, 0, &all), Some(7));
        assert_eq!(most.reversed().apply_within(7, 2, &all), Some(0));
        let one = counting(5, 5, Overflow::Wrap);
        assert_eq!(most.apply_within(5, 3, &one), Some(5));
    }

    proptest! {
        #[test]
        fn steps_within_bounds_are_those_of_wide_numbers(
            bounds: (u64, u64), from: u64, negative: bool, amount: u64, weight: u32, near: bool,
        ) {
            let (min, max) = (bounds.0.min(bounds.1), bounds.0.max(bounds.1));
            let from = if near { max.saturating_sub(from % 9) } else { from }.clamp(min, max);
            let amount = if near { amount % 9 } else { amount };
            let weight = if near { weight % 4 } else { weight };
            let delta = Delta { negative, amount };
            let sum = i128::from(from) + i128::from(amount) * i128::from(weight)
                * if negative { -1 } else { 1 };
            let (low, high) = (i128::from(min), i128::from(max));
            for overflow in Overflow::ALL {
                let expected = match overflow {
                    _ if (low..=high).contains(&sum) => Some(sum),
                    Overflow::Error => None,
                    Overflow::Wrap if sum > high => {
                        Some((sum - low).rem_euclid(high - low + 1) + low)
                    }
                    Overflow::Wrap | Overflow::Saturate => Some(sum.clamp(low, high)),
                };
                let found = delta.apply_within(from, weight, &counting(min, max, overflow));
                prop_assert_eq!(found.map(i128::from), expected);
            }
        }

        #[test]
        fn without_options_the_rules_are_those_of_the_kind(
            from: u64, negative: bool, amount: u64, wide: bool,
        ) {
            let kind = if wide { Kind::Counter64 } else { Kind::Counter };
            let largest = kind.largest_number();
            let (from, amount) = (from & largest, amount & largest);
            let delta = Delta { negative, amount };
            let ruled = delta.apply_within(from, 1, &Counting::plain(kind));
            prop_assert_eq!(ruled, Some(delta.apply(from, kind)));
        }
    }

    #[test]
    fn bodies_are_decimal_and_in_range() {
        assert_eq!(
            parse(b"4294967295", Kind::Counter),
            Some(u64::from(u32::MAX))
        );
        assert_eq!(parse(b"4294967296", Kind::Counter), None);
        assert_eq!(parse(b"4294967296", Kind::Counter64), Some(1 << 32));
        for text in [
            "",
            " 1",
            "1 ",
            "-1",
            "+1",
            "0x1",
            "1.0",
            "18446744073709551616",
        ] {
            assert_eq!(parse(text.as_bytes(), Kind::Counter64), None, "{text:?}");
        }
    }

    #[test]
    fn the_cas_of_a_counter_is_fixed_for_ever() {
        let at = |ms| Expiry::at(Time(ms));
        assert_eq!(cas(0, 0, Expiry::NEVER), 6_497_390_783_113_553_302);
        assert_eq!(cas(u64::MAX, 0, Expiry::NEVER), 1);
        assert_ne!(cas(5, 1, Expiry::NEVER), cas(5, 0, Expiry::NEVER));
        assert_ne!(cas(5, 0, at(1000)), cas(5, 0, at(2000)));
        assert_ne!(cas(5, 0, at(1000)), cas(5, 0, Expiry::NEVER));
    }
}
