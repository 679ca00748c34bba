//! `incr decr`: on a counter, on a named number, and the step of a fan-out.

use super::{Context, Holds, Outcome, Place, Refusal, Reply, View, ViewValue};
use crate::clock::Expiry;
use crate::command::change::Change;
use crate::key::{Key, TypedKey};
use crate::types::{Counting, Kind};
use crate::value::Value;
use crate::value::counter::Delta;
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
        ctx: &Context<'_>,
    ) -> Result<Outcome<'a>, Refusal> {
        if self.target.is_some() {
            return Err(Refusal::NoTarget);
        }
        match (place.holds, place.key) {
            (Holds::Kind(kind @ (Kind::Counter | Kind::Counter64)), Key::Typed(key)) => {
                self.decide_counter(key, kind, old, ctx)
            }
            (Holds::Named, key) => self.decide_named(key, old),
            (Holds::Kind(kind), key) => Err(self.no_number(key, kind)),
        }
    }

    /// Refuses what has no number, and a step that is too far for any.
    pub fn check(&self, place: Place<'_>) -> Result<(), Refusal> {
        match (place.holds, place.key) {
            (Holds::Kind(kind @ (Kind::Counter | Kind::Counter64)), Key::Typed(_)) => {
                self.step(kind).map(|_| ())
            }
            (Holds::Named, _) => Ok(()),
            (Holds::Kind(kind), key) => Err(self.no_number(key, kind)),
        }
    }

    fn no_number(&self, key: Key<'_>, kind: Kind) -> Refusal {
        let verb = self.verb();
        match key {
            Key::Typed(key) => Refusal::WrongKind { verb, key, kind },
            Key::Named(_) => Refusal::NonNumeric,
        }
    }

    fn decide_counter(
        &self,
        key: TypedKey,
        kind: Kind,
        old: Option<View<'_>>,
        ctx: &Context<'_>,
    ) -> Result<Outcome<'a>, Refusal> {
        let step = self.step(kind)?;
        let counting = ctx.counting(key.prefix, kind);
        let from = match old {
            Some(View {
                value: ViewValue::Number(number),
                ..
            }) => number,
            Some(_) => return Err(Refusal::NonNumeric),
            None => counting.initial,
        };
        let number = stepped(key, from, step, &counting)?;
        let (key, expires) = (Key::Typed(key), counting.ends(ctx.now));
        let change = if old.is_none() && expires != Expiry::NEVER {
            Change::Put {
                key,
                value: Value::Number(number),
                flags: 0,
                expires,
            }
        } else {
            Change::Number { key, number }
        };
        Ok(Outcome::with(Reply::Number(number), change))
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
            let max = kind.largest_number();
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

/// What a step makes of a counter's number.
fn stepped(key: TypedKey, from: u64, step: Delta, counting: &Counting) -> Result<u64, Refusal> {
    let number = step.apply_within(from, 1, counting);
    number.ok_or(Refusal::OutOfBounds {
        key,
        min: counting.min,
        max: counting.max,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;
    use crate::types::{CounterOptions, Overflow, TypeDef, TypeTable};

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

    const KEY: TypedKey = TypedKey { prefix: 9, id: 1 };

    /// What `incr 9.1 amount` does to `old` where type 9 has these options.
    fn incr(
        counter: CounterOptions,
        old: Option<u64>,
        amount: i64,
    ) -> Result<Outcome<'static>, Refusal> {
        let row = TypeDef {
            counter,
            ..TypeDef::new(KEY.prefix, Kind::Counter)
        };
        let ctx = Context {
            now: Time(5000),
            types: &TypeTable::new([row]).unwrap(),
            value_bytes_max: 100,
            members_max: 100,
            memory_room: u64::MAX,
        };
        let arith = Arith {
            key: b"9.1",
            decr: false,
            delta: Delta {
                negative: amount < 0,
                amount: amount.unsigned_abs(),
            },
            target: None,
        };
        let place = Place {
            key: Key::Typed(KEY),
            holds: Holds::Kind(Kind::Counter),
        };
        let old = old.map(|number| View {
            value: ViewValue::Number(number),
            flags: 3,
            expires: Expiry::at(Time(7000)),
            cas: 1,
            head: None,
        });
        arith.decide(place, old, &ctx)
    }

    fn number(number: u64) -> Outcome<'static> {
        let key = Key::Typed(KEY);
        Outcome::with(Reply::Number(number), Change::Number { key, number })
    }

    #[test]
    fn a_missing_counter_starts_from_initial_and_that_from_min() {
        let mut options = CounterOptions {
            min: Some(10),
            ..CounterOptions::default()
        };
        assert_eq!(incr(options, None, 5), Ok(number(15)));
        options.initial = Some(20);
        assert_eq!(incr(options, None, 5), Ok(number(25)));
        assert_eq!(incr(options, Some(11), 5), Ok(number(16)));
    }

    #[test]
    fn a_ttl_counts_from_the_creation_and_no_step_extends_it() {
        let options = CounterOptions {
            ttl_s: Some(60),
            ..CounterOptions::default()
        };
        let created = Change::Put {
            key: Key::Typed(KEY),
            value: Value::Number(1),
            flags: 0,
            expires: Expiry::at(Time(65_000)),
        };
        let created = Outcome::with(Reply::Number(1), created);
        assert_eq!(incr(options, None, 1), Ok(created));
        assert_eq!(incr(options, Some(1), 1), Ok(number(2)));
    }

    #[test]
    fn a_step_out_of_the_bounds_is_refused_where_overflow_is_an_error() {
        let options = CounterOptions {
            max: Some(100),
            overflow: Some(Overflow::Error),
            ..CounterOptions::default()
        };
        let refusal = Refusal::OutOfBounds {
            key: KEY,
            min: 0,
            max: 100,
        };
        assert_eq!(incr(options, Some(99), 1), Ok(number(100)));
        assert_eq!(incr(options, Some(99), 2), Err(refusal.clone()));
        assert_eq!(incr(options, None, -1), Err(refusal.clone()));
        assert_eq!(refusal.to_string(), "9.1 would not be in 0..100");
    }
}
