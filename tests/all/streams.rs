//! Streams of requests, whole and broken: how they are cut cannot matter, and nothing within a
//! data block is ever taken for a command.
//!
//! `STORAGE_SERVER_STREAMS` sets how many streams are cut at random (1,000,000),
//! `STORAGE_SERVER_STREAM_CUTS` how many are cut at every byte (1,000), and
//! `STORAGE_SERVER_SMUGGLED` how many broken requests carry commands (1,000,000).

use std::fmt::Write as _;

use storage_server::journal::sim::SimDisk;

use crate::support::memory::{MemoryServer, MemoryWire};
use crate::support::wire::{Received, Wire as _};
use crate::support::{Config, Random, on_all_cores, setting};

/// Small, so that a block that is too large is short.
const MAX_VALUE: usize = 600;
/// So many streams share a server: what they store is in memory.
const STREAMS_OF_A_SERVER: u64 = 1000;
/// And so many broken requests, which store nothing.
const BROKEN_OF_A_SERVER: u64 = 10_000;

fn server() -> MemoryServer {
    let config = Config::standard().with("server", "max_value", &MAX_VALUE.to_string());
    MemoryServer::start(&config.text(), SimDisk::new())
}

fn one_of<'a>(random: &mut Random, of: &[&'a str]) -> &'a str {
    of[random.below(of.len() as u64) as usize]
}

fn key(random: &mut Random) -> String {
    match random.below(24) {
        0 => "k".repeat(250 + random.below(2) as usize),
        1 => "9.1".to_owned(),
        2 => "2.4294967296".to_owned(),
        3..10 => one_of(random, &["a", "b", "c"]).to_owned(),
        _ => format!("{}.{}", 1 + random.below(7), random.below(3)),
    }
}

fn body(random: &mut Random) -> String {
    match random.below(12) {
        0 => String::new(),
        1 => "1 2\n3\r\n5 5".to_owned(),
        2 => "\r\n".to_owned(),
        3 => smuggled(random),
        4 => "x".repeat(MAX_VALUE - 1 + random.below(3) as usize),
        5 => "4294967295".to_owned(),
        6 => "abc".to_owned(),
        _ => random.below(100).to_string(),
    }
}

/// Expiries that do not depend on when the request is carried out.
fn exptime(random: &mut Random) -> &'static str {
    one_of(random, &["0", "0", "0", "0", "2000000000", "-1", "x"])
}

/// The length that is announced, which is sometimes not the body's.
fn length(random: &mut Random, body: &str) -> String {
    match random.below(60) {
        0 => (body.len() + 1).to_string(),
        1 => body.len().saturating_sub(1).to_string(),
        2 => one_of(random, &["x", "-1", "2147483646", "18446744073709551616"]).to_owned(),
        _ => body.len().to_string(),
    }
}

/// A storage request. What it announces may not be what comes.
fn storage(random: &mut Random) -> String {
    let verb = one_of(
        random,
        &["set", "set", "add", "replace", "append", "prepend", "cas"],
    );
    let (key, body, exptime) = (key(random), body(random), exptime(random));
    let flags = one_of(random, &["0", "7", "4294967295", "4294967296"]);
    let unique = match verb {
        "cas" => one_of(random, &[" 1", " 5", " x", ""]),
        _ => one_of(random, &["", "", "", " x", " x y"]),
    };
    let noreply = one_of(random, &["", "", " noreply"]);
    let (length, end) = (length(random, &body), line_end(random));
    format!("{verb} {key} {flags} {exptime} {length}{unique}{noreply}{end}{body}{end}")
}

fn many(random: &mut Random) -> String {
    let (mut line, mut blocks) = ("mset".to_owned(), String::new());
    for _ in 0..=random.below(3) {
        let (key, body) = (key(random), body(random));
        write!(line, " {key} 0 0 {}", length(random, &body)).unwrap();
        blocks += &(body + "\r\n");
    }
    format!("{line}{}\r\n{blocks}", one_of(random, &["", " noreply"]))
}

fn meta(random: &mut Random) -> String {
    let (key, body) = (key(random), body(random));
    let flags = one_of(
        random,
        &[
            "", " v", " k v f c", " q v", " O7 k", " T0", " x", " MA", " I",
        ],
    );
    match random.below(6) {
        0 => format!("mg {key}{flags}\r\n"),
        1 => format!("md {key}{flags}\r\n"),
        2 => format!("ma {key}{flags}\r\n"),
        3 => "mn\r\n".to_owned(),
        _ => format!("ms {key} {}{flags}\r\n{body}\r\n", length(random, &body)),
    }
}

fn line_end(random: &mut Random) -> &'static str {
    one_of(random, &["\r\n", "\r\n", "\r\n", "\n"])
}

fn request(random: &mut Random) -> String {
    let (key, other) = (key(random), key(random));
    let number = one_of(random, &["1", "-1", "4294967295", "4294967296", "x", ""]);
    let (exptime, end) = (exptime(random), line_end(random));
    match random.below(30) {
        0..10 => storage(random),
        10..12 => many(random),
        12..15 => meta(random),
        15..17 => format!("get {key} {other}{end}"),
        17 => format!("gets {key}  {other} {end}"),
        18 => format!("{} {exptime} {key}{end}", one_of(random, &["gat", "gats"])),
        19..22 => format!("{} {key} {number}{end}", one_of(random, &["incr", "decr"])),
        22 => format!(
            "incr 1.{} 1 {}{end}",
            random.below(3),
            one_of(random, &["4", "6", "9"])
        ),
        23 => format!(
            "delete {key}{}{end}",
            one_of(random, &["", " 0", " 1", " noreply"])
        ),
        24 => format!("touch {key} {exptime}{end}"),
        25 => one_of(random, &["flush_all\r\n", "version\r\n", "show types\n"]).to_owned(),
        26 => one_of(
            random,
            &["verbosity 1\r\n", "\r\n", "\n", " \r\n", "get\r\n"],
        )
        .to_owned(),
        27 => one_of(random, &["bogus\r\n", "stats bogus\r\n", "SET a 0 0 1\r\n"]).to_owned(),
        28 if random.one_in(9) => one_of(random, &["quit\r\n", "GET / HTTP/1.1\r\n"]).to_owned(),
        28 if random.one_in(9) => format!("delete {}\r\n", "k".repeat(2100)),
        _ => smuggled(random),
    }
}

fn stream(random: &mut Random, most: u64) -> Vec<u8> {
    let requests = 1 + random.below(most);
    let text: String = (0..requests).map(|_| request(random)).collect();
    text.into_bytes()
}

/// What comes back on a new connection, and whether it was closed.
fn replies<'a>(
    server: &MemoryServer,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<u8>, bool) {
    let mut wire = server.connect();
    for piece in pieces {
        wire.send(piece);
    }
    all_of(&mut wire)
}

fn all_of(wire: &mut MemoryWire) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    loop {
        match wire.receive() {
            Received::Bytes(bytes) => all.extend(bytes),
            Received::Closed => return (all, true),
            Received::Nothing => return (all, false),
        }
    }
}

fn pieces<'a>(random: &mut Random, mut stream: &'a [u8]) -> Vec<&'a [u8]> {
    let most = [1, 3, 20, 200][random.below(4) as usize];
    let mut pieces = Vec::new();
    while !stream.is_empty() {
        let length = 1 + random.below(most) as usize;
        let (piece, rest) = stream.split_at(length.min(stream.len()));
        pieces.push(piece);
        stream = rest;
    }
    pieces
}

/// Two servers that hear the same requests, one of them in pieces: their states stay the same,
/// so their replies must, cas uniques included.
struct Twins {
    whole: MemoryServer,
    cut: MemoryServer,
}

impl Twins {
    fn start() -> Self {
        Self {
            whole: server(),
            cut: server(),
        }
    }

    fn hear<'a>(&self, stream: &[u8], pieces: impl IntoIterator<Item = &'a [u8]>, seed: u64) {
        let (whole, whole_closed) = replies(&self.whole, [stream]);
        let (cut, cut_closed) = replies(&self.cut, pieces);
        assert!(
            whole == cut && whole_closed == cut_closed,
            "seed {seed}: {}\n{}\nclosed: {cut_closed}, not\n{}\nclosed: {whole_closed}",
            stream.escape_ascii(),
            cut.escape_ascii(),
            whole.escape_ascii(),
        );
    }
}

#[test]
fn streams_cut_at_random_are_answered_as_whole_ones() {
    let seed = Random::seed("streams cut at random");
    let streams = setting("STORAGE_SERVER_STREAMS", 1_000_000);
    on_all_cores(streams.div_ceil(STREAMS_OF_A_SERVER), |part| {
        let mut random = Random::of_piece(seed, part);
        let twins = Twins::start();
        let left = streams - part * STREAMS_OF_A_SERVER;
        for _ in 0..left.min(STREAMS_OF_A_SERVER) {
            let stream = stream(&mut random, 8);
            let pieces = pieces(&mut random, &stream);
            twins.hear(&stream, pieces, seed);
        }
    });
}

#[test]
fn streams_cut_at_any_byte_are_answered_as_whole_ones() {
    let seed = Random::seed("streams cut at any byte");
    on_all_cores(setting("STORAGE_SERVER_STREAM_CUTS", 1_000), |number| {
        let twins = Twins::start();
        let stream = stream(&mut Random::of_piece(seed, number), 6);
        for at in 1..stream.len() {
            let (front, back) = stream.split_at(at);
            twins.hear(&stream, [front, back], seed);
        }
    });
}

/// Commands that would show if they were carried out, and line ends of all sorts.
fn smuggled(random: &mut Random) -> String {
    const COMMANDS: [&str; 14] = [
        "set mark 0 0 1\r\nx\r\n",
        "\r\nset mark 0 0 1\r\nx\r\n",
        "mset mark 0 0 1\r\nx\r\n",
        "ms mark 1\r\nx\r\n",
        "flush_all\r\n",
        "\nflush_all\n",
        "delete kept\r\n",
        "incr 2.1 1\r\n",
        "append kept 0 0 1\r\nx\r\n",
        "md kept\r\n",
        "quit\r\n",
        "get kept\r\n",
        "\r\n\r\n",
        "\n",
    ];
    let count = 1 + random.below(4);
    (0..count).map(|_| one_of(random, &COMMANDS)).collect()
}

/// What a broken request does to the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// One line comes, and it goes on.
    Answered,
    /// As `Answered`, without the line.
    Silent,
    /// The connection is closed.
    Closed,
}

/// A request that stores nothing, with commands in its block or behind its line.
fn broken(random: &mut Random) -> (String, Fate) {
    let end = line_end(random);
    let noreply = random.one_in(3);
    let fate = if noreply {
        Fate::Silent
    } else {
        Fate::Answered
    };
    let word = if noreply { " noreply" } else { "" };
    let mut body = smuggled(random);
    let long = "k".repeat(251);
    let one = |line: &str, body: &str| {
        let length = body.len().to_string();
        let line = line.replace("LEN", &length);
        (format!("{line}{word}{end}{body}{end}"), fate)
    };
    match random.below(26) {
        20..26 => broken_meta(random, &body),
        0 => one(&format!("set {long} 0 0 LEN"), &body),
        1 => one("set kept x 0 LEN", &body),
        2 => one("set kept 0 x LEN", &body),
        3 => one("cas kept 0 0 LEN x", &body),
        4 => one("set kept 0 0 LEN x y", &body),
        5 => {
            let filler = "flush_all\r\n".repeat(MAX_VALUE / 11 + 1);
            body += &filler;
            one("set kept 0 0 LEN", &body)
        }
        6 => one("set 9.1 0 0 LEN", &body),
        7 => one("set 2.1 0 0 LEN", &format!("x{body}")),
        8 => one("set 1.1 0 0 LEN", &format!("x{body}")),
        9 => one("append 2.1 0 0 LEN", &body),
        10 => one("set 2.4294967296 0 0 LEN", &body),
        11 => one("add kept 0 0 LEN", &body),
        12 => one("replace nothing 0 0 LEN", &body),
        13 => one("append nothing 0 0 LEN", &body),
        14 => one("cas nothing 0 0 LEN 1", &body),
        15 => {
            let line = format!("mset kept 0 0 {0} 9.1 0 0 {0}{word}", body.len());
            (format!("{line}{end}{body}{end}{body}{end}"), fate)
        }
        // A block that is longer than announced, up to the end of its line.
        16 => (
            format!("set kept 0 0 1{word}{end}xflush_all\rdelete kept{end}"),
            fate,
        ),
        17 => {
            let length = one_of(
                random,
                &[
                    "x",
                    "-1",
                    "2147483646",
                    "4294967296",
                    "99999999999999999999",
                ],
            );
            (
                format!("set kept 0 0 {length}{word}{end}{body}"),
                Fate::Closed,
            )
        }
        18 => (
            format!("delete {}{end}{body}", "k".repeat(2048)),
            Fate::Closed,
        ),
        _ => (
            format!("POST / HTTP/1.1{end}Host: x{end}{end}{body}"),
            Fate::Closed,
        ),
    }
}

/// An `ms` that stores nothing. Being quiet hides what went well, and nothing else.
fn broken_meta(random: &mut Random, body: &str) -> (String, Fate) {
    let end = line_end(random);
    let quiet = one_of(random, &["", " q", " q O7"]);
    let long = format!("ms {} LEN", "k".repeat(251));
    let filler = "flush_all\r\n".repeat(MAX_VALUE / 11 + 1);
    let number = one_of(random, &["x", "-1", "2147483646", "99999999999999999999"]);
    let (line, front) = match random.below(16) {
        0 => (long.as_str(), ""),
        1 => ("ms kept LEN Fx", ""),
        2 => ("ms kept LEN I I", ""),
        3 => ("ms kept LEN !", ""),
        4 => ("ms kept LEN MX", ""),
        5 => ("ms *** LEN b", ""),
        6 => ("ms kept LEN O0123456789012345678901234567890123", ""),
        7 => ("ms kept LEN C1", ""),
        8 => ("ms nothing LEN MR", ""),
        9 => ("ms kept LEN ME", ""),
        10 => ("ms 9.1 LEN", ""),
        11 => ("ms 2.1 LEN", "x"),
        12 => ("ms 1.1 LEN MA", "x"),
        13 => ("ms kept LEN", filler.as_str()),
        14 => {
            let line = format!("ms kept 1{quiet}{end}xflush_all\rmd kept{end}");
            return (line, Fate::Answered);
        }
        _ => {
            let line = format!("ms kept {number}{quiet}{end}{body}");
            return (line, Fate::Closed);
        }
    };
    let line = line.replace("LEN", &(front.len() + body.len()).to_string());
    let text = format!("{line}{quiet}{end}{front}{body}{end}");
    (text, Fate::Answered)
}

#[test]
fn nothing_within_a_broken_request_is_carried_out() {
    let seed = Random::seed("smuggled commands");
    let requests = setting("STORAGE_SERVER_SMUGGLED", 1_000_000);
    on_all_cores(requests.div_ceil(BROKEN_OF_A_SERVER), |part| {
        let left = requests - part * BROKEN_OF_A_SERVER;
        nothing_is_carried_out_of(left.min(BROKEN_OF_A_SERVER), seed, part);
    });
}

/// Sends so many broken requests to a server, which must do what each may do and no more.
fn nothing_is_carried_out_of(requests: u64, seed: u64, part: u64) {
    const QUESTION: &str = "get mark kept 2.1\r\n";
    const ANSWER: &[u8] = b"VALUE kept 0 4\r\nkept\r\nVALUE 2.1 0 1\r\n5\r\nEND\r\n";
    let mut random = Random::of_piece(seed, part);
    let server = server();
    server
        .connect()
        .ask(b"set kept 0 0 4\r\nkept\r\nset 2.1 0 0 1\r\n5\r\n");
    let mut wire = server.connect();
    for _ in 0..requests {
        let (text, fate) = broken(&mut random);
        for piece in pieces(&mut random, format!("{text}{QUESTION}").as_bytes()) {
            wire.send(piece);
        }
        let (mut said, closed) = all_of(&mut wire);
        if closed {
            wire = server.connect();
            said.extend(wire.ask(QUESTION.as_bytes()));
        }
        let before = said.strip_suffix(ANSWER).unwrap_or_else(|| {
            panic!("seed {seed}: {text:?}: {}", said.escape_ascii());
        });
        let lines = before.split(|byte| *byte == b'\n').count() - 1;
        let found = match (closed, lines) {
            (true, 0 | 1) => Fate::Closed,
            (false, 0) => Fate::Silent,
            (false, 1) => Fate::Answered,
            _ => panic!("seed {seed}: {text:?}: {}", said.escape_ascii()),
        };
        assert_eq!(
            found,
            fate,
            "seed {seed}: {text:?}: {}",
            said.escape_ascii()
        );
    }
}
