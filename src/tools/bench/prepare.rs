//! Before the load: what there must be on the server so that requests find something.
//!
//! Invariant: only the keys that the load names are stored, and when it returns all are.

use std::io::Write as _;

use fastrand::Rng;

use super::super::ToolError;
use super::super::client::Client;
use super::super::progress::Progress;
use super::workload::{Family, Kind, Workload};

/// Requests that are sent before their replies are read: their replies must fit the buffers in
/// between, or both sides would wait.
const WINDOW_REQUESTS: usize = 1000;
const WINDOW_BYTES: usize = 256 << 10;
/// An index is stored in parts, so that no part is longer than a server takes by default.
const PART_MEMBERS: u64 = 50_000;

/// Stores what the workload names; each index with `members` of the counters.
pub(super) fn store(
    workload: &Workload,
    members: u64,
    client: &mut Client,
    rng: &mut Rng,
    quiet: bool,
) -> Result<(), ToolError> {
    let has = |kinds: &[Kind]| kinds.iter().any(|kind| workload.mix.has(*kind));
    let entries = has(&[Kind::Get, Kind::Set, Kind::MultiGet]);
    let counters = has(&[Kind::Incr, Kind::FanOut]);
    let indexes = has(&[Kind::FanOut]);
    let count = |family: &Family, wanted| if wanted { family.ids.count() } else { 0 };
    let total = count(&workload.entries, entries) + count(&workload.counters, counters);
    let mut window = Window {
        client,
        progress: Progress::entries("preparing", total, quiet),
        bytes: Vec::new(),
        requests: 0,
        done: 0,
    };
    for id in 0..count(&workload.entries, entries) {
        workload.set(id, rng, &mut window.bytes);
        window.asked()?;
    }
    for id in 0..count(&workload.counters, counters) {
        window.bytes.extend_from_slice(b"set ");
        workload.counters.put(id, &mut window.bytes);
        window.bytes.extend_from_slice(b" 0 0 1\r\n0\r\n");
        window.asked()?;
    }
    for id in 0..count(&workload.indexes, indexes) {
        index(workload, id, members, rng, &mut window)?;
    }
    window.flush()
}

/// An index of counters that lie evenly between all, from a random one on.
fn index(
    workload: &Workload,
    id: u64,
    members: u64,
    rng: &mut Rng,
    window: &mut Window<'_>,
) -> Result<(), ToolError> {
    let counters = workload.counters.ids.count();
    let (first, step) = (rng.u64(..counters), counters / members.max(1));
    let mut body = Vec::new();
    for from in (0..members).step_by(usize::try_from(PART_MEMBERS).unwrap_or(usize::MAX)) {
        body.clear();
        for at in from..members.min(from + PART_MEMBERS) {
            writeln!(body, "{}", (first + at * step) % counters)?;
        }
        body.pop();
        let verb: &[u8] = if from == 0 { b"set " } else { b"append " };
        window.bytes.extend_from_slice(verb);
        workload.indexes.put(id, &mut window.bytes);
        write!(window.bytes, " 0 0 {}\r\n", body.len())?;
        window.bytes.extend_from_slice(&body);
        window.bytes.extend_from_slice(b"\r\n");
        window.asked()?;
    }
    Ok(())
}

/// Requests that go together.
struct Window<'a> {
    client: &'a mut Client,
    progress: Progress,
    bytes: Vec<u8>,
    requests: usize,
    done: u64,
}

impl Window<'_> {
    /// One more request is in it.
    fn asked(&mut self) -> Result<(), ToolError> {
        self.requests += 1;
        if self.requests >= WINDOW_REQUESTS || self.bytes.len() >= WINDOW_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ToolError> {
        self.client.send(&self.bytes)?;
        self.bytes.clear();
        for _ in 0..std::mem::take(&mut self.requests) {
            let reply = self.client.line();
            let reply = reply.map_err(|error| self.client.lost(&error))?;
            if reply != "STORED" {
                let text = format!("cannot prepare the keys, the server answered: {reply}");
                return Err(ToolError::Server(text));
            }
            self.done += 1;
        }
        self.progress.at(self.done);
        Ok(())
    }
}
