//! What the system knows of this process: its CPU time, and the machine's memory.

use std::time::Duration;

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

/// The machine's memory, in bytes.
pub fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(info.mem_unit.into())
}
