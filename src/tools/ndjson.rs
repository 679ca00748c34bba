//! The format of a dump: one JSON value a line.
//!
//! ```text
//! {"storage_server_dump":1,"record":1201,"time":"2026-11-20T21:54:39.123Z","types":[...]}
//! {"key":"greeting","type":"NAMED","value":"hello","flags":0,"expires":null}
//! {"key":"1.7","type":"INDEX","value":[5,9],"flags":0,"expires":null}
//! {"key":"1.8","type":"INDEX","value":[[5,1],[9,0]],"flags":0,"expires":1795298079}
//! {"key":"2.17","type":"COUNTER","value":5,"flags":0,"expires":null}
//! {"key":"3.1","type":"DATA","base64":"/wA=","flags":0,"expires":null}
//! {"key":"6.1","type":"COUNTER64","value":"18446744073709551615","flags":0,"expires":null}
//! {"checked":6,"crc32c":"5fc2a0d1"}
//! {"end":6,"crc32c":"0d2b9b11"}
//! ```
//!
//! Invariant: the same state gives the same lines. Named keys come first, then the types; each
//! in ascending order. A `checked` line stands after each block of entries, an `end` line after
//! all; both have the number of entries so far and the checksum (CRC-32C) of all bytes before the
//! line. `expires` is in seconds since 1970, rounded up. A key that was sent as base64 has
//! `"binary":true` in its line.

use std::borrow::Cow;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::command::{View, ViewValue};
use crate::key::Key;
use crate::limits::KEY_BYTES_MAX;
use crate::types::{Kind, TypeTable};
use crate::value::Marks;

/// The version of the format.
pub(super) const VERSION: u32 = 1;
/// The type of a key that has none.
pub(super) const NAMED: &str = "NAMED";
/// A block ends after so many entries,
const BLOCK_ENTRIES: u64 = 1000;
/// or after so many bytes.
const BLOCK_BYTES: usize = 1 << 20;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) storage_server_dump: u32,
    pub(super) record: u64,
    pub(super) time: String,
    pub(super) types: Vec<TypeRow>,
}

/// A declared type.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TypeRow {
    #[serde(rename = "type")]
    pub(super) prefix: u16,
    pub(super) kind: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) target: Option<u16>,
}

/// An entry.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntryLine<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    pub(super) key: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) key_base64: Option<String>,
    #[serde(borrow, rename = "type")]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    pub(super) value: Option<JsonValue<'a>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) base64: Option<String>,
    #[serde(default)]
    pub(super) flags: u32,
    #[serde(default)]
    pub(super) expires: Option<u64>,
    /// The key was sent as base64, and meta commands show it so.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub(super) binary: bool,
}

/// A value, by its type.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum JsonValue<'a> {
    Number(u64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
    Ids(Vec<u32>),
    Members(Vec<(u32, u32)>),
}

/// The line after a block, or after all.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Checked {
    #[serde(rename = "checked", skip_serializing_if = "Option::is_none", default)]
    pub(super) so_far: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) end: Option<u64>,
    pub(super) crc32c: String,
}

/// A checksum as it stands in a line.
pub(super) fn crc_text(crc: u32) -> String {
    format!("{crc:08x}")
}

/// The types as they stand in the header.
pub(super) fn type_rows(types: &TypeTable) -> Vec<TypeRow> {
    let rows = types.rows().iter().map(|row| TypeRow {
        prefix: row.prefix,
        kind: row.kind.name().to_owned(),
        target: row.target,
    });
    rows.collect()
}

impl<'a> EntryLine<'a> {
    /// The line of an entry; `None` if memory does not have its value.
    pub(super) fn of(key: Key<'a>, view: &View<'a>, types: &TypeTable) -> Option<Self> {
        let (text, key_base64, kind) = match key {
            Key::Typed(number) => {
                let kind = types.get(number.prefix).map_or(Kind::Data, |row| row.kind);
                (Some(Cow::Owned(key.to_string())), None, kind.name())
            }
            Key::Named(name) => {
                let (text, base64) = text_or_base64(name);
                (text, base64, NAMED)
            }
        };
        let (value, base64) = match view.value {
            ViewValue::Number(number) if kind == Kind::Counter64.name() => {
                (Some(JsonValue::Text(number.to_string().into())), None)
            }
            ViewValue::Number(number) => (Some(JsonValue::Number(number)), None),
            ViewValue::Index(index) if index.iter().all(|member| member.attribute == 0) => {
                let ids = index.iter().map(|member| member.id).collect();
                (Some(JsonValue::Ids(ids)), None)
            }
            ViewValue::Index(index) => {
                let members = index.iter().map(|member| (member.id, member.attribute));
                (Some(JsonValue::Members(members.collect())), None)
            }
            ViewValue::Data(blob) => {
                let (text, base64) = text_or_base64(blob.bytes()?);
                (text.map(JsonValue::Text), base64)
            }
        };
        Some(Self {
            key: text,
            key_base64,
            kind: kind.into(),
            value,
            base64,
            flags: view.flags,
            expires: view.expires.time().map(|time| time.0.div_ceil(1000)),
            binary: view.marks().has(Marks::BINARY),
        })
    }

    /// The requests that set it, in bodies of at most `body_max` bytes: more than one only of an
    /// INDEX. The inner error is of an entry that is in order, but that no server can have.
    pub(super) fn requests(
        &self,
        body_max: usize,
    ) -> Result<Result<Vec<Vec<u8>>, &'static str>, &'static str> {
        let (key, bodies) = (self.key()?, self.bodies(body_max)?);
        let (expires, flags) = (self.expires.unwrap_or(0), self.flags);
        let plain = |byte: &u8| !byte.is_ascii_control() && *byte != b' ';
        let binary = self.binary || !key.iter().all(plain);
        let key = if binary {
            Cow::Owned(STANDARD.encode(&key).into_bytes())
        } else {
            key
        };
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Ok(Err("its key cannot be one"));
        }
        let requests = bodies.iter().enumerate().map(|(part, body)| {
            let (len, first) = (body.len(), part == 0);
            let (verb, rest) = match (binary, first) {
                (false, true) => ("set ", format!(" {flags} {expires} {len}")),
                (false, false) => ("append ", format!(" {flags} {expires} {len}")),
                (true, true) => ("ms ", format!(" {len} b F{flags} T{expires}")),
                (true, false) => ("ms ", format!(" {len} b MA")),
            };
            [
                verb.as_bytes(),
                &key,
                rest.as_bytes(),
                b"\r\n",
                body,
                b"\r\n",
            ]
            .concat()
        });
        Ok(Ok(requests.collect()))
    }

    /// The bytes of the key.
    pub(super) fn key(&self) -> Result<Cow<'_, [u8]>, &'static str> {
        match (&self.key, &self.key_base64) {
            (Some(text), None) => Ok(Cow::Borrowed(text.as_bytes())),
            (None, Some(base64)) => decode(base64).map(Cow::Owned),
            _ => Err("it has no key, or two"),
        }
    }

    /// The value as a client sends it, in bodies of at most `body_max` bytes: more than one only
    /// of an INDEX.
    fn bodies(&self, body_max: usize) -> Result<Vec<Cow<'_, [u8]>>, &'static str> {
        match (&self.value, &self.base64, &*self.kind) {
            (Some(JsonValue::Number(number)), None, "COUNTER" | "COUNTER64") => {
                Ok(vec![number.to_string().into_bytes().into()])
            }
            (Some(JsonValue::Text(text)), None, "COUNTER64" | "DATA" | NAMED) => {
                Ok(vec![text.as_bytes().into()])
            }
            (None, Some(base64), "DATA" | NAMED) => Ok(vec![decode(base64)?.into()]),
            (Some(JsonValue::Ids(ids)), None, "INDEX") => {
                let members = ids.iter().map(ToString::to_string);
                Ok(joined(members, body_max))
            }
            (Some(JsonValue::Members(members)), None, "INDEX") => {
                let members = members
                    .iter()
                    .map(|(id, attribute)| format!("{id} {attribute}"));
                Ok(joined(members, body_max))
            }
            _ => Err("its value is not of its type"),
        }
    }
}

/// Lines joined to bodies of at most `body_max` bytes; one empty body if there are none.
fn joined<'a>(lines: impl Iterator<Item = String>, body_max: usize) -> Vec<Cow<'a, [u8]>> {
    let mut bodies = Vec::new();
    let mut body = Vec::new();
    for line in lines {
        if !body.is_empty() {
            if body.len() + 1 + line.len() > body_max {
                bodies.push(Cow::Owned(std::mem::take(&mut body)));
            } else {
                body.push(b'\n');
            }
        }
        body.extend_from_slice(line.as_bytes());
    }
    bodies.push(Cow::Owned(body));
    bodies
}

fn text_or_base64(bytes: &[u8]) -> (Option<Cow<'_, str>>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(Cow::Borrowed(text)), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

fn decode(base64: &str) -> Result<Vec<u8>, &'static str> {
    STANDARD
        .decode(base64)
        .map_err(|_| "its base64 cannot be read")
}

/// Writes a dump.
pub(super) struct DumpWriter<W: Write> {
    out: W,
    crc: u32,
    entries: u64,
    block_entries: u64,
    block_bytes: usize,
    line: Vec<u8>,
}

impl<W: Write> DumpWriter<W> {
    /// Begins one.
    pub(super) fn begin(out: W, header: &Header) -> io::Result<Self> {
        let mut writer = Self {
            out,
            crc: 0,
            entries: 0,
            block_entries: 0,
            block_bytes: 0,
            line: Vec::new(),
        };
        writer.line(header)?;
        Ok(writer)
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line)?;
        self.line.push(b'\n');
        self.crc = crc32c::crc32c_append(self.crc, &self.line);
        self.block_bytes += self.line.len();
        self.out.write_all(&self.line)
    }

    /// Writes an entry, and ends its block if that is large enough.
    pub(super) fn entry(&mut self, entry: &EntryLine<'_>) -> io::Result<()> {
        self.line(entry)?;
        self.entries += 1;
        self.block_entries += 1;
        if self.block_entries < BLOCK_ENTRIES && self.block_bytes < BLOCK_BYTES {
            return Ok(());
        }
        let checked = Checked {
            so_far: Some(self.entries),
            end: None,
            crc32c: crc_text(self.crc),
        };
        self.line(&checked)?;
        self.block_entries = 0;
        self.block_bytes = 0;
        Ok(())
    }

    /// Ends it; answers the number of entries, and the writer to be synced.
    pub(super) fn finish(mut self) -> io::Result<(u64, W)> {
        let end = Checked {
            so_far: None,
            end: Some(self.entries),
            crc32c: crc_text(self.crc),
        };
        self.line(&end)?;
        self.out.flush()?;
        Ok((self.entries, self.out))
    }
}
