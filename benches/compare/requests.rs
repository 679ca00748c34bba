//! The server's processor time for `get`, `set` and a `get` of 100 keys. Every key is asked for as
//! often, in no order.

use super::support::figures::{Goal, Row, in_turns};
use super::support::load::{Script, Spent, run};
use super::support::server::{Config, Cores, Program, Server};
use super::support::wire::Dialect;
use super::{CONNECTIONS, Plan};

const KEYS: usize = 100_000;
const VALUE_BYTES: usize = 32;
const KEYS_AT_ONCE: usize = 100;

const MEMCACHED: &str = "memcached";
const REDIS: &str = "Redis";
const REDIS_LOG: &str = "Redis with AOF everysec";

fn ours() -> Option<Server> {
    let config = Config {
        server: "threads = 1",
        ..Config::default()
    };
    Server::start("ours", Program::Ours(config), Cores::First)
}

pub(super) fn memcached() -> Option<Server> {
    Server::start(MEMCACHED, Program::Memcached("-t 1 -m 1024"), Cores::First)
}

fn redis() -> Option<Server> {
    Server::start(REDIS, Program::Redis("--appendonly no"), Cores::First)
}

fn redis_with_log() -> Option<Server> {
    let program = Program::Redis("--appendonly yes --appendfsync everysec");
    Server::start(REDIS_LOG, program, Cores::First)
}

pub(super) fn key(number: usize) -> String {
    format!("key:{number:06}")
}

fn value(number: usize) -> String {
    format!("{number:0VALUE_BYTES$}")
}

fn keys_in_no_order() -> Vec<usize> {
    let mut keys: Vec<usize> = (0..KEYS).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut keys);
    keys
}

/// So many in a batch.
pub(super) fn gets_of(dialect: Dialect, pipeline: usize) -> Script {
    let batch = |keys: &[usize]| {
        let mut out = Vec::new();
        for number in keys {
            dialect.get(&mut out, &[key(*number)]);
        }
        out
    };
    Script {
        batches: keys_in_no_order()
            .chunks_exact(pipeline)
            .map(batch)
            .collect(),
        reply_len: pipeline * dialect.get_reply_len(&[key(0)], VALUE_BYTES),
        requests: pipeline,
    }
}

/// So many in a batch.
pub(super) fn sets_of(dialect: Dialect, pipeline: usize) -> Script {
    let batch = |keys: &[usize]| {
        let mut out = Vec::new();
        for number in keys {
            dialect.set(&mut out, &key(*number), &value(*number));
        }
        out
    };
    Script {
        batches: keys_in_no_order()
            .chunks_exact(pipeline)
            .map(batch)
            .collect(),
        reply_len: pipeline * dialect.set_reply_len(),
        requests: pipeline,
    }
}

/// Each batch is one `get`; what is counted are keys.
fn multigets_of(dialect: Dialect) -> Script {
    let batch = |keys: &[usize]| {
        let mut out = Vec::new();
        let keys: Vec<_> = keys.iter().copied().map(key).collect();
        dialect.get(&mut out, &keys);
        out
    };
    let keys: Vec<_> = (0..KEYS_AT_ONCE).map(key).collect();
    Script {
        batches: keys_in_no_order()
            .chunks_exact(KEYS_AT_ONCE)
            .map(batch)
            .collect(),
        reply_len: dialect.get_reply_len(&keys, VALUE_BYTES),
        requests: KEYS_AT_ONCE,
    }
}

/// With all keys stored.
pub(super) fn filled(servers: impl IntoIterator<Item = Option<Server>>) -> Vec<Server> {
    let servers: Vec<_> = servers.into_iter().flatten().collect();
    for server in &servers {
        let number = |at: u64| usize::try_from(at).unwrap();
        server.connect().fill(KEYS as u64, |at, out| {
            let number = number(at);
            server.dialect.set(out, &key(number), &value(number));
        });
    }
    servers
}

/// The medians, ours first; and the least part of the time that a server was busy.
fn medians(
    plan: &Plan,
    servers: &[Server],
    script: impl Fn(Dialect) -> Script,
    figure: impl Fn(&Spent) -> f64,
) -> (Vec<f64>, f64) {
    let scripts = [Dialect::Memcached, Dialect::Redis].map(script);
    let mut busy: f64 = 1.0;
    let figures = in_turns(plan.runs, servers, |server| {
        let script = &scripts[usize::from(server.dialect == Dialect::Redis)];
        let spent = run(server, CONNECTIONS, script, plan.time);
        busy = busy.min(spent.busy());
        figure(&spent)
    });
    (figures, busy)
}

/// A row for each peer; goals are by name.
fn rows(measure: &str, servers: &[Server], figures: &[f64], goals: &[(&str, Goal)]) -> Vec<Row> {
    let peers = servers.iter().zip(figures).skip(1);
    peers
        .map(|(server, figure)| {
            let goal = goals.iter().find(|(name, _)| *name == server.name);
            let goal = goal.map(|(_, goal)| *goal);
            Row::new(measure, figures[0], None).against(server.name, *figure, goal)
        })
        .collect()
}

/// Processor time at each depth of pipelines, with its goals.
fn at_depths(
    plan: &Plan,
    verb: &str,
    servers: &[Server],
    script: fn(Dialect, usize) -> Script,
    goals: &[(usize, &[(&str, Goal)])],
) -> Vec<Row> {
    let (mut table, mut least_busy) = (Vec::new(), f64::MAX);
    for (pipeline, goals) in goals {
        let script = |dialect| script(dialect, *pipeline);
        let (figures, busy) = medians(plan, servers, script, Spent::cpu_us);
        let measure = format!("`{verb}` x{pipeline}, CPU us");
        table.extend(rows(&measure, servers, &figures, goals));
        least_busy = least_busy.min(busy);
    }
    // Were it much less, the load would be what is measured.
    let measure = format!("`{verb}`, the least that a server was busy, %");
    table.push(Row::new(measure, least_busy * 100.0, None));
    table
}

pub(super) fn gets(plan: &Plan) -> Vec<Row> {
    let servers = filled([ours(), memcached(), redis()]);
    // Debian's memcached is slow at pipelined gets: not the bar.
    let goals: &[(usize, &[(&str, Goal)])] = &[
        (1, &[(MEMCACHED, Goal::AtMost(0.95))]),
        (16, &[(REDIS, Goal::AtMost(0.65))]),
        (64, &[(REDIS, Goal::AtMost(0.80))]),
    ];
    at_depths(plan, "get", &servers, gets_of, goals)
}

pub(super) fn sets(plan: &Plan) -> Vec<Row> {
    let servers = filled([ours(), memcached(), redis(), redis_with_log()]);
    let pipelined: &[(&str, Goal)] = &[
        (MEMCACHED, Goal::AtMost(0.75)),
        (REDIS_LOG, Goal::AtMost(0.55)),
        (REDIS, Goal::AtMost(0.90)),
    ];
    let goals: &[(usize, &[(&str, Goal)])] = &[
        (1, &[(MEMCACHED, Goal::AtMost(1.02))]),
        (16, pipelined),
        (64, pipelined),
    ];
    at_depths(plan, "set", &servers, sets_of, goals)
}

pub(super) fn multigets(plan: &Plan) -> Vec<Row> {
    let servers = filled([ours(), memcached(), redis()]);
    let millions = |spent: &Spent| spent.per_cpu_second() / 1e6;
    let (figures, _) = medians(plan, &servers, multigets_of, millions);
    let goals = [(MEMCACHED, Goal::AtLeast(1.5)), (REDIS, Goal::AtLeast(1.2))];
    let measure = "`get` of 100 keys, M keys per CPU second";
    rows(measure, &servers, &figures, &goals)
}
