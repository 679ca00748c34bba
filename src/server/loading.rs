//! What is told of a start that takes a while: to the service manager, so that it waits and
//! `systemctl status` shows how far it is, and to the log.

use std::time::Duration;

use super::systemd::{self, Patience};
use crate::clock::Tick;
use crate::journal::Progress;

/// How often the log has a line; a short start has none.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// A start on its way.
pub struct Loading {
    begun: Tick,
    patience: Patience,
    logged: Tick,
}

impl Loading {
    /// A start that begins now.
    pub fn begin() -> Self {
        let begun = Tick::now();
        Self {
            begun,
            patience: Patience::default(),
            logged: begun,
        }
    }

    /// Passes on how far it is, if it is time.
    pub fn hear(&mut self, progress: &Progress) {
        if !self.patience.ask() {
            return;
        }
        let line = line(progress, self.begun.elapsed());
        systemd::status(&line);
        if self.logged.elapsed() >= LOG_EVERY {
            self.logged = Tick::now();
            tracing::info!("{line}");
        }
    }
}

fn line(progress: &Progress, elapsed: Duration) -> String {
    let (done, total) = (progress.done_bytes, progress.total_bytes);
    let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
    if done == 0 {
        return format!("loading the data: {percent} %");
    }
    let records = progress.taken.entries + progress.taken.records;
    let ms = elapsed.as_millis().max(1);
    let rate = u128::from(records) * 1000 / ms;
    let left = u128::from(total.saturating_sub(done)) * ms / u128::from(done);
    format!(
        "loading the data: {percent} %, {rate} records/s, about {} s to go",
        left.div_ceil(1000)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Taken;

    #[test]
    fn a_line_has_the_share_the_rate_and_the_rest() {
        let mut progress = Progress {
            done_bytes: 250,
            total_bytes: 1000,
            taken: Taken {
                entries: 3000,
                records: 1000,
                ..Taken::default()
            },
        };
        let told = line(&progress, Duration::from_secs(4));
        assert_eq!(
            told,
            "loading the data: 25 %, 1000 records/s, about 12 s to go"
        );
        progress.done_bytes = 0;
        progress.total_bytes = 0;
        let told = line(&progress, Duration::ZERO);
        assert_eq!(told, "loading the data: 100 %");
    }
}
