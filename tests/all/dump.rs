//! Dumps of keys: they list what is there, can be restored from, and hold nobody up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use crate::support::{Client, Config, Home};

/// What a line of `metadump` says, by name; keys decoded.
fn metadump(client: &mut Client, classes: &str) -> Vec<BTreeMap<String, String>> {
    client
        .send(format!("lru_crawler metadump {classes}\r\n").as_bytes())
        .unwrap();
    let mut found = Vec::new();
    loop {
        let line = client.line().unwrap();
        if line == "END" {
            return found;
        }
        let words = line.split(' ').map(|word| {
            let (name, value) = word.split_once('=').expect("name=value");
            (name.to_owned(), decoded(value))
        });
        found.push(words.collect());
    }
}

/// Percent-decoded.
fn decoded(word: &str) -> String {
    let mut parts = word.split('%');
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        let byte = u8::from_str_radix(&part[..2], 16).unwrap();
        text.push(char::from(byte));
        text.push_str(&part[2..]);
    }
    text
}

fn keys(dump: &[BTreeMap<String, String>]) -> BTreeSet<String> {
    dump.iter().map(|entry| entry["key"].clone()).collect()
}

/// Something of every kind.
const ENTRIES: &[(&str, &str, &str)] = &[
    ("1.7", "5", "1 0\n2 9"),
    ("2.17", "0", "12"),
    ("3.4", "9", "data of a type"),
    ("6.1", "0", "18446744073709551615"),
    ("plain", "0", "v"),
    ("a%b=c d", "0", ""),
];

#[test]
fn a_store_is_restored_from_its_dump() {
    let (from, to) = (Home::new(Config::standard()), Home::new(Config::standard()));
    let (from, to) = (from.start(), to.start());
    let (mut from, mut to) = (from.client(), to.client());
    let names: Vec<_> = ENTRIES
        .iter()
        .map(|(key, ..)| key.replace(' ', "_"))
        .collect();
    for (key, (_, flags, value)) in names.iter().zip(ENTRIES) {
        let line = format!("set {key} {flags} 4000000000 {}\r\n{value}", value.len());
        assert_eq!(from.ask(&line).unwrap(), "STORED", "{key}");
    }
    assert_eq!(from.set("forever", "x").unwrap(), "STORED");
    let dump = metadump(&mut from, "all");
    for entry in &dump {
        let key = &entry["key"];
        let value = from.get(key).unwrap().expect("a dumped key is there");
        let (flags, exp) = (&entry["flags"], &entry["exp"]);
        let exptime = if exp == "-1" { "0" } else { exp };
        let line = format!("set {key} {flags} {exptime} {}\r\n{value}", value.len());
        assert_eq!(to.ask(&line).unwrap(), "STORED", "{key}");
        for name in ["la", "cas", "fetch", "cls", "size"] {
            assert!(entry.contains_key(name), "{entry:?}");
        }
    }
    assert_eq!(dump.len(), names.len() + 1);
    let again = metadump(&mut to, "hash");
    assert_eq!(keys(&dump), keys(&again));
    let facts = |dump: &[BTreeMap<String, String>]| -> BTreeSet<_> {
        let fact = |entry: &BTreeMap<String, String>| {
            ["key", "exp", "flags", "cls", "size"].map(|name| entry[name].clone())
        };
        dump.iter().map(fact).collect()
    };
    assert_eq!(facts(&dump), facts(&again));
    assert_eq!(from.get_many(&names).unwrap(), to.get_many(&names).unwrap());
}

#[test]
fn a_dump_tells_what_was_fetched_and_when_it_was_last_accessed() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    let mut client = daemon.client();
    for key in ["named", "3.1", "2.1", "unseen", "3.2"] {
        assert_eq!(client.set(key, "1").unwrap(), "STORED");
    }
    assert_eq!(client.set("1.1", "5").unwrap(), "STORED");
    std::thread::sleep(Duration::from_millis(2100));
    for key in ["named", "3.1", "1.1", "2.1"] {
        client.get(key).unwrap().unwrap();
    }
    let time = |client: &mut Client| client.stats("").unwrap()["time"].parse::<u64>().unwrap();
    let after = time(&mut client);
    for entry in metadump(&mut client, "all") {
        let (key, accessed) = (entry["key"].as_str(), entry["la"].parse::<u64>().unwrap());
        let expected = match key {
            "named" | "3.1" | "1.1" => ("yes", true),
            // Of a counter nothing of the kind is kept.
            "2.1" => ("no", true),
            _ => ("no", false),
        };
        let is_new = accessed + 1 >= after && accessed <= after + 1;
        assert_eq!((entry["fetch"].as_str(), is_new), expected, "{entry:?}");
        assert!(accessed + 60 > after, "{entry:?}");
    }
}

#[test]
fn a_class_is_a_type_and_that_of_the_named_keys_is_after_all_types() {
    let home = Home::new(Config::standard().with("types", "300", "\"DATA\""));
    let daemon = home.start();
    let mut client = daemon.client();
    for key in ["2.1", "2.2", "300.5", "3.9", "name"] {
        client.set(key, "1").unwrap();
    }
    let mut listed = |classes: &str| {
        let keys = keys(&metadump(&mut client, classes));
        keys.into_iter().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(listed("2"), "2.1 2.2");
    assert_eq!(listed("65536"), "name");
    assert_eq!(listed("0"), "name", "memcdump tries the first classes");
    assert_eq!(listed("300,0,0"), "300.5 name");
    assert_eq!(listed("1"), "");
    assert_eq!(
        listed("63"),
        "",
        "a class that memcached could have is empty"
    );
    for bad in ["64", "x", "2,x", "-1", ""] {
        let line = client.ask(&format!("lru_crawler metadump {bad}")).unwrap();
        let expected = if bad.is_empty() {
            "ERROR"
        } else {
            "BADCLASS invalid class id"
        };
        assert_eq!(line, expected, "{bad}");
    }
    assert_eq!(client.ask("lru_crawler mgdump 300").unwrap(), "mg 300.5");
    assert_eq!(client.line().unwrap(), "EN");
    assert_eq!(
        client.ask("stats cachedump 300 0").unwrap(),
        "ITEM 300.5 [1 b; 0 s]"
    );
    assert_eq!(client.line().unwrap(), "END");
    assert!(
        client
            .ask("stats cachedump 2 1")
            .unwrap()
            .starts_with("ITEM 2.")
    );
    assert_eq!(client.line().unwrap(), "END", "one was asked for");
    assert_eq!(client.ask("stats cachedump 63 0").unwrap(), "END");
    let line = client.ask("stats cachedump 64 0").unwrap();
    assert_eq!(line, "CLIENT_ERROR Illegal slab id");
}

#[test]
fn a_key_that_is_no_word_adds_none_to_a_dump() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    let mut client = daemon.client();
    // "a b", "x<CR><LF>flush_all<CR><LF>y", "<LF>", and a word that was sent as base64.
    let keys = ["YSBi", "eA0KZmx1c2hfYWxsDQp5", "Cg==", "d29yZA=="];
    for key in keys {
        assert_eq!(client.ask(&format!("ms {key} 1 b\r\nv")).unwrap(), "HD");
    }
    client.set("a%b", "v").unwrap();
    let mut lines = |request: &str, end: &str| {
        client.send(format!("{request}\r\n").as_bytes()).unwrap();
        let lines = std::iter::from_fn(|| Some(client.line().unwrap()).filter(|it| it != end));
        lines.collect::<BTreeSet<_>>()
    };
    let asked = lines("lru_crawler mgdump all", "EN");
    let mut expected: BTreeSet<_> = keys.iter().map(|key| format!("mg {key} b")).collect();
    expected.insert("mg a%b".to_owned());
    assert_eq!(asked, expected);
    let listed = lines("stats cachedump 0 0", "END");
    let names = ["a%20b", "x%0D%0Aflush_all%0D%0Ay", "%0A", "word", "a%b"];
    let items = names.map(|name| format!("ITEM {name} [1 b; 0 s]"));
    assert_eq!(listed, BTreeSet::from(items));
    for request in asked {
        assert_eq!(
            client.ask(&format!("{request} s")).unwrap(),
            "HD s1",
            "{request}"
        );
    }
}

#[test]
fn a_dump_lists_all_that_stays_while_others_write() {
    const KEYS: usize = 60_000;
    let home = Home::new(Config::standard());
    let daemon = home.start();
    let mut client = daemon.client();
    let mut requests = String::new();
    for id in 0..KEYS {
        write!(
            requests,
            "set 2.{id} 0 0 1\r\n1\r\nset a-rather-long-name-{id} 0 0 1\r\n1\r\n"
        )
        .unwrap();
    }
    client.pipeline(requests.as_bytes(), 2 * KEYS).unwrap();
    // Nothing is read before the other one has made every table grow.
    let mut dumping = daemon.client();
    dumping
        .send(b"lru_crawler metadump all\r\nget 2.1\r\n")
        .unwrap();
    let mut more = String::new();
    for id in KEYS..4 * KEYS {
        write!(more, "set 2.{id} 0 0 1\r\n1\r\n").unwrap();
    }
    client.pipeline(more.as_bytes(), 3 * KEYS).unwrap();
    let mut listed = BTreeSet::new();
    loop {
        let line = dumping.line().unwrap();
        if line == "END" {
            break;
        }
        let key = line
            .split(' ')
            .next()
            .unwrap()
            .strip_prefix("key=")
            .unwrap();
        listed.insert(key.to_owned());
    }
    let missing = (0..KEYS)
        .flat_map(|id| [format!("2.{id}"), format!("a-rather-long-name-{id}")])
        .filter(|key| !listed.contains(key));
    assert_eq!(missing.count(), 0);
    assert_eq!(
        dumping.line().unwrap(),
        "VALUE 2.1 0 1",
        "replies stay in order"
    );
}

#[test]
fn the_memory_limit_can_be_set_as_in_memcached() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    let mut client = daemon.client();
    assert_eq!(client.ask("cache_memlimit 64").unwrap(), "OK");
    assert_eq!(
        client.stats("").unwrap()["limit_maxbytes"],
        (64 << 20).to_string()
    );
    let small = "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m";
    assert_eq!(client.ask("cache_memlimit 7").unwrap(), small);
    client.send(b"cache_memlimit 128 noreply\r\n").unwrap();
    assert_eq!(
        client.stats("settings").unwrap()["maxbytes"],
        (128 << 20).to_string()
    );
}
