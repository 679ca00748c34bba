//! How long one connection may hold its worker up while others wait, and what its requests cost.
//!
//! The clock is not read for each request: cheap ones are counted, and what may take long
//! however short it is counts as many.

use std::time::Duration;

use crate::clock::Tick;
use crate::command::meta::Act;
use crate::command::{Command, Meta, Mode};
use crate::protocol::memcached::{Action, Request};

/// The time of one turn.
const TURN: Duration = Duration::from_millis(2);

/// After how many requests, or their equal, the clock is looked at.
const LOOK_AFTER: usize = 256;

/// How many bytes of input count as one request more.
const BYTES_AS_ONE: usize = 4 << 10;

/// How many steps of a fan-out count as one request more.
const COUNTERS_AS_ONE: u64 = 16;

/// As how many requests a piece of a dump counts.
const PIECE_WORK: usize = 64;

/// What one call of a session may do.
#[derive(Debug, Default)]
pub struct Budget {
    /// Work since the clock was looked at, in requests.
    work: usize,
}

impl Budget {
    /// Takes down a request: how many bytes it had and how many counters its fan-out changed.
    pub fn spend(&mut self, request: Option<&Request<'_>>, bytes: usize, counters: u64) {
        let counters = usize::try_from(counters / COUNTERS_AS_ONE).unwrap_or(usize::MAX / 2);
        self.work += 1 + bytes / BYTES_AS_ONE + counters + request.map_or(0, surcharge);
    }

    /// Takes down a piece of a dump.
    pub fn spend_piece(&mut self) {
        self.work += PIECE_WORK;
    }

    /// True if the turn that began at `begun` has been long enough.
    pub fn is_spent(&mut self, begun: Tick) -> bool {
        if self.work < LOOK_AFTER {
            return false;
        }
        self.work = 0;
        begun.elapsed() > TURN
    }
}

/// What counts as more requests than one: edits of values that may be large, retrievals of many
/// keys, whatever goes over the whole store.
fn surcharge(request: &Request<'_>) -> usize {
    match &request.action {
        Action::Data(Command::Put(put)) if matches!(put.mode, Mode::Append | Mode::Prepend) => 32,
        Action::Data(Command::Meta(meta)) if extends(meta) => 32,
        Action::Data(Command::Fetch(fetch)) => fetch.keys.len() / 4,
        Action::Data(
            Command::Put(_)
            | Command::PutMany(_)
            | Command::Arith(_)
            | Command::Delete { .. }
            | Command::Touch { .. }
            | Command::Meta(_),
        ) => 0,
        Action::Data(Command::FlushAll { .. }) | Action::Admin(_) => 32,
    }
}

fn extends(meta: &Meta<'_>) -> bool {
    matches!(&meta.act, Act::Set(set) if matches!(set.mode, Mode::Append | Mode::Prepend))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_looked_at_only_after_much_work() {
        let (mut budget, long_ago) = (Budget::default(), Tick::now());
        while long_ago.elapsed() <= TURN {}
        for _ in 1..LOOK_AFTER {
            budget.spend(None, 10, 0);
            assert!(!budget.is_spent(long_ago));
        }
        budget.spend(None, 10, 0);
        assert!(budget.is_spent(long_ago));
        // One fan-out over many counters is enough.
        budget.spend(None, 10, COUNTERS_AS_ONE * LOOK_AFTER as u64);
        assert!(budget.is_spent(long_ago));
        assert!(!budget.is_spent(long_ago), "a new count has begun");
    }
}
