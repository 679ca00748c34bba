//! What the kernel knows of a process, and on which cores one runs.

use std::fs;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};

/// A running process.
#[derive(Clone, Copy)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// The processor time of all its threads, which the kernel counts in nanoseconds.
    pub(crate) fn cpu(self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0)).unwrap();
        let of_task = |task: std::io::Result<fs::DirEntry>| {
            // A thread may end before it is read.
            let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ')
                .next()?
                .parse()
                .ok()
                .map(Duration::from_nanos)
        };
        tasks.filter_map(of_task).sum()
    }

    /// The same, since it was `before`.
    pub(crate) fn cpu_since(self, before: Duration) -> Duration {
        self.cpu().saturating_sub(before)
    }

    /// What it has in memory, shared or not.
    pub(crate) fn resident_bytes(self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// A size that `/proc/PID/status` has under that name.
    pub(crate) fn status_bytes(self, name: &str) -> u64 {
        kib_line("status", self.0, name).expect("no such figure") * 1024
    }

    /// The proportional set size of the process and its children.
    pub(crate) fn proportional_bytes(self) -> u64 {
        let pid = self.0;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
        let children: Vec<u32> = children.collect();
        if children.is_empty() {
            // Without a child nothing is shared, and this costs the process nothing: a look at
            // its proportional set size would hold up its own calls for memory.
            return self.resident_bytes();
        }
        let each = children.into_iter().chain([pid]);
        each.filter_map(|pid| kib_line("smaps_rollup", pid, "Pss:"))
            .map(|kib| kib * 1024)
            .sum()
    }
}

fn kib_line(file: &str, pid: u32, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Keeps this process, and those that it starts from now on, on these cores.
pub(crate) fn pin(cores: impl IntoIterator<Item = usize>) {
    let mut set = CpuSet::new();
    cores.into_iter().for_each(|core| set.set(core));
    sched_setaffinity(None, &set).expect("there are such cores");
}
