//! Values that memory does not keep: every command answers as if it did, whatever happens to the
//! files in the meantime, and a data set may be larger than memory.

use storage_server::journal::sim::SimDisk;

use crate::support::memory::MemoryServer;
use crate::support::{Config, Random};
use crate::transcript::{Cut, Transcript};

#[test]
fn transcripts_are_the_same_with_values_that_are_not_in_memory() {
    let seed = Random::seed("cuts of values away");
    for transcript in Transcript::all() {
        let play = |config: &Config, cut: &mut Cut| {
            let server = MemoryServer::start(&config.text(), SimDisk::new());
            transcript
                .play(|| Box::new(server.connect()), cut)
                .unwrap_or_else(|error| panic!("{error}"))
        };
        let away = transcript.config.clone().leaving();
        let whole = play(&transcript.config, &mut Cut::Steps);
        let mut cuts = vec![Cut::Steps];
        if !transcript.waits() {
            cuts.extend([Cut::Bytes, Cut::Random(Random::new(seed))]);
        }
        for mut cut in cuts {
            let replies = play(&away, &mut cut);
            let (replies, whole) = (replies.escape_ascii(), whole.escape_ascii());
            assert!(
                replies.to_string() == whole.to_string(),
                "{}, seed {seed}: {replies}\nnot\n{whole}",
                transcript.name
            );
        }
    }
}

fn stat(server: &MemoryServer, name: &str) -> u64 {
    let stats = server.connect().ask(b"stats\r\n");
    let stats = String::from_utf8(stats).unwrap();
    let line = format!("STAT {name} ");
    let found = stats.lines().find_map(|it| it.strip_prefix(&line));
    found.unwrap().trim().parse().unwrap()
}

#[test]
fn a_value_leaves_memory_and_what_is_read_often_stays_near() {
    let config = Config::standard().with("types", "3", "{ kind = \"DATA\", keep_in_memory = 10 }");
    let server = MemoryServer::start(&config.text(), SimDisk::new());
    let mut wire = server.connect();
    let long = "v".repeat(100_000);
    wire.ask(
        format!("set 3.1 7 0 100000\r\n{long}\r\nset 3.2 0 0 10\r\n0123456789\r\n").as_bytes(),
    );
    assert_eq!(
        (stat(&server, "values_away"), stat(&server, "bytes_away")),
        (1, 100_000)
    );
    assert!(stat(&server, "bytes") < 1000);
    let shown = format!("VALUE 3.1 7 100000\r\n{long}\r\nEND\r\n");
    for _ in 0..3 {
        assert_eq!(wire.ask(b"get 3.1\r\n"), shown.as_bytes());
        assert_eq!(
            stat(&server, "cold_reads"),
            1,
            "the second read needs no file"
        );
    }
    assert!(stat(&server, "cache_bytes") > 100_000);
    // A snapshot moves the value, and what is near stays near.
    assert_eq!(
        wire.ask(b"reopen\r\nget 3.1\r\n"),
        [b"OK\r\n", shown.as_bytes()].concat()
    );
    assert_eq!(
        (stat(&server, "cold_reads"), stat(&server, "values_away")),
        (1, 1)
    );
    // What is added to stays in memory until the next snapshot.
    assert_eq!(wire.ask(b"append 3.1 0 0 1\r\n!\r\n"), b"STORED\r\n");
    assert_eq!(stat(&server, "values_away"), 0);
    assert_eq!(wire.ask(b"reopen\r\n"), b"OK\r\n");
    assert_eq!(stat(&server, "values_away"), 1);
    let shown = format!("VALUE 3.1 7 100001\r\n{long}!\r\nEND\r\n");
    assert_eq!(wire.ask(b"get 3.1\r\n"), shown.as_bytes());
    let again = MemoryServer::start(&config.text(), server.disk.kill());
    assert_eq!(
        stat(&again, "values_away"),
        1,
        "a start leaves it where it is"
    );
    assert_eq!(again.connect().ask(b"get 3.1\r\n"), shown.as_bytes());
}
