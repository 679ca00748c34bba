//! The text of a value, as every reply with values sends it: piece by piece, so that a connection
//! never holds more of a long one than its client may leave unread.

use super::encode::write_number;
use crate::value::{Index, Value};

/// The least that is written of a value at once, if it has as much.
const PIECE_BYTES: usize = 4 << 10;

/// The value is not in memory: it has to be read first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away;

/// What a client sees of a value.
#[derive(Clone, Copy)]
pub(super) enum Text<'v> {
    Bytes(&'v [u8]),
    Number(u64),
    Index(&'v Index),
}

impl<'v> Text<'v> {
    /// The text of a value, if that is in memory.
    pub(super) fn of(value: &'v Value) -> Result<Self, Away> {
        Ok(match value {
            Value::Data(blob) => Self::Bytes(blob.bytes().ok_or(Away)?),
            Value::Number(number) => Self::Number(*number),
            Value::Index(index) => Self::Index(index),
        })
    }

    /// Its length, in bytes.
    pub(super) fn len(self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Number(number) => itoa::Buffer::new().format(number).len(),
            Self::Index(index) => index.text_len(),
        }
    }

    /// Writes as much as `out` has `room` for, and with the last of it the line end. `at` is how
    /// far that has come, 0 at the beginning and again at the end; true if that is now all.
    pub(super) fn write(self, (at, room): (&mut usize, usize), out: &mut Vec<u8>) -> bool {
        let is_all = match self {
            Self::Bytes(bytes) => write_bytes(bytes, (at, room), out),
            Self::Number(number) => {
                write_number(number, out);
                true
            }
            Self::Index(index) => index.write_text((at, room), out),
        };
        if is_all {
            out.extend_from_slice(b"\r\n");
            *at = 0;
        }
        is_all
    }
}

fn write_bytes(bytes: &[u8], (at, room): (&mut usize, usize), out: &mut Vec<u8>) -> bool {
    let left = room.saturating_sub(out.len()).max(PIECE_BYTES);
    let rest = bytes.get(*at..).unwrap_or_default();
    if let Some(piece) = rest.get(..left).filter(|piece| piece.len() < rest.len()) {
        out.extend_from_slice(piece);
        *at += left;
        return false;
    }
    out.extend_from_slice(rest);
    true
}
