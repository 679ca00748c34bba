//! `stats`: the names that monitors look for, in the form that they can read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use storage_server::clock::{SimClock, Time};
use storage_server::journal::sim::SimDisk;

use crate::support::memcached::Memcached;
use crate::support::memory::{MemoryServer, MemoryWire};
use crate::support::wire::PATIENCE;
use crate::support::{Client, Config, Home, skip, until};

/// memcached's general names that clients, exporters and agents read.
const GENERAL: &str = "pid uptime time version libevent pointer_size rusage_user rusage_system \
    max_connections curr_connections total_connections rejected_connections \
    connection_structures response_obj_oom read_buf_oom reserved_fds cmd_get cmd_set cmd_flush \
    cmd_touch cmd_meta get_hits get_misses get_expired get_flushed delete_misses delete_hits \
    incr_misses incr_hits decr_misses decr_hits cas_misses cas_hits cas_badval touch_hits \
    touch_misses store_too_large store_no_memory auth_cmds auth_errors bytes_read bytes_written \
    limit_maxbytes accepting_conns listen_disabled_num time_in_listen_disabled_us threads \
    conn_yields hash_power_level hash_bytes hash_is_expanding bytes curr_items total_items \
    evictions reclaimed expired_unfetched evicted_unfetched";

#[test]
fn general_statistics_have_the_names_that_monitors_read() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    let mut client = daemon.client();
    client.set("2.1", "5").unwrap();
    client.set("1.1", "1\n2").unwrap();
    client.set("name", "x").unwrap();
    client.get("2.1").unwrap().unwrap();
    let stats = client.stats("").unwrap();
    let missing: Vec<_> = GENERAL
        .split_whitespace()
        .filter(|name| !stats.contains_key(*name))
        .collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
    for (name, value) in &stats {
        assert!(!name.contains(':'), "{name}: an exporter stops at a colon");
        assert!(
            !value.contains(' ') && !value.is_empty(),
            "{name}: {value:?} is not one word"
        );
    }
    for name in ["rusage_user", "rusage_system"] {
        let value = &stats[name];
        assert_eq!(value.matches('.').count(), 1, "{name}: {value}");
    }
    let number = |name: &str| stats[name].parse::<u64>().unwrap();
    assert!(stats["version"].len() <= 23, "memcstat copies 23 bytes");
    // libmemcached takes each part as a byte, and the first may not be 0.
    let parts = stats["version"].split('.').map(str::parse::<u8>);
    let parts: Vec<_> = parts.collect::<Result<_, _>>().unwrap();
    assert!(parts.len() == 3 && parts[0] >= 1, "{parts:?}");
    assert_eq!(
        client.ask("version").unwrap(),
        format!("VERSION {}", stats["version"])
    );
    assert!(
        number("limit_maxbytes") > number("bytes"),
        "monitors divide by it"
    );
    assert_eq!(number("pid"), u64::from(daemon.pid()));
    assert_eq!(number("curr_items"), 3);
    assert_eq!(number("curr_connections"), 1);
    assert_eq!(stats["connectionss"], stats["curr_connections"]);
}

/// The names of a topic; what is of a class or of a connection is told without its number.
fn names(client: &mut Client, topic: &str) -> BTreeSet<String> {
    let stats = client.stats(topic).unwrap();
    let is_number = |part: &&str| part.parse::<u32>().is_err();
    let plain = |name: &String| {
        let parts: Vec<_> = name.split(':').filter(is_number).collect();
        parts.join(":")
    };
    stats.keys().map(plain).collect()
}

/// Gives `test` a client of a new daemon and one of a new memcached.
fn beside_memcached(test: impl FnOnce(Client, Client)) {
    let Some(program) = Memcached::program() else {
        skip("no memcached here");
        return;
    };
    let memcached = Memcached::start(&program);
    let home = Home::new(Config::standard());
    let daemon = home.start();
    test(daemon.client(), Client::connect(memcached.addr()).unwrap());
}

#[test]
fn every_name_that_memcached_has_is_there() {
    beside_memcached(|mut ours, mut theirs| {
        for client in [&mut ours, &mut theirs] {
            assert_eq!(client.set("name", "x").unwrap(), "STORED");
        }
        ours.set("2.1", "5").unwrap();
        let topics = [
            ("", 70),
            ("items", 20),
            ("slabs", 14),
            ("conns", 4),
            ("settings", 70),
        ];
        for (topic, least) in topics {
            let (ours, theirs) = (names(&mut ours, topic), names(&mut theirs, topic));
            let missing: Vec<_> = theirs.difference(&ours).collect();
            assert!(missing.is_empty(), "stats {topic}: {missing:?}");
            assert!(theirs.len() >= least, "stats {topic}: {theirs:?}");
        }
        for (name, value) in ours.stats("settings").unwrap() {
            let is_word = !value.is_empty() && !value.contains(' ') && !name.contains(':');
            assert!(is_word, "{name} {value:?}");
        }
    });
}

/// The general figures that are also told of each class.
const CLASSED: [&str; 8] = [
    "get_hits",
    "cmd_set",
    "delete_hits",
    "incr_hits",
    "decr_hits",
    "cas_hits",
    "cas_badval",
    "touch_hits",
];

/// Commands of every kind on a key, and what they count of its class.
const USED: &str = "set KEY 0 0 1\r\n5\r\nget KEY KEY no\r\ngat 0 KEY\r\ntouch KEY 0\r\n\
    cas KEY 0 0 1 1\r\n7\r\nmg KEY v\r\nms KEY 1\r\n6\r\nmg KEY T0\r\ndelete KEY\r\n\
    delete KEY\r\nms KEY 1\r\n6\r\nmd KEY\r\nmset KEY 0 0 1 KEY 0 0 1\r\n1\r\n2\r\n";

#[test]
fn what_is_counted_of_the_classes_sums_up_to_the_general_figures() {
    let server = MemoryServer::start(&Config::standard().text(), SimDisk::new());
    let mut wire = server.connect();
    for key in ["1.1", "2.1", "3.1", "6.1", "name"] {
        wire.ask(USED.replace("KEY", key).as_bytes());
    }
    wire.ask(b"incr 2.9 1\r\ndecr 2.9 1\r\nma 6.9\r\nma 6.9 MD\r\nincr 1.1 1\r\n");
    let slabs = figures(&mut wire, "slabs");
    let sum = |name: &str| -> u64 {
        let of = slabs
            .iter()
            .filter(|(key, _)| key.ends_with(&format!(":{name}")));
        of.map(|(_, value)| value.parse::<u64>().unwrap()).sum()
    };
    let general = figures(&mut wire, "");
    for name in CLASSED {
        assert_eq!(general[name], sum(name).to_string(), "{name}");
    }
    let all = CLASSED.map(|name| slabs[&format!("65536:{name}")].clone());
    assert_eq!(all, ["4", "6", "2", "0", "0", "0", "1", "3"]);
    let counters = CLASSED.map(|name| slabs[&format!("2:{name}")].clone());
    assert_eq!(counters[..5], ["4", "6", "2", "1", "1"]);
    assert_eq!(slabs["6:incr_hits"], "1");
    assert_eq!(slabs["1:incr_hits"], "1");
    wire.ask(b"stats reset\r\n");
    let slabs = figures(&mut wire, "slabs");
    assert_eq!(slabs["65536:get_hits"], "0");
    assert_eq!(figures(&mut wire, "")["get_hits"], "0");
}

/// The answer to `stats <topic>`.
fn figures(wire: &mut MemoryWire, topic: &str) -> BTreeMap<String, String> {
    let text = wire.ask(format!("stats {topic}\r\n").as_bytes());
    let text = String::from_utf8(text).unwrap();
    let stats = text.lines().filter_map(|line| line.strip_prefix("STAT "));
    let pairs = stats.filter_map(|line| line.split_once(' '));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn keys_that_had_expired_and_debugging_are_counted() {
    let clock = SimClock::new(Time(1_700_000_000_000));
    let config = Config::standard().text();
    let server = MemoryServer::start_at(&config, SimDisk::new(), &clock);
    let mut wire = server.connect();
    let keys = ["1.1", "2.1", "3.1", "name"];
    for key in keys {
        wire.ask(format!("set {key} 0 1 1\r\n7\r\n").as_bytes());
    }
    wire.ask(b"get 2.1 2.9\r\nme 2.1\r\n");
    let expired = |wire: &mut MemoryWire| figures(wire, "")["get_expired"].clone();
    assert_eq!(expired(&mut wire), "0");
    clock.pass_us(1_000_000);
    // One by one, together, to be touched, and by the meta command.
    for key in keys {
        wire.ask(format!("get {key}\r\n").as_bytes());
    }
    assert_eq!(expired(&mut wire), "4");
    wire.ask(b"get 1.1 2.1 2.9 name\r\n");
    assert_eq!(expired(&mut wire), "7");
    wire.ask(b"gat 0 3.1 2.9\r\nmg 2.1 v\r\nmg 2.9\r\n");
    assert_eq!(expired(&mut wire), "9");
    server.engine().tidy(Duration::MAX);
    wire.ask(b"get name\r\n");
    let general = figures(&mut wire, "");
    assert_eq!(
        (&*general["get_expired"], &*general["cmd_meta"]),
        ("9", "1")
    );
    assert_eq!(general["reclaimed"], "4");
    wire.ask(b"stats reset\r\n");
    let general = figures(&mut wire, "");
    for name in ["get_expired", "cmd_meta", "reclaimed", "expired_unfetched"] {
        assert_eq!(general[name], "0", "{name}");
    }
}

#[test]
fn who_finds_no_memory_is_counted_by_class() {
    let server = MemoryServer::start(&Config::standard().text(), SimDisk::new());
    let mut wire = server.connect();
    wire.ask(b"cache_memlimit 8\r\n");
    let value = "v".repeat(1 << 20);
    for id in 0..10 {
        wire.ask(format!("set 3.{id} 0 0 {}\r\n{value}\r\n", value.len()).as_bytes());
    }
    let long = "n".repeat(1 << 20);
    wire.ask(format!("set name 0 0 {}\r\n{long}\r\n", long.len()).as_bytes());
    let (items, general) = (figures(&mut wire, "items"), figures(&mut wire, ""));
    let of = |class: u32| {
        items[&format!("items:{class}:outofmemory")]
            .parse::<u64>()
            .unwrap()
    };
    assert!(of(3) >= 2, "{items:?}");
    assert_eq!((of(65536), &*items["items:65536:number"]), (1, "0"));
    assert_eq!(general["store_no_memory"], (of(3) + of(65536)).to_string());
    assert_eq!(items["items:3:number_cold"], items["items:3:number"]);
}

/// Both servers, on which a key has been used in every way.
fn used_both(ours: &mut Client, theirs: &mut Client) {
    for client in [ours, theirs] {
        client.set("name", "1").unwrap();
        for line in [
            "incr name 1",
            "decr name 1",
            "touch name 0",
            "me name",
            "delete no",
        ] {
            client.ask(line).unwrap();
        }
        client.get("name").unwrap().unwrap();
        client.get("no").unwrap();
        client.ask("delete name").unwrap();
    }
}

#[test]
fn a_reset_takes_back_to_0_what_it_does_in_memcached() {
    beside_memcached(|mut ours, mut theirs| {
        used_both(&mut ours, &mut theirs);
        let before = theirs.stats("").unwrap();
        for client in [&mut ours, &mut theirs] {
            assert_eq!(client.ask("stats reset").unwrap(), "RESET");
        }
        let (ours, theirs) = (ours.stats("").unwrap(), theirs.stats("").unwrap());
        let reset: Vec<_> = theirs
            .iter()
            .filter(|(name, value)| *value == "0" && before[*name] != "0")
            .map(|(name, _)| name.as_str())
            .collect();
        for name in ["total_connections", "cmd_set", "total_items", "cmd_meta"] {
            assert!(reset.contains(&name), "{name}: {reset:?}");
        }
        let left: Vec<_> = reset.iter().filter(|name| ours[**name] != "0").collect();
        assert!(left.is_empty(), "not reset: {left:?}");
    });
}

#[test]
fn details_are_counted_by_prefix_as_in_memcached() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    let mut ours = daemon.client();
    let requests = "set a:1 0 0 1\r\n1\r\nadd a:1 0 0 1\r\n1\r\nget a:1:2 a:1 :x plain\r\n\
        gets a:1\r\ngat 0 b:1\r\ndelete a:1\r\ndelete a:1\r\nset plain 0 0 1\r\n1\r\n\
        incr b:1 1\r\ntouch b:1 0\r\nms c:1 1\r\n1\r\nmg c:1 v\r\nmd c:1\r\n\
        get b:1 b:2\r\nappend b:1 0 0 1\r\n1\r\nmn\r\n";
    let detail = |client: &mut Client| {
        client.send(b"stats detail dump\r\n").unwrap();
        let lines = std::iter::from_fn(|| Some(client.line().unwrap()).filter(|it| it != "END"));
        lines.collect::<BTreeSet<_>>()
    };
    let counted = |client: &mut Client| {
        let all = |client: &mut Client| {
            client.send(requests.as_bytes()).unwrap();
            while client.line().unwrap() != "MN" {}
        };
        all(client);
        assert!(detail(client).is_empty(), "it is off at first");
        assert_eq!(client.ask("stats detail on").unwrap(), "OK");
        assert_eq!(client.stats("settings").unwrap()["detail_enabled"], "yes");
        all(client);
        assert_eq!(client.ask("stats detail off").unwrap(), "OK");
        let found = detail(client);
        all(client);
        assert_eq!(detail(client), found, "nothing is counted any more");
        found
    };
    let found = counted(&mut ours);
    let expected = [
        "PREFIX  get 1 hit 0 set 0 del 0",
        "PREFIX a get 3 hit 2 set 2 del 2",
        "PREFIX b get 3 hit 0 set 1 del 0",
    ];
    assert_eq!(found, expected.map(str::to_owned).into());
    match Memcached::program() {
        Some(program) => {
            let memcached = Memcached::start(&program);
            let mut theirs = Client::connect(memcached.addr()).unwrap();
            assert_eq!(counted(&mut theirs), found);
        }
        None => skip("no memcached here to compare with"),
    }
    ours.ask("stats reset").unwrap();
    assert!(detail(&mut ours).is_empty());
    // A typed key has its type for a prefix.
    ours.ask("stats detail on").unwrap();
    ours.set("2.1", "5").unwrap();
    ours.get("2.1").unwrap().unwrap();
    let typed = BTreeSet::from(["PREFIX 2 get 1 hit 1 set 1 del 0".to_owned()]);
    assert_eq!(detail(&mut ours), typed);
}

#[test]
fn sizes_cannot_be_counted_and_memcached_says_it_so() {
    const ASKED: &[u8] = b"stats sizes_enable\r\nstats sizes_disable\r\nstats sizes\r\n";
    let home = Home::new(Config::standard());
    let daemon = home.start();
    let replies = |client: &mut Client| {
        client.send(ASKED).unwrap();
        [(); 5].map(|()| client.line().unwrap())
    };
    let ours = replies(&mut daemon.client());
    assert_eq!(ours[0], "STAT sizes_status error");
    match Memcached::program() {
        Some(program) => {
            // Without cas uniques it cannot, either.
            let memcached = Memcached::start_with(&program, &["-C"]);
            let mut theirs = Client::connect(memcached.addr()).unwrap();
            assert_eq!(replies(&mut theirs), ours);
        }
        None => skip("no memcached here to compare with"),
    }
}

#[test]
fn connections_show_what_they_are_at() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    let mut client = daemon.client();
    let mut slow = daemon.client();
    let value = "v".repeat(1 << 20);
    assert_eq!(slow.set("large", &value).unwrap(), "STORED");
    // More than any socket's buffers take.
    slow.send("get large\r\n".repeat(100).as_bytes()).unwrap();
    let mut half = daemon.client();
    half.send(b"set half 0 0 10\r\nabc").unwrap();
    let expected = ["conn_listening", "conn_mwrite", "conn_nread", "conn_read"];
    until("all states are shown", PATIENCE, || {
        let conns = client.stats("conns").unwrap();
        let states = conns.iter().filter(|(name, _)| name.ends_with(":state"));
        let states: BTreeSet<_> = states.map(|(_, state)| state.as_str()).collect();
        (states == BTreeSet::from(expected)).then_some(())
    });
    let conns = client.stats("conns").unwrap();
    let listener = format!("tcp:{}", daemon.addr());
    assert!(
        conns.values().filter(|value| **value == listener).count() == 4,
        "{conns:?}"
    );
    let port = daemon.addr().port().to_string();
    assert_eq!(client.stats("settings").unwrap()["tcpport"], port);
    half.send(b"defghij\r\n").unwrap();
    assert_eq!(half.line().unwrap(), "STORED");
    drop(slow);
    until("nothing is left of that", PATIENCE, || {
        let conns = client.stats("conns").unwrap();
        let busy = ["conn_mwrite", "conn_nread"];
        let left = conns.values().any(|state| busy.contains(&state.as_str()));
        (!left).then_some(())
    });
}

#[test]
fn who_is_closed_for_silence_is_counted() {
    let home = Home::new(Config::standard().with("server", "idle_timeout", "1"));
    let daemon = home.start();
    let mut silent = [daemon.client(), daemon.client()];
    for client in &mut silent {
        client.ask("version").unwrap();
    }
    for client in &mut silent {
        assert!(client.line().is_err(), "it is closed");
    }
    let kicks = daemon.client().stats("").unwrap()["idle_kicks"].clone();
    assert_eq!(kicks, "2");
}

#[test]
fn items_and_slabs_have_a_class_for_each_type() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    let mut client = daemon.client();
    client.set("2.1", "5").unwrap();
    client.set("3.1", "x").unwrap();
    let items = client.stats("items").unwrap();
    for name in "number number_hot number_warm number_cold age_hot age_warm age mem_requested \
        evicted evicted_nonzero evicted_time outofmemory tailrepairs reclaimed \
        expired_unfetched evicted_unfetched evicted_active crawler_reclaimed \
        crawler_items_checked lrutail_reflocked moves_to_cold moves_to_warm moves_within_lru \
        direct_reclaims hits_to_hot hits_to_warm hits_to_cold hits_to_temp"
        .split_whitespace()
    {
        for class in [2, 3] {
            assert!(
                items.contains_key(&format!("items:{class}:{name}")),
                "items:{class}:{name} is missing"
            );
        }
    }
    assert_eq!(items["items:2:number"], "1");
    let slabs = client.stats("slabs").unwrap();
    for name in "chunk_size chunks_per_page total_pages total_chunks used_chunks free_chunks \
        free_chunks_end get_hits cmd_set delete_hits incr_hits decr_hits cas_hits cas_badval \
        touch_hits"
        .split_whitespace()
    {
        assert!(
            slabs.contains_key(&format!("2:{name}")),
            "2:{name} is missing"
        );
    }
}

#[test]
fn hits_misses_and_hidden_errors_are_counted() {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    let mut client = daemon.client();
    client.send(b"set 2.1 0 0 1 noreply\r\nx\r\n").unwrap();
    client.incr("2.1", 1).unwrap();
    client.incr("2.1", 1).unwrap();
    client.get("2.1").unwrap().unwrap();
    client.get("2.9").unwrap();
    client.ask("delete 2.9").unwrap();
    client.ask("touch 2.9 0").unwrap();
    client.ask("decr 1.9 1").unwrap();
    let stats = client.stats("").unwrap();
    let number = |name: &str| stats[name].parse::<u64>().unwrap();
    assert_eq!(number("noreply_errors"), 1, "{stats:?}");
    assert_eq!((number("get_hits"), number("get_misses")), (1, 1));
    assert_eq!(number("incr_hits") + number("incr_misses"), 2);
    assert_eq!(number("delete_misses"), 1);
    assert_eq!(number("touch_misses"), 1);
    assert_eq!(number("decr_misses"), 1);
    let settings = client.stats("settings").unwrap();
    assert_eq!(settings["maxconns"], stats["max_connections"]);
    let conns = client.stats("conns").unwrap();
    assert!(
        conns.keys().any(|name| name.ends_with(":state")),
        "{conns:?}"
    );
    assert!(
        conns.keys().all(|name| name
            .split_once(':')
            .is_some_and(|(fd, _)| fd.parse::<u32>().is_ok())),
        "the part before the colon is a descriptor: {conns:?}"
    );
}
