//! Replies to bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::Dump;
use super::error::Complaint;
use super::text::{Away, Text};
use crate::clock::Time;
use crate::command::refusal::Fault;
use crate::command::{Hit, Refusal, Reply, View, ViewValue};
use crate::key::{Key, TypedKey};
use crate::value::{Head, Marks};

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

/// Writes a found entry under the key as it was sent, and of a long value as much as `out` has
/// room for. `at` is how much of it was written before; true if that is now all. Of a value that
/// is away nothing is written.
pub fn hit(
    key: &[u8],
    hit: &Hit,
    with_cas: bool,
    (at, room): (&mut usize, usize),
    out: &mut Vec<u8>,
) -> Result<bool, Away> {
    let text = Text::of(&hit.value)?;
    if *at == 0 {
        out.extend_from_slice(b"VALUE ");
        out.extend_from_slice(key);
        out.push(b' ');
        write_number(hit.flags.into(), out);
        out.push(b' ');
        write_number(text.len() as u64, out);
        if with_cas {
            out.push(b' ');
            write_number(hit.cas, out);
        }
        out.extend_from_slice(b"\r\n");
    }
    Ok(text.write((at, room), out))
}

/// Writes one entry of a dump.
///
/// Of a counter, and of what a snapshot brought and nobody has asked for since, it is not known
/// when it was last accessed: `la` is now and `fetch` is `no`.
pub fn dumped(dump: Dump, key: Key<'_>, view: View<'_>, now: Time, out: &mut Vec<u8>) {
    let (class, expires) = (key.class(), view.expires.time().map(Time::seconds));
    let size = match view.value {
        ViewValue::Data(blob) => blob.len(),
        ViewValue::Number(number) => itoa::Buffer::new().format(number).len(),
        ViewValue::Index(index) => index.text_len(),
    };
    match dump {
        Dump::Meta => {
            out.extend_from_slice(b"key=");
            write_percent_encoded(key, out);
            match expires {
                Some(seconds) => write_part(format_args!(" exp={seconds}"), out),
                None => out.extend_from_slice(b" exp=-1"),
            }
            let View { cas, flags, .. } = view;
            let idle_s = view
                .head
                .and_then(|head| head.idle_s(now))
                .unwrap_or_default();
            let accessed = now.seconds().saturating_sub(idle_s);
            let was_fetched = |head: &Head| head.marks().has(Marks::FETCHED);
            let fetched = yes_or_no(view.head.is_some_and(was_fetched));
            let size = size + key_len(key);
            let rest = format_args!(
                " la={accessed} cas={cas} fetch={fetched} cls={class} size={size} flags={flags}\n"
            );
            write_part(rest, out);
        }
        Dump::Mg => {
            out.extend_from_slice(b"mg ");
            match key {
                Key::Named(name) if !is_word(name, view) => {
                    out.extend_from_slice(BASE64.encode(name).as_bytes());
                    out.extend_from_slice(b" b");
                }
                Key::Named(_) | Key::Typed(_) => write_key(key, out),
            }
            out.extend_from_slice(b"\r\n");
        }
        Dump::Cache => {
            out.extend_from_slice(b"ITEM ");
            match key {
                Key::Named(name) if !is_word(name, view) => write_percent_encoded(key, out),
                Key::Named(_) | Key::Typed(_) => write_key(key, out),
            }
            let seconds = expires.unwrap_or(0);
            write_line(format_args!(" [{size} b; {seconds} s]"), out);
        }
    }
}

/// Writes the line that ends a dump.
pub fn dump_end(dump: Dump, out: &mut Vec<u8>) {
    match dump {
        Dump::Meta | Dump::Cache => end(out),
        Dump::Mg => out.extend_from_slice(b"EN\r\n"),
    }
}

/// Writes that there is no such class.
pub fn bad_class(dump: Dump, out: &mut Vec<u8>) {
    out.extend_from_slice(match dump {
        Dump::Meta | Dump::Mg => b"BADCLASS invalid class id\r\n",
        Dump::Cache => b"CLIENT_ERROR Illegal slab id\r\n",
    });
}

fn key_len(key: Key<'_>) -> usize {
    match key {
        Key::Typed(_) => size_of::<TypedKey>(),
        Key::Named(name) => name.len(),
    }
}

fn write_key(key: Key<'_>, out: &mut Vec<u8>) {
    match key {
        Key::Typed(typed) => write_part(format_args!("{typed}"), out),
        Key::Named(name) => out.extend_from_slice(name),
    }
}

/// True if a name can stand in a line as it is: a space or a line end in it would make other
/// words, or another request, of whatever reads the line.
fn is_word(name: &[u8], view: View<'_>) -> bool {
    !view.marks().has(Marks::BINARY)
        && !name
            .iter()
            .any(|byte| *byte == b' ' || byte.is_ascii_control())
}

/// Writes a key so that it is one word whatever bytes it has.
fn write_percent_encoded(key: Key<'_>, out: &mut Vec<u8>) {
    let Key::Named(name) = key else {
        return write_key(key, out);
    };
    for byte in name {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(*byte);
        } else {
            write_part(format_args!("%{byte:02X}"), out);
        }
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
    write_part(line, out);
    out.extend_from_slice(b"\r\n");
}

fn write_part(part: std::fmt::Arguments<'_>, out: &mut Vec<u8>) {
    use std::io::Write as _;
    // Writing to a vector does not fail.
    let _ = out.write_fmt(part);
}

/// What is true or not, in a word.
pub fn yes_or_no(is_true: bool) -> &'static str {
    if is_true { "yes" } else { "no" }
}

/// Writes one figure of `stats`.
pub fn stat(name: &str, value: impl std::fmt::Display, out: &mut Vec<u8>) {
    write_line(format_args!("STAT {name} {value}"), out);
}

pub(super) fn write_number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}
