//! The words of a line: runs of bytes between runs of spaces, and what a word may mean.

use super::error::{BAD_FORMAT, Complaint};
use crate::command::Exptime;
use crate::key::decimal;
use crate::limits::KEY_BYTES_MAX;
use crate::value::Delta;

/// The words of a line that have not been taken yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    /// The words of a line without its line end.
    pub fn new(line: &'a [u8]) -> Self {
        Self(line)
    }

    /// Takes a trailing `noreply` away; true if there was one.
    pub fn take_noreply(&mut self) -> bool {
        let line = without_spaces_behind(self.0);
        match line.strip_suffix(b"noreply") {
            Some(rest) if rest.is_empty() || rest.ends_with(b" ") => {
                self.0 = rest;
                true
            }
            Some(_) | None => false,
        }
    }

    /// What has not been taken yet.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// The next word, which must be there.
    pub fn word(&mut self) -> Result<&'a [u8], Complaint> {
        self.next().ok_or(Complaint::Unknown)
    }

    /// The next word as a key.
    pub fn key(&mut self) -> Result<&'a [u8], Complaint> {
        check_key(self.word()?)
    }

    /// The next word as flags: 32 bits.
    pub fn flags(&mut self) -> Result<u32, Complaint> {
        decimal(self.word()?)
            .and_then(|flags| u32::try_from(flags).ok())
            .ok_or(Complaint::Malformed(BAD_FORMAT))
    }

    /// The next word as an expiry in seconds.
    pub fn exptime(&mut self) -> Result<Exptime, Complaint> {
        let word = self.word()?;
        exptime(word).ok_or(Complaint::Malformed("invalid exptime argument"))
    }

    /// The next word as a cas unique.
    pub fn unique(&mut self) -> Result<u64, Complaint> {
        decimal(self.word()?).ok_or(Complaint::Malformed(BAD_FORMAT))
    }

    /// The next word as a signed delta.
    pub fn delta(&mut self) -> Result<Delta, Complaint> {
        let word = self.word()?;
        let digits = word.strip_prefix(b"-");
        decimal(digits.unwrap_or(word))
            .map(|amount| Delta {
                negative: digits.is_some(),
                amount,
            })
            .ok_or(Complaint::Malformed("invalid numeric delta argument"))
    }

    /// At most one word more may follow, which memcached passes over in some lines.
    pub fn end_but_for_one(&mut self) -> Result<(), Complaint> {
        self.next();
        self.end()
    }

    /// Nothing more may follow.
    pub fn end(&mut self) -> Result<(), Complaint> {
        if self.next().is_none() {
            Ok(())
        } else {
            Err(Complaint::Unknown)
        }
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.0.iter().position(|byte| *byte != b' ')?;
        let rest = self.0.get(start..)?;
        let end = memchr::memchr(b' ', rest).unwrap_or(rest.len());
        let (word, rest) = rest.split_at_checked(end)?;
        self.0 = rest;
        Some(word)
    }
}

fn without_spaces_behind(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| *byte != b' ');
    line.get(..end.map_or(0, |last| last + 1))
        .unwrap_or_default()
}

/// A key of at most 250 bytes.
pub fn check_key(key: &[u8]) -> Result<&[u8], Complaint> {
    if key.len() > KEY_BYTES_MAX {
        Err(Complaint::KeyTooLong)
    } else {
        Ok(key)
    }
}

/// An expiry in seconds.
pub(super) fn exptime(word: &[u8]) -> Option<Exptime> {
    let digits = word.strip_prefix(b"-");
    let seconds = i64::try_from(decimal(digits.unwrap_or(word))?).ok()?;
    Some(Exptime(if digits.is_some() { -seconds } else { seconds }))
}
