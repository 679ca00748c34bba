//! What a second worker thread costs: the processor time of requests with two beside that with one,
//! and the same of memcached. Server and load have all cores: where these are two, a second thread
//! has each of them find less to do at a time and sleep more often, whosever they are.

use super::requests::{filled, gets_of, sets_of};
use super::support::figures::{Goal, Row, in_turns};
use super::support::load::run;
use super::support::server::{Config, Cores, Program, Server};
use super::support::wire::Dialect;
use super::{CONNECTIONS, Plan};

pub(super) fn two_and_one(plan: &Plan) -> Vec<Row> {
    let start = |name, server| {
        let config = Config {
            server,
            ..Config::default()
        };
        Server::start(name, Program::Ours(config), Cores::All)
    };
    let memcached =
        |name, arguments| Server::start(name, Program::Memcached(arguments), Cores::All);
    let servers = filled([
        start("2 threads", "threads = 2"),
        start("1 thread", "threads = 1"),
        memcached("memcached, 2 threads", "-t 2 -m 1024"),
        memcached("memcached, 1 thread", "-t 1 -m 1024"),
    ]);
    let lock_wait_us = || servers[0].stat("lock_wait_us").unwrap();
    let waited_us = lock_wait_us();
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
        let pairs = servers.chunks(2).zip(figures.chunks(2));
        rows.extend(pairs.zip([Some(Goal::AtMost(1.10)), None]).map(
            |((servers, figures), goal)| {
                let of = servers[0].name;
                let measure = format!("`{verb}` x{pipeline}, {of}, CPU us");
                Row::new(measure, figures[0], None).against(servers[1].name, figures[1], goal)
            },
        ));
    }
    let waited_us = lock_wait_us() - waited_us;
    let cpu = servers[0].process().cpu_since(cpu_before);
    let percent = waited_us as f64 / cpu.as_micros() as f64 * 100.0;
    let measure = "time waiting for locks, 2 worker threads, % of CPU time";
    rows.push(Row::new(measure, percent, Some(Goal::AtMost(1.0))));
    rows
}
