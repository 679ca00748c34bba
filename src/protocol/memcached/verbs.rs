//! The table of commands: name, usage, what it is for, and how its line is read. The README's
//! table is made from it and a test compares them.

use super::error::{BAD_FORMAT, Complaint, Failure};
use super::storage::{Announced, announce_many, announce_one};
use super::words::{Words, check_key};
use super::{Admin, Dump, Form, Request, meta};
use crate::command::{Arith, Command, Exptime, Fetch, Mode};
use crate::limits::FETCH_KEYS_MAX;

/// The longest `lru_crawler sleep`, in microseconds.
const SECOND_US: u64 = 1_000_000;

/// A command of the protocol.
#[derive(Clone, Copy)]
pub struct Verb {
    /// The first word of the line.
    pub name: &'static str,
    /// The line's form.
    pub usage: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// Lines up to 1 MiB instead of 2 KiB.
    pub long_line: bool,
    pub(super) read: Reader,
}

/// Reads the words after the verb; `usize` is the longest value.
pub(super) type Reader = for<'a> fn(Words<'a>, usize) -> Result<Line<'a>, Failure>;

/// What a line turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Line<'a> {
    /// A whole request.
    Whole(Request<'a>),
    /// A request whose blocks follow.
    Announced(Announced<'a>),
}

impl Verb {
    /// True if the line of these words, which is in error, ends with `noreply`. As memcached,
    /// which counts the words first: where too few are left of the others it is one of them, and
    /// the error is answered, as all errors of commands without `noreply` are.
    pub(super) fn is_noreply(&self, mut words: Words<'_>) -> bool {
        let needed = self.usage.split('[').next().unwrap_or_default();
        let needed = needed.matches('<').count();
        self.usage.ends_with("[noreply]") && words.clone().count() >= needed && words.take_noreply()
    }
}

const fn verb(
    name: &'static str,
    usage: &'static str,
    summary: &'static str,
    read: Reader,
) -> Verb {
    Verb {
        name,
        usage,
        summary,
        long_line: false,
        read,
    }
}

const fn long(verb: Verb) -> Verb {
    Verb {
        long_line: true,
        ..verb
    }
}

/// Every command, the most frequent ones first.
pub static VERBS: &[Verb] = &[
    long(verb(
        "get",
        "get <key>+",
        "The values of one or more keys.",
        |words, _| fetch(words, None, false),
    )),
    verb(
        "set",
        "set <key> <flags> <exptime> <bytes> [noreply]",
        "Store.",
        |words, max| announce_one(words, Mode::Set, max).map(Line::Announced),
    ),
    long(verb(
        "gets",
        "gets <key>+",
        "The values with their cas uniques.",
        |words, _| fetch(words, None, true),
    )),
    verb(
        "incr",
        "incr <key> <delta> [<target type>] [noreply]",
        "Add to a number; of an INDEX, add to the counter of every member.",
        |words, _| arith(words, false),
    ),
    verb(
        "decr",
        "decr <key> <delta> [<target type>] [noreply]",
        "Subtract, not below 0; of an INDEX, from the counter of every member.",
        |words, _| arith(words, true),
    ),
    verb("delete", "delete <key> [noreply]", "Remove.", |words, _| {
        delete(words)
    }),
    verb(
        "add",
        "add <key> <flags> <exptime> <bytes> [noreply]",
        "Store if the key is not there.",
        |words, max| announce_one(words, Mode::Add, max).map(Line::Announced),
    ),
    verb(
        "replace",
        "replace <key> <flags> <exptime> <bytes> [noreply]",
        "Store if the key is there.",
        |words, max| announce_one(words, Mode::Replace, max).map(Line::Announced),
    ),
    verb(
        "append",
        "append <key> <flags> <exptime> <bytes> [noreply]",
        "Add bytes at the end; to an INDEX, add members.",
        |words, max| announce_one(words, Mode::Append, max).map(Line::Announced),
    ),
    verb(
        "prepend",
        "prepend <key> <flags> <exptime> <bytes> [noreply]",
        "Add bytes at the front; from an INDEX, remove members.",
        |words, max| announce_one(words, Mode::Prepend, max).map(Line::Announced),
    ),
    verb(
        "cas",
        "cas <key> <flags> <exptime> <bytes> <cas unique> [noreply]",
        "Store if the entry has not changed since `gets`.",
        |words, max| announce_one(words, Mode::Cas(0), max).map(Line::Announced),
    ),
    long(verb(
        "mset",
        "mset (<key> <flags> <exptime> <bytes>)+ [noreply]",
        "Store several, all or none; the blocks follow in order.",
        |words, max| announce_many(words, max).map(Line::Announced),
    )),
    verb(
        "touch",
        "touch <key> <exptime> [noreply]",
        "Change the expiry.",
        |words, _| touch(words),
    ),
    long(verb(
        "gat",
        "gat <exptime> <key>+",
        "The values, and a new expiry for each.",
        |mut words, _| {
            let exptime = words.exptime()?;
            fetch(words, Some(exptime), false)
        },
    )),
    long(verb(
        "gats",
        "gats <exptime> <key>+",
        "`gat` with cas uniques.",
        |mut words, _| {
            let exptime = words.exptime()?;
            fetch(words, Some(exptime), true)
        },
    )),
    verb(
        "mg",
        "mg <key> <flag>*",
        "An entry, or what is known of it.",
        |words, _| meta::get(words),
    ),
    verb(
        "ms",
        "ms <key> <bytes> <flag>*",
        "Store, in one of several modes.",
        |words, max| meta::set(words, max).map(Line::Announced),
    ),
    verb(
        "md",
        "md <key> <flag>*",
        "Remove, or mark as stale.",
        |words, _| meta::delete(words),
    ),
    verb(
        "ma",
        "ma <key> <flag>*",
        "Add to a number or subtract; of an INDEX, the fan-out.",
        |words, _| meta::arith(words),
    ),
    verb(
        "mn",
        "mn",
        "Answers `MN`: the end of a row of quiet commands.",
        |_, _| admin(Admin::NoOp),
    ),
    verb(
        "me",
        "me <key> [b]",
        "What an operator may want to know of an entry.",
        |words, _| meta::debug(words),
    ),
    verb(
        "flush_all",
        "flush_all [<delay>] [noreply]",
        "Remove everything.",
        |words, _| flush_all(words),
    ),
    verb(
        "stats",
        "stats [<topic>]",
        "Figures about the server.",
        |words, _| stats(words),
    ),
    verb(
        "show",
        "show types",
        "The declared types.",
        |mut words, _| match (words.next(), words.next()) {
            (Some(b"types"), None) => Ok(Line::Whole(Request::admin(Admin::ShowTypes))),
            (Some(_) | None, _) => Err(Complaint::Unknown.into()),
        },
    ),
    verb(
        "lru_crawler",
        "lru_crawler (metadump|mgdump|crawl) (all|hash|<type>,...)",
        "List the keys, with or without what is known of them; type 0 are the named keys.",
        |words, _| lru_crawler(words),
    ),
    verb(
        "cache_memlimit",
        "cache_memlimit <MiB> [noreply]",
        "Set `memory_limit` until the configuration is read again.",
        |words, _| cache_memlimit(words),
    ),
    verb("version", "version", "The server's version.", |_, _| {
        admin(Admin::Version)
    }),
    verb(
        "verbosity",
        "verbosity <level> [noreply]",
        "Accepted and ignored.",
        |words, _| verbosity(words),
    ),
    verb(
        "reopen",
        "reopen",
        "As HUP: reopen the log and the data files, read the configuration.",
        |mut words, _| {
            words
                .end()
                .map_err(Failure::from)
                .and_then(|()| admin(Admin::Reopen))
        },
    ),
    verb(
        "snapshot",
        "snapshot",
        "Write a snapshot; `OK` when it has been read back.",
        |mut words, _| {
            words
                .end()
                .map_err(Failure::from)
                .and_then(|()| admin(Admin::Snapshot))
        },
    ),
    verb(
        "term",
        "term",
        "As TERM: stop gracefully.",
        |mut words, _| {
            words
                .end()
                .map_err(Failure::from)
                .and_then(|()| admin(Admin::Terminate))
        },
    ),
    verb(
        "shutdown",
        "shutdown [graceful]",
        "As TERM: stop gracefully.",
        |mut words, _| match (words.next(), words.next()) {
            (None | Some(b"graceful"), None) => admin(Admin::Terminate),
            (Some(_) | None, _) => {
                Err(Complaint::Malformed("invalid shutdown mode: only graceful").into())
            }
        },
    ),
    verb("quit", "quit", "Close the connection.", |_, _| {
        admin(Admin::Quit)
    }),
];

/// The command of that name.
pub fn find(name: &[u8]) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| verb.name.as_bytes() == name)
}

#[expect(clippy::unnecessary_wraps, reason = "a Reader returns a Result")]
fn admin(admin: Admin<'_>) -> Result<Line<'_>, Failure> {
    Ok(Line::Whole(Request::admin(admin)))
}

#[expect(clippy::unnecessary_wraps, reason = "a Reader returns a Result")]
fn data(command: Command<'_>, noreply: bool) -> Result<Line<'_>, Failure> {
    Ok(Line::Whole(Request::data(command, noreply)))
}

fn fetch(words: Words<'_>, touch: Option<Exptime>, with_cas: bool) -> Result<Line<'_>, Failure> {
    let keys = words.map(check_key).collect::<Result<_, _>>()?;
    let fetch = Fetch { keys, touch };
    if fetch.keys.len() > FETCH_KEYS_MAX {
        return Err(Complaint::Malformed("too many keys").into());
    }
    // As memcached: `gat` of no key finds nothing, `get` of none is no command.
    if fetch.keys.is_empty() && touch.is_none() {
        return Err(Complaint::Unknown.into());
    }
    let request = Request::data(Command::Fetch(fetch), false);
    let form = if with_cas { Form::WithCas } else { Form::Plain };
    Ok(Line::Whole(Request { form, ..request }))
}

fn arith(mut words: Words<'_>, decr: bool) -> Result<Line<'_>, Failure> {
    let noreply = words.take_noreply();
    let (key, delta) = (words.key()?, words.delta()?);
    let target = words.next().map(|word| {
        crate::key::decimal(word)
            .and_then(|prefix| u16::try_from(prefix).ok())
            .ok_or(Complaint::Malformed("target type is not in 1..65535"))
    });
    words.end()?;
    data(
        Command::Arith(Arith {
            key,
            decr,
            delta,
            target: target.transpose()?,
        }),
        noreply,
    )
}

fn delete(mut words: Words<'_>) -> Result<Line<'_>, Failure> {
    // As memcached: `noreply` alone is the key.
    let noreply = words.clone().nth(1).is_some() && words.take_noreply();
    let key = words.key()?;
    let time = words.next();
    match (time, words.next()) {
        // Old clients send a time of 0.
        (None | Some(b"0"), None) => data(Command::Delete { key }, noreply),
        (Some(_) | None, _) if words.next().is_some() => Err(Complaint::Unknown.into()),
        (Some(_) | None, _) => Err(Complaint::Malformed(
            "bad command line format.  Usage: delete <key> [noreply]",
        )
        .into()),
    }
}

fn touch(mut words: Words<'_>) -> Result<Line<'_>, Failure> {
    let noreply = words.take_noreply();
    let (key, exptime) = (words.key()?, words.exptime()?);
    words.end_but_for_one()?;
    data(Command::Touch { key, exptime }, noreply)
}

fn flush_all(mut words: Words<'_>) -> Result<Line<'_>, Failure> {
    let noreply = words.take_noreply();
    let delay = if words.clone().next().is_some() {
        words.exptime()?
    } else {
        Exptime(0)
    };
    words.end_but_for_one()?;
    data(Command::FlushAll { delay }, noreply)
}

fn stats(mut words: Words<'_>) -> Result<Line<'_>, Failure> {
    let topic = words.next().unwrap_or_default();
    if topic != b"cachedump" {
        return admin(Admin::Stats(topic, words.rest()));
    }
    let (Some(classes), Some(limit)) = (words.next(), words.next()) else {
        return Err(Complaint::Malformed("bad command line").into());
    };
    let number = |word| crate::key::decimal(word).ok_or(Complaint::Malformed(BAD_FORMAT));
    number(classes)?;
    admin(Admin::Dump {
        dump: Dump::Cache,
        classes,
        limit: number(limit)?,
    })
}

fn lru_crawler(mut words: Words<'_>) -> Result<Line<'_>, Failure> {
    let (action, word) = (words.word()?, words.next());
    words.end()?;
    let dump = |dump, classes| Admin::Dump {
        dump,
        classes,
        limit: 0,
    };
    admin(match (action, word) {
        (b"metadump", Some(classes)) => dump(Dump::Meta, classes),
        (b"mgdump", Some(classes)) => dump(Dump::Mg, classes),
        (b"crawl", Some(classes)) => Admin::Crawl(classes),
        (b"enable" | b"disable", None) => Admin::Crawler,
        (b"sleep" | b"tocrawl", Some(number)) => {
            let number = crate::key::decimal(number).ok_or(Complaint::Malformed(BAD_FORMAT))?;
            if action == b"sleep" && number > SECOND_US {
                let cause = "sleep must be one second or less";
                return Err(Complaint::Malformed(cause).into());
            }
            Admin::Crawler
        }
        (_, Some(_) | None) => return Err(Complaint::Unknown.into()),
    })
}

fn cache_memlimit(mut words: Words<'_>) -> Result<Line<'_>, Failure> {
    // As memcached: `noreply` alone is no number, and not answered either.
    let noreply = words.take_noreply();
    let limit = words.next();
    words.end_but_for_one()?;
    if limit.is_none() && !noreply {
        return Err(Complaint::Unknown.into());
    }
    Ok(Line::Whole(Request {
        noreply,
        ..Request::admin(Admin::CacheMemlimit(limit.and_then(crate::key::decimal)))
    }))
}

fn verbosity(mut words: Words<'_>) -> Result<Line<'_>, Failure> {
    let noreply = words.take_noreply();
    let level = words.next();
    words.end_but_for_one()?;
    match level.map(crate::key::decimal) {
        None if !noreply => return Err(Complaint::Unknown.into()),
        Some(None) => return Err(Complaint::Malformed(BAD_FORMAT).into()),
        None | Some(Some(_)) => {}
    }
    Ok(Line::Whole(Request {
        noreply,
        ..Request::admin(Admin::Verbosity)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_usages_begin_with_them() {
        for (at, verb) in VERBS.iter().enumerate() {
            assert!(verb.usage.starts_with(verb.name), "{}", verb.name);
            assert!(
                VERBS[at + 1..].iter().all(|other| other.name != verb.name),
                "{}",
                verb.name
            );
        }
    }
}
