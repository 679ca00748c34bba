//! `bench`: a server under load, and how fast it is.
//!
//! Invariant: it ends by itself - by its count, its time or a signal - and every request that it
//! sent is in its report. What it writes has keys of its own, unless types are asked for.

mod args;
mod connection;
mod driver;
mod keys;
mod pace;
mod prepare;
mod process;
mod replies;
mod report;
mod tally;
mod workload;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fastrand::Rng;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::exit::Exit;

use super::ToolError;
use super::client::{Client, Server, Stream};
use driver::{Driver, Job};
use pace::Pace;
use process::Process;
use report::{LoadLines, ProcessLines, Report};
use tally::Tally;
use workload::{Value, Workload};

pub use args::Args;
pub(super) use args::PAGE;

pub(super) fn run(args: &Args, out: &mut impl Write) -> Result<Exit, ToolError> {
    args.check()?;
    let address = Server::at(args.address.clone()).address()?;
    let process = args.pid.map(Process::new);
    let resident = || process.as_ref().map(Process::resident_bytes).transpose();
    let before = resident()?;
    let mut client = Client::connect(&Server::at(Some(address.clone())))?;
    let version = client.version()?;
    let mut rng = Rng::with_seed(args.seed);
    let workload = args.workload(&client.types()?, &mut rng)?;
    if !args.no_prepare {
        prepare::store(&workload, args.members, &mut client, &mut rng, args.quiet)?;
    }
    drop(client);
    let prepared = resident()?;
    let streams = (0..args.connections).map(|_| {
        let stream = Stream::connect(&address)?;
        let set = stream.set_nonblocking();
        set.map_err(|error| ToolError::Server(format!("cannot use a connection: {error}")))?;
        Ok(stream)
    });
    let streams = streams.collect::<Result<Vec<_>, ToolError>>()?;
    let cpu_before_ns = process.as_ref().map(Process::cpu_ns).transpose()?;
    let tally = load(args, &workload, streams)?;
    let cpu_after_ns = process.as_ref().map(Process::cpu_ns).transpose();
    let lines = load_lines(args, address.to_string(), version, &workload);
    let mut report = Report::new(lines, &tally, args.rate)?;
    if let (Some(pid), Some(before), Some(prepared), Some(cpu_before_ns)) =
        (args.pid, before, prepared, cpu_before_ns)
    {
        let spent_ns = cpu_after_ns?
            .unwrap_or_default()
            .saturating_sub(cpu_before_ns) as f64;
        report.process = Some(ProcessLines {
            pid,
            cpu_seconds: spent_ns / 1e9,
            cpu_us_per_request: spent_ns / 1e3 / report.replies().max(1) as f64,
            resident_bytes_before: before,
            resident_bytes_prepared: prepared,
            resident_bytes_after: resident()?.unwrap_or_default(),
        });
    }
    if args.json {
        let text = serde_json::to_string_pretty(&report).map_err(io::Error::other)?;
        writeln!(out, "{text}")?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(if report.is_clean() {
        Exit::Ok
    } else {
        Exit::Io
    })
}

/// The load itself, on threads of its own.
fn load(args: &Args, workload: &Workload, streams: Vec<Stream>) -> Result<Tally, ToolError> {
    let stop = stop_at_signals()?;
    let mut shares: Vec<Vec<Stream>> = (0..args.threads).map(|_| Vec::new()).collect();
    let threads = shares.len().max(1);
    for (at, stream) in streams.into_iter().enumerate() {
        if let Some(share) = shares.get_mut(at % threads) {
            share.push(stream);
        }
    }
    let end = args.time().map(nanoseconds);
    let drivers = (0..).zip(shares).map(|(thread, share)| {
        let job = Job {
            workload,
            pace: Pace::new((thread, args.threads), args.requests, end, args.rate),
            depth: args.pipeline,
            seed: args.seed.wrapping_add(1 + thread),
            stop: &stop,
        };
        Driver::new(job, share)
    });
    let drivers = drivers.collect::<Result<Vec<_>, _>>()?;
    std::thread::scope(|scope| {
        let threads = drivers
            .into_iter()
            .map(|driver| scope.spawn(|| driver.run()));
        let threads: Vec<_> = threads.collect();
        let mut all = Tally::new()?;
        for thread in threads {
            let ended = thread.join();
            let tally =
                ended.map_err(|_| ToolError::Server("a thread of the load failed".into()))?;
            all.add(&tally?)?;
        }
        Ok(all)
    })
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Set by the first signal that asks to end; a second one ends the process.
fn stop_at_signals() -> Result<Arc<AtomicBool>, ToolError> {
    const ENDED_BY_SIGNAL: i32 = 128;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        use signal_hook::flag::{register, register_conditional_shutdown};
        register_conditional_shutdown(signal, ENDED_BY_SIGNAL + signal, Arc::clone(&stop))
            .and_then(|_| register(signal, Arc::clone(&stop)))
            .map_err(|error| ToolError::Server(format!("cannot wait for signals: {error}")))?;
    }
    Ok(stop)
}

fn load_lines(args: &Args, address: String, version: String, workload: &Workload) -> LoadLines {
    LoadLines {
        address,
        version,
        connections: args.connections,
        threads: args.threads,
        pipeline: args.pipeline,
        mix: args.mix.to_string(),
        keys: args.keys,
        zipf: args.zipf,
        value_bytes: match &workload.value {
            Value::Number => None,
            Value::Bytes { len, .. } => Some(*len),
        },
        seed: args.seed,
    }
}
