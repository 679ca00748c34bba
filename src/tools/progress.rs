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
    done: u64,
    bar: Option<ProgressBar>,
    quiet: bool,
    told: Tick,
}

impl Progress {
    /// Work of `total` bytes.
    pub(super) fn bytes(what: &'static str, total: u64, quiet: bool) -> Self {
        let shown = !quiet && std::io::stderr().is_terminal();
        let bar = shown.then(|| {
            let form = "{msg} [{bar:40}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
            let style = ProgressStyle::with_template(form).unwrap_or(ProgressStyle::default_bar());
            let bar = ProgressBar::new(total).with_style(style);
            bar.set_message(what);
            bar
        });
        Self {
            what,
            total,
            done: 0,
            bar,
            quiet,
            told: Tick::now(),
        }
    }

    /// So much more is done.
    pub(super) fn advance(&mut self, bytes: u64) {
        self.at(self.done.saturating_add(bytes));
    }

    /// So much is done.
    pub(super) fn at(&mut self, done: u64) {
        self.done = done;
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if !self.quiet && self.told.elapsed() >= LINE_EVERY {
            self.told = Tick::now();
            let percent = done
                .saturating_mul(100)
                .checked_div(self.total)
                .unwrap_or(100);
            let line = format!(
                "{}: {percent} % ({done} of {} bytes)",
                self.what, self.total
            );
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
