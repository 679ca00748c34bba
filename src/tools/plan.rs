//! What a state can be made of when a start refuses to: which snapshot, and which records after
//! it.
//!
//! The rule: of the snapshots that are whole, the newest one after which no record is missing; if
//! there is none, the whole one with the fewest records missing after it; if none is whole, the
//! newest of which anything can be read; without any, every record there is.

use std::ops::Range;

use crate::journal::disk::Name;
use crate::journal::inspect::{Item, Scan};

use super::survey::Survey;

/// What to read, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The snapshot to begin with.
    pub(super) base: Option<Name>,
    /// Its entries are all there.
    pub(super) base_is_whole: bool,
    /// Its cut is not known, because its header is damaged.
    pub(super) cut_is_guessed: bool,
    /// The first record that counts.
    pub(super) from: u64,
    /// The first record that does not.
    pub(super) upto: Option<u64>,
    /// Records that are missing in between.
    pub(super) gaps: Vec<Range<u64>>,
}

impl Plan {
    /// The plan for the state before record `upto`, or for the newest one.
    pub(super) fn make(survey: &Survey, upto: Option<u64>) -> Self {
        let mut best: Option<Self> = None;
        for (item, scan) in survey.snapshots().rev() {
            let plan = Self::from(survey, (item, scan), upto);
            if upto.is_some_and(|upto| plan.from > upto) || scan.records == 0 {
                continue;
            }
            if best.as_ref().is_none_or(|best| plan.rank() < best.rank()) {
                best = Some(plan);
            }
        }
        best.unwrap_or_else(|| Self {
            from: 1,
            upto,
            gaps: gaps(survey, 1, upto),
            ..Self::default()
        })
    }

    fn from(survey: &Survey, (item, scan): (&Item, &Scan), upto: Option<u64>) -> Self {
        let (from, cut_is_guessed) = match &item.header {
            Ok(header) => (header.base_seq, false),
            Err(_) => (guessed_cut(survey, item), true),
        };
        Self {
            base: Some(item.name),
            base_is_whole: scan.closed && scan.holes.is_empty(),
            cut_is_guessed,
            from,
            upto,
            gaps: gaps(survey, from, upto),
        }
    }

    /// Plans of a lower rank lose less; of equals the newer snapshot comes first.
    fn rank(&self) -> (bool, u64) {
        let missing = if self.base_is_whole {
            self.missing()
        } else {
            0
        };
        (!self.base_is_whole, missing)
    }

    /// How many records are missing.
    pub(super) fn missing(&self) -> u64 {
        self.gaps.iter().map(|gap| gap.end - gap.start).sum()
    }

    /// Nothing that a start would give is missing.
    pub(super) fn is_whole(&self) -> bool {
        self.base_is_whole && !self.cut_is_guessed && self.gaps.is_empty()
    }

    /// True for a file that the state is made of.
    pub(super) fn uses(&self, item: &Item, scan: &Scan) -> bool {
        match item.name {
            Name::Segment(_) => {
                let upto = self.upto.unwrap_or(u64::MAX);
                let mut spans = scan.spans.iter();
                spans.any(|span| span.end > self.from && span.start < upto)
            }
            name => self.base == Some(name),
        }
    }
}

/// The cut of a snapshot without a header: it is in the segment of the same number, after the
/// newest cas unique that the snapshot has.
fn guessed_cut(survey: &Survey, item: &Item) -> u64 {
    let beside = survey
        .segments()
        .find(|(segment, _)| segment.number() == item.number());
    let base = beside.and_then(|(segment, _)| Some(segment.header.as_ref().ok()?.base_seq));
    let cas = survey.cas_max.iter().find(|(name, _)| *name == item.name);
    let after_cas = cas.map_or(0, |(_, cas)| cas.saturating_add(1));
    base.unwrap_or(0).max(after_cas).max(1)
}

/// The records from `from` to `upto`, or to the last one known of, that cannot be read.
fn gaps(survey: &Survey, from: u64, upto: Option<u64>) -> Vec<Range<u64>> {
    let mut gaps = Vec::new();
    let mut expected = from;
    let mut reach = |to: Range<u64>| {
        if to.start > expected {
            gaps.push(expected..to.start);
        }
        expected = expected.max(to.end).max(to.start);
    };
    for (item, scan) in survey.segments() {
        if let Ok(header) = &item.header {
            reach(header.base_seq..header.base_seq);
        }
        for span in &scan.spans {
            reach(span.clone());
        }
        let promised = scan.holes.last().filter(|_| scan.promised);
        if let Some(lost) = promised.and_then(|hole| hole.lost.clone()) {
            reach(lost.end..lost.end);
        }
    }
    if let Some(upto) = upto {
        reach(upto..upto);
        for gap in &mut gaps {
            gap.end = gap.end.min(upto);
        }
        gaps.retain(|gap| gap.start < gap.end);
    }
    gaps
}
