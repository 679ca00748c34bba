//! What a directory holds, file by file, damaged or not: what `check` tells and what `salvage`
//! plans by. Nothing is decided here.

use crate::clock::Time;
use crate::command::change::Change;
use crate::journal::disk::{Disk, Name};
use crate::journal::inspect::{Catalog, Item, Scan, Sink};
use crate::key::Key;
use crate::value::{Entry, Value};

use super::ToolError;
use super::progress::Progress;

/// A directory that was read once.
pub(super) struct Survey {
    pub(super) catalog: Catalog,
    /// What reading each of the catalog's files has shown; `None` for those without records, and
    /// for those that cannot be read at all.
    pub(super) scans: Vec<Option<Scan>>,
    /// Every `flush_all` that came into force, in order.
    pub(super) flushes: Vec<Flush>,
    /// The highest cas unique of a snapshot's entries, by the snapshot's number.
    pub(super) cas_max: Vec<(Name, u64)>,
}

/// A `flush_all`, when it came into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flush {
    pub(super) seq: u64,
    pub(super) time: Time,
    pub(super) file: Name,
}

struct Look<'p> {
    file: Name,
    flushes: Vec<Flush>,
    cas_max: u64,
    progress: &'p mut Progress,
}

impl Sink for Look<'_> {
    fn entry(&mut self, _: Key<'_>, entry: Entry) {
        // A counter's is made of its number.
        if !matches!(entry.value, Value::Number(_)) {
            self.cas_max = self.cas_max.max(entry.cas);
        }
    }

    fn change(&mut self, seq: u64, time: Time, change: Change<'_>) {
        if seq > 0 && change == (Change::Flush { at: None }) {
            self.flushes.push(Flush {
                seq,
                time,
                file: self.file,
            });
        }
    }

    fn progress(&mut self, bytes: u64) {
        self.progress.advance(bytes);
    }
}

impl Survey {
    /// Reads every file.
    pub(super) fn take(disk: &dyn Disk, quiet: bool) -> Result<Self, ToolError> {
        let catalog = Catalog::read(disk)?;
        let total = catalog.files.iter().map(|item| item.len).sum();
        let mut progress = Progress::bytes("looking at the files", total, quiet);
        let mut survey = Self {
            scans: Vec::new(),
            flushes: Vec::new(),
            cas_max: Vec::new(),
            catalog,
        };
        for item in &survey.catalog.files {
            let mut look = Look {
                file: item.name,
                flushes: Vec::new(),
                cas_max: 0,
                progress: &mut progress,
            };
            survey
                .scans
                .push(item.scan(survey.catalog.log_id, &mut look));
            survey.flushes.append(&mut look.flushes);
            survey.cas_max.push((item.name, look.cas_max));
        }
        Ok(survey)
    }

    /// The files with what they showed.
    pub(super) fn files(&self) -> impl DoubleEndedIterator<Item = (&Item, Option<&Scan>)> {
        let scans = self.scans.iter().map(Option::as_ref);
        self.catalog.files.iter().zip(scans)
    }

    /// The snapshots that can be read, at least in part.
    pub(super) fn snapshots(&self) -> impl DoubleEndedIterator<Item = (&Item, &Scan)> {
        self.files().filter_map(|(item, scan)| match item.name {
            Name::Snapshot(_) => Some((item, scan?)),
            Name::Segment(_) | Name::Store | Name::Lock => None,
        })
    }

    /// The segments that can be read, at least in part.
    pub(super) fn segments(&self) -> impl DoubleEndedIterator<Item = (&Item, &Scan)> {
        self.files().filter_map(|(item, scan)| match item.name {
            Name::Segment(_) => Some((item, scan?)),
            Name::Snapshot(_) | Name::Store | Name::Lock => None,
        })
    }

    /// The first sequence number that nothing here has used, as far as can be seen.
    pub(super) fn next_seq(&self) -> u64 {
        let records = self.segments().map(|(_, scan)| {
            let lost = scan.holes.iter().filter_map(|hole| hole.lost.clone());
            lost.map(|lost| lost.end)
                .max()
                .unwrap_or(0)
                .max(scan.next_seq)
        });
        let cuts = self
            .snapshots()
            .filter_map(|(item, _)| Some(item.header.as_ref().ok()?.base_seq));
        let cas = self.cas_max.iter().map(|(_, cas)| cas.saturating_add(1));
        records.chain(cuts).chain(cas).max().unwrap_or(1).max(1)
    }
}
