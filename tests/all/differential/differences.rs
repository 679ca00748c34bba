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
const HD: &[u8] = b"HD\r\n";

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
                ("ms ", "{251} 3\r\n"),
                ("ms ", " 3 a b c d e f g h i j k l m n o p q\r\n"),
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
        ask: |random, key| {
            let (verb, line) = random.pick(&[("set ", " 0 0 3"), ("ms ", " 3 q")]);
            let ask = Ask::new(verb).key(key).text(line);
            ask.text("\r\nabcdef\r\n")
        },
        agrees: block_is_read,
    },
    Difference {
        name: "storage line whose block has no known length",
        memcached: "what follows is read as commands",
        here: "the connection closes after the same error",
        ask: |random, key| {
            let length = random.pick(&["-1", "abc", "2147483646"]);
            let (verb, between) = random.pick(&[("set ", " 0 0 "), ("ms ", " ")]);
            let ask = Ask::new(verb).key(key).text(between);
            ask.text(length).text("\r\n").last()
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
            let lines = [
                ("set ", "+5 0 1"),
                ("set ", "4294967296 0 1"),
                ("set ", "0 +5 1"),
                ("set ", "5\t 0 1"),
                ("set ", "0 0\t 1"),
                ("ms ", "1 F+5"),
                ("ms ", "1 F4294967296"),
                ("ms ", "1 T+5"),
                ("ms ", "1 T5\t"),
            ];
            let (verb, line) = random.pick(&lines);
            let ask = Ask::new(verb).key(key).text(&format!(" {line}\r\n1\r\n"));
            settled(ask, key)
        },
        agrees: |theirs, ours| {
            let done = theirs.strip_suffix(STORED);
            let refused = ours.strip_suffix(STORED);
            matches!(done, Some(b"STORED\r\n" | HD))
                && refused.is_some_and(|line| line.starts_with(b"CLIENT_ERROR bad "))
        },
    },
    Difference {
        name: "expiry from 2038 on",
        memcached: "wraps into the past",
        here: "is kept",
        ask: |random, key| {
            let lines = [("set ", " 0 4000000000 1"), ("ms ", " 1 T4000000000 q")];
            let (verb, line) = random.pick(&lines);
            let ask = Ask::new(verb).key(key).text(line);
            let ask = ask.text("\r\n1\r\ntouch ").key(key);
            settled(ask.text(" 4000000000\r\n"), key)
        },
        agrees: |theirs, ours| {
            let theirs = theirs.strip_prefix(STORED).unwrap_or(theirs);
            let ours = ours.strip_prefix(STORED).unwrap_or(ours);
            theirs == b"NOT_FOUND\r\nSTORED\r\n" && ours == b"TOUCHED\r\nSTORED\r\n"
        },
    },
    Difference {
        name: "too many words under `noreply`",
        memcached: "`ERROR`",
        here: "nothing: what ends with `noreply` and has all its words gets no line",
        ask: |random, key| {
            let (verb, words) = random.pick(&[
                ("touch ", " 0 0 0"),
                ("incr ", " 1 2 3"),
                ("delete ", " 0 0 0"),
            ]);
            let ask = Ask::new(verb).key(key).text(words);
            ask.text(" noreply\r\n").stepping(key)
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
                .key("nobody's")
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
        name: "retrieval of more than 32,768 keys",
        memcached: "is answered",
        here: "`CLIENT_ERROR too many keys`: what is found is held until the client has read it",
        ask: |random, _| {
            let verb = random.pick(&["get", "gets"]);
            Ask::new(verb)
                .text(&" k".repeat((32 << 10) + 1))
                .text("\r\n")
        },
        agrees: |theirs, ours| theirs == b"END\r\n" && ours == b"CLIENT_ERROR too many keys\r\n",
    },
    Difference {
        name: "steps of numbers of 2^63 and more, and of white space alone",
        memcached: "depend on what lies behind the value in memory: it reads on there",
        here: "the former are numbers, the latter is none",
        ask: |random, key| {
            let (value, step) = random.pick(&[
                ("18446744073709551615", "incr"),
                ("9223372036854775809", "decr"),
                (" ", "incr"),
            ]);
            let ask = Ask::new("set ").key(key);
            let ask = ask.text(&format!(" 0 0 {}\r\n{value}\r\n{step} ", value.len()));
            settled(ask.key(key).text(" 1\r\n"), key)
        },
        agrees: |theirs, ours| {
            let reply = |replies: &[u8]| {
                let reply = replies.strip_prefix(STORED)?.strip_suffix(STORED)?;
                Some(String::from_utf8_lossy(reply).into_owned())
            };
            let not = "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
            let digits = |reply: &str| reply.trim_end().bytes().all(|byte| byte.is_ascii_digit());
            match (reply(theirs).as_deref(), reply(ours).as_deref()) {
                (Some(theirs), Some(ours @ ("0\r\n" | "9223372036854775808\r\n"))) => {
                    theirs == ours || theirs == not
                }
                (Some(theirs), Some(ours)) => ours == not && (theirs == not || digits(theirs)),
                _ => false,
            }
        },
    },
    Difference {
        name: "meta flags that came after 1.6.18 (`E`, `x`, `N` and `s` of `ms`)",
        memcached: "refused or without effect",
        here: "as in later versions",
        ask: |random, key| {
            let (verb, line) = random.pick(&[
                ("ms ", " 1 E5\r\n1\r\n"),
                ("md ", " x\r\n"),
                ("ms ", " 1 MA N0\r\n1\r\n"),
                ("ms ", " 1 s\r\n1\r\n"),
            ]);
            let ask = Ask::new("ms ").key(key).text(" 1 q\r\nx\r\n");
            let ask = if line.contains('N') {
                ask.text("md ").key(key).text(" q\r\n")
            } else {
                ask
            };
            settled(ask.text(verb).key(key).text(line), key)
        },
        agrees: |theirs, ours| match (theirs.strip_suffix(STORED), ours.strip_suffix(STORED)) {
            (Some(theirs), Some(ours)) => {
                theirs.starts_with(b"CLIENT_ERROR invalid ") && ours == HD
                    || (theirs, ours) == (b"NS\r\n", HD)
                    || (theirs, ours) == (HD, b"HD s1\r\n")
            }
            _ => false,
        },
    },
    Difference {
        name: "base64 keys",
        memcached: "what is no base64 in them, and bits too many, are passed over",
        here: "are refused unless they are exact",
        ask: |random, _| {
            let keys = ["YWJ=", "Y!Q==", "YQ==YQ==", "YQ=a"];
            Ask::new("mg ").text(random.pick(&keys)).text(" b\r\n")
        },
        agrees: |theirs, ours| {
            theirs == b"EN\r\n" && ours == b"CLIENT_ERROR error decoding key\r\n"
        },
    },
    Difference {
        name: "`t` and `c` of an entry that is over at once",
        memcached: "a number near 2^32; a cas unique that nothing has",
        here: "`t0`; `c0` if nothing was there before",
        ask: |random, key| {
            let (verb, line) = random.pick(&[
                ("mg ", " T-1 N-1 t\r\n"),
                ("mg ", " N-1 c\r\n"),
                ("ms ", " 1 T-1 c\r\nx\r\n"),
            ]);
            let ask = Ask::new("md ").key(key).text(" q\r\nmn\r\n").text(verb);
            settled(ask.key(key).text(line), key).showing(key)
        },
        agrees: |theirs, ours| {
            let shown = |replies: &[u8]| {
                let text = String::from_utf8_lossy(replies).into_owned();
                let (_, line) = text.split_once("MN\r\n")?;
                Some(line.strip_suffix("\r\nSTORED\r\n")?.to_owned())
            };
            match (shown(theirs).as_deref(), shown(ours).as_deref()) {
                (Some(theirs), Some("HD t0 W")) => theirs.starts_with("HD t429"),
                (Some(theirs), Some("HD c0" | "HD c0 W")) => {
                    theirs.starts_with("HD c") && !theirs.starts_with("HD c0")
                }
                _ => false,
            }
        },
    },
    Difference {
        name: "`ma` and `mg` whose opaque is too long",
        memcached: "an error, after they have been done",
        here: "an error, and nothing is done",
        ask: |_, key| {
            let ask = Ask::new("ms ").key(key).text(" 1 q\r\n5\r\nma ").key(key);
            let ask = ask.text(&format!(" O{}\r\nma ", "o".repeat(32))).key(key);
            settled(ask.text(" v\r\n"), key)
        },
        agrees: |theirs, ours| {
            let error = "CLIENT_ERROR opaque token too long\r\nVA 1\r\n";
            theirs == format!("{error}7\r\nSTORED\r\n").as_bytes()
                && ours == format!("{error}6\r\nSTORED\r\n").as_bytes()
        },
    },
    Difference {
        name: "`k` of an entry that `mg` made from a base64 key",
        memcached: "the key itself, even if it has a space or a line end",
        here: "base64, if it has",
        ask: |_, _| {
            let ask = Ask::new("mg ").base64("b \r\n").text(" b N0 q\r\nmg ");
            let ask = ask.base64("b \r\n").text(" b k\r\nmd ");
            ask.base64("b \r\n").text(" b\r\n")
        },
        agrees: |theirs, ours| {
            let shows_line_end = b":b \r\n Z\r\nHD\r\n";
            theirs.ends_with(shows_line_end) && ours.ends_with(b" b Z\r\nHD\r\n")
        },
    },
    Difference {
        name: "`T` of a `ma` that makes a number longer",
        memcached: "is lost",
        here: "holds",
        ask: |_, key| {
            let ask = Ask::new("ms ").key(key).text(" 1 q\r\n9\r\nma ").key(key);
            let ask = ask.text(" T90000\r\nmg ").key(key);
            settled(ask.text(" t\r\n"), key).showing(key)
        },
        agrees: |theirs, ours| {
            theirs == b"HD\r\nHD t-1\r\nSTORED\r\n" && ours == b"HD\r\nHD t90000\r\nSTORED\r\n"
        },
    },
    Difference {
        name: "what `me` says",
        memcached: "the time left with a minus sign; its own classes and sizes",
        here: "the time left; our classes and sizes",
        ask: |_, key| {
            let ask = Ask::new("ms ").key(key).text(" 1 T90000 q\r\nx\r\nme ");
            settled(ask.key(key).text("\r\n"), key)
        },
        agrees: |theirs, ours| {
            let says = |replies, word: &[u8]| memchr::memmem::find(replies, word).is_some();
            says(theirs, b" exp=-") && says(ours, b" exp=") && !says(ours, b"exp=-")
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
        name: "classes in `lru_crawler`, `stats items slabs cachedump`",
        memcached: "are of sizes, up to 63",
        here: "are types; 65536 are the named keys, and so is 0 in a dump",
        ask: |_, _| Ask::new("lru_crawler crawl 65536\r\n"),
        agrees: |theirs, ours| theirs == b"BADCLASS invalid class id\r\n" && ours == b"OK\r\n",
    },
    Difference {
        name: "`stats sizes_enable`",
        memcached: "counts the entries by size from then on",
        here: "an error: they are not counted",
        ask: |_, _| Ask::new("stats sizes_enable\r\nstats sizes_disable\r\n"),
        agrees: |theirs, ours| {
            let (enabled, error) = ("STAT sizes_status enabled", "STAT sizes_status error");
            let why = "STAT sizes_error cas_support_disabled";
            let disabled = "STAT sizes_status disabled\r\n";
            theirs == format!("{enabled}\r\n{disabled}").as_bytes()
                && ours == format!("{error}\r\n{why}\r\n{disabled}").as_bytes()
        },
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
