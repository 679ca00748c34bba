//! What a second worker thread costs: the processor time of requests with two beside that with one.
//! Server and load have all cores.

use super::requests::{filled, gets_of, sets_of};
use super::support::figures::{Goal, Row, in_turns};
use super::support::load::run;
use super::support::server::{Config, Cores, Program, Server};
use super::support::wire::Dialect;
use super::{CONNECTIONS, Plan};

/// The figure of `stats` for the time that workers have waited for locks.
const LOCK_WAIT: &str = "lock_wait_us";

pub(super) fn two_and_one(plan: &Plan) -> Vec<Row> {
    let start = |name, server| {
        let config = Config {
            server,
            ..Config::default()
        };
        Server::start(name, Program::Ours(config), Cores::All)
    };
    let servers = filled([
        start("2 threads", "threads = 2"),
        start("1 thread", "threads = 1"),
    ]);
    let wait_before = servers[0].stat(LOCK_WAIT);
    let cpu_before = servers[0].process().cpu();
    let mut rows = Vec::new();
    for (verb, pipeline) in [("get", 1), ("get", 16), ("set", 1), ("set", 16)] {
        let script = match verb {
            "get" => gets_of(Dialect::Memcached, pipeline),
            _ => sets_of(Dialect::Memcached, pipeline),
        };
        let figures = in_turns(plan.runs, &servers, |server| {
            run(server, CONNECTIONS, &script, plan.time).cpu_us()
        });
        let measure = format!("`{verb}` x{pipeline}, 2 worker threads, CPU us");
        let goal = Some(Goal::AtMost(1.10));
        rows.push(Row::new(measure, figures[0], None).against("1 thread", figures[1], goal));
    }
    if let (Some(before), Some(after)) = (wait_before, servers[0].stat(LOCK_WAIT)) {
        let cpu = servers[0].process().cpu_since(cpu_before);
        let percent = (after - before) as f64 / cpu.as_micros() as f64 * 100.0;
        let goal = Some(Goal::AtMost(1.0));
        rows.push(Row::new("time waiting for locks, %", percent, goal));
    }
    rows
}
