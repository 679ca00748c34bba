//! What clients wait at half of the rate that memcached takes at most: nine gets to a set, sent
//! when they are due whether or not those before are answered, and counted from then
//! (`storage_server bench` has both).

use std::process::Command;

use serde_json::Value;

use super::Plan;
use super::requests::memcached;
use super::support::figures::{Goal, Row, in_turns, median};
use super::support::server::{Config, Cores, Program, Server};

/// Of each run, and how many there are: a machine that is shared stands still for milliseconds now
/// and then, so that most of many short runs tell more than some long ones.
const SECONDS: usize = 2;
const RUNS: usize = 21;

pub(super) fn p99(plan: &Plan) -> Vec<Row> {
    let config = Config {
        server: "threads = 1",
        ..Config::default()
    };
    let Some(memcached) = memcached() else {
        return Vec::new();
    };
    let ours = Server::start("ours", Program::Ours(config), Cores::First).unwrap();
    let seconds = if plan.short { 1 } else { SECONDS };
    load(&ours, &["-n", "1"]);
    load(&memcached, &["-n", "1"]);
    let seconds = seconds.to_string();
    let measured = ["--no-prepare", "--seconds", &seconds];
    let peak = |_| {
        let report = load(&memcached, &measured);
        report["requests_per_second"].as_f64().unwrap()
    };
    let peak = median((0..plan.runs).map(peak).collect());
    let rate = (peak / 2.0).round().to_string();
    let at_rate = [&measured[..], &["--rate", &rate]].concat();
    let runs = if plan.short { plan.runs } else { RUNS };
    let figures = in_turns(runs, &[&ours, &memcached], |server| {
        let report = load(server, &at_rate);
        report["total"]["latency_us"]["p99"].as_f64().unwrap()
    });
    let measure = format!("p99 at {rate} requests/s, half of memcached's peak, us");
    let goal = Some(Goal::AtMost(1.0));
    vec![Row::new(measure, figures[0], None).against(memcached.name, figures[1], goal)]
}

fn load(server: &Server, args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_storage_server"))
        .args(["bench", &format!("127.0.0.1:{}", server.port)])
        .args(["--quiet", "--json"])
        .args(args)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    serde_json::from_slice(&output.stdout).unwrap()
}
