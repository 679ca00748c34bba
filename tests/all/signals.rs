//! Signals and what they promise: HUP (new log, data files, configuration), TERM and INT.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::daemon::{copy_files, listening_on, quoted, read_text, send_signal};
use crate::support::load::Load;
use crate::support::wire::PATIENCE;
use crate::support::{Config, Daemon, Home, Random, until};

/// Moves every snapshot and journal segment away, as an operator would with `mv`.
pub(crate) fn move_data(from: &Path, to: &Path) -> usize {
    fs::create_dir_all(to).unwrap();
    let mut moved = 0;
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if (name.starts_with("journal-") || name.starts_with("snapshot-"))
            && fs::rename(entry.path(), to.join(&name)).is_ok()
        {
            moved += 1;
        }
    }
    moved
}

fn has_data(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().any(|entry| {
        let name = entry.unwrap().file_name();
        name.to_string_lossy().starts_with("snapshot-")
    })
}

/// A home with a copy of these data files alone.
fn home_of(files: &Path, config: &Config) -> Home {
    let home = Home::new(config.clone());
    copy_files(files, &home.data());
    home
}

#[test]
fn hup_while_the_files_were_moved_away_loses_nothing() {
    const ROUNDS: u64 = 20;
    let seed = Random::seed("hup");
    let mut home = Home::new(Config::standard());
    let log = home.path("the.log");
    home.reconfigure(|config| config.set("log", "file", &quoted(&log)));
    let daemon = home.start();
    let mut load = Load::new(&mut daemon.client(), 4, seed);
    let mut descriptors = 0;
    let mut marked = daemon.client();
    load.during_all_along(daemon.addr(), || {
        for round in 1..=ROUNDS {
            let away = home.path(&format!("away.{round}"));
            assert_eq!(
                marked.set("3.999999", &round.to_string()).unwrap(),
                "STORED"
            );
            assert!(
                move_data(&home.data(), &away) > 0,
                "round {round}: no data files"
            );
            fs::rename(&log, away.join("the.log")).unwrap();
            daemon.hup();
            until("a new log", PATIENCE, || log.exists().then_some(()));
            until("a new generation", PATIENCE, || {
                has_data(&home.data()).then_some(())
            });
            // The answer comes when the new generation is whole.
            assert_eq!(marked.ask("reopen").unwrap(), "OK");
            if round == 2 {
                descriptors = daemon.descriptors();
            }
        }
    });
    until(
        "no more descriptors than after the second HUP",
        PATIENCE,
        || (daemon.descriptors() <= descriptors).then_some(()),
    );
    load.check(&mut daemon.client());
    daemon.logged(&["reload"]);
    let config = Config::standard();

    // The new files alone are the whole store.
    daemon.kill9();
    move_data(&home.data(), &home.path("new"));
    let new = home_of(&home.path("new"), &config);
    load.check(&mut new.start().client());

    // So were those that were moved away, up to the moment when they were.
    for round in [1, 2, ROUNDS / 2, ROUNDS] {
        let old = home_of(&home.path(&format!("away.{round}")), &config);
        let daemon = old.start();
        let mark = daemon.client().get("3.999999").unwrap();
        assert_eq!(
            mark,
            Some(round.to_string()),
            "the files moved away in round {round}"
        );
    }
}

#[test]
fn kill_9_after_hup_on_moved_files_loses_nothing() {
    let seed = Random::seed("hup and kill");
    let mut random = Random::new(seed);
    let home = Home::new(Config::standard());
    let mut daemon = home.start();
    let mut load = Load::new(&mut daemon.client(), 4, seed);
    for round in 0..10 {
        let away = home.path(&format!("away.{round}"));
        let moment = Duration::from_micros(random.below(30_000));
        load.during(daemon.addr(), || {
            let mut client = daemon.client();
            std::thread::sleep(Duration::from_millis(5));
            move_data(&home.data(), &away);
            assert_eq!(client.ask("reopen").unwrap(), "OK");
            std::thread::sleep(moment);
            daemon.kill9();
        });
        daemon = home.start();
        load.check(&mut daemon.client());
    }
}

#[test]
fn data_files_that_are_missing_are_asked_for_by_name() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    assert_eq!(daemon.client().set("2.1", "5").unwrap(), "STORED");
    move_data(&home.data(), &home.path("away"));
    daemon.kill9();
    let (code, _, error) = home.run(&[]);
    assert_ne!(code, Some(0), "an empty store was opened");
    assert!(error.contains("data"), "which files? {error}");
    for entry in fs::read_dir(home.path("away")).unwrap() {
        let entry = entry.unwrap();
        fs::rename(entry.path(), home.data().join(entry.file_name())).unwrap();
    }
    assert_eq!(
        home.start().client().get("2.1").unwrap().as_deref(),
        Some("5")
    );
}

#[test]
fn reopen_after_the_files_were_deleted_starts_a_whole_generation() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    let mut client = daemon.client();
    client.set("2.1", "5").unwrap();
    client.set("1.1", "1\n2").unwrap();
    move_data(&home.data(), &home.path("away"));
    fs::remove_dir_all(home.path("away")).unwrap();
    assert_eq!(client.ask("reopen").unwrap(), "OK");
    client.incr("1.1", 1).unwrap();
    daemon.kill9();
    let daemon = home.start();
    let mut client = daemon.client();
    assert_eq!(client.get("2.1").unwrap().as_deref(), Some("6"));
    assert_eq!(client.get("2.2").unwrap().as_deref(), Some("1"));
    assert_eq!(client.get("1.1").unwrap().as_deref(), Some("1 0\n2 0"));
}

#[test]
fn a_bad_configuration_at_hup_is_refused_and_the_old_one_stays() {
    let mut home = Home::new(Config::standard());
    let mut daemon = home.start();
    let mut client = daemon.client();
    client.set("3.1", "x").unwrap();
    home.reconfigure(|config| {
        config.set("types", "8", "\"COUNTER\"");
        config.set("data", "fsyncc", "\"always\"");
    });
    daemon.hup();
    let line = daemon.logged(&["fsyncc"]);
    assert!(line.contains("fsync"), "no near key: {line}");
    assert!(daemon.alive());
    assert!(
        client
            .ask("incr 8.1 1")
            .unwrap()
            .starts_with("CLIENT_ERROR unknown type 8")
    );
    assert_eq!(client.get("3.1").unwrap().as_deref(), Some("x"));
    // The next good one is taken.
    home.reconfigure(|config| config.remove("data", "fsyncc"));
    daemon.hup();
    until("type 8", PATIENCE, || {
        (client.ask("incr 8.1 1").unwrap() == "1").then_some(())
    });
}

fn types(daemon: &Daemon) -> Vec<String> {
    let mut client = daemon.client();
    client.send(b"show types\r\n").unwrap();
    let mut lines = Vec::new();
    loop {
        let line = client.line().unwrap();
        if line == "END" {
            return lines;
        }
        lines.push(line);
    }
}

#[test]
fn types_come_and_go_with_hup() {
    let mut home = Home::new(Config::bare().with("types", "3", "\"DATA\""));
    let mut daemon = home.start();
    assert_eq!(types(&daemon), ["1 INDEX", "2 COUNTER", "3 DATA"]);
    home.reconfigure(|config| {
        config.set("types", "4", "\"COUNTER\"");
        config.set("types", "20", "{ kind = \"INDEX\", target = 4 }");
    });
    daemon.hup();
    until("the new types", PATIENCE, || {
        (types(&daemon) == ["1 INDEX", "2 COUNTER", "3 DATA", "4 COUNTER", "20 INDEX"])
            .then_some(())
    });
    let mut client = daemon.client();
    client.set("20.1", "7").unwrap();
    assert_eq!(client.incr("20.1", 5).unwrap(), "1");
    assert_eq!(client.get("4.7").unwrap().as_deref(), Some("5"));
    for n in 0..5 {
        client.set(&format!("3.{n}"), "x").unwrap();
    }

    // A type with entries stays, and the log says how many there are.
    home.reconfigure(|config| config.remove("types", "3"));
    daemon.hup();
    let line = daemon.logged(&["refused", "3", "5"]);
    println!("{line}");
    assert_eq!(types(&daemon).len(), 5);
    assert_eq!(client.get("3.1").unwrap().as_deref(), Some("x"));

    // Nor does a start take it away: nothing is touched.
    assert!(daemon.alive());
    daemon.term();
    let before = contents(&home.data());
    let (code, _, error) = home.run(&[]);
    assert_eq!(code, Some(78), "{error}");
    assert!(
        error.contains('3') && error.contains('5'),
        "which, how many? {error}"
    );
    let after = contents(&home.data());
    for (name, content) in &before {
        assert_eq!(after.get(name), Some(content), "{name} was changed");
    }

    // An empty one goes.
    home.reconfigure(|config| config.set("types", "3", "\"DATA\""));
    daemon = home.start();
    let mut client = daemon.client();
    for n in 0..5 {
        client.ask(&format!("delete 3.{n}")).unwrap();
    }
    home.reconfigure(|config| config.remove("types", "3"));
    daemon.hup();
    until("type 3 is gone", PATIENCE, || {
        (types(&daemon) == ["1 INDEX", "2 COUNTER", "4 COUNTER", "20 INDEX"]).then_some(())
    });
    // And stays away after a restart.
    daemon.kill9();
    assert_eq!(types(&home.start()).len(), 4);
}

#[test]
fn a_kind_changes_only_while_it_is_empty_but_counters_may_widen() {
    let mut home = Home::new(Config::bare().with("types", "3", "\"DATA\"").with(
        "types",
        "4",
        "\"COUNTER\"",
    ));
    let daemon = home.start();
    let mut client = daemon.client();
    client.set("3.1", "5").unwrap();
    client.set("4.1", "4294967295").unwrap();
    home.reconfigure(|config| config.set("types", "3", "\"COUNTER\""));
    daemon.hup();
    daemon.logged(&["refused", "3"]);
    assert_eq!(types(&daemon)[2..], ["3 DATA", "4 COUNTER"]);
    home.reconfigure(|config| {
        config.set("types", "3", "\"DATA\"");
        config.set("types", "4", "\"COUNTER64\"");
    });
    daemon.hup();
    until("the wider type", PATIENCE, || {
        (types(&daemon)[2..] == ["3 DATA", "4 COUNTER64"]).then_some(())
    });
    assert_eq!(client.incr("4.1", 1).unwrap(), "4294967296");
    daemon.kill9();
    let daemon = home.start();
    assert_eq!(
        daemon.client().get("4.1").unwrap().as_deref(),
        Some("4294967296")
    );
}

fn stop_under_load(signal: Signal) {
    let seed = Random::seed("stop");
    let mut random = Random::new(seed);
    let home = Home::new(Config::standard());
    let mut daemon = home.start();
    let mut load = Load::new(&mut daemon.client(), 4, seed);
    for _ in 0..5 {
        let mut idle = TcpStream::connect(daemon.addr()).unwrap();
        idle.set_read_timeout(Some(PATIENCE)).unwrap();
        load.during(daemon.addr(), || {
            std::thread::sleep(Duration::from_millis(10 + random.below(40)));
            daemon.signal(signal);
            let status = daemon.ended(Duration::from_secs(5));
            assert_eq!(status.code(), Some(0), "{status}");
        });
        assert_eq!(
            idle.read(&mut [0]).unwrap(),
            0,
            "an idle connection is closed"
        );
        daemon = home.start();
        load.check(&mut daemon.client());
    }
    assert!(load.acked() > 100, "that was no load");
}

#[test]
fn term_under_load_ends_with_0_and_loses_nothing() {
    stop_under_load(Signal::TERM);
}

#[test]
fn int_under_load_ends_with_0_and_loses_nothing() {
    stop_under_load(Signal::INT);
}

#[test]
fn what_was_received_before_term_is_answered() {
    let home = Home::new(Config::standard());
    let mut all = 0;
    for _ in 0..10 {
        let daemon = home.start();
        let mut client = daemon.client();
        let before: u64 = client.incr("2.1", 1).unwrap().parse().unwrap();
        client
            .send("incr 2.1 1\r\n".repeat(1000).as_bytes())
            .unwrap();
        // The first reply says that the rest has arrived with it, or is on its way.
        client.line().unwrap();
        daemon.signal(Signal::TERM);
        let mut answered = 1;
        while client.line().is_ok() {
            answered += 1;
        }
        assert!(daemon.ended(Duration::from_secs(5)).success());
        let now = home.start().client().get("2.1").unwrap().unwrap();
        assert_eq!(
            now,
            (before + answered).to_string(),
            "answered and kept are the same"
        );
        all += answered;
    }
    assert!(
        all > 5_000,
        "of 10,000 that had been sent, {all} were answered"
    );
}

#[test]
fn the_words_term_and_shutdown_stop_it_like_the_signal() {
    for word in ["term", "shutdown", "shutdown graceful"] {
        let home = Home::new(Config::standard());
        let daemon = home.start();
        let mut client = daemon.client();
        client.set("2.1", "5").unwrap();
        client.send(format!("{word}\r\n").as_bytes()).unwrap();
        assert!(daemon.ended(Duration::from_secs(5)).success(), "{word}");
        assert_eq!(
            home.start().client().get("2.1").unwrap().as_deref(),
            Some("5")
        );
    }
}

/// Every file of a directory by name: its length and a hash of its bytes.
pub(crate) fn contents(dir: &Path) -> BTreeMap<String, (usize, u64)> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let bytes = fs::read(entry.path()).unwrap();
            let mut hasher = DefaultHasher::new();
            bytes.hash(&mut hasher);
            (name, (bytes.len(), hasher.finish()))
        })
        .collect()
}

#[test]
fn a_second_daemon_on_the_directory_ends_with_73_and_touches_nothing() {
    let home = Home::new(Config::standard().with("data", "fsync", "\"always\""));
    let daemon = home.start();
    daemon.client().set("2.1", "5").unwrap();
    let before = contents(&home.data());
    let (code, _, error) = home.run(&[]);
    assert_eq!(code, Some(73), "{error}");
    assert!(error.contains("data"), "which directory? {error}");
    assert_eq!(contents(&home.data()), before);
    // The lock is still there after a HUP on moved files.
    move_data(&home.data(), &home.path("away"));
    assert_eq!(daemon.client().ask("reopen").unwrap(), "OK");
    assert_eq!(home.run(&[]).0, Some(73));
    assert_eq!(daemon.client().get("2.1").unwrap().as_deref(), Some("5"));
}

#[test]
fn a_bad_configuration_ends_with_78_and_touches_nothing() {
    for (section, key, value, said) in [
        ("data", "fsyncc", "\"always\"", "fsync"),
        ("data", "fsync", "\"sometimes\"", "everysec"),
        ("server", "max_client", "5", "max_clients"),
        ("server", "threads", "\"two\"", "threads"),
        ("types", "2", "\"DATA\"", "built in"),
        ("types", "9", "\"DATUM\"", "DATA"),
        ("types", "9", "{ kind = \"INDEX\", target = 3 }", "target"),
        ("nothing", "nothing", "1", "known sections"),
    ] {
        let home = Home::new(Config::standard().with(section, key, value));
        for args in [&[][..], &["--check"]] {
            let (code, out, error) = home.run(args);
            assert_eq!(code, Some(78), "{key}: {error}");
            let error = out + &error;
            for part in ["config.ini:", key, said] {
                assert!(
                    error.contains(part),
                    "{key} {value}: no {part:?} in {error}"
                );
            }
            let number = error.split("config.ini:").nth(1).unwrap();
            assert!(
                number.starts_with(|c: char| c.is_ascii_digit()),
                "no line: {error}"
            );
        }
        assert!(!home.data().exists(), "{key}: the data directory was made");
    }
    let home = Home::new(Config::standard());
    assert_eq!(home.run(&["--check"]).0, Some(0));
    assert!(!home.data().exists());
    fs::write(home.config_path(), "[server]\nlisten = \n").unwrap();
    let (code, _, error) = home.run(&[]);
    assert_eq!(code, Some(78), "{error}");
    assert!(error.contains("config.ini:2"), "{error}");
    fs::remove_file(home.config_path()).unwrap();
    assert_eq!(
        home.run(&[]).0,
        Some(78),
        "a file that was named must be there"
    );
}

#[test]
fn as_a_daemon_it_detaches_and_keeps_a_pid_file() {
    let mut home = Home::new(Config::standard());
    let (log, pid_file) = (home.path("the.log"), home.path("the.pid"));
    home.reconfigure(|config| {
        config.set("server", "daemon", "1");
        config.set("server", "pid_file", &quoted(&pid_file));
        config.set("log", "file", &quoted(&log));
    });
    let (code, _, error) = home.run(&[]);
    assert_eq!(code, Some(0), "{error}");
    let pid: u32 = read_text(&pid_file)
        .trim()
        .parse()
        .expect("a pid in the pid file");
    let addr = until("it listens", PATIENCE, || listening_on(&read_text(&log)));
    let mut client = crate::support::Client::connect(addr).unwrap();
    assert_eq!(client.stats("").unwrap()["pid"], pid.to_string());
    assert_eq!(client.set("2.1", "5").unwrap(), "STORED");
    // It is no longer of our session.
    let stat = read_text(Path::new(&format!("/proc/{pid}/stat")));
    let words: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    assert_ne!(
        words[3],
        own_session(),
        "it is still in the session of its starter"
    );
    // A second one is refused by the parent's own exit code.
    assert_eq!(home.run(&[]).0, Some(73));
    send_signal(pid, Signal::TERM);
    until("the pid file is gone", PATIENCE, || {
        (!pid_file.exists()).then_some(())
    });
    until("the process is gone", PATIENCE, || {
        let stat = read_text(Path::new(&format!("/proc/{pid}/stat")));
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
    home.reconfigure(|config| config.set("server", "daemon", "0"));
    assert_eq!(
        home.start().client().get("2.1").unwrap().as_deref(),
        Some("5")
    );
}

fn own_session() -> String {
    let stat = read_text(Path::new("/proc/self/stat"));
    let words: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    words[3].to_owned()
}

#[test]
fn the_command_line_prints_what_it_should() {
    let home = Home::new(Config::standard());
    let (code, out, _) = home.run(&["-V"]);
    assert_eq!((code, out.trim()), (Some(0), "storage_server 1.0.0"));
    let (code, out, _) = home.run(&["--help"]);
    assert_eq!(code, Some(0));
    for flag in ["-c", "-n", "-t", "-V", "-h", "--check", "--max-clients"] {
        assert!(out.contains(flag), "{flag} is not in the help");
    }
    assert_ne!(home.run(&["--nonsense"]).0, Some(0));
    let daemon = home.start_with(&["-t", "-n", "3"]);
    let mut client = daemon.client();
    client.incr("2.1", 1).unwrap();
    until("the command on standard output", PATIENCE, || {
        home.read("stdout").contains("incr 2.1 1").then_some(())
    });
    assert_eq!(client.stats("settings").unwrap()["maxconns"], "3");
}
