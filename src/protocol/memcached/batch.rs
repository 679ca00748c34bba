//! Requests that have arrived together, read before the first of them is executed, so that what
//! they will look at can be fetched into the processor's cache meanwhile.

use smallvec::SmallVec;

use super::Action;
use super::parse::{Parser, Step};
use crate::limits::LOOK_AHEAD;

/// What was read from the front of the input, and where it was.
#[derive(Debug)]
pub struct Parsed<'a> {
    /// How many bytes of failed requests' blocks came before it.
    pub passed_over: usize,
    /// How many bytes it took, with those.
    pub taken: usize,
    /// What it is.
    pub step: Step<'a>,
}

/// Requests, and at the end perhaps something that is none.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    parsed: SmallVec<[Parsed<'a>; LOOK_AHEAD]>,
    taken: usize,
}

impl<'a> Batch<'a> {
    /// Reads what is at the front of `input`, at least one step. `value_max` is the longest value.
    pub fn read(&mut self, parser: &mut Parser, input: &'a [u8], value_max: usize) {
        self.parsed.clear();
        self.taken = 0;
        let mut at = 0;
        loop {
            let rest = input.get(at..).unwrap_or_default();
            let (taken, step) = parser.next(rest, value_max);
            let passed_over = parser.passed_over();
            at += taken;
            let more = matches!(step, Step::Request(_)) && at < input.len();
            self.parsed.push(Parsed {
                passed_over,
                taken,
                step,
            });
            if !more || self.parsed.len() == LOOK_AHEAD {
                return;
            }
        }
    }

    /// The next step, if there is one.
    pub fn take(&mut self) -> Option<&Parsed<'a>> {
        let next = self.parsed.get(self.taken)?;
        self.taken += 1;
        Some(next)
    }

    /// True if not all steps have been taken. The parser is ahead of those that are left, which
    /// it has to read again: to forget what it knows is enough, since all before them were
    /// requests, behind which nothing has to be passed over.
    pub fn is_left(&self) -> bool {
        self.taken < self.parsed.len()
    }

    /// The keys of the steps, if there is more than one.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let many = if self.parsed.len() > 1 {
            self.parsed.as_slice()
        } else {
            &[]
        };
        many.iter().filter_map(|parsed| match &parsed.step {
            Step::Request(request) => match &request.action {
                Action::Data(command) => command.key(),
                Action::Admin(_) => None,
            },
            Step::Complaint { .. } | Step::Incomplete => None,
        })
    }
}
