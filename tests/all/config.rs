//! The configuration from outside: the files of the repository against the tables they are
//! rendered from, and what the program does with a bad configuration.
//!
//! `UPDATE=1 cargo test --test all config` rewrites the rendered parts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use storage_server::config::{self, Config};
use storage_server::exit::{self, Exit};

fn in_repository(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(in_repository(name)).unwrap_or_default()
}

/// Holds a file against its rendered text, or rewrites it.
fn hold(name: &str, expected: &str) {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(in_repository(name), expected).unwrap();
    }
    assert!(
        read(name) == expected,
        "{name} is out of date: run this test with UPDATE=1"
    );
}

/// The text with the part between the markers of `table` replaced.
fn with_table(text: &str, table: &str, rows: &str) -> String {
    let (start, end) = (
        format!("<!-- {table} -->\n"),
        format!("<!-- end of {table} -->"),
    );
    let (before, rest) = text
        .split_once(&start)
        .expect("the marker before the table");
    let (_, after) = rest.split_once(&end).expect("the marker behind the table");
    format!("{before}{start}{rows}{end}{after}")
}

#[test]
fn the_example_is_what_the_table_says() {
    hold("config.ini.example", &config::render_example());
}

#[test]
fn the_manual_is_what_the_tables_say() {
    let text = with_table(
        &read("INSTALL.md"),
        "config table",
        &config::render_markdown(),
    );
    hold(
        "INSTALL.md",
        &with_table(&text, "exit table", &exit::render_markdown()),
    );
}

#[test]
fn the_example_and_the_packaged_configuration_are_good() {
    for name in ["config.ini.example", "packaging/config.ini"] {
        Config::parse(&read(name), name).unwrap();
    }
}

#[test]
fn the_unit_does_not_restart_what_a_person_must_mend() {
    let unit = read("packaging/storage_server.service");
    let expected = [Exit::Config, Exit::Locked, Exit::Damaged].map(|exit| exit.code().to_string());
    let line = format!("\nRestartPreventExitStatus={}\n", expected.join(" "));
    assert!(unit.contains(&line), "{unit}");
}

fn run(dir: &Path, args: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_storage_server"));
    program.args(args).current_dir(dir).output().unwrap()
}

#[test]
fn check_says_ok_and_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.ini"), "").unwrap();
    let output = run(dir.path(), &["--check"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "config.ini: ok\n");
    assert!(output.status.success() && output.stderr.is_empty());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_bad_configuration_starts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[data]\nfysnc = \"always\"\n[server]\nlisten = \"0.0.0.0:0\"\n";
    fs::write(dir.path().join("config.ini"), text).unwrap();
    for args in [&["--check"][..], &[], &["-c", "config.ini"], &["-n", "5"]] {
        let output = run(dir.path(), args);
        assert_eq!(output.status.code(), Some(78), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        let places: Vec<&str> = said.lines().filter(|line| line.contains(".ini:")).collect();
        assert!(
            places[0].starts_with("config.ini:2:1: unknown key \"fysnc\""),
            "{said}"
        );
        assert!(
            places[1].starts_with("config.ini:4:10: 0.0.0.0:0 can be reached"),
            "{said}"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{args:?}");
    }
}

#[test]
fn printing_commands_and_a_daemon_exclude_each_other() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.ini"), "[server]\ndaemon = 1\n").unwrap();
    let output = run(dir.path(), &["-t"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("set daemon = 0"));
}

#[test]
fn a_command_line_that_makes_no_sense_is_64() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["--no-such"][..], &["-n", "0"], &["extra"]] {
        assert_eq!(run(dir.path(), args).status.code(), Some(64), "{args:?}");
    }
}
