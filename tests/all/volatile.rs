//! Entries that are in memory only: they answer as others do, are in no file, and are gone after a
//! restart, which finds everything else.

use std::fmt::Write as _;

use storage_server::clock::{SimClock, Time};
use storage_server::config::Config as Parsed;
use storage_server::journal::sim::SimDisk;

use crate::support::memory::{MemoryServer, MemoryWire};
use crate::support::{Config, Random, setting};

/// The types of [`Config::standard`], and volatile ones beside them: 13 DATA, 14 COUNTER, 15 INDEX
/// of 14; named keys are volatile, too.
fn config() -> Config {
    Config::standard()
        .with("types", "13", "{ kind = \"DATA\", durable = false }")
        .with("types", "14", "{ kind = \"COUNTER\", durable = false }")
        .with(
            "types",
            "15",
            "{ kind = \"INDEX\", target = 14, durable = false }",
        )
        .with("server", "named_keys_durable", "false")
}

fn ask(wire: &mut MemoryWire, request: &str) -> String {
    String::from_utf8(wire.ask(request.as_bytes())).unwrap()
}

/// True if a file of the disk has these bytes.
fn is_on(disk: &SimDisk, text: &str) -> bool {
    let has = |name: &String| {
        let bytes = disk.read(name).unwrap();
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    disk.names().iter().any(has)
}

#[test]
fn what_is_volatile_is_in_no_file_and_gone_after_a_restart() {
    let server = MemoryServer::start(&config().text(), SimDisk::new());
    let mut wire = server.connect();
    for (key, body) in [
        ("3.1", "lasting"),
        ("13.1", "fleeting"),
        ("name", "fleeting"),
    ] {
        let set = format!("set {key} 7 0 {}\r\n{body}\r\n", body.len());
        assert_eq!(ask(&mut wire, &set), "STORED\r\n");
    }
    let edits = "append 13.1 0 0 2\r\n!!\r\nincr 14.1 5\r\nappend 15.1 0 0 3\r\n1 2\r\n\
                 incr 15.1 2\r\ntouch 13.1 1000\r\n\
                 delete name\r\nset name 0 0 1\r\n4\r\nincr name 4\r\n";
    let replies = "STORED\r\n5\r\nSTORED\r\n1\r\nTOUCHED\r\nDELETED\r\nSTORED\r\n8\r\n";
    assert_eq!(ask(&mut wire, edits), replies);
    let before = server.engine().journal().appended();
    let shown = ask(&mut wire, "get 3.1 13.1 14.1 15.1 name\r\n");
    assert_eq!(
        shown,
        "VALUE 3.1 7 7\r\nlasting\r\nVALUE 13.1 7 10\r\nfleeting!!\r\nVALUE 14.1 0 1\r\n7\r\n\
         VALUE 15.1 0 3\r\n1 2\r\nVALUE name 0 1\r\n8\r\nEND\r\n"
    );
    assert_eq!(before, server.engine().journal().appended());
    assert_eq!(ask(&mut wire, "snapshot\r\n"), "OK\r\n");
    let disk = server.disk.kill();
    assert!(is_on(&disk, "lasting") && !is_on(&disk, "fleeting"));
    let again = MemoryServer::start(&config().text(), disk);
    let found = ask(&mut again.connect(), "get 3.1 13.1 14.1 15.1 name\r\n");
    assert_eq!(found, "VALUE 3.1 7 7\r\nlasting\r\nEND\r\n");
}

#[test]
fn cas_uniques_of_volatile_entries_change_with_each_change_and_never_come_again() {
    let mut seen = Vec::new();
    let mut disk = SimDisk::new();
    let clock = SimClock::new(Time(1_000_000_000_000));
    for _ in 0..3 {
        clock.pass_us(1000);
        let server = MemoryServer::start_at(&config().text(), disk, &clock);
        let mut wire = server.connect();
        for _ in 0..3 {
            ask(&mut wire, "set 13.1 0 0 1\r\nx\r\nset 3.1 0 0 1\r\nx\r\n");
            for key in ["13.1", "3.1"] {
                let found = ask(&mut wire, &format!("gets {key}\r\n"));
                let unique = found.split_whitespace().nth(4).unwrap().to_owned();
                let cas = format!("cas {key} 0 0 1 {unique}\r\ny\r\n");
                assert_eq!(ask(&mut wire, &cas), "STORED\r\n");
                assert_eq!(ask(&mut wire, &cas), "EXISTS\r\n");
                assert!(!seen.contains(&unique));
                seen.push(unique);
            }
        }
        disk = server.disk.kill();
    }
}

#[test]
fn a_batch_is_all_or_nothing_and_its_durable_part_is_one_record() {
    let server = MemoryServer::start(&config().text(), SimDisk::new());
    let mut wire = server.connect();
    let appended = || server.engine().journal().appended();
    let before = appended();
    let mset = "mset 3.1 0 0 1 13.1 0 0 1 2.1 0 0 1 name 0 0 1\r\na\r\nb\r\n3\r\nd\r\n";
    assert_eq!(ask(&mut wire, mset), "STORED\r\n");
    assert_eq!(appended(), before + 1);
    assert_eq!(
        ask(&mut wire, "mset 13.2 0 0 1 14.2 0 0 1\r\nx\r\n2\r\n"),
        "STORED\r\n"
    );
    assert_eq!(appended(), before + 1);
    let bad = "mset 3.1 0 0 1 13.1 0 0 1 14.9 0 0 1\r\nA\r\nB\r\nX\r\n";
    assert!(ask(&mut wire, bad).starts_with("CLIENT_ERROR 14.9 is COUNTER"));
    let shown = ask(&mut wire, "get 3.1 13.1 2.1 name 13.2 14.2 14.9\r\n");
    let durable = "VALUE 3.1 0 1\r\na\r\nVALUE 2.1 0 1\r\n3\r\n";
    assert_eq!(
        shown,
        "VALUE 3.1 0 1\r\na\r\nVALUE 13.1 0 1\r\nb\r\nVALUE 2.1 0 1\r\n3\r\nVALUE name 0 1\r\nd\r\n\
         VALUE 13.2 0 1\r\nx\r\nVALUE 14.2 0 1\r\n2\r\nEND\r\n"
    );
    assert_eq!(
        ask(&mut wire, "gat 1000 13.1 3.1\r\n")
            .matches("VALUE")
            .count(),
        2
    );
    assert_eq!(appended(), before + 2);
    let again = MemoryServer::start(&config().text(), server.disk.kill());
    let found = ask(&mut again.connect(), "get 3.1 13.1 2.1 name 13.2 14.2\r\n");
    assert_eq!(found, format!("{durable}END\r\n"));
}

#[test]
fn a_fan_out_is_journalled_if_its_counters_are_durable() {
    let server = MemoryServer::start(&config().text(), SimDisk::new());
    let mut wire = server.connect();
    ask(
        &mut wire,
        "set 1.1 0 0 3\r\n1\n2\r\nset 15.1 0 0 3\r\n1\n2\r\n",
    );
    let before = server.engine().journal().appended();
    assert_eq!(
        ask(&mut wire, "incr 1.1 1 14\r\nincr 15.1 1\r\n"),
        "2\r\n2\r\n"
    );
    assert_eq!(server.engine().journal().appended(), before);
    assert_eq!(
        ask(&mut wire, "incr 15.1 1 2\r\n"),
        "CLIENT_ERROR 15.1 is not durable and counters of type 2 are: a fan-out that is not \
         journalled can step only counters of a type with durable = false\r\n"
    );
    assert_eq!(ask(&mut wire, "incr 1.1 1\r\n"), "2\r\n");
    assert_eq!(server.engine().journal().appended(), before + 1);
    let again = MemoryServer::start(&config().text(), server.disk.kill());
    let found = ask(&mut again.connect(), "get 2.1 2.2 14.1 14.2\r\n");
    assert_eq!(found, "VALUE 2.1 0 1\r\n1\r\nVALUE 2.2 0 1\r\n1\r\nEND\r\n");
}

fn types_of(config: &Config) -> storage_server::types::TypeTable {
    Parsed::parse(&config.text(), "config.ini").unwrap().types
}

#[test]
fn a_type_that_becomes_volatile_keeps_its_entries_until_the_server_stops() {
    let durable = Config::standard();
    let fleeting = durable
        .clone()
        .with("types", "3", "{ kind = \"DATA\", durable = false }")
        .with("server", "named_keys_durable", "false");
    let server = MemoryServer::start(&durable.text(), SimDisk::new());
    let mut wire = server.connect();
    let mset = "mset 3.1 0 0 1 name 0 0 1 2.1 0 0 1\r\na\r\nb\r\n3\r\n";
    assert_eq!(ask(&mut wire, mset), "STORED\r\n");
    server.engine().declare_types(&types_of(&fleeting)).unwrap();
    let shown = ask(&mut wire, "get 3.1 name 2.1\r\n");
    assert_eq!(shown.matches("VALUE").count(), 3);
    assert_eq!(
        ask(&mut wire, "append 3.1 0 0 1\r\n+\r\nset 3.2 0 0 1\r\nx\r\n"),
        "STORED\r\nSTORED\r\n"
    );
    // What is in no file cannot be made to last by a word.
    let error = server
        .engine()
        .declare_types(&types_of(&durable))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the named keys cannot become durable: the 1 entries that are there are in no file; delete \
         them first, or restart the server without them"
    );
    assert_eq!(ask(&mut wire, "set 2.2 0 0 1\r\n2\r\n"), "STORED\r\n");
    // Neither the old record nor the old entry comes back, whatever the types are then.
    let disk = server.disk.kill();
    for config in [&fleeting, &durable, &fleeting] {
        let again = MemoryServer::start(&config.text(), disk.kill());
        let mut wire = again.connect();
        let found = ask(&mut wire, "get 3.1 3.2 name 2.1 2.2\r\n");
        assert_eq!(found, "VALUE 2.1 0 1\r\n3\r\nVALUE 2.2 0 1\r\n2\r\nEND\r\n");
    }
}

#[test]
fn volatile_types_that_cannot_be_are_refused() {
    for (types, error) in [
        (
            "4 = \"COUNTER\"\n5 = { kind = \"INDEX\", target = 4, durable = false }",
            "type 5 is not durable, but its target 4 is: a fan-out that is not journalled can step \
             only counters of a type with durable = false",
        ),
        (
            "5 = { kind = \"INDEX\", durable = false }",
            "type 5 is not durable, but its target 2 is: a fan-out that is not journalled can step \
             only counters of a type with durable = false",
        ),
        (
            "5 = { kind = \"DATA\", durable = false, keep_in_memory = 0 }",
            "type 5 is not durable: its values are in no file to be read from, so remove \
             keep_in_memory",
        ),
        (
            "5 = { kind = \"DATA\", durable = \"no\" }",
            "type 5: \"no\" is not possible: it takes true or false as its durable",
        ),
        (
            "5 = { kind = \"DATA\", when_full = \"drop\" }",
            "type 5: \"drop\" is not possible: it takes \"reject\" or \"evict\" as its when_full",
        ),
    ] {
        let refused = Parsed::parse(&format!("[types]\n{types}\n"), "c").unwrap_err();
        assert!(refused.to_string().contains(error), "{refused}");
    }
}

/// Any command on keys that last and keys that do not.
fn command(random: &mut Random) -> String {
    let key = |random: &mut Random| match random.below(8) {
        0 => format!("name{}", random.below(6)),
        number => {
            let prefix = [1, 2, 3, 13, 14, 15, 13][number as usize - 1];
            format!("{prefix}.{}", random.below(6))
        }
    };
    let (one, other) = (key(random), key(random));
    let exptime = [0, 0, 1000, -1][random.below(4) as usize];
    match random.below(10) {
        0..3 => format!("set {one} 1 {exptime} 1\r\n7\r\n"),
        3 => format!("append {one} 0 0 1\r\n{}\r\n", random.below(10)),
        4 => format!("incr {one} 3\r\n"),
        5 => format!(
            "incr 1.{} 1 {}\r\n",
            random.below(6),
            [2, 14][random.below(2) as usize]
        ),
        6 => format!("delete {one}\r\n"),
        7 => format!("gat {exptime} {one} {other}\r\n"),
        8 => format!("mset {one} 0 0 1 {other} 0 {exptime} 1\r\n8\r\n9\r\n"),
        _ if random.below(30) == 0 => "flush_all\r\n".to_owned(),
        _ => format!("prepend {one} 0 0 1\r\n{}\r\n", random.below(10)),
    }
}

#[test]
fn a_start_gives_all_that_is_durable_of_what_the_killed_server_showed() {
    let rounds = setting("STORAGE_SERVER_MODEL_ROUNDS", 100);
    let seed = Random::seed("volatile model");
    let (mut lasting, mut fleeting) = ("gets".to_owned(), "gets".to_owned());
    for id in 0..10 {
        write!(lasting, " 1.{id} 2.{id} 3.{id}").unwrap();
        write!(fleeting, " 13.{id} 14.{id} 15.{id} name{id}").unwrap();
    }
    let (lasting, fleeting) = (lasting + "\r\n", fleeting + "\r\n");
    for round in 0..rounds {
        let mut random = Random::new(seed + round);
        let mut disk = SimDisk::new();
        for start in 0..4 {
            let server = MemoryServer::start(&config().text(), disk);
            let mut wire = server.connect();
            assert_eq!(
                ask(&mut wire, &fleeting),
                "END\r\n",
                "seed {seed}, round {round}"
            );
            let mut stored = 0;
            for _ in 0..150 {
                ask(&mut wire, &command(&mut random));
                stored += ask(&mut wire, &fleeting).matches("VALUE").count();
                if random.below(60) == 0 {
                    assert_eq!(ask(&mut wire, "snapshot\r\n"), "OK\r\n");
                }
            }
            assert!(stored > 0);
            let shown = ask(&mut wire, &lasting);
            let again = MemoryServer::start(&config().text(), server.disk.kill());
            let found = ask(&mut again.connect(), &lasting);
            assert!(found == shown, "seed {seed}, round {round}, start {start}");
            disk = again.disk.kill();
        }
    }
}

/// How the keys of named keys, DATA, counters and indexes begin, any of which may be volatile.
const PAGES: [&str; 4] = ["name", "3.", "4.", "5."];

/// Which of [`PAGES`] last.
type Lasting = [bool; 4];

/// An index that does not last cannot step counters that do.
fn possible(mut lasting: Lasting) -> Lasting {
    lasting[2] &= lasting[3];
    lasting
}

fn chain_config([named, data, counter, index]: Lasting) -> Config {
    Config::standard()
        .with("server", "named_keys_durable", &named.to_string())
        .with(
            "types",
            "3",
            &format!("{{ kind = \"DATA\", durable = {data} }}"),
        )
        .with(
            "types",
            "4",
            &format!("{{ kind = \"COUNTER\", durable = {counter} }}"),
        )
        .with(
            "types",
            "5",
            &format!("{{ kind = \"INDEX\", target = 4, durable = {index} }}"),
        )
}

fn chain_command(random: &mut Random) -> String {
    let key =
        |random: &mut Random| format!("{}{}", PAGES[random.below(4) as usize], random.below(8));
    let (one, other) = (key(random), key(random));
    let exptime = [0, 0, 1000, -1][random.below(4) as usize];
    match random.below(9) {
        0..3 => format!("set {one} 1 {exptime} 1\r\n7\r\n"),
        3 => format!("append {one} 0 0 1\r\n{}\r\n", random.below(8)),
        4 | 5 => format!("incr {one} 3\r\n"),
        6 => format!("delete {one}\r\ntouch {other} {exptime}\r\n"),
        7 => format!("mset {one} 0 0 1 {other} 0 {exptime} 1\r\n8\r\n9\r\n"),
        _ => format!("md {one} I\r\nmg {one} v\r\nma {other} N0 J5\r\n"),
    }
}

/// What is there of a page.
fn shown(wire: &mut MemoryWire, page: &str) -> String {
    let (mut keys, mut looks) = (String::new(), String::new());
    for id in 0..8 {
        write!(keys, " {page}{id}").unwrap();
        write!(looks, "mg {page}{id} f s\r\n").unwrap();
    }
    // A look at what is stale changes it: the second one counts.
    ask(wire, &looks);
    ask(wire, &format!("gets{keys}\r\n{looks}"))
}

#[test]
fn nothing_stale_appears_whatever_lasts_from_one_start_to_the_next() {
    let seed = Random::seed("what lasts changes");
    for round in 0..setting("STORAGE_SERVER_MODEL_ROUNDS", 100) {
        let mut random = Random::new(seed + round);
        let (mut disk, mut left) = (SimDisk::new(), [const { None::<String> }; 4]);
        let nothing = format!("END\r\n{}", "EN\r\n".repeat(8));
        for start in 0..6 {
            let at = format!("seed {}, start {start}", seed + round);
            let mut lasting = possible([(); 4].map(|()| random.below(2) == 0));
            let server = MemoryServer::start(&chain_config(lasting).text(), disk);
            let mut wire = server.connect();
            for (page, left) in PAGES.iter().zip(&left) {
                let expected = left.as_ref().unwrap_or(&nothing);
                assert_eq!(shown(&mut wire, page), *expected, "{page}: {at}");
            }
            for _ in 0..80 {
                ask(&mut wire, &chain_command(&mut random));
                match random.below(60) {
                    0 | 1 => assert_eq!(ask(&mut wire, "snapshot\r\n"), "OK\r\n", "{at}"),
                    // A HUP, after which less lasts.
                    2 => {
                        lasting[random.below(4) as usize] = false;
                        lasting = possible(lasting);
                        let types = types_of(&chain_config(lasting));
                        server.engine().declare_types(&types).unwrap();
                    }
                    _ => {}
                }
            }
            for ((page, lasts), left) in PAGES.iter().zip(lasting).zip(&mut left) {
                let now = shown(&mut wire, page);
                *left = lasts.then_some(now);
            }
            disk = server.disk.kill();
        }
    }
}
