//! The classic commands at random: valid, malformed, with `noreply`, on keys that hold what fits
//! and on others.

use super::ask::Ask;
use crate::support::Random;

/// A key of the stream: few enough that requests meet.
pub(super) fn some_key(random: &mut Random) -> String {
    match random.below(30) {
        0 => longest(0),
        1 => "\x01\u{e4}/%&=".to_owned(),
        _ => format!("k{}", random.below(12)),
    }
}

/// A key of 250 bytes together with the stream's name, and some more.
pub(super) fn longest(more: usize) -> String {
    const STREAM_NAME: usize = 10;
    "l".repeat(250 - STREAM_NAME + more)
}

/// What a key may hold.
pub(super) fn some_value(random: &mut Random) -> Vec<u8> {
    // Steps of numbers of 2^63 and more are among the differences.
    let edges: [u64; 6] = [0, 1, 9, 10, 99, 1 << 32];
    match random.below(24) {
        0..=7 => random.pick(&edges).to_string().into_bytes(),
        8 => format!("{} ", random.pick(&edges)).into_bytes(),
        9 => b"18446744073709551616".to_vec(),
        10 => format!("{:0>21}", random.below(1000)).into_bytes(),
        11 => random
            .pick(&["-1", "+5", "5 x", " 5", "5\ty", "\r5\n", "5x"])
            .into(),
        12 => Vec::new(),
        13 => b"END\r\nVERSION 9\r\nget k1\r\n".to_vec(),
        14..=15 => noise(random),
        16..=22 => "v".repeat(random.below(100) as usize).into_bytes(),
        _ if random.one_in(20) => "L".repeat(random.below(500_000) as usize).into_bytes(),
        _ => "V".repeat(random.below(9_000) as usize).into_bytes(),
    }
}

/// Any bytes; but a step of white space alone is among the differences.
fn noise(random: &mut Random) -> Vec<u8> {
    let length = random.below(300);
    let mut bytes: Vec<_> = (0..length).map(|_| random.next() as u8).collect();
    if let Some(first) = bytes
        .first_mut()
        .filter(|first| b" \t\n\x0b\x0c\r".contains(first))
    {
        *first = b'v';
    }
    bytes
}

/// Expiries that are never, far away, or past: which of them does not depend on the moment.
pub(super) fn some_exptime(random: &mut Random) -> i64 {
    random.pick(&[
        0,
        0,
        0,
        0,
        100_000,
        2_592_000,
        2_147_483_647,
        -1,
        -100,
        2_592_001,
    ])
}

fn maybe_noreply(random: &mut Random) -> &'static str {
    if random.one_in(6) { " noreply" } else { "" }
}

/// A space between two words, as some clients write it.
fn space(random: &mut Random) -> &'static str {
    if random.one_in(30) { "  " } else { " " }
}

/// One request.
pub(super) fn ask(random: &mut Random) -> Ask {
    match random.below(100) {
        0..=34 => store(random),
        35..=59 => fetch(random),
        60..=74 => step(random),
        75..=82 => touch(random),
        83..=88 => delete(random),
        89 => flush(random),
        90..=91 => administer(random),
        _ => malformed(random),
    }
}

fn store(random: &mut Random) -> Ask {
    let verbs = [
        "set", "set", "set", "add", "replace", "append", "prepend", "cas", "cas",
    ];
    let (verb, key) = (random.pick(&verbs), some_key(random));
    let flags = random.pick(&[0, 0, 0, 1, 65_535, u32::MAX]);
    let (exptime, value) = (some_exptime(random), some_value(random));
    let ask = Ask::new(verb).text(space(random)).key(&key);
    let ask = ask.text(&format!(
        " {flags}{}{exptime} {}",
        space(random),
        value.len()
    ));
    let ask = match (verb, random.below(8)) {
        ("cas", 0) => ask.text(" 18446744073709551615"),
        ("cas", _) => ask.text(" ").unique(&key),
        _ => ask,
    };
    let end = if random.one_in(40) { " " } else { "" };
    ask.text(maybe_noreply(random))
        .text(end)
        .text("\r\n")
        .bytes(&value)
        .text("\r\n")
}

fn fetch(random: &mut Random) -> Ask {
    let verb = random.pick(&["get", "get", "gets", "gets", "gat", "gats"]);
    let mut ask = Ask::new(verb);
    if verb.starts_with("gat") {
        ask = ask.text(&format!(" {}", some_exptime(random)));
    }
    // Where a line is longer than 2 KiB is among the differences for `gat` and `gats`.
    let count = if random.one_in(50) {
        let many = random.pick(&[60, 60, 60, 500]);
        if verb.starts_with("gat") { 7 } else { many }
    } else {
        1 + random.below(4)
    };
    for _ in 0..count {
        let key = some_key(random);
        ask = ask.text(space(random)).key(&key).showing(&key);
    }
    ask.text(random.pick(&["\r\n", "\r\n", " \r\n", "\n"]))
}

fn step(random: &mut Random) -> Ask {
    let verb = random.pick(&["incr", "decr"]);
    let key = some_key(random);
    let delta = some_delta(random);
    let ask = Ask::new(verb).text(space(random)).key(&key).stepping(&key);
    ask.text(&format!(" {delta}{}\r\n", maybe_noreply(random)))
}

/// How far a number is stepped.
pub(super) fn some_delta(random: &mut Random) -> u64 {
    random.pick(&[0, 1, 1, 5, 10, 1 << 32])
}

fn touch(random: &mut Random) -> Ask {
    let exptime = some_exptime(random);
    let more = if random.one_in(20) {
        " x"
    } else {
        maybe_noreply(random)
    };
    let ask = Ask::new("touch ").key(&some_key(random));
    ask.text(&format!(" {exptime}{more}\r\n"))
}

fn delete(random: &mut Random) -> Ask {
    let ends = [
        "",
        "",
        "",
        " 0",
        " noreply",
        " 0 noreply",
        " 1",
        " a b",
        " 1 noreply",
        " 0 0 0",
    ];
    Ask::new("delete ")
        .key(&some_key(random))
        .text(random.pick(&ends))
        .text("\r\n")
}

fn flush(random: &mut Random) -> Ask {
    let ends = [
        "",
        " ",
        " 0",
        " -1",
        " -100",
        " noreply",
        "  noreply",
        " 0 noreply",
        " 0 x",
    ];
    Ask::new("flush_all").text(random.pick(&ends)).text("\r\n")
}

fn administer(random: &mut Random) -> Ask {
    let lines = [
        "verbosity 0",
        "verbosity 0 noreply",
        "verbosity noreply",
        "verbosity",
        "verbosity foo",
        "verbosity foo bar",
        "verbosity 0 0 0",
        "stats noreply",
        "stats foo",
        "stats reset",
        "stats detail",
        "stats detail foo",
        "stats detail off",
        "stats cachedump",
        "stats cachedump 1",
        "stats cachedump x 0",
        "stats cachedump 64 0",
        "stats cachedump 1 x",
        "cache_memlimit 7",
        "cache_memlimit foo",
        "cache_memlimit noreply",
        "cache_memlimit 1024",
        "cache_memlimit 1024 noreply",
        "cache_memlimit 1000000001",
        "lru_crawler foo",
        "lru_crawler metadump",
        "lru_crawler metadump x",
        "lru_crawler mgdump",
        "lru_crawler sleep x",
        "lru_crawler sleep 10000000",
        "lru_crawler sleep 100",
        "lru_crawler tocrawl x",
        "lru_crawler tocrawl 0",
        "lru_crawler crawl",
        "lru_crawler crawl x",
        "cache_memlimit",
        "lru_crawler",
    ];
    let line = random.pick(&lines);
    let ask = Ask::new(line).text("\r\n");
    // memcached wants nothing in front of it.
    if line.contains("metadump") {
        ask.alone()
    } else {
        ask
    }
}

/// Lines that are wrong and that have no block.
fn malformed(random: &mut Random) -> Ask {
    let key = format!("k{}", random.below(12));
    let with_key = |before: &str, after: &str| Ask::new(before).key(&key).text(after).text("\r\n");
    let line = |line: &str| Ask::new(line).text("\r\n");
    match random.below(20) {
        0 => line(random.pick(&["", " ", "x", "foo", "foo bar", "GET a", "se", "gett a"])),
        1 => line(random.pick(&[
            "get",
            "gets ",
            "gat",
            "gats",
            "gat 0",
            "gat x",
            "gat noreply",
        ])),
        2 => line(random.pick(&["set", "incr", "decr", "delete", "touch", "cas", "add "])),
        3 => with_key(random.pick(&["set ", "add ", "cas ", "append "]), ""),
        4 => with_key("set ", random.pick(&[" 0", " 0 0", " 0 0  "])),
        5 => with_key("cas ", " 0 0"),
        6 => with_key(
            "incr ",
            random.pick(&["", " x", " -1", " noreply", " 1 2 3"]),
        ),
        7 => with_key(
            "decr ",
            random.pick(&[" 18446744073709551616", " 1x", " 0x1", " 1.5"]),
        ),
        8 => with_key("touch ", random.pick(&["", " x", " noreply", " 0 0 0"])),
        9 => with_key("gat x ", ""),
        10 => with_key("gats 0x ", ""),
        11 => line(random.pick(&["flush_all x", "flush_all x noreply", "flush_all 0 0 0"])),
        12 if random.one_in(10) => line(random.pick(&["quit", "quit foo bar"])).last(),
        12 => line(random.pick(&["shutdownx", "versio", "quitt", "flush_al"])),
        // memcached 1.6.18 forgets the replies before it that are still on their way.
        13 => {
            let verbs = ["get ", "gets k1 ", "gat 0 ", "get k1 k2 k3 "];
            let ask = Ask::new(random.pick(&verbs)).key(&longest(1));
            ask.text("\r\n").alone()
        }
        14 => Ask::new("incr ").key(&longest(1)).text(" 1 noreply\r\n"),
        15 => Ask::new(random.pick(&["touch ", "delete "]))
            .key(&longest(1))
            .text(" 0\r\n"),
        16 => with_key("get ", "\r"),
        17 => with_key("get ", "\tx"),
        18 => with_key(" get ", "").showing(&key),
        _ => with_key(
            "delete ",
            random.pick(&[" b c d", " b c d e", " noreply x"]),
        ),
    }
}
