//! The golden transcripts without a socket: protocol and engine in memory, where thousands of
//! ways to cut the input cost nothing.

use crate::support::memory::MemoryServer;
use crate::support::{Random, setting};
use crate::transcript::{Cut, Transcript};

fn play(transcript: &Transcript, cut: &mut Cut) -> Result<Vec<u8>, String> {
    let server = MemoryServer::start(
        &transcript.config,
        storage_server::journal::sim::SimDisk::new(),
    );
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
