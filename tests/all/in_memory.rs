//! The golden transcripts without a socket: protocol and engine in memory, where thousands of
//! ways to cut the input cost nothing.

use storage_server::journal::sim::SimDisk;

use crate::support::memory::MemoryServer;
use crate::support::wire::Wire as _;
use crate::support::{Config, Random, setting};
use crate::transcript::{Cut, Transcript};

fn play(transcript: &Transcript, cut: &mut Cut) -> Result<Vec<u8>, String> {
    let server = MemoryServer::start(&transcript.config.text(), SimDisk::new());
    transcript.play(|| Box::new(server.connect()), cut)
}

#[test]
fn transcripts_in_memory() {
    let played = Transcript::all();
    let errors: Vec<_> = played
        .iter()
        .filter_map(|transcript| play(transcript, &mut Cut::Steps).err())
        .collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

#[test]
fn any_cut_of_the_input_gives_the_same_replies_in_memory() {
    let seed = Random::seed("cuts in memory");
    let cuts = setting("STORAGE_SERVER_CUTS", 20);
    let quick = Transcript::all()
        .into_iter()
        .filter(|transcript| !transcript.waits());
    for transcript in quick {
        let whole = play(&transcript, &mut Cut::Steps).unwrap();
        for number in 0..cuts {
            let mut cut = match number {
                0 => Cut::Bytes,
                _ => Cut::Random(Random::new(seed + number)),
            };
            let replies = play(&transcript, &mut cut).unwrap();
            let (name, replies, whole) = (
                &transcript.name,
                replies.escape_ascii(),
                whole.escape_ascii(),
            );
            assert!(
                replies.to_string() == whole.to_string(),
                "{name}: {replies}\nnot\n{whole}"
            );
        }
    }
}

#[test]
fn a_line_that_asks_for_far_more_than_memory_is_answered_piece_by_piece() {
    let server = MemoryServer::start(&Config::standard().text(), SimDisk::new());
    let mut wire = server.connect();
    let value = "v".repeat(1 << 20);
    wire.ask(format!("set big 0 0 {}\r\n{value}\r\n", value.len()).as_bytes());
    // 2,000 times 1 MiB in one line: the reply may not be made at once.
    wire.send(format!("get{}\r\n", " big".repeat(2_000)).as_bytes());
    assert!(wire.largest_output() < 4 << 20, "{}", wire.largest_output());
    assert_eq!(wire.received(), 2_000 * (value.len() as u64 + 23) + 13);
}

#[test]
fn each_reply_comes_at_the_same_byte_however_the_input_is_cut() {
    // A block that is no block, in front of one that has not come.
    let input = b"mset a 0 0 3 b 0 0 3\r\nabcd\r\nabc\r\nset c 0 0 1\r\nab\r\nget a\r\n";
    let server = MemoryServer::start(&Config::standard().text(), SimDisk::new());
    let mut bytes = server.connect();
    let mut replies = Vec::new();
    for end in 1..=input.len() {
        replies.extend(bytes.ask(&input[end - 1..end]));
        let whole = server.connect().ask(&input[..end]);
        let (replies, whole) = (replies.escape_ascii(), whole.escape_ascii());
        assert_eq!(replies.to_string(), whole.to_string(), "after {end} bytes");
    }
}
