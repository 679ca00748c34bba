//! Replies cut into parts, so that marks can be told from values that look like them, and cas
//! uniques replaced by the order in which they came.

use std::collections::BTreeMap;

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
            uniques: BTreeMap::new(),
            order: BTreeMap::new(),
        }
    }

    /// The replies up to the next mark, or to the end of the connection, made comparable.
    pub(super) fn segment(&mut self) -> Vec<u8> {
        let mut segment = Vec::new();
        loop {
            match self.part() {
                Part::Whole(part) if part.starts_with(MARK) => return segment,
                Part::Whole(part) => self.compare(part, &mut segment),
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
            if let Some(end) = memchr::memchr(b'\n', &self.arrived) {
                let end = end + 1 + block_len(&self.arrived[..end]);
                if self.arrived.len() >= end {
                    let rest = self.arrived.split_off(end);
                    return Part::Whole(std::mem::replace(&mut self.arrived, rest));
                }
            }
            match self.wire.receive() {
                Received::Bytes(bytes) => self.arrived.extend(bytes),
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
        self.uniques.insert(key, unique);
        let next = self.order.len();
        let place = *self.order.entry(unique).or_insert(next);
        segment.extend_from_slice(&part[..at.start]);
        segment.extend_from_slice(format!("cas{place}").as_bytes());
        segment.extend_from_slice(&part[at.end..]);
    }
}

/// A cas unique in a reply.
struct Shown {
    key: Vec<u8>,
    unique: u64,
    at: std::ops::Range<usize>,
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

/// The cas unique of a `VALUE` line.
fn shown_unique(part: &[u8]) -> Option<Shown> {
    let line = &part[..memchr::memchr(b'\r', part)?];
    if !line.starts_with(b"VALUE ") {
        return None;
    }
    let fields: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let &[_, key, _, _, unique] = fields.as_slice() else {
        return None;
    };
    let at = line.len() - unique.len()..line.len();
    let unique = str::from_utf8(unique).ok()?.parse().ok()?;
    Some(Shown {
        key: key.to_vec(),
        unique,
        at,
    })
}

fn words(line: &[u8]) -> impl Iterator<Item = &str> {
    line.split(|byte| matches!(byte, b' ' | b'\r'))
        .map(|word| str::from_utf8(word).unwrap_or_default())
}
