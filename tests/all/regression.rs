//! What went wrong once: each test is named by what it keeps from coming back.

use std::time::Duration;

use storage_server::journal::sim::SimDisk;

use crate::support::memory::MemoryServer;
use crate::support::{Config, Home, until};

#[test]
fn a_refused_reload_is_answered_in_one_line_without_the_configuration() {
    let mut home = Home::new(Config::standard());
    let daemon = home.start();
    let mut client = daemon.client();
    home.reconfigure(|config| config.set("server", "no_such_key", "\"secret\""));
    let reply = client.ask("reopen").unwrap();
    assert!(
        reply.starts_with("SERVER_ERROR the new configuration is refused"),
        "{reply}"
    );
    assert!(!reply.contains("secret"), "{reply}");
    // The next line is the next reply: the connection is in step.
    assert!(client.ask("version").unwrap().starts_with("VERSION "));
    daemon.logged(&["no_such_key"]);
}

#[test]
fn hup_applies_what_it_says_and_shows_only_what_runs() {
    let mut home = Home::new(Config::standard());
    let daemon = home.start();
    let mut client = daemon.client();
    home.reconfigure(|config| {
        config.set("data", "fsync", "\"always\"");
        config.set("data", "compact_min", "\"1m\"");
    });
    for _ in 0..2 {
        // What waits for a restart is said at each HUP.
        assert_eq!(client.ask("reopen").unwrap(), "OK");
        daemon.logged(&["data.fsync", "takes effect at a restart"]);
    }
    assert_eq!(client.stats("settings").unwrap()["fsync"], "everysec");
    let first = client.stats("").unwrap()["snapshot_number"].clone();
    let value = "v".repeat(200_000);
    for n in 0..10 {
        assert_eq!(client.set(&format!("key{n}"), &value).unwrap(), "STORED");
    }
    until("a snapshot after 1 MiB", Duration::from_secs(20), || {
        (client.stats("").unwrap()["snapshot_number"] != first).then_some(())
    });
}

#[test]
fn printed_commands_are_never_the_blocks_of_failed_ones() {
    let home = Home::new(Config::standard().with("server", "max_value", "100"));
    let daemon = home.start_with(&["-t"]);
    let mut client = daemon.client();
    let block = "A".repeat(5000);
    assert!(
        client
            .set("large", &block)
            .unwrap()
            .starts_with("SERVER_ERROR")
    );
    assert_eq!(client.incr("2.1", 1).unwrap(), "1");
    assert!(daemon.term().success());
    assert_eq!(home.read("stdout"), "set large 0 0 5000\nincr 2.1 1\n");
}

#[test]
fn a_moved_lock_file_lets_no_second_daemon_in() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    std::fs::rename(home.data().join("LOCK"), home.path("LOCK")).unwrap();
    let (code, _, error) = home.run(&[]);
    assert_eq!(code, Some(73), "{error}");
    assert_eq!(daemon.client().incr("2.1", 1).unwrap(), "1");
}

#[test]
fn values_and_keys_do_not_get_into_the_log() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    let mut client = daemon.client();
    assert!(
        client
            .set("2.1", "secretvalue")
            .unwrap()
            .starts_with("CLIENT_ERROR 2.1 is COUNTER")
    );
    assert!(
        client
            .incr("secretname", 1)
            .unwrap()
            .starts_with("NOT_FOUND")
    );
    assert_eq!(client.ask("secretcommand secretword").unwrap(), "ERROR");
    daemon.logged(&["unknown command"]);
    let log = daemon.log();
    assert!(log.contains("a counter's value is not a number"), "{log}");
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn a_slow_snapshot_holds_up_neither_clients_nor_the_stop() {
    // At this rate the snapshot would take hours.
    let home = Home::new(Config::standard().with("data", "snapshot_rate", "\"1k\""));
    let daemon = home.start();
    let mut client = daemon.client();
    let value = "v".repeat(500_000);
    for n in 0..8 {
        assert_eq!(client.set(&format!("key{n}"), &value).unwrap(), "STORED");
    }
    let mut asker = daemon.client();
    asker.send(b"snapshot\r\n").unwrap();
    until(
        "the snapshot is being written",
        Duration::from_secs(20),
        || (client.stats("").unwrap()["snapshot_running"] == "1").then_some(()),
    );
    assert_eq!(client.incr("2.1", 5).unwrap(), "5");
    assert_eq!(client.ask("flush_all").unwrap(), "OK");
    assert_eq!(client.set("key0", "new").unwrap(), "STORED");
    assert!(daemon.term().success());
    let daemon = home.start();
    let mut client = daemon.client();
    assert_eq!(client.get("key0").unwrap().as_deref(), Some("new"));
    assert_eq!(client.get("key1").unwrap(), None);
    assert_eq!(client.get("2.1").unwrap(), None);
}

#[test]
fn a_stale_entry_is_read_though_the_disk_is_full() {
    let disk = SimDisk::new();
    let server = MemoryServer::start(&Config::standard().text(), disk.clone());
    disk.set_capacity(Some(1 << 20));
    let mut wire = server.connect();
    let mut ask = |request: &str| String::from_utf8(wire.ask(request.as_bytes())).unwrap();
    let stored = ask("ms 3.1 1 F5\r\nx\r\nmd 3.1 I\r\nms 3.2 1\r\ny\r\n");
    assert_eq!(stored, "HD\r\nHD\r\nHD\r\n");
    let set = format!("set 3.3 0 0 10000\r\n{}\r\n", "z".repeat(10_000));
    while ask(&set) == "STORED\r\n" {}
    // What has been promised is used up by small ones.
    while !ask("incr 2.1 1\r\n").starts_with("SERVER_ERROR") {}
    for _ in 0..2 {
        assert_eq!(ask("mg 3.1 v f\r\n"), "VA 1 f5 Z X\r\nx\r\n");
    }
    assert_eq!(ask("mg 3.2 v\r\n"), "VA 1\r\ny\r\n");
    assert!(ask("mg 3.1 v T30\r\n").starts_with("SERVER_ERROR"));
    assert!(ask("gat 30 3.1\r\n").starts_with("SERVER_ERROR"));
    disk.set_capacity(None);
    assert_eq!(ask("mg 3.1 v f\r\n"), "VA 1 f5 X W\r\nx\r\n");
}
