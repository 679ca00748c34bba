//! Counters against numbers of 128 bits, which do not wrap, and against a real memcached; and
//! those of types with options, alone and in weighted fan-outs.
//!
//! `STORAGE_SERVER_COUNTER_OPS` sets how many requests (200,000), `STORAGE_SERVER_SEED` repeats
//! a run.

use std::fmt::Write as _;

use crate::support::memcached::Memcached;
use crate::support::{Client, Config, Home, Random, setting, skip};

/// What a key is: how it wraps and what it takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Named,
    Counter,
    Counter64,
}

const KINDS: [(Kind, &str); 3] = [
    (Kind::Named, "n"),
    (Kind::Counter, "2."),
    (Kind::Counter64, "6."),
];
const KEYS: u64 = 8;

impl Kind {
    fn width(self) -> u128 {
        match self {
            Self::Counter => 1 << 32,
            Self::Named | Self::Counter64 => 1 << 64,
        }
    }

    /// The reply to `incr` or `decr`, and the new number; `None` keeps the old one.
    fn step(self, old: Option<u128>, up: bool, amount: u128) -> (String, Option<u128>) {
        let Some(old) = old.or((self != Self::Named).then_some(0)) else {
            return ("NOT_FOUND".to_owned(), None);
        };
        let narrow = self == Self::Counter;
        if narrow && amount >= 1 << 32 {
            return (REFUSED.to_owned(), None);
        }
        // libmemcached sends a small negative number as one just below 2^32.
        let new = if narrow && up && amount >= 1 << 31 {
            old.saturating_sub((1 << 32) - amount)
        } else if up {
            (old + amount) % self.width()
        } else {
            old.saturating_sub(amount)
        };
        (new.to_string(), Some(new))
    }
}

/// Stands for any client error.
const REFUSED: &str = "CLIENT_ERROR";

/// Numbers around those where something happens.
fn number(random: &mut Random, kind: Kind) -> u128 {
    let edges: &[u128] = &[0, 1, 1 << 31, 1 << 32, 1 << 63, 1 << 64];
    let edge = edges[random.below(edges.len() as u64) as usize];
    let number = match random.below(4) {
        0 => u128::from(random.next()),
        1 => u128::from(random.below(100)),
        2 => edge.saturating_sub(u128::from(random.below(3))),
        _ => edge + u128::from(random.below(3)),
    };
    number % (1 << if kind == Kind::Counter { 33 } else { 64 })
}

struct Model {
    numbers: [[Option<u128>; KEYS as usize]; 3],
    random: Random,
}

impl Model {
    /// Appends a request; gives the reply that must come, and whether memcached must say so, too.
    fn ask(&mut self, out: &mut String) -> (String, bool) {
        let at = self.random.below(3) as usize;
        let (kind, prefix) = KINDS[at];
        let id = self.random.below(KEYS);
        let key = format!("{prefix}{id}");
        let random = &mut self.random;
        let held = &mut self.numbers[at][id as usize];
        let reply = match random.below(20) {
            0 => {
                let value = number(random, kind) % kind.width();
                let text = value.to_string();
                write!(out, "set {key} 0 0 {}\r\n{text}\r\n", text.len()).unwrap();
                *held = Some(value);
                "STORED".to_owned()
            }
            1 => {
                write!(out, "delete {key}\r\n").unwrap();
                if held.take().is_some() {
                    "DELETED"
                } else {
                    "NOT_FOUND"
                }
                .to_owned()
            }
            // What does not fit the type changes nothing.
            2 if kind != Kind::Named => {
                let mistakes = [
                    format!("set {key} 0 0 3\r\nabc\r\n"),
                    format!("set {key} 0 0 2\r\n-1\r\n"),
                    format!("set {key} 0 0 20\r\n18446744073709551616\r\n"),
                    format!("append {key} 0 0 1\r\n1\r\n"),
                    format!("prepend {key} 0 0 1\r\n1\r\n"),
                    format!("incr {key} x\r\n"),
                    format!("incr {key} 18446744073709551616\r\n"),
                    "incr 3.1 1\r\n".to_owned(),
                ];
                out.push_str(&mistakes[random.below(mistakes.len() as u64) as usize]);
                REFUSED.to_owned()
            }
            2 => {
                write!(out, "incr {key} x\r\n").unwrap();
                REFUSED.to_owned()
            }
            way => {
                let (up, amount) = (way < 12, number(random, kind));
                let verb = if up { "incr" } else { "decr" };
                write!(out, "{verb} {key} {amount}\r\n").unwrap();
                let (reply, new) = kind.step(*held, up, amount);
                *held = new.or(*held);
                reply
            }
        };
        (reply, kind == Kind::Named)
    }
}

fn fits(reply: &str, expected: &str) -> bool {
    if expected == REFUSED {
        reply.starts_with("CLIENT_ERROR ")
    } else {
        reply == expected
    }
}

#[test]
fn counters_count_as_wide_numbers_and_as_memcached_do() {
    const BATCH: u64 = 20_000;
    let seed = Random::seed("counters");
    let ops = setting("STORAGE_SERVER_COUNTER_OPS", 200_000);
    let home = Home::new(Config::standard());
    let daemon = home.start();
    let mut client = daemon.client();
    client.set("3.1", "data").unwrap();
    let real = Memcached::program().map(|program| Memcached::start(&program));
    let mut other = real
        .as_ref()
        .map(|real| Client::connect(real.addr()).unwrap());
    if other.is_none() {
        skip("no memcached here");
    }
    let mut model = Model {
        numbers: [[None; KEYS as usize]; 3],
        random: Random::new(seed),
    };
    for first in (0..ops).step_by(BATCH as usize) {
        let (mut all, mut shared, mut expected) = (String::new(), String::new(), Vec::new());
        for _ in 0..BATCH.min(ops - first) {
            let mut request = String::new();
            let (reply, is_shared) = model.ask(&mut request);
            all.push_str(&request);
            if is_shared {
                shared.push_str(&request);
            }
            expected.push((reply, is_shared));
        }
        let replies = client.pipeline(all.as_bytes(), expected.len()).unwrap();
        for (number, (reply, (expected, _))) in replies.iter().zip(&expected).enumerate() {
            let at = first + number as u64;
            assert!(
                fits(reply, expected),
                "seed {seed}, {at}: {reply}, not {expected}"
            );
        }
        let Some(other) = &mut other else {
            continue;
        };
        let expected = expected.iter().filter(|(_, is_shared)| *is_shared);
        let expected: Vec<_> = expected.map(|(reply, _)| reply).collect();
        let replies = other.pipeline(shared.as_bytes(), expected.len()).unwrap();
        for (reply, expected) in replies.iter().zip(expected) {
            assert!(
                fits(reply, expected),
                "seed {seed}: memcached: {reply}, not {expected}"
            );
        }
    }
    // And so they are after a crash.
    daemon.kill9();
    let daemon = home.start();
    let mut client = daemon.client();
    for ((kind, prefix), numbers) in KINDS.iter().zip(&model.numbers) {
        for (id, number) in numbers.iter().enumerate() {
            let found = client.get(&format!("{prefix}{id}")).unwrap();
            // decr of a named key keeps its length, as memcached does.
            let found = found.map(|text| text.trim_end().to_owned());
            let expected = number.map(|number| number.to_string());
            assert_eq!(found, expected, "{prefix}{id} {}", kind.width());
        }
    }
    assert_eq!(client.get("3.1").unwrap().as_deref(), Some("data"));
}

/// A type with options, and how it counts.
struct Rules {
    prefix: &'static str,
    options: &'static str,
    initial: i128,
    min: i128,
    max: i128,
    overflow: &'static str,
}

const MAX64: i128 = u64::MAX as i128;

const RULES: [Rules; 4] = [
    Rules {
        prefix: "20",
        options: "kind = \"COUNTER\", initial = 7, min = 5, max = 1000",
        initial: 7,
        min: 5,
        max: 1000,
        overflow: "wrap",
    },
    Rules {
        prefix: "21",
        options: "kind = \"COUNTER64\", max = 9223372036854775808, overflow = \"saturate\"",
        initial: 0,
        min: 0,
        max: 1 << 63,
        overflow: "saturate",
    },
    Rules {
        prefix: "22",
        options: "kind = \"COUNTER64\", min = 10, initial = 1000000, overflow = \"error\"",
        initial: 1_000_000,
        min: 10,
        max: MAX64,
        overflow: "error",
    },
    Rules {
        prefix: "23",
        options: "kind = \"COUNTER64\", min = 1, ttl = 100000",
        initial: 1,
        min: 1,
        max: MAX64,
        overflow: "wrap",
    },
];

impl Rules {
    /// The number after a step; `None` if it is refused.
    fn step(&self, old: Option<i128>, delta: i128) -> Option<i128> {
        let number = old.unwrap_or(self.initial) + delta;
        match self.overflow {
            _ if (self.min..=self.max).contains(&number) => Some(number),
            "error" => None,
            "wrap" if number > self.max => {
                Some(self.min + (number - self.min) % (self.max - self.min + 1))
            }
            _ => Some(number.clamp(self.min, self.max)),
        }
    }
}

/// The attributes of the members 0.. of the weighted index `30.1`.
const WEIGHTS: [i128; 5] = [0, 1, 2, 1_000_003, 4_294_967_295];

#[test]
fn counters_with_options_count_as_their_rules_say() {
    let seed = Random::seed("counters with options");
    let mut random = Random::new(seed);
    let mut config = Config::standard().with(
        "types",
        "30",
        "{ kind = \"INDEX\", target = 20, weighted = true }",
    );
    for rules in &RULES {
        config.set("types", rules.prefix, &format!("{{ {} }}", rules.options));
    }
    let home = Home::new(config);
    let daemon = home.start();
    let mut client = daemon.client();
    let members = (0..)
        .zip(WEIGHTS)
        .map(|(id, weight)| format!("{id} {weight}"));
    let members: Vec<_> = members.collect();
    client.set("30.1", &members.join("\n")).unwrap();
    let mut numbers = [[None::<i128>; WEIGHTS.len()]; RULES.len()];
    for round in 0..setting("STORAGE_SERVER_COUNTER_OPS", 200_000) / 2_000 {
        let (mut requests, mut expected) = (String::new(), Vec::new());
        for _ in 0..1_000 {
            let at = random.below(RULES.len() as u64) as usize;
            let (rules, held) = (&RULES[at], &mut numbers[at]);
            let id = random.below(WEIGHTS.len() as u64) as usize;
            let key = format!("{}.{id}", rules.prefix);
            let most = if at == 0 { 1 << 31 } else { u64::MAX };
            let most = [20, 2_000, most][random.below(3) as usize];
            let amount = i128::from(random.below(most));
            let sign = if random.one_in(3) { -1 } else { 1 };
            let delta = sign * amount;
            let reply = match random.below(8) {
                0 => {
                    writeln!(
                        requests,
                        "set {key} 0 0 {}\r\n{amount}\r",
                        amount.to_string().len()
                    )
                    .unwrap();
                    if (rules.min..=rules.max).contains(&amount) {
                        held[id] = Some(amount);
                        "STORED".to_owned()
                    } else {
                        REFUSED.to_owned()
                    }
                }
                1 => {
                    writeln!(requests, "delete {key}\r").unwrap();
                    let found = held[id].take().is_some();
                    if found { "DELETED" } else { "NOT_FOUND" }.to_owned()
                }
                2 | 3 => {
                    writeln!(requests, "incr 30.1 {delta} {}\r", rules.prefix).unwrap();
                    let steps = held.iter().zip(WEIGHTS);
                    let after: Option<Vec<_>> = steps
                        .map(|(old, weight)| rules.step(*old, delta * weight))
                        .collect();
                    match after {
                        Some(after) => {
                            *held = std::array::from_fn(|id| Some(after[id]));
                            WEIGHTS.len().to_string()
                        }
                        None => REFUSED.to_owned(),
                    }
                }
                _ => {
                    writeln!(requests, "incr {key} {delta}\r").unwrap();
                    match rules.step(held[id], delta) {
                        Some(number) => {
                            held[id] = Some(number);
                            number.to_string()
                        }
                        None => REFUSED.to_owned(),
                    }
                }
            };
            expected.push(reply);
        }
        let replies = client
            .pipeline(requests.as_bytes(), expected.len())
            .unwrap();
        for (reply, expected) in replies.iter().zip(&expected) {
            assert!(
                fits(reply, expected),
                "seed {seed}, {round}: {reply}, not {expected}"
            );
        }
    }
    daemon.kill9();
    let daemon = home.start();
    let mut client = daemon.client();
    for (rules, numbers) in RULES.iter().zip(&numbers) {
        for (id, number) in numbers.iter().enumerate() {
            let found = client.get(&format!("{}.{id}", rules.prefix)).unwrap();
            assert_eq!(
                found,
                number.map(|number| number.to_string()),
                "{}",
                rules.prefix
            );
        }
    }
}
