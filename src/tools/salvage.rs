//! `salvage`: whatever can be read of a damaged directory, in a new one; and the state before a
//! `flush_all`.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli;
use crate::clock::Time;
use crate::exit::Exit;
use crate::journal::NewStore;
use crate::journal::disk::{Disk as _, DiskError, FileDisk, ReadOnlyDisk};
use crate::store::Store;
use crate::store::locks::ShardSet;
use crate::types::TypeTable;

use super::ToolError;
use super::check::verify;
use super::lines::{DamageLine, StateLines};
use super::plan::Plan;
use super::progress::Progress;
use super::state::{self, Outcome};
use super::survey::{Flush, Survey};

/// The page of `--help`.
pub(super) const PAGE: &str = "\
Read whatever can be read of a damaged directory into a new one, or undo a flush_all.

DIR is only read, never changed. NEW is a new or empty directory; it becomes a complete data
directory, with everything in one snapshot, from which a server can start. The memory that this
takes is that of all data, also of values that keep_in_memory leaves in their files.

If a start of DIR would succeed, NEW has exactly the state that it would have. Otherwise the
newest snapshot after which nothing is missing is taken, or else the one that loses least; and
then, in order, every record that can still be read. What that means:

Where records are missing, the result may be a state that never was. An entry may have an older
value, one that was deleted may be back, one that was set may be missing; a counter may lack steps
of a fan-out that is lost, and a fan-out after a gap steps the members that its index has then. A
record that does not fit what is there is left out, and counted. What is there is never
half a record. The report names each damage, the records that are missing and what was left out.

With --before-flush the state is that just before a flush_all came into force: the last one, or
the one that --flush names (storage_server check lists them). What was stored after it is not in
NEW. The snapshot and the journal from before a flush_all are kept until the next snapshot is
complete: stop the server at once, and do not send it HUP, reopen or snapshot.
";

/// The arguments.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
#[command(after_long_help = "\
EXIT CODES
  0   NEW is complete and nothing that was promised is missing
  65  NEW is complete, but something could not be read (see the report); or what was asked for is
      not in the files, and NEW was not made
  64  NEW is not empty, or the options make no sense
  73  a server or another tool is using a directory
  74  a directory or file cannot be read or written
  78  the configuration cannot be read

EXAMPLES
  storage_server salvage data --to data.new
  storage_server salvage data --to data.new --before-flush
  storage_server salvage data --to data.new -c /etc/storage_server/config.ini
")]
pub struct Args {
    /// The damaged directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The new directory
    #[arg(long, value_name = "NEW")]
    to: PathBuf,
    /// The state before the last `flush_all`
    #[arg(long)]
    before_flush: bool,
    /// Before the `flush_all` with this record number
    #[arg(long, value_name = "RECORD", requires = "before_flush")]
    flush: Option<u64>,
    /// Take the types from this configuration if the files have lost theirs
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Report in JSON
    #[arg(long)]
    json: bool,
    /// No progress on standard error
    #[arg(short, long)]
    quiet: bool,
}

/// What was brought over, and what was not.
#[derive(Debug, Serialize)]
struct Report {
    from: String,
    to: String,
    /// Nothing that was promised is missing.
    whole: bool,
    base: Option<String>,
    base_is_whole: bool,
    before_flush: Option<FlushLine>,
    missing_records: Vec<Missing>,
    entries_of_snapshot: u64,
    records_applied: u64,
    left_out: u64,
    left_out_first: Vec<String>,
    damage: Vec<DamageLine>,
    notes: Vec<String>,
    state: StateLines,
}

#[derive(Debug, Serialize)]
struct FlushLine {
    record: u64,
    time: String,
}

#[derive(Debug, Serialize)]
struct Missing {
    first: u64,
    last: u64,
}

/// A state to be written, and how it was come by.
struct Salvaged {
    store: Store,
    outcome: Outcome,
    plan: Plan,
    flush: Option<Flush>,
    /// A start of the old directory would give the same.
    as_started: bool,
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> Result<Exit, ToolError> {
    must_be_empty(&args.to)?;
    let types = configured_types(args)?;
    let disk = ReadOnlyDisk::open(&args.dir)?;
    let survey = Survey::take(&disk, args.quiet)?;
    let salvaged = salvage(args, &disk, &survey, types.as_ref())?;
    write(args, &survey, &salvaged)?;
    let report = Report::of(args, &survey, &salvaged);
    if args.json {
        let text = serde_json::to_string_pretty(&report).map_err(std::io::Error::other)?;
        writeln!(out, "{text}")?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(if report.whole {
        Exit::Ok
    } else {
        Exit::Damaged
    })
}

fn must_be_empty(path: &Path) -> Result<(), ToolError> {
    match ReadOnlyDisk::open(path) {
        Ok(disk) => {
            let listed = disk.list().map_err(|source| DiskError::Unreadable {
                path: path.display().to_string(),
                source,
            })?;
            if listed.is_empty() {
                return Ok(());
            }
            Err(ToolError::Usage(format!(
                "{} is not empty: name a directory that does not exist yet",
                path.display()
            )))
        }
        Err(DiskError::Unreadable { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn configured_types(args: &Args) -> Result<Option<TypeTable>, ToolError> {
    let Some(path) = &args.config else {
        return Ok(None);
    };
    let arguments = cli::Args {
        config: Some(path.clone()),
        ..cli::Args::default()
    };
    Ok(Some(cli::load(&arguments)?.0.types))
}

fn salvage(
    args: &Args,
    disk: &ReadOnlyDisk,
    survey: &Survey,
    types: Option<&TypeTable>,
) -> Result<Salvaged, ToolError> {
    let flush = args
        .before_flush
        .then(|| chosen_flush(survey, args.flush))
        .transpose()?;
    if flush.is_none()
        && let Ok((store, recovered)) = verify(disk, args.quiet)
    {
        let outcome = Outcome {
            entries: recovered.entries,
            records: recovered.records,
            time: recovered.newest_time,
            ..Outcome::default()
        };
        let plan = Plan::make(survey, None);
        return Ok(Salvaged {
            store,
            outcome,
            plan,
            flush,
            as_started: true,
        });
    }
    let plan = Plan::make(survey, flush.map(|flush| flush.seq));
    if survey.snapshots().next().is_none() && survey.segments().next().is_none() {
        let dir = args.dir.display();
        return Err(ToolError::Damaged(format!(
            "there is nothing to be read in {dir}: no snapshot and no journal file of a store"
        )));
    }
    if flush.is_some() && plan.base.is_none() {
        return Err(gone());
    }
    let (store, outcome) = state::make(survey, &plan, types, args.quiet);
    Ok(Salvaged {
        store,
        outcome,
        plan,
        flush,
        as_started: false,
    })
}

fn gone() -> ToolError {
    ToolError::Damaged(
        "there is no flush_all in the files that could be undone: a snapshot was written after the \
         last one, and what was there before it is gone; restore a backup"
            .to_owned(),
    )
}

fn chosen_flush(survey: &Survey, record: Option<u64>) -> Result<Flush, ToolError> {
    match record {
        None => survey.flushes.last().copied().ok_or_else(gone),
        Some(record) => {
            let mut flushes = survey.flushes.iter();
            let found = flushes.find(|flush| flush.seq == record);
            found.copied().ok_or_else(|| {
                ToolError::Damaged(format!(
                    "record {record} is no flush_all: `storage_server check` lists them"
                ))
            })
        }
    }
}

/// Writes the new directory. It counts only when all of it is there.
fn write(args: &Args, survey: &Survey, salvaged: &Salvaged) -> Result<(), ToolError> {
    let disk = FileDisk::open(&args.to)?;
    let store = &salvaged.store;
    let mut new = NewStore::begin(&disk, survey.next_seq(), salvaged.outcome.time)?;
    new.types(&store.types())?;
    // A flush that was still to come is what is being undone, or may be.
    if let (None, Some(at)) = (salvaged.flush, store.pending_flush().time()) {
        new.pending_flush(at)?;
    }
    let total = store.memory_bytes();
    let mut progress = Progress::bytes("writing", total, args.quiet);
    let shards = store.read_set(ShardSet::ALL);
    for shard in shards.shards() {
        shard.for_each(salvaged.outcome.time, |key, view| {
            new.entry(key, &view.to_entry())
        })?;
        progress.advance(shard.memory_bytes());
    }
    Ok(new.finish()?)
}

impl Report {
    fn of(args: &Args, survey: &Survey, salvaged: &Salvaged) -> Self {
        let Salvaged {
            store,
            outcome,
            plan,
            flush,
            as_started,
        } = salvaged;
        let files = survey
            .files()
            .filter_map(|(item, scan)| Some((item, scan?)));
        let used = files.filter(|(item, scan)| !as_started && plan.uses(item, scan));
        let damage = used.flat_map(|(item, scan)| {
            scan.holes
                .iter()
                .map(|hole| DamageLine::of(item, hole, true))
        });
        let missing = plan.gaps.iter().map(|gap| Missing {
            first: gap.start,
            last: gap.end - 1,
        });
        Self {
            from: args.dir.display().to_string(),
            to: args.to.display().to_string(),
            whole: *as_started || (plan.is_whole() && outcome.misfits == 0),
            base: plan.base.map(|name| name.to_string()),
            base_is_whole: plan.base_is_whole,
            before_flush: flush.map(|flush| FlushLine {
                record: flush.seq,
                time: flush.time.to_string(),
            }),
            missing_records: missing.filter(|_| !as_started).collect(),
            entries_of_snapshot: outcome.entries,
            records_applied: outcome.records,
            left_out: outcome.misfits,
            left_out_first: outcome.told.clone(),
            damage: damage.collect(),
            notes: notes(args, survey, salvaged),
            state: StateLines::of(store, outcome.time),
        }
    }
}

fn notes(args: &Args, survey: &Survey, salvaged: &Salvaged) -> Vec<String> {
    let mut notes = Vec::new();
    let plan = &salvaged.plan;
    if salvaged.as_started {
        notes.push("a start of the old directory gives the same state".to_owned());
    } else if plan.base.is_none() {
        notes.push("no snapshot could be read: only what the journal has is there".to_owned());
    } else if !plan.base_is_whole {
        notes.push(
            "the snapshot is damaged: entries that were not changed since are missing".into(),
        );
    }
    if plan.cut_is_guessed && !salvaged.as_started {
        notes.push(
            "the snapshot's header is damaged: steps just before its cut may count twice".into(),
        );
    }
    if salvaged.outcome.misfits > 0 && args.config.is_none() {
        notes.push("if records of declared types were left out, try again with -c FILE".to_owned());
    }
    if let Some(flush) = salvaged.flush {
        let after = survey.next_seq().saturating_sub(flush.seq + 1);
        notes.push(format!(
            "{after} records from after the flush_all are not in the new directory"
        ));
        if salvaged
            .store
            .pending_flush()
            .time()
            .is_some_and(|at| at > Time(0))
        {
            notes.push("the delayed flush_all that was under way is not in it either".to_owned());
        }
    }
    notes
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} -> {}\n", self.from, self.to)?;
        if let Some(flush) = &self.before_flush {
            writeln!(
                f,
                "before the flush_all of {}, record {}",
                flush.time, flush.record
            )?;
        }
        let base = self.base.as_deref().unwrap_or("no snapshot");
        writeln!(
            f,
            "{base}: {} entries; {} records applied after it; {} left out",
            self.entries_of_snapshot, self.records_applied, self.left_out
        )?;
        for gap in &self.missing_records {
            writeln!(f, "missing: records {} to {}", gap.first, gap.last)?;
        }
        for line in &self.left_out_first {
            writeln!(f, "left out: {line}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        if !self.damage.is_empty() {
            writeln!(f, "\ndamage:")?;
        }
        for damage in &self.damage {
            write!(f, "{damage}")?;
        }
        writeln!(f, "\nthe new directory has:\n{}", self.state)?;
        if self.whole {
            writeln!(f, "OK: nothing that was promised is missing")
        } else {
            writeln!(f, "INCOMPLETE: what is missing is named above")
        }
    }
}
