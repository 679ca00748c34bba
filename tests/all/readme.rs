//! What README.md shows is what happens: its transcript and its Python program run word by word,
//! its table of commands is the protocol's own.
//!
//! `UPDATE=1 cargo test --test all readme` rewrites the tables.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use storage_server::protocol::memcached::verbs::VERBS;

use crate::support::{Config, Home};

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("README.md")
}

fn readme() -> String {
    std::fs::read_to_string(path()).unwrap()
}

/// The text between two marks.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text
        .split_once(start)
        .unwrap_or_else(|| panic!("README.md has no {start}"));
    rest.split_once(end)
        .unwrap_or_else(|| panic!("README.md has no {end}"))
        .0
}

/// The inside of the first fenced block.
fn block(text: &str) -> &str {
    let (_, rest) = text.split_once("```").unwrap();
    let (_, rest) = rest.split_once('\n').unwrap();
    rest.split_once("```").unwrap().0
}

#[test]
fn the_transcript_runs_word_by_word() {
    let text = readme();
    let shown = block(between(
        &text,
        "<!-- transcript -->",
        "<!-- end of transcript -->",
    ));
    let home = Home::new(Config::bare());
    let daemon = home.start();
    let mut stream = TcpStream::connect(daemon.addr()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut replies = BufReader::new(stream.try_clone().unwrap());
    for line in shown.lines().filter(|line| !line.starts_with("$ ")) {
        if let Some(typed) = line.strip_prefix("> ") {
            // What is answered before it is asked for would be a reply too many.
            assert!(replies.buffer().is_empty(), "{line}");
            stream.write_all(format!("{typed}\r\n").as_bytes()).unwrap();
        } else {
            let mut came = String::new();
            replies.read_line(&mut came).unwrap();
            assert_eq!(came, format!("{line}\r\n"));
        }
    }
    // The transcript ends with `quit`, so the daemon closes.
    assert_eq!(replies.read(&mut [0]).unwrap(), 0);
}

#[test]
fn the_python_program_prints_what_is_shown() {
    let text = readme();
    let program = block(between(&text, "<!-- python -->", "<!-- end of python -->"));
    let shown = block(text.split_once("<!-- end of python -->").unwrap().1);
    let home = Home::new(Config::bare());
    let daemon = home.start();
    let program = program.replace("11211", &daemon.addr().port().to_string());
    // Debian's own interpreter: the client is installed from Debian's packages.
    let output = Command::new("/usr/bin/python3")
        .arg("-c")
        .arg(program)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{said}; tests/install-clients.sh installs the client"
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), shown);
}

#[test]
fn the_tables_are_those_of_the_protocol_and_of_the_differential_test() {
    let mut table = "\n| Command | What it does |\n|---|---|\n".to_owned();
    for verb in VERBS {
        let usage = verb.usage.replace('|', "\\|");
        writeln!(table, "| `{usage}` | {} |", verb.summary).unwrap();
    }
    compare_table("command table", &table);
    let differences = crate::differential::table();
    compare_table("differences", &format!("\n{differences}"));
}

/// The table between the marks of this name must be this one.
fn compare_table(name: &str, table: &str) {
    let (start, end) = (
        format!("<!-- {name} -->"),
        format!("<!-- end of {name} -->"),
    );
    let text = readme();
    let found = between(&text, &start, &end);
    if std::env::var_os("UPDATE").is_some() {
        let (old, new) = (format!("{start}{found}"), format!("{start}{table}"));
        std::fs::write(path(), text.replacen(&old, &new, 1)).unwrap();
        return;
    }
    assert!(
        found == table,
        "README.md is out of date: run this test with UPDATE=1"
    );
}

#[test]
fn without_configuration_the_daemon_starts_with_its_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_storage_server"))
        .current_dir(dir.path())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = String::new();
    let mut stderr = child.stderr.take().unwrap();
    let mut piece = [0; 4096];
    // Another server may have memcached's port; then the daemon must say so.
    while !log.contains("INFO ready") {
        let count = stderr.read(&mut piece).unwrap();
        if count == 0 {
            break;
        }
        log.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
    let ready = log.contains("INFO ready");
    if ready {
        assert!(log.contains("built-in defaults"), "{log}");
        assert!(log.contains("listening on 127.0.0.1:11211"), "{log}");
        assert!(dir.path().join("data/STORE").is_file());
        crate::access::assert_private(child.id(), &dir.path().join("data"));
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    if !ready {
        assert_eq!(status.code(), Some(69), "{log}");
        assert!(log.contains("cannot listen on 127.0.0.1:11211"), "{log}");
    }
}
