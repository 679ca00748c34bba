//! `incr decr`: on a counter, on a named number, and the step of a fan-out.

use super::{Context, Holds, Outcome, Place, Refusal, Reply, View, ViewValue};
use crate::command::change::Change;
use crate::key::Key;
use crate::types::Kind;
use crate::value::counter::{Delta, largest};
use crate::value::data::number_of;

/// An arithmetic command.
#[derive(Clone, Debug, PartialEq)]
pub struct Arith<'a> {
    /// The key as sent.
    pub key: &'a [u8],
    /// `decr` instead of `incr`.
    pub decr: bool,
    /// The delta as sent.
    pub delta: Delta,
    /// For a fan-out: the counter type to step, instead of the index's own.
    pub target: Option<u16>,
}

impl<'a> Arith<'a> {
    /// The rules for one number. (An INDEX is a fan-out, which has its own way.)
    pub fn decide(
        &self,
        place: Place<'a>,
        old: Option<View<'_>>,
        ctx: &Context,
    ) -> Result<Outcome<'a>, Refusal> {
        if self.target.is_some() {
            return Err(Refusal::NoTarget);
        }
        match (place.holds, place.key) {
            (Holds::Kind(kind @ (Kind::Counter | Kind::Counter64)), key) => {
                self.decide_counter(key, kind, old, ctx)
            }
            (Holds::Named, key) => self.decide_named(key, old),
            (Holds::Kind(kind @ (Kind::Data | Kind::Index)), Key::Typed(key)) => {
                Err(Refusal::WrongKind {
                    verb: self.verb(),
                    key,
                    kind,
                })
            }
            (Holds::Kind(Kind::Data | Kind::Index), Key::Named(_)) => Err(Refusal::NonNumeric),
        }
    }

    fn decide_counter(
        &self,
        key: Key<'a>,
        kind: Kind,
        old: Option<View<'_>>,
        ctx: &Context,
    ) -> Result<Outcome<'a>, Refusal> {
        let step = self.step(kind)?;
        let from = match old {
            Some(View {
                value: ViewValue::Number(number),
                ..
            }) => number,
            Some(_) => return Err(Refusal::NonNumeric),
            None => {
                ctx.may_grow()?;
                0
            }
        };
        let number = step.apply(from, kind);
        Ok(Outcome::with(
            Reply::Number(number),
            Change::Number { key, number },
        ))
    }

    fn decide_named(&self, key: Key<'a>, old: Option<View<'_>>) -> Result<Outcome<'a>, Refusal> {
        if self.delta.negative {
            return Err(Refusal::BadDelta);
        }
        let Some(View {
            value: ViewValue::Data(blob),
            ..
        }) = old
        else {
            return Ok(Outcome::keep(Reply::NotFound));
        };
        let bytes = blob
            .bytes()
            .ok_or(Refusal::Internal("a named value is not in memory"))?;
        let from = number_of(bytes).ok_or(Refusal::NonNumeric)?;
        let step = if self.decr {
            self.delta.reversed()
        } else {
            self.delta
        };
        let number = step.apply(from, Kind::Counter64);
        Ok(Outcome::with(
            Reply::Number(number),
            Change::Number { key, number },
        ))
    }

    /// The step of a counter of `kind`. libmemcached sends -1 as 4294967295, so in `incr` of a
    /// COUNTER a delta of 2^31..2^32-1 means delta - 2^32.
    pub fn step(&self, kind: Kind) -> Result<Delta, Refusal> {
        let mut delta = self.delta;
        if kind == Kind::Counter {
            let max = largest(kind);
            if delta.amount > max {
                return Err(Refusal::DeltaOutOfRange);
            }
            if !self.decr && !delta.negative && delta.amount > max / 2 {
                delta = Delta {
                    negative: true,
                    amount: max - delta.amount + 1,
                };
            }
        }
        Ok(if self.decr { delta.reversed() } else { delta })
    }

    fn verb(&self) -> &'static str {
        if self.decr { "decr" } else { "incr" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(decr: bool, negative: bool, amount: u64, kind: Kind) -> Result<(bool, u64), Refusal> {
        let arith = Arith {
            key: b"",
            decr,
            delta: Delta { negative, amount },
            target: None,
        };
        arith.step(kind).map(|delta| (delta.negative, delta.amount))
    }

    #[test]
    fn an_unsigned_minus_one_is_folded_in_incr_of_a_counter_only() {
        let (half, max) = (1 << 31, u64::from(u32::MAX));
        assert_eq!(step(false, false, max, Kind::Counter), Ok((true, 1)));
        assert_eq!(step(false, false, half, Kind::Counter), Ok((true, half)));
        assert_eq!(
            step(false, false, half - 1, Kind::Counter),
            Ok((false, half - 1))
        );
        assert_eq!(step(false, true, max, Kind::Counter), Ok((true, max)));
        assert_eq!(step(true, false, max, Kind::Counter), Ok((true, max)));
        assert_eq!(step(true, true, max, Kind::Counter), Ok((false, max)));
        assert_eq!(step(false, false, max, Kind::Counter64), Ok((false, max)));
    }

    #[test]
    fn a_delta_beyond_the_counter_is_refused() {
        for (decr, negative) in [(false, false), (false, true), (true, false), (true, true)] {
            assert_eq!(
                step(decr, negative, 1 << 32, Kind::Counter),
                Err(Refusal::DeltaOutOfRange)
            );
        }
        assert_eq!(
            step(false, false, u64::MAX, Kind::Counter64),
            Ok((false, u64::MAX))
        );
    }
}
