//! COUNTER and COUNTER64: unsigned numbers, their arithmetic and their cas unique.

use crate::clock::Expiry;
use crate::key::decimal;
use crate::types::Kind;

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
        number.wrapping_add(self.amount) & largest(kind)
    }
}

/// The largest number that a kind holds: that of a COUNTER, or 64 bits.
pub fn largest(kind: Kind) -> u64 {
    match kind {
        Kind::Counter => u64::from(u32::MAX),
        Kind::Counter64 | Kind::Index | Kind::Data => u64::MAX,
    }
}

/// Reads the body of a `set`: decimal digits in range, nothing else.
pub fn parse(body: &[u8], kind: Kind) -> Option<u64> {
    decimal(body).filter(|number| *number <= largest(kind))
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
