//! Replies as they come in, in whatever pieces: told apart, and what each says.
//!
//! Invariant: a reply is taken off once it is complete, so no buffer need hold a whole one, only
//! its longest line.

use super::workload::Kind;

/// What a reply says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply<'a> {
    /// It is done; of a get, so many values came.
    Done {
        /// The values.
        values: u64,
    },
    /// There is no such key.
    Missing,
    /// The server's error, as it says it.
    Error(&'a [u8]),
}

/// A reader of the replies of one connection.
#[derive(Debug, Default)]
pub(super) struct Replies {
    /// Bytes of a value, its line end included, that are still to come.
    skip: usize,
    /// The values so far of the reply that is being read.
    values: u64,
}

impl Replies {
    /// Takes the reply to a request of this kind off the front of `bytes`; `None` if there must
    /// come more first.
    pub(super) fn take<'a>(&mut self, bytes: &mut &'a [u8], kind: Kind) -> Option<Reply<'a>> {
        loop {
            let skipped = self.skip.min(bytes.len());
            *bytes = bytes.get(skipped..).unwrap_or_default();
            self.skip -= skipped;
            if self.skip > 0 {
                return None;
            }
            let end = memchr::memchr(b'\n', bytes)?;
            let (line, rest) = bytes.split_at_checked(end + 1)?;
            *bytes = rest;
            let line = line.trim_ascii_end();
            if kind.is_read()
                && let Some(len) = value_len(line)
            {
                self.skip = len + 2;
                self.values += 1;
                continue;
            }
            return Some(self.said(line, kind));
        }
    }

    fn said<'a>(&mut self, line: &'a [u8], kind: Kind) -> Reply<'a> {
        let values = std::mem::take(&mut self.values);
        let done = match kind {
            Kind::Get | Kind::MultiGet => line == b"END",
            Kind::Set => line == b"STORED",
            Kind::Incr | Kind::FanOut => !line.is_empty() && line.iter().all(u8::is_ascii_digit),
        };
        match line {
            _ if done => Reply::Done { values },
            b"NOT_FOUND" => Reply::Missing,
            _ => Reply::Error(line),
        }
    }
}

/// The length that a line `VALUE key flags length` tells.
fn value_len(line: &[u8]) -> Option<usize> {
    let rest = line.strip_prefix(b"VALUE ")?;
    let digits = rest.rsplit(|byte| *byte == b' ').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"STORED\r\nVALUE a 0 5\r\nEND\r\n\r\nEND\r\nEND\r\n17\r\nNOT_FOUND\r\n\
        VALUE a 0 0\r\n\r\nVALUE b 7 1\r\nx\r\nEND\r\nSERVER_ERROR out of memory\r\n";
    const KINDS: [Kind; 7] = [
        Kind::Set,
        Kind::Get,
        Kind::Get,
        Kind::FanOut,
        Kind::Incr,
        Kind::MultiGet,
        Kind::Get,
    ];

    /// Feeds the stream in pieces of `step` bytes, as a connection's buffer does.
    fn fed(step: usize) -> Vec<String> {
        let (mut replies, mut kinds) = (Replies::default(), KINDS.iter());
        let (mut said, mut buffer) = (Vec::new(), Vec::new());
        let mut kind = kinds.next();
        for piece in STREAM.chunks(step) {
            buffer.extend_from_slice(piece);
            let mut bytes = buffer.as_slice();
            while let Some(wanted) = kind
                && let Some(reply) = replies.take(&mut bytes, *wanted)
            {
                said.push(match reply {
                    Reply::Error(line) => String::from_utf8_lossy(line).into_owned(),
                    reply => format!("{reply:?}"),
                });
                kind = kinds.next();
            }
            buffer = bytes.to_vec();
        }
        assert!(buffer.is_empty());
        said
    }

    #[test]
    fn replies_are_told_apart_wherever_the_stream_is_cut() {
        let whole = [
            "Done { values: 0 }",
            "Done { values: 1 }",
            "Done { values: 0 }",
            "Done { values: 0 }",
            "Missing",
            "Done { values: 2 }",
            "SERVER_ERROR out of memory",
        ];
        for step in 1..=STREAM.len() {
            assert_eq!(fed(step), whole, "in pieces of {step}");
        }
    }
}
