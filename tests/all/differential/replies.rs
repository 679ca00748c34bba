//! Replies cut into parts, so that marks can be told from values that look like them, and cas
//! uniques replaced by the order in which they came.

use std::collections::BTreeMap;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::support::wire::{Received, TcpWire, Wire as _};

/// What a mark is answered by begins with this.
const MARK: &[u8] = b"VERSION ";

/// The end of a connection, among its replies.
pub(super) const CLOSED: &[u8] = b"<closed>";
/// A reply that does not come, among those that came.
const MISSING: &[u8] = b"<nothing>";

/// One connection's replies.
pub(super) struct Replies {
    wire: TcpWire,
    arrived: Vec<u8>,
    /// How much of that was cut into parts.
    taken: usize,
    /// The cas unique that was shown last for each key.
    pub(super) uniques: BTreeMap<Vec<u8>, u64>,
    /// The order in which cas uniques came.
    order: BTreeMap<u64, usize>,
}

/// A part of the replies.
enum Part {
    /// A line, with its line end and the block that it announces.
    Whole(Vec<u8>),
    Closed,
    Missing,
}

impl Replies {
    pub(super) fn new(wire: TcpWire) -> Self {
        Self {
            wire,
            arrived: Vec::new(),
            taken: 0,
            uniques: BTreeMap::new(),
            order: BTreeMap::new(),
        }
    }

    /// The replies up to the next mark, or to the end of the connection, made comparable if they
    /// are to be the same: cas uniques that only one of the two gives would spoil their order.
    pub(super) fn segment(&mut self, comparable: bool) -> Vec<u8> {
        let mut segment = Vec::new();
        loop {
            match self.part() {
                Part::Whole(part) if part.starts_with(MARK) => return segment,
                Part::Whole(part) if comparable => self.compare(part, &mut segment),
                Part::Whole(part) => segment.extend(part),
                Part::Closed => {
                    segment.extend_from_slice(CLOSED);
                    return segment;
                }
                Part::Missing => {
                    segment.extend_from_slice(MISSING);
                    return segment;
                }
            }
        }
    }

    fn part(&mut self) -> Part {
        loop {
            let left = &self.arrived[self.taken..];
            if let Some(end) = memchr::memchr(b'\n', left) {
                let end = end + 1 + block_len(&left[..end]);
                if let Some(part) = left.get(..end) {
                    self.taken += end;
                    return Part::Whole(part.to_vec());
                }
            }
            match self.wire.receive() {
                Received::Bytes(bytes) => {
                    self.arrived.drain(..self.taken);
                    self.taken = 0;
                    self.arrived.extend(bytes);
                }
                Received::Closed => return Part::Closed,
                Received::Nothing => return Part::Missing,
            }
        }
    }

    /// Appends a part; a cas unique in it becomes its place in the order of their coming.
    fn compare(&mut self, part: Vec<u8>, segment: &mut Vec<u8>) {
        let Some(Shown { key, unique, at }) = shown_unique(&part) else {
            segment.extend(part);
            return;
        };
        if let Some(key) = key {
            self.uniques.insert(key, unique);
        }
        let next = self.order.len();
        let place = *self.order.entry(unique).or_insert(next);
        segment.extend_from_slice(&part[..at.start]);
        segment.extend_from_slice(format!("cas{place}").as_bytes());
        segment.extend_from_slice(&part[at.end..]);
    }
}

/// A cas unique in a reply.
struct Shown {
    /// The key, if the reply has it, too.
    key: Option<Vec<u8>>,
    unique: u64,
    at: Range<usize>,
}

/// How many bytes follow a line because it announces them, their line end included.
fn block_len(line: &[u8]) -> usize {
    let words: Vec<_> = words(line).collect();
    let length = match words.first() {
        Some(&"VALUE") => words.get(3),
        Some(&"VA") => words.get(1),
        Some(_) | None => None,
    };
    length
        .and_then(|length| length.parse::<usize>().ok())
        .map_or(0, |length| length + 2)
}

/// The cas unique that a reply shows; 0 is none.
fn shown_unique(part: &[u8]) -> Option<Shown> {
    let line = &part[..memchr::memchr(b'\r', part)?];
    let words: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let (code, words) = words.split_first()?;
    let (key, digits) = match *code {
        b"VALUE" => match words {
            [key, _, _, digits] => (Some(key.to_vec()), *digits),
            _ => return None,
        },
        b"HD" | b"VA" => (meta_key(words), behind(words, b"c")?),
        b"ME" => (None, behind(words, b"cas=")?),
        _ => return None,
    };
    let unique = str::from_utf8(digits).ok()?.parse().ok()?;
    let begin = digits.as_ptr().addr() - part.as_ptr().addr();
    let at = begin..begin + digits.len();
    (unique > 0).then_some(Shown { key, unique, at })
}

/// The key in the reply to a meta command.
fn meta_key(words: &[&[u8]]) -> Option<Vec<u8>> {
    let key = behind(words, b"k")?;
    if words.contains(&b"b".as_slice()) {
        BASE64.decode(key).ok()
    } else {
        Some(key.to_vec())
    }
}

/// What follows in the word that begins like this.
fn behind<'w>(words: &[&'w [u8]], prefix: &[u8]) -> Option<&'w [u8]> {
    words.iter().find_map(|word| word.strip_prefix(prefix))
}

/// True if the replies, memcached's first, are the same. The two have clocks that tick at
/// different moments, so seconds may differ a little; and of what `me` says some is about the
/// server.
pub(super) fn same(theirs: &[u8], ours: &[u8]) -> bool {
    let words = |replies| <[u8]>::split(replies, |byte| b" \r\n".contains(byte));
    theirs == ours
        || words(theirs).count() == words(ours).count()
            && words(theirs).zip(words(ours)).all(|(theirs, ours)| {
                theirs == ours || same_time(theirs, ours) || both_own(theirs, ours)
            })
}

/// How far apart what counts seconds may be.
const SECONDS_APART_MAX: u64 = 5;

/// True if these are two times that are nearly the same. (memcached's `me` has a sign.)
fn same_time(theirs: &[u8], ours: &[u8]) -> bool {
    let seconds = |word: &[u8], prefix: &[u8]| -> Option<u64> {
        str::from_utf8(word.strip_prefix(prefix)?)
            .ok()?
            .parse()
            .ok()
    };
    let names = [
        (&b"t"[..], &b"t"[..]),
        (b"l", b"l"),
        (b"la=", b"la="),
        (b"exp=-", b"exp="),
    ];
    names.into_iter().any(|(theirs_name, ours_name)| {
        let both = seconds(theirs, theirs_name).zip(seconds(ours, ours_name));
        both.is_some_and(|(theirs, ours)| theirs.abs_diff(ours) <= SECONDS_APART_MAX)
    })
}

/// True for what each server says of its own memory.
fn both_own(theirs: &[u8], ours: &[u8]) -> bool {
    let names = [&b"cls="[..], b"size="];
    let mut names = names.into_iter();
    names.any(|name| theirs.starts_with(name) && ours.starts_with(name))
}

fn words(line: &[u8]) -> impl Iterator<Item = &str> {
    line.split(|byte| matches!(byte, b' ' | b'\r'))
        .map(|word| str::from_utf8(word).unwrap_or_default())
}
