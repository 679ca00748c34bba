//! `stats`: the names that monitors look for, in the form that they can read.

use std::collections::BTreeSet;

use crate::support::memcached::Memcached;
use crate::support::{Client, Config, Home};

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

#[test]
fn every_name_that_memcached_has_is_there() {
    let Some(program) = Memcached::program() else {
        println!("SKIPPED: no memcached here");
        return;
    };
    let memcached = Memcached::start(&program);
    let home = Home::new(Config::standard());
    let daemon = home.start();
    let (mut ours, mut theirs) = (daemon.client(), Client::connect(memcached.addr()).unwrap());
    for client in [&mut ours, &mut theirs] {
        assert_eq!(client.set("name", "x").unwrap(), "STORED");
    }
    ours.set("2.1", "5").unwrap();
    for (topic, least) in [("", 70), ("items", 20), ("slabs", 14), ("conns", 4)] {
        let (ours, theirs) = (names(&mut ours, topic), names(&mut theirs, topic));
        let missing: Vec<_> = theirs.difference(&ours).collect();
        assert!(missing.is_empty(), "stats {topic}: {missing:?}");
        assert!(theirs.len() >= least, "stats {topic}: {theirs:?}");
    }
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
