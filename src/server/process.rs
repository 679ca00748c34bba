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

/// Has the system allow as many file descriptors as `max_clients` and the server's own files
/// need; says so in the log if it does not.
pub fn allow_descriptors(max_clients: usize) {
    /// For listeners, data files, the log and the runtimes.
    const OWN: u64 = 128;
    let needed = max_clients as u64 + OWN;
    let limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    if enough(limit.current) {
        return;
    }
    let current = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
    let raised = Rlimit {
        current: Some(current),
        ..limit
    };
    let set = setrlimit(Resource::Nofile, raised);
    if set.is_err() || current < needed {
        tracing::warn!(
            "max_clients = {max_clients} needs {needed} file descriptors and the system allows \
             {current}: raise the limit (LimitNOFILE= in systemd, ulimit -n) or lower max_clients"
        );
    }
}

/// The machine's memory, in bytes.
pub fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(info.mem_unit.into())
}
