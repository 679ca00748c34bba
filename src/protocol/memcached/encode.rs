//! Replies to bytes.

use super::error::Complaint;
use crate::command::refusal::Fault;
use crate::command::{Hit, Refusal, Reply};
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

/// Writes one found entry under the key as it was sent.
pub fn hit(key: &[u8], hit: &Hit, with_cas: bool, out: &mut Vec<u8>) -> Result<(), Away> {
    let data = match &hit.value {
        Value::Data(blob) => blob.bytes().ok_or(Away)?,
        Value::Number(_) | Value::Index(_) => &[],
    };
    out.extend_from_slice(b"VALUE ");
    out.extend_from_slice(key);
    out.push(b' ');
    write_number(hit.flags.into(), out);
    out.push(b' ');
    match &hit.value {
        Value::Data(_) => {
            write_number(data.len() as u64, out);
            write_cas(hit, with_cas, out);
            out.extend_from_slice(data);
        }
        Value::Number(number) => {
            let mut buffer = itoa::Buffer::new();
            let text = buffer.format(*number).as_bytes();
            write_number(text.len() as u64, out);
            write_cas(hit, with_cas, out);
            out.extend_from_slice(text);
        }
        Value::Index(index) => {
            let length = index.text_len();
            write_number(length as u64, out);
            write_cas(hit, with_cas, out);
            out.reserve(length + 2);
            index.write_text(out);
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
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

fn write_cas(hit: &Hit, with_cas: bool, out: &mut Vec<u8>) {
    if with_cas {
        out.push(b' ');
        write_number(hit.cas, out);
    }
    out.extend_from_slice(b"\r\n");
}

fn write_number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}
