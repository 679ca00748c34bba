//! Requests as the generators make them: bytes with places for what only the moment of sending
//! decides, and streams of requests in bursts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::differences::Difference;
use crate::support::Random;

/// A cas unique that no server gives.
const NO_UNIQUE: u64 = 1 << 63;

/// A piece of a request.
#[derive(Clone, Debug)]
enum Piece {
    Bytes(Vec<u8>),
    /// A key: the stream's name and this.
    Key(String),
    /// The same as base64.
    Base64(String),
    /// The cas unique that this server showed last for that key.
    Unique(String),
}

/// One request, or several that belong together.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask {
    pieces: Vec<Piece>,
    /// Keys whose values it shows.
    shows: BTreeSet<String>,
    /// Keys whose values it steps as numbers.
    steps: BTreeSet<String>,
    difference: Option<&'static Difference>,
    /// The connection ends with it.
    is_last: bool,
    /// Nothing else is sent before its reply has come.
    is_alone: bool,
    /// Nothing happens for so long after its reply.
    pause: Duration,
    /// The generator that made it.
    pub(super) family: &'static str,
    /// It is followed by a mark, so that its replies can be told from the next ones.
    is_marked: bool,
}

impl Ask {
    pub(super) fn new(text: &str) -> Self {
        Self::default().text(text)
    }

    /// Goes on with these bytes.
    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        if let Some(Piece::Bytes(last)) = self.pieces.last_mut() {
            last.extend_from_slice(bytes);
        } else {
            self.pieces.push(Piece::Bytes(bytes.to_vec()));
        }
        self
    }

    /// Goes on with this text.
    pub(super) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// Goes on with a key of the stream.
    pub(super) fn key(mut self, name: &str) -> Self {
        self.pieces.push(Piece::Key(name.to_owned()));
        self
    }

    /// Goes on with a key of the stream as base64.
    pub(super) fn base64(mut self, name: &str) -> Self {
        self.pieces.push(Piece::Base64(name.to_owned()));
        self
    }

    /// Goes on with the cas unique that was shown last for a key.
    pub(super) fn unique(mut self, name: &str) -> Self {
        self.pieces.push(Piece::Unique(name.to_owned()));
        self
    }

    /// It shows the value of this key.
    pub(super) fn showing(mut self, name: &str) -> Self {
        self.shows.insert(name.to_owned());
        self
    }

    /// It steps the value of this key as a number.
    pub(super) fn stepping(mut self, name: &str) -> Self {
        self.steps.insert(name.to_owned());
        self
    }

    /// The replies to it differ in this way.
    pub(super) fn differing(mut self, difference: &'static Difference) -> Self {
        self.difference = Some(difference);
        self
    }

    /// The connection ends with it.
    pub(super) fn last(mut self) -> Self {
        self.is_last = true;
        self
    }

    /// Nothing else is sent before its reply has come.
    pub(super) fn alone(mut self) -> Self {
        self.is_alone = true;
        self
    }

    /// Nothing else is sent before its reply has come and this time has passed.
    pub(super) fn pausing(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self.alone()
    }

    pub(super) fn pause(&self) -> Duration {
        self.pause
    }

    pub(super) fn difference(&self) -> Option<&'static Difference> {
        self.difference
    }

    pub(super) fn is_last(&self) -> bool {
        self.is_last
    }

    /// Its replies stand alone between two marks.
    pub(super) fn stands_alone(&self) -> bool {
        self.difference.is_some() || self.is_last
    }

    pub(super) fn is_marked(&self) -> bool {
        self.is_marked
    }

    /// The bytes for a server that has shown these cas uniques.
    pub(super) fn render(&self, stream: &str, uniques: &BTreeMap<Vec<u8>, u64>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Bytes(text) => bytes.extend_from_slice(text),
                Piece::Key(name) => {
                    bytes.extend_from_slice(stream.as_bytes());
                    bytes.extend_from_slice(name.as_bytes());
                }
                Piece::Base64(name) => {
                    let key = BASE64.encode(format!("{stream}{name}"));
                    bytes.extend_from_slice(key.as_bytes());
                }
                Piece::Unique(name) => {
                    let shown = uniques.get(format!("{stream}{name}").as_bytes());
                    let unique = shown.copied().unwrap_or(NO_UNIQUE);
                    bytes.extend_from_slice(unique.to_string().as_bytes());
                }
            }
        }
        bytes
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.pieces {
            match piece {
                Piece::Bytes(bytes) if bytes.len() > 4000 => {
                    let (from, to) = (&bytes[..200], &bytes[bytes.len() - 200..]);
                    write!(
                        f,
                        "{}...{} bytes...{}",
                        from.escape_ascii(),
                        bytes.len() - 400,
                        to.escape_ascii()
                    )?;
                }
                Piece::Bytes(bytes) => bytes.escape_ascii().fmt(f)?,
                Piece::Key(name) => write!(f, "{{{name}}}")?,
                Piece::Base64(name) => write!(f, "{{base64 of {name:?}}}")?,
                Piece::Unique(name) => write!(f, "{{cas of {name}}}")?,
            }
        }
        match self.difference {
            Some(difference) => write!(f, "   ({})", difference.name),
            None => Ok(()),
        }
    }
}

/// The requests of one connection.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) asks: Vec<Ask>,
    /// Decides where bursts end and where their bytes are cut.
    seed: u64,
}

impl Stream {
    pub(super) fn generate(
        random: &mut Random,
        count: u64,
        mut next: impl FnMut(&mut Random) -> Ask,
    ) -> Self {
        let seed = random.next();
        let mut asks: Vec<Ask> = Vec::new();
        while (asks.len() as u64) < count && !asks.last().is_some_and(Ask::is_last) {
            let mut ask = next(random);
            ask.is_marked = random.one_in(6);
            // One that ends the connection comes rarely, or streams would all be short; one that
            // waits, so that they do not take for ever.
            let rarely = match (ask.is_last, ask.pause.is_zero()) {
                (_, false) => 100,
                (true, true) => 10,
                (false, true) => 1,
            };
            if random.one_in(rarely) {
                asks.push(ask);
            }
        }
        Self { asks, seed }
    }

    pub(super) fn differences(&self) -> impl Iterator<Item = &'static Difference> {
        self.asks.iter().filter_map(Ask::difference)
    }

    /// What decides where the bytes are cut.
    pub(super) fn cuts(&self) -> Random {
        Random::new(self.seed)
    }

    /// The requests that are sent before their replies are waited for.
    ///
    /// memcached steps a number in place, and pads it, unless a reply that shows it is still on
    /// its way; so what steps a value never shares a burst with what showed it.
    pub(super) fn bursts(&self) -> Vec<&[Ask]> {
        let mut random = Random::new(self.seed);
        let (mut bursts, mut begin, mut shown) = (Vec::new(), 0, BTreeSet::new());
        for (at, ask) in self.asks.iter().enumerate() {
            let conflict = !shown.is_disjoint(&ask.steps);
            let apart = ask.is_last || ask.is_alone || at > 0 && self.asks[at - 1].is_alone;
            if at > begin && (conflict || apart || random.one_in(20)) {
                bursts.push(&self.asks[begin..at]);
                (begin, shown) = (at, BTreeSet::new());
            }
            shown.extend(ask.shows.iter().cloned());
        }
        bursts.push(&self.asks[begin..]);
        bursts
    }
}

/// One request a line.
impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.asks.iter().try_for_each(|ask| writeln!(f, "> {ask}"))
    }
}
