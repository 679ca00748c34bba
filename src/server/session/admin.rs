//! What a conversation asks of the server itself.

use super::super::dump::{self, BadClass, Dumping};
use super::super::output::Output;
use super::super::report;
use super::super::shared::Shared;
use super::{Flow, Session};
use crate::command::Reply;
use crate::protocol::memcached::encode;
use crate::protocol::memcached::{Admin, Dump};
use crate::stats::Tally;

impl Session {
    pub(super) fn admin(
        &mut self,
        shared: &Shared,
        tally: &Tally,
        admin: Admin<'_>,
        noreply: bool,
        out: &mut Output,
    ) -> Flow {
        let bytes = out.bytes();
        match admin {
            Admin::Stats(topic, rest) => {
                if let Err(complaint) = report::stats(shared, topic, rest, bytes) {
                    return self.complain(shared, tally, complaint, noreply, out);
                }
            }
            Admin::Dump {
                dump,
                classes,
                limit,
            } => match Dumping::begin(shared, dump, classes, limit) {
                Ok(dumping) => self.dumping = Some(Box::new(dumping)),
                Err(BadClass) => encode::bad_class(dump, bytes),
            },
            Admin::Crawl(classes) => match dump::walked(shared, classes) {
                Ok(_) => encode::reply(&Reply::Ok, bytes),
                Err(BadClass) => encode::bad_class(Dump::Meta, bytes),
            },
            Admin::CacheMemlimit(limit) => {
                let reply = shared.limit_memory(limit);
                if !noreply {
                    encode::write_line(format_args!("{reply}"), bytes);
                }
                // A turn has the settings that it began with: what comes next is another turn's.
                return Flow::Later;
            }
            Admin::ShowTypes => {
                for row in shared.engine().store().types().rows() {
                    let (prefix, kind) = (row.prefix, row.kind.name());
                    encode::write_line(format_args!("{prefix} {kind}"), bytes);
                }
                encode::end(bytes);
            }
            Admin::Version => {
                encode::write_line(format_args!("VERSION {}", env!("CARGO_PKG_VERSION")), bytes);
            }
            Admin::NoOp => bytes.extend_from_slice(b"MN\r\n"),
            Admin::Verbosity if noreply => {}
            Admin::Verbosity | Admin::Crawler => encode::reply(&Reply::Ok, bytes),
            Admin::Quit => return Flow::Close,
            Admin::Reopen => return Flow::Reopen,
            Admin::Snapshot => return Flow::Snapshot,
            Admin::Terminate => {
                if let Some(refusal) = shared.forbids_term(&self.peer) {
                    return self.refuse(shared, tally, &refusal, noreply, out);
                }
                return Flow::Terminate;
            }
        }
        Flow::Read
    }
}
