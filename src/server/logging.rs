//! The log: one line an event, to a file that can be reopened or to standard error.
//!
//! Invariant: logging never fails, panics or stops its caller. A line that could not be written is
//! counted, and the next one that can be says how many are missing. A line is one line: control
//! characters in it, which may come from a client, are escaped. [`init`] is for `main`, the
//! handle for `server`, the macros of `tracing` for everyone in `server`.

use super::files::{FileError, LogFile};
use crate::clock::{self, Tick};
use crate::config::LogLevel;
use parking_lot::{Mutex, RwLock};
use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Registry, reload};

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The log file cannot be opened.
    #[error(transparent)]
    File(#[from] FileError),
    /// Something else in this process has set up a log before.
    #[error("the log is already set up")]
    AlreadySet,
}

/// Sets up the log of the process. `None` is standard error.
pub fn init(path: Option<&Path>, level: LogLevel) -> Result<LogHandle, LogError> {
    let (subscriber, handle) = build(Sink::open(path)?, level);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::AlreadySet)?;
    Ok(handle)
}

fn build(sink: Sink, level: LogLevel) -> (impl Subscriber + Send + Sync, LogHandle) {
    let writer = ReopenableWriter(Arc::new(Target {
        sink: RwLock::new(sink),
        lost: AtomicU64::new(0),
    }));
    let (filter, level) = reload::Layer::new(filter(level));
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_target(false)
        .with_timer(WallClock)
        .with_writer(writer.clone());
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    (subscriber, LogHandle { writer, level })
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// What changes a log that is running.
#[derive(Clone, Debug)]
pub struct LogHandle {
    writer: ReopenableWriter,
    level: reload::Handle<LevelFilter, Registry>,
}

impl LogHandle {
    /// Opens the file of that path anew and writes there from now on, at `level`. If the file
    /// cannot be opened, the old one and the old level stay.
    pub fn reopen(&self, path: Option<&Path>, level: LogLevel) -> Result<(), FileError> {
        let sink = Sink::open(path)?;
        // It fails only once the subscriber is gone, and then there is nothing to filter.
        let _ = self.level.reload(filter(level));
        *self.writer.0.sink.write() = sink;
        Ok(())
    }

    /// How many lines could not be written and have not been told of yet.
    pub fn lost(&self) -> u64 {
        self.writer.0.lost.load(Relaxed)
    }
}

/// Where lines go.
#[derive(Debug)]
enum Sink {
    Stderr,
    File(LogFile),
}

impl Sink {
    fn open(path: Option<&Path>) -> Result<Self, FileError> {
        path.map_or(Ok(Self::Stderr), |path| LogFile::open(path).map(Self::File))
    }

    fn write(&self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Stderr => io::stderr().lock().write_all(line),
            Self::File(file) => file.append(line),
        }
    }
}

#[derive(Debug)]
struct Target {
    sink: RwLock<Sink>,
    lost: AtomicU64,
}

/// A writer whose file can be changed while others write.
#[derive(Clone, Debug)]
pub struct ReopenableWriter(Arc<Target>);

impl Write for ReopenableWriter {
    /// Takes all of `line`, always.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let sink = self.0.sink.read();
        let lost = self.0.lost.swap(0, Relaxed);
        let told = lost == 0 || {
            let now = clock::wall();
            let note = format!("{now}  WARN {lost} lines of the log could not be written\n");
            sink.write(note.as_bytes()).is_ok()
        };
        if !told || sink.write(&escaped(line)).is_err() {
            let still_lost = if told { 1 } else { lost + 1 };
            self.0.lost.fetch_add(still_lost, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for ReopenableWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// The line with each control character but the newline at its end written as `\xNN`.
fn escaped(line: &[u8]) -> Cow<'_, [u8]> {
    let body = line.strip_suffix(b"\n").unwrap_or(line);
    if !body.iter().any(u8::is_ascii_control) {
        return Cow::Borrowed(line);
    }
    let mut out = Vec::with_capacity(line.len() + 16);
    for &byte in body {
        if byte.is_ascii_control() {
            out.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        } else {
            out.push(byte);
        }
    }
    out.push(b'\n');
    Cow::Owned(out)
}

/// Stamps lines with the wall clock in UTC.
struct WallClock;

impl FormatTime for WallClock {
    fn format_time(&self, out: &mut Writer<'_>) -> fmt::Result {
        write!(out, "{}", clock::wall())
    }
}

/// Keeps one kind of line from flooding the log: so many a second, then silence and a count.
#[derive(Debug)]
pub struct RateLimit {
    kind: &'static str,
    lines_per_second: u32,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    start: Option<Tick>,
    lines: u32,
    suppressed: u64,
}

impl RateLimit {
    /// A limit for one kind of line; make it a `static` beside the lines that it guards.
    pub const fn new(kind: &'static str, lines_per_second: u32) -> Self {
        let window = Window {
            start: None,
            lines: 0,
            suppressed: 0,
        };
        Self {
            kind,
            lines_per_second,
            window: Mutex::new(window),
        }
    }

    /// Runs `log` unless this second has had its lines. The first line after a silence is
    /// preceded by one that tells how many are missing.
    pub fn run(&self, now: Tick, log: impl FnOnce()) {
        let Some(suppressed) = self.admit(now) else {
            return;
        };
        if suppressed > 0 {
            tracing::info!("suppressed {suppressed} similar lines: {}", self.kind);
        }
        log();
    }

    /// `None`: be silent. Otherwise how many lines were suppressed since the last one.
    fn admit(&self, now: Tick) -> Option<u64> {
        let mut window = self.window.lock();
        let is_over = |start| now.since(start) >= Duration::from_secs(1);
        if window.start.is_none_or(is_over) {
            window.start = Some(now);
            window.lines = 0;
        }
        if window.lines >= self.lines_per_second {
            window.suppressed += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_a_file(run: impl FnOnce(&Path, &LogHandle)) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (subscriber, handle) = build(Sink::open(Some(&path)).unwrap(), LogLevel::Info);
        tracing::subscriber::with_default(subscriber, || run(&path, &handle));
        std::fs::read_to_string(&path).unwrap()
    }

    #[test]
    fn a_line_has_time_level_text_and_fields() {
        let text = in_a_file(|_, _| {
            tracing::info!(clients = 3, "ready");
            tracing::debug!("not shown");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        let (time, rest) = text.split_once(' ').unwrap();
        assert_eq!((time.len(), time.ends_with('Z')), (24, true), "{text}");
        assert_eq!(rest, " INFO ready clients=3\n");
    }

    #[test]
    fn a_client_cannot_forge_lines_or_colours() {
        let text = in_a_file(|_, _| tracing::info!("key {}", "a\r\n2026 ERROR \x1b[31mx"));
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains('\x1b') && !text.contains('\r'), "{text}");
    }

    #[test]
    fn reopening_follows_a_rotation_and_changes_the_level() {
        let text = in_a_file(|path, handle| {
            tracing::info!("before");
            let moved = path.with_extension("1");
            std::fs::rename(path, &moved).unwrap();
            tracing::info!("still there");
            handle.reopen(Some(path), LogLevel::Debug).unwrap();
            tracing::debug!("after");
            let moved = std::fs::read_to_string(moved).unwrap();
            assert_eq!(moved.lines().count(), 2, "{moved}");
            assert!(
                handle
                    .reopen(Some(Path::new("/nonexistent/log")), LogLevel::Warn)
                    .is_err()
            );
            tracing::debug!("the old file and level stay");
        });
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("DEBUG after"), "{text}");
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_told() {
        let text = in_a_file(|path, handle| {
            handle
                .reopen(Some(Path::new("/dev/full")), LogLevel::Info)
                .unwrap();
            tracing::info!("one");
            tracing::info!("two");
            assert_eq!(handle.lost(), 2);
            handle.reopen(Some(path), LogLevel::Info).unwrap();
            tracing::info!("three");
            assert_eq!(handle.lost(), 0);
        });
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].ends_with("WARN 2 lines of the log could not be written"),
            "{text}"
        );
        assert!(lines[1].ends_with("INFO three"), "{text}");
    }

    #[test]
    fn a_flood_becomes_a_few_lines_and_a_count() {
        let text = in_a_file(|_, _| {
            let limit = RateLimit::new("refused clients", 2);
            let start = Tick::now();
            for _ in 0..10 {
                limit.run(start, || tracing::warn!("refused"));
            }
            let later = start.plus(Duration::from_secs(1));
            limit.run(later, || tracing::warn!("refused again"));
        });
        let lines: Vec<&str> = text.lines().map(|line| &line[25..]).collect();
        let expected = [
            " WARN refused",
            " WARN refused",
            " INFO suppressed 8 similar lines: refused clients",
            " WARN refused again",
        ];
        assert_eq!(lines, expected);
    }
}
