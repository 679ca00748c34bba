//! Replies to meta commands: a code of two letters, then what the flags of the request ask for,
//! in their order.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::encode::{write_line, write_number};
use super::meta::Echo;
use super::text::{Away, Text};
use crate::command::Meta;
use crate::command::meta::{Act, MetaReply, Seen, Status};
use crate::value::Marks;

/// Writes the reply, or nothing if it is the one that a quiet command expects; of a long value as
/// much as `out` has room for. `stamp` is the sequence number of the change that the command made,
/// `at` how much of the value has been written; true if that is all. Of a reply that shows a
/// value that is away nothing is written.
pub fn reply(
    (meta, echo): (&Meta<'_>, &Echo<'_>),
    (reply, stamp): (&MetaReply, u64),
    place: (&mut usize, usize),
    out: &mut Vec<u8>,
) -> Result<bool, Away> {
    let MetaReply { status, seen } = reply;
    if echo.quiet && is_expected(&meta.act, reply) {
        return Ok(true);
    }
    if let (Act::Debug, Status::Done) = (&meta.act, status) {
        debug(meta, seen, out);
        return Ok(true);
    }
    let value = seen.value.as_ref().filter(|_| *status == Status::Done);
    let text = value.map(Text::of).transpose()?;
    match text {
        Some(text) => {
            out.extend_from_slice(b"VA ");
            write_number(text.len() as u64, out);
        }
        None => out.extend_from_slice(code(*status)),
    }
    for word in echo.flags.clone() {
        let letter = word.first().copied().unwrap_or_default();
        if shows(&meta.act, *status, letter) {
            flag(meta, (letter, word), seen, stamp, out);
        }
    }
    if matches!(meta.act, Act::Get(_)) && *status == Status::Done {
        marks(seen, out);
    }
    out.extend_from_slice(b"\r\n");
    Ok(text.is_none_or(|text| text.write(place, out)))
}

/// The reply that `q` leaves out.
fn is_expected(act: &Act<'_>, MetaReply { status, seen }: &MetaReply) -> bool {
    match act {
        Act::Get(_) => *status == Status::Miss,
        Act::Set(_) | Act::Delete(_) => *status == Status::Done,
        // As memcached, which tells whoever made the number.
        Act::Arith(_) => *status == Status::Done && !seen.created,
        Act::Debug => false,
    }
}

fn code(status: Status) -> &'static [u8] {
    match status {
        Status::Done => b"HD",
        Status::Miss => b"EN",
        Status::NotStored => b"NS",
        Status::Exists => b"EX",
        Status::NotFound => b"NF",
    }
}

/// True if a flag is answered: the key and the opaque always, the rest if there is an entry.
fn shows(act: &Act<'_>, status: Status, letter: u8) -> bool {
    let shown: &[u8] = match (act, status) {
        (Act::Get(_), Status::Done) => b"stcflh",
        (Act::Set(_), _) => b"cs",
        (Act::Arith(_), Status::Done) => b"tc",
        (Act::Get(_) | Act::Delete(_) | Act::Arith(_) | Act::Debug, _) => b"",
    };
    b"kO".contains(&letter) || shown.contains(&letter)
}

fn flag(meta: &Meta<'_>, (letter, word): (u8, &[u8]), seen: &Seen, stamp: u64, out: &mut Vec<u8>) {
    let number = |number: u64, out: &mut Vec<u8>| {
        out.extend_from_slice(&[b' ', letter]);
        write_number(number, out);
    };
    match letter {
        b'k' => {
            // As memcached: what is found says how its own key is shown.
            let binary = match meta.act {
                Act::Get(_) => seen
                    .marks
                    .map_or(meta.key.is_binary(), |it| is_shown_binary(meta, it)),
                Act::Set(_) | Act::Delete(_) | Act::Arith(_) | Act::Debug => meta.key.is_binary(),
            };
            out.extend_from_slice(b" k");
            key(meta, binary, out);
            if binary {
                out.extend_from_slice(b" b");
            }
        }
        b'O' => {
            out.push(b' ');
            out.extend_from_slice(word);
        }
        b's' => {
            if let Some(size) = seen.size {
                number(size as u64, out);
            }
        }
        b't' => match seen.remaining_s {
            Some(seconds) => number(seconds, out),
            None => out.extend_from_slice(b" t-1"),
        },
        b'c' => number(seen.unique.unwrap_or(stamp), out),
        b'f' => number(seen.flags.into(), out),
        b'h' => number(seen.fetched.into(), out),
        b'l' => number(seen.idle_s, out),
        _ => {}
    }
}

/// True if the key of an entry with these marks is shown as base64: it was stored so, or it would
/// not be one word of a line.
fn is_shown_binary(meta: &Meta<'_>, marks: Marks) -> bool {
    marks.has(Marks::BINARY) || meta.key.bytes().iter().any(|byte| b" \n".contains(byte))
}

fn key(meta: &Meta<'_>, binary: bool, out: &mut Vec<u8>) {
    let key = meta.key.bytes();
    if binary {
        out.extend_from_slice(BASE64.encode(key).as_bytes());
    } else {
        out.extend_from_slice(key);
    }
}

/// Whether the entry is stale, and who is to store it anew.
fn marks(seen: &Seen, out: &mut Vec<u8>) {
    let marks = seen.marks.unwrap_or_default();
    if marks.has(Marks::WON) {
        out.extend_from_slice(b" Z");
    }
    if marks.has(Marks::STALE) {
        out.extend_from_slice(b" X");
    }
    if seen.won {
        out.extend_from_slice(b" W");
    }
}

/// The reply to `me`. Memory and class are ours; the rest is as memcached has it.
fn debug(meta: &Meta<'_>, seen: &Seen, out: &mut Vec<u8>) {
    out.extend_from_slice(b"ME ");
    let binary = is_shown_binary(meta, seen.marks.unwrap_or_default());
    key(meta, binary, out);
    out.extend_from_slice(b" exp=");
    match seen.remaining_s {
        Some(seconds) => write_number(seconds, out),
        None => out.extend_from_slice(b"-1"),
    }
    write_line(
        format_args!(
            " la={} cas={} fetch={} cls={} size={}",
            seen.idle_s,
            seen.unique.unwrap_or_default(),
            if seen.fetched { "yes" } else { "no" },
            seen.class,
            seen.memory_bytes,
        ),
        out,
    );
}
