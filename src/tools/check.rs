//! `check`: is a data directory in order, and if not, where is it damaged and what does that cost.
//!
//! The verdict is the start's own: the directory is read by the code that a start reads it by. What
//! stands in the report beside it - each file, each damage - comes from looking at every file.

use std::fmt;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use serde::Serialize;

use crate::engine::{OpenError, read_state};
use crate::exit::Exit;
use crate::journal::disk::{Name, ReadOnlyDisk};
use crate::journal::inspect::{Item, Other, Scan};
use crate::journal::{JournalError, Recovered};
use crate::store::Store;

use super::ToolError;
use super::lines::{DamageLine, StateLines};
use super::plan::Plan;
use super::progress::Progress;
use super::state;
use super::survey::Survey;

/// The page of `--help`.
pub(super) const PAGE: &str = "\
Verify a data directory, change nothing, and say what is there and where it is damaged.

Reads every file of DIR: headers, the chain of batches, checksums, records; and builds the state
from them in memory, exactly as a start of the server does. Nothing is made or changed, not even
LOCK, so that DIR may be a copied backup or lie on a read-only file system. The memory that this
takes is that of all data, also of values that keep_in_memory leaves in their files.

The report names each file with its number, generation, records and size; the entries of each
type; every flush_all that can still be undone (see salvage --before-flush); files that are not
needed, torn or not the store's; and every damage with its file, offset and record numbers. It
does not end at the first damage. A torn tail is not damage: it is what a power failure leaves of
writes that were not yet promised to last, and the next start puts it aside.

Not found: damage that keeps every checksum right, and files of the newest records that are
missing without a trace.
";

/// The arguments.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
#[command(after_long_help = "\
EXIT CODES
  0   a start would succeed and lose nothing that was promised
  65  damaged: a start would refuse; see the report, then `storage_server salvage --help`
  73  a server or another tool is using the directory
  74  the directory or a file cannot be read

EXAMPLES
  storage_server check /var/lib/storage_server/data
  storage_server check --json backup/2026-11-20 | jq .verdict
")]
pub struct Args {
    /// The data directory, of a server that is stopped, or a copy
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Report in JSON
    #[arg(long)]
    json: bool,
    /// No progress on standard error
    #[arg(short, long)]
    quiet: bool,
}

/// All that there is to say.
#[derive(Debug, Serialize)]
struct Report {
    directory: String,
    /// `ok`, `torn` or `damaged`.
    verdict: &'static str,
    /// Why a start would refuse.
    reason: Option<String>,
    torn_bytes: u64,
    next_record: u64,
    files: Vec<FileLine>,
    others: Vec<OtherLine>,
    state: Option<StateLines>,
    flushes: Vec<FlushLine>,
    damage: Vec<DamageLine>,
    salvage: Option<SalvageLines>,
}

/// A file of the store.
#[derive(Debug, Serialize)]
struct FileLine {
    name: String,
    generation: Option<u64>,
    bytes: u64,
    records: u64,
    first_record: Option<u64>,
    next_record: Option<u64>,
    newest: Option<String>,
    closed: bool,
    needed: bool,
    readable: bool,
}

#[derive(Debug, Serialize)]
struct OtherLine {
    name: String,
    what: &'static str,
}

#[derive(Debug, Serialize)]
struct FlushLine {
    record: u64,
    time: String,
    undoable: bool,
}

/// What salvage would give.
#[derive(Debug, Serialize)]
struct SalvageLines {
    state: StateLines,
    base: Option<String>,
    missing_records: u64,
    misfits: u64,
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> Result<Exit, ToolError> {
    let disk = ReadOnlyDisk::open(&args.dir)?;
    let survey = Survey::take(&disk, args.quiet)?;
    let verified = verify(&disk, args.quiet);
    let report = report(args, &survey, &verified);
    let exit = match report.verdict {
        "damaged" => Exit::Damaged,
        _ => Exit::Ok,
    };
    if args.json {
        let text = serde_json::to_string_pretty(&report).map_err(std::io::Error::other)?;
        writeln!(out, "{text}")?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(exit)
}

/// What a start would say.
pub(super) type Verified = Result<(Store, Recovered), OpenError>;

/// Reads the directory as a start does.
pub(super) fn verify(disk: &ReadOnlyDisk, quiet: bool) -> Verified {
    let mut bar: Option<Progress> = None;
    read_state(disk, &mut |progress| {
        bar.get_or_insert_with(|| {
            Progress::bytes("building the state", progress.total_bytes, quiet)
        })
        .at(progress.done_bytes);
        ControlFlow::Continue(())
    })
}

fn report(args: &Args, survey: &Survey, verified: &Verified) -> Report {
    let plan = Plan::make(survey, None);
    let (verdict, reason, torn_bytes) = match verified {
        Ok((_, recovered)) if recovered.torn_bytes > 0 => ("torn", None, recovered.torn_bytes),
        Ok(_) => ("ok", None, 0),
        Err(error) => ("damaged", Some(reason(error)), 0),
    };
    let base = match verified {
        Ok((_, recovered)) => Some(Name::Snapshot(recovered.snapshot)),
        Err(_) => plan.base,
    };
    let salvage = verified.is_err().then(|| {
        let (store, outcome) = state::make(survey, &plan, None, args.quiet);
        SalvageLines {
            state: StateLines::of(&store, outcome.time),
            base: plan.base.map(|name| name.to_string()),
            missing_records: plan.missing(),
            misfits: outcome.misfits,
        }
    });
    let is_needed = |item: &Item| base.is_none_or(|base| item.is_from(base));
    Report {
        directory: args.dir.display().to_string(),
        verdict,
        reason,
        torn_bytes,
        next_record: survey.next_seq(),
        files: survey
            .files()
            .map(|(item, scan)| FileLine::of(item, scan, is_needed(item)))
            .collect(),
        others: survey
            .catalog
            .others
            .iter()
            .filter_map(OtherLine::of)
            .collect(),
        state: verified
            .as_ref()
            .ok()
            .map(|(store, recovered)| StateLines::of(store, recovered.newest_time)),
        flushes: flush_lines(survey),
        damage: damage(survey, is_needed, verdict == "torn"),
        salvage,
    }
}

fn reason(error: &OpenError) -> String {
    match error {
        // `restore from a backup` is one way; salvage is the other.
        OpenError::Journal(JournalError::Damaged {
            name,
            offset,
            seq,
            what,
        }) => format!("{name} is damaged at offset {offset}, record {seq}: {what}"),
        error => error.to_string(),
    }
}

fn flush_lines(survey: &Survey) -> Vec<FlushLine> {
    let lines = survey.flushes.iter().map(|flush| FlushLine {
        record: flush.seq,
        time: flush.time.to_string(),
        undoable: Plan::make(survey, Some(flush.seq)).is_whole(),
    });
    lines.collect()
}

/// Every damage in the files. That of the last segment is a torn tail if a start takes it for one.
fn damage(survey: &Survey, is_needed: impl Fn(&Item) -> bool, torn: bool) -> Vec<DamageLine> {
    let last = survey.segments().next_back().map(|(item, _)| item.name);
    let mut lines = Vec::new();
    for (item, scan) in survey.files() {
        let needed = is_needed(item);
        if let (Err(what), None) = (&item.header, scan) {
            lines.push(DamageLine::whole_file(item, what, needed));
        } else if item.foreign {
            lines.push(DamageLine::whole_file(
                item,
                "it belongs to another store",
                needed,
            ));
        }
        let Some(scan) = scan else { continue };
        if torn && Some(item.name) == last {
            continue;
        }
        lines.extend(
            scan.holes
                .iter()
                .map(|hole| DamageLine::of(item, hole, needed)),
        );
        if matches!(item.name, Name::Snapshot(_)) && !scan.closed && scan.holes.is_empty() {
            lines.push(DamageLine::whole_file(item, "it ends early", needed));
        }
    }
    lines
}

impl FileLine {
    fn of(item: &Item, scan: Option<&Scan>, needed: bool) -> Self {
        let header = item.header.as_ref().ok();
        let first = scan.and_then(|scan| Some(scan.spans.first()?.start));
        let (first, next) = match (item.name, header) {
            (Name::Snapshot(_), Some(header)) => (None, Some(header.base_seq)),
            (Name::Segment(_), Some(header)) => (
                first.or(Some(header.base_seq)),
                scan.map(|scan| scan.next_seq),
            ),
            (Name::Segment(_), None) => (first, scan.map(|scan| scan.next_seq)),
            _ => (None, None),
        };
        let newest = scan.map(|scan| scan.newest).filter(|time| time.0 > 0);
        Self {
            name: item.name.to_string(),
            generation: header.map(|header| header.generation),
            bytes: item.len,
            records: scan.map_or(0, |scan| scan.records),
            first_record: first,
            next_record: next,
            newest: newest.map(|time| time.to_string()),
            closed: scan.is_some_and(|scan| scan.closed),
            needed,
            readable: header.is_some() && !item.foreign,
        }
    }
}

impl OtherLine {
    fn of((name, other): &(String, Other)) -> Option<Self> {
        let what = match other {
            Other::Lock => return None,
            Other::Temporary => "a file whose making was cut short; the next start removes it",
            Other::Quarantined => "a torn tail that a start has put aside; nothing needs it",
            Other::Stray => "not a file of the store; the server leaves it alone",
        };
        Some(Self {
            name: name.clone(),
            what,
        })
    }
}

impl fmt::Display for FileLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {:<22} {} bytes", self.name, self.bytes)?;
        if let Some(generation) = self.generation {
            write!(f, ", generation {generation}")?;
        }
        match (self.first_record, self.next_record) {
            (None, Some(cut)) => write!(f, ", {} records, cut before record {cut}", self.records)?,
            (Some(first), Some(next)) if next > first => {
                write!(f, ", records {first} to {} ({})", next - 1, self.records)?;
            }
            (Some(_), Some(next)) => write!(f, ", no record, next is {next}")?,
            (_, None) => {}
        }
        if let Some(newest) = &self.newest {
            write!(f, ", newest {newest}")?;
        }
        let notes = [
            (self.closed, ", closed"),
            (!self.readable, ", header unreadable"),
            (!self.needed, ", not needed any more"),
        ];
        for (_, note) in notes.iter().filter(|(applies, _)| *applies) {
            f.write_str(note)?;
        }
        writeln!(f)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n\nfiles:", self.directory)?;
        for file in &self.files {
            write!(f, "{file}")?;
        }
        for other in &self.others {
            writeln!(f, "  {:<22} {}", other.name, other.what)?;
        }
        if let Some(state) = &self.state {
            writeln!(
                f,
                "\nstate of {}, next record {}:",
                state.time, self.next_record
            )?;
            write!(f, "{state}")?;
        }
        if !self.flushes.is_empty() {
            writeln!(f, "\nflush_all:")?;
        }
        for flush in &self.flushes {
            let undoable = if flush.undoable {
                "salvage --before-flush brings back what was there"
            } else {
                "what was there before is not all in the files any more"
            };
            writeln!(f, "  record {} at {}: {undoable}", flush.record, flush.time)?;
        }
        if !self.damage.is_empty() {
            writeln!(f, "\ndamage:")?;
        }
        for damage in &self.damage {
            write!(f, "{damage}")?;
        }
        if let Some(salvage) = &self.salvage {
            let base = salvage.base.as_deref().unwrap_or("no snapshot");
            writeln!(
                f,
                "\nsalvage would begin with {base}, miss {} records, leave out {} that do not \
                 fit, and give:",
                salvage.missing_records, salvage.misfits
            )?;
            write!(f, "{}", salvage.state)?;
        }
        self.verdict(f)
    }
}

impl Report {
    fn verdict(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.verdict, &self.reason) {
            (_, Some(reason)) => writeln!(
                f,
                "\nDAMAGED: a start would refuse: {reason}\nRestore a backup, or see \
                 `storage_server salvage --help`."
            ),
            ("torn", _) => writeln!(
                f,
                "\nOK: the last {} bytes are torn, as a power failure leaves them; the next start \
                 puts them aside",
                self.torn_bytes
            ),
            _ if self.damage.is_empty() => writeln!(f, "\nOK"),
            _ => writeln!(f, "\nOK: what is damaged is not needed any more"),
        }
    }
}
