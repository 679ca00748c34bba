//! The load generator, against the real daemon and Debian's memcached: its counts are the
//! server's, its requests find what they name, and it ends as it says.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::client::Client;
use crate::support::daemon::send_signal;
use crate::support::memcached::Memcached;
use crate::support::wire::PATIENCE;
use crate::support::{Config, Daemon, Home, until};

fn command(address: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_storage_server"));
    command
        .args(["bench", address, "--quiet", "--json"])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn outcome(output: Output) -> (i32, Value, String) {
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let error = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), report, error)
}

fn bench(address: &str, args: &[&str]) -> (i32, Value, String) {
    outcome(command(address, args).output().unwrap())
}

/// The report of a run in which all went well.
fn clean(address: &str, args: &[&str]) -> Value {
    let (code, report, error) = bench(address, args);
    assert_eq!((code, error.as_str()), (0, ""), "{report:#}");
    assert_eq!(report["total"]["sent"], report["total"]["replies"]);
    assert_eq!(report["total"]["errors"], 0);
    assert_eq!(report["lost_connections"], 0);
    report
}

fn sent(report: &Value, kind: &str) -> u64 {
    let kinds = report["kinds"].as_array().unwrap();
    let line = kinds.iter().find(|line| line["name"] == kind);
    line.map_or(0, |line| line["sent"].as_u64().unwrap())
}

fn started() -> (Home, Daemon, String) {
    let home = Home::new(Config::standard());
    let daemon = home.start();
    let address = daemon.addr().to_string();
    (home, daemon, address)
}

/// By how much figures of the server grow while something is done.
fn growth(client: &mut Client, work: impl FnOnce()) -> BTreeMap<String, u64> {
    let mut figures = || client.stats("").unwrap();
    let before = figures();
    work();
    let after = figures();
    let number = |text: &String| text.parse::<u64>().ok();
    after
        .into_iter()
        .filter_map(|(name, now)| {
            let grown = number(&now)?.checked_sub(number(before.get(&name)?)?)?;
            Some((name, grown))
        })
        .collect()
}

#[test]
fn its_counts_are_those_of_the_server() {
    let (_home, daemon, address) = started();
    for (threads, pipeline) in [("1", "1"), ("3", "16")] {
        let mut report = Value::Null;
        let grown = growth(&mut daemon.client(), || {
            report = clean(
                &address,
                &[
                    "--mix=get=5,set=3,incr=2",
                    "--requests=10007",
                    "--keys=500",
                    "--connections=7",
                    "--threads",
                    threads,
                    "--pipeline",
                    pipeline,
                ],
            );
        });
        assert_eq!(report["total"]["sent"], 10_007);
        assert_eq!(report["total"]["misses"], 0);
        let (gets, sets) = (sent(&report, "get"), sent(&report, "set"));
        let steps = sent(&report, "incr");
        assert_eq!(gets + sets + steps, 10_007);
        assert_eq!((grown["cmd_get"], grown["get_hits"]), (gets, gets));
        // The keys and the counters are prepared, each with a set.
        assert_eq!(grown["cmd_set"], sets + 2 * 500);
        assert_eq!(grown["incr_hits"], steps);
        assert_eq!(report["values"], gets);
    }
}

#[test]
fn what_is_not_prepared_is_missed() {
    let (_home, _daemon, address) = started();
    let args = [
        "--no-prepare",
        "--mix=get,incr,multiget",
        "--multi-keys=7",
        "--requests=300",
    ];
    let report = clean(&address, &args);
    let misses = sent(&report, "get") + sent(&report, "incr") + 7 * sent(&report, "multiget");
    assert_eq!(report["total"]["misses"], misses);
    assert_eq!(report["values"], 0);
}

#[test]
fn fan_outs_step_the_members_of_the_prepared_indexes() {
    let (_home, daemon, address) = started();
    let args = [
        "--mix=fanout",
        "--keys=1000",
        "--members=150",
        "--indexes=3",
        "--requests=40",
    ];
    clean(&address, &args);
    let mut client = daemon.client();
    for index in 0..3 {
        let members = client.get(&format!("1.{index}")).unwrap().unwrap();
        assert_eq!(members.lines().count(), 150);
    }
    let keys: Vec<_> = (0..1000).map(|id| format!("2.{id}")).collect();
    let counters = client.get_many(&keys).unwrap();
    assert_eq!(counters.len(), 1000);
    let steps: u64 = counters
        .values()
        .map(|value| value.parse::<u64>().unwrap())
        .sum();
    assert_eq!(steps, 40 * 150);
}

#[test]
fn typed_keys_and_large_values_are_read_back() {
    let (_home, daemon, address) = started();
    let args = [
        "--keys-from=3",
        "--mix=get,set,multiget",
        "--multi-keys=5",
        "--value-size=100000",
        "--pipeline=20",
        "--keys=50",
        "--requests=2000",
        "--zipf=0.99",
    ];
    let report = clean(&address, &args);
    assert_eq!(report["total"]["misses"], 0);
    assert_eq!(
        report["values"],
        sent(&report, "get") + 5 * sent(&report, "multiget")
    );
    let value = daemon.client().get("3.49").unwrap().unwrap();
    assert_eq!(value.len(), 100_000);
    clean(
        &address,
        &[
            "--keys-from=2",
            "--mix=get,set,incr",
            "--keys=9",
            "--requests=90",
        ],
    );
    let counter = daemon.client().get("2.8").unwrap().unwrap();
    assert!(counter.parse::<u32>().is_ok(), "{counter}");
}

#[test]
fn at_a_rate_every_request_that_came_due_is_accounted_for() {
    let (_home, daemon, address) = started();
    let args = [
        "--keys=100",
        "--rate=2000",
        "--seconds=0.5",
        "--threads=2",
        "--connections=4",
    ];
    let report = clean(&address, &args);
    let rate = &report["rate"];
    let [due, sent, never] = ["due", "sent", "never_sent"].map(|name| rate[name].as_u64().unwrap());
    assert_eq!(due, 1000);
    assert_eq!(due, sent + never);
    assert_eq!(rate["sent"], report["total"]["sent"]);

    // With a count all are sent, however late; and they take their time.
    let mut report = Value::Null;
    let args = ["--keys=1", "--rate=1000", "--requests=300", "--mix=get"];
    let grown = growth(&mut daemon.client(), || report = clean(&address, &args));
    assert_eq!(
        (report["rate"]["due"].as_u64(), grown["cmd_get"]),
        (Some(300), 300)
    );
    assert_eq!(report["rate"]["never_sent"], 0);
    assert!(report["seconds"].as_f64().unwrap() >= 0.299);
}

#[test]
fn a_stall_counts_for_every_request_that_came_due_in_it() {
    const STALL_MS: u32 = 500;
    let (_home, daemon, address) = started();
    let args = [
        "--keys=1",
        "--rate=1000",
        "--seconds=100",
        "--connections=1",
    ];
    let load = command(&address, &args).spawn().unwrap();
    let mut client = daemon.client();
    let before = under_way(&mut client, 1);
    send_signal(daemon.pid(), Signal::STOP);
    // Nothing is awaited by this: the stall is what is tried.
    std::thread::sleep(Duration::from_millis(STALL_MS.into()));
    send_signal(daemon.pid(), Signal::CONT);
    // So many that all which came due in the stall are among them.
    under_way(&mut client, before + 2 * u64::from(STALL_MS));
    send_signal(load.id(), Signal::INT);
    let (code, report, error) = outcome(load.wait_with_output().unwrap());
    assert_eq!((code, error.as_str()), (0, ""));
    let total = &report["total"];
    let [replies, mean_us] =
        [&total["replies"], &total["latency_us"]["mean"]].map(|figure| figure.as_f64().unwrap());
    // A request came due each millisecond, and waited for half of the stall on average. Counted
    // from the sending, one of them would have waited, for the whole stall.
    let stall_us = f64::from(STALL_MS) * 1000.0;
    let waited_us = f64::from(STALL_MS) * stall_us / 2.0;
    assert!(replies * mean_us >= waited_us / 2.0, "{report:#}");
}

/// Waits until so many gets have arrived; how many they are.
fn under_way(client: &mut Client, least: u64) -> u64 {
    until("the load is under way", PATIENCE, || {
        let gets = gets(client);
        (gets >= least).then_some(gets)
    })
}

fn gets(client: &mut Client) -> u64 {
    client.stats("").unwrap()["cmd_get"].parse().unwrap()
}

#[test]
fn an_interrupt_ends_it_with_a_report_of_what_it_has() {
    let (_home, daemon, address) = started();
    for args in [["--seconds=100", "--keys=10"], ["--rate=500", "--keys=10"]] {
        let mut client = daemon.client();
        let before = gets(&mut client);
        let load = command(&address, &args).spawn().unwrap();
        under_way(&mut client, before + 1);
        send_signal(load.id(), Signal::INT);
        let (code, report, error) = outcome(load.wait_with_output().unwrap());
        assert_eq!((code, error.as_str()), (0, ""));
        assert_eq!(sent(&report, "get"), gets(&mut client) - before);
        assert_eq!(report["total"]["unanswered"], 0);
    }
}

#[test]
fn a_server_that_dies_leaves_a_report() {
    let (_home, daemon, address) = started();
    let load = command(&address, &["--seconds=100", "--keys=10"])
        .spawn()
        .unwrap();
    under_way(&mut daemon.client(), 1);
    daemon.kill9();
    let (code, report, _) = outcome(load.wait_with_output().unwrap());
    assert_eq!(code, 74);
    assert_eq!(report["lost_connections"], 50);
    let [sent, replies, unanswered] =
        ["sent", "replies", "unanswered"].map(|name| report["total"][name].as_u64().unwrap());
    assert_eq!(sent, replies + unanswered);
    assert!(report["first_error"].as_str().unwrap().contains("lost"));
}

#[test]
fn errors_of_the_server_are_counted_and_the_first_is_shown() {
    let (_home, daemon, address) = started();
    let mut client = daemon.client();
    assert_eq!(client.set("bench:counter:0", "text").unwrap(), "STORED");
    let args = ["--no-prepare", "--mix=incr", "--keys=1", "--requests=10"];
    let (code, report, error) = bench(&address, &args);
    assert_eq!((code, error.as_str()), (74, ""));
    assert_eq!(report["total"]["errors"], 10);
    let first = report["first_error"].as_str().unwrap();
    assert!(first.starts_with("CLIENT_ERROR"), "{first}");
}

#[test]
fn a_pid_gives_the_servers_time_and_memory() {
    let (_home, daemon, address) = started();
    let pid = daemon.pid().to_string();
    let report = clean(&address, &["--pid", &pid, "--requests=5000", "--keys=1000"]);
    let process = &report["process"];
    assert_eq!(process["pid"], daemon.pid());
    assert!(process["cpu_us_per_request"].as_f64().unwrap() > 0.0);
    for when in ["before", "prepared", "after"] {
        let bytes = process[format!("resident_bytes_{when}")].as_u64().unwrap();
        assert!(bytes > 1 << 20, "{when}: {bytes}");
    }
}

#[test]
fn memcached_can_be_loaded_too() {
    let Some(program) = Memcached::program() else {
        assert!(
            std::env::var_os("CI").is_none(),
            "memcached is not installed"
        );
        return;
    };
    let memcached = Memcached::start(&program);
    let address = memcached.addr().to_string();
    let mut report = Value::Null;
    let mut client = Client::connect(memcached.addr()).unwrap();
    let grown = growth(&mut client, || {
        let args = [
            "--mix=get=6,set=2,incr=1,multiget=1",
            "--requests=5000",
            "--keys=300",
        ];
        report = clean(&address, &args);
    });
    assert_eq!(report["total"]["misses"], 0);
    let keys = sent(&report, "get") + 100 * sent(&report, "multiget");
    assert_eq!(
        (report["values"].as_u64(), grown["get_hits"]),
        (Some(keys), keys)
    );
    assert_eq!(grown["cmd_set"], sent(&report, "set") + 2 * 300);
    assert_eq!(grown["incr_hits"], sent(&report, "incr"));
    let (code, _, error) = bench(&address, &["--mix=fanout"]);
    assert_eq!(code, 64);
    assert!(error.contains("no type 1 INDEX"), "{error}");
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is_sent() {
    let (_home, daemon, address) = started();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = free.local_addr().unwrap().to_string();
    drop(free);
    for (address, args, code, word) in [
        (nobody.as_str(), &[][..], 69, "cannot connect to"),
        ("unix:/nonexistent/socket", &[], 69, "cannot connect to"),
        ("tls:127.0.0.1:1", &[], 69, "TLS"),
        ("127.0.0.1", &[], 64, "port"),
        (&address, &["--mix=got=1"], 64, "none of get"),
        (&address, &["--keys-from=9"], 64, "declares no type 9"),
        (&address, &["--keys-from=1"], 64, "type 1 is INDEX"),
        (
            &address,
            &["--threads=2", "--connections=1"],
            64,
            "--threads must",
        ),
        (
            &address,
            &["--mix=fanout", "--keys=10"],
            64,
            "--members must",
        ),
        (&address, &["--rate=nan"], 64, "above 0"),
        (&address, &["--pid=4194305"], 64, "running process"),
    ] {
        let (found, _, error) = bench(address, args);
        assert_eq!(found, code, "{args:?}: {error}");
        assert!(error.contains(word), "{args:?}: {error}");
    }
    assert_eq!(daemon.client().stats("").unwrap()["cmd_set"], "0");
}
