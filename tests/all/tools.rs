//! The operator's tools, on directories that the real daemon has made and on damage of each kind.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use crate::support::client::mset_bytes;
use crate::support::daemon::copy_files;
use crate::support::{Config, Daemon, Home, Random, setting};

/// Runs a tool: exit code, output, error text.
fn tool(args: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_storage_server"))
        .args(args)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn str_of(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Everything that a tool could change: contents, times and permissions.
fn picture(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime, u32)> {
    use std::os::unix::fs::PermissionsExt as _;
    let entries = fs::read_dir(dir).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let meta = fs::metadata(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        (
            path,
            (bytes, meta.modified().unwrap(), meta.permissions().mode()),
        )
    });
    let mut all: BTreeMap<_, _> = entries.collect();
    let meta = fs::metadata(dir).unwrap();
    all.insert(
        dir.to_owned(),
        (
            Vec::new(),
            meta.modified().unwrap(),
            meta.permissions().mode(),
        ),
    );
    all
}

/// `check`, which must change nothing.
fn check(dir: &Path) -> (i32, serde_json::Value) {
    let before = picture(dir);
    let (code, out, err) = tool(&["check", "--json", str_of(dir)]);
    assert_eq!(picture(dir), before, "check changed something");
    let report = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
    let (_, text, _) = tool(&["check", str_of(dir)]);
    let said = text.lines().last().unwrap_or_default();
    let expected = if code == 0 { "OK" } else { "Restore a backup" };
    assert!(said.starts_with(expected), "{text}");
    (code, report)
}

const KEYS: u32 = 60;
/// A counter of the snapshot.
const EARLIER: &str = "2.64";

/// One entry of each kind for each number, and what they are.
fn fill(daemon: &Daemon) {
    let mut client = daemon.client();
    for id in 0..KEYS {
        for (key, value) in [
            (format!("2.{id}"), id.to_string()),
            (format!("3.{id}"), format!("data {id} {}", "x".repeat(30))),
            (format!("6.{id}"), (u64::MAX - u64::from(id)).to_string()),
            (format!("name{id}"), format!("named {id}")),
        ] {
            assert_eq!(client.set(&key, &value).unwrap(), "STORED");
        }
        let members = format!("{id} 7\n{}", id + 1);
        assert_eq!(client.set(&format!("1.{id}"), &members).unwrap(), "STORED");
    }
    let members = "1\n2\n3";
    assert_eq!(client.set("1.1000", members).unwrap(), "STORED");
    assert_eq!(client.incr("1.1000", 5).unwrap(), "3");
    assert_eq!(
        client.store("append", "name1", " and more").unwrap(),
        "STORED"
    );
    let pair = [("2.900".into(), "9".into()), ("two".into(), "both".into())];
    client.send(&mset_bytes(&pair)).unwrap();
    assert_eq!(client.line().unwrap(), "STORED");
}

/// All keys that the tests use, with their values.
fn contents(daemon: &Daemon) -> BTreeMap<String, String> {
    let mut keys: Vec<String> = (0..KEYS + 5)
        .flat_map(|id| ["1.", "2.", "3.", "6.", "name"].map(|prefix| format!("{prefix}{id}")))
        .collect();
    keys.extend(["1.1000", "2.900", "two", "later", "earlier"].map(str::to_owned));
    daemon.client().get_many(&keys).unwrap()
}

/// A stopped home with a snapshot in the middle of its history.
fn stopped() -> (Home, BTreeMap<String, String>) {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    daemon.client().set("earlier", "in the snapshot").unwrap();
    daemon.client().set(EARLIER, "5").unwrap();
    move_and_reopen(&home, &daemon);
    fill(&daemon);
    let state = contents(&daemon);
    assert!(daemon.term().success());
    (home, state)
}

/// Has a snapshot taken: the data files are moved away.
fn move_and_reopen(home: &Home, daemon: &Daemon) {
    let away = home.path("away");
    fs::create_dir_all(&away).unwrap();
    for entry in fs::read_dir(home.data()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.contains('-') {
            fs::rename(entry.path(), away.join(name)).unwrap();
        }
    }
    assert_eq!(daemon.client().ask("reopen").unwrap(), "OK");
}

fn files(dir: &Path, kind: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(kind)
        })
        .collect();
    found.sort();
    found
}

/// The segment with the most records.
fn main_segment(dir: &Path) -> PathBuf {
    let by_size = |path: &PathBuf| fs::metadata(path).unwrap().len();
    files(dir, "journal-")
        .into_iter()
        .max_by_key(by_size)
        .unwrap()
}

/// The state that a daemon has with the data in `dir`.
fn served(dir: &Path) -> BTreeMap<String, String> {
    let mut home = Home::new(Config::standard());
    home.reconfigure(|config| {
        let quoted = crate::support::daemon::quoted(dir);
        config.set("data", "dir", &quoted);
    });
    let daemon = home.start();
    let state = contents(&daemon);
    assert!(daemon.term().success());
    state
}

/// `salvage` into a new directory: exit code and report; the source must stay as it is.
fn salvage(dir: &Path, to: &Path, more: &[&str]) -> (i32, serde_json::Value) {
    let before = picture(dir);
    let mut args = vec!["salvage", "--json", str_of(dir), "--to", str_of(to)];
    args.extend(more);
    let (code, out, err) = tool(&args);
    assert_eq!(picture(dir), before, "salvage changed its source");
    let report = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
    (code, report)
}

#[test]
fn a_sound_directory_is_ok_and_salvage_gives_all_of_it() {
    let (home, state) = stopped();
    let (code, report) = check(&home.data());
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["verdict"], "ok");
    assert_eq!(report["damage"].as_array().unwrap().len(), 0);
    let entries = |name: &str| {
        let types = report["state"]["types"].as_array().unwrap();
        let line = types.iter().find(|line| line["name"] == name).unwrap();
        line["entries"].as_u64().unwrap()
    };
    assert_eq!(entries("1 INDEX"), u64::from(KEYS) + 1);
    assert_eq!(entries("2 COUNTER"), u64::from(KEYS) + 2);
    let next = report["next_record"].as_u64().unwrap();
    assert!(next < 1000, "{next}");
    assert_eq!(entries("named keys"), u64::from(KEYS) + 2);
    let to = home.path("new");
    let (code, report) = salvage(&home.data(), &to, &[]);
    assert_eq!(
        (code, &report["whole"]),
        (0, &serde_json::json!(true)),
        "{report:#}"
    );
    assert_eq!(check(&to).0, 0);
    assert_eq!(served(&to), state);
}

#[test]
fn a_directory_in_use_is_left_alone_and_a_copy_is_not_locked() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    fill(&daemon);
    for args in [
        vec!["check", str_of(&home.data())],
        vec![
            "salvage",
            str_of(&home.data()),
            "--to",
            str_of(&home.path("new")),
        ],
    ] {
        let (code, _, err) = tool(&args);
        assert_eq!(code, 73, "{err}");
        assert!(err.contains("in use by another"), "{err}");
    }
    assert!(!home.path("new").exists());
    let state = contents(&daemon);
    copy_files(&home.data(), &home.path("copy"));
    fs::remove_file(home.path("copy").join("LOCK")).unwrap();
    daemon.kill9();
    let (code, report) = check(&home.path("copy"));
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(served(&home.path("copy")), state);
    assert_eq!(tool(&["check", str_of(&home.path("nowhere"))]).0, 74);
}

#[test]
fn a_torn_tail_is_not_damage_and_salvage_gives_what_a_start_gives() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    fill(&daemon);
    daemon.kill9();
    let segment = main_segment(&home.data());
    let mut bytes = fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    // What a power failure leaves: the last batch is cut short, and garbage comes after.
    bytes.truncate(end - 5);
    bytes.extend([0xa5; 100]);
    fs::write(&segment, bytes).unwrap();
    let (code, report) = check(&home.data());
    assert_eq!(
        (code, &report["verdict"]),
        (0, &serde_json::json!("torn")),
        "{report:#}"
    );
    let to = home.path("new");
    assert_eq!(salvage(&home.data(), &to, &[]).0, 0);
    let salvaged = served(&to);
    assert_eq!(salvaged, served(&home.data()));
    let (_, report) = check(&home.data());
    let aside = report["others"].as_array().unwrap();
    assert!(
        aside
            .iter()
            .any(|line| line["name"].as_str().unwrap().contains(".torn-"))
    );
}

/// Damages a copy of a sound directory and salvages it.
struct Damaged {
    home: Home,
    state: BTreeMap<String, String>,
}

impl Damaged {
    fn new(damage: impl FnOnce(&Path)) -> Self {
        let (home, state) = stopped();
        damage(&home.data());
        Self { home, state }
    }

    /// `check` must find it, a start must refuse it, and salvage must give a store that starts:
    /// its state, how many records are missing, and the report.
    fn salvaged(&self, more: &[&str]) -> (BTreeMap<String, String>, u64, serde_json::Value) {
        let (code, report) = check(&self.home.data());
        assert_eq!(code, 65, "{report:#}");
        assert_eq!(report["verdict"], "damaged");
        let to = self.home.path("new");
        let (_, report) = salvage(&self.home.data(), &to, more);
        assert_eq!(check(&to).0, 0);
        let missing = report["missing_records"].as_array().unwrap().iter();
        let missing =
            missing.map(|gap| gap["last"].as_u64().unwrap() + 1 - gap["first"].as_u64().unwrap());
        (served(&to), missing.sum(), report)
    }
}

/// Turns one bit in the middle of a file.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
}

/// The difference is exactly what one lost record can make: one entry.
fn differ_by_one(found: &BTreeMap<String, String>, expected: &BTreeMap<String, String>) {
    let keys: std::collections::BTreeSet<_> = found.keys().chain(expected.keys()).collect();
    let other: Vec<_> = keys
        .into_iter()
        .filter(|key| found.get(*key) != expected.get(*key))
        .collect();
    assert!(other.len() <= 1, "{other:?}");
}

#[test]
fn a_flipped_bit_in_a_segment_costs_its_own_record() {
    let damaged = Damaged::new(|data| {
        let segment = main_segment(data);
        let length = usize::try_from(fs::metadata(&segment).unwrap().len()).unwrap();
        flip(&segment, length / 2);
    });
    let (state, missing, report) = damaged.salvaged(&[]);
    assert_eq!(missing, 1, "{report:#}");
    assert_eq!(report["whole"], false);
    differ_by_one(&state, &damaged.state);
    assert_ne!(state, damaged.state);
}

#[test]
fn a_segment_cut_short_keeps_what_is_before() {
    let damaged = Damaged::new(|data| {
        let segment = main_segment(data);
        let bytes = fs::read(&segment).unwrap();
        fs::write(&segment, &bytes[..bytes.len() * 2 / 3]).unwrap();
        // A segment after it, so that the cut cannot be a torn tail.
        let last = files(data, "journal-").pop().unwrap();
        if last == segment {
            flip(&files(data, "STORE")[0], 70);
        }
    });
    let (state, _, _) = damaged.salvaged(&[]);
    assert!(state.contains_key("earlier") && state.contains_key("2.5"));
    assert!(state.len() < damaged.state.len());
    assert!(state.keys().all(|key| damaged.state.contains_key(key)));
}

#[test]
fn damaged_headers_and_store_files_cost_nothing() {
    let nothing: [fn(&Path); 3] = [
        |data| flip(&main_segment(data), 50),
        |data| flip(&data.join("STORE"), 40),
        |data| fs::write(data.join("STORE"), b"").unwrap(),
    ];
    for damage in nothing {
        let damaged = Damaged::new(damage);
        let (state, missing, report) = damaged.salvaged(&[]);
        assert_eq!(missing, 0, "{report:#}");
        assert_eq!(state, damaged.state);
    }
}

#[test]
fn a_damaged_snapshot_header_still_gives_its_entries() {
    let damaged = Damaged::new(|data| flip(&files(data, "snapshot-")[0], 20));
    let (state, _, report) = damaged.salvaged(&[]);
    assert_eq!(state, damaged.state, "{report:#}");
}

#[test]
fn without_a_snapshot_the_journal_is_what_there_is() {
    let damaged = Damaged::new(|data| fs::remove_file(&files(data, "snapshot-")[0]).unwrap());
    let config = damaged.home.config_path();
    let (state, _, report) = damaged.salvaged(&["-c", str_of(&config)]);
    assert_eq!(report["base"], serde_json::Value::Null);
    let mut expected = damaged.state.clone();
    expected.remove("earlier").unwrap();
    expected.remove(EARLIER).unwrap();
    assert_eq!(state, expected, "{report:#}");
}

#[test]
fn without_a_segment_the_snapshot_is_what_there_is() {
    let damaged = Damaged::new(|data| fs::remove_file(main_segment(data)).unwrap());
    let (state, _, report) = damaged.salvaged(&[]);
    assert_eq!(report["base_is_whole"], true);
    assert_eq!(state.len(), 2);
    assert_eq!(
        (&*state["earlier"], &*state[EARLIER]),
        ("in the snapshot", "5")
    );
}

#[test]
fn an_older_snapshot_that_loses_nothing_wins_over_a_damaged_one() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    daemon.client().set("earlier", "before both").unwrap();
    move_and_reopen(&home, &daemon);
    fill(&daemon);
    // The files of the last generation are kept aside, so all of the history is there.
    move_and_reopen(&home, &daemon);
    daemon.client().set("later", "after both").unwrap();
    let state = contents(&daemon);
    assert!(daemon.term().success());
    copy_files(&home.path("away"), &home.data());
    let newest = files(&home.data(), "snapshot-").pop().unwrap();
    flip(&newest, 300);
    assert_eq!(check(&home.data()).0, 65);
    let (code, report) = salvage(&home.data(), &home.path("new"), &[]);
    assert_eq!(
        (code, &report["whole"]),
        (0, &serde_json::json!(true)),
        "{report:#}"
    );
    assert_eq!(served(&home.path("new")), state);
}

/// Changes a part of `bytes` at random.
fn spoil(bytes: &mut Vec<u8>, random: &mut Random) {
    // What names a later release is not damage, and batches are not looked for in the header.
    let kind = random.below(5);
    let first = if kind == 3 { 76 } else { 12 };
    let begin = first + random.below((bytes.len() - first) as u64) as usize;
    let end = (begin + 1 + random.below(200) as usize).min(bytes.len());
    match kind {
        0 => bytes[begin] ^= 1 << random.below(8),
        1 => bytes[begin..end].fill(0),
        2 => bytes[begin..end].fill_with(|| random.next() as u8),
        3 => drop(bytes.drain(begin..end)),
        _ => bytes.truncate(begin),
    }
}

/// The oracle knows in which batch each value is: what salvage gives is every value whose batch
/// still stands in the file as it was written.
#[test]
fn salvage_gives_all_that_was_not_touched() {
    let seed = Random::seed("salvage");
    let mut random = Random::new(seed);
    let home = Home::new(Config::bare());
    let daemon = home.start();
    let mut client = daemon.client();
    for id in 0..50 {
        let value = format!("value-{id}-{}", "v".repeat(id * 7 % 90));
        assert_eq!(client.set(&format!("k{id}"), &value).unwrap(), "STORED");
    }
    assert!(daemon.term().success());
    // One more segment, so that the damage is never in the last one.
    assert!(home.start().term().success());
    let segment = main_segment(&home.data());
    let whole = fs::read(&segment).unwrap();
    let begins: Vec<usize> = memchr::memmem::find_iter(&whole, b"STBA").collect();
    let ends = begins[1..].iter().copied().chain([whole.len()]);
    let batches: Vec<_> = begins.iter().copied().zip(ends).collect();
    for round in 0..setting("STORAGE_SERVER_SALVAGE_ROUNDS", 25) {
        let what = format!("round {round}, STORAGE_SERVER_SEED={seed}");
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        copy_files(&home.data(), &data);
        let mut bytes = whole.clone();
        spoil(&mut bytes, &mut random);
        let changed = bytes != whole;
        fs::write(data.join(segment.file_name().unwrap()), &bytes).unwrap();
        let mut expected = std::collections::BTreeSet::new();
        for (begin, end) in &batches {
            let batch = &whole[*begin..*end];
            let text = String::from_utf8_lossy(batch);
            let id = text
                .split_once("value-")
                .and_then(|(_, rest)| rest.split_once('-'));
            if let Some((id, _)) = id
                && memchr::memmem::find(&bytes, batch).is_some()
            {
                expected.insert(format!("k{id}"));
            }
        }
        assert_eq!(check(&data).0, if changed { 65 } else { 0 }, "{what}");
        let to = dir.path().join("new");
        let (code, report) = salvage(&data, &to, &[]);
        let lines = dir.path().join("dump");
        dump(&to, &lines);
        let found = entry_lines(&lines).into_iter().map(|line| {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            let (key, value) = (&line["key"], &line["value"]);
            let key = key.as_str().unwrap().to_owned();
            assert!(
                value
                    .as_str()
                    .unwrap()
                    .starts_with(&format!("value-{}-", &key[1..]))
            );
            key
        });
        assert_eq!(
            found.collect::<std::collections::BTreeSet<_>>(),
            expected,
            "{what}: {report:#}"
        );
        let lost = 50 - expected.len();
        assert_eq!(code, if lost == 0 { 0 } else { 65 }, "{what}: {report:#}");
    }
}

#[test]
fn a_new_directory_must_be_new() {
    let (home, _) = stopped();
    fs::create_dir(home.path("full")).unwrap();
    fs::write(home.path("full").join("x"), "y").unwrap();
    for (args, code) in [
        (vec!["--to", "full"], 64),
        (vec!["--to", "data"], 64),
        (vec!["--to", "n", "--flush", "3"], 64),
        (vec!["--to", "n", "--before-flush"], 65),
        (vec!["--to", "n", "--before-flush", "--flush", "3"], 65),
    ] {
        let data = home.data();
        let mut all = vec!["salvage", str_of(&data)];
        let paths: Vec<String> = args
            .iter()
            .map(|arg| match *arg {
                "full" | "data" | "n" => str_of(&home.path(arg)).to_owned(),
                other => other.to_owned(),
            })
            .collect();
        all.extend(paths.iter().map(String::as_str));
        let (found, _, err) = tool(&all);
        assert_eq!(found, code, "{args:?}: {err}");
    }
    assert!(!home.path("n").exists());
    assert_eq!(fs::read_dir(home.path("full")).unwrap().count(), 1);
}

#[test]
fn the_worst_mistake_is_undone_until_the_next_snapshot() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    daemon.client().set("earlier", "in the snapshot").unwrap();
    move_and_reopen(&home, &daemon);
    fill(&daemon);
    let first = contents(&daemon);
    let mut client = daemon.client();
    assert_eq!(client.ask("flush_all").unwrap(), "OK");
    client.set("later", "after the first").unwrap();
    let second = contents(&daemon);
    assert_eq!(second.len(), 1);
    assert_eq!(client.ask("flush_all").unwrap(), "OK");
    client.set("name1", "after the second").unwrap();
    // A restart reads all of it and takes no snapshot because of the flush.
    assert!(daemon.term().success());
    let daemon = home.start();
    assert_eq!(contents(&daemon).len(), 1);
    let snapshot = daemon.client().stats("").unwrap()["snapshot_number"].clone();
    assert!(daemon.term().success());
    let (_, report) = check(&home.data());
    let flushes = report["flushes"].as_array().unwrap();
    assert_eq!(flushes.len(), 2);
    assert!(
        flushes.iter().all(|flush| flush["undoable"] == true),
        "{report:#}"
    );
    let (code, report) = salvage(&home.data(), &home.path("second"), &["--before-flush"]);
    assert_eq!(code, 0, "{report:#}");
    assert!(report["base"].as_str().unwrap().ends_with(&snapshot));
    assert_eq!(served(&home.path("second")), second);
    let record = flushes[0]["record"].to_string();
    let options = ["--before-flush", "--flush", &record];
    assert_eq!(salvage(&home.data(), &home.path("first"), &options).0, 0);
    assert_eq!(served(&home.path("first")), first);
    // Once a snapshot is complete it is gone, and that is said.
    let daemon = home.start();
    move_and_reopen(&home, &daemon);
    assert!(daemon.term().success());
    let (data, to) = (home.data(), home.path("third"));
    let args = [
        "salvage",
        str_of(&data),
        "--to",
        str_of(&to),
        "--before-flush",
    ];
    let (code, _, err) = tool(&args);
    assert_eq!(code, 65);
    assert!(
        err.contains("a snapshot was written after the last one"),
        "{err}"
    );
}

/// What a snapshot would take after a `flush_all` is little, but that makes none due.
#[test]
fn a_flush_makes_no_snapshot_due() {
    let config = Config::standard().with("data", "compact_min", "\"1m\"");
    let home = Home::new(config);
    let daemon = home.start();
    let mut client = daemon.client();
    let value = "x".repeat(100_000);
    let mut store = |from: u32, to: u32| {
        for id in from..to {
            assert_eq!(client.set(&format!("3.{id}"), &value).unwrap(), "STORED");
        }
    };
    store(0, 40);
    let address = daemon.addr().to_string();
    assert_eq!(tool(&["snapshot", "--server", &address]).0, 0);
    let number = || daemon.client().stats("").unwrap()["snapshot_number"].clone();
    // More journal than compact_min, less than compact_ratio asks for.
    store(0, 20);
    let before = number();
    assert_eq!(daemon.client().ask("flush_all").unwrap(), "OK");
    // Several times as long as the server waits between two looks at it.
    std::thread::sleep(std::time::Duration::from_millis(800));
    assert_eq!(number(), before);
    assert!(daemon.term().success());
    assert_eq!(
        salvage(&home.data(), &home.path("new"), &["--before-flush"]).0,
        0
    );
    let (_, report) = check(&home.path("new"));
    let types = report["state"]["types"].as_array().unwrap();
    let data = types.iter().find(|line| line["name"] == "3 DATA").unwrap();
    assert_eq!(data["entries"], 40);
}

#[test]
fn a_delayed_flush_is_undone_from_when_it_came_into_force() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    fill(&daemon);
    let mut client = daemon.client();
    assert_eq!(client.ask("flush_all 3").unwrap(), "OK");
    client.set("later", "before it came into force").unwrap();
    let state = contents(&daemon);
    crate::support::until("the flush", std::time::Duration::from_secs(20), || {
        contents(&daemon).is_empty().then_some(())
    });
    assert!(daemon.term().success());
    assert_eq!(
        salvage(&home.data(), &home.path("new"), &["--before-flush"]).0,
        0
    );
    let undone = served(&home.path("new"));
    assert!(undone.contains_key("later"));
    assert_eq!(undone, state);
}

/// The lines of a dump that are entries.
fn entry_lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let entries = text.lines().filter(|line| line.starts_with("{\"key"));
    entries.map(str::to_owned).collect()
}

fn dump(dir: &Path, to: &Path) {
    let (code, out, err) = tool(&["dump", str_of(dir), "-o", str_of(to)]);
    assert_eq!(code, 0, "{out}{err}");
}

fn load(file: &Path, daemon: &Daemon, more: &[&str]) -> (i32, String, String) {
    let address = daemon.addr().to_string();
    let mut args = vec!["load", str_of(file), "--server", &address];
    args.extend(more);
    tool(&args)
}

/// A home with what is hard to write down, dumped, and the dump.
fn dumped() -> (Home, PathBuf) {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    fill(&daemon);
    let mut client = daemon.client();
    let mut raw = |bytes: &[u8]| {
        client.send(bytes).unwrap();
        assert_eq!(client.line().unwrap(), "STORED");
    };
    raw(b"set bytes 7 0 4\r\n\xff\x00\r\n\r\n");
    raw(b"set \xc3\x28key 0 0 1\r\nx\r\n");
    raw(b"set quote\" 4294967295 4000000000 7\r\n\"\\\n\t \xc3\xa9\r\n");
    raw(b"set 2.77 1 2000000 2\r\n77\r\n");
    raw(b"set 1.70 9 0 0\r\n\r\n");
    raw(b"set gone 0 -1 1\r\nx\r\n");
    let mut meta = |bytes: &[u8]| {
        client.send(bytes).unwrap();
        assert_eq!(client.line().unwrap(), "HD");
    };
    // The key is \"a b\", a new line and a zero; then one that could be sent as it is.
    meta(b"ms YSBiCgA= 1 b F5 T2000000\r\nx\r\n");
    meta(b"ms cGxhaW4= 1 b\r\nx\r\n");
    meta(b"ms MS43Mg== 5 b F3\r\n7\n8 9\r\n");
    let members: Vec<String> = (0..5000)
        .map(|id| format!("{} {}", id * 7, id % 3))
        .collect();
    assert_eq!(client.set("1.71", &members.join("\n")).unwrap(), "STORED");
    for id in 0..2500 {
        assert_eq!(
            client.set(&format!("2.{}", 10_000 + id), "5").unwrap(),
            "STORED"
        );
    }
    assert!(daemon.term().success());
    let file = home.path("dump.ndjson");
    dump(&home.data(), &file);
    (home, file)
}

#[test]
fn what_is_dumped_and_loaded_gives_the_same_lines_again() {
    let (home, file) = dumped();
    let before = picture(&home.data());
    let (code, out, _) = tool(&["dump", str_of(&home.data())]);
    assert_eq!((code, &*out), (0, &*fs::read_to_string(&file).unwrap()));
    assert_eq!(picture(&home.data()), before, "dump changed something");
    let lines = entry_lines(&file);
    for line in [
        r#"{"key":"bytes","type":"NAMED","base64":"/wANCg==","flags":7,"expires":null}"#,
        r#"{"key_base64":"wyhrZXk=","type":"NAMED","value":"x","flags":0,"expires":null}"#,
        concat!(
            r#"{"key":"6.1","type":"COUNTER64","value":"18446744073709551614","#,
            r#""flags":0,"expires":null}"#,
        ),
        r#"{"key":"1.70","type":"INDEX","value":[],"flags":9,"expires":null}"#,
        r#"{"key":"plain","type":"NAMED","value":"x","flags":0,"expires":null,"binary":true}"#,
        r#"{"key":"1.1000","type":"INDEX","value":[1,2,3],"flags":0,"expires":null}"#,
        r#"{"key":"1.5","type":"INDEX","value":[[5,7],[6,0]],"flags":0,"expires":null}"#,
    ] {
        assert!(lines.contains(&line.to_owned()), "{line}");
    }
    assert!(!lines.iter().any(|line| line.contains("gone")));
    let odd = r#"{"key":"a b\n\u0000","type":"NAMED","value":"x","flags":5,"expires":"#;
    assert!(lines.iter().any(|line| line.starts_with(odd)), "{odd}");
    // A server that takes an index of this size only in parts.
    let other = Home::new(Config::standard().with("server", "max_value", "\"4k\""));
    let daemon = other.start();
    daemon.client().set("stays", "as it is").unwrap();
    daemon.client().set("name1", "is replaced").unwrap();
    let (code, out, err) = load(&file, &daemon, &[]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.starts_with(&format!("{} entries loaded, 0 left out", lines.len())),
        "{out}"
    );
    assert_eq!(daemon.client().get("stays").unwrap().unwrap(), "as it is");
    daemon.client().ask("delete stays").unwrap();
    assert!(daemon.term().success());
    let again = other.path("again.ndjson");
    dump(&other.data(), &again);
    assert_eq!(entry_lines(&again), lines);
}

#[test]
fn a_damaged_dump_is_loaded_up_to_its_damage_and_no_further() {
    let (home, file) = dumped();
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let first_check = lines
        .iter()
        .position(|line| line.starts_with("{\"checked"))
        .unwrap();
    let victim = first_check + 300;
    let damaged = |edit: &dyn Fn(&mut Vec<String>)| {
        let mut lines = lines.iter().map(|line| (*line).to_owned()).collect();
        edit(&mut lines);
        lines.join("\n") + "\n"
    };
    let cases: [(&str, String, bool); 7] = [
        (
            "a flag",
            damaged(&|l| l[victim] = l[victim].replace("\"flags\":0", "\"flags\":1")),
            true,
        ),
        ("a line gone", damaged(&|l| drop(l.remove(victim))), true),
        (
            "a line twice",
            damaged(&|l| l.insert(victim, l[victim].clone())),
            true,
        ),
        (
            "two lines swapped",
            damaged(&|l| l.swap(victim, victim + 1)),
            true,
        ),
        (
            "no JSON",
            damaged(&|l| l[victim] = l[victim].replace(':', "")),
            true,
        ),
        ("cut", damaged(&|l| l.truncate(victim)), true),
        ("no header", damaged(&|l| drop(l.remove(0))), false),
    ];
    for (what, text, first_block) in cases {
        let path = home.path("damaged.ndjson");
        fs::write(&path, text).unwrap();
        let target = Home::new(Config::standard());
        let daemon = target.start();
        let (code, out, err) = load(&path, &daemon, &[]);
        assert_eq!(code, 65, "{what}: {out}{err}");
        assert!(err.contains("damaged.ndjson, line "), "{what}: {err}");
        let loaded = if first_block { first_check - 1 } else { 0 };
        assert!(
            out.starts_with(&format!("{loaded} entries loaded")),
            "{what}: {out}"
        );
        let stats = daemon.client().stats("").unwrap();
        assert_eq!(stats["curr_items"], loaded.to_string(), "{what}");
    }
}

#[test]
fn an_interrupted_load_goes_on_where_it_was() {
    let (home, file) = dumped();
    let text = fs::read_to_string(&file).unwrap();
    let total = entry_lines(&file).len();
    let cut = home.path("cut.ndjson");
    fs::write(&cut, &text[..text.len() * 3 / 4]).unwrap();
    let state = home.path("load.state");
    let resume = ["--resume", str_of(&state)];
    let target = Home::new(Config::standard());
    let daemon = target.start();
    let (code, out, _) = load(&cut, &daemon, &resume);
    assert_eq!(code, 65, "{out}");
    let done: usize = out.split(' ').next().unwrap().parse().unwrap();
    assert!(done >= 1000 && done < total, "{out}");
    // Another dump, and a shorter one, are not gone on with.
    let other = home.path("other.ndjson");
    fs::write(&other, text.replacen("\"record\":", "\"record\":1", 1)).unwrap();
    let (code, _, err) = load(&other, &daemon, &resume);
    assert_eq!(code, 65);
    assert!(
        err.contains("not the dump") || err.contains("not those"),
        "{err}"
    );
    let (code, out, err) = load(&file, &daemon, &resume);
    assert_eq!(code, 0, "{out}{err}");
    let rest: usize = out.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(done + rest, total);
    assert!(!state.exists());
    assert!(daemon.term().success());
    dump(&target.data(), &home.path("again.ndjson"));
    assert_eq!(entry_lines(&home.path("again.ndjson")), entry_lines(&file));
}

#[test]
fn what_the_server_refuses_is_named_and_can_be_gone_past() {
    let (home, file) = dumped();
    let target = Home::new(Config::bare());
    let daemon = target.start();
    let (code, _, err) = load(&file, &daemon, &[]);
    assert_eq!(code, 65);
    assert!(
        err.contains("3.0: the server does not declare its type, DATA"),
        "{err}"
    );
    let (code, out, err) = load(&file, &daemon, &["--keep-going"]);
    assert_eq!(code, 65);
    assert!(out.contains(&format!(" {} refused", 2 * KEYS)), "{out}");
    assert_eq!(err.lines().count(), 2 * KEYS as usize);
    assert_eq!(daemon.client().get("2.10000").unwrap().unwrap(), "5");
    // Lines of another program, and one that has expired.
    let edited = home.path("edited.ndjson");
    let lines = concat!(
        r#"{"key":"2.1","type":"COUNTER","value":123}"#,
        "\n",
        r#"{"key":"old","type":"NAMED","value":"x","expires":1000}"#,
        "\n",
    );
    let nameless = r#"{"key":"","type":"NAMED","value":"x"}"#;
    fs::write(&edited, format!("{nameless}\n{lines}")).unwrap();
    let (code, out, err) = load(&edited, &daemon, &["--unchecked", "--keep-going"]);
    assert!(code == 65 && out.starts_with("1 entries loaded"), "{out}");
    assert!(err.ends_with("line 1: : its key cannot be one\n"), "{err}");
    fs::write(&edited, lines).unwrap();
    assert_eq!(load(&edited, &daemon, &[]).0, 65);
    let (code, out, err) = load(&edited, &daemon, &["--unchecked"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("1 entries loaded, 1 left out"), "{out}");
    assert_eq!(daemon.client().get("2.1").unwrap().unwrap(), "123");
}

#[test]
fn a_snapshot_is_asked_for_and_waited_for() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    fill(&daemon);
    let number = || -> u64 {
        let stats = daemon.client().stats("").unwrap();
        stats["snapshot_number"].parse().unwrap()
    };
    let before = number();
    let address = daemon.addr().to_string();
    let (code, out, err) = tool(&["snapshot", "--server", &address]);
    assert_eq!(code, 0, "{err}");
    let after = number();
    assert!(after > before);
    assert!(
        out.starts_with(&format!("snapshot {after} is complete: ")),
        "{out}"
    );
    assert_eq!(files(&home.data(), "snapshot-").len(), 1);
    assert!(daemon.term().success());
    let (code, _, err) = tool(&["snapshot", "--server", &address]);
    assert_eq!(code, 69, "{err}");
    assert_eq!(load(Path::new("/dev/null"), &home.start(), &[]).0, 65);
}

#[test]
fn each_tool_has_a_page_of_help() {
    for name in ["check", "salvage", "dump", "load", "snapshot"] {
        let (code, page, _) = tool(&[name, "--help"]);
        assert_eq!(code, 0);
        for part in [
            "Usage: storage_server",
            "EXIT CODES\n  0 ",
            "EXAMPLES\n",
            "--quiet",
        ] {
            assert!(page.contains(part), "{name}: {part}");
        }
        assert!(
            page.lines().all(|line| line.chars().count() <= 100),
            "{name}"
        );
        assert_eq!(tool(&[name, "--nonsense"]).0, 64);
    }
}
