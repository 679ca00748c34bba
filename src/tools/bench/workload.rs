//! What is asked of the server: the mix of requests, the keys that they name, the values.
//!
//! Invariant: making a request allocates nothing once its buffer has grown.

use std::fmt;
use std::str::FromStr;

use fastrand::Rng;

use super::keys::Ids;

/// Values are cut from a text that is so much longer than they are.
const VALUE_SPARE: usize = 256;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `get` of one key.
    Get,
    /// `set`.
    Set,
    /// `incr` of a counter.
    Incr,
    /// `incr` of an index.
    FanOut,
    /// `get` of several keys.
    MultiGet,
}

impl Kind {
    /// Every kind, in the order of its number.
    pub(super) const ALL: [Self; 5] = [
        Self::Get,
        Self::Set,
        Self::Incr,
        Self::FanOut,
        Self::MultiGet,
    ];

    /// Its name in `--mix` and in reports.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
            Self::Incr => "incr",
            Self::FanOut => "fanout",
            Self::MultiGet => "multiget",
        }
    }

    /// True if values come back.
    pub(super) const fn is_read(self) -> bool {
        matches!(self, Self::Get | Self::MultiGet)
    }
}

/// How many of each kind there are among so many requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mix {
    parts: [u32; Kind::ALL.len()],
    sum: u32,
}

impl Mix {
    /// True if there are any of this kind.
    pub(super) fn has(&self, kind: Kind) -> bool {
        self.parts.get(kind as usize).is_some_and(|part| *part > 0)
    }

    fn draw(&self, rng: &mut Rng) -> Kind {
        let mut at = rng.u32(..self.sum);
        for (kind, part) in Kind::ALL.into_iter().zip(self.parts) {
            if at < part {
                return kind;
            }
            at -= part;
        }
        Kind::Get
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = [0; Kind::ALL.len()];
        for word in text.split(',') {
            let (name, part) = word.split_once('=').unwrap_or((word, "1"));
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
            let place = kind.and_then(|kind| parts.get_mut(kind as usize));
            let names = Kind::ALL.map(Kind::name).join(", ");
            let place = place.ok_or_else(|| format!("`{name}` is none of {names}"))?;
            *place = match part.parse() {
                Ok(part) if part <= 1_000_000 => part,
                Ok(_) | Err(_) => return Err(format!("`{part}` is not a number up to 1000000")),
            };
        }
        match parts.iter().sum() {
            0 => Err("there is nothing in it".into()),
            sum => Ok(Self { parts, sum }),
        }
    }
}

/// Prints the mix as it is given.
impl fmt::Display for Mix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (kind, part) in Kind::ALL.into_iter().zip(self.parts) {
            if part > 0 {
                write!(out, "{comma}{}={part}", kind.name())?;
                comma = ",";
            }
        }
        Ok(())
    }
}

/// Keys that differ in their number only.
#[derive(Clone, Debug)]
pub(super) struct Family {
    /// What comes before the number.
    pub(super) prefix: String,
    /// The numbers.
    pub(super) ids: Ids,
}

impl Family {
    /// Puts down the key of a number.
    pub(super) fn put(&self, id: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(self.prefix.as_bytes());
        out.extend_from_slice(itoa::Buffer::new().format(id).as_bytes());
    }

    fn put_drawn(&self, rng: &mut Rng, out: &mut Vec<u8>) {
        self.put(self.ids.draw(rng), out);
    }
}

/// What `set` stores.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A number in decimal, for a counter.
    Number,
    /// So many bytes of a text.
    Bytes {
        /// What they are cut from.
        text: Vec<u8>,
        /// How many.
        len: usize,
    },
}

impl Value {
    /// Values of `len` bytes.
    pub(super) fn bytes(len: usize, rng: &mut Rng) -> Self {
        let text = std::iter::repeat_with(|| rng.alphanumeric() as u8);
        Self::Bytes {
            text: text.take(len + VALUE_SPARE).collect(),
            len,
        }
    }

    /// Puts down the rest of a `set` after its key.
    fn put(&self, rng: &mut Rng, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        let value = match self {
            Self::Number => digits.format(rng.u32(..1_000_000)).as_bytes(),
            Self::Bytes { text, len } => {
                let start = rng.usize(..VALUE_SPARE);
                text.get(start..start + len).unwrap_or_default()
            }
        };
        out.extend_from_slice(b" 0 0 ");
        out.extend_from_slice(itoa::Buffer::new().format(value.len()).as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}

/// What is asked of the server.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    /// How many of each kind.
    pub(super) mix: Mix,
    /// What `get`, `set` and a multi-get name.
    pub(super) entries: Family,
    /// What `incr` names.
    pub(super) counters: Family,
    /// What a fan-out names.
    pub(super) indexes: Family,
    /// What `set` stores.
    pub(super) value: Value,
    /// How many keys a multi-get names.
    pub(super) multi_keys: u64,
}

impl Workload {
    /// Puts down the next request, and answers its kind.
    pub(super) fn next(&self, rng: &mut Rng, out: &mut Vec<u8>) -> Kind {
        let kind = self.mix.draw(rng);
        match kind {
            Kind::Get => {
                out.extend_from_slice(b"get ");
                self.entries.put_drawn(rng, out);
            }
            Kind::MultiGet => {
                out.extend_from_slice(b"get");
                for _ in 0..self.multi_keys {
                    out.push(b' ');
                    self.entries.put_drawn(rng, out);
                }
            }
            Kind::Set => {
                let id = self.entries.ids.draw(rng);
                self.set(id, rng, out);
                return kind;
            }
            Kind::Incr => {
                out.extend_from_slice(b"incr ");
                self.counters.put_drawn(rng, out);
                out.extend_from_slice(b" 1");
            }
            Kind::FanOut => {
                out.extend_from_slice(b"incr ");
                self.indexes.put_drawn(rng, out);
                out.extend_from_slice(b" 1");
            }
        }
        out.extend_from_slice(b"\r\n");
        kind
    }

    /// Puts down the `set` of an entry.
    pub(super) fn set(&self, id: u64, rng: &mut Rng, out: &mut Vec<u8>) {
        out.extend_from_slice(b"set ");
        self.entries.put(id, out);
        self.value.put(rng, out);
    }

    /// How many values a request of this kind asks for.
    pub(super) fn asked(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Get => 1,
            Kind::MultiGet => self.multi_keys,
            Kind::Set | Kind::Incr | Kind::FanOut => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(mix: &str) -> Workload {
        let family = |prefix: &str| Family {
            prefix: prefix.to_owned(),
            ids: Ids::new(1, None),
        };
        Workload {
            mix: mix.parse().unwrap(),
            entries: family("3."),
            counters: family("2."),
            indexes: family("1."),
            value: Value::Bytes {
                text: vec![b'v'; VALUE_SPARE + 4],
                len: 4,
            },
            multi_keys: 3,
        }
    }

    #[test]
    fn requests_are_those_of_the_protocol() {
        for (mix, request) in [
            ("get", "get 3.0\r\n"),
            ("set", "set 3.0 0 0 4\r\nvvvv\r\n"),
            ("incr", "incr 2.0 1\r\n"),
            ("fanout", "incr 1.0 1\r\n"),
            ("multiget", "get 3.0 3.0 3.0\r\n"),
        ] {
            let mut out = Vec::new();
            let kind = workload(mix).next(&mut Rng::with_seed(1), &mut out);
            assert_eq!((kind.name(), out.as_slice()), (mix, request.as_bytes()));
        }
    }

    #[test]
    fn a_mix_is_what_it_says() {
        const DRAWS: u32 = 100_000;
        let (mix, mut rng) = (
            "get=6,set=3,fanout".parse::<Mix>().unwrap(),
            Rng::with_seed(4),
        );
        let mut drawn = [0_u32; Kind::ALL.len()];
        for _ in 0..DRAWS {
            drawn[mix.draw(&mut rng) as usize] += 1;
        }
        for (kind, share) in Kind::ALL.into_iter().zip([0.6, 0.3, 0.0, 0.1, 0.0]) {
            let deviation = f64::from(drawn[kind as usize]) - f64::from(DRAWS) * share;
            // Six standard deviations of a share of one half, the widest.
            assert!(deviation.abs() < 6.0 * f64::from(DRAWS).sqrt() / 2.0);
            assert_eq!(mix.has(kind), share > 0.0);
            assert!(share > 0.0 || drawn[kind as usize] == 0);
        }
        assert_eq!(mix.to_string(), "get=6,set=3,fanout=1");
    }

    #[test]
    fn what_is_no_mix_is_said() {
        for (text, word) in [
            ("", "none of"),
            ("got=1", "`got` is none of get"),
            ("get=x", "`x` is not"),
            ("get=0", "nothing"),
            ("get=1000001", "not a number up to"),
        ] {
            let error = text.parse::<Mix>().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
