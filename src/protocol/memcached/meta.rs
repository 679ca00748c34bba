//! The lines of the meta commands: `mg ms md ma mn me`, a key and flags of one letter each,
//! some with a token behind the letter.
//!
//! What is wrong with a line is told as memcached 1.6 tells it, which names the last wrong token
//! but for a letter that is unknown or comes twice.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use smallvec::{SmallVec, smallvec};

use super::Request;
use super::error::{Complaint, Failure};
use super::storage::{Announced, Stores, length_of, too_long};
use super::verbs::Line;
use super::words::{Words, check_key, exptime};
use crate::command::meta::{Act, Delete, Get, Meta, MetaKey, Set, Step, Turn};
use crate::command::{Exptime, Mode};
use crate::key::decimal;

/// The flags of a request as sent, for its reply.
#[derive(Clone, Debug, PartialEq)]
pub struct Echo<'a> {
    /// The flags.
    pub flags: Words<'a>,
    /// Whether the expected reply is left out.
    pub quiet: bool,
}

/// The longest opaque, with its letter.
const OPAQUE_BYTES_MAX: usize = 32;

/// As memcached: from this byte on a letter is none.
const LETTERS_END: u8 = 127;

/// The most words of a line, as memcached has it: all those before the flags count.
const WORDS_MAX: usize = 19;

const BAD_LINE: Complaint = Complaint::Malformed("bad command line format");
const BAD_TOKEN: Complaint = Complaint::Malformed("bad token in command line format");
const BAD_FLAG: Complaint = Complaint::Malformed("invalid or duplicate flag");

/// What the flags of a line say.
#[derive(Default)]
struct Flags {
    turns: SmallVec<[Turn; 4]>,
    exptime: Option<Exptime>,
    vivify: Option<Exptime>,
    of_client: u32,
    compare: Option<u64>,
    unique: Option<u64>,
    mode: Option<u8>,
    delta: Option<u64>,
    initial: u64,
    opaque_bytes: usize,
    /// A bit for each letter that is there.
    letters: u128,
}

impl Flags {
    /// Reads the flags, one of which may say that the key is base64.
    fn read<'a>(key: &'a [u8], words: Words<'a>) -> Result<(MetaKey<'a>, Self), Complaint> {
        let mut flags = Self::default();
        let mut key = MetaKey::Text(key);
        let mut wrong = None;
        for word in words {
            let (letter, token) = word.split_first().unwrap_or((&0, &[]));
            if *letter >= LETTERS_END || flags.has(*letter) {
                return Err(Complaint::Malformed("duplicate flag"));
            }
            flags.letters |= 1 << *letter;
            let read = match letter {
                b'b' => decoded(key.bytes()).map(|decoded| key = decoded),
                letter => flags.flag(*letter, token),
            };
            match read {
                Ok(()) => {}
                Err(complaint @ Complaint::Malformed(INVALID_FLAG)) => return Err(complaint),
                // As memcached, which says this where it has nothing else to say.
                Err(BAD_LINE) => wrong = wrong.or(Some(BAD_LINE)),
                Err(complaint) => wrong = Some(complaint),
            }
        }
        wrong.map_or(Ok((key, flags)), Err)
    }

    fn has(&self, letter: u8) -> bool {
        self.letters >> letter & 1 == 1
    }

    fn flag(&mut self, letter: u8, token: &[u8]) -> Result<(), Complaint> {
        let number = || decimal(token).ok_or(BAD_TOKEN);
        let time = || exptime(token).ok_or(BAD_TOKEN);
        match letter {
            b'N' => {
                self.vivify = Some(time()?);
                self.turns.push(Turn::Vivified(time()?));
            }
            b'T' => {
                self.exptime = Some(time()?);
                self.turns.push(Turn::Expire(time()?));
            }
            b'R' => self.turns.push(Turn::Recache(time()?)),
            b't' => self.turns.push(Turn::Remaining),
            b'F' => {
                let flags = decimal(token).and_then(|flags| u32::try_from(flags).ok());
                self.of_client = flags.ok_or(BAD_LINE)?;
            }
            b'C' => self.compare = Some(number()?),
            b'E' => self.unique = Some(number()?),
            b'M' => match token {
                [mode] => self.mode = Some(*mode),
                _ => return Err(Complaint::Malformed("incorrect length for M token")),
            },
            b'J' => {
                let initial = decimal(token);
                self.initial =
                    initial.ok_or(Complaint::Malformed("invalid numeric initial value"))?;
            }
            b'D' => {
                let delta = decimal(token);
                self.delta =
                    Some(delta.ok_or(Complaint::Malformed("invalid numeric delta value"))?);
            }
            b'O' => self.opaque_bytes = 1 + token.len(),
            // What stands for itself, or is only shown, or is for a proxy.
            b'c' | b'f' | b'h' | b'I' | b'k' | b'L' | b'l' | b'P' | b'q' | b's' | b'u' | b'v'
            | b'x' => {}
            _ => return Err(Complaint::Malformed(INVALID_FLAG)),
        }
        Ok(())
    }

    fn check_opaque(&self) -> Result<(), Complaint> {
        if self.opaque_bytes > OPAQUE_BYTES_MAX {
            Err(Complaint::Malformed("opaque token too long"))
        } else {
            Ok(())
        }
    }
}

/// The key that was sent as base64.
fn decoded<'a>(key: &[u8]) -> Result<MetaKey<'a>, Complaint> {
    match BASE64.decode(key) {
        Ok(decoded) if !decoded.is_empty() => Ok(MetaKey::Binary(decoded.into())),
        Ok(_) | Err(_) => Err(Complaint::Malformed("error decoding key")),
    }
}

const INVALID_FLAG: &str = "invalid flag";
const TOO_MANY: &str = "options flags too long";

/// The key of a line and its flags; what is said of too many depends on the command.
fn key_and_flags<'a>(
    words: &mut Words<'a>,
    too_many: &'static str,
) -> Result<(MetaKey<'a>, Flags), Complaint> {
    let key = check_key(words.word()?)?;
    check_count(2, words, too_many)?;
    Flags::read(key, words.clone())
}

/// Refuses more flags than memcached has room for.
fn check_count(before: usize, flags: &Words<'_>, too_many: &'static str) -> Result<(), Complaint> {
    if before + flags.clone().count() > WORDS_MAX {
        Err(Complaint::Malformed(too_many))
    } else {
        Ok(())
    }
}

fn request<'a>(key: MetaKey<'a>, act: Act<'a>, flags: Words<'a>, quiet: bool) -> Line<'a> {
    Line::Whole(Request::meta(Meta { key, act }, Echo { flags, quiet }))
}

/// `mg <key> <flag>*`
pub(super) fn get(mut words: Words<'_>) -> Result<Line<'_>, Failure> {
    let (key, flags) = key_and_flags(&mut words, "options flags are too long")?;
    flags.check_opaque()?;
    let get = Get {
        value: flags.has(b'v'),
        unique: flags.unique,
        unseen: flags.has(b'u'),
        turns: flags.turns.clone(),
    };
    Ok(request(key, Act::Get(get), words, flags.has(b'q')))
}

/// `ms <key> <bytes> <flag>*`
pub(super) fn set(mut words: Words<'_>, value_max: usize) -> Result<Announced<'_>, Failure> {
    let key = words.word()?;
    let length = length_of(words.next().ok_or(BAD_LINE)?)?;
    let failed = |complaint| Failure {
        complaint,
        skip: smallvec![length],
    };
    let (key, set, quiet) = set_of(key, words.clone()).map_err(failed)?;
    if too_long(length, value_max) {
        return Err(failed(Complaint::TooLarge));
    }
    Ok(Announced {
        lengths: smallvec![length],
        noreply: false,
        stores: Stores::Meta {
            key,
            set: Box::new(set),
            echo: Echo {
                flags: words,
                quiet,
            },
        },
    })
}

fn set_of<'a>(key: &'a [u8], words: Words<'a>) -> Result<(MetaKey<'a>, Set<'a>, bool), Complaint> {
    let key = check_key(key)?;
    check_count(3, &words, TOO_MANY)?;
    let (key, flags) = Flags::read(key, words)?;
    let mode = match flags.mode {
        None | Some(b'S') => Mode::Set,
        Some(b'E') => Mode::Add,
        Some(b'A') => Mode::Append,
        Some(b'P') => Mode::Prepend,
        Some(b'R') => Mode::Replace,
        Some(_) => return Err(Complaint::Malformed("invalid mode for ms M token")),
    };
    flags.check_opaque()?;
    let set = Set {
        mode,
        compare: flags.compare,
        unique: flags.unique,
        invalidate: flags.has(b'I'),
        vivify: flags.vivify,
        flags: flags.of_client,
        exptime: flags.exptime.unwrap_or(Exptime(0)),
        shows_size: flags.has(b's'),
        body: &[],
    };
    Ok((key, set, flags.has(b'q')))
}

/// As memcached: these two do not say which flag.
fn which_flag(complaint: Complaint) -> Complaint {
    match complaint {
        Complaint::Malformed(TOO_MANY) => complaint,
        Complaint::Malformed(_) => BAD_FLAG,
        complaint => complaint,
    }
}

/// `md <key> <flag>*`
pub(super) fn delete(mut words: Words<'_>) -> Result<Line<'_>, Failure> {
    let (key, flags) = key_and_flags(&mut words, TOO_MANY).map_err(which_flag)?;
    flags.check_opaque()?;
    let delete = Delete {
        compare: flags.compare,
        unique: flags.unique,
        invalidate: flags.has(b'I'),
        empty: flags.has(b'x'),
        client_flags: flags.of_client,
        exptime: flags.exptime,
    };
    Ok(request(key, Act::Delete(delete), words, flags.has(b'q')))
}

/// `ma <key> <flag>*`
pub(super) fn arith(mut words: Words<'_>) -> Result<Line<'_>, Failure> {
    let (key, flags) = key_and_flags(&mut words, TOO_MANY).map_err(which_flag)?;
    let decr = match flags.mode {
        None | Some(b'I' | b'+') => false,
        Some(b'D' | b'-') => true,
        Some(_) => return Err(Complaint::Malformed("invalid mode for ma M token").into()),
    };
    flags.check_opaque()?;
    let step = Step {
        decr,
        delta: flags.delta.unwrap_or(1),
        vivify: flags.vivify,
        initial: flags.initial,
        compare: flags.compare,
        unique: flags.unique,
        value: flags.has(b'v'),
        shows_unique: flags.has(b'c'),
        turns: flags.turns.clone(),
    };
    Ok(request(key, Act::Arith(step), words, flags.has(b'q')))
}

/// `me <key> [b]`
pub(super) fn debug(mut words: Words<'_>) -> Result<Line<'_>, Failure> {
    let key = check_key(words.next().ok_or(BAD_LINE)?)?;
    let key = match words.next() {
        Some(b"b") => decoded(key).map_err(|_| BAD_LINE)?,
        Some(_) | None => MetaKey::Text(key),
    };
    Ok(request(key, Act::Debug, Words::new(&[]), false))
}
