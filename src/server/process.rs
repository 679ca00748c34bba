//! What the system knows of this process and allows it: CPU time, memory, file descriptors.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

/// CPU time used by all threads, in seconds.
pub struct Cpu {
    /// In the program.
    pub user: f64,
    /// In the kernel on its behalf.
    pub system: f64,
}

/// The CPU time used so far. The process clock is exact and the split between user and system
/// is the kernel's own sampling, read from `/proc`.
pub fn cpu_seconds() -> Cpu {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    let total = Duration::new(
        spent.tv_sec.try_into().unwrap_or_default(),
        spent.tv_nsec.try_into().unwrap_or_default(),
    )
    .as_secs_f64();
    let (user, system) = super::files::process_ticks().unwrap_or((1, 0));
    let share = user as f64 / (user + system).max(1) as f64;
    Cpu {
        user: total * share,
        system: total * (1.0 - share),
    }
}

/// Descriptors that the server needs beside its clients': for listeners, data files, the log and
/// what all threads share.
const OWN_DESCRIPTORS: u64 = 128;

/// Those of one worker's runtime, and to spare.
const WORKER_DESCRIPTORS: u64 = 4;

/// Has the system allow as many file descriptors as it may. Returns how many clients there may
/// be: fewer than `max_clients`, with a line in the log, if these and the server's own files need
/// more. So a client too many is told, and the server's own files can be opened.
pub fn allow_clients(max_clients: usize, threads: usize) -> usize {
    let own = OWN_DESCRIPTORS + WORKER_DESCRIPTORS * threads as u64;
    let needed = max_clients as u64 + own;
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    // Where there is no hard limit the kernel has one of its own: no more is asked for than needed.
    let raised = current.max(limit.maximum.unwrap_or(needed));
    let more = Rlimit {
        current: Some(raised),
        ..limit
    };
    let is_raised = raised > current && setrlimit(Resource::Nofile, more).is_ok();
    let allowed = if is_raised { raised } else { current };
    if allowed >= needed {
        return max_clients;
    }
    let clients = usize::try_from(allowed.saturating_sub(own)).unwrap_or(max_clients);
    let clients = clients.clamp(1, max_clients);
    tracing::warn!(
        "max_clients = {max_clients} needs {needed} file descriptors and the system allows \
         {allowed}: {clients} clients are served; raise the limit (LimitNOFILE= in systemd, \
         ulimit -n) or lower max_clients"
    );
    clients
}

/// The machine's memory, in bytes.
pub fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(info.mem_unit.into())
}
