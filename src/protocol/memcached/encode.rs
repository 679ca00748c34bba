//! Replies to bytes.

use super::error::Complaint;
use crate::command::refusal::Fault;
use crate::command::{Hit, Refusal, Reply, ViewValue};
use crate::value::Value;

/// Writes the reply to a command, or of a retrieval its last line.
pub fn reply(reply: &Reply, out: &mut Vec<u8>) {
    let line: &[u8] = match reply {
        Reply::Stored => b"STORED\r\n",
        Reply::NotStored => b"NOT_STORED\r\n",
        Reply::Exists => b"EXISTS\r\n",
        Reply::NotFound => b"NOT_FOUND\r\n",
        Reply::Deleted => b"DELETED\r\n",
        Reply::Touched => b"TOUCHED\r\n",
        Reply::Ok => b"OK\r\n",
        Reply::Number(number) => {
            write_number(*number, out);
            b"\r\n"
        }
        // What was found goes before this, one [`hit`] after the other.
        Reply::Hits(_) => return end(out),
        // Of these the request says how they look.
        Reply::Meta(_) => return,
    };
    out.extend_from_slice(line);
}

/// Writes the line that ends a list.
pub fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"END\r\n");
}

/// The value of a found entry is not in memory: nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away;

/// The least that is written of a value's bytes.
const PIECE_BYTES: usize = 4 << 10;

/// Writes a found entry under the key as it was sent, and of a long value as much as `out` has
/// room for. `at` is how much of it was written before; true if that is now all.
pub fn hit(
    key: &[u8],
    hit: &Hit,
    with_cas: bool,
    (at, room): (&mut usize, usize),
    out: &mut Vec<u8>,
) -> Result<bool, Away> {
    let data = match &hit.value {
        Value::Data(blob) => blob.bytes().ok_or(Away)?,
        Value::Number(_) | Value::Index(_) => &[],
    };
    if *at == 0 {
        head(key, hit, with_cas, out);
    }
    let left = room.saturating_sub(out.len()).max(PIECE_BYTES);
    let rest = data.get(*at..).unwrap_or_default();
    if let Some(piece) = rest.get(..left).filter(|piece| piece.len() < rest.len()) {
        out.extend_from_slice(piece);
        *at += left;
        return Ok(false);
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(b"\r\n");
    *at = 0;
    Ok(true)
}

/// Writes everything before the bytes of a value; numbers and indexes whole.
fn head(key: &[u8], hit: &Hit, with_cas: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(key);
    out.push(b' ');
    write_number(hit.flags.into(), out);
    out.push(b' ');
    write_number(ViewValue::of(&hit.value).text_len() as u64, out);
    write_cas(hit, with_cas, out);
    match &hit.value {
        Value::Data(_) => {}
        Value::Number(_) | Value::Index(_) => write_value(&hit.value, out),
    }
}

/// Writes why a command was refused.
pub fn refusal(refusal: &Refusal, out: &mut Vec<u8>) {
    let class = match refusal.fault() {
        Fault::Client => "CLIENT_ERROR",
        Fault::Server => "SERVER_ERROR",
    };
    write_line(format_args!("{class} {refusal}"), out);
}

/// Writes what is wrong with a request.
pub fn complaint(complaint: Complaint, out: &mut Vec<u8>) {
    write_line(format_args!("{complaint}"), out);
}

/// Writes a line and its end.
pub fn write_line(line: std::fmt::Arguments<'_>, out: &mut Vec<u8>) {
    use std::io::Write as _;
    // Writing to a vector does not fail.
    let _ = write!(out, "{line}\r\n");
}

/// Writes one figure of `stats`.
pub fn stat(name: &str, value: impl std::fmt::Display, out: &mut Vec<u8>) {
    write_line(format_args!("STAT {name} {value}"), out);
}

/// Writes a value that is in memory, as text.
pub(super) fn write_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Data(blob) => out.extend_from_slice(blob.bytes().unwrap_or_default()),
        Value::Number(number) => write_number(*number, out),
        Value::Index(index) => {
            out.reserve(index.text_len() + 2);
            index.write_text(out);
        }
    }
}

fn write_cas(hit: &Hit, with_cas: bool, out: &mut Vec<u8>) {
    if with_cas {
        out.push(b' ');
        write_number(hit.cas, out);
    }
    out.extend_from_slice(b"\r\n");
}

pub(super) fn write_number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}
