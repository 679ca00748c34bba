//! What `check` and `salvage` both report: how much there is, and what is damaged.

use std::fmt;

use serde::Serialize;

use crate::clock::Time;
use crate::journal::inspect::{Hole, Item};
use crate::store::Store;

/// How much of each type there is.
#[derive(Debug, Serialize)]
pub(super) struct StateLines {
    pub(super) time: String,
    types: Vec<TypeLine>,
}

#[derive(Debug, Serialize)]
struct TypeLine {
    name: String,
    entries: usize,
    bytes: usize,
}

/// A damage, and what it costs.
#[derive(Debug, Serialize)]
pub(super) struct DamageLine {
    file: String,
    offset: u64,
    bytes: u64,
    first_lost: Option<u64>,
    next_read: Option<u64>,
    what: String,
    needed: bool,
}

impl DamageLine {
    pub(super) fn of(item: &Item, hole: &Hole, needed: bool) -> Self {
        Self {
            file: item.name.to_string(),
            offset: hole.offset,
            bytes: hole.bytes,
            first_lost: hole.lost.as_ref().map(|lost| lost.start),
            next_read: hole.lost.as_ref().map(|lost| lost.end),
            what: hole.what.clone(),
            needed,
        }
    }

    pub(super) fn whole_file(item: &Item, what: &str, needed: bool) -> Self {
        Self {
            file: item.name.to_string(),
            offset: 0,
            bytes: item.len,
            first_lost: None,
            next_read: None,
            what: what.to_owned(),
            needed,
        }
    }
}

impl StateLines {
    pub(super) fn of(store: &Store, time: Time) -> Self {
        let (types, named) = store.sizes();
        let table = store.types();
        let kind = |prefix| table.get(prefix).map_or("", |row| row.kind.name());
        let numbered = types.into_iter().map(|(prefix, sizes)| TypeLine {
            name: format!("{prefix} {}", kind(prefix)),
            entries: sizes.entries,
            bytes: sizes.bytes,
        });
        let named = TypeLine {
            name: "named keys".to_owned(),
            entries: named.entries,
            bytes: named.bytes,
        };
        Self {
            time: time.to_string(),
            types: numbered.chain([named]).collect(),
        }
    }
}

impl fmt::Display for StateLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.types {
            writeln!(
                f,
                "  {:<14} {:>12} entries, {} bytes in memory",
                line.name, line.entries, line.bytes
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for DamageLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {} at offset {}", self.file, self.offset)?;
        if self.bytes > 0 {
            write!(f, ", {} bytes", self.bytes)?;
        }
        write!(f, ": {}", self.what)?;
        match (self.first_lost, self.next_read) {
            (Some(first), Some(next)) if next > first => {
                write!(f, "; records {first} to {} are lost", next - 1)?;
            }
            _ => {}
        }
        if !self.needed {
            write!(f, " (nothing needs this file any more)")?;
        }
        writeln!(f)
    }
}
