//! What a conversation is before its client has said who it is.

use super::super::entrance::Heard;
use super::super::output::Output;
use super::super::shared::Shared;
use super::{Flow, Session};
use crate::protocol::memcached::login::Verdict;
use crate::stats::{Metric, Tally};

impl Session {
    /// Takes what became of the login; `None` if it was not even looked at.
    pub fn checked(
        &mut self,
        shared: &Shared,
        tally: &Tally,
        allowed: Option<bool>,
        out: &mut Output,
    ) -> Flow {
        let Some(entrance) = &mut self.entrance else {
            return Flow::Read;
        };
        let verdict = Verdict::of(allowed);
        tally.add(Metric::AuthCmds, 1);
        let flow = entrance.say(verdict, out.bytes());
        if verdict == Verdict::Stored {
            // Who cannot be told that it is in stays out.
            if flow == Flow::Read {
                self.entrance = None;
            }
        } else {
            tally.add(Metric::AuthErrors, 1);
            shared.log_refused(&self.peer, false, verdict.cause());
        }
        flow
    }

    /// Hears a client that has not said who it is: nothing that it says is a command.
    pub(super) fn knock(
        &mut self,
        shared: &Shared,
        tally: &Tally,
        input: &[u8],
        out: &mut Output,
    ) -> (usize, Flow) {
        let mut at = 0;
        while let Some(entrance) = &mut self.entrance {
            let rest = input.get(at..).unwrap_or_default();
            let (taken, heard) = entrance.hear(rest, out.bytes());
            at += taken;
            let flow = match heard {
                Heard::Nothing => return (at, Flow::Read),
                Heard::Login => Flow::Login,
                Heard::Refused { cause, flow } => {
                    shared.log_refused(&self.peer, false, cause);
                    flow
                }
                Heard::Foreign(complaint) => self.complain(shared, tally, complaint, false, out),
            };
            if flow != Flow::Read {
                return (at, flow);
            }
        }
        (at, Flow::Read)
    }
}
