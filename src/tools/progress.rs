//! How far a tool is: a bar on a terminal, a line every few seconds anywhere else. Both go to
//! standard error, so that what a tool finds can be piped on.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::clock::Tick;

const LINE_EVERY: Duration = Duration::from_secs(5);

/// The progress of one piece of work.
pub(super) struct Progress {
    what: &'static str,
    total: u64,
    unit: &'static str,
    done: u64,
    bar: Option<ProgressBar>,
    quiet: bool,
    told: Tick,
}

impl Progress {
    /// Work of `total` bytes; 0 if that is not known.
    pub(super) fn bytes(what: &'static str, total: u64, quiet: bool) -> Self {
        let form = "{msg} [{bar:40}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        Self::new(what, (total, "bytes"), form, quiet)
    }

    /// Work on `total` entries.
    pub(super) fn entries(what: &'static str, total: u64, quiet: bool) -> Self {
        let form = "{msg} [{bar:40}] {pos} of {len}, {per_sec}, {eta} left";
        Self::new(what, (total, "entries"), form, quiet)
    }

    fn new(
        what: &'static str,
        (total, unit): (u64, &'static str),
        form: &str,
        quiet: bool,
    ) -> Self {
        let shown = !quiet && std::io::stderr().is_terminal();
        let bar = shown.then(|| {
            let style = ProgressStyle::with_template(form).unwrap_or(ProgressStyle::default_bar());
            let bar = ProgressBar::new(total).with_style(style);
            bar.set_message(what);
            bar
        });
        Self {
            what,
            total,
            unit,
            done: 0,
            bar,
            quiet,
            told: Tick::now(),
        }
    }

    /// So much more is done.
    pub(super) fn advance(&mut self, more: u64) {
        self.at(self.done.saturating_add(more));
    }

    /// So much is done.
    pub(super) fn at(&mut self, done: u64) {
        self.done = done;
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if !self.quiet && self.told.elapsed() >= LINE_EVERY {
            self.told = Tick::now();
            let (what, total, unit) = (self.what, self.total, self.unit);
            let line = match done.saturating_mul(100).checked_div(total) {
                Some(percent) => format!("{what}: {percent} % ({done} of {total} {unit})"),
                None => format!("{what}: {done} {unit}"),
            };
            // Nobody may be listening.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
