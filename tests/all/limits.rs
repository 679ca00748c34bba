//! Every limit of a request at one below, at it, and at one beyond; the limits that an operator
//! sets are read back from the running server.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use storage_server::config;
use storage_server::engine::Settings;
use storage_server::journal::sim::SimDisk;
use storage_server::server::shared::settings;

use crate::support::memory::MemoryServer;
use crate::support::wire::{PATIENCE, Received, Wire as _};
use crate::support::{Config, Home, until};

/// What comes back for a request on a connection of its own: its first line, and whether the
/// connection stays.
fn answer(server: &MemoryServer, request: &str) -> (String, bool) {
    let mut wire = server.connect();
    let reply = wire.ask(request.as_bytes());
    let open = wire.receive() == Received::Nothing;
    let reply = String::from_utf8_lossy(&reply);
    let line = reply.split("\r\n").next().unwrap_or_default();
    (line.to_owned(), open)
}

/// What the server says of one of its settings.
fn read_back(server: &MemoryServer, name: &str) -> usize {
    let text = server.connect().ask(b"stats settings\r\n");
    let text = String::from_utf8(text).unwrap();
    let start = format!("STAT {name} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&start));
    value.unwrap().parse().unwrap()
}

/// Parses a configuration with this one key set.
fn parse(section: &str, key: &str, value: &str) -> Result<config::Config, String> {
    let text = Config::bare().with(section, key, value).text();
    config::Config::parse(&text, "config.ini").map_err(|error| format!("{error:?}"))
}

/// How a request goes.
#[derive(Clone, Copy)]
enum Ends {
    /// This line comes.
    Line(&'static str),
    /// A line that begins so comes.
    Error(&'static str),
    /// The same, and the connection is closed.
    Close(&'static str),
}
use Ends::{Close, Error, Line};

fn check(server: &MemoryServer, what: &str, request: &str, ends: Ends) {
    let (line, open) = answer(server, request);
    let fits = match ends {
        Line(expected) => open && line == expected,
        Error(start) => open && line.starts_with(start),
        Close(start) => !open && line.starts_with(start),
    };
    assert!(
        fits,
        "{what}: {line:?}, {}",
        if open { "open" } else { "closed" }
    );
}

/// The limit `n` by a request of each size: those up to `n` go one way, those beyond another.
fn at(
    server: &MemoryServer,
    what: &str,
    n: u128,
    request: impl Fn(u128) -> String,
    (within, beyond): (Ends, Ends),
) {
    for (size, ends) in [(n - 1, within), (n, within), (n + 1, beyond)] {
        check(server, &format!("{what} {size}"), &request(size), ends);
    }
}

fn standard() -> MemoryServer {
    let config = Config::standard().with("types", "65535", "\"COUNTER\"");
    MemoryServer::start(
        &config.with("types", "65534", "\"COUNTER\"").text(),
        SimDisk::new(),
    )
}

const STORED: Ends = Line("STORED");
const CLIENT: Ends = Error("CLIENT_ERROR ");

fn repeated(text: &str, times: u128) -> String {
    text.repeat(usize::try_from(times).unwrap())
}

#[test]
fn keys_and_lines() {
    let server = standard();
    let key = |n| repeated("k", n);
    let set = |n| format!("set {} 0 0 1\r\nx\r\n", key(n));
    at(&server, "key to set", 250, set, (STORED, CLIENT));
    let get = |n| format!("get a {}\r\n", key(n));
    at(
        &server,
        "key to get",
        250,
        get,
        (Error("VALUE kkk"), CLIENT),
    );
    let delete = |n| format!("delete {}\r\n", key(n));
    at(&server, "key to delete", 250, delete, (Error(""), CLIENT));
    let mset = |n| format!("mset a 0 0 1 {} 0 0 1\r\nx\r\ny\r\n", key(n));
    at(&server, "key to mset", 250, mset, (STORED, CLIENT));
    // A line counts with its end.
    for end in ["\r\n", "\n"] {
        let line = |n| format!("version{}{end}", repeated(" ", n - 7 - end.len() as u128));
        let too_long = Close("CLIENT_ERROR line is longer than 2048 bytes");
        at(&server, "line", 2048, line, (Error("VERSION "), too_long));
        let line = |n| format!("get z{}{end}", repeated(" ", n - 5 - end.len() as u128));
        let too_long = Close("CLIENT_ERROR line is longer than 1048576 bytes");
        at(
            &server,
            "line of get",
            1 << 20,
            line,
            (Line("END"), too_long),
        );
    }
    // Without a line end, a line is given up once it can no longer be in order.
    let unfinished = |n| repeated("x", n);
    let too_long = Close("CLIENT_ERROR line is longer");
    at(
        &server,
        "unfinished line",
        2047,
        unfinished,
        (Line(""), too_long),
    );
}

#[test]
fn keys_of_a_retrieval() {
    let server = standard();
    for verb in ["get", "gets", "gat 0", "gats 0"] {
        let request = |n| format!("{verb}{}\r\n", repeated(" k", n));
        let too_many = Line("CLIENT_ERROR too many keys");
        at(&server, verb, 32_768, request, (Line("END"), too_many));
    }
}

#[test]
fn words_of_a_line() {
    let server = standard();
    for (line, ends) in [
        ("get", Line("ERROR")),
        ("get a", Line("END")),
        ("set a 0 0", Line("ERROR")),
        ("set a 0 0 1", STORED),
        ("set a 0 0 1 x", STORED),
        ("set a 0 0 1 x y", Line("ERROR")),
        ("cas a 0 0 1", Line("ERROR")),
        ("cas b 0 0 1 1", Line("NOT_FOUND")),
        ("incr 2.1", Line("ERROR")),
        ("incr 2.1 0", Line("0")),
        ("incr 2.1 0 4", Error("CLIENT_ERROR only an INDEX")),
        ("incr 2.1 0 4 4", Line("ERROR")),
        ("delete", Line("ERROR")),
        ("delete none", Line("NOT_FOUND")),
        ("delete none 0", Line("NOT_FOUND")),
        (
            "delete none 1",
            Error("CLIENT_ERROR bad command line format.  Usage: delete <key>"),
        ),
        (
            "delete none 0 0",
            Error("CLIENT_ERROR bad command line format.  Usage: delete <key>"),
        ),
        ("touch none", Line("ERROR")),
        ("touch none 0", Line("NOT_FOUND")),
        ("touch none 0 0", Line("NOT_FOUND")),
        ("touch none 0 0 0", Line("ERROR")),
        ("show types", Line("1 INDEX")),
        ("show types x", Line("ERROR")),
    ] {
        let block = if line.ends_with('1') || line.contains(" 1 ") {
            "x\r\n"
        } else {
            ""
        };
        let block = if line.starts_with("set") || line.starts_with("cas") {
            block
        } else {
            ""
        };
        check(&server, line, &format!("{line}\r\n{block}"), ends);
    }
}

#[test]
fn values_and_their_announced_lengths() {
    let text = Config::standard()
        .with("server", "max_value", "\"64k\"")
        .text();
    let server = MemoryServer::start(&text, SimDisk::new());
    let max = read_back(&server, "item_size_max") as u128;
    assert_eq!(max, 64 << 10);
    let value = |n| repeated("x", n);
    let too_large = Error("SERVER_ERROR object too large for cache");
    let set = |n| format!("set a 0 0 {n}\r\n{}\r\n", value(n));
    at(&server, "value", max, set, (STORED, too_large));
    let set = |n| format!("set 3.1 0 0 {n}\r\n{}\r\n", value(n));
    at(&server, "DATA", max, set, (STORED, too_large));
    let append = |n| {
        format!(
            "set a 0 0 1\r\nx\r\nappend a 0 0 {n}\r\n{}\r\nget none\r\n",
            value(n)
        )
    };
    for (size, reply) in [
        (max - 2, "STORED"),
        (max - 1, "STORED"),
        (max, "NOT_STORED"),
    ] {
        let all = server.connect().ask(append(size).as_bytes());
        let all = String::from_utf8(all).unwrap();
        let second = all.split("\r\n").nth(1).unwrap_or_default();
        assert!(
            second.starts_with(reply) && all.ends_with("END\r\n"),
            "append {size}: {all}"
        );
    }
    let mset = |n| {
        let (one, two) = (n / 2, n - n / 2);
        format!(
            "mset a 0 0 {one} b 0 0 {two}\r\n{}\r\n{}\r\n",
            value(one),
            value(two)
        )
    };
    at(&server, "blocks of mset", max, mset, (STORED, too_large));
    // What no block is believed to have gets memcached's answer. Nobody knows where the next
    // request begins: nothing of what follows may run, even if it looks like a request.
    let announce = |n: &str| format!("set a 0 0 {n}\r\nset b 0 0 8\r\nexecuted\r\n");
    let set = |n: u128| announce(&n.to_string());
    let unbelieved = Close("CLIENT_ERROR bad command line format");
    at(
        &server,
        "length",
        (1 << 31) - 3,
        set,
        (too_large, unbelieved),
    );
    for power in [31, 32, 63, 64, 65] {
        at(&server, "length", 1 << power, set, (unbelieved, unbelieved));
    }
    for length in ["-1", "1x", "18446744073709551616"] {
        check(&server, length, &announce(length), unbelieved);
    }
    let b = server.connect().ask(b"get b\r\n");
    assert!(!String::from_utf8_lossy(&b).contains("executed"));
}

#[test]
fn the_largest_value_by_default_and_at_all() {
    // In memory only: no journal holds these values, too.
    let config = Config::standard().with("server", "named_keys_durable", "false");
    let largest = config.clone().with("server", "max_value", "\"64m\"");
    for (config, max) in [(config, 1 << 20), (largest, 64 << 20)] {
        let server = MemoryServer::start(&config.text(), SimDisk::new());
        assert_eq!(read_back(&server, "item_size_max"), max);
        let set = |n| format!("set a 0 0 {n}\r\n{}\r\n", repeated("x", n));
        let too_large = Error("SERVER_ERROR object too large for cache");
        at(&server, "value", max as u128, set, (STORED, too_large));
    }
}

#[test]
fn numbers_of_the_configuration() {
    // The name in `stats settings`; what 0 stands for and how many clients may come in the end
    // depends on the machine.
    for (key, shown, least, most) in [
        ("threads", None, 0, 256),
        ("max_clients", None, 1, 1 << 20),
        ("idle_timeout", Some("idle_timeout"), 0, 60 * 60 * 24 * 365),
        ("max_value", Some("item_size_max"), 1, 64 << 20),
        ("memory_limit", Some("maxbytes"), 0, 1 << 50),
        (
            "client_memory",
            Some("read_buf_mem_limit"),
            4 << 20,
            1 << 50,
        ),
    ] {
        let taken = |value: i64| parse("server", key, &value.to_string()).is_ok();
        let around = |limit| [limit - 1, limit, limit + 1].map(taken);
        assert_eq!(around(least), [false, true, true], "{key} {least}");
        assert_eq!(around(most), [true, true, false], "{key} {most}");
        let Some(shown) = shown else { continue };
        for value in [least, least + 1, most - 1, most] {
            if value > 0 {
                let config = Config::standard().with("server", key, &value.to_string());
                let server = MemoryServer::start(&config.text(), SimDisk::new());
                let found = i64::try_from(read_back(&server, shown)).unwrap();
                assert_eq!(found, value, "{key}");
            }
        }
    }
}

#[test]
fn clients_at_one_time() {
    const MOST: usize = 3;
    let config = Config::standard().with("server", "max_clients", &MOST.to_string());
    let home = Home::new(config);
    let daemon = home.start();
    let mut clients = Vec::new();
    for number in 1..=MOST {
        let mut client = daemon.client();
        assert_eq!(
            client.stats("settings").unwrap()["maxconns"],
            MOST.to_string()
        );
        assert_eq!(
            client.stats("").unwrap()["curr_connections"],
            number.to_string()
        );
        clients.push(client);
    }
    let told = daemon.client().line().unwrap();
    assert_eq!(told, "ERROR Too many open connections");
    for client in &mut clients {
        assert_eq!(client.set("2.1", "5").unwrap(), "STORED");
    }
    // One that leaves makes room for one, and for no more.
    clients.pop();
    until("there is room", PATIENCE, || {
        let mut client = daemon.client();
        let there = client.set("2.1", "6").is_ok_and(|reply| reply == "STORED");
        there.then(|| clients.push(client))
    });
    let told = daemon.client().line().unwrap();
    assert_eq!(told, "ERROR Too many open connections");
}

#[test]
fn cache_memlimit() {
    let server = standard();
    let too_small = Line("MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m");
    let too_large = Line("MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes");
    let before = read_back(&server, "maxbytes");
    let most = 1_000_000_000;
    for (mib, ends) in [
        (0, too_small),
        (7, too_small),
        (most + 1, too_large),
        (u64::MAX, too_large),
    ] {
        let request = format!("cache_memlimit {mib}\r\n");
        check(&server, "cache_memlimit", &request, ends);
        assert_eq!(read_back(&server, "maxbytes"), before);
    }
    for mib in [8, 9, most - 1, most] {
        let request = format!("cache_memlimit {mib}\r\n");
        check(&server, "cache_memlimit", &request, Line("OK"));
        assert_eq!(read_back(&server, "maxbytes") as u64, mib << 20);
    }
    for request in [
        "cache_memlimit\r\n",
        "cache_memlimit x\r\n",
        "cache_memlimit -1\r\n",
    ] {
        check(&server, "cache_memlimit", request, Line("ERROR"));
    }
}

#[test]
fn numbers_of_a_request() {
    let server = standard();
    let (max32, max64) = (u128::from(u32::MAX), u128::from(u64::MAX));
    let ok = Error("");
    for sign in ["", "-"] {
        let incr = |key| move |n| format!("incr {key} {sign}{n}\r\n");
        at(&server, "delta", max32, incr("2.1"), (Error(""), CLIENT));
        at(
            &server,
            "delta of a fan-out",
            max32,
            incr("1.1"),
            (Line("NOT_FOUND"), CLIENT),
        );
        at(
            &server,
            "delta of 64 bits",
            max64,
            incr("6.1"),
            (ok, CLIENT),
        );
    }
    let incr = |n| format!("set a 0 0 1\r\n0\r\nincr a {n}\r\n");
    at(
        &server,
        "delta of a named number",
        max64,
        incr,
        (STORED, STORED),
    );
    let decr = |n| format!("decr a {n}\r\n");
    at(
        &server,
        "delta of a named number",
        max64,
        decr,
        (ok, CLIENT),
    );
    let body = |key: &'static str| {
        move |n: u128| format!("set {key} 0 0 {}\r\n{n}\r\n", n.to_string().len())
    };
    at(&server, "COUNTER", max32, body("2.1"), (STORED, CLIENT));
    at(&server, "COUNTER64", max64, body("6.1"), (STORED, CLIENT));
    at(
        &server,
        "id of a member",
        max32,
        body("1.1"),
        (STORED, CLIENT),
    );
    let attribute = |n: u128| format!("set 1.1 0 0 {}\r\n1 {n}\r\n", n.to_string().len() + 2);
    at(&server, "attribute", max32, attribute, (STORED, CLIENT));
    let id = |n| format!("get 2.{n}\r\n");
    at(&server, "id", max32, id, (ok, CLIENT));
    let prefix = |n| format!("incr {n}.1 0\r\n");
    at(&server, "type", 65535, prefix, (Line("0"), CLIENT));
    check(&server, "type 0", "get 0.1\r\n", CLIENT);
    let target = |n| format!("incr 1.9 1 {n}\r\n");
    at(
        &server,
        "target",
        65535,
        target,
        (Line("NOT_FOUND"), CLIENT),
    );
    let flags = |n| format!("set a {n} 0 1\r\nx\r\n");
    at(&server, "flags", max32, flags, (STORED, CLIENT));
    let unique = |n| format!("cas none 0 0 1 {n}\r\nx\r\n");
    at(
        &server,
        "cas unique",
        max64,
        unique,
        (Line("NOT_FOUND"), CLIENT),
    );
    let latest = u128::from(i64::MAX.unsigned_abs());
    for sign in ["", "-"] {
        let exptime = |n| format!("set a 0 {sign}{n} 1\r\nx\r\n");
        at(&server, "exptime", latest, exptime, (STORED, CLIENT));
        let touch = |n| format!("touch a {sign}{n}\r\n");
        at(&server, "exptime to touch", latest, touch, (ok, CLIENT));
    }
    // Up to 30 days an expiry is relative; beyond, it is a time, here of 1970.
    let month = 60 * 60 * 24 * 30;
    let exptime = |n| format!("set a 0 {n} 1 noreply\r\nx\r\nget a\r\n");
    at(
        &server,
        "month",
        month,
        exptime,
        (Line("VALUE a 0 1"), Line("END")),
    );
}

#[test]
fn keys_and_words_of_meta_commands() {
    let server = standard();
    for (verb, rest, ends) in [
        ("mg", " v", Line("EN")),
        ("md", "", Line("NF")),
        ("ma", "", Line("NF")),
        ("me", "", Line("EN")),
        ("ms", " 1\r\nx", Line("HD")),
    ] {
        let of = |n| format!("{verb} {}{rest}\r\n", repeated("k", n));
        at(&server, verb, 250, of, (ends, CLIENT));
    }
    // As base64 a key may have any bytes, and it is the word that is limited.
    for (verb, rest, ends) in [
        ("mg", " b v", Line("EN")),
        ("md", " b", Line("NF")),
        ("ma", " b", Line("NF")),
        ("me", " b", Line("EN")),
        ("ms", " 1 b\r\nx", Line("HD")),
    ] {
        let key = |n| STANDARD.encode(repeated("\0", n));
        let of = |n| format!("{verb} {}{rest}\r\n", key(n));
        at(&server, verb, 186, of, (ends, CLIENT));
    }
    // Each flag may be there once; with the verb and the key 19 words are the most.
    let flags = "k f s t c h l u v I L P x O1 T0 F0 C1 D1 J1";
    let flags: Vec<_> = flags.split(' ').collect();
    for (verb, ends) in [("mg", "EN"), ("md", "NF"), ("ma", "NF")] {
        let of = |n| {
            let flags = flags[..usize::try_from(n).unwrap()].join(" ");
            format!("{verb} none {flags}\r\n")
        };
        at(&server, verb, 17, of, (Error(ends), CLIENT));
    }
    for (line, block, ends) in [
        ("mg none", "", "EN"),
        ("md none", "", "NF"),
        ("ma none", "", "NF"),
        ("ms any 1", "x\r\n", "HD"),
    ] {
        let of = |n| format!("{line} O{}\r\n{block}", repeated("o", n));
        at(&server, line, 31, of, (Error(ends), CLIENT));
        let of = |n| {
            format!(
                "{line}{}\r\n{block}",
                repeated(" ", n - 2 - line.len() as u128)
            )
        };
        let too_long = Close("CLIENT_ERROR line is longer than 2048 bytes");
        at(&server, line, 2048, of, (Line(ends), too_long));
    }
    for line in ["mg", "md", "ma", "me", "ms", "ms a"] {
        check(&server, line, &format!("{line}\r\n"), Error(""));
    }
}

#[test]
fn values_and_numbers_of_meta_commands() {
    let text = Config::standard()
        .with("server", "max_value", "\"64k\"")
        .text();
    let server = MemoryServer::start(&text, SimDisk::new());
    let value = |n| repeated("x", n);
    let too_large = Error("SERVER_ERROR object too large for cache");
    for key in ["a", "3.1"] {
        let set = |n| format!("ms {key} {n}\r\n{}\r\n", value(n));
        at(&server, key, 64 << 10, set, (Line("HD"), too_large));
        for mode in ["MA", "MP"] {
            let extend = |n| {
                format!(
                    "set {key} 0 0 9 noreply\r\n123456789\r\nms {key} {n} {mode}\r\n{}\r\n",
                    value(n)
                )
            };
            at(
                &server,
                mode,
                (64 << 10) - 9,
                extend,
                (Line("HD"), Line("NS")),
            );
        }
    }
    let announce = |n: &str| format!("ms a {n}\r\nset b 0 0 8\r\nexecuted\r\n");
    let set = |n: u128| announce(&n.to_string());
    let unbelieved = Close("CLIENT_ERROR bad command line format");
    at(
        &server,
        "length",
        (1 << 31) - 3,
        set,
        (too_large, unbelieved),
    );
    for power in [31, 32, 63, 64, 65] {
        at(&server, "length", 1 << power, set, (unbelieved, unbelieved));
    }
    for length in ["-1", "1x", "18446744073709551616"] {
        check(&server, length, &announce(length), unbelieved);
    }
    let b = server.connect().ask(b"get b\r\n");
    assert_eq!(String::from_utf8_lossy(&b), "END\r\n");

    let (max32, max64) = (u128::from(u32::MAX), u128::from(u64::MAX));
    let latest = u128::from(i64::MAX.unsigned_abs());
    let set = |flag: &'static str| move |n| format!("ms n 1 {flag}{n}\r\n1\r\n");
    at(&server, "F", max32, set("F"), (Line("HD"), CLIENT));
    at(&server, "C", max64, set("C"), (Line("EX"), CLIENT));
    at(&server, "E", max64, set("E"), (Line("HD"), CLIENT));
    for flag in ["T", "T-"] {
        at(&server, flag, latest, set(flag), (Line("HD"), CLIENT));
    }
    let get = |flag: &'static str| move |n| format!("ms n 1 q\r\n1\r\nmg n {flag}{n}\r\n");
    for flag in ["T", "N", "R"] {
        at(&server, flag, latest, get(flag), (Error("HD"), CLIENT));
    }
    let step = |flag: &'static str| move |n| format!("ms n 1 q\r\n1\r\nma n {flag}{n}\r\n");
    for (flag, most) in [
        ("D", max64),
        ("J", max64),
        ("E", max64),
        ("T", latest),
        ("N", latest),
    ] {
        at(&server, flag, most, step(flag), (Line("HD"), CLIENT));
    }
    let step = |key: &'static str| move |n| format!("ma {key} D{n}\r\n");
    at(&server, "delta", max32, step("2.1"), (Line("HD"), CLIENT));
    at(
        &server,
        "delta of 64 bits",
        max64,
        step("6.1"),
        (Line("HD"), CLIENT),
    );
    at(
        &server,
        "delta of a fan-out",
        max32,
        step("1.1"),
        (Line("NF"), CLIENT),
    );
    let initial = |n| format!("delete 2.2 noreply\r\nma 2.2 N0 J{n}\r\n");
    at(&server, "initial", max32, initial, (Line("HD"), CLIENT));
    let body = |n: u128| format!("ms 2.1 {}\r\n{n}\r\n", n.to_string().len());
    at(&server, "COUNTER", max32, body, (Line("HD"), CLIENT));
}

#[test]
fn members_of_an_index() {
    let text = Config::standard().text();
    let server = MemoryServer::start(&text, SimDisk::new());
    let config = config::Config::parse(&text, "config.ini").unwrap();
    server.engine().set_settings(Settings {
        members_max: 1000,
        ..settings(&config)
    });
    let body = |from: u128, to: u128| {
        let ids: Vec<_> = (from..to).map(|id| id.to_string()).collect();
        ids.join("\n")
    };
    let append = |n| {
        let (first, rest) = (body(0, 500), body(400, n));
        let (a, b) = (first.len(), rest.len());
        format!("set 1.1 0 0 {a} noreply\r\n{first}\r\nappend 1.1 0 0 {b}\r\n{rest}\r\n")
    };
    let too_many = Error("SERVER_ERROR 1.1 would hold more than 1000 members");
    at(
        &server,
        "members to append",
        1000,
        append,
        (STORED, too_many),
    );
}
