//! Values: what an entry holds. One file per value type: its memory form, operations and wire
//! form. Values know nothing of commands, time or storage.

mod block;
mod chunk;
pub mod counter;
pub mod data;
pub mod head;
pub mod index;

use std::sync::Arc;

use crate::clock::Expiry;
pub use block::LONG_BYTES;
pub use counter::Delta;
pub use data::{Blob, Content, Place};
pub use head::{Attributes, Head, Marks};
pub use index::{Index, Member};

/// A value on its own, shared where it is large: cloning one is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// What a COUNTER or COUNTER64 holds.
    Number(u64),
    /// What an INDEX holds.
    Index(Arc<Index>),
    /// What a DATA or named key holds.
    Data(Blob),
}

impl Value {
    /// About what the value takes in memory, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        let bytes = match self {
            Self::Number(_) => size_of::<u64>(),
            Self::Index(index) => index.heap_bytes(),
            Self::Data(blob) => blob.heap_bytes(),
        };
        bytes as u64
    }

    /// This one's part of the memory that the value takes: whoever else has the value has as
    /// much, so that what all of them have is what it takes.
    pub fn part_bytes(&self) -> usize {
        match self {
            Self::Number(_) => 0,
            Self::Index(index) => index.heap_bytes() / Arc::strong_count(index),
            Self::Data(blob) => blob.heap_bytes() / blob.shares().max(1),
        }
    }
}

/// All that is known of one entry. A view, not the storage: tables keep only what is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Value,
    /// The client's flags.
    pub flags: u32,
    /// When the entry ends.
    pub expires: Expiry,
    /// The cas unique: the sequence number of the last change, or for a counter a function of
    /// value, flags and expiry.
    pub cas: u64,
    /// What the entry bears.
    pub marks: Marks,
}
