//! The operator's tools, on directories that the real daemon has made and on damage of each kind.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use crate::support::client::mset_bytes;
use crate::support::daemon::copy_files;
use crate::support::{Config, Daemon, Home};

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
    let mut home = Home::new(Config::standard());
    home.reconfigure(|_| {});
    let daemon = home.start();
    daemon.client().set("earlier", "in the snapshot").unwrap();
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
    assert_eq!(entries("2 COUNTER"), u64::from(KEYS) + 1);
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
    assert_eq!(state, expected, "{report:#}");
}

#[test]
fn without_a_segment_the_snapshot_is_what_there_is() {
    let damaged = Damaged::new(|data| fs::remove_file(main_segment(data)).unwrap());
    let (state, _, report) = damaged.salvaged(&[]);
    assert_eq!(report["base_is_whole"], true);
    assert_eq!(state.len(), 1);
    assert_eq!(state["earlier"], "in the snapshot");
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
