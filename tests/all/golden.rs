//! The files of every release are read by every later one: `tests/golden` has data directories
//! that releases wrote, each with the state that must come back. And what a release does not
//! know is refused by name, with nothing changed.
//!
//! `STORAGE_SERVER_GOLDEN=1.2.3` writes the directory of a new release. Its format must be the
//! released one: what is there already is never written again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use storage_server::clock::{Expiry, Time};
use storage_server::journal::record::{
    BATCH_HEADER_BYTES, BatchHeader, BatchKind, FILE_HEADER_BYTES, FileHeader, FileKind, VERSION,
    batch_seed,
};
use storage_server::journal::sim::SimDisk;
use storage_server::key::Key;

use crate::support::client::mset_bytes;
use crate::support::daemon::copy_files;
use crate::support::memory::MemoryServer;
use crate::support::{Client, Config, Home};

/// The year 2100: what ends then is there as long as these tests run.
const LATER: u64 = 4_102_444_800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The types of the standard configuration and one that comes while the daemon runs.
fn config() -> Config {
    Config::standard().with("types", "8", "\"COUNTER64\"")
}

/// Every kind of record over every kind of value; `salt` makes the keys differ.
fn every_record(client: &mut Client, salt: u64) {
    let base = salt * 100;
    let mut ask = |request: String, reply: &str| {
        assert_eq!(client.ask(&request).unwrap(), reply, "{request:.60}");
    };
    let (long, bytes) = ("y".repeat(9000), "\0\u{1}\r\n ~");
    for (key, flags, exptime, value) in [
        (format!("2.{base}"), 7, 0, "4294967295"),
        (format!("2.{}", base + 1), 0, LATER, "5"),
        (format!("6.{base}"), 0, 0, "18446744073709551615"),
        (
            format!("1.{base}"),
            9,
            LATER,
            "1\n2 5\n300 4294967295\n4294967295",
        ),
        (format!("1.{}", base + 1), 0, 0, ""),
        (format!("5.{base}"), 0, 0, "7\n8\n9"),
        (format!("3.{base}"), u32::MAX, LATER, bytes),
        (format!("3.{}", base + 1), 0, 0, long.as_str()),
        (format!("name{salt}"), 3, LATER, "value"),
        (format!("number{salt}"), 0, 0, "99"),
        (format!("{}{salt}", "k".repeat(240)), 0, 0, "a long key"),
    ] {
        let length = value.len();
        let request = format!("set {key} {flags} {exptime} {length}\r\n{value}");
        ask(request, "STORED");
    }
    let extend = [
        (format!("append 3.{base}"), "!"),
        (format!("prepend name{salt}"), "<"),
        (format!("append 1.{base}"), "2 6\n17"),
        (format!("append 1.{}", base + 2), "20\n21 1"),
        (format!("prepend 1.{base}"), "1"),
    ];
    for (verb, value) in extend {
        ask(format!("{verb} 4 0 {}\r\n{value}", value.len()), "STORED");
    }
    ask(format!("incr 2.{base} 6"), "5");
    ask(format!("decr number{salt} 1"), "98");
    ask(format!("incr 4.{base} -3"), "0");
    ask(format!("incr 1.{base} 2"), "4");
    ask(format!("incr 1.{} 1 6", base + 2), "2");
    ask(format!("decr 5.{base} 1"), "3");
    ask(format!("touch number{salt} {LATER}"), "TOUCHED");
    ask(format!("touch 2.{base} {LATER}"), "TOUCHED");
    ask(format!("set gone{salt} 0 0 1\r\nx"), "STORED");
    ask(format!("delete gone{salt}"), "DELETED");
    let items = [
        (format!("6.{}", base + 3), "4"),
        (format!("3.{}", base + 3), "several"),
        (format!("1.{}", base + 3), "5 5\n6 6"),
    ];
    let items = items.map(|(key, value)| (key, value.to_owned()));
    client.send(&mset_bytes(&items)).unwrap();
    assert_eq!(client.line().unwrap(), "STORED");
}

/// Moves the data files away for good.
fn drop_data_files(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with("journal-") || name.starts_with("snapshot-") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

/// Has the present release write a snapshot, a segment after it that was closed, and one that
/// is `closed` or torn.
fn write(closed: bool) -> Home {
    let mut home = Home::new(Config::standard());
    let daemon = home.start();
    let mut client = daemon.client();
    every_record(&mut client, 1);
    // What reopens without its files begins with a snapshot of everything.
    drop_data_files(&home.data());
    assert_eq!(client.ask("reopen").unwrap(), "OK");
    every_record(&mut client, 2);
    assert!(daemon.term().success());
    let daemon = home.start();
    let mut client = daemon.client();
    home.reconfigure(|standard| *standard = config());
    assert_eq!(client.ask("reopen").unwrap(), "OK");
    assert_eq!(client.ask("incr 8.1 5").unwrap(), "5");
    if closed {
        every_record(&mut client, 3);
        assert_eq!(client.ask(&format!("flush_all {LATER}")).unwrap(), "OK");
        assert!(daemon.term().success());
    } else {
        assert_eq!(client.ask("flush_all").unwrap(), "OK");
        every_record(&mut client, 4);
        assert_eq!(client.set("torn", "never promised").unwrap(), "STORED");
        daemon.kill9();
        let last = Segment::last(&home.data());
        fs::write(&last.path, &last.bytes[..last.end - 5]).unwrap();
    }
    home
}

/// Every key that [`every_record`] and [`write`] may leave.
fn keys() -> Vec<String> {
    let mut keys = vec!["8.1".to_owned(), "torn".to_owned()];
    for salt in 1..=4 {
        for name in ["name", "number", "gone", &"k".repeat(240)] {
            keys.push(format!("{name}{salt}"));
        }
        for prefix in 1..=7 {
            keys.extend((0..10).map(|id| format!("{prefix}.{}", salt * 100 + id)));
        }
    }
    for id in [1, 2, 5, 6, 7, 8, 9, 17, 20, 21, 300, u32::MAX] {
        keys.extend((2..=8).map(|prefix| format!("{prefix}.{id}")));
    }
    keys.sort();
    keys.dedup();
    keys
}

/// All that a directory holds, as text: of each entry everything that a client gave.
fn state(dir: &Path) -> String {
    let disk = SimDisk::new();
    for (name, bytes) in contents(dir) {
        disk.put(&name, &bytes);
    }
    let server = MemoryServer::start(&config().text(), disk);
    let mut wire = server.connect();
    let engine = server.engine();
    let store = engine.store();
    let types = store.types();
    let mut text = String::new();
    for key in keys() {
        let reply = wire.ask(format!("gets {key}\r\n").as_bytes());
        let Some(found) = reply.strip_suffix(b"\r\nEND\r\n") else {
            continue;
        };
        let line_end = found.iter().position(|byte| *byte == b'\n').unwrap();
        let (line, value) = found.split_at(line_end + 1);
        let line = str::from_utf8(line).unwrap().trim_end();
        let rules = storage_server::types::KeyRules::default();
        let placed: Key<'_> = types.resolve(key.as_bytes(), rules).unwrap();
        let hash = store.hashing().key(placed);
        let shard = store.read(hash);
        let view = shard.view(hash, placed, engine.clock().latest()).unwrap();
        let expires = ms(view.expires);
        writeln!(text, "{line} expires {expires}\n{}", value.escape_ascii()).unwrap();
    }
    writeln!(text, "{} entries", store.entries()).unwrap();
    writeln!(text, "flush at {}", ms(store.pending_flush())).unwrap();
    text
}

/// When that is, in ms since 1970; 0 is never.
fn ms(expiry: Expiry) -> u64 {
    expiry.time().map_or(0, |time| time.0)
}

/// Every file of a directory by name.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read(path).unwrap())
    });
    entries.collect()
}

#[test]
fn the_files_of_this_release_give_the_state_that_was_written() {
    let release = std::env::var("STORAGE_SERVER_GOLDEN").ok();
    for (name, closed) in [("closed", true), ("torn", false)] {
        let home = write(closed);
        if let Some(release) = &release {
            let dir = root().join(release).join(name);
            fs::create_dir_all(dir.parent().unwrap()).unwrap();
            fs::create_dir(&dir).expect("a release's files are written once");
            copy_files(&home.data(), &dir.join("data"));
            fs::remove_file(dir.join("data/LOCK")).unwrap();
            fs::write(dir.join("state.txt"), state(&home.data())).unwrap();
        }
        // But for cas uniques, all releases came to the same state by the same commands.
        let written = without_cas(&state(&home.data()));
        let golden = fs::read_to_string(root().join("1.0.0").join(name).join("state.txt"));
        assert_eq!(written, without_cas(&golden.unwrap()), "{name}");
    }
}

fn without_cas(state: &str) -> String {
    let line = |line: &str| {
        let mut words: Vec<_> = line.split(' ').collect();
        if words[0] == "VALUE" {
            words.remove(4);
        }
        words.join(" ")
    };
    state.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_files_of_every_release_give_the_state_that_they_gave_then() {
    let mut read = 0;
    for release in fs::read_dir(root()).unwrap() {
        for dir in fs::read_dir(release.unwrap().path()).unwrap() {
            let dir = dir.unwrap().path();
            let golden = fs::read_to_string(dir.join("state.txt")).unwrap();
            assert!(state(&dir.join("data")) == golden, "{}", dir.display());
            // The daemon itself takes them, too, goes on, and finds its own again.
            let home = Home::new(config());
            copy_files(&dir.join("data"), &home.data());
            for number in 6..8 {
                let daemon = home.start();
                assert_eq!(
                    daemon.client().incr("8.1", 1).unwrap(),
                    added(&golden, number)
                );
                daemon.kill9();
            }
            read += 1;
        }
    }
    assert!(read >= 2, "the golden files were not found");
}

/// What `8.1` holds after some increments: it began at 5, or with nothing after `flush_all`.
fn added(golden: &str, number: u64) -> String {
    let began = golden.contains("VALUE 8.1 ");
    if began { number } else { number - 5 }.to_string()
}

/// A segment and where its batches end.
pub(crate) struct Segment {
    path: PathBuf,
    bytes: Vec<u8>,
    header: FileHeader,
    /// The end of the last batch, its header's CRC, and the sequence number after it.
    end: usize,
    crc: u32,
    next_seq: u64,
    /// The last batch says that the file was closed.
    pub(crate) ended: bool,
}

impl Segment {
    pub(crate) fn last(dir: &Path) -> Self {
        let names = contents(dir).into_keys();
        let last = names.filter(|name| name.starts_with("journal-")).max();
        let path = dir.join(last.unwrap());
        let bytes = fs::read(&path).unwrap();
        let header = FileHeader::decode(FileKind::Segment, &bytes[..FILE_HEADER_BYTES]).unwrap();
        let mut segment = Self {
            path,
            header,
            end: FILE_HEADER_BYTES,
            crc: header.crc(),
            next_seq: header.base_seq,
            ended: false,
            bytes,
        };
        let seed = batch_seed(&header.log_id, header.number);
        while let Some((batch, crc)) = BatchHeader::decode(&segment.bytes[segment.end..], seed) {
            segment.end += BATCH_HEADER_BYTES + batch.len as usize;
            (segment.crc, segment.next_seq) = (crc, batch.next_seq());
            segment.ended = batch.kind == BatchKind::End;
        }
        segment
    }

    /// Puts a batch of one record after the last one, with right checksums.
    fn append(&mut self, kind: BatchKind, payload: &[u8]) {
        let header = BatchHeader {
            kind,
            len: u32::try_from(payload.len()).unwrap(),
            count: 1,
            first_seq: self.next_seq,
            synced_upto: 0,
            time: Time(0),
            prev_crc: self.crc,
            payload_crc: crc32c::crc32c(payload),
        };
        let mut bytes = Vec::new();
        let seed = batch_seed(&self.header.log_id, self.header.number);
        header.encode(seed, &mut bytes);
        bytes.extend_from_slice(payload);
        self.bytes.truncate(self.end);
        self.bytes.extend(bytes);
        fs::write(&self.path, &self.bytes).unwrap();
    }
}

/// A store of a few records, killed.
fn killed() -> Home {
    let home = Home::new(config());
    let daemon = home.start();
    daemon.client().set("2.1", "5").unwrap();
    daemon.kill9();
    home
}

/// A start must end with 65 and these words, and leave every byte as it was.
fn refused(home: &Home, name: &str, words: &str) {
    let before = contents(&home.data());
    let (code, _, error) = home.run(&[]);
    assert_eq!(code, Some(65), "{error}");
    let said = format!("{name} has {words}: it was written by a later release");
    assert!(error.contains(&said), "not {said:?} in {error}");
    assert!(
        contents(&home.data()) == before,
        "{name}: files were changed"
    );
}

#[test]
fn an_unknown_version_or_feature_of_a_file_is_refused_and_nothing_is_changed() {
    for start in ["STORE", "snapshot-", "journal-"] {
        // The offset of a field, a value of a later release, and what is said about it.
        for (at, value, words) in [
            (8, VERSION + 1, format!("format version {}", VERSION + 1)),
            (12, 1 << 31, "unknown features 0x80000000".to_owned()),
            (68, 1 << 31, "unknown features 0x80000000".to_owned()),
        ] {
            let home = killed();
            let names = contents(&home.data()).into_keys();
            let name = names.filter(|name| name.starts_with(start)).max().unwrap();
            let path = home.data().join(&name);
            let mut bytes = fs::read(&path).unwrap();
            let field: &mut [u8] = &mut bytes[at..at + 4];
            field.copy_from_slice(&value.to_le_bytes());
            let crc = crc32c::crc32c(&bytes[..FILE_HEADER_BYTES - 4]);
            bytes[FILE_HEADER_BYTES - 4..FILE_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
            fs::write(&path, bytes).unwrap();
            refused(&home, &name, &words);
        }
    }
}

#[test]
fn an_unknown_batch_record_or_value_is_refused_and_nothing_is_changed() {
    let number = [4, 0, 2, 1, 7];
    for (kind, payload, words) in [
        (BatchKind::Unknown(77), &number[..], "a batch of kind 77"),
        (
            BatchKind::Records,
            &[200, 0, 1],
            "a record with the tag 200",
        ),
        // A Put of a value, a table of types, and a batch of records, each with a tag in it.
        (
            BatchKind::Records,
            &[1, 0, 2, 1, 0, 0, 201, 0],
            "a value with the tag 201",
        ),
        (
            BatchKind::Records,
            &[11, 0, 1, 9, 202, 0],
            "a type of the kind 202",
        ),
        (
            BatchKind::Records,
            &[12, 0, 1, 203, 0],
            "a record with the tag 203",
        ),
    ] {
        let home = killed();
        let mut last = Segment::last(&home.data());
        last.append(kind, payload);
        let name = last.path.file_name().unwrap().to_str().unwrap().to_owned();
        refused(&home, &name, words);
        // The same place takes what is known.
        last.append(BatchKind::Records, &number);
        let daemon = home.start();
        assert_eq!(daemon.client().get("2.1").unwrap().as_deref(), Some("7"));
        assert!(daemon.term().success());
    }
}
