//! The one buffer that records wait in until they are written.
//!
//! Invariant: records are in it in the order of their sequence numbers, which it gives out; no
//! I/O happens under its lock. The journal's other modules use it.

use std::sync::Arc;

use super::encode::{self, Noted, Payload};
use super::places::Leaving;
use super::record::BATCH_HEADER_BYTES;
use crate::clock::Time;
use crate::command::change::Change;
use crate::types::TypeTable;

/// A batch is closed when it is larger than this: a record more stays far below
/// [`crate::limits::BATCH_BYTES_MAX`].
const PART_BYTES: usize = 16 << 20;

/// What becomes one batch.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) payload: Payload,
    pub(super) first_seq: u64,
    pub(super) count: u32,
    pub(super) base: Time,
    pub(super) newest: Time,
    /// Its values that do not have to stay in memory.
    pub(super) leaving: Vec<Leaving>,
}

impl Part {
    /// The room that its records were charged with.
    pub(super) fn charged(&self) -> u64 {
        self.payload.len() as u64 + u64::from(self.count) * BATCH_HEADER_BYTES as u64
    }

    /// Keeps of the values of record `seq` in mind which may leave.
    fn note_leaving(&mut self, types: &TypeTable, seq: u64) {
        for Noted { key, at, len } in self.payload.values.drain(..) {
            if let (true, Ok(len)) = (types.may_leave(key.prefix, len), u32::try_from(len)) {
                let offset = at as u64;
                self.leaving.push(Leaving {
                    key,
                    seq,
                    file: 0,
                    offset,
                    len,
                });
            }
        }
    }

    /// Forgets the records and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.payload.clear();
        self.leaving.clear();
        self.count = 0;
        self.newest = Time(0);
    }
}

/// The buffer.
#[derive(Debug)]
pub(super) struct Buffer {
    pub(super) next_seq: u64,
    current: Part,
    full: Vec<Part>,
    /// Records are numbered and forgotten: the storage has failed.
    dropping: bool,
    types: Arc<TypeTable>,
    /// A type lets values leave memory.
    values_leave: bool,
}

impl Buffer {
    pub(super) fn new(next_seq: u64) -> Self {
        let current = Part {
            first_seq: next_seq,
            ..Part::default()
        };
        Self {
            next_seq,
            current,
            full: Vec::new(),
            dropping: false,
            types: Arc::default(),
            values_leave: false,
        }
    }

    /// Which values may leave memory from now on.
    pub(super) fn set_types(&mut self, types: Arc<TypeTable>) {
        self.values_leave = types.rows().iter().any(|row| row.keep_in_memory.is_some());
        self.types = types;
    }

    /// Takes a record; answers its sequence number and the room that it is charged with.
    #[inline]
    pub(super) fn put(
        &mut self,
        time: Time,
        change: &Change<'_>,
        prepared: Option<Payload>,
    ) -> (u64, u64) {
        let seq = self.next_seq;
        self.next_seq += 1;
        if self.dropping {
            return (seq, 0);
        }
        if self.current.payload.len() >= PART_BYTES {
            let next = Part {
                first_seq: seq,
                ..Part::default()
            };
            self.full.push(std::mem::replace(&mut self.current, next));
        }
        let part = &mut self.current;
        if part.count == 0 {
            part.base = time;
            part.first_seq = seq;
        }
        part.payload.notes_values = self.values_leave;
        let before = part.payload.len();
        encode::put_change(&mut part.payload, part.base, time, change, prepared);
        if self.values_leave {
            part.note_leaving(&self.types, seq);
        }
        part.count += 1;
        part.newest = part.newest.max(time);
        let charged = part.payload.len() - before + BATCH_HEADER_BYTES;
        (seq, charged as u64)
    }

    /// Takes all records out: full parts, and the current one in exchange for an empty one.
    pub(super) fn take(&mut self, empty: &mut Part) -> Vec<Part> {
        std::mem::swap(&mut self.current, empty);
        std::mem::take(&mut self.full)
    }

    /// Forgets all records, and all that come; answers the room that they were charged with.
    pub(super) fn drop_all(&mut self) -> u64 {
        self.dropping = true;
        let full: u64 = self.full.iter().map(Part::charged).sum();
        let charged = full + self.current.charged();
        self.full.clear();
        self.current.clear();
        charged
    }

    /// Keeps the records that come; answers the first one's sequence number.
    pub(super) fn keep(&mut self) -> u64 {
        self.dropping = false;
        self.next_seq
    }
}
