//! Sets that wait for the disk: throughput, and what the disk takes for a bare `fdatasync`.

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use super::requests::{filled, sets_of};
use super::support::figures::{Goal, Row, in_turns, median};
use super::support::load::run;
use super::support::server::{Config, Cores, Program, Server, scratch};
use super::{CONNECTIONS, Plan};

/// The goal is for disks that are as fast as this; on others the disk is all that is measured.
const FAST_DISK_MS: f64 = 0.25;
const SYNCS: usize = 500;
const FILE_BYTES: usize = 1 << 20;
const WRITE_BYTES: usize = 100;

pub(super) fn throughput(plan: &Plan) -> Vec<Row> {
    let config = Config {
        server: "threads = 1",
        data: "fsync = \"always\"",
        ..Config::default()
    };
    let redis = Program::Redis("--appendonly yes --appendfsync always");
    let servers = filled([
        Server::start("ours", Program::Ours(config), Cores::First),
        Server::start("Redis with AOF always", redis, Cores::First),
    ]);
    let (mut disk, time) = (Vec::new(), plan.time * 2);
    let figures = in_turns(plan.runs, &servers, |server| {
        disk.push(fdatasync_ms());
        let script = sets_of(server.dialect, 1);
        run(server, CONNECTIONS, &script, time).per_second()
    });
    let disk = median(disk);
    let goal = (disk <= FAST_DISK_MS).then_some(Goal::AtLeast(2.0));
    let measure = "`set` with fsync = always, requests/s";
    let mut rows = vec![Row::new(
        "the disk's bare fdatasync after 100 bytes, ms",
        disk,
        None,
    )];
    let peers = servers.iter().zip(&figures).skip(1);
    rows.extend(peers.map(|(server, figure)| {
        Row::new(measure, figures[0], None).against(server.name, *figure, goal)
    }));
    rows
}

/// The median time of a sync of a few bytes in a file that has its length already.
fn fdatasync_ms() -> f64 {
    let dir = scratch();
    let mut file = File::create(dir.path().join("file")).unwrap();
    file.write_all(&vec![0; FILE_BYTES]).unwrap();
    file.sync_all().unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    let sync = |_| {
        file.write_all(&[1; WRITE_BYTES]).unwrap();
        let begun = Instant::now();
        file.sync_data().unwrap();
        Duration::as_secs_f64(&begun.elapsed()) * 1000.0
    };
    median((0..SYNCS).map(sync).collect())
}
