//! The fan-out: a million counters, of which 100 indexes have 1,000 each and one has all; and
//! members that are added to that one. Redis has sets for indexes, and a script.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::Plan;
use super::support::figures::{Goal, Row, in_turns, median};
use super::support::load::{Script, run};
use super::support::server::{Config, Cores, Program, Server};
use super::support::wire::{Client, Dialect, words};

const COUNTERS: usize = 1_000_000;
/// The ids are among so many.
const IDS: u32 = 10_000_000;
const INDEXES: usize = 100;
const MEMBERS: usize = 1000;
/// The index that has all of them.
const ALL: &str = "1.1000";
const ADDED_AT_ONCE: usize = 10_000;
/// Another client asks for something so long after it was answered.
const PAUSE: Duration = Duration::from_millis(1);
const PIPELINE: usize = 64;

const SCRIPT: &str = "local m = redis.call('SMEMBERS', KEYS[1]) \
                      for i = 1, #m do redis.call('INCR', '2.' .. m[i]) end return #m";

pub(super) fn fan_outs(plan: &Plan) -> Vec<Row> {
    let mut ids: Vec<u32> = (0..IDS).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut ids);
    let (members, others) = ids.split_at(COUNTERS);
    let config = Config {
        server: "threads = 1",
        ..Config::default()
    };
    let ours = Server::start("ours", Program::Ours(config), Cores::First);
    let redis = Server::start("Redis Lua", Program::Redis("--appendonly no"), Cores::First);
    let servers: Vec<_> = [ours, redis].into_iter().flatten().collect();
    for server in &servers {
        fill(server, members);
    }
    let mut rows = to_a_thousand(plan, &servers);
    let ours = &servers[0];
    rows.extend(to_a_million(plan, ours, members));
    rows.push(additions(plan, ours, others));
    rows
}

fn fill(server: &Server, ids: &[u32]) {
    let (mut client, dialect) = (server.connect(), server.dialect);
    client.fill(ids.len() as u64, |at, out| {
        dialect.set(out, &format!("2.{}", ids[at as usize]), "0");
    });
    let indexes: Vec<_> = ids.chunks(MEMBERS).take(INDEXES).collect();
    client.fill(INDEXES as u64, |at, out| {
        let ids = indexes[at as usize].iter().copied();
        dialect.add_members(out, &format!("1.{at}"), ids);
    });
    if dialect == Dialect::Memcached {
        let parts: Vec<_> = ids.chunks(ADDED_AT_ONCE).collect();
        client.fill(parts.len() as u64, |at, out| {
            dialect.add_members(out, ALL, parts[at as usize].iter().copied());
        });
    }
}

fn to_a_thousand(plan: &Plan, servers: &[Server]) -> Vec<Row> {
    let figures = in_turns(plan.runs, servers, |server| {
        let script = fan_out_script(server);
        run(server, 1, &script, plan.time).per_cpu_second() / 1e6
    });
    let measure = "fan-out over 1,000 members, M counters per CPU second";
    let ours = |goal| Row::new(measure, figures[0], goal);
    let mut rows = vec![ours(Some(Goal::AtLeast(25.0)))];
    let peers = servers.iter().zip(&figures).skip(1);
    let goal = Some(Goal::AtLeast(25.0));
    rows.extend(peers.map(|(server, figure)| ours(None).against(server.name, *figure, goal)));
    rows
}

/// Ten in a batch; what is counted are counters.
fn fan_out_script(server: &Server) -> Script {
    const AT_ONCE: usize = 10;
    let sha = (server.dialect == Dialect::Redis).then(|| {
        let (mut client, mut load) = (server.connect(), Vec::new());
        words(&mut load, &["SCRIPT", "LOAD", SCRIPT]);
        let len = client.ask(&load).trim_start_matches('$').parse().unwrap();
        client.block(len)
    });
    let batch = |first: usize| {
        let mut out = Vec::new();
        for at in 0..AT_ONCE {
            let index = format!("1.{}", first + at);
            match &sha {
                None => server.dialect.incr(&mut out, &index),
                Some(sha) => words(&mut out, &["EVALSHA", sha, "1", &index]),
            }
        }
        out
    };
    let reply = match server.dialect {
        Dialect::Memcached => format!("{MEMBERS}\r\n"),
        Dialect::Redis => format!(":{MEMBERS}\r\n"),
    };
    Script {
        batches: (0..INDEXES).step_by(AT_ONCE).map(batch).collect(),
        reply_len: AT_ONCE * reply.len(),
        requests: AT_ONCE * MEMBERS,
    }
}

fn to_a_million(plan: &Plan, ours: &Server, members: &[u32]) -> Vec<Row> {
    let mut client = ours.connect();
    let incr = format!("incr {ALL} 1\r\n");
    let journal_bytes = || ours.stat("journal_bytes").unwrap();
    let before = journal_bytes();
    client.ask(&incr);
    let record = journal_bytes() - before;
    let (mut speeds, mut waits, mut quiet) = (Vec::new(), Vec::new(), Vec::new());
    let time = plan.time * 2;
    for _ in 0..plan.runs {
        quiet.push(longest_wait_during(ours, members, || {
            std::thread::sleep(time);
        }));
        let (begun, cpu) = (Instant::now(), ours.process().cpu());
        let mut fan_outs = 0;
        waits.push(longest_wait_during(ours, members, || {
            while begun.elapsed() < time {
                assert_eq!(client.ask(&incr), COUNTERS.to_string());
                fan_outs += 1;
            }
        }));
        let cpu = ours.process().cpu_since(cpu);
        speeds.push((fan_outs * COUNTERS) as f64 / cpu.as_secs_f64() / 1e6);
    }
    let longest = |waits: Vec<Duration>| {
        let longest = waits.into_iter().max().unwrap_or_default();
        longest.as_secs_f64() * 1000.0
    };
    let row = |what, figure, goal| {
        let measure = format!("fan-out over 1,000,000 members, {what}");
        Row::new(measure, figure, goal)
    };
    let goal = Some(Goal::AtLeast(25.0));
    vec![
        row("journal bytes", record as f64, Some(Goal::AtMost(64.0))),
        row("M counters per CPU second", median(speeds), goal),
        row(
            "longest wait of another client, worst run, ms",
            longest(waits),
            Some(Goal::AtMost(50.0)),
        ),
        row(
            "longest wait of a client without them, worst run, ms",
            longest(quiet),
            None,
        ),
    ]
}

/// How long another client waited at most while something went on.
fn longest_wait_during(ours: &Server, members: &[u32], goes_on: impl FnOnce()) -> Duration {
    let (other, stop) = (ours.connect(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| longest_wait(other, members, &stop));
        goes_on();
        stop.store(true, Relaxed);
        waiting.join().unwrap()
    })
}

/// Asks for a counter whenever that is due; how long it took at most, from then.
fn longest_wait(mut client: Client, ids: &[u32], stop: &AtomicBool) -> Duration {
    let mut longest = Duration::ZERO;
    for id in ids.iter().cycle() {
        if stop.load(Relaxed) {
            break;
        }
        std::thread::sleep(PAUSE);
        // One fan-out follows the other: counted from any other moment than this, the waiting for
        // several of them would add up.
        let asked = Instant::now();
        let mut line = client.ask(format!("get 2.{id}\r\n"));
        while line != "END" {
            line = client.reply();
        }
        longest = longest.max(asked.elapsed());
    }
    longest
}

/// One member a request, and each is new; a run adds few to the million.
fn additions(plan: &Plan, ours: &Server, ids: &[u32]) -> Row {
    let each = if plan.short { 20_000 } else { 100_000 };
    let mut client = ours.connect();
    let mut runs = ids.chunks(each);
    let mut speed = || {
        let ids = runs.next().unwrap();
        let before = ours.process().cpu();
        for ids in ids.chunks(PIPELINE) {
            let mut batch = Vec::new();
            for id in ids {
                ours.dialect.add_members(&mut batch, ALL, [*id].into_iter());
            }
            client.send(&batch).unwrap();
            for _ in ids {
                assert_eq!(client.reply(), "STORED");
            }
        }
        let cpu = ours.process().cpu_since(before);
        ids.len() as f64 / cpu.as_secs_f64()
    };
    let speed = median((0..plan.runs).map(|_| speed()).collect());
    let measure = "`append` of a member to an index of 1,000,000, per CPU second";
    Row::new(measure, speed, Some(Goal::AtLeast(200_000.0)))
}
