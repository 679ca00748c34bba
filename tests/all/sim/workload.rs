//! Commands by chance, of every kind, over a few keys.

use storage_server::command::{Arith, Command, Exptime, Fetch, Mode, Put};
use storage_server::value::Delta;

use super::model::{KEYS, MEMBERS};
use crate::support::Random;

/// A command that owns its words.
pub(super) struct Words {
    kind: u64,
    keys: Vec<&'static [u8]>,
    bodies: Vec<Vec<u8>>,
    flags: u32,
    exptime: Exptime,
    delta: Delta,
    mode: Mode,
    target: Option<u16>,
}

fn is_kind(key: &[u8], prefixes: &str) -> bool {
    key.get(1) == Some(&b'.') && prefixes.as_bytes().contains(&key[0])
}

fn pick(random: &mut Random, prefixes: &str) -> &'static [u8] {
    let fits = |key: &&&[u8]| prefixes.is_empty() || is_kind(key, prefixes);
    let keys: Vec<_> = KEYS.iter().filter(fits).collect();
    keys[random.below(keys.len() as u64) as usize]
}

fn body(key: &[u8], random: &mut Random) -> Vec<u8> {
    if is_kind(key, "13") {
        let count = random.below(MEMBERS + 1);
        let member = |_| format!("{} {}", 1 + random.below(MEMBERS), random.below(3));
        return (0..count)
            .map(member)
            .collect::<Vec<_>>()
            .join("\n")
            .into_bytes();
    }
    if is_kind(key, "24") {
        return random.below(100).to_string().into_bytes();
    }
    // Some are longer than a sector or two.
    let len = if random.one_in(4) {
        random.below(1500)
    } else {
        random.below(30)
    };
    vec![b'a' + random.below(26) as u8; len as usize]
}

impl Words {
    /// Any command but `flush_all`, which comes once in a while.
    pub(super) fn any(random: &mut Random) -> Self {
        let kind = if random.one_in(50) {
            10
        } else {
            random.below(10)
        };
        Self::of(kind, random)
    }

    /// A command of a kind: 0..=2 storage, 3 and 4 one counter, 5 and 6 the fan-out, 7 `delete`,
    /// 8 an expiry, 9 several at once, 10 `flush_all`.
    pub(super) fn of(kind: u64, random: &mut Random) -> Self {
        let key = match kind {
            3 | 4 => pick(random, "24"),
            5 | 6 => pick(random, "13"),
            _ => pick(random, ""),
        };
        let mut keys = vec![key];
        if kind == 9 {
            keys.extend([pick(random, ""), pick(random, "24")]);
        }
        let bodies = keys.iter().map(|key| body(key, random)).collect();
        let modes = [
            Mode::Set,
            Mode::Add,
            Mode::Replace,
            Mode::Append,
            Mode::Prepend,
        ];
        let mode = match random.below(7) as usize {
            at @ 0..=2 => modes[at],
            _ if kind == 9 || is_kind(key, "24") => Mode::Set,
            3 | 4 => Mode::Append,
            5 => Mode::Prepend,
            _ => Mode::Set,
        };
        let mode = if kind == 9 { Mode::Set } else { mode };
        let exptimes = [0, 0, 0, 1, 3, 1000, -1];
        Self {
            kind,
            keys,
            bodies,
            flags: random.below(3) as u32,
            exptime: Exptime(exptimes[random.below(7) as usize]),
            delta: Delta {
                negative: random.one_in(4),
                amount: random.below(50),
            },
            mode,
            target: random.one_in(3).then_some(4),
        }
    }

    fn put(&self, at: usize) -> Put<'_> {
        Put {
            key: self.keys[at],
            mode: self.mode,
            flags: self.flags,
            exptime: self.exptime,
            body: &self.bodies[at],
        }
    }

    pub(super) fn command(&self) -> Command<'_> {
        let key = self.keys[0];
        match self.kind {
            0..=2 => Command::Put(self.put(0)),
            3..=6 => Command::Arith(Arith {
                key,
                decr: self.kind.is_multiple_of(2) && self.flags == 0,
                delta: self.delta,
                target: self.target.filter(|_| self.kind > 4),
            }),
            7 => Command::Delete { key },
            8 if self.flags == 0 => Command::Fetch(Fetch {
                keys: [key].into_iter().collect(),
                touch: Some(self.exptime),
            }),
            8 => Command::Touch {
                key,
                exptime: self.exptime,
            },
            9 => Command::PutMany((0..self.keys.len()).map(|at| self.put(at)).collect()),
            _ => {
                let delay = if self.flags == 0 { 0 } else { 2 };
                Command::FlushAll {
                    delay: Exptime(delay),
                }
            }
        }
    }
}
