//! The lines that announce data blocks: `set` and its family, and `mset`.

use smallvec::{SmallVec, smallvec};

use super::Request;
use super::error::{BAD_FORMAT, Complaint, Failure};
use super::meta::Echo;
use super::words::{Words, check_key};
use crate::command::meta::{Act, Meta, MetaKey, Set};
use crate::command::{Command, Exptime, Mode, Put};

/// A storage line that is in order; its blocks are still to come.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Announced<'a> {
    /// What is to be stored, with empty bodies.
    pub(super) stores: Stores<'a>,
    /// The length of each block.
    pub(super) lengths: SmallVec<[u64; 1]>,
    /// No reply is wanted.
    pub(super) noreply: bool,
}

/// What a storage line is to store.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stores<'a> {
    /// One value.
    One(Put<'a>),
    /// `mset`, even of one item: one reply for all.
    Many(Vec<Put<'a>>),
    /// `ms`
    Meta {
        key: MetaKey<'a>,
        set: Box<Set<'a>>,
        echo: Echo<'a>,
    },
}

impl<'a> Announced<'a> {
    /// The request, once its blocks have come.
    pub(super) fn request(self, bodies: &[&'a [u8]]) -> Request<'a> {
        let first = bodies.first().copied().unwrap_or_default();
        let command = match self.stores {
            Stores::One(mut put) => {
                put.body = first;
                Command::Put(put)
            }
            Stores::Many(mut puts) => {
                for (put, body) in puts.iter_mut().zip(bodies) {
                    put.body = body;
                }
                Command::PutMany(puts)
            }
            Stores::Meta { key, mut set, echo } => {
                set.body = first;
                let act = Act::Set(set);
                return Request::meta(Meta { key, act }, echo);
            }
        };
        Request::data(command, self.noreply)
    }
}

/// As memcached, no length of 2 GiB or more is believed.
const LENGTH_MAX: u64 = i32::MAX as u64 - 2;

/// Reads the line of a single-block command after its verb; of `cas`, with one word more.
pub(super) fn announce_one(
    mut words: Words<'_>,
    mode: Mode,
    value_max: usize,
) -> Result<Announced<'_>, Failure> {
    let noreply = words.take_noreply();
    let (key, flags, exptime, length) =
        (words.word()?, words.word()?, words.word()?, words.word()?);
    let length = length_of(length)?;
    let failed = |complaint| Failure {
        complaint,
        skip: smallvec![length],
    };
    let mut put = put(key, flags, exptime).map_err(failed)?;
    put.mode = mode;
    if let Mode::Cas(unique) = &mut put.mode {
        *unique = words.unique().map_err(failed)?;
    }
    // As memcached: one word more is passed over, with two the line is no command.
    if words.count() > 1 {
        return Err(failed(Complaint::Unknown));
    }
    if too_long(length, value_max) {
        return Err(failed(Complaint::TooLarge));
    }
    Ok(Announced {
        stores: Stores::One(put),
        lengths: smallvec![length],
        noreply,
    })
}

/// Reads the line of `mset` after its verb.
pub(super) fn announce_many(
    mut words: Words<'_>,
    value_max: usize,
) -> Result<Announced<'_>, Failure> {
    let noreply = words.take_noreply();
    let (mut puts, mut lengths) = (Vec::new(), SmallVec::new());
    let mut complaint = None;
    while let Some(key) = words.next() {
        // With a word missing nobody can know which blocks will follow.
        let (Some(flags), Some(exptime), Some(length)) = (words.next(), words.next(), words.next())
        else {
            return Err(Complaint::BadLength.into());
        };
        lengths.push(length_of(length)?);
        match put(key, flags, exptime) {
            Ok(put) => puts.push(put),
            Err(found) => complaint = complaint.or(Some(found)),
        }
    }
    if lengths.is_empty() {
        return Err(Complaint::Unknown.into());
    }
    if too_long(lengths.iter().sum(), value_max) {
        complaint = complaint.or(Some(Complaint::TooLarge));
    }
    match complaint {
        Some(complaint) => Err(Failure {
            complaint,
            skip: lengths,
        }),
        None => Ok(Announced {
            stores: Stores::Many(puts),
            lengths,
            noreply,
        }),
    }
}

fn put<'a>(key: &'a [u8], flags: &'a [u8], exptime: &'a [u8]) -> Result<Put<'a>, Complaint> {
    let key = check_key(key)?;
    let flags = Words::new(flags).flags()?;
    let exptime = Words::new(exptime).exptime();
    let exptime: Exptime = exptime.map_err(|_| Complaint::Malformed(BAD_FORMAT))?;
    Ok(Put {
        key,
        mode: Mode::Set,
        flags,
        exptime,
        body: &[],
    })
}

pub(super) fn length_of(word: &[u8]) -> Result<u64, Complaint> {
    crate::key::decimal(word)
        .filter(|length| *length <= LENGTH_MAX)
        .ok_or(Complaint::BadLength)
}

pub(super) fn too_long(length: u64, value_max: usize) -> bool {
    usize::try_from(length).map_or(true, |length| length > value_max)
}
