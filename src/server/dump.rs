//! Dumps of keys: `lru_crawler metadump` and `mgdump`, `stats cachedump`. A type's number is its
//! class, and that of the named keys comes after all types; whoever tries memcached's classes one
//! by one, as memcdump does, finds them in 0.
//!
//! Invariant: a dump goes on while the store does. It holds the lock of one shard for a few
//! buckets at a time, and never more of it waits for the client than other replies would.

use super::output::Output;
use super::shared::Shared;
use crate::key::{self, NAMED_CLASS};
use crate::protocol::memcached::{Dump, encode};
use crate::store::walk::Walk;

/// memcached's largest class: up to this one a class without entries is empty, not unknown.
const CLASS_MAX: u16 = 63;

/// A dump on its way to the client.
#[derive(Debug)]
pub(super) struct Dumping {
    dump: Dump,
    walk: Walk,
    /// How many entries may still be listed.
    left: u64,
}

/// There is no such class.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadClass;

/// Whether a dump goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// There is more.
    More,
    /// Its last line has been written.
    Done,
}

impl Dumping {
    /// A dump of the classes of a comma-separated list, of `all` of them, or `hash`: all, too.
    pub(super) fn begin(
        shared: &Shared,
        dump: Dump,
        classes: &[u8],
        limit: u64,
    ) -> Result<Self, BadClass> {
        Ok(Self {
            dump,
            walk: Walk::over(walked(shared, classes)?),
            left: if limit == 0 { u64::MAX } else { limit },
        })
    }

    /// Writes the next entries.
    pub(super) fn go_on(&mut self, shared: &Shared, out: &mut Output) -> Progress {
        let engine = shared.engine();
        let now = engine.clock().latest();
        let (dump, left) = (self.dump, &mut self.left);
        let mut lines = Vec::new();
        let more = engine.store().walk(&mut self.walk, now, &mut |key, view| {
            if *left > 0 {
                *left -= 1;
                encode::dumped(dump, key, view, now, &mut lines);
            }
        });
        let is_done = !more || *left == 0;
        if is_done {
            encode::dump_end(dump, &mut lines);
        }
        // What is shown has been journalled by now, and is safe before it leaves.
        let seen = engine.journal().appended();
        out.reply(seen, false, |bytes| bytes.extend_from_slice(&lines));
        if is_done {
            Progress::Done
        } else {
            Progress::More
        }
    }
}

/// The types, and with `None` the named keys, that a list of classes means.
pub(super) fn walked(shared: &Shared, classes: &[u8]) -> Result<Vec<Option<u16>>, BadClass> {
    let types = shared.engine().store().types();
    if matches!(classes, b"all" | b"hash") {
        let prefixes = types.rows().iter().map(|row| Some(row.prefix));
        return Ok(std::iter::once(None).chain(prefixes).collect());
    }
    let mut found = Vec::new();
    for word in classes.split(|byte| *byte == b',') {
        let class = key::decimal(word).ok_or(BadClass)?;
        if class == 0 || class == u64::from(NAMED_CLASS) {
            found.push(None);
            continue;
        }
        match u16::try_from(class) {
            Ok(prefix) if types.position(prefix).is_some() => found.push(Some(prefix)),
            Ok(empty) if empty <= CLASS_MAX => {}
            Ok(_) | Err(_) => return Err(BadClass),
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}
