//! Bytes to requests. The parser reads whole lines, then words, then whole blocks; a request is
//! taken only once all of it has arrived, so how the input is split cannot matter.
//!
//! After an error the parser passes over exactly the blocks that the line announced, or says
//! that the connection must close: nothing inside a block is ever read as a command.

use smallvec::SmallVec;

use super::Request;
use super::error::{Complaint, Failure, Foreign};
use super::storage::Announced;
use super::verbs::{self, Line};
use super::words::Words;
use crate::limits::{LINE_BYTES_MAX, LONG_LINE_BYTES_MAX};

/// The state of one connection's input.
#[derive(Debug, Default)]
pub struct Parser {
    /// Blocks still to be passed over, the next one last.
    skip: SmallVec<[u64; 1]>,
    /// Everything up to the next line end is passed over: behind a block or in its place.
    skip_line: bool,
    /// How many bytes the last call passed over before the request that it gave.
    passed_over: usize,
    /// How many bytes at the front of the input are known to have no line end.
    scanned: usize,
    /// How many bytes a whole request takes at the least, once its line has been read: there is
    /// no need to look again before they have come.
    needed: usize,
}

/// What the front of the input is.
#[derive(Clone, Debug, PartialEq)]
pub enum Step<'a> {
    /// A whole request.
    Request(Request<'a>),
    /// An error to be answered, unless `noreply`.
    Complaint {
        /// What is wrong.
        complaint: Complaint,
        /// No reply is wanted.
        noreply: bool,
    },
    /// More bytes are needed.
    Incomplete,
}

impl Parser {
    /// Takes the next request from the front of `input`: how many bytes it took, and what they
    /// were. `value_max` is the longest value.
    pub fn next<'a>(&mut self, input: &'a [u8], value_max: usize) -> (usize, Step<'a>) {
        let skipped = self.pass_over(input);
        self.passed_over = skipped;
        let rest = input.get(skipped..).unwrap_or_default();
        if rest.is_empty() || rest.len() < self.needed {
            return (skipped, Step::Incomplete);
        }
        let (taken, step) = self.request(rest, value_max);
        if step != Step::Incomplete {
            (self.scanned, self.needed) = (0, 0);
        }
        (skipped + taken, step)
    }

    /// How many bytes of failed requests' blocks came before what [`Self::next`] gave last.
    pub fn passed_over(&self) -> usize {
        self.passed_over
    }

    /// How many bytes the request at the front takes at the least; 0 if its line has not ended.
    pub fn needed(&self) -> usize {
        self.needed
    }

    /// Passes over what is left of failed requests' blocks; returns how many bytes.
    fn pass_over(&mut self, input: &[u8]) -> usize {
        let mut passed = 0;
        while passed < input.len() && (self.skip_line || !self.skip.is_empty()) {
            let rest = input.get(passed..).unwrap_or_default();
            if self.skip_line {
                let end = memchr::memchr(b'\n', rest);
                self.skip_line = end.is_none();
                passed += end.map_or(rest.len(), |end| end + 1);
            } else if let Some(left) = self.skip.last_mut() {
                let taken = usize::try_from(*left).map_or(rest.len(), |left| left.min(rest.len()));
                *left -= taken as u64;
                passed += taken;
                if *left == 0 {
                    self.skip.pop();
                    self.skip_line = true;
                }
            }
        }
        passed
    }

    fn request<'a>(&mut self, input: &'a [u8], value_max: usize) -> (usize, Step<'a>) {
        if let Some(complaint) = input.first().copied().and_then(foreign_byte) {
            return (0, complain(complaint));
        }
        let unscanned = input.get(self.scanned..).unwrap_or_default();
        let Some(end) = memchr::memchr(b'\n', unscanned).map(|end| self.scanned + end) else {
            return (0, self.unfinished_line(input));
        };
        let line = input.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut words = Words::new(line);
        let Some(name) = words.next() else {
            return (end + 1, complain(Complaint::Unknown));
        };
        let verb = verbs::find(name);
        let line_max = if verb.is_some_and(|verb| verb.long_line) {
            LONG_LINE_BYTES_MAX
        } else {
            LINE_BYTES_MAX
        };
        if end + 1 > line_max {
            return (0, complain(Complaint::LineTooLong(line_max)));
        }
        let Some(verb) = verb else {
            return (
                end + 1,
                complain(foreign(line).unwrap_or(Complaint::Unknown)),
            );
        };
        match (verb.read)(words.clone(), value_max) {
            Ok(Line::Whole(request)) => (end + 1, Step::Request(request)),
            Ok(Line::Announced(announced)) => self.blocks(input, end + 1, announced),
            // A browser may be made to send methods that are names of commands.
            Err(_) if let Some(complaint) = foreign(line) => (end + 1, complain(complaint)),
            Err(failure) => {
                let noreply = verb.is_noreply(words);
                (end + 1, self.fail(failure, noreply))
            }
        }
    }

    fn unfinished_line<'a>(&mut self, input: &[u8]) -> Step<'a> {
        let name = Words::new(input).next().unwrap_or_default();
        let long = verbs::find(name).is_some_and(|verb| verb.long_line);
        let line_max = if long {
            LONG_LINE_BYTES_MAX
        } else {
            LINE_BYTES_MAX
        };
        if input.len() >= line_max {
            return complain(Complaint::LineTooLong(line_max));
        }
        self.scanned = input.len();
        Step::Incomplete
    }

    fn fail<'a>(&mut self, failure: Failure, noreply: bool) -> Step<'a> {
        let Failure { complaint, skip } = failure;
        self.skip = skip;
        self.skip.reverse();
        Step::Complaint { complaint, noreply }
    }

    /// Takes the blocks behind a storage line that is in order and ends at `start`.
    fn blocks<'a>(
        &mut self,
        input: &'a [u8],
        start: usize,
        announced: Announced<'a>,
    ) -> (usize, Step<'a>) {
        // The line is not scanned again; each block to come takes its length and a line end.
        self.scanned = start - 1;
        let mut at = start;
        let lengths = &announced.lengths;
        let mut bodies: SmallVec<[&[u8]; 1]> = SmallVec::new();
        let mut to_come: u64 = lengths.iter().map(|length| length + 1).sum();
        for (number, length) in lengths.iter().enumerate() {
            // Nothing is said about a block before all of them can have come: a reply that came
            // earlier if the input was cut in another way would tell how it was cut.
            self.needed = at.saturating_add(usize::try_from(to_come).unwrap_or(usize::MAX));
            if input.len() < self.needed {
                return (0, Step::Incomplete);
            }
            to_come -= length + 1;
            let body_len = usize::try_from(*length).unwrap_or(usize::MAX);
            let rest = input.get(at..).unwrap_or_default();
            let (body, after) = rest.split_at_checked(body_len).unwrap_or((rest, &[]));
            let line_end = match after {
                [b'\n', ..] => 1,
                [b'\r', b'\n', ..] => 2,
                [] | [b'\r'] => return (0, Step::Incomplete),
                [..] => {
                    self.skip_line = true;
                    self.skip = lengths.iter().skip(number + 1).rev().copied().collect();
                    let (complaint, noreply) = (Complaint::BadChunk, announced.noreply);
                    return (at + body_len, Step::Complaint { complaint, noreply });
                }
            };
            bodies.push(body);
            at += body_len + line_end;
        }
        (at, Step::Request(announced.request(&bodies)))
    }
}

fn complain<'a>(complaint: Complaint) -> Step<'a> {
    Step::Complaint {
        complaint,
        noreply: false,
    }
}

/// The protocol that begins with a byte that no command begins with.
pub(super) fn foreign_byte(first: u8) -> Option<Complaint> {
    match first {
        0x80 => Some(Complaint::Foreign(Foreign::Binary)),
        0x16 => Some(Complaint::Foreign(Foreign::Tls)),
        _ => None,
    }
}

/// The protocol that a line which is no request may belong to: the first line of an HTTP
/// request, or the one after it.
pub(super) fn foreign(line: &[u8]) -> Option<Complaint> {
    if let Some(complaint) = line.first().copied().and_then(foreign_byte) {
        return Some(complaint);
    }
    let mut words = Words::new(line);
    let first = words.next()?;
    let is_http = first.eq_ignore_ascii_case(b"host:")
        || words.last().is_some_and(|word| word.starts_with(b"HTTP/"));
    is_http.then_some(Complaint::Foreign(Foreign::Http))
}
