//! The same random requests to the daemon and to a real memcached, on named keys: the replies
//! must be the same, byte for byte, but for the differences that [`differences`] lists.
//!
//! | file | what it is |
//! |---|---|
//! | `ask` | one request as the generators make it, and streams of them |
//! | `classic` | the generator of the classic commands |
//! | `differences` | where the two may differ, and how far; README.md shows the table |
//! | `meta` | the generator of the meta commands |
//! | `pair` | the two servers, and what comes back of a stream |
//! | `replies` | replies cut into parts and made comparable |
//! | `shrink` | the shortest stream that still fails |
//! | `times` | the generator of what comes later, and of what is too large |
//!
//! `STORAGE_SERVER_DIFFERENTIAL` sets how many requests (1,000,000), `STORAGE_SERVER_SEED` repeats
//! a run.

mod ask;
mod classic;
mod differences;
mod meta;
mod pair;
mod replies;
mod shrink;
mod times;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;

use ask::{Ask, Stream};
use differences::DIFFERENCES;
pub(crate) use differences::table;
use pair::Pair;

use crate::support::memcached::Memcached;
use crate::support::{Random, on_all_cores, setting, skip};

/// A generator: one request, about the keys that its stream has.
struct Generator {
    family: &'static str,
    ask: fn(&mut Random) -> Ask,
    /// How often its turn comes.
    weight: u64,
}

const GENERATORS: &[Generator] = &[
    Generator {
        family: "classic",
        ask: classic::ask,
        weight: 46,
    },
    Generator {
        family: "meta",
        ask: meta::ask,
        weight: 46,
    },
    Generator {
        family: "times and sizes",
        ask: times::ask,
        weight: 2,
    },
    Generator {
        family: "meant to differ",
        ask: differences::ask,
        weight: 8,
    },
];

/// Requests of one stream: enough to meet each other's effects.
const STREAM: u64 = 200;
/// Requests to one pair of servers.
const PAIR: u64 = 50_000;

fn any(random: &mut Random) -> Ask {
    let all = GENERATORS.iter().map(|generator| generator.weight).sum();
    let mut at = random.below(all);
    for generator in GENERATORS {
        if at < generator.weight {
            let mut ask = (generator.ask)(random);
            ask.family = generator.family;
            return ask;
        }
        at -= generator.weight;
    }
    unreachable!("the weights add up")
}

/// What was played.
#[derive(Debug, Default)]
struct Played {
    /// Requests of each family.
    counts: BTreeMap<&'static str, u64>,
    /// The differences that were tried.
    differences: BTreeSet<&'static str>,
}

impl Played {
    fn requests(&self) -> u64 {
        self.counts.values().sum()
    }

    fn add(&mut self, other: Self) {
        for (family, count) in other.counts {
            *self.counts.entry(family).or_default() += count;
        }
        self.differences.extend(other.differences);
    }
}

/// Plays so many requests to a pair of servers of its own.
fn play(program: &Path, asks: u64, seed: u64, part: u64) -> Played {
    let mut random = Random::of_piece(seed, part);
    let mut pair = Pair::start(program);
    let mut played = Played::default();
    // A stream may end early, with its connection.
    while played.requests() < asks {
        let stream = Stream::generate(&mut random, STREAM.min(asks - played.requests()), any);
        let differences = stream.differences();
        played
            .differences
            .extend(differences.map(|difference| difference.name));
        for ask in &stream.asks {
            *played.counts.entry(ask.family).or_default() += 1;
        }
        if let Err(mismatch) = pair.play(&stream) {
            let shortest = shrink::shrink(stream, |stream| pair.play(stream).is_err());
            let shown = pair.play(&shortest).err().unwrap_or(mismatch);
            // The daemon's log says nothing that helps.
            drop(pair);
            panic!("STORAGE_SERVER_SEED={seed}, part {part}:\n{shortest}{shown}");
        }
    }
    played
}

#[test]
fn random_requests_are_answered_as_memcached_answers_them() {
    let Some(program) = Memcached::program() else {
        skip("no memcached here");
        return;
    };
    let seed = Random::seed("differential");
    let asks = setting("STORAGE_SERVER_DIFFERENTIAL", 1_000_000);
    let all = Mutex::new(Played::default());
    on_all_cores(asks.div_ceil(PAIR), |part| {
        let played = play(&program, PAIR.min(asks - part * PAIR), seed, part);
        all.lock().unwrap().add(played);
    });
    let all = all.into_inner().unwrap();
    println!("{:?}", all.counts);
    // A difference that nobody tries may have gone, and nobody would know.
    if asks >= 50_000 {
        for difference in DIFFERENCES {
            assert!(
                all.differences.contains(difference.name),
                "{}",
                difference.name
            );
        }
    }
}
