//! The state is the fold of the journal: after any commands, a server that starts on the killed
//! one's files answers every question as the killed one did, cas uniques included.

use std::fmt::Write as _;

use storage_server::clock::{SimClock, Time};
use storage_server::journal::sim::SimDisk;

use crate::support::memory::MemoryServer;
use crate::support::{Config, Random, setting};

const NAMED: u64 = 12;
const IDS: u64 = 12;

fn key(random: &mut Random) -> String {
    match random.below(4) {
        0 => format!("name{}", random.below(NAMED)),
        _ => format!("{}.{}", 1 + random.below(7), random.below(IDS)),
    }
}

fn body(random: &mut Random) -> String {
    match random.below(5) {
        0 => random.below(1 << 33).to_string(),
        1 => random.below(200).to_string(),
        2 => "x".repeat(random.below(40) as usize),
        3 => "y".repeat(random.below(40_000) as usize),
        _ => {
            let members = random.below(300);
            (0..members).fold(String::new(), |mut text, _| {
                writeln!(text, "{} {}", random.below(400), random.below(3)).unwrap();
                text
            })
        }
    }
}

/// Expiries that are over at once, soon by the test's clock, or not while the test runs.
fn exptime(random: &mut Random) -> i64 {
    [0, 0, 0, 0, 1, 2, 1000, 2_000_000_000, -1][random.below(9) as usize]
}

/// When the tests' clock begins, in seconds.
const BEGIN_S: u64 = 1_900_000_000;

/// A clock that goes on now and then, by up to a second. Servers count whole milliseconds from
/// their start, so that those that start between two would not agree to the last one.
struct Clock(SimClock);

impl Clock {
    fn new() -> Self {
        Self(SimClock::new(Time(BEGIN_S * 1000)))
    }

    fn go_on(&self, random: &mut Random) {
        if random.below(8) == 0 {
            self.0.pass_us(random.below(1000) * 1000);
        }
    }
}

/// A meta command, of those that leave something behind.
fn meta_command(random: &mut Random) -> String {
    let (key, body, exptime) = (key(random), body(random), exptime(random));
    let (length, cas) = (body.len(), random.below(2000));
    match random.below(16) {
        0 => format!("ms {key} {length} T{exptime} F2 c\r\n{body}\r\n"),
        1 => format!("ms {key} {length} T{exptime} C{cas} I\r\n{body}\r\n"),
        2 => format!("ms {key} {length} MA N{exptime}\r\n{body}\r\n"),
        3 => format!("ms {key} 2 E{cas} ME\r\n42\r\n"),
        4 => format!("ms bmFtZTE= {length} b E{cas}\r\n{body}\r\n"),
        5 | 6 => format!("md {key} I T{exptime}\r\nmg {key} v\r\n"),
        7 => format!("md {key} x I F7 E{cas}\r\n"),
        8 => format!("mg {key} v t T{exptime} R5000\r\n"),
        9 => format!("mg {key} N{exptime} v\r\n"),
        10 => format!("ma {key} N{exptime} J{cas} D7 T{exptime} v\r\n"),
        11 => format!("ms {key} {length} MP c\r\n{body}\r\n"),
        12 => format!("ms {key} {length} MA C{cas}\r\n{body}\r\n"),
        // Of an INDEX the fan-out, which takes none of those flags.
        13 | 14 => format!("ma {key} D{cas} v\r\nma {key} MD D3 q\r\nmn\r\n"),
        _ => format!("ma {key} MD D{cas} E{cas} q\r\nmn\r\n"),
    }
}

fn command(random: &mut Random) -> String {
    if random.below(4) == 0 {
        return meta_command(random);
    }
    let (key, body, exptime) = (key(random), body(random), exptime(random));
    let (flags, length) = (random.below(3), body.len());
    match random.below(20) {
        0..4 => format!("set {key} {flags} {exptime} {length}\r\n{body}\r\n"),
        4 => format!("add {key} {flags} {exptime} {length}\r\n{body}\r\n"),
        5 => format!("replace {key} {flags} {exptime} {length}\r\n{body}\r\n"),
        6..9 => format!("append {key} {flags} {exptime} {length}\r\n{body}\r\n"),
        9 => format!("prepend {key} {flags} {exptime} {length}\r\n{body}\r\n"),
        10..13 => format!("incr {key} {}\r\n", random.below(1 << 32)),
        13 => format!("incr {key} -{}\r\n", random.below(50)),
        14 => format!("decr {key} {}\r\n", random.below(1 << 32)),
        15 => format!(
            "incr 1.{} 3 {}\r\n",
            random.below(IDS),
            [4, 6][random.below(2) as usize]
        ),
        16 => format!("delete {key}\r\n"),
        17 => format!("touch {key} {exptime}\r\ngat {exptime} {key} 2.1 1.1\r\n"),
        18 => format!("mset {key} 1 0 1 2.3 0 {exptime} 1 {key} 0 0 1\r\n7\r\n8\r\n9\r\n"),
        _ if random.below(16) == 0 => {
            let delay = [0, 1, 2, 1000][random.below(4) as usize];
            format!("flush_all {delay}\r\n")
        }
        _ => format!("set {key} 0 0 2\r\n42\r\n"),
    }
}

/// Everything that can be asked, at once.
fn question() -> String {
    let mut line = "gets".to_owned();
    for number in 0..NAMED {
        write!(line, " name{number}").unwrap();
    }
    for prefix in 1..=7 {
        for id in 0..IDS {
            write!(line, " {prefix}.{id}").unwrap();
        }
    }
    // The members of the indexes are counters, too.
    for id in 0..400 {
        write!(line, " 2.{id} 4.{id} 6.{id}").unwrap();
    }
    line += "\r\n";
    // The marks; whoever sees a stale entry first changes it, so this is asked twice.
    for number in 0..NAMED {
        write!(line, "mg name{number} k c f s v\r\n").unwrap();
    }
    for id in 0..IDS {
        write!(line, "mg 1.{id} k c\r\nmg 3.{id} k c\r\n").unwrap();
    }
    line + "mn\r\n"
}

#[test]
fn a_start_gives_the_state_that_the_killed_server_showed() {
    states_are_the_same("model", &Config::standard());
}

#[test]
fn a_start_gives_the_same_state_with_values_that_are_not_in_memory() {
    states_are_the_same("model of values away", &Config::standard().leaving());
}

/// Every start has other options for the types than the one before.
#[test]
fn a_start_counts_what_was_by_the_options_of_its_time() {
    let seed = Random::seed("model of options");
    let options = |random: &mut Random| {
        let overflow = ["wrap", "saturate", "error"][random.below(3) as usize];
        let (min, max) = (random.below(50), 100 + random.below(1 << 31));
        let ttl = ["", ", ttl = 1000", ", ttl = 100000"][random.below(3) as usize];
        format!("min = {min}, max = {max}, overflow = \"{overflow}\"{ttl}")
    };
    let index = |random: &mut Random, target| {
        let weighted = random.below(2);
        format!("{{ kind = \"INDEX\", target = {target}, weighted = {weighted} }}")
    };
    let question = question();
    for round in 0..setting("STORAGE_SERVER_MODEL_ROUNDS", 300) / 2 {
        let mut random = Random::new(seed + round);
        let (mut disk, clock) = (SimDisk::new(), Clock::new());
        for start in 0..4 {
            let mut config = Config::standard();
            for (prefix, kind) in [("4", "COUNTER"), ("6", "COUNTER64")] {
                let options = options(&mut random);
                config.set(
                    "types",
                    prefix,
                    &format!("{{ kind = \"{kind}\", {options} }}"),
                );
            }
            config.set("types", "5", &index(&mut random, 4));
            config.set("types", "7", &index(&mut random, 6));
            let config = config.text();
            let server = MemoryServer::start_at(&config, disk, &clock.0);
            let mut wire = server.connect();
            for _ in 0..100 {
                clock.go_on(&mut random);
                wire.ask(command(&mut random).as_bytes());
                let fan_out = format!("incr {}.0 {}\r\n", 5 + 2 * random.below(2), random.below(9));
                wire.ask(fan_out.as_bytes());
                if random.below(60) == 0 {
                    assert_eq!(wire.ask(b"snapshot\r\n"), b"OK\r\n");
                }
            }
            // Whoever sees a stale entry first changes it: what counts is what is shown after that.
            wire.ask(question.as_bytes());
            let shown = wire.ask(question.as_bytes());
            disk = server.disk.kill();
            // Once by the same options, once more by the next: what is there stays.
            let again = MemoryServer::start_at(&config, disk, &clock.0);
            let found = again.connect().ask(question.as_bytes());
            assert!(found == shown, "seed {}, start {start}", seed + round);
            disk = again.disk.kill();
        }
    }
}

fn states_are_the_same(name: &str, config: &Config) {
    let seed = Random::seed(name);
    let rounds = setting("STORAGE_SERVER_MODEL_ROUNDS", 300);
    let config = config.text();
    let question = question();
    for round in 0..rounds {
        let mut random = Random::new(seed + round);
        let (mut disk, clock) = (SimDisk::new(), Clock::new());
        for start in 0..4 {
            let server = MemoryServer::start_at(&config, disk, &clock.0);
            let mut wire = server.connect();
            for _ in 0..150 {
                clock.go_on(&mut random);
                wire.ask(command(&mut random).as_bytes());
                if random.below(60) == 0 {
                    assert_eq!(wire.ask(b"reopen\r\n"), b"OK\r\n");
                }
            }
            // As above: a look may change what is stale.
            wire.ask(question.as_bytes());
            let shown = wire.ask(question.as_bytes());
            assert!(shown.ends_with(b"MN\r\n"));
            disk = server.disk.kill();
            let again = MemoryServer::start_at(&config, disk, &clock.0);
            let found = again.connect().ask(question.as_bytes());
            disk = again.disk.kill();
            assert!(
                found == shown,
                "seed {seed}, round {round}, start {start}: states differ"
            );
        }
    }
}

#[test]
fn damaged_requests_never_panic_and_never_change_anything_else() {
    let seed = Random::seed("mutated requests");
    let config = Config::standard().text();
    let server = MemoryServer::start(&config, SimDisk::new());
    let mut random = Random::new(seed);
    server.connect().ask(b"set witness 5 0 7\r\nwitness\r\n");
    for _ in 0..20_000 {
        let mut bytes = command(&mut random).into_bytes();
        if bytes.starts_with(b"flush_all") {
            continue;
        }
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len() as u64) as usize;
            match random.below(3) {
                0 => bytes[at] = random.below(256) as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b" \r\n0-.9"[random.below(7) as usize]),
            }
            if bytes.is_empty() {
                break;
            }
        }
        let mut wire = server.connect();
        wire.ask(&bytes);
    }
    let kept = server.connect().ask(b"get witness\r\n");
    assert_eq!(
        kept, b"VALUE witness 5 7\r\nwitness\r\nEND\r\n",
        "seed {seed}"
    );
}
