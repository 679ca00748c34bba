//! Where the daemon means to answer otherwise than memcached: the one list. README.md shows it,
//! and each row has a request that tries it.
//!
//! A row says exactly how both must answer, so that nothing else hides behind it.

use std::fmt::Write as _;

use super::ask::Ask;
use super::classic::some_key;
use super::replies::CLOSED;
use crate::support::Random;

/// One intended difference.
#[derive(Debug)]
pub(super) struct Difference {
    /// What it is about.
    pub(super) name: &'static str,
    /// What memcached does.
    memcached: &'static str,
    /// What the daemon does, and why.
    here: &'static str,
    /// A request that shows it.
    ask: fn(&mut Random, &str) -> Ask,
    /// True if these are the two answers.
    agrees: fn(&[u8], &[u8]) -> bool,
}

impl Difference {
    /// True if the replies, memcached's first, differ in this way and no other.
    pub(super) fn allows(&self, theirs: &[u8], ours: &[u8]) -> bool {
        (self.agrees)(theirs, ours)
    }
}

/// What both store at the end of a request that has left them with different values.
const SETTLE: &str = " 0 0 1\r\nx\r\n";
const ERROR: &[u8] = b"ERROR\r\n";
const STORED: &[u8] = b"STORED\r\n";

fn settled(ask: Ask, key: &str) -> Ask {
    ask.text("set ").key(key).text(SETTLE)
}

/// memcached reads a block as a command, which is none.
fn block_is_read(theirs: &[u8], ours: &[u8]) -> bool {
    theirs.strip_suffix(ERROR) == Some(ours) && ours.len() > 2 && ours.ends_with(b"\r\n")
}

/// Every intended difference.
pub(super) static DIFFERENCES: &[Difference] = &[
    Difference {
        name: "block of a refused storage line",
        memcached: "its lines are commands",
        here: "is passed over: data is never a command",
        ask: |random, key| {
            let lines = [
                ("set ", " x 0 3\r\n"),
                ("add ", " -1 0 3\r\n"),
                ("replace ", " 0 x 3\r\n"),
                ("append ", " 0 0 3 1 2\r\n"),
                ("cas ", " 0 0 3\r\n"),
                ("cas ", " 0 0 3 x\r\n"),
                // No key has so many bytes.
                ("set ", "{251} 0 0 3\r\n"),
            ];
            let (verb, line) = random.pick(&lines);
            let line = line.replace("{251}", &"l".repeat(251));
            Ask::new(verb).key(key).text(&line).text("abc\r\n")
        },
        agrees: block_is_read,
    },
    Difference {
        name: "block longer than announced",
        memcached: "the rest of its line is a command",
        here: "the rest of its line is passed over",
        ask: |_, key| Ask::new("set ").key(key).text(" 0 0 3\r\nabcdef\r\n"),
        agrees: block_is_read,
    },
    Difference {
        name: "storage line whose block has no known length",
        memcached: "what follows is read as commands",
        here: "the connection closes after the same error",
        ask: |random, key| {
            let length = random.pick(&["-1", "abc", "2147483646"]);
            Ask::new("set ")
                .key(key)
                .text(" 0 0 ")
                .text(length)
                .text("\r\n")
                .last()
        },
        agrees: |theirs, ours| theirs == ours && theirs.starts_with(b"CLIENT_ERROR bad command"),
    },
    Difference {
        name: "bare newline behind a block",
        memcached: "`CLIENT_ERROR bad data chunk`",
        here: "accepted, as behind a line",
        ask: |_, key| {
            let ask = Ask::new("set ").key(key).text(" 0 0 3\nabc\nset ").key(key);
            settled(ask.text(" 0 0 1\nx\n"), key)
        },
        agrees: |theirs, ours| {
            ours == STORED.repeat(3)
                && theirs.starts_with(b"CLIENT_ERROR bad data chunk\r\n")
                && theirs.ends_with(STORED)
        },
    },
    Difference {
        name: "value too large",
        memcached: "the old value goes; key, header and value count",
        here: "the old value stays; the value alone counts",
        ask: |random, key| {
            let length = if random.one_in(2) {
                1 << 20
            } else {
                (1 << 20) + 1
            };
            let ask = Ask::new("set ")
                .key(key)
                .text(" 0 0 1\r\na\r\nset ")
                .key(key);
            let ask = ask.text(&format!(" 0 0 {length}\r\n{}\r\n", "v".repeat(length)));
            settled(ask.text("touch ").key(key).text(" 0\r\n"), key).showing(key)
        },
        agrees: |theirs, ours| {
            let (large, end) = ("SERVER_ERROR object too large for cache", "STORED\r\n");
            theirs == format!("STORED\r\n{large}\r\nNOT_FOUND\r\n{end}").as_bytes()
                && (ours == format!("STORED\r\n{large}\r\nTOUCHED\r\n{end}").as_bytes()
                    || ours == b"STORED\r\nSTORED\r\nTOUCHED\r\nSTORED\r\n")
        },
    },
    Difference {
        name: "numbers in lines",
        memcached: "`+5`, a tab behind a number, flags of more than 32 bits are taken",
        here: "digits only, and no more than fit",
        ask: |random, key| {
            let lines = ["+5 0 1", "4294967296 0 1", "0 +5 1", "5\t 0 1", "0 0\t 1"];
            let line = random.pick(&lines);
            let ask = Ask::new("set ").key(key).text(&format!(" {line}\r\n1\r\n"));
            settled(ask, key)
        },
        agrees: |theirs, ours| {
            theirs == STORED.repeat(2)
                && ours == b"CLIENT_ERROR bad command line format\r\nSTORED\r\n"
        },
    },
    Difference {
        name: "expiry from 2038 on",
        memcached: "wraps into the past",
        here: "is kept",
        ask: |_, key| {
            let ask = Ask::new("set ")
                .key(key)
                .text(" 0 4000000000 1\r\n1\r\ntouch ");
            settled(ask.key(key).text(" 4000000000\r\n"), key)
        },
        agrees: |theirs, ours| {
            theirs == b"STORED\r\nNOT_FOUND\r\nSTORED\r\n"
                && ours == b"STORED\r\nTOUCHED\r\nSTORED\r\n"
        },
    },
    Difference {
        name: "errors under `noreply`",
        memcached: "`ERROR` for a wrong number of words",
        here: "nothing: `noreply` never gets a line",
        ask: |random, key| {
            let verb = random.pick(&["set ", "cas ", "append "]);
            Ask::new(verb).key(key).text(" noreply\r\n")
        },
        agrees: |theirs, ours| theirs == ERROR && ours.is_empty(),
    },
    Difference {
        name: "`incr` and `decr` with a third word",
        memcached: "ignores it",
        here: "it is the target type of an INDEX, and an error for other keys",
        ask: |_, key| {
            let ask = Ask::new("set ")
                .key(key)
                .text(" 0 0 1\r\n5\r\nincr ")
                .key(key);
            settled(ask.text(" 1 4\r\n"), key)
        },
        agrees: |theirs, ours| {
            theirs == b"STORED\r\n6\r\nSTORED\r\n"
                && ours == b"STORED\r\nCLIENT_ERROR only an INDEX takes a target type\r\nSTORED\r\n"
        },
    },
    Difference {
        name: "`flush_all` of a time that has passed",
        memcached: "does nothing",
        here: "flushes now",
        ask: |_, key| {
            let ask = Ask::new("set ")
                .key(key)
                .text(" 0 0 1\r\n5\r\nflush_all 5000000\r\ntouch ");
            ask.key(key).text(" 0\r\nflush_all\r\n")
        },
        agrees: |theirs, ours| {
            theirs == b"STORED\r\nOK\r\nTOUCHED\r\nOK\r\n"
                && ours == b"STORED\r\nOK\r\nNOT_FOUND\r\nOK\r\n"
        },
    },
    Difference {
        name: "delayed `flush_all` after an immediate one",
        memcached: "what the first one removed is back until the second is due",
        here: "is gone",
        ask: |_, key| {
            let ask = Ask::new("set ")
                .key(key)
                .text(" 0 0 1\r\n5\r\nflush_all\r\n");
            let ask = ask.text("flush_all 100000\r\ntouch ").key(key);
            ask.text(" 0\r\nflush_all\r\n")
        },
        agrees: |theirs, ours| {
            theirs == b"STORED\r\nOK\r\nOK\r\nTOUCHED\r\nOK\r\n"
                && ours == b"STORED\r\nOK\r\nOK\r\nNOT_FOUND\r\nOK\r\n"
        },
    },
    Difference {
        name: "NUL in a line",
        memcached: "ends the line",
        here: "is a byte like any other",
        ask: |_, _| {
            Ask::new("get ")
                .key("k1")
                .showing("k1")
                .text("\0 x y z\r\nversionx ")
                .text("\0\r\n")
        },
        agrees: |_, ours| ours == b"END\r\nERROR\r\n",
    },
    Difference {
        name: "line of more than 2 KiB that is no retrieval",
        memcached: "closes without a word",
        here: "an error, then closes; `gat`, `gats` and `mset` lines may be 1 MiB long",
        ask: |_, _| Ask::new("set ").text(&"a".repeat(4000)).last(),
        agrees: |theirs, ours| {
            theirs == CLOSED
                && ours == [b"CLIENT_ERROR line is longer than 2048 bytes\r\n", CLOSED].concat()
        },
    },
    Difference {
        name: "keys that look like `TYPE.ID`",
        memcached: "are keys like any other",
        here: "are typed, or refused if there is no such type",
        ask: |_, _| Ask::new("get 9.17\r\n"),
        agrees: |theirs, ours| theirs == b"END\r\n" && ours == b"CLIENT_ERROR unknown type 9\r\n",
    },
    Difference {
        name: "`mset show reopen snapshot term`",
        memcached: "`ERROR`",
        here: "commands",
        ask: |_, _| Ask::new("show types\r\n"),
        agrees: |theirs, ours| theirs == ERROR && ours == b"1 INDEX\r\n2 COUNTER\r\nEND\r\n",
    },
    Difference {
        name: "`slabs lru watch`",
        memcached: "commands about its slabs, lists and logs",
        here: "`ERROR`: there are none",
        ask: |_, _| Ask::new("slabs automove 0\r\n"),
        agrees: |theirs, ours| theirs == b"OK\r\n" && ours == ERROR,
    },
];

/// A request that shows one of them.
pub(super) fn ask(random: &mut Random) -> Ask {
    let difference = &DIFFERENCES[random.below(DIFFERENCES.len() as u64) as usize];
    let key = some_key(random);
    (difference.ask)(random, &key).differing(difference)
}

/// The table for README.md.
pub(crate) fn table() -> String {
    let mut table = String::from("| | memcached 1.6 | here |\n|---|---|---|\n");
    for Difference {
        name,
        memcached,
        here,
        ..
    } in DIFFERENCES
    {
        writeln!(table, "| {name} | {memcached} | {here} |").unwrap();
    }
    table
}
